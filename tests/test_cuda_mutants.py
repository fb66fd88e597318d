"""Bugs planted in the CUDA sources, each of which the shim must catch.

A mutant is one replacement in one file, caught when a schedule finds a case that disagrees with its
twin. A replacement whose text no longer occurs once is an error, so a mutant cannot fade away.
"""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from cuda_proof import build

MLP, TOPK, NMS = "kernels/product_mlp.cuh", "kernels/topk.cuh", "kernels/nms.cuh"
PROPOSE, DETECT = "kernels/propose.cuh", "kernels/detect.cuh"
# name: cases that must notice, file, text, replacement
MUTANTS = {
    "missing barrier before a stage is read": (
        "product_mlp-float16", MLP, "sync_block();  // this stage is complete", "// complete"),
    "missing barrier before the stages are reused": (
        "product_mlp-float16", MLP, "sync_block();  // the stages are free", "// free"),
    "missing barrier before the last sum": (
        "product_mlp-float16", MLP, "  sync_block();\n  const int pair =", "  const int pair ="),
    "wrong wait group": (
        "product_mlp-float16", MLP, "copy_async_wait<kStages - 2>();",
        "copy_async_wait<kStages - 1>();"),
    "copies left behind at the end": (
        "product_mlp-float16", MLP, "  copy_async_commit();\n\n    const Stage& stage",
        "  const Stage& stage"),
    "wrong fragment row of the products": (
        "product_mlp-float16", MLP, "warp_row + lane % 16,", "warp_row + lane % 8,"),
    "wrong fragment row of the weights": (
        "product_mlp-float16", MLP, "lane % 8 + lane / 16 * 8,", "lane % 8 + lane / 8 % 2 * 8,"),
    "off-by-one tile of pairs": (
        "product_mlp-float16", MLP, "blockIdx.x * kRows;", "blockIdx.x * (kRows + 1);"),
    "off-by-one pass of hidden units": (
        "product_mlp-float16", MLP, "first_unit += kColumns;", "first_unit += kColumns - 8;"),
    "hidden unit behind the last": (
        "product_mlp-float16", MLP, "const bool inside = unit < p.hidden;",
        "const bool inside = unit <= p.hidden;"),
    "one class too few in the division": (
        "product_mlp-float16", MLP, "valid ? pair % p.num_classes : -1",
        "valid ? pair % (p.num_classes - (p.num_classes > 1)) : -1"),
    "one rounding step lost in int8": (
        "product_mlp-int8", MLP, "product * inverse + 0.5f", "product * inverse"),
    "the direction lost in int8": (
        "product_mlp-int8", MLP, " + slope * row_projection[i][h];", ";"),
    "another number of levels in int8": (
        "product_mlp-int8", "kernels/mlp_int8.h", "kInt8Levels = 127", "kInt8Levels = 126"),
    "what is not finite lost in int8": (
        "product_mlp-int8", MLP, "projection[i] += product * p.direction[at];",
        "if (product == product) projection[i] += product * p.direction[at];"),
    "low parts of float dropped": (
        "product_mlp-float32", "kernels/primitives.cuh", "multiply_tf32(sums, a_low, b_high);", ""),
    "missing barrier in the histogram": (
        "propose", TOPK, "    sync_block();  // before the next digit's counts\n", ""),
    "ties go to the higher index": (
        "propose", TOPK, "(0xffffffffu - index);", "index;"),
    "lanes beyond the last box": (
        "propose", NMS, "j < kWarp && first + j < count", "j < kWarp - 1 && first + j < count"),
    "missing barrier in the walk": (
        "propose", PROPOSE, "      suppressed[w] = bits;\n    }\n    sync_block();",
        "      suppressed[w] = bits;\n    }"),
    "one region too many": (
        "propose", PROPOSE, "count_bits(kept) < most", "count_bits(kept) <= most"),
    "missing warp barrier in the walk": (
        "detect", DETECT, "    sync_warp();\n  }\n}", "  }\n}"),
    "other images suppress": (
        "detect", NMS, "shared.groups[j] == group", "true"),
    "missing barrier after the span": (
        "preprocess", "kernels/preprocess.cuh", "  sync_block();\n", ""),
    "region's axes swapped": (
        "roi_align", "kernels/roi_align.cuh", "roi_axis<float>(box[1], box[3]",
        "roi_axis<float>(box[0], box[2]"),
    "background kept": (
        "fuse", "kernels/fuse.cuh", "logit(c + 1), highest, total);\n      score *=",
        "logit(c), highest, total);\n      score *="),
    "background as evidence": (
        "fuse", "kernels/fuse.cuh", "expf(logit(1 + s) - seen_highest)",
        "expf(logit(s) - seen_highest)"),
    "room for classes counted": (
        "fuse", "kernels/fuse.cuh", "if (in_use(c)) total", "total"),
    "probabilities overwritten too early": (
        "fuse", "kernels/fuse.cuh", "  sync_warp();  // all have read the probabilities\n", ""),
}  # fmt: skip


def run(module, schedule: str, cases: str) -> subprocess.CompletedProcess[str]:
    paths = os.pathsep.join([str(build.ROOT), str(build.ROOT / "tests")])
    command = [sys.executable, "-m", "cuda_proof", str(module), schedule, cases]
    return subprocess.run(
        command, env=os.environ | {"PYTHONPATH": paths}, capture_output=True, text=True
    )


@pytest.mark.slow
@pytest.mark.parametrize("name", MUTANTS)
def test_mutant_is_caught(name: str):
    cases, *mutation = MUTANTS[name]
    done = run(build.shim_module(mutation=tuple(mutation)), "all", cases)
    assert done.returncode != 0, f"survived: {done.stdout}"


def test_the_kernels_themselves_pass():
    assert run(build.shim_module(), "all", "product_mlp-float16").returncode == 0
