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
    environment = {
        k: v for k, v in os.environ.items() if not k.startswith(("MAKE", "MFLAGS", "LOCKED"))
    }
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
        env={k: v for k, v in os.environ.items() if k != "LOCKED"} | variables,
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


# ------------------------------------------------------------------ what an environment is made of

# A Python that only notes what it is asked for, and makes environments that do the same.
STUB = """
echo "$*" >> {log}
case "$*" in
  *python_version*) echo 3.12.0 ;;
  *"show --quiet opencv-python") exit {shown} ;;
  *"-m venv --clear"*) rm -rf "$4"; mkdir -p "$4/bin"; cp "$0" "$4/bin/python" ;;
  *" install "*) [ ! -e {broken} ] || exit 1 ;;
esac
exit 0
"""


class Clone:
    """The files that make and scripts/environment read, and a Python that installs nothing."""

    def __init__(self, folder: Path, *, opencv: bool = False) -> None:
        self.folder, self.log, self.broken = folder, folder / "log", folder / "broken"
        for name in ("pyproject.toml", "setup.py", "CMakeLists.txt", "Makefile"):
            shutil.copyfile(ROOT / name, folder / name)
        for name in ("scripts", "requirements", "csrc"):
            (folder / name).mkdir()
        shutil.copy(ROOT / "scripts/environment", folder / "scripts/environment")
        program(folder / "scripts/check", "exit 0")
        for name in ("demo", "test"):
            (folder / f"requirements/{name}.txt").write_text(f"{name}==1 --hash=sha256:00\n")
        stub = STUB.format(log=self.log, shown=int(not opencv), broken=self.broken)
        self.python = program(folder / "python3", stub)

    def run(self, *command: str) -> subprocess.CompletedProcess[str]:
        environment = {
            k: v for k, v in os.environ.items() if not k.startswith(("MAKE", "MFLAGS", "LOCKED"))
        }
        self.log.write_text("")
        return subprocess.run(
            command,
            cwd=self.folder,
            capture_output=True,
            text=True,
            env=environment | {"PYTHON": str(self.python), "CXX": "sh"},
        )

    def make(self, *arguments: str) -> list[str]:
        """What Python was asked for while an environment was made: venv and pip."""
        result = self.run("make", *arguments)
        assert result.returncode == 0, result.stderr
        return [
            line for line in self.log.read_text().splitlines() if line[:6] in ("-m ven", "-m pip")
        ]


def test_an_environment_is_made_once_and_again_when_what_it_is_made_of_changes(tmp_path):
    clone = Clone(tmp_path)
    made = clone.make("demo")
    assert made[0] == "-m venv --clear .venv/demo" and "install --editable .[cpu,demo]" in made[1]
    assert clone.make("demo") == []

    locked = clone.make("demo", "LOCKED=1")
    assert locked[0] == "-m venv --clear .venv/demo"
    installs = [line for line in locked if " install " in line]
    assert "install --no-deps --require-hashes --requirement requirements/demo.txt" in installs[0]
    assert "--no-deps --no-build-isolation --editable ." in installs[1] and len(installs) == 2
    assert clone.make("demo", "LOCKED=1") == []

    lock = tmp_path / "requirements/demo.txt"
    lock.write_text(lock.read_text() + "other==2 --hash=sha256:11\n")
    assert clone.make("demo", "LOCKED=1")[0] == "-m venv --clear .venv/demo"
    assert clone.make("demo", "LOCKED=1") == []
    assert clone.make("demo")[0] == "-m venv --clear .venv/demo"
    assert clone.make("demo") == []


def test_a_touched_source_or_another_extra_brings_an_environment_up_to_date(tmp_path):
    clone = Clone(tmp_path)
    clone.make("check")
    for arguments in (["TEST_EXTRAS=cpu"], []):
        made = clone.make("check", *arguments)
        assert "install --editable" in made[0] and not any("venv" in line for line in made[:1])
        assert clone.make("check", *arguments) == []
    os.utime(tmp_path / "setup.py", (2**32 - 1, 2**32 - 1))  # newer than any stamp
    assert "install --editable" in clone.make("check")[0]


def test_an_environment_whose_installation_failed_is_not_taken_for_made(tmp_path):
    clone = Clone(tmp_path)
    clone.make("demo")
    clone.broken.touch()
    assert clone.run("make", "demo", "LOCKED=1").returncode
    clone.broken.unlink()
    assert any("--require-hashes" in line for line in clone.make("demo", "LOCKED=1"))
    assert clone.make("demo", "LOCKED=1") == []


def test_what_is_locked_installs_nothing_without_a_hash(tmp_path):
    """Not even the headless OpenCV, which without LOCKED takes the place of the other."""
    clone = Clone(tmp_path, opencv=True)
    assert "opencv-python-headless" in clone.make("check")[-1]
    installs = [line for line in clone.make("check", "LOCKED=1") if " install " in line]
    assert all("--require-hashes" in line or line.endswith("--editable .") for line in installs)
    assert not any("opencv" in line for line in installs)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([".venv/bounds", "cpu"], "there is no requirements/bounds.txt for .venv/bounds."),
        ([".venv/demo", "cpu", "--constraint", "x"], "takes no arguments of pip, got --constraint"),
    ],
)
def test_locked_without_a_lock_is_a_sentence(tmp_path, arguments, message):
    clone = Clone(tmp_path)
    result = clone.run("env", "LOCKED=1", "bash", "scripts/environment", *arguments)
    assert result.returncode == 1 and message in result.stderr
    assert clone.log.read_text() == "" and not (tmp_path / ".venv").exists()


def test_a_value_of_locked_that_means_nothing_is_a_sentence(tmp_path):
    result = Clone(tmp_path).run("make", "demo", "LOCKED=0")
    assert result.returncode and "error: LOCKED=0 must be LOCKED=1, or left out." in result.stderr
