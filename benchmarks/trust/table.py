"""Parts, their results, and the table that they fill."""

from __future__ import annotations

import importlib
import json
import pkgutil
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from benchmarks.measure import markdown
from benchmarks.trust import parts
from zsd_core.errors import ConfigError

__all__ = [
    "Advance",
    "Attempt",
    "Part",
    "Prepare",
    "Result",
    "all_parts",
    "duration",
    "read_rows",
    "row_of",
    "table",
]

Advance = Callable[[int], None]  # told how many inputs, or seconds, have just been done
Attempt = Callable[[random.Random], None]  # makes one input, and loads it
Prepare = Callable[[Path], Attempt]  # given an empty folder of its own
MOST_FAULTS = 20  # that a row keeps; the count is of all


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """Result of a part.

    Attributes:
        inputs: inputs, calls or faults that were tried.
        load: load that was held, and what was counted, in a few words: "16 threads, 512 MB".
        faults: one sentence for every input that gave a raw exception, a wrong or mixed result, a
            hang, a crash or a loss. Empty means that nothing was lost.
        peak_mb: most memory of the process, where that is measured.
        peak_at: the input after which it was reached.
    """

    inputs: int
    load: str
    faults: Sequence[str] = ()
    peak_mb: float = 0.0
    peak_at: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One line of the table.

    Attributes:
        name: for ``--part``, lower case with dashes.
        tried: faults that are tried, in a few words.
        unit: unit of a budget.
        full: budget of the whole run.
        short: budget of ``--short``, which continuous integration runs: some seconds.
        run: does it, given a budget, a seed and what to tell of the progress; a budget in minutes
            is told in seconds. It raises only where the machine cannot run the part.
        loader: of a part whose inputs are tried one by one; such a part can stop and go on.
    """

    name: str
    tried: str
    unit: Literal["inputs", "minutes"]
    full: float
    short: float
    run: Callable[[float, int, Advance], Result]
    loader: Prepare | None = None


def all_parts() -> dict[str, Part]:
    """Every part of every module in ``benchmarks/trust/parts``, by name."""
    found: dict[str, Part] = {}
    for module in pkgutil.iter_modules(parts.__path__, parts.__name__ + "."):
        for part in importlib.import_module(module.name).PARTS:
            assert part.name not in found, part.name
            found[part.name] = part
    return found


def row_of(
    part: Part,
    budget: float,
    seed: int,
    result: Result,
    seconds: float,
    machine: str,
    before: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """A row as it is written: what was asked for, what came of it, and where.

    Args:
        part: the part.
        budget: of the whole part.
        seed: of its random choices.
        result: of this run.
        seconds: this run took.
        machine: a sentence.
        before: the row of the runs that this one went on from.
    """
    known = {"seconds": 0.0, "lost": 0, "faults": (), "peak_mb": 0.0, **(before or {})}
    peak = max(known["peak_mb"], result.peak_mb)
    peak_at = result.peak_at if peak == result.peak_mb else known.get("peak_at", 0)
    return {
        "part": part.name,
        "tried": part.tried,
        "budget": f"{budget:g} {part.unit}",
        "seed": seed,
        "inputs": result.inputs,
        "load": result.load + (f", {peak:,.0f} MB at most" if peak else ""),
        "peak_mb": round(peak, 1),
        "peak_at": peak_at,
        "seconds": round(known["seconds"] + seconds, 1),
        "lost": known["lost"] + len(result.faults),
        "faults": _distinct([*known["faults"], *result.faults])[:MOST_FAULTS],
        "machine": machine,
    }


def _distinct(faults: Sequence[str]) -> list[str]:
    """One fault of each kind, whatever "input N: " stands before it."""
    return list({fault.partition(": ")[2] or fault: fault for fault in reversed(faults)}.values())


def read_rows(path: Path | None) -> dict[str, dict[str, Any]]:
    """Rows of earlier runs, by part; none where there is no file yet.

    Raises:
        ConfigError: the file cannot be read.
    """
    if path is None or not path.exists():
        return {}
    try:
        return {row["part"]: row for row in json.loads(path.read_text(encoding="utf-8"))}
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise ConfigError(f"{path} holds no rows of benchmarks.trust: {error!r}") from error


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """The rows in Markdown."""
    columns = ("part", "tried", ">inputs", "load held", ">time", ">lost or wrong")
    return markdown(
        columns,
        [
            [
                f"`{row['part']}`",
                row["tried"],
                f"{row['inputs']:,}",
                row["load"],
                duration(row["seconds"]),
                f"{row['lost']:,}",
            ]
            for row in rows
        ],
    )


def duration(seconds: float) -> str:
    """Seconds as people read them."""
    return f"{seconds / 60:.1f} min" if seconds >= 60 else f"{seconds:.1f} s"
