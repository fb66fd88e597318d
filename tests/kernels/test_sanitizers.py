"""The kernels' own tests again, built with sanitizers: accesses, overflows and races are seen."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
COMPILER = os.environ.get("CXX", "g++")
ADDRESS, THREAD = "address,undefined", "thread"
LIBRARIES = {ADDRESS: ("libasan.so", "libubsan.so"), THREAD: ("libtsan.so",)}
MARKS = {ADDRESS: b"__asan_report", THREAD: b"__tsan_read"}  # in what was built so
TESTS = {
    ADDRESS: [
        "test_detect.py",
        "test_every_size.py",
        "test_extremes.py",
        "test_offered.py",
        "test_propose.py",
        "test_roi_align.py",
    ],
    THREAD: [
        "test_block_cache.py::test_threads_share_it",
        "test_kernels.py::test_callers_in_many_threads_do_not_disturb_each_other",
        "test_linear.py",
        "test_roi_align.py::test_does_not_depend_on_threads",
    ],
}
OPTIONS = {
    "ASAN_OPTIONS": "detect_leaks=0:allocator_may_return_null=1",  # the leaks are Python's
    "TSAN_OPTIONS": "ignore_noninstrumented_modules=1",
    "OPENBLAS_NUM_THREADS": "1",
}


@pytest.mark.slow
@pytest.mark.skipif(
    not (sys.platform == "linux" and shutil.which(COMPILER) and shutil.which("ninja")),
    reason="needs Linux, g++ and ninja",
)
@pytest.mark.parametrize("kind", [ADDRESS, THREAD])
def test_kernels_are_clean(tmp_path, kind):
    build = tmp_path / "build"
    options = {
        "Python_EXECUTABLE": sys.executable,
        "ZSD_SANITIZE": kind,
        "CMAKE_BUILD_TYPE": "None",
        "CMAKE_CXX_FLAGS": "-O1",
        "CMAKE_LIBRARY_OUTPUT_DIRECTORY": tmp_path,
    }
    settings = [f"-D{name}={value}" for name, value in options.items()]
    run(["cmake", "-S", ROOT, "-B", build, "-G", "Ninja", *settings])
    run(["cmake", "--build", build])
    (module,) = tmp_path.glob("_compiled*.so")
    assert MARKS[kind] in module.read_bytes()
    libraries = [
        run([COMPILER, f"-print-file-name={name}"]).strip()
        for name in (*LIBRARIES[kind], "libstdc++.so")  # the last, so that exceptions are seen
    ]
    environment = OPTIONS | {
        "LD_PRELOAD": " ".join(libraries),
        "ZSD_COMPILED": str(module),
        "PYTHONPATH": str(ROOT / "tests" / "helpers"),
    }
    tests = [ROOT / "tests" / "kernels" / name for name in TESTS[kind]]
    plugins = ["-p", "sanitized", "-p", "no:cacheprovider", "-p", "no:xdist"]
    output = run(
        [sys.executable, "-m", "pytest", "-q", "-s", *plugins, *tests], **os.environ | environment
    )
    assert " passed" in output and "Sanitizer" not in output.replace("WARNING: AddressSanit", "")


def run(command: list[object], **environment: str) -> str:
    """What a command prints; another exit status than 0 fails the test with it."""
    done = subprocess.run(
        [*map(str, command)], env=environment or None, capture_output=True, text=True, cwd=ROOT
    )
    assert done.returncode == 0, (done.stdout + done.stderr)[-6000:]
    return done.stdout + done.stderr
