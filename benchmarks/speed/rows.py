"""Rows of the table of speeds: what is asked, what was measured, and how."""

from __future__ import annotations

import json
import re
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from benchmarks.measure import interleaved, markdown
from zsd_core.errors import ConfigError

__all__ = [
    "README",
    "Bar",
    "Group",
    "Row",
    "Settings",
    "in_turns",
    "read_rows",
    "readme_row",
    "table",
]

TIMES = " \N{MULTIPLICATION SIGN}"
LOAD = re.compile(r", load ([\d.]+)")
README = "| milliseconds: 80 classes, one more, 1,203 | "
Unit = Literal["times", "ms", "MB", "share"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How the groups are measured.

    Attributes:
        threads: of everything.
        rounds: of every comparison in turns.
        femto: the detector that ``open`` is made of, as its authors wrote it.
        annotations: of ``images``, in COCO's format.
        images: folder of photographs for the accuracy of the peers.
        subset: of these photographs.
    """

    threads: int
    rounds: int = 30
    femto: Path | None = None
    annotations: Path | None = None
    images: Path | None = None
    subset: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Bar:
    """One line of the table: what is asked.

    Attributes:
        what: is measured, in a few words.
        asked: the bar.
        at_most: whether the measured value may be at most the bar, or must be at least it.
        unit: of both: "times" is a ratio, "share" a ratio in percent.
    """

    what: str
    asked: float
    at_most: bool
    unit: Unit = "times"


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A bar and what was measured; None where it could not be.

    Attributes:
        medians: what the value was made of, by name: milliseconds unless the name says otherwise.
        note: what a reader must know besides, or why nothing was measured.
    """

    bar: Bar
    measured: float | None
    medians: Mapping[str, float] = field(default_factory=dict)
    note: str = ""

    def as_json(self, group: str, conditions: str) -> dict[str, Any]:
        """The row as it is written."""
        bar = self.bar
        return {
            "group": group,
            "what": bar.what,
            "asked": bar.asked,
            "at_most": bar.at_most,
            "unit": bar.unit,
            "measured": None if self.measured is None else float(f"{self.measured:.4g}"),
            "met": self._met(),
            "medians": {name: float(f"{value:.4g}") for name, value in self.medians.items()},
            "note": self.note,
            "conditions": conditions,
        }

    def _met(self) -> bool | None:
        if self.measured is None:
            return None
        bar = self.bar
        return self.measured <= bar.asked if bar.at_most else self.measured >= bar.asked


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """Rows that are measured together.

    Attributes:
        name: for ``--only``.
        bars: of its rows, in their order.
        run: measures them.
    """

    name: str
    bars: Sequence[Bar]
    run: Callable[[Sequence[Bar], Settings], Sequence[Row]]


def in_turns(functions: Mapping[str, Callable[[], Any]], rounds: int) -> dict[str, float]:
    """Median milliseconds of each, in turns, each call right behind one that is not timed.

    The call before fills the caches and wakes the threads, as the frame before does in a stream.
    """
    turns = {name: function for name, function in functions.items()}
    samples = interleaved(turns, dict.fromkeys(turns, rounds), warmup=3, between=lambda: None)
    return {name: statistics.median(values) for name, values in samples.items()}


def read_rows(path: Path | None) -> list[dict[str, Any]]:
    """Rows of earlier runs; none where there is no file yet.

    Raises:
        ConfigError: the file cannot be read.
    """
    if path is None or not path.exists():
        return []
    try:
        rows: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))
        _ = [(row["group"], row["what"], row["measured"], row["medians"]) for row in rows]
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise ConfigError(f"{path} holds no rows of benchmarks.speed: {error!r}") from error
    return rows


def readme_row(rows: Sequence[Mapping[str, Any]]) -> str:
    """The line of the README's table; empty where the group was not measured."""
    names = ("80 classes", "81 classes", "1,203 classes")
    found = next((row["medians"] for row in rows if names[1] in row["medians"]), None)
    if found is None:
        return ""
    return f"{README}{', '.join(f'{found[name]:.1f}' for name in names)} |"


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """The rows in Markdown, then their notes and the conditions."""
    lines, notes = [], list[str]()
    for row in rows:
        mark = ""
        if row["note"]:
            if row["note"] not in notes:
                notes.append(row["note"])
            mark = f" ({notes.index(row['note']) + 1})"
        value, met = row["measured"], {True: "met", False: "missed", None: "not measured"}
        lines.append(
            [
                row["what"] + mark,
                f"{'≤' if row['at_most'] else '≥'} {_number(row['asked'], row['unit'])}",
                "" if value is None else _number(value, row["unit"]),
                met[row["met"]],
                ", ".join(f"{name} {_plain(number)}" for name, number in row["medians"].items()),
            ]
        )
    columns = ["what", ">asked", ">measured", "bar", "medians (ms unless it says)"]
    parts = [markdown(columns, lines)]
    parts += [f"({number}) {note}" for number, note in enumerate(notes, 1)]
    loads: dict[str, list[str]] = {}  # of the machine when a group began, by all else
    for row in {row["group"]: row for row in rows}.values():
        load = LOAD.search(row["conditions"])
        machine = LOAD.sub("", row["conditions"])
        loads.setdefault(machine, []).append(f"{row['group']} {load[1] if load else 'not read'}")
    parts += [f"{machine}. Load at the start: {', '.join(own)}." for machine, own in loads.items()]
    return "\n\n".join(parts)


def _number(value: float, unit: str) -> str:
    if unit == "share":
        return f"{100 * value:.0f} %"
    return _plain(value) + (TIMES if unit == "times" else f" {unit}")


def _plain(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
