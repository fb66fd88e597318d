"""Draw how the stages of a detector grow with classes, regions, images and threads.

    python -m benchmarks.curves --picture curves.png
    python -m benchmarks.curves --json docs/measurements/curves.json --picture curves.png

One number changes at a time, and the detectors of one curve search in turns in one process. Classes
are those of the bundle's table, then words of its vocabulary, then made-up vectors. Regions are
those of the second look where the model has one. Sizes are those of the photograph, whose network
input may stay the same. Run it on an idle machine.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.measure import conditions, photograph, write_rows
from runtime.bundle import Bundle, default_bundle, open_bundle
from runtime.detector import Detector
from zsd_core import kernels
from zsd_core.commands import Progress, command, new_parser
from zsd_core.errors import require
from zsd_core.files import prepare_files
from zsd_core.semantics import fold_name, unit_rows
from zsd_core.stages import STAGES

__all__ = ["classes_of", "draw", "main", "measure", "parse"]

TITLES = {
    "classes": "classes",
    "regions": "regions looked at, at most",
    "batch": "images of a batch",
    "size": "longer edge of the photograph",
    "threads": "threads",
}
VALUES = {
    "classes": (1, 20, 80, 81, 300, 1203, 5000, 20000),
    "regions": (1, 2, 4, 8, 16),
    "batch": (1, 2, 4, 8),
    "size": (160, 320, 640, 1280, 2560, 5120),
    "threads": (1, 2),
}
Row = dict[str, Any]  # axis, value, calls, whole_ms and stages in ms of an image


def classes_of(bundle: Bundle, count: int) -> dict[str, Any]:
    """Classes by name, of the table, then of the vocabulary, then made up: {name: vector or None}.

    With a second look, the last one always is a class that takes it, but for the table alone.
    """
    table = (*bundle.seen, *bundle.unseen)
    known = {fold_name(name) for name in table}
    words = [name for name in bundle.vocabulary.names if fold_name(name) not in known]
    names: dict[str, Any] = dict.fromkeys((*table, *words)[:count])
    rng, width = np.random.default_rng(0), bundle.model_config.scoring.vector_dim
    made_up = max(0, count - len(names))
    vectors = unit_rows(rng.normal(size=(made_up, width)).astype(np.float32))
    return names | {f"made up {number}": vector for number, vector in enumerate(vectors)}


def measure(
    path: Path | None, axis: str, values: Sequence[int], threads: int, calls: int
) -> list[Row]:
    """The rows of one curve."""
    image = photograph()
    samples: dict[int, list[Mapping[str, float]]] = {value: [] for value in values}
    with ExitStack() as stack:
        opened = {
            value: _detector(stack, path, axis, value, threads) if axis != "size" else None
            for value in values
        }
        if axis == "size":  # one detector for all
            opened = dict.fromkeys(values, _detector(stack, path, axis, 0, threads))
        progress = stack.enter_context(Progress(TITLES[axis], (calls + 2) * len(values)))
        for call in range(-2, calls):
            for value, detector in opened.items():
                kernels.set_threads(value if axis == "threads" else threads)
                images = [_sized(image, value if axis == "size" else 0)]
                images *= value if axis == "batch" else 1
                assert detector is not None
                detector(images)  # the caches are this detector's when it is timed
                results = detector(images)
                if call >= 0:
                    samples[value].append(results[0].times_ms)
                progress.advance()
    kernels.set_threads(threads)
    return [
        {
            "axis": axis,
            "value": value,
            "calls": calls,
            "stages": {s: float(f"{median(t[s] for t in times):.4g}") for s in STAGES},
        }
        for value, times in samples.items()
    ]


def _detector(stack: ExitStack, path: Path | None, axis: str, value: int, threads: int) -> Detector:
    bundle = open_bundle(path or default_bundle())
    looks = bool(bundle.model_config.regions.look)
    own = len(bundle.seen) + len(bundle.unseen)
    count = value if axis == "classes" else own + looks if axis == "regions" else own
    if axis == "regions":
        bundle.model_config = _with_regions(bundle, value)
    make = partial(Detector, bundle, classes=classes_of(bundle, count))
    return stack.enter_context(make(threads=value if axis == "threads" else threads))


def _with_regions(bundle: Bundle, count: int) -> Any:
    config = bundle.model_config
    if config.regions.look:
        return dataclasses.replace(config, regions=dataclasses.replace(config.regions, look=count))
    most = max(count, config.proposals.pre_nms_top)
    proposals = dataclasses.replace(config.proposals, post_nms_top=count, pre_nms_top=most)
    return dataclasses.replace(config, proposals=proposals)


def _sized(image: NDArray[np.uint8], longer: int) -> NDArray[np.uint8]:
    if not longer:
        return image
    cv2 = require("cv2", "cpu")
    small: NDArray[np.uint8] = cv2.resize(image, (longer, longer * 3 // 4))
    return small


def draw(rows: Sequence[Mapping[str, Any]], title: str, path: Path) -> None:
    """One panel per axis: median milliseconds per image, stages on top of each other."""
    figure_of = require("matplotlib.figure", "report").Figure  # no display, no global state
    axes = [axis for axis in TITLES if any(row["axis"] == axis for row in rows)]
    figure = figure_of(figsize=(2.9 * len(axes) + 1, 3.4), layout="constrained")
    panels = figure.subplots(1, len(axes), squeeze=False)[0]
    for panel, axis in zip(panels, axes, strict=True):
        own = [row for row in rows if row["axis"] == axis]
        places, floor = list(range(len(own))), np.zeros(len(own))
        for number, stage in enumerate(STAGES):
            heights = np.array([row["stages"][stage] for row in own])
            panel.bar(places, heights, 0.8, floor, label=stage, color=f"C{number}")
            floor += heights
        for place, top in zip(places, floor, strict=True):
            panel.annotate(f"{top:.3g}", (place, top), ha="center", va="bottom", fontsize=7)
        panel.set_xticks(places, [f"{row['value']:,}" for row in own], fontsize=7, rotation=40)
        panel.set_xlabel(TITLES[axis], fontsize=8)
        panel.tick_params(axis="y", labelsize=7)
        panel.margins(y=0.1)
    panels[0].set_ylabel("ms per image, median", fontsize=8)
    figure.suptitle(title, fontsize=9)
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles[::-1], labels[::-1], loc="outside right center", fontsize=7)
    figure.savefig(path, dpi=110, metadata={"Software": None})


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = new_parser("benchmarks.curves", __doc__)
    add = parser.add_argument
    add("--bundle", type=Path, metavar="DIR", help="default: the one that ships")
    add("--axis", nargs="+", choices=tuple(TITLES), default=list(TITLES), help="default: all")
    add("--most", type=int, metavar="N", help="leave values above it out")
    add("--threads", type=int, metavar="N", help="default: one per core")
    add("--calls", type=int, default=15, metavar="N", help="of each point (%(default)s)")
    add("--json", type=Path, metavar="FILE", help="write all rows here")
    add("--picture", type=Path, metavar="FILE", help="draw them")
    args = parser.parse_args(argv)
    if args.calls < 1 or (args.most is not None and args.most < 1):
        parser.error("--calls and --most must be at least 1")
    return args


@command
def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; 0 on success, 1 with a sentence on stderr."""
    args = parse(argv)
    prepare_files(args.json, args.picture)
    threads, machine = args.threads or kernels.usable_threads(), conditions()
    rows: list[Row] = []
    for axis in args.axis:
        most = (os.cpu_count() or 1) if axis == "threads" else args.most
        values = [value for value in VALUES[axis] if most is None or value <= most]
        rows += measure(args.bundle, axis, values, threads, args.calls)
    rows = [{**row, "conditions": f"{machine}; {threads} threads"} for row in rows]
    for row in rows:
        whole = sum(row["stages"].values())
        print(f"{TITLES[row['axis']]} {row['value']:,}: {whole:.2f} ms per image")
    if args.json:
        write_rows(args.json, rows)
    if args.picture:
        name = open_bundle(args.bundle or default_bundle()).name
        draw(rows, f"{name}, {threads} threads; {machine.partition(', load')[0]}", args.picture)
    return 0


if __name__ == "__main__":
    sys.exit(main())
