"""Part "kernels": every kernel against its float64 twin, at the tests' sizes and at real ones.

Inputs are fresh, by a seed that the result names. All arrays lie between bytes of all ones, which
must be there afterwards; outputs start as NaN.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence

from benchmarks.gpu.build import ROOT
from benchmarks.gpu.cases import names_of
from benchmarks.gpu.report import Report

__all__ = ["dry", "operator_of", "paths", "read_lines", "run", "run_cases", "tally", "text_of"]

SECONDS = 35  # for the cases of one kind: a kernel may hang
PROCESSES = 8  # so often is another begun after one that died
FEW = (  # of every operator one case, which the shim runs in a moment
    "product_mlp-float32-4",
    "product_mlp-int8-3",
    "roi_align-forward-float16-2",
    "roi_align-backward-float32-2",
    "fuse-softmax-0",
    "calibrate_scores-3",
    "all_finite-4",
    "preprocess-float32-0",
    "propose-2",
    "detect-2",
    "top_regions-2",
    "second_look-3",
    "score_prototypes-both-4",
    "spoken_for-2",
)


def run(report: Report) -> None:
    """All cases, on the GPU."""
    for kind in ("small", "large"):
        names = names_of(kind)
        errors = run_cases(report, "gpu", names)
        tally(report, kind, names, errors)


def dry(report: Report) -> None:
    """A few of them, on the shim."""
    errors = run_cases(report, "shim", FEW)
    tally(report, "a few, on the shim", FEW, errors)
    missing = {operator_of(n) for n in names_of("small")} - {operator_of(n) for n in FEW}
    if missing:
        report.failure(f"the dry run has no case of {', '.join(sorted(missing))}.")


def operator_of(case: str) -> str:
    """The operator that a case is of."""
    parts = case.removeprefix("large-").split("-")
    return "roi_align_backward" if parts[:2] == ["roi_align", "backward"] else parts[0]


def tally(report: Report, kind: str, names: Sequence[str], errors: dict[str, str]) -> None:
    """A row for every operator, and every failure in words."""
    total = Counter(map(operator_of, names))
    failed = Counter(map(operator_of, errors))
    for operator in sorted(total):
        report.row(operator=operator, cases=total[operator], failed=failed[operator], sizes=kind)
    for name, error in errors.items():
        report.failure(f"{name}: {error}")


def run_cases(report: Report, engine: str, names: Sequence[str]) -> dict[str, str]:
    """Run cases in processes of their own; what went wrong, by case."""
    errors, left = dict[str, str](), list(names)
    command = [sys.executable, "-m", "benchmarks.gpu.cases", "--engine", engine]
    command += ["--seed", str(report.seed)]
    end = time.monotonic() + SECONDS
    for _ in range(PROCESSES):
        said, why = _process(command, left, end - time.monotonic())
        begun, ended = read_lines(said)
        errors |= {name: error for name, error in ended.items() if error}
        errors |= {name: why for name in begun if name not in ended}
        left = [name for name in left if name not in begun]
        if not left:
            return errors
        if not begun:
            raise RuntimeError(f"no case could begin: {why}")
        if time.monotonic() > end:
            break
    return errors | dict.fromkeys(left, "not run: the time was up, or too many processes died")


def _process(command: list[str], names: list[str], seconds: float) -> tuple[str, str]:
    """What a process says of cases, and how it ended."""
    try:
        done = subprocess.run(
            command,
            cwd=ROOT,
            input=json.dumps(names),
            capture_output=True,
            text=True,
            env=paths(),
            timeout=seconds,
        )
    except subprocess.TimeoutExpired as error:
        return text_of(error.stdout), f"not at its end when the time, {SECONDS} s, was up"
    return done.stdout, f"its process ended with {done.returncode}: {done.stderr[-800:]}"


def text_of(output: str | bytes | None) -> str:
    """What a process printed that was stopped: bytes, whatever was asked for."""
    return output.decode(errors="replace") if isinstance(output, bytes) else output or ""


def read_lines(text: str) -> tuple[list[str], dict[str, str | None]]:
    """Cases that were begun, and those that ended, with their errors."""
    begun, ended = list[str](), dict[str, str | None]()
    for line in text.splitlines():
        if line.startswith("{"):
            told = json.loads(line)
            if "error" in told:
                ended[told["case"]] = told["error"]
            else:
                begun.append(told["case"])
    return begun, ended


def paths() -> dict[str, str]:
    """The environment, with the folders that Python modules are found in."""
    folders = os.pathsep.join([str(ROOT), str(ROOT / "tests" / "helpers")])
    return os.environ | {"PYTHONPATH": folders}
