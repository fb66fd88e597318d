"""Fixtures that several test files share."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, settings

from runtime import Detector

# The same examples in every run, however slow the machine; --hypothesis-profile default looks for
# new ones.
settings.register_profile(
    "repeatable", derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("repeatable")


@pytest.fixture(scope="session")
def bundle_path(tmp_path_factory) -> Path:
    """A tiny bundle with random weights, not to be changed."""
    import tiny  # here, so that tests without a bundle need no onnx

    return tiny.tiny_bundle(tmp_path_factory.mktemp("bundle") / "tiny")


@pytest.fixture
def fresh_bundle_path(tmp_path) -> Path:
    """A tiny bundle of the test's own, to damage."""
    import tiny

    return tiny.tiny_bundle(tmp_path / "tiny")


@pytest.fixture(scope="session")
def _shared_detector(bundle_path):
    with Detector(bundle_path, backend="onnxruntime", threads=1) as detector:
        yield detector


@pytest.fixture
def detector(_shared_detector) -> Detector:
    """A tiny detector at the bundle's classes that reports nearly everything."""
    _shared_detector.set_classes(None, mode="gzsd")
    _shared_detector.set_thresholds(score_threshold=0.0)
    return _shared_detector


@pytest.fixture
def photo() -> np.ndarray:
    """(H, W, 3) uint8 with structure at every scale, so that boxes are found."""
    rng = np.random.default_rng(7)
    coarse = rng.integers(0, 256, (4, 6, 3), np.uint8)
    image = coarse.repeat(30, axis=0).repeat(30, axis=1)  # 120 x 180
    return (image // 2 + rng.integers(0, 128, image.shape, np.uint8)).astype(np.uint8)
