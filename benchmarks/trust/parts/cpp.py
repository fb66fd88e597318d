"""Hostile bundles again, for the C++ library: its reader under sanitizers, in one process."""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from benchmarks.trust.attempts import HANG, SHARED_MEMORY
from benchmarks.trust.mutate import mutated_bytes, mutated_json, written_json
from benchmarks.trust.parts.bundles import other_tensors
from benchmarks.trust.small import HELPERS, helper
from benchmarks.trust.table import Advance, Part, Result
from runtime.archive import MANIFEST
from runtime.manifest import SCORER, VOCABULARY
from zsd_core.errors import DeviceError

__all__ = ["FILES", "PARTS", "build", "cpp_bundle", "good_bundle", "hostile"]

SOURCE = HELPERS.parent / "runtime" / "cpp" / "fuzz"
FILES = (MANIFEST, SCORER, VOCABULARY)  # by the first byte of an input
BATCH = 500  # inputs of a process, so that one which ends is found soon
SETTINGS = {
    "ASAN_OPTIONS": "allocator_may_return_null=0:max_allocation_size_mb=1024",
    "UBSAN_OPTIONS": "print_stacktrace=1",
}


def build(folder: Path, compiler: str = "") -> Path:
    """Build the program that opens bundles, with AddressSanitizer and UndefinedBehaviorSanitizer.

    Args:
        folder: of the build.
        compiler: a C++ compiler; "" takes CMake's own choice.

    Raises:
        DeviceError: there is no CMake, compiler or library here; the message has its last lines.
    """
    program = shutil.which("cmake", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    if program is None:
        raise DeviceError("there is no cmake here; apt-get install cmake g++, or pip install cmake")
    chosen = [f"-DCMAKE_CXX_COMPILER={compiler}"] if compiler else []
    for command in (
        [program, "-S", str(SOURCE), "-B", str(folder), *chosen],
        [program, "--build", str(folder), "--parallel", "2"],
    ):
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            raise DeviceError(
                f"{SOURCE} cannot be built: {(done.stdout + done.stderr).strip()[-800:]} Install "
                "what it needs: scripts/install-system-packages"
            )
    return folder / "fuzz_bundle"


def good_bundle(folder: Path) -> dict[str, bytes]:
    """Write the bundle that the program changes; return the files that it replaces."""
    path = helper("tiny").tiny_bundle(folder)
    manifest = json.loads((path / MANIFEST).read_text(encoding="utf-8"))
    (path / MANIFEST).write_text(json.dumps(manifest), encoding="utf-8")  # in one line
    return {name: (path / name).read_bytes() for name in FILES}


def hostile(contents: dict[str, bytes], rng: random.Random) -> bytes:
    """An input of the program: which file, and what is in it."""
    name = rng.choice(FILES)
    good = contents[name]
    if rng.random() < 0.2:
        data = mutated_bytes(good, rng)
    elif name == MANIFEST:
        data = written_json(mutated_json(json.loads(good), rng), rng)
    else:
        data = other_tensors(good, rng)
    return bytes([FILES.index(name)]) + data


def cpp_bundle(budget: float, seed: int, advance: Advance) -> Result:
    """Build the reader and give it ``budget`` inputs."""
    total, faults = int(budget), list[str]()
    with tempfile.TemporaryDirectory(prefix="trust-", dir=SHARED_MEMORY) as work:
        program = build(Path(work) / "build")
        contents = good_bundle(Path(work) / "bundle")
        environment = os.environ | SETTINGS | {"FUZZ_BUNDLE": str(Path(work) / "bundle")}
        for first in range(0, total, BATCH):
            numbers = range(first, min(first + BATCH, total))
            faults += _faults(program, environment, contents, seed, numbers)
            advance(len(numbers))
    load = "processes of 500 inputs, g++'s AddressSanitizer and UndefinedBehaviorSanitizer"
    return Result(inputs=total, load=load, faults=faults)


def _faults(
    program: Path,
    environment: dict[str, str],
    contents: dict[str, bytes],
    seed: int,
    numbers: range,
) -> Iterator[str]:
    """Faults of some inputs; those behind one that ends the process go to another."""
    while numbers:
        for name, data in contents.items():  # the process before left its last input there
            (Path(environment["FUZZ_BUNDLE"]) / name).write_bytes(data)
        inputs = [hostile(contents, random.Random(f"{seed} {number}")) for number in numbers]
        given = b"".join(len(data).to_bytes(4, "little") + data for data in inputs)
        try:
            done = subprocess.run(
                [program], input=given, env=environment, capture_output=True, timeout=30 * HANG
            )
            status, said = done.returncode, done.stderr.decode(errors="replace")
            count = int((done.stdout.split() or [b"0"])[-1])
        except subprocess.TimeoutExpired as error:
            status, said = -1, f"not done after {30 * HANG:g} s"
            count = int(((error.stdout or b"0").split() or [b"0"])[-1])
        if status == 0 and count == len(numbers):
            return
        lines = [line for line in said.splitlines() if "Sanitizer" in line or "error" in line]
        what = (lines or said.strip().splitlines()[-1:] or ["nothing was said"])[0]
        yield f"input {numbers[min(count, len(numbers) - 1)]}: status {status}: {what[:200]}"
        numbers = numbers[count + 1 :]


PARTS = (
    Part(
        name="cpp-bundle",
        tried="the C++ reader: manifests and safetensors, as above",
        unit="inputs",
        full=200_000,
        short=1_000,
        run=cpp_bundle,
    ),
)
