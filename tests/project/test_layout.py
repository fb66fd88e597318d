"""The formatter decides the layout, and no file grows past what one idea needs."""

from __future__ import annotations

from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FOLDERS = (
    *("contrastzsd", "csrc", "zsd_core", "runtime", "export", "benchmarks", "scripts", "tests"),
    *("cmake", "deploy", "examples"),
)
SUFFIXES = {".py", ".cpp", ".h", ".inl", ".cu", ".cuh", ".cmake", ".css", ".html", ".js"}
FILES = sorted(
    path for folder in FOLDERS for path in (ROOT / folder).rglob("*") if path.suffix in SUFFIXES
)
LONGEST = 400  # lines
# Files that hold one idea and are longer, with the reason.
LONGER = {
    "zsd_core/kernels/reference.py": "the twin of every operator, read side by side",
    "tests/helpers/cuda_proof/ptx_instructions.py": "one entry for every instruction of PTX",
    "tests/helpers/cuda_proof/cases.py": "the cases of every CUDA kernel",
    "tests/helpers/cuda_proof/shim.cpp": "CUDA's device functions for a CPU",
    "tests/export/test_engine.py": "engines of every kind of network against one double",
    "tests/helpers/trt_double.py": "one double of two bindings that call each other",
    "tests/runtime/serve/test_app.py": "one test for every request of the service",
    "tests/runtime/test_detector.py": "the promises of one class",
}


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.relative_to(ROOT).as_posix())
def test_a_file_holds_one_idea(path):
    lines = path.read_text(encoding="utf-8").count("\n")
    assert lines <= LONGEST or path.relative_to(ROOT).as_posix() in LONGER, lines


def test_the_exceptions_are_needed():
    for name in LONGER:
        assert (ROOT / name).read_text(encoding="utf-8").count("\n") > LONGEST, name


def test_the_formatter_decides():
    mark = "# fmt" + ": skip"
    assert [p.name for p in FILES if mark in p.read_text(encoding="utf-8")] == []


def test_export_has_few_rooms_and_one_level_of_wings():
    rooms = [p for p in (ROOT / "export").iterdir() if not p.name.startswith("_")]
    assert len(rooms) <= 20, sorted(p.name for p in rooms)
    inner = [p for wing in rooms if wing.is_dir() for p in wing.iterdir() if p.is_dir()]
    assert {p.name for p in inner} - {"__pycache__"} == {"scorers"}  # a file per scoring method
