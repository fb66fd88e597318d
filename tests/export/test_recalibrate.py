"""``detector.onnx`` with a calibration equals ``Detector``, composed with it or given it later."""

from __future__ import annotations

import dataclasses

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
import tiny
from tiny_detector import detector_bundle

from export.checks.differences import Limits
from export.checks.images import NamedImage
from export.checks.parity import compare_with_detector
from export.graphs import detector as graph
from export.graphs.compose import compose_detector, new_builder, sealed
from export.graphs.recalibrate import recalibrated
from export.writing.bundle_writer import amend_bundle
from runtime import Detector
from runtime.bundle import open_bundle
from zsd_core.calibration import CalibrationConfig
from zsd_core.errors import BundleError
from zsd_core.kernels import reference

CURVES = CalibrationConfig(seen=(0.6, 1.2, 2.2), unseen=(0.4, 0.0, 0.8))


@pytest.mark.parametrize("unseen", [0, 2, 5])
@pytest.mark.parametrize("config", [CURVES, CalibrationConfig(unseen=(0.1, 2.0, 0.5))])
def test_the_graph_is_the_kernel(config, unseen):
    builder = new_builder("operator")
    inputs = [
        builder.input(name, ir.DataType.FLOAT, shape)
        for name, shape in (("scores", ["R", "C"]), ("similarity", ["K", "U"]))
    ]
    builder.add_output(graph.calibrate_scores(builder.op, *inputs, config), "probabilities")
    content = ir.to_proto(sealed(builder)).SerializeToString()
    run = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"]).run
    scores = np.random.default_rng(0).random((7, 5)).astype(np.float32)
    scores[0] = 0, -1, np.nan, 1, 1e-9
    given = {"scores": scores, "similarity": np.zeros((6, unseen), np.float32)}
    (got,) = run(None, given)
    exact = reference.calibrate_scores(scores, config.parameters(5 - unseen, unseen))
    np.testing.assert_allclose(got, exact, rtol=1e-5, atol=1e-7)


def with_calibration(path, calibration):
    """A bundle whose graph and manifest have another calibration."""
    bundle = open_bundle(path)
    model = dataclasses.replace(bundle.model_config, calibration=calibration)
    content = recalibrated(bundle.file("detector.onnx"), calibration)
    return amend_bundle(path, {"detector.onnx": content}, model=dataclasses.asdict(model))


def agrees(path, photo):
    images = [NamedImage("photo", photo), NamedImage("part", np.ascontiguousarray(photo[:70, :90]))]
    with Detector(path, backend="onnxruntime", threads=1, score_threshold=0.0) as detector:
        report = compare_with_detector(detector, images, Limits())
        return report.passed, detector(photo)


def test_given_later_it_equals_the_detector_and_can_be_taken_away(tmp_path, photo):
    path = detector_bundle(tmp_path / "bundle")
    before = open_bundle(path).file("detector.onnx").read_bytes()
    plain, raw = agrees(path, photo)
    assert plain
    with_calibration(path, CURVES)
    passed, found = agrees(path, photo)
    assert passed and not np.allclose(found.scores, raw.scores)
    with_calibration(path, CalibrationConfig(seen=(2.0, 0.5, 0.0)))  # replaced, not stacked
    passed, other = agrees(path, photo)
    assert passed and not np.allclose(other.scores, found.scores)
    content = open_bundle(path).file("detector.onnx").read_bytes()
    assert abs(len(content) - len(before)) < 4000
    onnx.checker.check_model(onnx.load_from_string(content), full_check=True)
    with_calibration(path, CalibrationConfig())
    passed, again = agrees(path, photo)
    assert passed and np.array_equal(again.scores, raw.scores)


def test_a_graph_without_the_calibration_of_its_manifest_differs(tmp_path, photo):
    path = detector_bundle(tmp_path / "bundle")
    model = dataclasses.replace(tiny.MODEL, calibration=CURVES)
    amend_bundle(path, model=dataclasses.asdict(model))
    assert not agrees(path, photo)[0]


def test_composed_with_it_it_is_the_same(tmp_path, photo):
    trunk, head = (ir.from_proto(make()) for make in (tiny.trunk_model, tiny.head_model))
    config = dataclasses.replace(tiny.MODEL, calibration=CURVES)
    detector = ir.to_proto(compose_detector(trunk, head, tiny.scorer_tensors(), config))
    path = detector_bundle(tmp_path / "bundle")
    amend_bundle(
        path, {"detector.onnx": detector.SerializeToString()}, model=dataclasses.asdict(config)
    )
    assert agrees(path, photo)[0]
    with_calibration(path, CalibrationConfig(seen=(2.0, 0.5, 0.0)))
    assert agrees(path, photo)[0]


def test_another_graph_is_refused(tmp_path):
    path = tmp_path / "trunk.onnx"
    onnx.save(tiny.trunk_model(), path)
    with pytest.raises(BundleError, match="names no value 'class_scores'"):
        recalibrated(path, CURVES)
