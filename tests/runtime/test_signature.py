"""A signed bundle is exactly what the owner of a key made; whatever was changed is refused."""

from __future__ import annotations

import hashlib
import json
import shutil
import zipfile

import pytest
import tiny

import runtime.bundle
import runtime.signature
import runtime.unpacked
from contrastzsd import cli
from export import sign
from export.writing.bundle_writer import amend_bundle
from runtime import Detector, detect
from runtime.archive import MANIFEST
from runtime.backends import open_backend
from runtime.bundle import open_bundle
from runtime.signature import SIGNATURE
from zsd_core.errors import BundleError, ConfigError

pytest.importorskip("model_signing")
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # the library's dependencies
FILES = ("MODEL_CARD.md", "head.onnx", "manifest.json", "model.sig", "scorer.safetensors")
FILES += ("trunk.onnx", "vocabulary.safetensors")


@pytest.fixture(scope="module")
def keys(tmp_path_factory):
    folder = tmp_path_factory.mktemp("keys")
    return folder / "key.pem", sign.new_key(folder / "key.pem"), sign.new_key(folder / "other.pem")


@pytest.fixture(scope="module")
def original(tmp_path_factory, keys):
    path = tiny.tiny_bundle(tmp_path_factory.mktemp("signed") / "tiny")
    sign.sign_bundle(path, keys[0])
    return path


@pytest.fixture
def signed(tmp_path, original):
    return shutil.copytree(original, tmp_path / "tiny")


def refused(path, key, message):
    with pytest.raises(BundleError, match=message):
        open_bundle(path, require_signature=key)


def test_a_signed_bundle_opens_with_its_key_and_without_one(signed, keys):
    assert sorted(p.name for p in signed.iterdir()) == sorted(FILES)
    assert open_bundle(signed, require_signature=keys[1]).name == "tiny"
    assert open_bundle(signed).name == "tiny"
    bundle = open_bundle(signed)
    assert open_bundle(bundle, require_signature=keys[1]) is bundle
    with Detector(signed, backend="onnxruntime", threads=1, require_signature=keys[1]):
        pass


def test_another_key_none_and_no_signature_are_refused(signed, keys, bundle_path):
    refused(signed, keys[2], "does not hold for the key")
    refused(bundle_path, keys[1], "is not signed, and a signature is required")
    with pytest.raises(BundleError, match="not who made it"):
        Detector(bundle_path, require_signature=keys[1])
    for no_key in (signed / MANIFEST, signed / "nothing", keys[0]):
        with pytest.raises(ConfigError, match="is not a public key"):
            open_bundle(signed, require_signature=no_key)


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("at", [0.1, 0.5, 0.9])
def test_a_changed_file_is_refused_whatever_its_hash_says(signed, keys, name, at):
    data = bytearray((signed / name).read_bytes())
    data[int(at * len(data))] ^= 1
    if name in (MANIFEST, SIGNATURE):
        (signed / name).write_bytes(data)
    else:  # an attacker writes the hash too
        _rehash(signed, name, bytes(data))
    with pytest.raises(BundleError):
        open_bundle(signed, require_signature=keys[1])
    if name not in (MANIFEST, SIGNATURE):
        assert open_bundle(signed).name == "tiny", "hashes alone do not notice"


def _rehash(path, name, data):
    (path / name).write_bytes(data)
    manifest = json.loads((path / MANIFEST).read_text())
    manifest["files"][name] = {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}
    (path / MANIFEST).write_text(json.dumps(manifest))


def test_files_that_are_added_or_missing_are_refused(signed, keys):
    (signed / "more.py").write_text("1")
    refused(signed, keys[1], "does not hold")
    (signed / "more.py").unlink()
    open_bundle(signed, require_signature=keys[1])
    (signed / SIGNATURE).unlink()
    refused(signed, keys[1], "is not signed")


def test_signing_loses_no_file_and_signs_none_that_is_not_listed(signed, keys):
    """A note and a repository's history in the folder, or a note in the zip."""
    before = (signed / SIGNATURE).read_bytes()
    (signed / "notes.txt").write_text("years of work")
    (signed / ".git").mkdir()
    (signed / ".git/HEAD").write_text("ref: refs/heads/main")
    with pytest.raises(BundleError, match=r"not part of a bundle: \.git/HEAD, notes\.txt\. They"):
        sign.sign_bundle(signed, keys[0])
    assert (signed / "notes.txt").read_text() == "years of work"
    assert (signed / ".git/HEAD").is_file() and (signed / SIGNATURE).read_bytes() == before


def test_signing_a_zip_loses_no_file(tmp_path, keys):
    path = tiny.tiny_bundle(tmp_path / "tiny.zip")
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("notes.txt", "years of work")
    before = path.read_bytes()
    with pytest.raises(BundleError, match=r"not part of a bundle: notes\.txt\. They"):
        sign.sign_bundle(path, keys[0])
    assert path.read_bytes() == before


def test_signing_a_folder_writes_the_signature_alone(signed, keys, monkeypatch):
    monkeypatch.chdir(signed.parent)
    before = {p.name: (p.stat().st_ino, p.stat().st_mtime_ns) for p in signed.iterdir()}
    folder = signed.stat().st_ino
    for path in (signed, signed.name):  # whole and relative
        sign.sign_bundle(path, keys[0])
        assert open_bundle(path, require_signature=keys[1]).name == "tiny"
    after = {p.name: (p.stat().st_ino, p.stat().st_mtime_ns) for p in signed.iterdir()}
    assert after.pop(SIGNATURE) != before.pop(SIGNATURE)
    assert after == before and signed.stat().st_ino == folder


def test_a_file_that_changes_while_it_is_signed_is_not_signed(signed, keys, monkeypatch):
    before = (signed / SIGNATURE).read_bytes()

    def meanwhile(root, *arguments):
        _rehash(root, "trunk.onnx", tiny.trunk_model(seed=9).SerializeToString())
        return real(root, *arguments)

    real = sign.sign_folder
    monkeypatch.setattr(sign, "sign_folder", meanwhile)
    with pytest.raises(BundleError, match=r"manifest\.json, trunk\.onnx: not what the manifest"):
        sign.sign_bundle(signed, keys[0])
    assert (signed / SIGNATURE).read_bytes() == before


def test_a_folder_that_cannot_be_written_to_is_said(signed, keys, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(runtime.signature, "write_whole", full)
    with pytest.raises(BundleError, match=r"cannot be written to: No space left on device\."):
        sign.sign_bundle(signed, keys[0])


def test_the_signature_of_another_bundle_is_refused(signed, keys, tmp_path):
    other = tiny.tiny_bundle(tmp_path / "other", name="other")
    sign.sign_bundle(other, keys[0])
    shutil.copyfile(other / SIGNATURE, signed / SIGNATURE)
    refused(signed, keys[1], "does not hold")


def exchanged(text):
    """Text of a manifest in which "cat" and "cup" have traded places; it is as long."""
    assert text.count('"cat"') == text.count('"cup"') == 1
    return text.replace('"cat"', '"?"').replace('"cup"', '"cat"').replace('"?"', '"cup"')


def test_the_manifest_that_was_read_must_be_the_one_that_is_signed(signed, keys):
    right = (signed / MANIFEST).read_text()
    (signed / MANIFEST).write_text(exchanged(right))
    evil = open_bundle(signed)
    assert evil.unseen == tiny.UNSEEN[::-1]
    (signed / MANIFEST).write_text(right)
    refused(evil, keys[1], r"manifest\.json is another than when the bundle was opened")
    with pytest.raises(BundleError, match="only the one there now is signed"):
        Detector(evil, backend="onnxruntime", threads=1, require_signature=keys[1])
    with Detector(signed, backend="onnxruntime", threads=1, require_signature=keys[1]) as detector:
        assert detector.bundle.unseen == tiny.UNSEEN


def test_a_manifest_that_changes_between_reading_and_verifying_is_refused(
    signed, keys, monkeypatch
):
    def meanwhile(given, root):
        return exchanged(real(given, root))

    real = runtime.bundle.manifest_text
    monkeypatch.setattr(runtime.bundle, "manifest_text", meanwhile)
    refused(signed, keys[1], r"manifest\.json is another than when the bundle was opened")


def test_what_is_loaded_after_the_signature_was_verified_is_what_was_signed(signed, keys):
    bundle = open_bundle(signed, require_signature=keys[1])
    _rehash(signed, "trunk.onnx", tiny.trunk_model(seed=9).SerializeToString())
    with pytest.raises(BundleError, match=r"trunk\.onnx is damaged"):
        open_backend("onnxruntime", bundle, 1)
    assert open_bundle(signed).name == "tiny", "the changed one is whole"


def test_a_change_takes_the_signature_away(signed, keys):
    amend_bundle(signed, metrics={"x": 1})
    assert not (signed / SIGNATURE).exists()
    refused(signed, keys[1], "is not signed")


def test_a_zip_is_signed_and_checked_like_a_folder(tmp_path, keys):
    path = tiny.tiny_bundle(tmp_path / "tiny.zip")
    refused(path, keys[1], "is not signed")
    sign.sign_bundle(path, keys[0])
    assert open_bundle(path, require_signature=keys[1]).name == "tiny"
    refused(path, keys[2], "does not hold")
    with zipfile.ZipFile(path) as archive:
        contents = {name: archive.read(name) for name in archive.namelist()}
    contents["manifest.json"] += b" "
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in contents.items():
            archive.writestr(name, data)
    refused(path, keys[1], "does not hold")


@pytest.fixture
def zipped(tmp_path, keys, monkeypatch):
    """A signed zip, and an empty cache of its own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    path = tiny.tiny_bundle(tmp_path / "tiny.zip")
    sign.sign_bundle(path, keys[0])
    shutil.rmtree(tmp_path / "cache")
    return path


DAMAGES = {
    "no signature": lambda root: (root / SIGNATURE).unlink(),
    "another signature": lambda root: (root / SIGNATURE).write_text("{}"),
    "a stray file": lambda root: (root / "Thumbs.db").touch(),
    "another manifest": lambda root: (root / MANIFEST).write_text(
        exchanged((root / MANIFEST).read_text())
    ),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
@pytest.mark.parametrize("held", [False, True])
def test_a_copy_of_a_signed_zip_is_unpacked_again(zipped, keys, damage, held):
    bundle = open_bundle(zipped)
    root = bundle.root
    good = {p.name: p.read_bytes() for p in root.iterdir()}
    damage(root)
    opened = open_bundle(bundle if held else zipped, require_signature=keys[1])
    assert opened.unseen == tiny.UNSEEN and opened.root == root
    assert {p.name: p.read_bytes() for p in root.iterdir()} == good
    assert {p.name for p in root.parent.iterdir()} == {"lock", root.name}


def test_a_key_that_is_refused_leaves_the_copy_to_others(zipped, keys, monkeypatch):
    bundle, unpacked = open_bundle(zipped, require_signature=keys[1]), []
    unpack = runtime.unpacked.unpack
    monkeypatch.setattr(
        runtime.unpacked, "unpack", lambda *args: (unpacked.append(1), unpack(*args))
    )
    before = {p.name: p.stat().st_ino for p in bundle.root.iterdir()}
    refused(zipped, keys[2], "does not hold for the key")
    assert unpacked == [1], "unpacked anew, once"
    assert {p.name: p.stat().st_ino for p in bundle.root.iterdir()} == before
    assert {p.name for p in bundle.root.parent.iterdir()} == {"lock", bundle.root.name}
    with pytest.raises(ConfigError, match="is not a public key"):
        open_bundle(zipped, require_signature=zipped)
    assert unpacked == [1]


def test_the_command_makes_a_key_signs_and_verifies(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    path = tiny.tiny_bundle(tmp_path / "tiny")
    assert cli.main(["sign", "--new-key", "key.pem"]) == 0
    assert (tmp_path / "key.pem").stat().st_mode & 0o77 == 0
    assert sign.main(["--new-key", "key.pem"]) == 1  # never replaced
    assert sign.main([str(path), "--verify", "key.pem.pub"]) == 1
    assert sign.main([str(path), "--key", "key.pem", "--verify", "key.pem.pub"]) == 0
    assert sign.main([str(path), "--key", "key.pem.pub"]) == 1
    assert open_bundle(path, require_signature="key.pem.pub").name == "tiny", "still signed"
    errors = capsys.readouterr().err
    assert "key.pem exists" in errors
    assert "is not a private key" in errors
    with pytest.raises(SystemExit):
        sign.main([str(path)])


def test_commands_require_a_signature(tmp_path, bundle_path, keys, capsys):
    options = ["--bundle", str(bundle_path), "--require-signature", str(keys[1])]
    (tmp_path / "photo.jpg").touch()
    assert (
        detect.main([str(tmp_path / "photo.jpg"), *options, "--output", str(tmp_path / "out")]) == 1
    )
    assert "is not signed" in capsys.readouterr().err
