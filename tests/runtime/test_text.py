"""Vectors of any phrase, in a bundle with a small encoder of the real shape."""

from __future__ import annotations

import importlib.util
import json
import pickle
import threading

import cv2
import numpy as np
import pytest
import tiny
import tiny_text
from tokenizers import Tokenizer

from export.writing.bundle_writer import amend_bundle
from runtime import Detector
from runtime.bundle import open_bundle
from runtime.detect import main
from runtime.text import KEPT, NETWORKS, TextEncoder
from zsd_core.errors import BundleError, ClassError, MissingPackageError

PHRASES = ["dented red pallet", "red", "chipped blue mug with a handle", "pallet"]


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return tiny_text.with_text(tiny.tiny_bundle(tmp_path_factory.mktemp("text") / "bundle"))


@pytest.fixture
def encoder(path):
    return TextEncoder(open_bundle(path), threads=1)


def installed():
    return [package for package in NETWORKS if importlib.util.find_spec(package)]


def token_ids(phrases, template=tiny_text.TEMPLATE):
    tokenizer = Tokenizer.from_str(tiny_text.tokenizer().decode())
    tokenizer.no_padding()
    tokenizer.enable_truncation(tiny_text.LONGEST)
    return [tokenizer.encode(template.format(phrase)).ids for phrase in phrases]


@pytest.mark.parametrize("package", installed())
def test_every_runtime_computes_what_the_weights_mean(path, package):
    exact = tiny_text.encode_in_float64(PHRASES, token_ids(PHRASES))
    found = TextEncoder(open_bundle(path), 1, package).encode(PHRASES)
    assert found.dtype == np.float32 and found.shape == (len(PHRASES), tiny.VECTOR)
    np.testing.assert_allclose(found, exact, atol=2e-5)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-6)


def test_a_phrase_has_one_vector_whatever_stands_beside_it(encoder, path):
    together = encoder.encode([*PHRASES, *(f"red {n}" for n in range(40))])
    for phrase, row in zip(PHRASES, together, strict=False):
        alone = TextEncoder(open_bundle(path), threads=1).encode([phrase])[0]
        np.testing.assert_allclose(alone, row, atol=1e-6)


def test_the_template_of_the_bundle_goes_around_a_phrase(tmp_path):
    path = tiny_text.with_text(tiny.tiny_bundle(tmp_path / "bundle"), template="of a {}")
    exact = tiny_text.encode_in_float64(["red"], token_ids(["red"], "of a {}"))
    found = TextEncoder(open_bundle(path), threads=1).encode(["red"])
    np.testing.assert_allclose(found, exact, atol=2e-5)


def test_case_and_blanks_do_not_count_and_order_is_kept(encoder):
    first, second, third = encoder.encode(["Red_Pallet", "pallet", "  red   pallet "])
    np.testing.assert_array_equal(first, third)
    assert first @ second < 0.9999
    assert encoder.encode([]).shape == (0, tiny.VECTOR)


def test_what_was_encoded_is_remembered_and_not_for_ever(encoder, monkeypatch):
    first = encoder.encode(["red pallet"])
    monkeypatch.setattr(encoder, "_run", lambda names: [1 / 0 for _ in names])
    np.testing.assert_array_equal(
        encoder.encode(["red pallet", "RED pallet"])[[0, 1]], first[[0, 0]]
    )
    unit = np.ones(tiny.VECTOR, np.float32)
    monkeypatch.setattr(encoder, "_run", lambda names: [unit for _ in names])
    encoder.encode([f"thing {n}" for n in range(KEPT + 10)])
    assert len(encoder._known) == KEPT


def test_a_long_text_is_cut_off_where_the_encoder_ends(encoder):
    long = "red " * 200
    np.testing.assert_allclose(encoder.encode([long]), encoder.encode([long + "pallet"]), atol=1e-6)


def test_threads_may_share_it(path):
    encoder, found = TextEncoder(open_bundle(path), threads=1), []
    threads = [
        threading.Thread(target=lambda: found.append(encoder.encode(PHRASES))) for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 8
    for rows in found:
        np.testing.assert_array_equal(rows, found[0])


@pytest.mark.parametrize(
    ("phrases", "says"),
    [
        ("red pallet", r"phrases is the text 'red pallet', must be a list: \['red pallet'\]"),
        (["red", " "], "phrase ' ' must be a text that is not blank"),
        ([3], "phrase 3 must be a text"),
    ],
)
def test_what_is_no_list_of_phrases_is_a_sentence(encoder, phrases, says):
    with pytest.raises(ClassError, match=says):
        encoder.encode(phrases)


def test_a_bundle_without_one_says_how_to_add_it(bundle_path):
    encoder = TextEncoder(open_bundle(bundle_path))
    assert not encoder
    with pytest.raises(BundleError, match=r"no text encoder. Add one: python -m export\.text"):
        encoder.encode(["red pallet"])


def test_no_runtime_of_networks_is_a_sentence(path, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingPackageError, match=r"pip install 'contrastzsd\[cpu\]'"):
        TextEncoder(open_bundle(path)).encode(["red pallet"])


@pytest.mark.parametrize("package", installed())
def test_files_that_are_no_encoder_are_sentences(tmp_path, package):
    path = tiny_text.with_text(tiny.tiny_bundle(tmp_path / "bundle"), network="head.onnx")
    path = tiny_text.with_text(path, tokenizer="MODEL_CARD.md")
    with pytest.raises(BundleError, match=r"MODEL_CARD\.md is not JSON"):
        TextEncoder(open_bundle(path), 1, package).encode(["red"])
    amend_bundle(path, {"broken.onnx": b"\x08\x09"})
    path = tiny_text.with_text(path, network="broken.onnx")
    with pytest.raises(BundleError, match=rf"{package} cannot load broken\.onnx"):
        TextEncoder(open_bundle(path), 1, package).encode(["red"])


@pytest.mark.parametrize(
    "change", [{"network": "missing.onnx"}, {"tokenizer": 3}, {"width": "384"}, {"padding": None}]
)
def test_a_manifest_that_describes_none_is_refused(tmp_path, change):
    path = tiny.tiny_bundle(tmp_path / "bundle")
    with pytest.raises(BundleError, match="'text' must name a listed network and tokenizer"):
        tiny_text.with_text(path, **change)


# In a detector.


def opened(path):
    options = {"score_threshold": 0, "max_detections": 500}
    return Detector(path, backend="onnxruntime", threads=1, **options)


@pytest.fixture
def detector(path):
    with opened(path) as detector:
        yield detector


def test_a_phrase_changes_the_next_frame(detector):
    image = tiny.random(8).integers(0, 256, (64, 96, 3)).astype(np.uint8)
    before = detector(image)
    detector.add_classes(["dented red pallet"])
    after = detector(image)
    assert "dented red pallet" not in before.class_names
    assert "dented red pallet" in after.class_names
    assert detector.roles[-1] == "unseen"


def test_a_phrase_is_the_class_of_its_own_vector(detector, path):
    detector.set_classes(["cat", "dented red pallet"])
    image = tiny.random(8).integers(0, 256, (64, 96, 3)).astype(np.uint8)
    with opened(path) as other:
        vector = detector.encode(["dented red pallet"])[0]
        other.set_classes({"cat": None, "dented red pallet": vector})
        np.testing.assert_allclose(detector(image).scores, other(image).scores, atol=1e-6)


def test_names_of_the_vocabulary_are_looked_up(detector, monkeypatch):
    monkeypatch.setattr(detector._encoder, "_run", lambda names: 1 / 0)
    detector.set_classes(["zebra", "cat", "trück", "Fire_Truck"])
    assert detector.classes == ("zebra", "cat", "trück", "Fire_Truck")


def test_all_misspelt_names_are_reported_and_can_be_forced(detector):
    before = detector.classes
    with pytest.raises(ClassError) as caught:
        detector.add_classes(["zebar", "red pallet", "a forklfit", "qwrtz"])
    text = str(caught.value)
    assert text.startswith("2 class names look misspelt: 'zebar' (did you mean 'zebra'?)")
    assert "'a forklfit' (did you mean 'a forklift'?)" in text and "qwrtz" not in text
    assert "exact=True" in text and "--exact" in text
    assert caught.value.meant == {"zebar": "zebra", "a forklfit": "a forklift"}
    assert detector.classes == before
    detector.add_classes({"zebar": detector.encode(["zebar"])[0], "qwrtz": None})
    assert detector.classes[-2:] == ("zebar", "qwrtz")
    vector = detector.class_vectors()["zebar"]
    detector.set_classes(["zebar", "cat"], exact=True)
    np.testing.assert_array_equal(detector.class_vectors()["zebar"], vector)
    detector.add_classes(["a forklfit"], exact=True)
    assert detector.classes == ("zebar", "cat", "a forklfit")
    with pytest.raises(ClassError, match="given twice"):
        detector.set_classes(["zebar", "zebar"], exact=True)


def test_accents_that_nobody_knows_make_no_other_class(detector):
    vector = detector.encode(["red pallet"])[0]
    detector.set_classes(["zébra", "cat", "rosé truck"], exact=True)
    assert set(detector.roles) == {"unseen"}
    for name, active in {"zebra": "zébra", "Rose Truck": "rosé truck"}.items():
        with pytest.raises(ClassError, match=f"is already active, as '{active}'"):
            detector.add_classes([name])
    for names in (["tea", "téa"], {"año": vector, "AÑO": None}):
        with pytest.raises(ClassError, match="is given twice"):
            detector.add_classes(names, exact=True)
    copy = pickle.loads(pickle.dumps(detector))
    for name, own in detector.class_vectors().items():
        np.testing.assert_array_equal(copy.class_vectors()[name], own)
    detector.add_classes({"róse truck": vector})  # another class: its vector is its own
    with pytest.raises(ClassError, match="'róse truck' is already active"):
        detector.add_classes({"róse truck": vector})
    detector.remove_classes(["zebra", "RÓSE TRUCK", "rose truck"])
    assert detector.classes == ("cat",)


def test_without_an_encoder_all_unknown_names_are_reported(bundle_path):
    with Detector(bundle_path, backend="onnxruntime", threads=1) as detector:
        with pytest.raises(ClassError) as caught:
            detector.add_classes(["truk", "zebra", "qqq", "zebar"])
        with pytest.raises(BundleError, match="no text encoder"):
            detector.encode(["cat"])
    text = str(caught.value)
    assert "3 names are not in the vocabulary of 8 names: 'truk' (did you mean 'truck'" in text
    assert "'qqq', 'zebar' (did you mean 'zebra'?)." in text
    assert f"python -m export.text {bundle_path}" in text


@pytest.fixture
def detect(path, tmp_path, photo):
    """Run ``contrastzsd detect`` for classes, with every score; returns its status."""
    cv2.imwrite(str(tmp_path / "photo.png"), photo)
    rest = ["--score-threshold", "0", "--threads", "1", "--backend", "onnxruntime"]
    rest += ["--bundle", str(path), "--output", str(tmp_path / "out")]
    return lambda *classes: main([str(tmp_path / "photo.png"), "--classes", *classes, *rest])


def test_the_command_takes_what_looks_misspelt_where_it_is_meant(detect, tmp_path, capfd):
    assert detect("zebar, cat") == 1
    assert "--exact" in capfd.readouterr().err
    assert detect("zebar, cat", "--exact") == 0
    objects = json.loads((tmp_path / "out" / "photo.json").read_text())
    assert "zebar" in {o["class"] for o in objects}


def test_a_phrase_that_may_hold_a_slip_is_searched_and_said(detect, tmp_path, capfd):
    assert detect("zebra, dentd red pallet") == 0
    hint = "'dentd red pallet' is looked for as written; did you mean 'dented red pallet'?"
    assert hint in capfd.readouterr().err
    objects = json.loads((tmp_path / "out" / "photo.json").read_text())
    assert "dentd red pallet" in {o["class"] for o in objects}
