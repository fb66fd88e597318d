"""Part "sanitizer": compute-sanitizer's memcheck and racecheck over the tests' small cases.

Every array is then an allocation of its own, without guards, so that memcheck knows its bounds. A
tool that is missing, or that the machine refuses, is "not checked", with what it said.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from benchmarks.gpu.build import ROOT
from benchmarks.gpu.cases import names_of
from benchmarks.gpu.kernels import paths, read_lines, text_of
from benchmarks.gpu.report import Report

__all__ = ["command", "dry", "judge", "run", "sanitized", "summary", "tool"]

TOOLS = ("memcheck", "racecheck")
LIMIT = 80  # seconds, for both at a time
OURS = ("--kernel-regex", "kns=zsd")  # PyTorch's kernels are not ours to check
SUMMARY = {
    "memcheck": r"ERROR SUMMARY: (\d+) error",
    "racecheck": r"RACECHECK SUMMARY: (\d+) hazard",
}


def run(report: Report) -> None:
    """Both tools over the small cases."""
    program = tool()
    if program is None:
        report.not_checked("compute-sanitizer is not on this machine.")
        return
    cases = names_of("small")
    with ThreadPoolExecutor(len(TOOLS)) as pool:
        told = pool.map(lambda name: sanitized(program, name, report.seed, cases), TOOLS)
        for name, said in zip(TOOLS, told, strict=True):
            judge(report, name, said, cases)


def dry(report: Report) -> None:
    """What would be run: there is nothing to check without a GPU."""
    report.fact(command=" ".join(command("compute-sanitizer", TOOLS[0], report.seed)[:12]))


def tool() -> str | None:
    """The program: on the PATH, or where toolkits put it."""
    name = "compute-sanitizer"
    return shutil.which(name) or next(map(str, Path("/usr/local").glob(f"cuda*/bin/{name}")), None)


def command(program: str, name: str, seed: int) -> list[str]:
    """The command line of one tool."""
    options = ["--tool", name, *OURS, "--error-exitcode", "99", "--print-limit", "20"]
    cases = ["-m", "benchmarks.gpu.cases", "--engine", "gpu", "--bare", "--seed", str(seed)]
    return [program, *options, sys.executable, *cases]


def sanitized(program: str, name: str, seed: int, cases: list[str]) -> str:
    """Everything that one tool says of the cases, until its time is up."""
    environment = paths() | {"PYTORCH_NO_CUDA_MEMORY_CACHING": "1"}
    try:
        done = subprocess.run(
            command(program, name, seed),
            cwd=ROOT,
            input=json.dumps(cases),
            capture_output=True,
            text=True,
            env=environment,
            timeout=LIMIT,
        )
    except subprocess.TimeoutExpired as error:
        return text_of(error.stdout) + text_of(error.stderr)
    except OSError as error:
        return f"{program} cannot be run: {error}"
    return done.stdout + done.stderr


def judge(report: Report, name: str, said: str, cases: list[str]) -> None:
    """Note what a tool found, or that it did not come to its end."""
    _, ended = read_lines(said)
    errors = summary(name, said)
    disagreed = [case for case, error in ended.items() if error]
    report.row(tool=name, cases=len(ended), of=len(cases), errors=errors, disagreed=len(disagreed))
    if errors or disagreed:
        lines = [line for line in said.splitlines() if line.startswith("=========")]
        report.failure(f"{name}: {errors} errors; {disagreed[:5]}; {' | '.join(lines)[:2500]}")
    if errors is None or len(ended) < len(cases):
        report.not_checked(
            f"{name}: {len(ended)} of {len(cases)} cases within {LIMIT} s; the end of what it "
            f"said: {said[-600:]}"
        )


def summary(name: str, said: str) -> int | None:
    """Errors that a tool counted; None where it did not come to its end."""
    match = re.search(SUMMARY[name], said)
    return int(match[1]) if match else None
