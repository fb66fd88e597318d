"""Files are whole or absent, and a folder is one run's at a time."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

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
