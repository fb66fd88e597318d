"""A tiny bundle with engines, and a double of the GPU that runs them, as fixtures."""

from __future__ import annotations

import pytest
import tiny
from trt_double import Gpu

from export.writing.bundle_writer import amend_bundle
from runtime.backends import cuda_driver, trt_backend
from runtime.backends.trt_package import open_package
from runtime.bundle import open_bundle

__all__ = ["PROFILE", "engine_entry", "gpu", "path"]

trt = pytest.importorskip("tensorrt_rtx")
driver = pytest.importorskip("cuda.bindings.driver")
pytest.importorskip("onnxruntime")

PROFILE = {
    "trunk": {"images": {"min": [1, 3, 32, 32], "opt": [1, 3, 64, 96], "max": [4, 3, 96, 192]}},
    "head": {"region_features": {"min": [1, 6, 3, 3], "opt": [12, 6, 3, 3], "max": [48, 6, 3, 3]}},
}


def engine_entry(stage, version, **changes):
    entry = {
        "file": f"engines/{stage}.plan",
        "stage": stage,
        "precision": "float32",
        "package": "tensorrt_rtx",
        "version": version,
        "target": "sm86",
        "profile": PROFILE[stage],
    }
    return entry | changes


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    """A tiny bundle whose plans are the names of its networks."""
    path = tiny.tiny_bundle(tmp_path_factory.mktemp("engines") / "tiny")
    stages = ("trunk", "head")
    entries = [engine_entry(stage, trt.__version__) for stage in stages]
    files = {f"engines/{stage}.plan": stage.encode() for stage in stages}
    return amend_bundle(path, files, engines=entries)


@pytest.fixture
def gpu(monkeypatch, path, tmp_path):
    """A double of a GPU in place of the real bindings, for a user with an empty cache."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    gpu = Gpu(trt, driver)
    bundle = open_bundle(path)
    gpu.networks = {stage.encode(): bundle.network(stage) for stage in ("trunk", "head")}
    package = object.__new__(type(open_package("tensorrt_rtx")))
    package.__dict__.update(open_package("tensorrt_rtx").__dict__, trt=gpu.module())
    gpu.logger = package.logger
    monkeypatch.setattr(trt_backend, "open_package", lambda name: package)
    monkeypatch.setattr(cuda_driver, "require", lambda name, extra: gpu.driver_module())
    return gpu
