"""Fixtures that several test files share."""

from __future__ import annotations

import signal
from collections.abc import Iterator
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
# Under nohup, every process that a test starts would ignore the signal, too.
signal.signal(signal.SIGHUP, signal.SIG_DFL)


def contents(folder: Path) -> dict[str, tuple[int, bytes]]:
    """Mode and bytes of every file below a folder."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(p.relative_to(folder)): (p.stat().st_mode, p.read_bytes()) for p in files}


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory) -> Iterator[Path]:
    """A cache of the run's own, so that tests leave nothing in the user's."""
    with pytest.MonkeyPatch.context() as patch:
        cache = tmp_path_factory.mktemp("cache")
        patch.setenv("XDG_CACHE_HOME", str(cache))
        yield cache


@pytest.fixture(scope="session")
def bundle_path(tmp_path_factory) -> Iterator[Path]:
    """A tiny bundle with random weights; a test that changes it fails the run."""
    import tiny  # here, so that tests without a bundle need no onnx

    path = tiny.tiny_bundle(tmp_path_factory.mktemp("bundle") / "tiny")
    before = contents(path)
    yield path
    assert contents(path) == before, "a test changed the shared bundle; use fresh_bundle_path"


@pytest.fixture
def fresh_bundle_path(tmp_path) -> Path:
    """A tiny bundle of the test's own, to damage."""
    import tiny

    return tiny.tiny_bundle(tmp_path / "tiny")


@pytest.fixture
def detector(bundle_path) -> Iterator[Detector]:
    """A tiny detector of the test's own, at the bundle's classes, that reports nearly all."""
    with Detector(
        bundle_path, backend="onnxruntime", mode="gzsd", threads=1, score_threshold=0.0
    ) as detector:
        yield detector


@pytest.fixture
def photo() -> np.ndarray:
    """(H, W, 3) uint8 with structure at every scale, so that boxes are found."""
    rng = np.random.default_rng(7)
    coarse = rng.integers(0, 256, (4, 6, 3), np.uint8)
    image = coarse.repeat(30, axis=0).repeat(30, axis=1)  # 120 x 180
    return (image // 2 + rng.integers(0, 128, image.shape, np.uint8)).astype(np.uint8)
