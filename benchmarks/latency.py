"""How long a detector takes per image, stage by stage, and how long a change of its classes.

    python -m benchmarks.latency photo.jpg
    python -m benchmarks.latency photo.jpg --bundle bundle/ --calls 200 --threads 2

Percentiles over calls after warm-up, wall clock, milliseconds. Run it on an idle machine. "classes
+1" takes a class that is already known to the vocabulary into the running detector.
"""

from __future__ import annotations

import argparse
import os
import platform
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import quantiles

import numpy as np

from runtime.detector import Detector
from zsd_core import kernels
from zsd_core.errors import ConfigError, ZsdError
from zsd_core.pipeline import STAGES

__all__ = ["class_change_ms", "conditions", "main", "parse", "stage_ms", "table"]


def stage_ms(detector: Detector, image: str | Path, calls: int) -> dict[str, list[float]]:
    """Milliseconds of every stage, and of the whole call with reading the file, per call."""
    samples: dict[str, list[float]] = {name: [] for name in (*STAGES, "whole call")}
    for _ in range(calls):
        start = time.perf_counter()
        detections = detector(image)
        samples["whole call"].append(1e3 * (time.perf_counter() - start))
        for name, value in detections.times_ms.items():
            samples[name].append(value)
    return {name: values for name, values in samples.items() if values}


def class_change_ms(detector: Detector, calls: int) -> dict[str, list[float]]:
    """Milliseconds of adding one class and of removing it again, per call.

    Raises:
        ConfigError: the vocabulary holds no name that is not active already.
    """
    active = set(detector.classes) | set(detector.bundle.seen) | set(detector.bundle.unseen)
    name = next((n for n in detector.bundle.vocabulary.names if n not in active), None)
    if name is None:
        raise ConfigError("the bundle's vocabulary holds no further class to add; use another.")
    added, removed = [], []
    for _ in range(calls):
        start = time.perf_counter()
        detector.add_classes([name])
        middle = time.perf_counter()
        detector.remove_classes([name])
        added.append(1e3 * (middle - start))
        removed.append(1e3 * (time.perf_counter() - middle))
    return {"classes +1": added, "classes -1": removed}


def table(samples: Mapping[str, Sequence[float]]) -> str:
    """A Markdown table of percentiles, one line per name."""
    lines = [
        "| stage | p50 ms | p90 ms | p99 ms | calls |",
        "| --- | ---: | ---: | ---: | ---: |",
    ]
    for name, values in samples.items():
        cuts = quantiles(values, n=100, method="inclusive")
        numbers = " | ".join(f"{cuts[p - 1]:.3f}" for p in (50, 90, 99))
        lines.append(f"| {name} | {numbers} | {len(values)} |")
    return "\n".join(lines)


def conditions(detector: Detector) -> str:
    """What the numbers depend on, in one paragraph."""
    built = ", ".join(f"{key} {value}" for key, value in kernels.build_info().items())
    return (
        f"{detector.description}; {len(detector.classes)} classes; kernels: {built}; "
        f"numpy {np.__version__}; Python {platform.python_version()}; "
        f"{platform.machine()}, {os.cpu_count()} cores"
    )


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.latency",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("image", type=Path, help="a photograph")
    add("--bundle", type=Path, help="directory or zip; default: the bundle that ships")
    add("--backend", default="auto", help="default: the first there")
    add("--precision", default="float32", help="of the networks: float32, fp16 or int8")
    add("--threads", type=int, metavar="N", help="CPU threads; default: all cores")
    add("--calls", type=int, default=100, metavar="N", help="measured calls; default: 100")
    add("--warmup", type=int, default=10, metavar="N", help="calls before them; default: 10")
    args = parser.parse_args(argv)
    if args.calls < 2 or args.warmup < 0:
        parser.error("--calls must be at least 2 and --warmup not negative")
    return args


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; 0 on success, 1 with a sentence on stderr."""
    args = parse(argv)
    try:
        detector = Detector(
            args.bundle, backend=args.backend, precision=args.precision, threads=args.threads
        )
        print(f"{args.warmup} calls to warm up, {args.calls} measured ...", file=sys.stderr)
        for _ in range(args.warmup):
            detector(args.image)
        samples = stage_ms(detector, args.image, args.calls)
        samples |= class_change_ms(detector, args.calls)
    except ZsdError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(table(samples))
    print(f"\n{conditions(detector)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
