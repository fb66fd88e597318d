"""Files of a bundle are what the manifest says when they are loaded, not only when it is opened."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil

import numpy as np
import onnx
import pytest
import tiny
import tiny_text

import runtime.bundle
import runtime.text
import runtime.verified
from export.writing.bundle_writer import amend_bundle
from runtime import Detector
from runtime.archive import MANIFEST
from runtime.bundle import open_bundle
from runtime.text import NETWORKS, TextEncoder
from zsd_core.errors import BundleError

PACKAGES = [package for package in NETWORKS if importlib.util.find_spec(package)]


@pytest.fixture
def path(tmp_path):
    return tiny_text.with_text(tiny.tiny_bundle(tmp_path / "bundle"))


@pytest.fixture
def split(tmp_path):
    """A bundle whose trunk keeps a weight in ``weights.bin``."""
    trunk = tiny.trunk_model()
    weight = next(w for w in trunk.graph.initializer if w.name == "w_features")
    data = weight.raw_data
    weight.ClearField("raw_data")
    weight.data_location = onnx.TensorProto.EXTERNAL
    for key, value in {"location": "weights.bin", "offset": "0", "length": str(len(data))}.items():
        weight.external_data.add(key=key, value=value)
    head = tiny.head_model().SerializeToString()
    files = {"trunk.onnx": trunk.SerializeToString(), "head.onnx": head, "weights.bin": data}
    return tiny.tiny_bundle(tmp_path / "split", files=files)


def exchange(path):
    """Let "red" and "blue" trade places in the tokenizer."""
    table = json.loads((path / "tokenizer.json").read_text())
    words = table["model"]["vocab"]
    words["red"], words["blue"] = words["blue"], words["red"]
    (path / "tokenizer.json").write_text(json.dumps(table))


def flip(file):
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)


def test_a_tokenizer_that_changed_after_the_opening_is_refused(path):
    right = (path / "tokenizer.json").read_bytes()
    with Detector(path, backend="onnxruntime", threads=1) as exact:
        wanted = exact.encode(["red pallet"])
    with Detector(path, backend="onnxruntime", threads=1) as detector:
        exchange(path)
        with pytest.raises(BundleError, match=r"tokenizer\.json is damaged"):
            detector.encode(["red pallet"])
        (path / "tokenizer.json").write_bytes(right)
        np.testing.assert_array_equal(detector.encode(["red pallet"]), wanted)


@pytest.mark.parametrize("package", PACKAGES)
def test_a_text_network_that_changed_after_the_opening_is_refused(path, package):
    encoder = TextEncoder(open_bundle(path), 1, package)
    flip(path / "text_encoder.onnx")
    with pytest.raises(BundleError, match=r"text_encoder\.onnx is damaged"):
        encoder.encode(["red pallet"])


def test_a_text_network_of_equal_times_is_hashed_again(path, monkeypatch):
    """A disk of another machine may say late that a file has changed."""
    encoder = TextEncoder(open_bundle(path), 1)
    monkeypatch.setattr(runtime.verified, "stamp", lambda path: (0,))
    flip(path / "text_encoder.onnx")
    with pytest.raises(BundleError, match=r"text_encoder\.onnx is damaged"):
        encoder.encode(["red pallet"])


def test_a_text_network_that_changes_while_it_is_loaded_is_refused(path, monkeypatch):
    place, load = path / "text_encoder.onnx", NETWORKS[PACKAGES[0]]

    def meanwhile(*arguments):
        shutil.copyfile(path / "head.onnx", place.with_suffix(".new"))
        place.with_suffix(".new").replace(place)
        place.with_suffix(".old").replace(place)
        return load(*arguments)

    shutil.copy2(place, place.with_suffix(".old"))  # the right file, and its time
    monkeypatch.setitem(runtime.text.NETWORKS, PACKAGES[0], meanwhile)
    with pytest.raises(BundleError, match=r"text_encoder\.onnx was changed while it was loaded"):
        TextEncoder(open_bundle(path), 1, PACKAGES[0]).encode(["red"])


@pytest.mark.parametrize("name", ["trunk.onnx", "weights.bin"])
def test_files_that_change_while_a_network_is_loaded_are_refused(split, name):
    bundle, times = open_bundle(split), (split / name).stat()
    right = (split / name).read_bytes()
    with pytest.raises(BundleError, match=rf"{name} was changed while it was loaded"):
        with bundle.loading("trunk.onnx"):
            (split / name).write_bytes(bytes(len(right)))
            (split / name).write_bytes(right)
            os.utime(split / name, ns=(times.st_atime_ns, times.st_mtime_ns))
    with bundle.loading("trunk.onnx") as place:  # they are right, and still
        assert place == split / "trunk.onnx"
    with pytest.raises(BundleError, match="was changed"), bundle.loading("trunk.onnx"):
        (split / name).unlink()


@pytest.mark.parametrize("anew", [False, True])
def test_weights_that_changed_after_the_opening_are_refused_at_every_load(split, anew):
    bundle = open_bundle(split)
    with bundle.loading("trunk.onnx", anew=anew):
        pass
    flip(split / "weights.bin")
    for _ in range(2):
        with pytest.raises(BundleError, match=r"weights\.bin is damaged"):
            bundle.file("trunk.onnx")
        with (
            pytest.raises(BundleError, match=r"weights\.bin is damaged"),
            bundle.loading("trunk.onnx", anew=anew),
        ):
            pass


def test_a_network_that_changes_while_it_is_checked_is_refused(split, monkeypatch):
    """Otherwise its check would say that no weights lie outside, and they would not be hashed."""
    bundle, right = open_bundle(split), (split / "trunk.onnx").read_bytes()
    check = runtime.verified.check_network

    def meanwhile(*arguments):
        (split / "trunk.onnx").write_bytes(tiny.trunk_model().SerializeToString())
        weights = check(*arguments)
        (split / "trunk.onnx").write_bytes(right)
        return weights

    monkeypatch.setattr(runtime.verified, "check_network", meanwhile)
    with pytest.raises(BundleError, match=r"trunk\.onnx was changed while it was loaded"):
        bundle.file("trunk.onnx")
    monkeypatch.undo()
    flip(split / "weights.bin")
    with pytest.raises(BundleError, match=r"weights\.bin is damaged"):
        bundle.file("trunk.onnx")


@pytest.mark.parametrize("name", ["scorer.safetensors", "vocabulary.safetensors"])
def test_tensors_are_those_that_were_hashed(tmp_path, path, monkeypatch, name):
    other = tiny.tiny_bundle(
        tmp_path / "other",
        class_vectors=tiny.unit_vectors(len(tiny.SEEN) + len(tiny.UNSEEN), 99),
        scorer=tiny.scorer_tensors(seed=98),
    )

    def tensors(bundle):
        return (
            bundle.class_vectors
            if name.startswith("vocabulary")
            else bundle.scorer_tensors()["background"]
        )

    wanted, small = tensors(open_bundle(path)), open_bundle(path)
    monkeypatch.setattr(runtime.bundle, "KEPT", 0)
    large = open_bundle(path)
    shutil.copyfile(other / name, path / name)
    np.testing.assert_array_equal(tensors(small), wanted)  # kept in memory
    with pytest.raises(BundleError, match=rf"{name} is damaged"):  # read when it is needed
        tensors(large)
    if name.startswith("scorer"):  # it was there once, and is read again
        with pytest.raises(BundleError, match=rf"{name} is damaged"):
            small.scorer_tensors()


def test_an_engine_is_what_was_hashed(tmp_path):
    networks = {
        "trunk.onnx": tiny.trunk_model().SerializeToString(),
        "head.onnx": tiny.head_model().SerializeToString(),
    }
    path = tiny.tiny_bundle(tmp_path / "b", files={**networks, "engines/trunk.plan": b"plan"})
    bundle = open_bundle(path)
    assert bundle.read("engines/trunk.plan") == b"plan"
    for wrong in (b"plam", b"plan and more", b""):
        (path / "engines/trunk.plan").write_bytes(wrong)
        with pytest.raises(BundleError, match=r"engines/trunk\.plan is damaged"):
            bundle.read("engines/trunk.plan")
    (path / "engines/trunk.plan").unlink()
    with pytest.raises(BundleError, match=r"engines/trunk\.plan is missing"):
        bundle.read("engines/trunk.plan")
    with pytest.raises(BundleError, match="is not part of this bundle"):
        bundle.read(MANIFEST)


def test_a_bundle_replaced_under_a_detector_is_not_mixed_with_the_new_one(tmp_path, path):
    """The new one is as whole as the old one, and has another text encoder."""
    with Detector(path, backend="onnxruntime", threads=1) as detector:
        other = tiny_text.with_text(tiny.tiny_bundle(tmp_path / "other"))
        exchange(other)
        amend_bundle(
            path, {"tokenizer.json": (other / "tokenizer.json").read_bytes()}, notes="the new one"
        )
        assert open_bundle(path).manifest["notes"] == "the new one"
        with pytest.raises(BundleError, match=r"tokenizer\.json is damaged"):
            detector.encode(["red pallet"])
