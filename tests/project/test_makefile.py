"""The two commands explain themselves, and fail with a sentence."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")

pytestmark = pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")


def make(*arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("MAKE", "MFLAGS"))}
    return subprocess.run(
        ["make", *arguments], cwd=ROOT, capture_output=True, text=True, env=environment
    )


def program(path: Path, text: str) -> Path:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


def bare_path(folder: Path) -> str:
    """A PATH with a shell and nothing else."""
    tools = folder / "bin"
    tools.mkdir()
    for name in ("bash", "dirname"):
        (tools / name).symlink_to(shutil.which(name) or "")
    return str(tools)


def environment_script(folder: Path, **variables: str) -> str:
    """Output of scripts/environment on stderr when it must fail before it installs anything."""
    result = subprocess.run(
        ["bash", "scripts/environment", str(folder / "venv"), "cpu"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        env={**os.environ, **variables},
    )
    assert result.returncode == 1
    assert not (folder / "venv").exists() or "registry" in result.stderr
    return result.stderr


def test_help_is_the_default_and_lists_every_command():
    (phony,) = re.findall(r"^\.PHONY: (.*)$", MAKEFILE, re.MULTILINE)
    lines = make().stdout.splitlines()
    assert {line.split()[0] for line in lines} == set(phony.split())
    assert all(len(line.split()) > 3 and len(line) <= 100 for line in lines)


@pytest.mark.parametrize("target", ["demo", "test"])
def test_a_command_makes_its_own_environment_first(target):
    steps = make("--dry-run", "--always-make", target).stdout
    assert f"scripts/environment .venv/{target} " in steps


def test_a_python_that_is_not_there_is_a_sentence(tmp_path):
    message = environment_script(tmp_path, PYTHON="/nowhere/python3")
    assert "error: PYTHON=/nowhere/python3 is not a program." in message


def test_an_old_python_is_a_sentence(tmp_path):
    old = program(tmp_path / "python3", "exit 1")
    assert "not Python 3.10 or newer" in environment_script(tmp_path, PYTHON=str(old))


def test_no_python_at_all_is_a_sentence(tmp_path):
    message = environment_script(tmp_path, PYTHON="", PATH=bare_path(tmp_path))
    assert "no Python 3.10 or newer was found" in message
    assert "PYTHON=/path/to/python3" in message


def test_a_python_without_venv_is_a_sentence(tmp_path):
    bare = program(tmp_path / "python3", 'case "$2" in *venv*) exit 1 ;; esac; exit 0')
    assert "has no venv module" in environment_script(tmp_path, PYTHON=str(bare))


def test_no_compiler_at_all_is_a_sentence(tmp_path):
    message = environment_script(tmp_path, PYTHON=sys.executable, CXX="", PATH=bare_path(tmp_path))
    assert "no C++ compiler was found" in message
    assert "CXX=/path/to/compiler" in message


def test_a_compiler_that_is_not_there_is_a_sentence(tmp_path):
    message = environment_script(tmp_path, PYTHON=sys.executable, CXX="/nowhere/c++")
    assert "error: CXX=/nowhere/c++ is not a program." in message


@pytest.mark.slow
def test_no_network_is_a_sentence(tmp_path):
    message = environment_script(
        tmp_path,
        PYTHON=sys.executable,
        PIP_CONFIG_FILE=os.devnull,
        PIP_INDEX_URL="http://127.0.0.1:9/simple",
        PIP_FIND_LINKS="",
        PIP_EXTRA_INDEX_URL="",
        PIP_RETRIES="0",
        PIP_NO_CACHE_DIR="1",
    )
    assert "the package registry cannot be reached" in message
    assert message.rstrip().endswith("run the same command again.")


def test_ci_does_what_a_person_does():
    assert (ROOT / ".ci" / "run").read_text(encoding="utf-8").rstrip().endswith("exec make test")
