"""Time a detector per image, stage by stage, with its memory and energy.

    python -m benchmarks.latency
    python -m benchmarks.latency --backend onnxruntime openvino --batch 1 8 --classes 80 1203
    python -m benchmarks.latency --json new.json --against old.json

Every combination of the options runs in a process of its own: it is opened, searches one image
("first", with opening apart), warms up, and is measured. Wall clock, milliseconds per call; a
call is one batch. "Memory" is the peak of the process, Python included. Seen classes are scored
whether they are asked for or not, because the softmax runs over them. ``--bundle paper`` is the
paper-sized model with random weights. Run it on an idle machine.
"""

from __future__ import annotations

import argparse
import dataclasses
import multiprocessing
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.latency_table import Case, compare, read_rows, table
from benchmarks.measure import (
    Energy,
    conditions,
    percentiles,
    photograph,
    resident_mb,
    write_rows,
)
from runtime.backends import installed_backends
from runtime.bundle import PRECISIONS, Bundle, default_bundle, open_bundle
from runtime.detector import Detector
from zsd_core.commands import Progress, command, new_parser
from zsd_core.config import ModelConfig
from zsd_core.errors import ConfigError, DeviceError
from zsd_core.files import prepare_files
from zsd_core.semantics import fold_name
from zsd_core.stages import STAGES

__all__ = ["bundle_path", "class_names", "grid", "main", "measure", "parse"]

PAPER = "paper"
CLASSES = (4, 80, 1203)


def measure(
    case: Case, image: NDArray[np.uint8], calls: int, warmup: int, seconds: float = 60.0
) -> dict[str, Any]:
    """Open the detector of a case in this process and time it; one row of the table.

    Args:
        case: what to run.
        image: ``(H, W, 3)`` RGB; a batch repeats it.
        calls: to measure.
        warmup: calls before them.
        seconds: stop early after as long, with at least five calls.
    """
    bundle = open_bundle(case.bundle)
    bundle.model_config = config = _changed(bundle.model_config, case.size, case.proposals)
    images = [image] * case.batch
    start = time.perf_counter()
    detector = Detector(
        bundle,
        backend=case.backend,
        precision=case.precision,
        threads=case.threads,
        classes=class_names(bundle, case.classes),
        scoring_precision="int8" if case.precision == "int8" else "float32",
    )
    opened = time.perf_counter()
    detector(images, max_batch=case.batch)
    first = time.perf_counter()
    for _ in range(warmup):
        detector(images, max_batch=case.batch)
    samples: dict[str, list[float]] = {name: [] for name in (*STAGES, "whole call")}
    energy, began, found = Energy(), time.perf_counter(), 0
    for call in range(calls):
        if call >= 5 and time.perf_counter() - began > seconds:
            break
        before = time.perf_counter()
        results = detector(images, max_batch=case.batch)
        samples["whole call"].append(1e3 * (time.perf_counter() - before))
        for name in STAGES:
            samples[name].append(sum(result.times_ms[name] for result in results))
        found = len(results[0])
    joules, count = energy.joules(), len(samples["whole call"])
    median = percentiles(samples["whole call"])["p50_ms"]
    return {
        **dataclasses.asdict(case),
        "bundle": bundle.name,
        "size": config.preprocess.shorter_edge,
        "proposals": config.proposals.post_nms_top,
        "image": list(image.shape[:2]),
        "stages": {name: percentiles(values) for name, values in samples.items()},
        "images_per_s": 1e3 * case.batch / median,
        "open_ms": 1e3 * (opened - start),
        "first_ms": 1e3 * (first - opened),
        "peak_mb": resident_mb("VmHWM") if sys.platform == "linux" else None,
        "joules_per_image": None if joules is None else joules / (count * case.batch),
        "detections": found,
        "calls": count,
        "warmup": warmup,
        "conditions": f"{detector.description}; {conditions()}",
    }


def class_names(bundle: Bundle, count: int) -> list[str]:
    """The bundle's unseen classes, its seen ones, then words of its vocabulary.

    Raises:
        ConfigError: the bundle does not know as many.
    """
    table = (*bundle.unseen, *bundle.seen)
    known = {fold_name(name) for name in table}
    names = [*table, *(n for n in bundle.vocabulary.names if fold_name(n) not in known)]
    if len(names) < count:
        raise ConfigError(f"bundle {bundle.name!r} knows {len(names)} names, {count} are wanted.")
    return names[:count]


def _changed(config: ModelConfig, size: int | None, proposals: int | None) -> ModelConfig:
    preprocess, regions = config.preprocess, config.proposals
    if size is not None:
        longer = round(preprocess.longer_edge * size / preprocess.shorter_edge)
        preprocess = dataclasses.replace(preprocess, shorter_edge=size, longer_edge=longer)
    if proposals is not None:
        before = max(proposals, regions.pre_nms_top)
        regions = dataclasses.replace(regions, post_nms_top=proposals, pre_nms_top=before)
    return dataclasses.replace(config, preprocess=preprocess, proposals=regions)


def grid(args: argparse.Namespace, bundles: Sequence[Path]) -> list[Case]:
    """Every combination of the options; precisions that a bundle does not hold are left out."""
    cases = []
    for path in bundles:
        held = ("float32", *open_bundle(path).manifest.get("precisions", {}))
        precisions = args.precision or [p for p in held if p != "fp16"]  # no CPU computes in it
        for backend, precision, batch, size, classes, proposals in product(
            args.backend, precisions, args.batch, args.size, args.classes, args.proposals
        ):
            cases.append(
                Case(
                    bundle=str(path),
                    backend=backend,
                    precision=precision,
                    batch=batch,
                    size=size,
                    classes=classes,
                    proposals=proposals,
                    threads=args.threads,
                )
            )
    return cases


@contextmanager
def bundle_path(name: str) -> Iterator[Path]:
    """Path of a bundle; "" is the one that ships, "paper" is made and removed again."""
    if name != PAPER:
        yield Path(name) if name else default_bundle()
        return
    from benchmarks.paper.model import paper_model, write_paper_bundle

    work = Path(tempfile.mkdtemp(prefix="contrastzsd-"))
    try:
        print("making the paper-sized bundle ...", file=sys.stderr)
        write_paper_bundle(work / PAPER, paper_model())
        yield work / PAPER
    finally:
        shutil.rmtree(work)


def _measured(
    cases: Sequence[Case], image: NDArray[np.uint8], args: argparse.Namespace, title: str
) -> Iterator[dict[str, Any]]:
    """The row of each case, from a fresh process, so that first calls and memory are its own."""
    context = multiprocessing.get_context("spawn")
    with Progress(title, len(cases)) as bar:
        for case in cases:
            with ProcessPoolExecutor(1, context) as pool:
                work = pool.submit(measure, case, image, args.calls, args.warmup, args.seconds)
                try:
                    row = work.result()
                except BrokenProcessPool as error:
                    raise DeviceError(
                        f"the process of {case} died, perhaps for want of memory; "
                        "leave this case out."
                    ) from error
            bar.advance(values={"p50 ms": f"{row['stages']['whole call']['p50_ms']:.1f}"})
            yield row


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = new_parser("benchmarks.latency", __doc__)
    add = parser.add_argument
    add("image", type=Path, nargs="?", help="default: a packaged photograph, 640 x 480")
    add("--bundle", nargs="+", default=[""], help=f"directories or zips, or {PAPER!r}")
    add("--backend", nargs="+", help="default: those installed that run on a CPU")
    add(
        "--precision",
        nargs="+",
        choices=PRECISIONS,
        help="default: float32, and int8 where the bundle holds it",
    )
    add("--batch", nargs="+", type=int, default=[1], metavar="N")
    add("--size", nargs="+", type=int, default=[None], metavar="N", help="shorter edge")
    add("--classes", nargs="+", type=int, default=list(CLASSES), metavar="N")
    add("--proposals", nargs="+", type=int, default=[None], metavar="N")
    add("--threads", type=int, metavar="N", help="default: one per core")
    add("--calls", type=int, default=50, metavar="N", help="measured calls (%(default)s)")
    add("--warmup", type=int, default=5, metavar="N", help="calls before them (%(default)s)")
    add("--seconds", type=float, default=20, metavar="S", help="most of a case (%(default)s)")
    add("--json", type=Path, metavar="FILE", help="write all rows here too")
    add("--against", type=Path, metavar="FILE", help="pair with the rows an earlier --json wrote")
    args = parser.parse_args(argv)
    if args.calls < 2 or args.warmup < 0 or not args.seconds >= 0:
        parser.error("--calls must be at least 2, --warmup and --seconds not negative")
    numbers = (*args.batch, *args.classes, *args.size, *args.proposals)
    if any(number is not None and number < 1 for number in numbers):
        parser.error("--batch, --classes, --size and --proposals must be at least 1")
    if not args.backend:
        args.backend = [b for b in installed_backends() if not b.startswith("tensorrt")]
    return args


@command
def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; 0 on success, 1 with a sentence on stderr."""
    args = parse(argv)
    rows: list[dict[str, Any]] = []
    prepare_files(args.json)
    others = read_rows(args.against) if args.against else []
    image = photograph(args.image)
    try:
        for name in args.bundle:
            with bundle_path(name) as path:
                cases = grid(args, [path])
                rows.extend(_measured(cases, image, args, "configurations"))
    finally:  # what was measured before an error is not lost
        if rows:
            _report(rows, image, args)
    if args.against:
        print(f"\n{compare(rows, others)}")
    return 0


def _report(
    rows: Sequence[Mapping[str, Any]], image: NDArray[np.uint8], args: argparse.Namespace
) -> None:
    print(f"{args.warmup} calls to warm up, image {image.shape[1]} x {image.shape[0]}")
    print("\n".join(dict.fromkeys(row["conditions"] for row in rows)))
    print(f"\n{table(rows)}")
    if args.json:
        write_rows(args.json, rows)


if __name__ == "__main__":
    sys.exit(main())
