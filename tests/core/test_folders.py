"""Files are whole or absent, and a folder is one run's at a time."""

from __future__ import annotations

import errno
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from zsd_core import folders
from zsd_core.errors import ConfigError
from zsd_core.folders import clear_parts, lock_folder, written_whole

ROOT = Path(__file__).parents[2]


def test_a_file_takes_its_name_once_it_is_on_disk(tmp_path, monkeypatch):
    """Content before the name, and the name before anyone is told."""
    path, calls = tmp_path / "file", []
    path.write_text("before")
    sync, replace = os.fsync, Path.replace

    def synced(descriptor):
        calls.append("folder" if os.path.isdir(f"/proc/self/fd/{descriptor}") else "file")
        sync(descriptor)

    def replaced(source, target):
        calls.append("name")
        return replace(source, target)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(Path, "replace", replaced)
    with written_whole(path) as aside:
        aside.write_text("after")
        assert path.read_text() == "before"
    assert calls == ["file", "name", "folder"]
    assert path.read_text() == "after"
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_that_was_not_finished_leaves_the_older_one(tmp_path):
    path = tmp_path / "file"
    path.write_text("before")
    with pytest.raises(KeyboardInterrupt), written_whole(path) as aside:
        aside.write_text("half")
        raise KeyboardInterrupt
    with pytest.raises(FileNotFoundError), written_whole(path):
        pass  # nothing was written
    assert path.read_text() == "before" and list(tmp_path.iterdir()) == [path]


def test_a_link_to_what_is_there_already_leaves_nothing_aside(tmp_path):
    path = tmp_path / "file"
    path.touch()
    with written_whole(path) as aside:
        os.link(path, aside)
    assert list(tmp_path.iterdir()) == [path]


def test_parts_of_killed_processes_are_removed(tmp_path):
    for name in (".last.pt.123.part", "part", ".lock"):
        (tmp_path / name).touch()
    clear_parts(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"part", ".lock"}


@pytest.mark.parametrize("number", [errno.EINVAL, errno.ENOTSUP])
def test_a_folder_that_cannot_be_made_to_last_is_no_failure(tmp_path, monkeypatch, number):
    def sync(descriptor):
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(number, os.strerror(number))

    monkeypatch.setattr(folders.os, "fsync", sync)
    with written_whole(tmp_path / "a") as aside:
        aside.write_text("new")
    assert (tmp_path / "a").read_text() == "new"


def test_a_disk_that_fails_is_a_failure(tmp_path, monkeypatch):
    def sync(descriptor):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(folders.os, "fsync", sync)
    with pytest.raises(OSError, match="Input/output error"), written_whole(tmp_path / "a") as aside:
        aside.write_text("new")


def test_a_file_system_without_locks_is_used_all_the_same(tmp_path, monkeypatch):
    def flock(file, how):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(folders.fcntl, "flock", flock)
    lock_folder(tmp_path).close()


def test_a_locked_folder_is_refused_until_its_process_ends(tmp_path):
    code = (
        "import sys, pathlib; from zsd_core.folders import lock_folder\n"
        "lock = lock_folder(pathlib.Path(sys.argv[1])); print('locked', flush=True)\n"
        "sys.stdin.read()"
    )
    other = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with other:
        assert other.stdout.readline() == "locked\n"
        with pytest.raises(ConfigError, match="in use by another run; wait for it"):
            lock_folder(tmp_path)
        other.kill()
    lock_folder(tmp_path).close()
    with pytest.raises(OSError):
        lock_folder(tmp_path / "nowhere")
