"""The cases of ``benchmarks.latency``, and their rows as a table and beside an earlier run's."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.measure import markdown
from zsd_core.errors import ConfigError
from zsd_core.stages import STAGES

__all__ = ["Case", "compare", "read_rows", "table"]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One configuration of the benchmark.

    Attributes:
        bundle: its directory.
        backend: of the runtime.
        precision: of the networks; with int8 the scoring is int8 too.
        batch: images of a call.
        size: shorter edge of the network input; None is the bundle's.
        classes: asked for.
        proposals: most regions of an image; None is the bundle's.
        threads: CPU threads; None is one per core.
    """

    bundle: str
    backend: str = "onnxruntime"
    precision: str = "float32"
    batch: int = 1
    size: int | None = None
    classes: int = 80
    proposals: int | None = None
    threads: int | None = None


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Two Markdown tables: whole calls, and the medians of their stages."""
    names = ["bundle", "backend", "precision", ">batch", ">size", ">classes", ">proposals"]
    keys = [[str(row[name.removeprefix(">")]) for name in names] for row in rows]
    whole = [
        [
            *key,
            *(f"{value:.2f}" for value in row["stages"]["whole call"].values()),
            f"{row['images_per_s']:.1f}",
            _number(row["peak_mb"], ".0f"),
            f"{row['open_ms']:.0f}",
            f"{row['first_ms']:.0f}",
            _number(row["joules_per_image"], ".2f"),
            str(row["detections"]),
            str(row["calls"]),
        ]
        for key, row in zip(keys, rows, strict=True)
    ]
    stages = [
        [*key, *(_stage(row["stages"][name]) for name in STAGES)]
        for key, row in zip(keys, rows, strict=True)
    ]
    columns = (
        ">p50 ms",
        ">p90 ms",
        ">p99 ms",
        ">images/s",
        ">memory MB",
        ">open ms",
        ">first ms",
        ">J/image",
        ">found",
        ">calls",
    )
    return "\n\n".join(
        (
            markdown([*names, *columns], whole),
            "Stages, p50 / p90 / p99 ms:",
            markdown([*names, *(f">{name}" for name in STAGES)], stages),
        )
    )


def _stage(cuts: Mapping[str, float]) -> str:
    return " / ".join(f"{value:.2f}" for value in cuts.values())


def _number(value: float | None, form: str) -> str:
    return "not reported" if value is None else format(value, form)


def compare(rows: Sequence[Mapping[str, Any]], others: Sequence[Mapping[str, Any]]) -> str:
    """Pair rows of the same configuration; medians, and theirs over ours.

    Raises:
        ConfigError: no configuration is in both.
    """
    fields = [field.name for field in dataclasses.fields(Case)]
    old = {tuple(str(row[f]) for f in fields): row for row in others}
    lines = []
    for row in rows:
        key = tuple(str(row[f]) for f in fields)
        if key not in old:
            continue
        for stage in ("whole call", *STAGES):
            now, then = (r["stages"][stage]["p50_ms"] for r in (row, old[key]))
            faster = f"{then / now:.2f}" if now > 0 else ""
            lines.append([", ".join(key[:-1]), stage, f"{then:.2f}", f"{now:.2f}", faster])
    if not lines:
        raise ConfigError("--against: no configuration of that file was measured now.")
    return markdown(["configuration", "stage", ">then, ms", ">now, ms", ">then / now"], lines)


def read_rows(path: Path) -> list[dict[str, Any]]:
    """Rows as ``--json`` wrote them.

    Raises:
        ConfigError: the file is something else.
    """
    try:
        rows: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))
        for row in [*rows, *([] if rows else [{}])]:  # none is none of ours
            _ = [row[field.name] for field in dataclasses.fields(Case)], row["stages"]["whole call"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(
            f"--against {path} is not what --json of this command wrote ({error!r})."
        ) from error
    return rows
