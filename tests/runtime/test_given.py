"""A given detector with a second look, in the runtime: what is found, what is looked at."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
import tiny
import tiny_given
from hypothesis import given
from hypothesis import strategies as st

from runtime import Detector
from runtime.bundle import open_bundle
from zsd_core.calibration import CalibrationConfig
from zsd_core.errors import BundleError
from zsd_core.scoring.prototypes import PrototypeScorer

MIXED = {"person": None, "truck": None, "zebra": None, "teapot": None}


@pytest.fixture(scope="module")
def given_path(tmp_path_factory):
    return tiny_given.given_bundle(tmp_path_factory.mktemp("given") / "bundle")


@pytest.fixture(scope="module")
def calibrated_path(tmp_path_factory):
    """A bundle with a curve for either role."""
    curves = CalibrationConfig(seen=(1.5, 0.8, 0.3), unseen=(0.5, 0.7, -0.4))
    model = dataclasses.replace(tiny_given.MODEL, calibration=curves)
    return tiny_given.given_bundle(tmp_path_factory.mktemp("calibrated") / "bundle", model)


def opened(path, classes=MIXED, **options):
    options = {"backend": "onnxruntime", "threads": 1, "score_threshold": 0.0} | options
    return Detector(path, classes=classes, **options)


def picture(seed, height=60, width=90):
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (4, 6, 3), np.uint8)
    return np.repeat(np.repeat(coarse, height // 4, 0), width // 6, 1)


def counting_heads(detector, monkeypatch):
    """Regions that went through the head, in a list that grows."""
    counts, head = [], detector._backend.head

    def counted(*regions):
        counts.append(len(regions[0]))
        return head(*regions)

    monkeypatch.setattr(detector._backend, "head", counted)
    return counts


def same(one, other):
    np.testing.assert_array_equal(one.boxes, other.boxes)
    np.testing.assert_array_equal(one.scores, other.scores)
    assert one.class_names == other.class_names


@given(
    seed=st.integers(0, 2**16),
    seen=st.floats(0, 1),
    unseen=st.floats(0, 1),
    calibrated=st.booleans(),
)
def test_leaving_regions_out_changes_nothing_that_is_found(
    given_path, calibrated_path, seed, seen, unseen, calibrated
):
    path, image = calibrated_path if calibrated else given_path, picture(seed)
    with opened(path, score_threshold=(seen, unseen)) as detector:
        found = detector(image)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(PrototypeScorer, "least_objectness", lambda self, threshold: 0.0)
            everything = detector(image)
    same(found, everything)


def test_regions_are_left_out(given_path, monkeypatch):
    with opened(given_path, score_threshold=0.97) as detector:
        counts = counting_heads(detector, monkeypatch)
        detector(picture(0))
        few, counts[:] = sum(counts), []
        detector.set_thresholds(score_threshold=0.0)
        detector(picture(0))
    assert few == 1  # the best of an image, so that an empty result can be explained
    assert sum(counts) == tiny_given.MODEL.regions.look


@pytest.mark.parametrize("how", ["only seen classes", "mode seen", "unseen hidden"])
def test_nothing_is_looked_at_when_only_seen_classes_are_asked_for(given_path, monkeypatch, how):
    options = {
        "only seen classes": {"classes": ["person", "truck"]},
        "mode seen": {"mode": "seen"},
        "unseen hidden": {"mode": "seen", "score_threshold": (0.0, 0.0)},
    }[how]
    with opened(given_path, **options) as detector:
        counts = counting_heads(detector, monkeypatch)
        assert len(detector(picture(1)))
        assert counts == []
        detector.set_classes(["person", "zebra"], mode="gzsd")
        detector(picture(1))
        assert sum(counts) > 0


@pytest.mark.parametrize("contest", [0.0, 4.0])
def test_another_class_takes_from_the_detectors_own_in_a_contest_only(tmp_path, contest):
    scoring = dataclasses.replace(tiny_given.SCORING, contest=contest)
    model = dataclasses.replace(tiny_given.MODEL, scoring=scoring)
    path = tiny_given.given_bundle(tmp_path / "given", model=model)
    with opened(path, classes=["person", "dining table"], nms_threshold=1.0) as detector:
        alone = detector(picture(2))
        detector.add_classes(["zebra", "teapot"])
        both = detector(picture(2))
    own = both[np.array([role == "seen" for role in both.roles])]
    if not contest:
        return same(alone, own)
    assert len(own) == len(alone)
    before, after = (
        dict(
            zip(
                zip(map(tuple, f.boxes.tolist()), f.class_names, strict=True), f.scores, strict=True
            )
        )
        for f in (alone, own)
    )
    lost = np.array([before[key] - after[key] for key in before])
    assert lost.min() >= 0  # nothing gains
    assert lost.max() > 0.05
    assert (lost == 0).any()  # regions that no look holds for


def test_a_batch_of_mixed_sizes_is_its_images(given_path):
    images = [picture(3), picture(4, 120, 66), picture(5, 4, 6), picture(6, 200, 96)]
    with opened(given_path) as detector:
        for one, other in zip(detector(images, max_batch=3), map(detector, images), strict=True):
            same(one, other)


@pytest.mark.parametrize("size", [(1, 1), (1, 300), (300, 1)])
def test_images_of_any_shape_are_stretched_to_the_square(given_path, size):
    with opened(given_path) as detector:
        found = detector(np.full((*size, 3), 90, np.uint8))
    assert (found.boxes >= 0).all()
    assert (found.boxes[:, 2] <= size[1]).all()
    assert (found.boxes[:, 3] <= size[0]).all()


@pytest.mark.parametrize("look", [1, 100])
def test_so_many_regions_are_looked_at_and_no_more(tmp_path, monkeypatch, look):
    path = tiny_given.given_bundle(tmp_path / "bundle", tiny_given.with_look(look))
    with opened(path) as detector:
        counts = counting_heads(detector, monkeypatch)
        detector([picture(7), picture(8)])
    assert sum(counts) == 2 if look == 1 else 2 < sum(counts) <= 2 * tiny_given.REGIONS


def changed(path, change):
    file = path / "manifest.json"
    manifest = json.loads(file.read_text(encoding="utf-8"))
    change(manifest)
    file.write_text(json.dumps(manifest), encoding="utf-8")


def test_a_trunk_of_other_outputs_or_classes_is_refused(tmp_path):
    path = tiny_given.given_bundle(tmp_path / "bundle")

    def swap(manifest):
        manifest["stages"]["trunk"]["outputs"].reverse()

    changed(path, swap)
    with pytest.raises(BundleError, match=r"trunk's outputs are \['logits', 'boxes'\]"):
        open_bundle(path)
    changed(path, swap)
    changed(path, lambda m: m["classes"].append({"name": "seal", "role": "seen"}))
    with pytest.raises(BundleError, match=r"logits of shape .*, 3\], and the class table holds 4"):
        open_bundle(path)


def test_a_head_of_another_size_of_regions_is_refused(tmp_path):
    path = tiny_given.given_bundle(tmp_path / "bundle")

    def larger(manifest):
        manifest["stages"]["head"]["inputs"][0]["shape"][2:] = [9, 9]

    changed(path, larger)
    with pytest.raises(BundleError, match=r"head's inputs have bins \[\(9, 9\)\]"):
        open_bundle(path)


def test_the_tiny_bundle_is_what_the_exporter_cuts(given_path, tmp_path):
    export_given = pytest.importorskip("export.graphs.given")
    import onnx_ir as ir
    import onnxruntime as ort

    path = tiny_given.save_detector(tmp_path / "detector.onnx", "xyxy")
    trunk = ir.to_proto(export_given.given_trunk(path, export_given.find_cut(path)))
    images = np.random.default_rng(0).random((2, 3, 64, 64), np.float32)
    results = [
        ort.InferenceSession(m.SerializeToString(), providers=["CPUExecutionProvider"]).run(
            ["boxes", "logits"], {"images": images}
        )
        for m in (trunk, tiny_given.trunk_model())
    ]
    for one, other in zip(*results, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-6)
    assert len(tiny.SEEN) == results[0][1].shape[2]
