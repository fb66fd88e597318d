"""The bundle format: what is written is read; what is wrong is said before anything runs."""

import json
import os
import time
import zipfile

import numpy as np
import pytest
import tiny

import runtime.bundle as bundle_module
from export.writing.bundle_writer import amend_bundle, write_bundle
from runtime import Detector
from runtime.bundle import default_bundle, open_bundle
from runtime.manifest import FORMAT, parse_manifest
from zsd_core.errors import BundleError


def edit(path, **changes):
    """Change the manifest of a bundle directory; a value of None removes the key."""
    file = path / "manifest.json"
    manifest = json.loads(file.read_text())
    for key, value in changes.items():
        manifest.pop(key) if value is None else manifest.__setitem__(key, value)
    file.write_text(json.dumps(manifest))
    return path


def manifest_of(path):
    return json.loads((path / "manifest.json").read_text())


def test_what_is_written_is_read(bundle_path):
    bundle = open_bundle(bundle_path)
    assert bundle.name == "tiny"
    assert (bundle.seen, bundle.unseen) == (tiny.SEEN, tiny.UNSEEN)
    assert bundle.model_config == tiny.MODEL
    np.testing.assert_array_equal(bundle.class_vectors, tiny.unit_vectors(5, 5))
    for name, tensor in tiny.scorer_tensors().items():
        np.testing.assert_array_equal(bundle.scorer_tensors()[name], tensor)
    assert bundle.vocabulary.names == tiny.WORDS
    assert bundle.file("trunk.onnx").read_bytes() == tiny.trunk_model().SerializeToString()
    assert bundle.stage("head")["outputs"][0]["name"] == "embeddings"
    assert bundle.vocabulary_info["encoder"] == "random"
    assert open_bundle(bundle) is bundle


def test_every_file_is_listed_with_hash_and_size(bundle_path):
    listed = manifest_of(bundle_path)["files"]
    there = {p.relative_to(bundle_path).as_posix() for p in bundle_path.rglob("*") if p.is_file()}
    assert set(listed) == there - {"manifest.json"}
    assert all(len(record["sha256"]) == 64 and record["bytes"] > 0 for record in listed.values())


@pytest.mark.skipif(os.name != "posix", reason="modes are POSIX's")
def test_whoever_may_read_one_file_may_read_all(fresh_bundle_path, tmp_path):
    plain = tmp_path / "plain"
    plain.write_bytes(b"")
    (fresh_bundle_path / "scorer.safetensors").chmod(0o600)  # as older versions wrote it
    amend_bundle(fresh_bundle_path, metrics={})
    files = [plain, *fresh_bundle_path.rglob("*")]
    modes = {p.name: p.stat().st_mode for p in files if p.is_file()}
    assert set(modes.values()) == {modes["plain"]}, modes


@pytest.mark.parametrize("folder", ["", "inside/"])
def test_a_zip_is_the_same_bundle(tmp_path, bundle_path, folder):
    path = tmp_path / "tiny.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for file in bundle_path.iterdir():
            archive.write(file, folder + file.name)
    bundle = open_bundle(path)
    assert bundle.manifest == manifest_of(bundle_path)
    assert bundle.scorer_tensors().keys() == tiny.scorer_tensors().keys()


def test_nothing_is_written_when_writing_fails(tmp_path):
    with pytest.raises(BundleError, match="every vector needs a name"):
        tiny.tiny_bundle(tmp_path / "a", vocabulary=(["one"], tiny.unit_vectors(2)))
    with pytest.raises(BundleError, match="seen classes must come before"):
        tiny.tiny_bundle(tmp_path / "b", classes=[("x", "unseen"), ("y", "seen")])
    with pytest.raises(BundleError, match="'classes' has shape"):
        tiny.tiny_bundle(tmp_path / "c", class_vectors=tiny.unit_vectors(4))
    with pytest.raises(BundleError, match="plain path"):
        tiny.tiny_bundle(tmp_path / "d", files={"../evil": b"x"})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("suffix", ["", ".zip"])
def test_a_link_to_a_bundle_stays_a_link(tmp_path, suffix):
    path, link = tiny.tiny_bundle(tmp_path / f"own{suffix}"), tmp_path / f"latest{suffix}"
    link.symlink_to(path.name)
    amend_bundle(link, metrics={"a": 1})
    assert link.is_symlink()
    assert open_bundle(path).manifest["metrics"] == {"a": 1}


def test_the_folder_one_stands_in_can_be_amended(fresh_bundle_path, monkeypatch):
    monkeypatch.chdir(fresh_bundle_path)
    amend_bundle(".", metrics={"a": 1})
    assert open_bundle(fresh_bundle_path).manifest["metrics"] == {"a": 1}


def test_where_nothing_can_be_written_is_said(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(BundleError, match=r"file: cannot be written to: File exists\."):
        tiny.tiny_bundle(tmp_path / "file" / "b")


def test_an_existing_bundle_is_replaced_only_when_asked(fresh_bundle_path):
    with pytest.raises(BundleError, match="exists"):
        tiny.tiny_bundle(fresh_bundle_path)
    tiny.tiny_bundle(fresh_bundle_path, name="second", overwrite=True)
    assert open_bundle(fresh_bundle_path).name == "second"


def test_a_failed_overwrite_keeps_the_old_bundle(fresh_bundle_path):
    with pytest.raises(BundleError):
        tiny.tiny_bundle(fresh_bundle_path, class_vectors=tiny.unit_vectors(1), overwrite=True)
    assert open_bundle(fresh_bundle_path).name == "tiny"


FILES = ["trunk.onnx", "head.onnx", "scorer.safetensors", "vocabulary.safetensors", "MODEL_CARD.md"]


@pytest.mark.parametrize("name", FILES)
def test_a_flipped_bit_is_found_before_anything_runs(fresh_bundle_path, name):
    file = fresh_bundle_path / name
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)
    with pytest.raises(BundleError, match=rf"{name} is damaged: its SHA-256"):
        Detector(fresh_bundle_path)


def test_a_truncated_file_says_how_long_it_should_be(fresh_bundle_path):
    file = fresh_bundle_path / "trunk.onnx"
    size = file.stat().st_size
    file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(BundleError, match=rf"100 bytes, the manifest says {size}"):
        open_bundle(fresh_bundle_path)


@pytest.mark.parametrize("name", FILES)
def test_a_missing_file_is_named(fresh_bundle_path, name):
    (fresh_bundle_path / name).unlink()
    with pytest.raises(BundleError, match=f"{name} is missing"):
        open_bundle(fresh_bundle_path)


def test_a_zip_that_lacks_a_file_or_a_manifest_is_named(tmp_path, bundle_path):
    path = tmp_path / "b.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.write(bundle_path / "manifest.json", "manifest.json")
    with pytest.raises(BundleError, match="is missing"):
        open_bundle(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("readme.txt", "hello")
    with pytest.raises(BundleError, match=r"holds no manifest\.json"):
        open_bundle(path)


def test_a_zip_that_macos_packed_is_opened(tmp_path, bundle_path):
    path = tmp_path / "b.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for file in bundle_path.iterdir():
            archive.write(file, f"tiny/{file.name}")
            archive.writestr(f"__MACOSX/tiny/._{file.name}", b"\0\5\x16\7")
        archive.writestr(".DS_Store", b"\0\0\0\1Bud1")
    assert open_bundle(path).name == open_bundle(bundle_path).name


def test_a_zip_unpacks_no_more_than_the_manifest_says(tmp_path, bundle_path):
    path = tmp_path / "b.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.write(bundle_path / "manifest.json", "manifest.json")
        for name in manifest_of(bundle_path)["files"]:
            archive.writestr(name, bytes(1 << 20))
    with pytest.raises(BundleError, match="1048576 bytes, the manifest says"):
        open_bundle(path)


def test_an_unlisted_file_of_a_zip_is_never_unpacked(tmp_path, bundle_path):
    path = tmp_path / "b.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for file in bundle_path.iterdir():
            archive.write(file, file.name)
        archive.writestr("../../outside.txt", "x")
        archive.writestr("extra.txt", "x")
    bundle = open_bundle(path)
    assert not bundle.file("trunk.onnx").with_name("extra.txt").exists()
    with pytest.raises(BundleError, match="not part of this bundle"):
        bundle.file("extra.txt")


@pytest.mark.parametrize(
    "name",
    ["../x", "/etc/passwd", "a/../../x", "a\\b", "C:x", "", ".", "a//b", "./a", "manifest.json"],
)
def test_a_name_that_leaves_the_bundle_is_refused(fresh_bundle_path, name):
    files = manifest_of(fresh_bundle_path)["files"]
    edit(fresh_bundle_path, files={**files, name: {"sha256": "0" * 64, "bytes": 1}})
    with pytest.raises(BundleError, match="not a plain path"):
        open_bundle(fresh_bundle_path)


def test_a_newer_format_says_how_to_upgrade(fresh_bundle_path):
    edit(fresh_bundle_path, format=FORMAT + 1)
    with pytest.raises(BundleError, match=r"format 2, this version reads up to 1\. Upgrade: pip"):
        open_bundle(fresh_bundle_path)


@pytest.mark.parametrize("key", ["format", "name", "model", "classes", "stages", "files"])
def test_a_missing_entry_is_named(fresh_bundle_path, key):
    edit(fresh_bundle_path, **{key: None})
    with pytest.raises(BundleError, match=f"'{key}'"):
        open_bundle(fresh_bundle_path)


def trunk(**changes):
    return {"stages": {"trunk": {"file": "trunk.onnx", **changes}}}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": {"backbon": {}}}, "did you mean 'backbone'"),
        ({"model": {"regions": {"pooling": "pool"}}}, r"pooling is 'pool', and only 'align'"),
        ({"background_index": 5}, "background_index is 5"),
        ({"classes": [{"name": "x"}]}, r"classes\[0\]"),
        ({"classes": [{"name": "x", "role": "seen"}, {"name": "X", "role": "seen"}]}, "twice"),
        ({"classes": [{"name": "\ud800", "role": "seen"}]}, r"surrogates not allowed"),
        ({"classes": [{"name": "a\u202eb", "role": "seen"}]}, r"'a\\u202eb', holds U\+202E"),
        ({"name": "a\x1b[2Jb"}, r"name of the bundle, 'a\\x1b\[2Jb', holds U\+001B"),
        ({"stages": {"trunk": {"file": "nowhere.onnx"}}}, "'trunk' names no listed file"),
        (trunk(file=["trunk.onnx"]), "'trunk' names no listed file"),
        (trunk(outputs=None), r"'trunk', outputs are None, must be a list"),
        (trunk(outputs={"name": "x", "shape": [1]}), r"'trunk', outputs are .*, must be a list"),
        (trunk(inputs={"name": "x", "shape": [1]}), r"'trunk', inputs are .*, must be a list"),
        (trunk(inputs=[{"name": "x", "shape": [True]}]), r"and a shape of whole numbers"),
        ({"background_index": False}, "background_index is False"),
        ({"metrics": []}, "'metrics' is not a dict"),
        ({"precisions": {"int8": {}}}, r"precisions\['int8'\] names no networks by family"),
        (
            {"precisions": {"int8": {"networks": {"onnxruntime": {"trunk": "nowhere"}}}}},
            r"precisions\['int8'\] names 'nowhere', which is no listed file",
        ),
        (
            {"precisions": {"int8": {"networks": {}, "weight_levels": {"openvino": 0.5}}}},
            "weight_levels is .*, must hold whole numbers",
        ),
        (
            {"model": {"preprocess": {"mean": ["0.4", 0, 0]}}},
            r"mean\[0\] is '0.4', must be of type",
        ),
        ({"model": {"detection": {"score_threshold": "0.3"}}}, "score_threshold is '0.3', must be"),
        ({"model": {"regions": {"look": 3}}}, "a second look goes with 'prototypes'"),
        ({"model": {"scoring": {"method": "prototypes"}}}, "a second look goes with 'prototypes'"),
        ({"metrics": {"a": 10**400}}, "a number is too large"),
        (trunk(outputs=["features"]), r"'trunk', outputs: 'features' must be an object"),
        (trunk(outputs=[{"shape": [1]}]), r"outputs: {'shape': \[1\]} must be an object"),
        (trunk(inputs=[{"name": "images"}]), r"inputs: {'name': 'images'} must be an object"),
        (trunk(outputs=[]), r"the trunk's outputs are \[\], model\.regions means"),
        ({"files": {}}, r"scorer\.safetensors is not listed"),
        ({"files": {"a": {"bytes": 1}}}, "needs 'sha256'"),
    ],
)
def test_a_wrong_entry_is_named(fresh_bundle_path, changes, message):
    edit(fresh_bundle_path, **changes)
    with pytest.raises(BundleError, match=message):
        open_bundle(fresh_bundle_path)


def test_a_manifest_of_many_stages_and_engines_is_read_in_a_moment(bundle_path):
    manifest = manifest_of(bundle_path)
    record = manifest["files"]["trunk.onnx"]
    names = [f"engines/{i}" for i in range(20_000)]
    manifest["files"] |= dict.fromkeys(names, record)
    manifest["engines"] = [{"file": name} for name in names]
    manifest["stages"] |= {name: {"file": name} for name in names}
    text = json.dumps(manifest)
    start = time.process_time()
    parse_manifest(bundle_path, text)
    assert time.process_time() - start < 5  # each name compared with all others: a minute


def test_a_file_that_may_not_be_read_is_named(fresh_bundle_path, monkeypatch):
    def forbidden(path):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("runtime.archive.sha256", forbidden)  # tests may run as root, who may
    with pytest.raises(BundleError, match=r"MODEL_CARD\.md cannot be read: Permission denied\."):
        open_bundle(fresh_bundle_path)


def test_an_engine_is_verified_when_it_is_asked_for(tmp_path):
    path = tiny.tiny_bundle(
        tmp_path / "b",
        files={
            "trunk.onnx": tiny.trunk_model().SerializeToString(),
            "head.onnx": tiny.head_model().SerializeToString(),
            "engines/trunk.plan": b"plan",
        },
    )
    (path / "engines" / "trunk.plan").write_bytes(b"plam")
    bundle = open_bundle(path)
    with pytest.raises(BundleError, match=r"engines/trunk\.plan is damaged"):
        bundle.file("engines/trunk.plan")


def test_what_is_no_bundle_is_said(tmp_path):
    with pytest.raises(BundleError, match="no such bundle"):
        open_bundle(tmp_path / "nothing")
    with pytest.raises(BundleError, match="no such bundle"):
        open_bundle(tmp_path / (300 * "x"))
    with pytest.raises(BundleError, match=r"manifest\.json cannot be read"):
        open_bundle(tmp_path)
    (tmp_path / "file.zip").write_bytes(b"not a zip")
    with pytest.raises(BundleError, match="cannot be unpacked"):
        open_bundle(tmp_path / "file.zip")
    (tmp_path / "manifest.json").write_text("{")
    with pytest.raises(BundleError, match="not JSON"):
        open_bundle(tmp_path)
    (tmp_path / "manifest.json").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(BundleError, match="not text"):
        open_bundle(tmp_path)
    (tmp_path / "manifest.json").write_text("[]")
    with pytest.raises(BundleError, match="is this a bundle"):
        open_bundle(tmp_path)


def test_a_stage_that_is_not_there_is_named(bundle_path):
    with pytest.raises(BundleError, match="no stage 'detector', only trunk, head"):
        open_bundle(bundle_path).stage("detector")


def test_a_bundle_without_vocabulary_works(tmp_path):
    bundle = open_bundle(tiny.tiny_bundle(tmp_path / "b", vocabulary=None))
    assert len(bundle.vocabulary) == 0
    assert bundle.class_vectors.shape == (5, tiny.VECTOR)


def test_the_shipped_bundle_is_missed_with_a_sentence(tmp_path, monkeypatch):
    monkeypatch.setattr(bundle_module, "__file__", str(tmp_path / "bundle.py"))
    with pytest.raises(BundleError, match="Install the package again"):
        default_bundle()


def test_the_writer_reads_back_what_it_wrote(tmp_path):
    with pytest.raises(BundleError, match="twice"):
        write_bundle(
            tmp_path / "b",
            name="x",
            model=tiny.MODEL,
            classes=[("a", "seen"), ("A", "seen")],
            class_vectors=tiny.unit_vectors(2),
            scorer={},
            stages={},
            files={},
        )
