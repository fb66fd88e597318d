"""Bundles that a stranger wrote, hashes included: names, zips, weights and tokenizers."""

from __future__ import annotations

import hashlib
import json
import os
import stat
import zipfile

import numpy as np
import pytest
import tiny
import tiny_text
from safetensors.numpy import load, save

from runtime import Detector
from runtime.archive import MANIFEST, safe_name, safe_names
from runtime.bundle import open_bundle
from runtime.text import TextEncoder
from zsd_core.errors import BundleError, ZsdError


def put(path, name, data):
    (path / name).write_bytes(data)
    manifest = json.loads((path / MANIFEST).read_text())
    manifest["files"][name] = {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}
    (path / MANIFEST).write_text(json.dumps(manifest))


@pytest.mark.parametrize(
    "name",
    [
        *("../a", "/a", "a/../b", "./a", "a/", "a//b", "C:\\a", "a\x00", "a\n", "", "."),
        *("tr\u03c5nk.onnx", "\uff54runk.onnx", "trunk\u200b.onnx", "\ud800", "x" * 201),
        *("a ", "a.", " a", "a./b", "CON", "con.onnx", "a/Aux.bin", "COM1", "manifest.json"),
        *("MANIFEST.JSON", "model.sig", "a?", "a*", "a|b", 'a"'),
    ],
)
def test_a_name_stays_inside_and_means_one_file_everywhere(tmp_path, name):
    with pytest.raises(BundleError, match="not a plain path inside the bundle"):
        safe_name(tmp_path, name)


@pytest.mark.parametrize("name", ["trunk.onnx", "engines/a-b_1.2.plan", ".hidden", "console.bin"])
def test_plain_names_are_taken(tmp_path, name):
    assert safe_name(tmp_path, name) == name


def test_names_that_differ_by_case_are_refused(tmp_path):
    with pytest.raises(BundleError, match="one file on many systems"):
        safe_names(tmp_path, ["trunk.onnx", "TRUNK.onnx"])


def zipped(path, target, change=lambda archive: None, **packing):
    with zipfile.ZipFile(target, "w", packing.get("method", zipfile.ZIP_STORED)) as archive:
        for file in sorted(path.iterdir()):
            archive.write(file, file.name)
        change(archive)
    return target


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_zip_with_two_files_of_one_name_is_refused(bundle_path, tmp_path):
    path = zipped(bundle_path, tmp_path / "b.zip", lambda z: z.writestr("trunk.onnx", b"other"))
    with pytest.raises(BundleError, match=r"two files of one name, 'trunk\.onnx'; pack"):
        open_bundle(path)


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_methods_that_take_memory_by_their_header_are_refused(bundle_path, tmp_path, method):
    with pytest.raises(BundleError, match="pack the bundle again"):
        open_bundle(zipped(bundle_path, tmp_path / "b.zip", method=method))


def test_a_bomb_is_refused_before_it_is_unpacked(fresh_bundle_path, tmp_path, monkeypatch):
    put(fresh_bundle_path, "big.bin", bytes(8 << 20))
    path = zipped(fresh_bundle_path, tmp_path / "b.zip", method=zipfile.ZIP_DEFLATED)
    monkeypatch.setattr("shutil.copyfileobj", None)  # would be called to unpack
    with pytest.raises(BundleError, match=r"big\.bin has \d+ bytes in the zip and would"):
        open_bundle(path)


def test_a_link_in_a_zip_is_no_link(fresh_bundle_path, tmp_path):
    put(fresh_bundle_path, "link", b"/etc/passwd")
    info = zipfile.ZipInfo("link")
    info.external_attr = (stat.S_IFLNK | 0o777) << 16
    target = tmp_path / "b.zip"
    with zipfile.ZipFile(target, "w") as archive:
        for file in sorted(fresh_bundle_path.iterdir()):
            archive.writestr(info if file.name == "link" else file.name, file.read_bytes())
    bundle = open_bundle(target)
    place = bundle.file("link")
    assert not place.is_symlink()
    assert place.read_bytes() == b"/etc/passwd"


@pytest.mark.parametrize("name", ["trunk.onnx", "manifest.json"])
def test_a_zip_of_links_says_how_to_pack_the_files(bundle_path, tmp_path, name):
    target = tmp_path / "b.zip"
    info = zipfile.ZipInfo(name)
    info.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(target, "w") as archive:
        for file in sorted(bundle_path.iterdir()):
            link = file.name == name
            archive.writestr(info if link else file.name, b"x" if link else file.read_bytes())
    with pytest.raises(BundleError, match=f"'{name}' is a link in the zip; pack the bundle again"):
        open_bundle(target)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="pipes and devices are POSIX's")
@pytest.mark.parametrize("kind", ["pipe", "endless", "large"])
def test_a_manifest_that_never_ends_is_refused(fresh_bundle_path, kind):
    place = fresh_bundle_path / MANIFEST
    place.unlink()
    if kind == "pipe":
        os.mkfifo(place)
    elif kind == "endless":
        place.symlink_to("/dev/zero")
    else:
        with place.open("wb") as file:
            file.truncate(17 << 20)
    with pytest.raises(BundleError):
        open_bundle(fresh_bundle_path)


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("name", ["scorer.safetensors", "vocabulary.safetensors"])
def test_weights_and_vectors_are_finite(fresh_bundle_path, name, value):
    arrays = load((fresh_bundle_path / name).read_bytes())
    key = next(key for key, array in sorted(arrays.items()) if array.dtype.kind == "f")
    arrays[key] = np.array(arrays[key])
    arrays[key].flat[0] = value
    put(fresh_bundle_path, name, save(arrays))
    with pytest.raises(BundleError, match="not finite"):
        Detector(fresh_bundle_path, backend="onnxruntime", classes=["cat", "zebra"])


def test_weights_by_which_a_class_becomes_infinite_are_refused(fresh_bundle_path):
    arrays = load((fresh_bundle_path / "scorer.safetensors").read_bytes())
    for key in ("project_semantic.weight1", "project_semantic.weight2"):
        arrays[key] = np.full_like(arrays[key], 3e38)
    put(fresh_bundle_path, "scorer.safetensors", save(arrays))
    with pytest.raises(BundleError, match="weights of this bundle are too large"):
        Detector(fresh_bundle_path, backend="onnxruntime")


def test_words_are_text(fresh_bundle_path):
    arrays = load((fresh_bundle_path / "vocabulary.safetensors").read_bytes())
    arrays["names"] = np.array(arrays["names"])
    arrays["names"][0] = 0xFF
    put(fresh_bundle_path, "vocabulary.safetensors", save(arrays))
    with pytest.raises(BundleError, match="names is not text"):
        _ = open_bundle(fresh_bundle_path).vocabulary


@pytest.mark.parametrize(
    ("key", "value"), [("width", 10**9), ("max_tokens", -1), ("padding", 2**70), ("width", True)]
)
def test_numbers_of_the_text_encoder_have_ends(fresh_bundle_path, key, value):
    with pytest.raises(BundleError, match="'text' must name"):
        tiny_text.with_text(fresh_bundle_path, **{key: value})


def test_a_panic_of_the_tokenizer_is_an_error_of_the_bundle(tmp_path):
    path = tiny_text.with_text(tiny.tiny_bundle(tmp_path / "b"))
    content = json.loads((path / "tokenizer.json").read_text())
    content["post_processor"]["special_tokens"] = {}
    put(path, "tokenizer.json", json.dumps(content).encode())
    with pytest.raises(BundleError, match=r"tokenizer\.json cannot be read"):
        TextEncoder(open_bundle(path), 1).encode(["red pallet"])


@pytest.mark.parametrize(
    ("stage", "side", "count"),
    [("trunk", "inputs", 0), ("head", "outputs", 1), ("head", "inputs", 0)],
)
def test_stages_have_the_inputs_and_outputs_that_are_read(fresh_bundle_path, stage, side, count):
    manifest = json.loads((fresh_bundle_path / MANIFEST).read_text())
    del manifest["stages"][stage][side][count:]
    (fresh_bundle_path / MANIFEST).write_text(json.dumps(manifest))
    with pytest.raises(BundleError, match=f"the {stage}"):
        open_bundle(fresh_bundle_path)


@pytest.mark.parametrize("width", ["vector_dim", "joint_dim", "hidden_dim"])
@pytest.mark.parametrize("change", ["absent", "other"])
def test_a_width_of_the_configuration_is_that_of_the_weights(tmp_path, width, change):
    """C++ reads memory by these numbers; what they say must not depend on who reads."""
    path = tiny.tiny_bundle(tmp_path / "b")
    manifest = json.loads((path / MANIFEST).read_text())
    scoring = manifest["model"]["scoring"]
    scoring[width] += 1
    if change == "absent":
        del scoring[width]
    (path / MANIFEST).write_text(json.dumps(manifest))
    with pytest.raises(ZsdError):
        Detector(open_bundle(path))
