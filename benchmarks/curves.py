"""Cost curves: how the stages of a detector grow with classes, regions and images of a batch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from zsd_core.errors import require
from zsd_core.stages import STAGES

__all__ = ["draw_curves"]

TITLES = {"classes": "classes", "proposals": "regions per image, at most", "batch": "images"}


def draw_curves(measured: Mapping[str, Sequence[Mapping[str, Any]]], path: Path) -> None:
    """Draw one panel per axis: median milliseconds per image, stages on top of each other.

    Args:
        measured: rows of ``benchmarks.latency`` by the axis along which they differ.
        path: of the PNG.
    """
    figure_of = require("matplotlib.figure", "report").Figure  # no display, no global state
    figure = figure_of(figsize=(4.2 * len(measured), 3.6), layout="constrained")
    panels = figure.subplots(1, len(measured), sharey=False, squeeze=False)[0]
    for panel, (axis, rows) in zip(panels, measured.items(), strict=True):
        positions = [row[axis] for row in rows]
        heights = [
            [row["stages"][stage]["p50_ms"] / row["batch"] for row in rows] for stage in STAGES
        ]
        panel.stackplot(positions, heights, labels=STAGES)
        panel.set_xlabel(TITLES[axis])
        apart = (max(positions) - min(positions)) / 15  # numbers nearer than that would overlap
        named = [p for i, p in enumerate(positions) if i == 0 or p - positions[i - 1] >= apart]
        panel.set_xticks(named, [str(p) for p in named], fontsize=7)
        panel.set_ylabel("ms per image, median")
        panel.margins(x=0)
        panel.set_ylim(bottom=0)
    row = next(iter(measured.values()))[0]
    figure.suptitle(f"{row['bundle']}, {row['backend']}, {row['precision']}", fontsize=9)
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles[::-1], labels[::-1], loc="outside right center", fontsize=7)
    figure.savefig(path, dpi=110, metadata={"Software": None})
