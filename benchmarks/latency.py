"""How long a detector takes per image, stage by stage, and what it takes to run.

    python -m benchmarks.latency
    python -m benchmarks.latency --backend onnxruntime openvino --batch 1 8 --classes 80 1203
    python -m benchmarks.latency --json new.json --against old.json
    python -m benchmarks.latency --curves curves.png

Every combination of the options runs in a process of its own: it is opened, searches one image
("first", with opening apart), warms up, and is measured. Wall clock, milliseconds per call; a
call is one batch. "Memory" is the peak of the process, Python included. Seen classes are scored
whether they are asked for or not, because the softmax runs over them. ``--bundle paper`` is the
paper-sized model with random weights. Run it on an idle machine.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
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

if not __package__:  # run as a file
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

import numpy as np
from numpy.typing import NDArray

from benchmarks.measure import (
    Energy,
    conditions,
    markdown,
    percentiles,
    photograph,
    resident_mb,
    write_rows,
)
from runtime.backends import installed_backends
from runtime.bundle import PRECISIONS, Bundle, default_bundle, open_bundle
from runtime.detector import Detector
from zsd_core.config import ModelConfig
from zsd_core.errors import ConfigError, DeviceError, ZsdError
from zsd_core.files import prepare_files
from zsd_core.pipeline import STAGES
from zsd_core.progress import Progress
from zsd_core.semantics import fold_name

__all__ = [
    "Case", "bundle_path", "class_names", "compare", "grid", "main", "measure", "parse",
    "read_rows", "sweeps", "table",
]  # fmt: skip

PAPER = "paper"
CLASSES = (4, 80, 1203)
SWEEPS = {"classes": (4, 20, 80, 300, 1203), "proposals": (25, 50, 100, 300), "batch": (1, 2, 4, 8)}


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
        bundle, backend=case.backend, precision=case.precision, threads=case.threads,
        classes=class_names(bundle, case.classes), scoring_precision=_scoring(case.precision),
    )  # fmt: skip
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


def _scoring(precision: str) -> str:
    return "int8" if precision == "int8" else "float32"


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
            cases.append(Case(
                bundle=str(path), backend=backend, precision=precision, batch=batch, size=size,
                classes=classes, proposals=proposals, threads=args.threads,
            ))  # fmt: skip
    return cases


def sweeps(base: Case) -> dict[str, list[Case]]:
    """Cases that differ from ``base`` in one number only, for the curves."""
    return {
        axis: [Case(**{**dataclasses.asdict(base), axis: value}) for value in values]
        for axis, values in SWEEPS.items()
    }


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Two Markdown tables: whole calls, and the medians of their stages."""
    names = ["bundle", "backend", "precision", ">batch", ">size", ">classes", ">proposals"]
    keys = [[str(row[name.removeprefix(">")]) for name in names] for row in rows]
    whole = [
        [
            *key, *(f"{value:.2f}" for value in row["stages"]["whole call"].values()),
            f"{row['images_per_s']:.1f}", _number(row["peak_mb"], ".0f"),
            f"{row['open_ms']:.0f}", f"{row['first_ms']:.0f}",
            _number(row["joules_per_image"], ".2f"), str(row["detections"]), str(row["calls"]),
        ]
        for key, row in zip(keys, rows, strict=True)
    ]  # fmt: skip
    stages = [
        [*key, *(_stage(row["stages"][name]) for name in STAGES)]
        for key, row in zip(keys, rows, strict=True)
    ]
    columns = (
        ">p50 ms", ">p90 ms", ">p99 ms", ">images/s", ">memory MB", ">open ms", ">first ms",
        ">J/image", ">found", ">calls",
    )  # fmt: skip
    return "\n\n".join((
        markdown([*names, *columns], whole),
        "Stages, p50 / p90 / p99 ms:",
        markdown([*names, *(f">{name}" for name in STAGES)], stages),
    ))  # fmt: skip


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
    """What ``--json`` wrote.

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


@contextmanager
def bundle_path(name: str) -> Iterator[Path]:
    """Path of a bundle; "" is the one that ships, "paper" is made and removed again."""
    if name != PAPER:
        yield Path(name) if name else default_bundle()
        return
    from benchmarks.paper import paper_model, write_paper_bundle

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
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.latency", description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
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
    add("--curves", type=Path, metavar="FILE", help="draw time against classes, proposals, batch")
    args = parser.parse_args(argv)
    if args.calls < 2 or args.warmup < 0 or not args.seconds >= 0:
        parser.error("--calls must be at least 2, --warmup and --seconds not negative")
    if args.curves and len(args.bundle) > 1:
        parser.error("--curves draws one bundle; name one")
    numbers = (*args.batch, *args.classes, *args.size, *args.proposals)
    if any(number is not None and number < 1 for number in numbers):
        parser.error("--batch, --classes, --size and --proposals must be at least 1")
    if not args.backend:
        args.backend = [b for b in installed_backends() if not b.startswith("tensorrt")]
    return args


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; 0 on success, 1 with a sentence on stderr."""
    args = parse(argv)
    rows: list[dict[str, Any]] = []
    try:
        prepare_files(args.json, args.curves)
        others = read_rows(args.against) if args.against else []
        image = photograph(args.image)
        try:
            for name in args.bundle:
                with bundle_path(name) as path:
                    cases = grid(args, [path])
                    rows.extend(_measured(cases, image, args, "configurations"))
                    if args.curves:
                        _draw(cases[0], image, args)
        finally:  # what was measured before an error is not lost
            if rows:
                _report(rows, image, args)
        if args.against:
            print(f"\n{compare(rows, others)}")
    except (ZsdError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def _report(
    rows: Sequence[Mapping[str, Any]], image: NDArray[np.uint8], args: argparse.Namespace
) -> None:
    print(f"{args.warmup} calls to warm up, image {image.shape[1]} x {image.shape[0]}")
    print("\n".join(dict.fromkeys(row["conditions"] for row in rows)))
    print(f"\n{table(rows)}")
    if args.json:
        write_rows(args.json, rows)


def _draw(first: Case, image: NDArray[np.uint8], args: argparse.Namespace) -> None:
    from benchmarks.curves import draw_curves

    base = dataclasses.replace(first, classes=80, batch=1, proposals=None)
    measured = {
        axis: list(_measured(cases, image, args, f"curve over {axis}"))
        for axis, cases in sweeps(base).items()
    }
    draw_curves(measured, args.curves)


if __name__ == "__main__":
    sys.exit(main())
