"""Hostile bundles again, for the C++ library: its reader and scoring under sanitizers, by Python's.

Both must take the same bundles: one that only a device refuses is found too late, and one that only
a device takes was never checked.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np

from benchmarks.trust.attempts import HANG, SHARED_MEMORY
from benchmarks.trust.mutate import mutated_bytes, mutated_json, written_json
from benchmarks.trust.parts.bundles import Files, other_tensors
from benchmarks.trust.small import HELPERS, helper
from benchmarks.trust.table import Advance, Part, Result
from runtime.archive import MANIFEST
from runtime.bundle import open_bundle
from runtime.classes import ClassTable
from runtime.manifest import SCORER, VOCABULARY
from zsd_core.errors import DeviceError, ZsdError
from zsd_core.scoring import scorer_for
from zsd_core.stages import check_finite

__all__ = [
    "FILES",
    "PARTS",
    "PythonReader",
    "build",
    "cpp_bundle",
    "disagreements",
    "good_bundle",
    "hostile",
]

SOURCE = HELPERS.parent / "runtime" / "cpp" / "fuzz"
FILES = (MANIFEST, SCORER, VOCABULARY)  # by the first byte of an input
BATCH = 500  # inputs of a process, so that one which ends is found soon
LONG = 10_000  # inputs from which an optimised build is worth its time
SETTINGS = {
    "OMP_NUM_THREADS": "1",
    "ASAN_OPTIONS": "allocator_may_return_null=0:max_allocation_size_mb=1024",
    "UBSAN_OPTIONS": "print_stacktrace=1",
}


def build(folder: Path, compiler: str = "", level: str = "-O0") -> Path:
    """Build the program that opens bundles, with AddressSanitizer and UndefinedBehaviorSanitizer.

    Args:
        folder: of the build.
        compiler: a C++ compiler; "" takes CMake's own choice.
        level: of optimisation.

    Raises:
        DeviceError: there is no CMake, compiler or library here; the message has its last lines.
    """
    program = shutil.which("cmake", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    if program is None:
        raise DeviceError("there is no cmake here; apt-get install cmake g++, or pip install cmake")
    chosen = [f"-DCMAKE_CXX_COMPILER={compiler}"] if compiler else []
    for command in (
        [program, "-S", str(SOURCE), "-B", str(folder), f"-DZSD_LEVEL={level}", *chosen],
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
    elif name == MANIFEST and rng.random() < 0.5:  # one change, which nothing else hides
        changed = mutated_json(json.loads(good), rng, most=1)
        data = json.dumps(changed).encode("utf-8", "surrogatepass")
    elif name == MANIFEST:
        data = written_json(mutated_json(json.loads(good), rng), rng)
    else:
        data = other_tensors(good, rng)
    return bytes([FILES.index(name)]) + data


def cpp_bundle(budget: float, seed: int, advance: Advance) -> Result:
    """Build the reader, give it ``budget`` inputs, and compare what it takes with Python."""
    total, faults = int(budget), list[str]()
    with tempfile.TemporaryDirectory(prefix="trust-", dir=SHARED_MEMORY) as work:
        program = build(Path(work) / "build", level="-O1" if total > LONG else "-O0")
        contents = good_bundle(Path(work) / "bundle")
        python = PythonReader(Path(work) / "python")
        environment = os.environ | SETTINGS | {"FUZZ_BUNDLE": str(Path(work) / "bundle")}
        for first in range(0, total, BATCH):
            numbers = range(first, min(first + BATCH, total))
            inputs = {n: hostile(contents, random.Random(f"{seed} {n}")) for n in numbers}
            answers: dict[int, str] = {}
            faults += _faults(program, environment, contents, inputs, answers)
            faults += disagreements(python, inputs, answers)
            advance(len(numbers))
    load = (
        "processes of 500 inputs, g++'s AddressSanitizer and UndefinedBehaviorSanitizer; Python "
        "must take and refuse the same"
    )
    return Result(inputs=total, load=load, faults=faults)


class PythonReader:
    """Python's reader of the same inputs.

    Args:
        folder: of a copy of the good bundle.
    """

    def __init__(self, folder: Path) -> None:
        self._contents = good_bundle(folder)
        self._files = Files(folder, SCORER, VOCABULARY)
        self._folder = folder

    def __call__(self, data: bytes) -> str:
        """Open the bundle with an input; answer as the program does: "taken", or "refused: why"."""
        name, content = FILES[data[0]], data[1:]
        try:
            if name == MANIFEST:
                (self._folder / MANIFEST).write_bytes(content)
                self._read()
            else:
                with self._files.replaced(name, content):
                    self._read()
        except ZsdError as error:
            return f"refused: {error}"
        finally:
            (self._folder / MANIFEST).write_bytes(self._contents[MANIFEST])
        return "taken"

    def _read(self) -> None:
        """Read all that the C++ library reads when it opens a bundle, and score what it scores."""
        bundle = open_bundle(self._folder)
        _ = bundle.class_vectors, bundle.vocabulary.rows
        config = bundle.model_config.scoring
        scorer = scorer_for(config, bundle.scorer_tensors())
        classes = ClassTable(bundle, scorer).activate(None, "gzsd", 0).class_set
        embeddings = (np.arange(3 * config.joint_dim).reshape(3, -1) % 5 / 4).astype(np.float32)
        with np.errstate(all="ignore"):
            scores = scorer.score(embeddings, np.array([1, 0.5, 0], np.float32), classes)
        check_finite("scoring", [scores])


def disagreements(
    python: Callable[[bytes], str], inputs: Mapping[int, bytes], answers: Mapping[int, str]
) -> Iterator[str]:
    """Faults of inputs that one reader takes and the other refuses.

    Args:
        python: what Python says of an input.
        inputs: by their numbers.
        answers: of the program.
    """
    for number, answer in answers.items():
        try:
            other = python(inputs[number])
        except Exception as error:  # no error of ours: the fault
            other = f"{type(error).__name__}: {error}"
        if answer.split(":")[0] != other.split(":")[0]:
            yield f"input {number}: C++ says {answer[:200]!r}, Python {other[:200]!r}"


def _faults(
    program: Path,
    environment: dict[str, str],
    contents: Mapping[str, bytes],
    inputs: Mapping[int, bytes],
    answers: dict[int, str],
) -> Iterator[str]:
    """Faults of some inputs; those behind one that ends the process go to another.

    ``answers`` gets what the program says of the others, by number.
    """
    numbers = list(inputs)
    while numbers:
        for name, data in contents.items():  # the process before left its last input there
            (Path(environment["FUZZ_BUNDLE"]) / name).write_bytes(data)
        given = b"".join(len(inputs[n]).to_bytes(4, "little") + inputs[n] for n in numbers)
        try:
            done = subprocess.run(
                [program], input=given, env=environment, capture_output=True, timeout=30 * HANG
            )
            status, said, out = done.returncode, done.stderr.decode(errors="replace"), done.stdout
        except subprocess.TimeoutExpired as error:
            status, said, out = -1, f"not done after {30 * HANG:g} s", error.stdout or b""
        lines = out.decode(errors="replace").split("\n")[:-1]
        answers.update(zip(numbers, lines, strict=False))
        if status == 0 and len(lines) == len(numbers):
            return
        told = [line for line in said.splitlines() if "Sanitizer" in line or "error" in line]
        what = (told or said.strip().splitlines()[-1:] or ["nothing was said"])[0]
        yield f"input {numbers[min(len(lines), len(numbers) - 1)]}: status {status}: {what[:200]}"
        numbers = numbers[len(lines) + 1 :]


PARTS = (
    Part(
        name="cpp-bundle",
        tried="the C++ library: manifests and safetensors, as above, and scores of their classes",
        unit="inputs",
        full=200_000,
        short=1_000,
        run=cpp_bundle,
    ),
)
