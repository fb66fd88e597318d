"""The CUDA kernels on a CPU, as fibers under four schedules and under AddressSanitizer."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from cuda_proof import build
from cuda_proof.cases import all_cases
from cuda_proof.engines import SCHEDULES, ShimEngine

CASES = all_cases()


@pytest.fixture(scope="session")
def shim() -> Path:
    return build.shim_module()


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("case", CASES)
def test_kernel_agrees_with_its_twin(shim: Path, case: str, schedule: str):
    CASES[case](ShimEngine(shim, schedule))


@pytest.mark.slow
def test_kernels_stay_inside_their_memory():
    module = build.shim_module(sanitize=True)
    compiler = os.environ.get("CXX", "g++")
    libraries = [
        subprocess.check_output([compiler, f"-print-file-name={name}"], text=True).strip()
        for name in ("libasan.so", "libstdc++.so")  # the second, so that exceptions are seen
    ]
    environment = os.environ | {
        "LD_PRELOAD": " ".join(libraries),
        "ASAN_OPTIONS": "detect_leaks=0",  # Python's own
        "PYTHONPATH": os.pathsep.join([str(build.ROOT), str(build.ROOT / "tests" / "helpers")]),
    }
    command = [sys.executable, "-m", "cuda_proof", str(module), "random-1", "", "bare"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{len(CASES)} cases agree" in done.stdout


def test_shim_rounds_like_numpy_and_torch(shim: Path):
    random = np.random.default_rng(0)
    scale = np.float32(2) ** random.integers(-30, 20, 20000)
    numbers = (random.standard_normal(20000) * scale).astype(np.float32)
    special = np.float32([0, -0.0, 65504, 65519.99, 65520, 1e9, -np.inf, 6e-8, 2.98e-8, 1 + 2**-11])
    numbers = np.concatenate([numbers, special])
    halves, bfloats = np.empty(len(numbers), np.uint16), np.empty(len(numbers), np.uint16)

    pointers = (ctypes.c_void_p(a.ctypes.data) for a in (numbers, halves, bfloats))
    ctypes.CDLL(str(shim)).shim_convert(*pointers, len(numbers))

    with np.errstate(over="ignore"):
        assert np.array_equal(halves, numbers.astype(np.float16).view(np.uint16))
    expected = torch.from_numpy(numbers).bfloat16().view(torch.int16).numpy().view(np.uint16)
    assert np.array_equal(bfloats, expected)
