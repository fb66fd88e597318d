"""Configuring fails and says what to do if the CUDA module is asked for and cannot be built."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PLACES = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
pytestmark = pytest.mark.skipif(
    shutil.which("cmake", path=PLACES) is None, reason="cmake is missing, as is all it would build"
)
FIX = "name an nvcc that works with CUDACXX, or a host compiler that it takes with CUDAHOSTCXX"


def configure(folder: Path, path: str = PLACES, **variables: str) -> tuple[int, str]:
    """Exit status and what CMake says, on one line; it breaks lines where it likes."""
    command = [
        str(shutil.which("cmake", path=PLACES)),
        "-S",
        str(ROOT),
        "-B",
        str(folder),
        "-DZSD_CUDA=ON",
        f"-DPython_EXECUTABLE={sys.executable}",
    ]
    known = {name: value for name, value in os.environ.items() if not name.startswith("CUDA")}
    done = subprocess.run(
        command, capture_output=True, text=True, env=known | {"PATH": path} | variables
    )
    return done.returncode, " ".join(f"{done.stdout}{done.stderr}".split())


@pytest.fixture
def nvcc(tmp_path: Path) -> Path:
    """A compiler that refuses the host's, unless it is given one that it takes."""
    path = tmp_path / "nvcc"
    path.write_text(
        "#!/bin/sh\n"
        'case "$*" in *taken-compiler*) echo "error: another" >&2; exit 2;; esac\n'
        'echo "In file included from host_config.h:" >&2\n'
        'echo "error: -- unsupported GNU version! gcc later than 15 is not supported" >&2\n'
        "exit 1\n"
    )
    path.chmod(0o755)
    return path


def test_an_nvcc_that_cannot_compile_is_an_error_with_its_reason(tmp_path, nvcc):
    status, said = configure(tmp_path / "build", CUDACXX=str(nvcc))
    assert status != 0
    reason = "(error: -- unsupported GNU version! gcc later than 15 is not supported)"
    assert f"ZSD_CUDA=ON, but {nvcc} makes no program {reason}: {FIX}" in said
    assert "In file included" not in said


def test_the_host_compiler_that_was_named_is_the_one_it_is_tried_with(tmp_path, nvcc):
    compiler = tmp_path / "taken-compiler"
    status, said = configure(tmp_path / "build", CUDACXX=str(nvcc), CUDAHOSTCXX=str(compiler))
    assert status != 0 and f"{nvcc} makes no program (error: another)" in said


def test_an_nvcc_that_is_not_there_is_an_error(tmp_path):
    missing = tmp_path / "missing" / "nvcc"
    status, said = configure(tmp_path / "build", CUDACXX=str(missing))
    said = said.replace("No such", "no such")  # as some versions of CMake write it
    assert status != 0
    assert f"but {missing} makes no program (exit status: no such file or directory): {FIX}" in said


def test_no_nvcc_is_an_error_and_the_next_try_looks_again(tmp_path, nvcc):
    tools = tmp_path / "tools"
    tools.mkdir()
    for name in ("c++", "g++", "gcc", "cc", "as", "ld", "ar", "ranlib", "make"):
        if found := shutil.which(name):
            (tools / name).symlink_to(found)
    status, said = configure(tmp_path / "build", path=str(tools))
    assert status != 0 and f"ZSD_CUDA=ON, but no nvcc is on the PATH: {FIX}" in said
    status, said = configure(tmp_path / "build", path=str(tools), CUDACXX=str(nvcc))
    assert status != 0 and "unsupported GNU version" in said
