"""The logs that ``benchmarks.paper.experiments`` wrote, and the numbers in them."""

from __future__ import annotations

import json
import os
import zipfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.paper import published
from zsd_core.errors import DataError
from zsd_core.learning.experiment import LossConfig

__all__ = ["Logs", "Pick", "by_class", "calibrated", "metric", "reading"]

Pick = Callable[[Mapping[str, Any]], Any]  # a number of a log, or None
PSEUDO = (
    "Every seed draws other seen classes to play the unseen ones, and tests on training "
    "photographs that show one, held out from the scoring; their boxes are a machine's. Trunk, "
    "proposals and box regression have seen them. Options were chosen on draws like these."
)
MACHINE = (
    "Tested on photographs that show an unseen class and that training therefore dropped; their "
    "boxes are a machine's, so compare the rows of this set with each other only. Nothing was "
    "chosen on them."
)
NOTES = {"_pseudo": PSEUDO, "_machine": MACHINE}  # by the end of the folder's name


class Logs:
    """The logs of one split, by run.

    Args:
        split: name of their folder.
        files: of that folder, on disk or in a zip; those that end in ``.json`` are logs.
    """

    def __init__(self, split: str, files: Iterable[Path | zipfile.Path] = ()) -> None:
        self.split = split
        self.note = next((note for end, note in NOTES.items() if split.endswith(end)), "")
        self.runs: dict[str, list[dict[str, Any]]] = {}
        self.paths: dict[str, list[Path]] = {}  # empty for logs of an archive
        for path in sorted(files, key=lambda path: path.name):
            if not path.name.endswith(".json"):
                continue
            try:
                log = json.loads(path.read_text(encoding="utf-8"))
                _ = [log[key] for key in ("seed", "steps", "command")]
                self.runs.setdefault(log["run"], []).append(log)
            except (OSError, ValueError, KeyError, TypeError) as error:
                raise DataError(
                    f"{path} is no log of benchmarks.paper.experiments: {error!r}"
                ) from error
            if isinstance(path, Path):
                self.paths.setdefault(log["run"], []).append(path)

    def values(self, run: str, pick: Pick) -> list[float]:
        """One number per seed that has it; a run that died has none."""
        found = []
        for log in self.runs.get(run, []):
            if "results" in log and (value := pick(log)) is not None:
                found.append(float(value))
        return found

    def cell(self, run: str, pick: Pick) -> str:
        """Mean and, over seeds, standard deviation."""
        values = self.values(run, pick)
        if not values:
            return "-"
        mean = f"{np.mean(values):.1f}"
        return f"{mean} ± {np.std(values, ddof=1):.1f}" if len(values) > 1 else mean

    def points(self, kind: str, option: str, ablation: str) -> dict[float, str]:
        """The runs behind the points of a sweep, by value; see ``SWEEPS``.

        The checkpoint's own value is the run "contrastzsd"; a log of before it was recorded means
        the default.
        """
        own = next(iter(self.runs.get("contrastzsd", [])), {}).get("loss", {})
        swept = {value: f"{kind}-{value:g}" if value else ablation for value in published.SWEEP}
        return swept | {own.get(option, getattr(LossConfig(), option)): "contrastzsd"}

    def link(self, run: str, home: Path) -> str:
        """The seeds of a run, with a link to each log that is a file of its own."""
        logs = self.runs.get(run, [])
        if not logs:
            return "not run"
        seeds = [f"{log['seed']}{' (dead)' if 'dead' in log else ''}" for log in logs]
        paths = [Path(os.path.relpath(path, home)).as_posix() for path in self.paths.get(run, [])]
        linked = [f"[{seed}]({path})" for seed, path in zip(seeds, paths, strict=False)]
        return " ".join(linked or seeds)


def metric(task: str, number: str, group: str) -> Pick:
    """Picks one mean from a log."""
    return lambda log: log["results"].get(task, {}).get("values", {}).get(number, {}).get(group)


def by_class(task: str, name: str, column: int) -> Pick:
    """Picks a class's number: 1 AP area, 2 AP voc11, 3 recall at IoU 0.5."""
    return lambda log: (log["results"][task]["classes"].get(name) or [None] * 4)[column]


def calibrated(number: str, group: str) -> Pick:
    """Picks one mean of GZSD after calibration."""
    return lambda log: log.get("calibrated", {}).get("gzsd", {}).get(number, {}).get(group)


def reading(name: str, task: str, number: str, group: str) -> Pick:
    """Picks one mean of a reading of eq. 14."""
    return lambda log: (
        log.get("readings", {}).get(name, {}).get(task, {}).get(number, {}).get(group)
    )
