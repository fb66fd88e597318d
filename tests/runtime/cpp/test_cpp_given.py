"""A given detector with a second look: the C++ library finds what Python's ``Detector`` finds."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import onnx
import pytest
import tiny
from comparing import assert_same
from onnx import helper

from runtime import Detector
from zsd_core.config import (
    CalibrationConfig,
    DetectionConfig,
    ModelConfig,
    PreprocessConfig,
    ProposalConfig,
    RegionConfig,
    ScoringConfig,
)

pytestmark = pytest.mark.slow  # for the build

SIZE, LOOK, FEATURES, TAUGHT = 64, 8, 10, 6
WIDTH = FEATURES + tiny.VECTOR + 1  # P


def given_trunk() -> onnx.ModelProto:
    """Images of 64 x 64 to boxes and logits of 16 regions."""
    draw, count = tiny.random(11).normal, len(tiny.SEEN)
    weights = {
        "w_centre": draw(size=(2, 3, 1, 1)),
        "w_size": draw(size=(2, 3, 1, 1)),
        "w_logits": draw(size=(count, 3, 1, 1)),
        "shrink": np.full((1,), 0.4),
    }
    node = helper.make_node
    nodes = [
        node("AveragePool", ["images"], ["p"], kernel_shape=[16, 16], strides=[16, 16]),
        node("Conv", ["p", "w_centre"], ["c0"]),
        node("Sigmoid", ["c0"], ["c"]),
        node("Conv", ["p", "w_size"], ["s0"]),
        node("Sigmoid", ["s0"], ["s1"]),
        node("Mul", ["s1", "shrink"], ["s"]),
        node("Sub", ["c", "s"], ["low"]),
        node("Add", ["c", "s"], ["high"]),
        node("Concat", ["low", "high"], ["b0"], axis=1),
        node("Conv", ["p", "w_logits"], ["l0"]),
    ]
    for name in ("boxes", "logits"):
        first = name[0]
        nodes += [
            node("Shape", [f"{first}0"], [f"{first}shape"], start=0, end=2),
            node("Constant", [], [f"{first}rest"], value_ints=[-1]),
            node("Concat", [f"{first}shape", f"{first}rest"], [f"{first}target"], axis=0),
            node("Reshape", [f"{first}0", f"{first}target"], [f"{first}1"]),
            node("Transpose", [f"{first}1"], [name], perm=[0, 2, 1]),
        ]
    shapes = {"boxes": ["N", 16, 4], "logits": ["N", 16, count]}
    return tiny._model(nodes, weights, {"images": ["N", 3, SIZE, SIZE]}, shapes)


def look_head() -> onnx.ModelProto:
    """Regions of 8 x 8 pixels to ``[z, e, 1]`` and deltas."""
    draw, pixels = tiny.random(12).normal, 3 * LOOK * LOOK
    embed, ends = draw(size=(pixels, WIDTH)) / 10, np.zeros(WIDTH)
    embed[:, -1], ends[-1] = 0, 1
    weights = {"w": embed, "b": ends, "w_boxes": draw(size=(pixels, 4)) / 50}
    nodes = [
        helper.make_node("Flatten", ["region_image"], ["flat"]),
        helper.make_node("Gemm", ["flat", "w", "b"], ["embeddings"]),
        helper.make_node("MatMul", ["flat", "w_boxes"], ["deltas"]),
    ]
    shapes = {"embeddings": ["R", WIDTH], "deltas": ["R", 4]}
    return tiny._model(nodes, weights, {"region_image": ["R", 3, LOOK, LOOK]}, shapes)


def given_bundle(path: Path, power: float, **parts: object) -> Path:
    """Such a bundle with random weights."""
    model = ModelConfig(
        preprocess=PreprocessConfig(square=SIZE, pad_multiple=1),
        proposals=ProposalConfig(source="queries", pre_nms_top=16, post_nms_top=14),
        regions=RegionConfig(
            maps=(("image", 1),), stride=1, output_size=(LOOK, LOOK), look=6, look_nms=0.6
        ),
        scoring=ScoringConfig(
            method="prototypes",
            vector_dim=tiny.VECTOR,
            seen_scale=0.7,
            objectness_power=power,
            contest=4.0,
            rivalry=0.5,
        ),
        detection=DetectionConfig(score_threshold=0.05, nms_threshold=0.7, max_detections=40),
        **parts,
    )
    tensors = {
        "background": np.zeros(tiny.VECTOR, np.float32),
        "taught.vectors": tiny.unit_vectors(TAUGHT, 13),
        "taught.weights": tiny.unit_vectors(TAUGHT, 14, FEATURES),
        "name_scale": np.array([2.0, -0.5], np.float32),
        "example_scale": np.array([3.0, -1.0], np.float32),
    }
    networks = {"trunk": given_trunk(), "head": look_head()}
    return tiny.tiny_bundle(
        path,
        model=model,
        scorer=tensors,
        stages={name: tiny._stage(f"{name}.onnx", graph) for name, graph in networks.items()},
        files={f"{name}.onnx": graph.SerializeToString() for name, graph in networks.items()},
    )


@pytest.mark.parametrize("calibrated", [False, True])
@pytest.mark.parametrize("power", [0.0, 0.5])
def test_a_given_detector_gives_what_python_gives(
    probe, backend, tmp_path, photo, photo_path, power, calibrated
):
    curves = CalibrationConfig(seen=(0.8, 0.3, 0.2), unseen=(1.2, 0.1, -0.5))
    parts = {"calibration": curves} if calibrated else {}
    bundle = given_bundle(tmp_path / "given", power, **parts)
    with Detector(bundle, backend=backend, threads=1, score_threshold=0.0) as detector:
        probe("open", bundle=str(bundle), backend=backend, thresholds={"seen": 0, "unseen": 0})
        for limit in (0.0, 0.2, 0.45):
            probe("thresholds", thresholds={"seen": limit, "unseen": limit})
            detector.set_thresholds(score_threshold=limit)
            expected = detector(photo)
            assert_same(probe("detect", images=[str(photo_path)])[0], expected)
            assert limit or {*expected.roles} == {"seen", "unseen"}
        detector.set_thresholds(score_threshold=0.0)
        probe("thresholds", thresholds={"seen": 0, "unseen": 0})
        detector.add_classes(["zebra", "teapot"])
        probe("add", classes=["zebra", "teapot"])
        assert_same(probe("detect", images=[str(photo_path)])[0], detector(photo))
        detector.set_classes(["person", "truck"])  # no second look
        probe("set", classes=["person", "truck"])
        (answer,) = probe("detect", images=[str(photo_path)])
        assert_same(answer, detector(photo))
        assert "head" not in answer["stages"]


def test_scores_are_calibrated_as_in_python(probe, backend, tmp_path, photo, photo_path):
    model = dataclasses.replace(tiny.MODEL, calibration=CalibrationConfig(seen=(0.5, 0.0, -0.3)))
    bundle = tiny.tiny_bundle(tmp_path / "calibrated", model=model)
    with Detector(bundle, backend=backend, threads=1) as detector:
        probe("open", bundle=str(bundle), backend=backend)
        for limit in (0.0, 0.3, 0.9):
            probe("thresholds", thresholds={"seen": limit, "unseen": limit})
            detector.set_thresholds(score_threshold=limit)
            assert_same(probe("detect", images=[str(photo_path)])[0], detector(photo))
