"""Zip bundles in the user's cache: one copy, whoever forks, is killed, or finds no room."""

import errno
import gc
import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import pytest
import tiny
from hostile import leave_home

import runtime.archive
import runtime.unpacked
from runtime import Detector
from runtime.bundle import open_bundle
from runtime.cache_files import cache_folder
from zsd_core.errors import BundleError, ConfigError

ROOT = Path(__file__).parents[2]


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """The user's cache, empty."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache/contrastzsd/bundles"


@pytest.fixture
def zipped(tmp_path):
    return tiny.tiny_bundle(tmp_path / "tiny.zip")


def copies(cache):
    """Folders in the cache, whole or not."""
    return sorted(path.name for path in cache.glob("*") if path.is_dir())


def test_there_is_one_copy_and_no_process_owns_it(cache, zipped, tmp_path):
    bundle = open_bundle(zipped)
    trunk = bundle.file("trunk.onnx")
    assert trunk.is_file() and trunk.is_relative_to(cache)
    shutil.copy(zipped, tmp_path / "other.zip")
    assert open_bundle(tmp_path / "other.zip").file("trunk.onnx") == trunk
    del bundle
    gc.collect()
    assert trunk.is_file()
    assert len(copies(cache)) == 1
    assert {p.name for p in tmp_path.iterdir()} == {"cache", "tiny.zip", "other.zip"}


def renamed(zipped, path, name):
    """The bundle of a zip under another name, as another zip."""
    with zipfile.ZipFile(zipped) as source, zipfile.ZipFile(path, "w") as target:
        for info in source.infolist():
            data = source.read(info)
            if info.filename.endswith("manifest.json"):
                data = json.dumps(json.loads(data) | {"name": name}).encode()
            target.writestr(info.filename, data)
    return path


def test_a_zip_that_is_replaced_while_it_is_unpacked_leaves_no_copy(
    cache, zipped, tmp_path, monkeypatch
):
    name, whole = open_bundle(zipped).name, zipped.read_bytes()
    shutil.rmtree(cache)
    other = renamed(zipped, tmp_path / "other.zip", "other")

    def replaced(*given):
        zipped.write_bytes(other.read_bytes())  # in place: another name would be another file
        runtime.archive.unpack(*given)

    with monkeypatch.context() as patched:
        patched.setattr(runtime.unpacked, "unpack", replaced)
        with pytest.raises(BundleError, match="was changed while it was unpacked; open it again"):
            open_bundle(zipped)
    assert copies(cache) == []
    zipped.write_bytes(whole)
    assert open_bundle(zipped).name == name


def test_a_copy_with_another_manifest_is_made_anew(cache, zipped):
    bundle = open_bundle(zipped)
    file = bundle.root / "manifest.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"name": "edited"}))
    assert open_bundle(zipped).name == bundle.name


def test_many_small_files_do_not_fill_the_disk(cache, zipped, tmp_path):
    body = bytes(runtime.archive.SMALL)
    record = {"sha256": hashlib.sha256(body).hexdigest(), "bytes": len(body)}
    names = [f"f{i}" for i in range(30)]
    with zipfile.ZipFile(zipped) as source:
        contents = {info.filename: source.read(info) for info in source.infolist()}
    manifest = json.loads(contents["manifest.json"])
    manifest["files"] |= dict.fromkeys(names, record)
    contents |= {"manifest.json": json.dumps(manifest).encode(), **dict.fromkeys(names, body)}
    path = tmp_path / "many.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as target:
        for name, data in contents.items():
            target.writestr(name, data)
    with pytest.raises(BundleError, match=r"has \d+ bytes and would unpack to 31\d+; do not use"):
        open_bundle(path)
    assert copies(cache) == []


def test_a_forked_child_that_ends_takes_nothing_away(cache, zipped):
    code = (
        "import os, sys; from runtime.bundle import open_bundle; b = open_bundle(sys.argv[1])\n"
        "if not os.fork(): sys.exit(0)\n"
        "os.wait(); print(b.file('head.onnx').is_file(), len(b.class_vectors))"
    )
    run = subprocess.run(
        [sys.executable, "-c", code, zipped], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert run.stdout.split() == ["True", str(len(tiny.SEEN) + len(tiny.UNSEEN))]


def test_processes_may_open_one_zip_at_the_same_time(cache, zipped):
    with ProcessPoolExecutor(4, get_context("spawn")) as pool:
        names = [future.result() for future in [pool.submit(_name_of, zipped) for _ in range(8)]]
    assert names == ["tiny"] * 8
    assert len(copies(cache)) == 1


def _name_of(path):
    return open_bundle(path).name


def test_what_a_killed_process_left_is_removed(cache, zipped):
    code = (
        "import runtime.unpacked, sys, time; from runtime.bundle import open_bundle\n"
        "runtime.unpacked.unpack = lambda *_: (print('unpacking', flush=True), time.sleep(60))\n"
        "open_bundle(sys.argv[1])"
    )
    command = [sys.executable, "-c", code, zipped]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "unpacking\n"
        assert [name[-6:] for name in copies(cache)] == [".aside"]
        process.send_signal(signal.SIGKILL)
    started = time.monotonic()
    assert open_bundle(zipped).name == "tiny"
    assert time.monotonic() - started < 30  # the lock went with its process
    (name,) = copies(cache)
    assert re.fullmatch("[0-9a-f]{64}", name)


def test_a_damaged_copy_is_unpacked_again(cache, zipped):
    trunk = open_bundle(zipped).file("trunk.onnx")
    data = trunk.read_bytes()
    trunk.write_bytes(b"x" + data[1:])
    (trunk.parent / "head.onnx").unlink()
    with Detector(zipped, backend="onnxruntime", threads=1):
        assert trunk.read_bytes() == data
    assert len(copies(cache)) == 1


def test_a_damaged_zip_leaves_nothing_behind(cache, zipped):
    data = bytearray(zipped.read_bytes())
    data[data.index(b"background")] ^= 1  # inside scorer.safetensors, which is stored as it is
    zipped.write_bytes(data)
    with pytest.raises(BundleError, match="cannot be unpacked"):
        open_bundle(zipped)
    assert copies(cache) == []


CURE = r"tiny\.zip cannot be unpacked into the user's cache: .*Set XDG_CACHE_HOME to a folder"


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO])
def test_a_full_disk_is_said_and_leaves_nothing(cache, zipped, monkeypatch, number):
    def full(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(runtime.archive.shutil, "copyfileobj", full)
    with pytest.raises(BundleError, match=CURE) as raised:
        open_bundle(zipped)
    assert os.strerror(number) in str(raised.value)
    assert copies(cache) == []
    monkeypatch.undo()
    assert open_bundle(zipped).name == "tiny"


def test_no_place_for_a_cache_is_said_with_the_cure(tmp_path, zipped, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with pytest.raises(BundleError, match=CURE):
        open_bundle(zipped)

    def nobody():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setattr(Path, "home", nobody)
    with pytest.raises(BundleError, match=CURE) as raised:
        open_bundle(zipped)
    assert str(raised.value).count("Set XDG_CACHE_HOME") == 1


def test_a_user_without_an_entry_has_no_cache_and_a_sentence(monkeypatch):
    """As in a container that runs under any number: Python's own error would be a RuntimeError."""

    leave_home(monkeypatch)
    with pytest.raises(ConfigError, match=r"has no home.* Set XDG_CACHE_HOME to a folder"):
        cache_folder("engines")
    monkeypatch.setenv("XDG_CACHE_HOME", "/somewhere")
    assert cache_folder("engines") == Path("/somewhere/contrastzsd/engines")
