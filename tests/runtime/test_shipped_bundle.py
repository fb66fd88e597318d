"""The bundle that ships: whole, small, measured, and the same in plain ONNX Runtime."""

from __future__ import annotations

from unicodedata import normalize

import numpy as np
import pytest

from export.checks.images import sample_images
from export.verify import verify
from runtime import Detector, default_bundle
from runtime.bundle import bundled, open_bundle
from runtime.demo import PHOTOGRAPHS, photograph
from runtime.text import TextEncoder
from zsd_core.errors import BundleError
from zsd_core.learning.data.splits import load_split
from zsd_core.semantics import plain_name


def test_it_is_small_and_says_how_it_was_trained_and_measured():
    path = default_bundle()
    assert path == bundled("open")
    assert sum(file.stat().st_size for file in path.rglob("*")) <= 66_000_000
    manifest = open_bundle(path).manifest
    assert {"detector", "cut", "look"} <= set(manifest["training"])
    assert set(manifest["scores"]["roles"]) == {"seen", "unseen"}  # both are calibrated
    assert manifest["notes"] in (path / "MODEL_CARD.md").read_text(encoding="utf-8")


def test_it_says_what_taught_every_name():
    manifest = open_bundle(default_bundle()).manifest
    names = [entry["name"] for entry in manifest["classes"]]
    assert manifest["taught"]["boxes"] == names
    assert len(names) == 80
    assert len(manifest["taught"]["pictures"]) == 1000


def test_it_has_an_int8_head_for_cpus_whose_float32_weights_lie_in_the_bundle_once():
    onnx, bundle = pytest.importorskip("onnx"), open_bundle(default_bundle())
    for family in ("onnxruntime", "openvino"):
        assert bundle.network("trunk", "int8", family) == bundle.network("trunk")
        head = onnx.load(bundle.network("head", "int8", family), load_external_data=False)
        outside = {t.name for t in head.graph.initializer if t.external_data}
        assert "projection.weight" in outside
    limits = {"classes": ["spacesuit"], "score_threshold": 0.0}  # which only the head can tell
    one, other = (
        Detector(precision=precision, **limits)(photograph("astronaut.png"))
        for precision in ("float32", "int8")
    )
    assert 0 < abs(one.scores[0] - other.scores[0]) < 0.1


def test_a_bundle_that_is_not_here_is_named_with_those_that_are():
    with pytest.raises(BundleError, match=r"holds no bundle 'opne', only .*'open'; did you mean"):
        bundled("opne")


def test_almost_anything_can_be_typed():
    vocabulary = open_bundle(default_bundle()).vocabulary
    assert len(vocabulary.names) >= 10_000
    for name in ("forklift", "fire truck", "Zebra", "traffic_cone"):
        assert np.isclose(np.linalg.norm(vocabulary.lookup(name)), 1, atol=1e-5)


def test_words_with_accents_and_british_ones_are_classes_and_slips_are_none():
    bundle = open_bundle(default_bundle())
    spelling, vocabulary = TextEncoder(bundle, 1).spelling, bundle.vocabulary
    known = "café piñata jalapeño décor entrée crêpe éclair gruyère soufflé château mould sceptre"
    others = "rosé wine, naïve art, voilà, crème brûlée, cafés, touché, purée, colour, tyres, grey"
    for name in (*known.split(), *others.split(", ")):
        for written in (name, name.upper(), normalize("NFD", name)):
            assert spelling.correction(written) is None, written
    for name in known.split()[:9]:
        np.testing.assert_array_equal(vocabulary.lookup(name), vocabulary.lookup(plain_name(name)))
    slips = {"cafee": "cafe", "jalapeñp": "jalapeno", "café tabel": "café table"}
    assert {slip: spelling.correction(slip) for slip in slips} == slips


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


def test_coco48_is_the_paper_s_protocol_and_both_roles_are_calibrated():
    bundle = open_bundle(bundled("coco48"))
    manifest, split = bundle.manifest, load_split("coco_48_17")
    roles = {entry["name"]: entry["role"] for entry in manifest["classes"]}
    assert roles == dict.fromkeys(split.seen, "seen") | dict.fromkeys(split.unseen, "unseen")
    assert set(manifest["training"]["boxes_per_class"]) <= set(split.seen)  # no other box trained
    assert set(manifest["scores"]["roles"]) == {"seen", "unseen"}
    assert manifest["notes"] in (bundled("coco48") / "MODEL_CARD.md").read_text(encoding="utf-8")
    sizes = [file.stat().st_size for file in bundled("coco48").rglob("*")]
    assert sum(sizes) <= 40_000_000


@pytest.mark.slow
def test_plain_onnx_runtime_gives_the_same_detections_of_coco48():
    """Regions of the image itself, that a proposal network offers, in one graph."""
    with Detector(bundled("coco48"), score_threshold=0.0) as detector:
        assert all(len(detector(photograph(name))) >= 20 for name in PHOTOGRAPHS)
    report = verify(bundled("coco48"), sample_images()[:2])
    assert report["passed"], report


@pytest.mark.slow
def test_plain_onnx_runtime_gives_the_same_detections():
    detector = Detector(score_threshold=0.0)  # as verify lowers it
    assert all(len(detector(photograph(name))) >= 20 for name in PHOTOGRAPHS)
    report = verify(None, sample_images())
    assert report["passed"], report
