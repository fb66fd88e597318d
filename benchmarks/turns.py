"""Time class lists and bundles in turns, in one process: how many times as long one takes.

    python -m benchmarks.turns
    python -m benchmarks.turns --bundle "" old/ --backend onnxruntime --json rows.json

Every detector searches the same photograph once a round, so that all of them see the same machine;
the median of the rounds is printed, and its ratio to the first row. 80 classes of the default
bundle are its own; 81 are one more, which takes a second look. Run it on an idle machine.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.latency import class_names
from benchmarks.measure import (
    conditions,
    interleaved,
    markdown,
    percentiles,
    photograph,
    write_rows,
)
from runtime.bundle import default_bundle, open_bundle
from runtime.detector import Detector
from zsd_core.commands import Progress, command, new_parser
from zsd_core.files import prepare_files

__all__ = ["main", "parse"]


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = new_parser("benchmarks.turns", __doc__)
    add = parser.add_argument
    add("image", type=Path, nargs="?", help="default: a packaged photograph, 640 x 480")
    add("--bundle", nargs="+", default=[""], help='directories or zips; "" is the one that ships')
    add("--classes", nargs="+", type=int, default=[80, 81, 1203], metavar="N")
    add("--backend", default="auto", help="of the runtime (%(default)s)")
    add("--precision", default="float32", help="of the networks (%(default)s)")
    add("--threads", type=int, metavar="N", help="default: one per core")
    add("--rounds", type=int, default=50, metavar="N", help="measured (%(default)s)")
    add("--warmup", type=int, default=5, metavar="N", help="rounds before them (%(default)s)")
    add("--json", type=Path, metavar="FILE", help="write the rows here too")
    args = parser.parse_args(argv)
    if args.rounds < 2 or args.warmup < 1 or min(args.classes) < 1:
        parser.error("--rounds must be at least 2, --warmup and --classes at least 1")
    return args


@command
def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; 0 on success, 1 with a sentence on stderr."""
    args = parse(argv)
    prepare_files(args.json)
    image = photograph(args.image)
    with ExitStack() as stack:
        cases: dict[str, tuple[str, int, Detector]] = {}
        for path in args.bundle:
            bundle = open_bundle(Path(path) if path else default_bundle())
            for count in args.classes:
                detector = Detector(
                    bundle,
                    backend=args.backend,
                    precision=args.precision,
                    threads=args.threads,
                    classes=class_names(bundle, count),
                )
                cases[f"{path} {count}"] = (bundle.name, count, stack.enter_context(detector))
        calls: dict[str, Callable[[], Any]] = {k: partial(c[2], image) for k, c in cases.items()}
        progress = stack.enter_context(Progress("calls", (args.rounds + args.warmup) * len(cases)))
        samples = interleaved(
            calls,
            dict.fromkeys(calls, args.rounds),
            warmup=args.warmup,
            done=lambda name: progress.advance(),
        )
        description = f"{next(iter(cases.values()))[2].description}; {conditions()}"
    rows: list[dict[str, Any]] = []
    for name, (bundle_name, count, _) in cases.items():
        times = percentiles(samples[name])
        first = rows[0]["p50_ms"] if rows else times["p50_ms"]
        rows.append(
            {"bundle": bundle_name, "classes": count, **times, "ratio": times["p50_ms"] / first}
        )
    print(f"{args.rounds} rounds, image {image.shape[1]} x {image.shape[0]}; {description}\n")
    digits = {"p50_ms": 1, "p90_ms": 1, "ratio": 2}
    numbers = [
        [row["bundle"], str(row["classes"]), *(f"{row[k]:.{n}f}" for k, n in digits.items())]
        for row in rows
    ]
    print(markdown(["bundle", ">classes", ">median ms", ">p90 ms", ">to the first"], numbers))
    if args.json:
        write_rows(args.json, rows)
    return 0


if __name__ == "__main__":
    sys.exit(main())
