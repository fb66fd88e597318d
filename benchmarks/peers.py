"""Side by side with what people would use instead: same images, same threads, calls in turns.

    python -m benchmarks.peers
    python -m benchmarks.peers --json peers.json --only shipped yolo
    python -m benchmarks.peers --femto deimv2.onnx --annotations instances.json --images photos/

Peers run as their users run them on a CPU: ``pip install 'contrastzsd[peers]'`` (torchvision
BSD-3-Clause, transformers Apache-2.0, ultralytics AGPL-3.0). Nothing is downloaded: these peers
have their package's own configuration and RANDOM weights, and so has our paper-sized model, so this
is about time alone; few boxes then reach a peer's last NMS, to the peer's advantage. Text encoders
read made-up tokens, as many as the names of COCO have. The shipped bundle runs as its manifest
says. ``--femto FILE`` adds a peer with its real weights, the detector that the shipped bundle is
made of, and ``--annotations`` with ``--images`` the accuracy of both on the same photographs.

Before every turn all models' threads get time to rest, and PyTorch the threads asked for: idle
workers of one library would take a core from the next, and ultralytics leaves PyTorch with one
thread less than there are cores, for everything in the process. A turn is two calls, and the second
is timed: the first brings the model's weights into the caches, as the frame before does in a video.

The process keeps the memory it frees, to the advantage of what runs in PyTorch;
``--allocator default`` leaves that to the C library, as a plain script does.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.measure import (
    conditions,
    interleaved,
    keep_memory,
    markdown,
    percentiles,
    write_rows,
)
from benchmarks.peers_given import FEMTO, accuracies, femto_group
from benchmarks.peers_models import (
    DINO,
    EAGER,
    GROUPS,
    OWL,
    PAPER,
    SHIPPED,
    YOLO_WORLD,
    Entry,
    photographs,
)
from zsd_core import kernels
from zsd_core.commands import Progress, Steps, command, new_parser
from zsd_core.errors import require
from zsd_core.files import prepare_files
from zsd_core.learning.data.read import read_dataset

__all__ = ["BARS", "Bar", "Row", "judge", "main", "parse", "rows_of", "settle", "table"]

REST = 0.1  # seconds; longer than ONNX Runtime's idle workers wait busily


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One line of the table; ``accuracy`` is mAP@0.5 in percent, None where it is not measured."""

    model: str
    backend: str
    precision: str
    task: str
    p50_ms: float
    p90_ms: float
    p99_ms: float
    calls: int
    accuracy: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Bar:
    """Required speed of one model relative to another, by the medians of one run.

    The fastest row of ``ours`` counts, and of every model in ``theirs`` its fastest row.
    """

    ours: str
    precision: str
    task: str
    theirs: tuple[str, ...]
    factor: float


BARS = (
    Bar(ours=SHIPPED, precision="float32", task="detect", theirs=(YOLO_WORLD,), factor=5),
    Bar(ours=SHIPPED, precision="int8", task="detect", theirs=(YOLO_WORLD,), factor=8),
    Bar(ours=SHIPPED, precision="float32", task="detect", theirs=(OWL,), factor=100),
    Bar(ours=SHIPPED, precision="float32", task="detect", theirs=(FEMTO,), factor=0.8),
    Bar(ours=PAPER, precision="float32", task="detect", theirs=(EAGER,), factor=2.2),
    Bar(ours=PAPER, precision="int8", task="detect", theirs=(EAGER,), factor=5),
    Bar(
        ours=SHIPPED,
        precision="float32",
        task="set_classes",
        theirs=(YOLO_WORLD, OWL, DINO),
        factor=500,
    ),
)


def rows_of(
    entries: Sequence[Entry],
    calls: int,
    before: Callable[[], Any] = lambda: None,
    between: Callable[[], Any] = lambda: None,
) -> list[Row]:
    """Time all entries in turns; at least three calls of each, after one that warms up.

    Right before every call there is another one that is not timed.

    Args:
        entries: to time.
        calls: of the fastest.
        before: these two calls, outside of their time.
        between: these two calls, likewise.
    """
    counts = {entry.name: max(3, round(calls * entry.share)) for entry in entries}
    with Progress("calls", sum(counts.values()) + len(entries)) as bar:
        samples = interleaved(
            {entry.name: entry.call for entry in entries},
            counts,
            before=before,
            between=between,
            done=lambda name: bar.advance(values={"now": name}),
        )
    return [
        Row(
            model=entry.model,
            backend=entry.backend,
            precision=entry.precision,
            task=entry.task,
            calls=counts[entry.name],
            **percentiles(samples[entry.name]),
        )
        for entry in entries
    ]


def settle(torch: Any, threads: int) -> None:
    """Undo what the model before left: busy workers, another thread count."""
    torch.set_num_threads(threads)
    time.sleep(REST)


def judge(rows: Sequence[Row], bars: Sequence[Bar] = BARS) -> list[str]:
    """A sentence per bar and model it is about: met, missed, or not measured."""
    lines = []
    for bar in bars:
        ours = _fastest(rows, bar.ours, bar.task, bar.precision)
        for theirs in bar.theirs:
            other = _fastest(rows, theirs, bar.task, None)
            what = f"{bar.task}: {bar.ours}, {bar.precision}, against {theirs}"
            if ours is None or other is None:
                missing = f"{bar.ours} in {bar.precision}" if ours is None else theirs
                lines.append(f"{what}: not measured, {missing} is not in this run")
                continue
            factor = other.p50_ms / ours.p50_ms
            verdict = "met" if factor >= bar.factor else "MISSED"
            lines.append(
                f"{what}: {factor:.2f} times as fast (bar {bar.factor:g}): {verdict}, "
                f"{ours.p50_ms:.2f} ms on {ours.backend}, {other.p50_ms:.2f} ms on {other.backend}"
            )
    return lines


def _fastest(rows: Sequence[Row], model: str, task: str, precision: str | None) -> Row | None:
    found = [
        row
        for row in rows
        if row.model == model and row.task == task and precision in (None, row.precision)
    ]
    return min(found, key=lambda row: row.p50_ms, default=None)


def table(rows: Sequence[Row]) -> str:
    """The rows in Markdown, by task and median."""
    columns = (
        "task",
        "model",
        "backend",
        "precision",
        ">p50 ms",
        ">p90 ms",
        ">p99 ms",
        ">calls",
        ">mAP@0.5",
    )
    return markdown(
        columns,
        [
            [
                row.task,
                row.model,
                row.backend,
                row.precision,
                f"{row.p50_ms:.2f}",
                f"{row.p90_ms:.2f}",
                f"{row.p99_ms:.2f}",
                str(row.calls),
                "" if row.accuracy is None else f"{row.accuracy:.1f} %",
            ]
            for row in sorted(rows, key=lambda row: (row.task, row.p50_ms))
        ],
    )


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = new_parser("benchmarks.peers", __doc__)
    add = parser.add_argument
    add("--only", nargs="+", choices=tuple(GROUPS), default=list(GROUPS), help="default: all")
    add("--threads", type=int, metavar="N", help="of everything; default: one per core")
    add(
        "--calls",
        type=int,
        default=30,
        metavar="N",
        help="of the fastest; slow models take fewer, at least 3 (%(default)s)",
    )
    add(
        "--allocator",
        choices=("kept", "default"),
        default="kept",
        help="keep freed memory, or do as the C library does (%(default)s)",
    )
    add("--femto", type=Path, metavar="FILE", help="DEIMv2-Femto as its authors wrote it")
    add("--annotations", type=Path, metavar="FILE", help="of --images: measure accuracy too")
    add("--images", type=Path, metavar="DIR", help="photographs with people's boxes")
    add("--subset", metavar="NAME", help="of these photographs, such as 'test'")
    add("--json", type=Path, metavar="FILE", help="write the rows here too")
    args = parser.parse_args(argv)
    args.only = list(dict.fromkeys(args.only))
    if args.calls < 3:
        parser.error("--calls must be at least 3")
    if (args.annotations is None) != (args.images is None) or (args.images and not args.femto):
        parser.error("--annotations and --images belong together, with --femto")
    return args


@command
def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; 0 on success, 1 with a sentence on stderr."""
    args = parse(argv)
    threads, step = args.threads or os.cpu_count() or 1, Steps(len(args.only) + bool(args.femto))
    work = Path(tempfile.mkdtemp(prefix="contrastzsd-"))
    kept = args.allocator == "kept" and keep_memory()
    try:
        prepare_files(args.json)
        kernels.set_threads(threads)
        torch, images = require("torch", "train"), photographs()
        torch.set_num_threads(threads)
        torch.manual_seed(0)
        entries: list[Entry] = []
        groups = {name: GROUPS[name] for name in args.only}
        if args.femto:
            groups["femto"] = femto_group(args.femto)
        for name, make in groups.items():
            with step(f"make {name}"):
                entries += make(images, threads, work)
        rows = rows_of(
            entries,
            args.calls,
            partial(settle, torch, threads),
            partial(torch.set_num_threads, threads),
        )
        if args.images:
            dataset = read_dataset(
                "coco", [str(args.annotations)], [str(args.images)], args.subset or ""
            )
            rows = _with_accuracy(rows, accuracies(args.femto, dataset, threads))
        if args.json:
            write_rows(args.json, [asdict(row) for row in rows])
    finally:
        shutil.rmtree(work, ignore_errors=True)
    print(
        f"{conditions()}; {_versions()}; {threads} threads; images 640 x 480, in turns; "
        f"freed memory {'kept' if kept else 'left to the C library'}\n"
    )
    print(table(rows))
    print("\nRandom weights where no mAP@0.5 stands: times only. The models differ in accuracy and")
    print("training data; see each one's own report.\n")
    print("\n".join(judge(rows)))
    return 0


def _with_accuracy(rows: Sequence[Row], values: Mapping[str, float]) -> list[Row]:
    """The rows, with the accuracy of the float32 networks that were asked."""
    return [
        replace(row, accuracy=values.get(row.model))
        if (row.task, row.precision) == ("detect", "float32")
        else row
        for row in rows
    ]


def _versions() -> str:
    names: Mapping[str, str] = {
        name: sys.modules[name].__version__
        for name in ("torch", "torchvision", "ultralytics", "transformers", "onnxruntime")
        if name in sys.modules
    }
    return ", ".join(f"{name} {version}" for name, version in names.items())


if __name__ == "__main__":
    sys.exit(main())
