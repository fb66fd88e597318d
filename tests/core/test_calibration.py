"""Calibration in the pipeline: floors, roles, and old bundles without any."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
import tiny

from export.writing.bundle_writer import amend_bundle
from runtime import Detector
from runtime.bundle import open_bundle
from zsd_core import kernels
from zsd_core.calibration import CalibrationConfig, floor_of, probability
from zsd_core.errors import BundleError, ConfigError

CURVES = CalibrationConfig(seen=(0.6, 1.2, 2.2), unseen=(0.4, 0.0, 0.8))


def calibrated_bundle(path, calibration=CURVES):
    tiny.tiny_bundle(path)
    model = dataclasses.replace(open_bundle(path).model_config, calibration=calibration)
    return amend_bundle(path, model=dataclasses.asdict(model))


def found(detector, photo):
    """Everything reported: (name, box) to score."""
    return {(d.class_name, tuple(np.round(d.box, 2))): d.score for d in detector(photo)}


def opened(path, threshold=0.0, **options):
    return Detector(
        path,
        backend="onnxruntime",
        threads=1,
        score_threshold=threshold,
        max_detections=500,
        **options,
    )


@pytest.fixture
def path(tmp_path):
    return calibrated_bundle(tmp_path / "calibrated")


def test_a_manifest_without_a_calibration_means_identity(bundle_path, fresh_bundle_path, photo):
    manifest = json.loads((fresh_bundle_path / "manifest.json").read_text())
    del manifest["model"]["calibration"]  # as bundles before it
    (fresh_bundle_path / "manifest.json").write_text(json.dumps(manifest))
    with opened(fresh_bundle_path) as old, opened(bundle_path) as new:
        assert not old.bundle.model_config.calibration
        assert found(old, photo) == found(new, photo) != {}


def test_every_score_is_the_probability_of_its_role(bundle_path, path, photo):
    with opened(bundle_path) as before, opened(path) as after:
        assert after.bundle.model_config.calibration == CURVES
        raw, final = found(before, photo), found(after, photo)
    assert raw.keys() == final.keys() and len(raw) > 10
    assert {name in tiny.SEEN for name, _ in raw} == {True, False}
    for key, score in raw.items():
        curve = CURVES.seen if key[0] in tiny.SEEN else CURVES.unseen
        assert final[key] == pytest.approx(probability(curve, score), rel=1e-4)


@pytest.mark.parametrize("threshold", [0.1, 0.3, (0.5, 0.2)])
def test_thresholds_are_probabilities(path, photo, threshold):
    pair = threshold if isinstance(threshold, tuple) else (threshold, threshold)
    with opened(path) as everything, opened(path, threshold) as some:
        expected = {
            key: score
            for key, score in found(everything, photo).items()
            if score > pair[key[0] not in tiny.SEEN]
        }
        result = found(some, photo)
        assert result.keys() == expected.keys()
        assert len(result) > 0
        assert list(some(photo).scores) == sorted(some(photo).scores, reverse=True)


def test_the_best_of_all_classes_is_the_most_probable(path, photo):
    """The cap on detections compares roles, so it counts probabilities and not raw scores."""
    with opened(path) as everything:
        scores = sorted(found(everything, photo).values(), reverse=True)
        everything.set_thresholds(score_threshold=0.0, max_detections=5)
        np.testing.assert_allclose(everything(photo).scores, scores[:5], rtol=1e-6)


def test_a_near_miss_names_a_probability(path, photo):
    with opened(path) as everything, opened(path, 0.99) as strict:
        best = everything(photo)
        name, score = strict(photo).near_miss
        assert (name, score) == (best.class_names[0], pytest.approx(best.scores[0], rel=1e-5))


def test_a_class_added_later_has_the_curve_of_the_unseen(path, bundle_path, photo):
    with opened(path) as after, opened(bundle_path) as before:
        for detector in (before, after):
            detector.set_classes(["zebra"])
        raw, final = found(before, photo), found(after, photo)
        assert raw and raw.keys() == final.keys()
        for key, score in raw.items():
            assert final[key] == pytest.approx(probability(CURVES.unseen, score), rel=1e-4)


@pytest.mark.parametrize("curve", [(2.0, 3.0, -0.5), (0.4, 0.0, 3.0), (0.1, 2.0, 0.3)])
@pytest.mark.parametrize("threshold", [0.0, 1e-4, 0.05, 0.3, 0.999, 1.0, np.inf, -1.0])
def test_nothing_above_a_threshold_is_at_or_below_its_floor(curve, threshold):
    floor = floor_of(curve, threshold)
    scores = np.unique(
        np.concatenate([np.geomspace(1e-12, 1, 3000), np.float32(floor) + np.linspace(-1e-3, 1e-3)])
    )
    scores = scores[(scores > 0) & (scores <= 1) & np.isfinite(scores)].astype(np.float32)[:, None]
    above = kernels.calibrate_scores(scores, [curve]) > threshold
    assert not (above & (scores <= floor)).any()
    lost = ~above & (scores > floor)  # looked at for nothing: only right at the threshold
    assert lost.mean() < 0.02 or threshold in (1.0, 0.999)


def test_a_curve_that_falls_is_refused(tmp_path):
    for curve in ((-0.1, 1.0, 0.0), (1.0, -1.0, 0.0), (0.0, 2.0, 1.0), (float("nan"), 1.0, 0.0)):
        with pytest.raises(ConfigError, match=r"CalibrationConfig\.seen is .* must be above 0"):
            CalibrationConfig(seen=curve)
    tiny.tiny_bundle(tmp_path / "wrong")
    model = dataclasses.asdict(tiny.MODEL)
    model["calibration"]["unseen"] = [1.0, -1.0, 0.0]
    with pytest.raises(BundleError, match=r"CalibrationConfig\.unseen"):
        amend_bundle(tmp_path / "wrong", model=model)
