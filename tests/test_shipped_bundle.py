"""The bundle that ships: whole, small, measured, and the same in plain ONNX Runtime."""

from __future__ import annotations

import numpy as np
import pytest

from export.stages import sample_images
from export.verify import verify
from runtime import Detector, default_bundle
from runtime.bundle import open_bundle
from runtime.demo import PHOTOGRAPHS, photograph


def test_it_is_small_and_says_how_it_was_trained_and_measured():
    path = default_bundle()
    assert sum(file.stat().st_size for file in path.rglob("*")) <= 32 * 2**20
    manifest = open_bundle(path).manifest
    assert manifest["training"]["split"] == "coco_48_17"
    assert manifest["metrics"]
    assert manifest["notes"]


def test_almost_anything_can_be_typed():
    vocabulary = open_bundle(default_bundle()).vocabulary
    assert len(vocabulary.names) >= 10_000
    for name in ("forklift", "fire truck", "Zebra", "traffic_cone"):
        assert np.isclose(np.linalg.norm(vocabulary.lookup(name)), 1, atol=1e-5)


@pytest.mark.parametrize("name", PHOTOGRAPHS)
def test_a_class_added_while_running_is_a_class_opened_with(name):
    limits = {"score_threshold": 0.0, "nms_threshold": 0.6}
    added = Detector(classes=["person"], **limits)
    added.add_classes(["cat", "forklift"])
    opened = Detector(classes=["person", "cat", "forklift"], **limits)
    one, other = added(photograph(name)), opened(photograph(name))
    assert len(one) >= 20
    np.testing.assert_array_equal(one.boxes, other.boxes)
    np.testing.assert_array_equal(one.scores, other.scores)
    assert one.class_names == other.class_names


@pytest.mark.slow
def test_plain_onnx_runtime_gives_the_same_detections():
    detector = Detector(score_threshold=0.0)  # as verify lowers it
    assert all(len(detector(photograph(name))) >= 20 for name in PHOTOGRAPHS)
    report = verify(None, sample_images())
    assert report["passed"], report
