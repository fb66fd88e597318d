"""The PTX inside the built CUDA module, interpreted, against the float64 twins.

It says that the compiled PTX is correct under our model of the machine: not that ptxas is, nor how
a tensor core rounds, and nothing about time.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

import pytest
from cuda_proof import build
from cuda_proof.cases import all_cases
from cuda_proof.engines import PtxEngine
from cuda_proof.ptx_instructions import PtxError
from cuda_proof.ptx_parser import Kernel, parse

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not build.nvcc(), reason="nvcc is missing: no PTX to interpret"),
]

CASES = all_cases()
# What an interpreter can run: every kernel, every type, aligned rows and others, several stages.
KINDS = ("float32", "float16", "bfloat16", "int8")
CHOSEN = [
    *(f"product_mlp-{kind}-{n}" for kind in KINDS for n in (3, 4)),
    "product_mlp-int8-6",
    *(f"roi_align-{way}-{kind}-2" for kind in KINDS[:2] for way in ("forward", "backward")),
    *("roi_align-forward-bfloat16-2", "fuse-softmax-3", "fuse-sigmoid-1", "preprocess-float32-1"),
    *(
        "calibrate_scores-4",
        "all_finite-3",
        "preprocess-float16-2",
        "propose-0",
        "propose-2",
        "detect-0",
        "detect-2",
    ),
    *("top_regions-4", "second_look-3", "spoken_for-2", "score_prototypes-both-4"),
]
SCHEDULES = {80: "forward", 87: "reverse", 90: "random-1", 120: "random-2"}


@cache
def kernels(architecture: int) -> dict[str, Kernel]:
    return parse(build.ptx(architecture))


@pytest.fixture(scope="module")
def shim() -> Path:
    return build.shim_module()


@pytest.mark.parametrize("architecture", SCHEDULES)
@pytest.mark.parametrize("case", CHOSEN)
def test_ptx_agrees_with_the_twin(shim: Path, case: str, architecture: int):
    CASES[case](PtxEngine(shim, kernels(architecture), SCHEDULES[architecture]))


@pytest.mark.parametrize("architecture", [75, 80])
def test_ptx_of_several_stages_and_passes(shim: Path, architecture: int):
    CASES["product_mlp-float16-5"](PtxEngine(shim, kernels(architecture), "reverse"))


@pytest.mark.parametrize("kind", KINDS)
def test_tiles_are_read_and_written_without_bank_conflicts(shim: Path, kind: str):
    engine = PtxEngine(shim, kernels(80), count_conflicts=True)
    CASES[f"product_mlp-{kind}-6"](engine)
    (machine,) = engine.machines.values()
    for access in ("ldmatrix", "cp.async", "st.shared"):
        assert machine.conflicts.get(f"{access} of 16 bytes") == 0


# What is planted in the PTX, and what the interpreter then says.
MUTANTS = {
    "no barriers": ("bar.sync", "//", "race|never written|before its asynchronous"),
    "waits for one group less": ("wait_group 1;", "wait_group 2;", "before its asynchronous"),
    "copies never committed": ("cp.async.commit_group;", "", "before its|never written|waited"),
    "wrong lane in the last sum": ("shfl.sync.bfly.b32", "shfl.sync.idx.b32", "error"),
}


@pytest.mark.parametrize("name", MUTANTS)
def test_ptx_mutant_is_caught(shim: Path, name: str):
    old, new, complaint = MUTANTS[name]
    text = build.ptx(80)
    assert old in text
    with pytest.raises((PtxError, AssertionError), match=complaint):
        CASES["product_mlp-float16-3"](PtxEngine(shim, parse(text.replace(old, new))))
