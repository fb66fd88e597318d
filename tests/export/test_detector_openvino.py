"""``detector.onnx`` in OpenVINO, whose TopK orders equal values as it likes."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest
import tiny
from tiny_detector import detector_bundle

from export.checks.parity import class_table
from export.checks.traces import DetectorGraph, inputs_of
from export.graphs.compose import compose_detector
from runtime.bundle import bundled, open_bundle

openvino = pytest.importorskip("openvino")
DETECTIONS = ("boxes", "scores", "columns", "batch_indices")


def compared(path, config, classes, images, threshold):
    """Detections of ONNX Runtime and OpenVINO in a batch."""
    inputs = inputs_of(config, images)
    thresholds = np.full(len(classes.names), threshold, np.float32)
    expected = DetectorGraph(path)(inputs, classes, thresholds)
    unseen = classes.unseen_count
    similarity = [np.zeros((1, unseen)), classes.seen_similarity, np.eye(unseen)]
    core = openvino.Core()
    compiled = core.compile_model(str(path), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    found = compiled(
        {
            **inputs,
            "prototypes": np.ascontiguousarray(classes.prototypes),
            "similarity": np.concatenate(similarity).astype(np.float32),
            "score_threshold": thresholds,
        }
    )
    return expected, {name: found[name] for name in DETECTIONS}


@pytest.mark.parametrize("number", [1, 3])
@pytest.mark.parametrize("threshold", [0.0, 2.0], ids=["all", "none"])
def test_a_batch_of_any_size_gives_the_same_detections(tmp_path, number, threshold):
    bundle = open_bundle(detector_bundle(tmp_path / "tiny"))
    images = list(tiny.random(5).integers(0, 256, (number, 48, 64, 3), np.uint8))
    expected, found = compared(
        bundle.file("detector.onnx"),
        bundle.model_config,
        class_table(bundle)[1],
        images,
        threshold,
    )
    assert bool(len(expected["scores"])) == (threshold == 0)
    for name in DETECTIONS:
        np.testing.assert_allclose(found[name], expected[name], rtol=1e-4, atol=1e-4)


@pytest.mark.slow
def test_a_given_detector_with_a_second_look_runs_there_whole(tmp_path):
    from export.checks.images import photographs
    from export.checks.parity import compared_classes

    bundle = open_bundle(bundled("open"))
    trunk, head = (ir.from_proto(onnx.load(bundle.network(stage))) for stage in ("trunk", "head"))
    config = bundle.model_config
    graph = ir.to_proto(compose_detector(trunk, head, bundle.scorer_tensors(), config))
    onnx.save(graph, tmp_path / "detector.onnx")
    images = [image.pixels for image in photographs()[:2]]
    expected, found = compared(
        tmp_path / "detector.onnx", config, compared_classes(bundle)[1], images, 0.01
    )
    assert len(expected["scores"]) > 10
    np.testing.assert_array_equal(found["columns"], expected["columns"])
    np.testing.assert_allclose(found["scores"], expected["scores"], atol=1e-3)
    np.testing.assert_allclose(found["boxes"], expected["boxes"], atol=0.1)
