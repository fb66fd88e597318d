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

MLP, TOPK, NMS = "kernels/cuda/product_mlp.cuh", "kernels/cuda/topk.cuh", "kernels/cuda/nms.cuh"
PROPOSE, DETECT = "kernels/cuda/propose.cuh", "kernels/cuda/detect.cuh"
TOP, LOOK = "kernels/cuda/top_regions.cuh", "kernels/cuda/second_look.cuh"
PROTOTYPES, SPOKEN = "kernels/cuda/score_prototypes.cuh", "kernels/cuda/spoken_for.cuh"
# name: cases that must notice, file, text, replacement
MUTANTS = {
    "missing barrier before a stage is read": (
        "product_mlp-float16",
        MLP,
        "sync_block();  // this stage is complete",
        "// complete",
    ),
    "missing barrier before the stages are reused": (
        "product_mlp-float16",
        MLP,
        "sync_block();  // the stages are free",
        "// free",
    ),
    "missing barrier before the last sum": (
        "product_mlp-float16",
        MLP,
        "  sync_block();\n  const int pair =",
        "  const int pair =",
    ),
    "wrong wait group": (
        "product_mlp-float16",
        MLP,
        "copy_async_wait<kStages - 2>();",
        "copy_async_wait<kStages - 1>();",
    ),
    "copies left behind at the end": (
        "product_mlp-float16",
        MLP,
        "  copy_async_commit();\n\n    const Stage& stage",
        "  const Stage& stage",
    ),
    "wrong fragment row of the products": (
        "product_mlp-float16",
        MLP,
        "warp_row + lane % 16,",
        "warp_row + lane % 8,",
    ),
    "wrong fragment row of the weights": (
        "product_mlp-float16",
        MLP,
        "lane % 8 + lane / 16 * 8,",
        "lane % 8 + lane / 8 % 2 * 8,",
    ),
    "off-by-one tile of pairs": (
        "product_mlp-float16",
        MLP,
        "blockIdx.x * kRows;",
        "blockIdx.x * (kRows + 1);",
    ),
    "off-by-one pass of hidden units": (
        "product_mlp-float16",
        MLP,
        "first_unit += kColumns;",
        "first_unit += kColumns - 8;",
    ),
    "hidden unit behind the last": (
        "product_mlp-float16",
        MLP,
        "const bool inside = unit < p.hidden;",
        "const bool inside = unit <= p.hidden;",
    ),
    "one class too few in the division": (
        "product_mlp-float16",
        MLP,
        "valid ? pair % p.num_classes : -1",
        "valid ? pair % (p.num_classes - (p.num_classes > 1)) : -1",
    ),
    "one rounding step lost in int8": (
        "product_mlp-int8",
        "kernels/mlp_int8.h",
        "product * factor + 0.5f",
        "product * factor",
    ),
    "the direction lost in int8": (
        "product_mlp-int8",
        MLP,
        " + slope * row_projection[i][h];",
        ";",
    ),
    "another number of levels in int8": (
        "product_mlp-int8",
        "kernels/mlp_int8.h",
        "kInt8Levels = 127",
        "kInt8Levels = 126",
    ),
    "what is not finite lost in int8": (
        "product_mlp-int8",
        MLP,
        "projection[i] += product * p.direction[at];",
        "if (product == product) projection[i] += product * p.direction[at];",
    ),
    "low parts of float dropped": (
        "product_mlp-float32",
        "kernels/cuda/primitives.cuh",
        "multiply_tf32(sums, a_low, b_high);",
        "",
    ),
    "missing barrier in the histogram": (
        "propose",
        TOPK,
        "    sync_block();  // before the next digit's counts\n",
        "",
    ),
    "ties go to the higher index": ("propose", TOPK, "(0xffffffffu - index);", "index;"),
    "lanes beyond the last box": (
        "propose",
        NMS,
        "j < kWarp && first + j < count",
        "j < kWarp - 1 && first + j < count",
    ),
    "missing barrier in the walk": (
        "propose",
        PROPOSE,
        "buffers.words, w);\n    }\n    sync_block();",
        "buffers.words, w);\n    }",
    ),
    "one region too many": (
        "propose",
        NMS,
        "count_bits(kept) < most",
        "count_bits(kept) <= most",
    ),
    "missing warp barrier in the walk": ("detect", DETECT, "    sync_warp();\n  }\n}", "  }\n}"),
    "other images suppress": ("detect", NMS, "shared.groups[j] == group", "true"),
    "missing barrier after the span": (
        "preprocess",
        "kernels/cuda/preprocess.cuh",
        "  sync_block();\n",
        "",
    ),
    "region's axes swapped": (
        "roi_align",
        "kernels/cuda/roi_align.cuh",
        "roi_axis<float>(box[1], box[3]",
        "roi_axis<float>(box[0], box[2]",
    ),
    "calibration of another column": (
        "calibrate_scores",
        "kernels/cuda/calibrate_scores.cuh",
        "i % p.classes",
        "i / p.classes",
    ),
    "infinity taken for a number": (
        "all_finite",
        "kernels/cuda/all_finite.cuh",
        "fabsf(input.values[i]) <= FLT_MAX;",
        "input.values[i] == input.values[i];",
    ),
    "the last numbers not looked at": (
        "all_finite",
        "kernels/cuda/all_finite.cuh",
        "i < count; i += gridDim.x * kThreads",
        "i < count - 1; i += gridDim.x * kThreads",
    ),
    "blocks behind the first not looked at": (
        "all_finite",
        "kernels/cuda/all_finite.cuh",
        "i = blockIdx.x * kThreads + threadIdx.x",
        "i = threadIdx.x",
    ),
    "unused rows looked at": (
        "all_finite",
        "kernels/cuda/all_finite.cuh",
        "input.owners[i / width] < 0",
        "input.owners[i / width] < -1",
    ),
    "background kept": (
        "fuse",
        "kernels/cuda/fuse.cuh",
        "logit(c + 1), highest, total), factor",
        "logit(c), highest, total), factor",
    ),
    "background as evidence": (
        "fuse",
        "kernels/cuda/fuse.cuh",
        "softmax_term(logit(1 + s), seen_highest)",
        "softmax_term(logit(s), seen_highest)",
    ),
    "room for classes counted": ("fuse", "kernels/cuda/fuse.cuh", "if (in_use(c)) total", "total"),
    "probabilities overwritten too early": (
        "fuse",
        "kernels/cuda/fuse.cuh",
        "  sync_warp();  // all have read the probabilities\n",
        "",
    ),
    "a query of NaN is taken first": (
        "top_regions",
        TOP,
        "Key{0xffffffffu - query}",
        "make_key(best[i], query)",
    ),
    "a query's NaN is lost": ("top_regions", TOP, "missing ? NAN : highest", "highest"),
    "missing barrier before the large ones are listed": (
        "top_regions",
        TOP,
        "  sync_block();\n  if (threadIdx.x >= kWarp) return;",
        "  if (threadIdx.x >= kWarp) return;",
    ),
    "size of another image": ("top_regions", TOP, "image_sizes + 2 * image", "image_sizes"),
    "rows of the next image": ("top_regions", TOPK, "row < before + counts[image]", "row < before"),
    "regions of other images are looked at": (
        "second_look",
        LOOK,
        "batch_indices[own] == image",
        "batch_indices[own] >= 0",
    ),
    "missing warp barrier before the next word": (
        "second_look",
        LOOK,
        "      sync_warp();  // before the next word is read\n",
        "",
    ),
    "missing barrier before the looks are packed": (
        "second_look",
        LOOK,
        "  sync_block();  // all images are walked\n",
        "",
    ),
    "one look too many": (
        "second_look",
        LOOK,
        "suppressed[word], most - num_kept)",
        "suppressed[word], most - num_kept + 1)",
    ),
    "missing barrier before a tile of regions is read": (
        "score_prototypes",
        PROTOTYPES,
        "    sync_block();  // the tile is complete\n",
        "",
    ),
    "missing barrier before a tile of regions is written over": (
        "score_prototypes",
        PROTOTYPES,
        "    sync_block();  // the tile before is read\n",
        "",
    ),
    "room for classes read as classes": (
        "score_prototypes",
        PROTOTYPES,
        "unseen(in_use ? in_use[1] : p.unseen)",
        "unseen(p.unseen)",
    ),
    "objectness of another region": (
        "score_prototypes",
        PROTOTYPES,
        "powf(input.objectness[r]",
        "powf(input.objectness[place]",
    ),
    "a class that nobody asks for is a rival": (
        "score_prototypes",
        PROTOTYPES,
        "    if (!(input.thresholds[p.seen + u] < INFINITY)) continue;\n",
        "",
    ),
    "missing barrier before the best rival is chosen": (
        "score_prototypes",
        PROTOTYPES,
        "  sync_block();  // all warps have said theirs\n",
        "",
    ),
    "a seen class that is unlikely is a rival": (
        "score_prototypes",
        PROTOTYPES,
        "float seen = 0.f, unseen",
        "float seen = -INFINITY, unseen",
    ),
    "the number of rivals does not matter": (
        "score_prototypes",
        PROTOTYPES,
        "unseen - logf(asked > 1.f ? asked : 1.f)",
        "unseen",
    ),
    "the last numbers of a row lost": (
        "score_prototypes",
        PROTOTYPES,
        "d < depth; d += kWarp",
        "d < depth - 1; d += kWarp",
    ),
    "sums of another lane": (
        "score_prototypes",
        PROTOTYPES,
        "c = first_class + lane / kLooks, l = first_look + lane % kLooks",
        "c = first_class + lane % kClasses, l = first_look + lane / kClasses",
    ),
    "a look holds for regions of other images": (
        "spoken_for",
        SPOKEN,
        " || input.batch_indices[position] != image) continue;",
        ") continue;",
    ),
    "the last look holds, not the best": (
        "spoken_for",
        SPOKEN,
        "if (place >= 0 || input",
        "if (input",
    ),
    "offsets of the region that a look is shared with": (
        "spoken_for",
        SPOKEN,
        "    if (position == r) {\n",
        "    if (place < 0) {\n",
    ),
}


def run(module, schedule: str, cases: str) -> subprocess.CompletedProcess[str]:
    paths = os.pathsep.join([str(build.ROOT), str(build.ROOT / "tests" / "helpers")])
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
