"""Time changes of classes, and what they do to a running stream.

    python -m benchmarks.vocabulary
    python -m benchmarks.vocabulary --bundle paper --calls 100 --frames 3 --json vocabulary.json
    python -m benchmarks.vocabulary --soak 10000

"add one" takes a class into a detector of so many classes, by a name of the vocabulary, by a vector
or, where the bundle has a text encoder, by a phrase that was never asked for; "replace all" sets as
many others. "prepare" computes every word of the vocabulary once, as
``Detector.prepare_vocabulary`` and ``warmup`` do, and "prepared" rows come after it. "frame" is a
call of the detector, alone and while another thread changes the classes all the time. A p99 of
fewer than 100 calls is about the slowest of them. The soak test swaps class sets while frames are
searched and compares every frame, bit for bit, with a detector opened with the set the frame names;
one that is missing or mixed fails the command.
"""

from __future__ import annotations

import argparse
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from itertools import combinations, cycle
from itertools import count as count_up
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.latency import PAPER, bundle_path, class_names
from benchmarks.measure import conditions, markdown, percentiles, photograph, write_rows
from runtime.bundle import open_bundle
from runtime.classes import ClassTable
from runtime.detections import Detections
from runtime.detector import Detector
from runtime.text import TextEncoder
from zsd_core.commands import Progress, command, new_parser
from zsd_core.errors import ConfigError
from zsd_core.scoring import scorer_for

__all__ = ["Row", "Soak", "changes", "main", "parse", "prepared", "soak", "stream", "table"]

CLASSES = (80, 1203)
THRESHOLD = 0.0  # of the soak test: as many detections as there may be in every frame
SETS = 6  # different sets of the soak test, each with and without one class more


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One line of the table."""

    bundle: str
    operation: str
    classes: int
    p50_ms: float
    p90_ms: float
    p99_ms: float
    calls: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Soak:
    """Result of the soak test.

    Attributes:
        swaps: changes of the class set.
        frames: calls of the detector meanwhile; every one is compared.
        versions: different class sets that frames were searched with.
        detections: in all frames together.
        wrong: frames that differ from a detector opened with their set.
        swap_ms: of every change, under load.
    """

    swaps: int
    frames: int
    versions: int
    detections: int
    wrong: int
    swap_ms: list[float]


def changes(detector: Detector, count: int, calls: int) -> list[Row]:
    """Time changes of a detector's classes at ``count`` classes; they are left changed."""
    names = class_names(detector.bundle, count + 1)
    extra = names[count]
    vector = detector.bundle.vocabulary.lookup(extra)
    detector.set_classes(names[:count])

    def remove() -> None:
        detector.remove_classes([extra])

    def add() -> None:
        detector.add_classes([extra])

    def add_vector() -> None:
        detector.add_classes({extra: vector})

    rows = [
        _row(detector, "add one, by name", count, _times(add, calls, remove)),
        _row(detector, "add one, by vector", count, _times(add_vector, calls, remove)),
    ]
    if detector.bundle.text_info:
        phrases = (f"{extra} number {number}" for number in count_up())
        added: list[str] = []

        def add_phrase() -> None:
            added[:] = [next(phrases)]
            detector.add_classes(added)

        times = _times(add_phrase, calls, lambda: detector.remove_classes(added))
        rows.append(_row(detector, "add one, by phrase", count, times))
    add()
    rows.append(_row(detector, "remove one", count, _times(remove, calls, add)))
    remove()
    replacing = _times(_replacing(detector, count), max(3, calls // 10))  # it computes every class
    return [*rows, _row(detector, "replace all", count, replacing)]


def prepared(detector: Detector, counts: Sequence[int], calls: int) -> list[Row]:
    """Time preparing the vocabulary, and changes of the prepared detector."""
    bundle = detector.bundle
    scorer = scorer_for(bundle.model_config.scoring, bundle.scorer_tensors())
    encoder = TextEncoder(bundle)
    times = _times(lambda: ClassTable(bundle, scorer, encoder).prepare(), 3, warmup=1)
    rows = [_row(detector, "prepare the vocabulary", len(bundle.vocabulary), times)]
    detector.prepare_vocabulary()
    for count in counts:
        replacing = _times(_replacing(detector, count), max(3, calls // 10))
        *names, extra = class_names(bundle, count + 1)
        detector.set_classes(names)
        adding = _times(
            partial(detector.add_classes, [extra]), calls, partial(detector.remove_classes, [extra])
        )
        rows += [
            _row(detector, "add one, by name, prepared", count, adding),
            _row(detector, "replace all, prepared", count, replacing),
        ]
    return rows


def _replacing(detector: Detector, count: int) -> Callable[[], None]:
    """A call that sets ``count`` classes, in turns from either end of the known ones."""
    names = class_names(detector.bundle, count + 1)
    sets = cycle([names[:count], names[count:0:-1]])
    return lambda: detector.set_classes(next(sets))


def _times(
    action: Callable[[], object],
    calls: int,
    undo: Callable[[], object] = lambda: None,
    warmup: int = 3,  # the first ones index the vocabulary and grow buffers
) -> list[float]:
    samples = []
    for call in range(calls + warmup):
        start = time.perf_counter()
        action()
        if call >= warmup:
            samples.append(1e3 * (time.perf_counter() - start))
        undo()
    return samples


def _row(detector: Detector, operation: str, classes: int, samples: Sequence[float]) -> Row:
    return Row(
        bundle=detector.bundle.name,
        operation=operation,
        classes=classes,
        calls=len(samples),
        **percentiles(samples),
    )


def stream(detector: Detector, image: NDArray[np.uint8], count: int, calls: int) -> list[Row]:
    """Time frames at ``count`` classes: alone, and while a thread adds and removes one for ever."""
    names = class_names(detector.bundle, count + 1)
    detector.set_classes(names[:count])
    alone = _times(lambda: detector(image), calls, warmup=1)
    changed, stop = threading.Event(), threading.Event()

    def change() -> None:
        while not stop.is_set():
            detector.add_classes([names[count]])
            detector.remove_classes([names[count]])
            changed.set()
            stop.wait(0.01)

    worker = threading.Thread(target=change)
    worker.start()
    changed.wait()
    try:
        version, start = detector.class_set_version, time.perf_counter()
        changing = _times(lambda: detector(image), calls, warmup=1)
        rate = (detector.class_set_version - version) / (time.perf_counter() - start)
    finally:
        stop.set()
        worker.join()
    return [
        _row(detector, "frame, classes at rest", count, alone),
        _row(detector, f"frame, {rate:.0f} changes a second", count, changing),
    ]


def soak(detector: Detector, image: NDArray[np.uint8], swaps: int, count: int = 20) -> Soak:
    """Swap class sets while frames are searched, and compare every frame.

    Args:
        detector: shared by both threads.
        image: what every frame shows; nothing is too unlikely to be found in it.
        swaps: changes of the set: a whole one, then one class added to it, and so on.
        count: classes of a set.

    Raises:
        ConfigError: two sets give the same frame, or nothing is found, so that a mixed frame could
            not be told from a right one.
    """
    names = class_names(detector.bundle, SETS * 3 + count + 1)
    wholes = [names[3 * i : 3 * i + count] for i in range(SETS)]
    sets = [chosen for whole in wholes for chosen in (whole, [*whole, names[-1]])]
    expected = []
    for chosen in sets:
        with Detector(
            detector.bundle, backend=detector.backend, classes=chosen, score_threshold=THRESHOLD
        ) as fresh:
            expected.append(fresh(image))
    if not all(map(len, expected)) or any(_same(a, b) for a, b in combinations(expected, 2)):
        raise ConfigError("soak: the sets' detections do not differ; take another image or bundle.")
    before = detector.limits
    detector.set_thresholds(score_threshold=THRESHOLD)
    detector.set_classes(sets[0])
    chosen_of = {detector.class_set_version: 0}
    times: list[float] = []
    errors: list[BaseException] = []

    def swap() -> None:
        try:
            with Progress("swaps", swaps) as bar:
                for turn in range(1, swaps + 1):
                    index = turn % len(sets)
                    chosen_of[detector.class_set_version + 1] = index  # before a frame can show it
                    start = time.perf_counter()
                    if index % 2:
                        detector.add_classes(names[-1:])
                    else:
                        detector.set_classes(sets[index])
                    times.append(1e3 * (time.perf_counter() - start))
                    bar.advance()
                    time.sleep(0)  # let frames in
        except BaseException as error:  # told to the caller below
            errors.append(error)

    worker = threading.Thread(target=swap)
    frames = wrong = found = 0
    versions = set()
    worker.start()
    try:
        while worker.is_alive() or not frames:
            result = detector(image)
            truth = expected[chosen_of[result.class_set_version]]
            frames, found = frames + 1, found + len(result)
            wrong += not _same(result, truth)
            versions.add(result.class_set_version)
    finally:
        worker.join()
        detector.set_thresholds(score_threshold=before.by_role)
    if errors:
        raise errors[0]
    return Soak(
        swaps=len(times),
        frames=frames,
        versions=len(versions),
        detections=found,
        wrong=wrong,
        swap_ms=times,
    )


def _same(result: Detections, truth: Detections) -> bool:
    return (
        result.class_names == truth.class_names
        and np.array_equal(result.boxes, truth.boxes)
        and np.array_equal(result.scores, truth.scores)
    )


def table(rows: Sequence[Row]) -> str:
    """The rows in Markdown."""
    columns = ("bundle", "operation", ">classes", ">p50 ms", ">p90 ms", ">p99 ms", ">calls")
    return markdown(
        columns,
        [
            [
                row.bundle,
                row.operation,
                str(row.classes),
                f"{row.p50_ms:.3f}",
                f"{row.p90_ms:.3f}",
                f"{row.p99_ms:.3f}",
                str(row.calls),
            ]
            for row in rows
        ],
    )


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = new_parser("benchmarks.vocabulary", __doc__)
    add = parser.add_argument
    add("image", type=Path, nargs="?", help="default: a packaged photograph, 640 x 480")
    add("--bundle", nargs="+", default=[""], help=f"directories or zips, or {PAPER!r}")
    add("--backend", default="auto", help="default: the first there")
    add("--classes", nargs="+", type=int, default=list(CLASSES), metavar="N")
    add("--threads", type=int, metavar="N", help="default: one per core")
    add("--calls", type=int, default=1000, metavar="N", help="changes measured (%(default)s)")
    add(
        "--frames",
        type=int,
        default=50,
        metavar="N",
        help="measured at rest, as many while classes change; 0: none (%(default)s)",
    )
    add("--soak", type=int, default=0, metavar="N", help="swaps of the soak test; default: none")
    add("--json", type=Path, metavar="FILE", help="write all rows here too")
    args = parser.parse_args(argv)
    if args.calls < 2 or args.frames < 0 or args.frames == 1 or args.soak < 0:
        parser.error("--calls and --frames must be at least 2, --soak not negative")
    return args


@command
def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; 0 on success, 1 with a sentence on stderr."""
    args = parse(argv)
    rows: list[Row] = []
    lines: list[str] = []
    wrong = 0
    image = photograph(args.image)
    for name in args.bundle:
        with (
            bundle_path(name) as path,
            Detector(open_bundle(path), backend=args.backend, threads=args.threads) as detector,
        ):
            lines.append(f"{detector.description}; {conditions()}")
            for count in args.classes:
                print(f"{detector.bundle.name}, {count} classes ...", file=sys.stderr)
                rows += changes(detector, count, args.calls)
                if args.frames:
                    rows += stream(detector, image, count, args.frames)
            if args.soak:
                result = soak(detector, image, args.soak)
                wrong += result.wrong
                lines.append(_verdict(result))
                rows.append(_row(detector, "swap under load (soak)", 20, result.swap_ms))
            rows += prepared(detector, args.classes, args.calls)
    if args.json:
        write_rows(args.json, [asdict(row) for row in rows])
    print("\n".join(lines))
    print(f"\n{table(rows)}")
    if wrong:
        print(
            f"error: {wrong} frames differ from a detector opened with their set", file=sys.stderr
        )
    return int(wrong > 0)


def _verdict(result: Soak) -> str:
    shown = {k: v for k, v in asdict(result).items() if k != "swap_ms"}
    return "soak: " + ", ".join(f"{value} {name}" for name, value in shown.items())


if __name__ == "__main__":
    sys.exit(main())
