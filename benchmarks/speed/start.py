"""Opening, the first image, memory, and changes of classes."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from statistics import median

import numpy as np

from benchmarks.latency import class_names
from benchmarks.measure import photograph
from benchmarks.speed.rows import Bar, Group, Row, Settings, in_turns
from benchmarks.vocabulary import changes
from runtime.detector import Detector
from runtime.examples import Example
from zsd_core.errors import ZsdError

__all__ = ["GROUPS"]

PROCESSES = 7
CALLS = 200
FRESH = """
import json, sys, time
import numpy
from benchmarks.measure import resident_mb
threads, image = int(sys.argv[1]), numpy.load(sys.argv[2])
began = time.perf_counter()
from runtime import Detector
imported = time.perf_counter()
detector = Detector(threads=threads)
opened = time.perf_counter()
detector(image)
first = time.perf_counter()
for _ in range(10):
    detector(image)
times = [imported - began, opened - imported, first - opened]
print(json.dumps([*(1e3 * t for t in times), resident_mb("VmHWM")]))
"""


def _opening(bars: Sequence[Bar], settings: Settings) -> list[Row]:
    """Opening, the first image and the peak of memory, in processes of their own."""
    runs = []
    with tempfile.TemporaryDirectory(prefix="contrastzsd-") as work:
        path = f"{work}/image.npy"
        np.save(path, photograph())
        for _ in range(PROCESSES + 1):
            command = [sys.executable, "-c", FRESH, str(settings.threads), path]
            done = subprocess.run(command, capture_output=True, text=True)
            if done.returncode:
                raise ZsdError(f"a fresh process failed: {done.stderr.strip().splitlines()[-1]}")
            runs.append(json.loads(done.stdout.splitlines()[-1]))
    imported, opened, first, memory = (median(values) for values in zip(*runs[1:], strict=True))
    note = f"medians of {PROCESSES} processes; memory is the peak of the process, Python included"
    medians = {"import": imported, "opening": opened, "first image": first}
    return [
        Row(bar=bar, measured=value, medians=medians, note=note)
        for bar, value in zip(bars, (first, opened, memory), strict=True)
    ]


def _changes(bars: Sequence[Bar], settings: Settings) -> list[Row]:
    """A phrase and a name that are added, and a class of three examples."""
    image = photograph()
    height, width = image.shape[:2]
    boxes = ((0, 0, width / 2, height / 2), (width / 3, 0, width, height), (0, 90, width, 300))
    shown = {"bracket": [Example(image, box) for box in boxes]}
    with Detector(threads=settings.threads) as detector, Detector(threads=settings.threads) as own:

        def learn() -> None:
            own.add_classes(shown)
            own.remove_classes(["bracket"])

        three = in_turns({"three examples": learn, "an image": lambda: detector(image)}, 30)
        few = {row.operation: row for row in changes(detector, 80, CALLS)}
        many = {row.operation: row for row in changes(detector, len(_many(detector)), CALLS)}
    phrase, name = few["add one, by phrase"].p50_ms, many["add one, by name"]
    return [
        Row(bar=bars[0], measured=phrase, medians={"a phrase": phrase}),
        Row(
            bar=bars[1],
            measured=three["three examples"] / three["an image"],
            medians=three,
        ),
        Row(
            bar=bars[2],
            measured=name.p99_ms,
            medians={"a name": name.p50_ms, "p99": name.p99_ms},
        ),
    ]


def _many(detector: Detector) -> list[str]:
    return class_names(detector.bundle, 1203)


GROUPS = [
    Group(
        name="opening",
        bars=[
            Bar(what="first image after opening", asked=120, at_most=True, unit="ms"),
            Bar(what="opening", asked=200, at_most=True, unit="ms"),
            Bar(what="peak memory", asked=200, at_most=True, unit="MB"),
        ],
        run=_opening,
    ),
    Group(
        name="changes",
        bars=[
            Bar(what="adding a phrase", asked=15, at_most=True, unit="ms"),
            Bar(what="adding three examples, over an image", asked=3, at_most=True),
            Bar(what="adding a name at 1,203 classes, p99", asked=1, at_most=True, unit="ms"),
        ],
        run=_changes,
    ),
]
