"""A double of a GPU that has the kernels too, as a fixture, and detectors on it and beside it."""

from __future__ import annotations

import numpy as np
import pytest
from cuda_proof import build
from cuda_proof.engines import ShimEngine
from trt_double import Kernels

from runtime import Detector
from runtime.backends import trt_backend

__all__ = ["compare", "device", "images", "on_device", "on_host", "shim"]


@pytest.fixture(scope="module")
def shim():
    return ShimEngine(build.shim_module(), guards=False)


@pytest.fixture
def device(gpu, shim, monkeypatch):
    """A double of a GPU that has the kernels too."""
    kernels = Kernels(shim, gpu)
    monkeypatch.setattr(trt_backend, "compiled_cuda", lambda: kernels)
    return gpu


def on_device(path, capacity: int = 8, **options) -> Detector:
    return Detector(
        path,
        backend="tensorrt_rtx",
        threads=1,
        score_threshold=0.0,
        backend_options={"on_device": True, "unseen_capacity": capacity},
        **options,
    )


def on_host(path, **options) -> Detector:
    return Detector(path, backend="onnxruntime", threads=1, score_threshold=0.0, **options)


def compare(ours, exact) -> None:
    assert ours.class_names == exact.class_names
    np.testing.assert_allclose(ours.scores, exact.scores, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(ours.boxes, exact.boxes, rtol=1e-4, atol=1e-3)
    assert ours.class_set_version == exact.class_set_version


def images(number: int, height: int = 48, width: int = 64) -> list[np.ndarray]:
    random = np.random.default_rng(number)
    coarse = random.integers(0, 256, (number, 3, 4, 3), np.uint8)
    return list(coarse.repeat(height // 3, axis=1).repeat(width // 4, axis=2))
