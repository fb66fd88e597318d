"""Classes and limits that change while many threads search with one detector."""

from __future__ import annotations

import random
import tempfile
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from benchmarks.measure import resident_mb
from benchmarks.trust.small import helper
from benchmarks.trust.table import Advance, Part, Result
from runtime.detections import Detections
from runtime.detector import Detector

__all__ = ["PARTS", "classes"]

SEARCHERS, CHANGERS = 8, 2
SETS = (
    ("person", "cat", "zebra"),
    ("cup", "truck"),
    ("zebra", "person", "fire truck", "cat"),
    ("dining table", "cup", "zebra"),
)


def classes(budget: float, seed: int, advance: Advance) -> Result:
    """Change the classes ``budget`` times; every result must be that of one class set."""
    rng = np.random.default_rng(seed)
    images = [rng.integers(0, 256, (60 + 8 * i, 90, 3), np.uint8) for i in range(3)]
    with tempfile.TemporaryDirectory(prefix="trust-") as folder:
        bundle = helper("tiny").tiny_bundle(Path(folder) / "bundle")
        expected = [[_alone(bundle, names, image) for image in images] for names in SETS]
        with Detector(bundle, backend="onnxruntime", threads=1, score_threshold=0.0) as detector:
            return _change(detector, images, expected, int(budget), seed, advance)


def _alone(bundle: Path, names: tuple[str, ...], image: np.ndarray) -> Detections:
    options = {"backend": "onnxruntime", "threads": 1, "score_threshold": 0.0}
    with Detector(bundle, classes=names, **options) as fresh:  # type: ignore[arg-type]
        return fresh(image)


def _change(
    detector: Detector,
    images: list[np.ndarray],
    expected: list[list[Detections]],
    changes: int,
    seed: int,
    advance: Advance,
) -> Result:
    detector.set_classes(SETS[0])
    index_of = {detector.class_set_version: 0}
    lock, done, faults = threading.Lock(), threading.Event(), list[str]()
    left, first_mb = iter(range(changes)), resident_mb("VmRSS")

    def change(number: int) -> None:
        rng = random.Random(f"{seed} {number}")
        while True:
            with lock:  # so that the version of every change is known before a result shows it
                if next(left, None) is None:
                    return
                index, version = rng.randrange(len(SETS)), detector.class_set_version + 1
                index_of[version] = index
                detector.set_classes(SETS[index])
                if detector.class_set_version != version:
                    faults.append(f"version {detector.class_set_version}, not {version}")
                advance(1)

    def search(number: int) -> int:
        rng, count = random.Random(f"{seed} search {number}"), 0
        while not done.is_set() or not count:
            place = rng.randrange(len(images))
            found = detector(images[place])
            right = expected[index_of[found.class_set_version]][place]
            if found != right:
                faults.append(f"image {place}: {found} is not {right}")
            count += 1
        return count

    with ThreadPoolExecutor(SEARCHERS + CHANGERS) as pool:
        searching = [pool.submit(search, n) for n in range(SEARCHERS)]
        changing = [pool.submit(change, n) for n in range(CHANGERS)]
        wrong = [future.exception() for future in changing]
        done.set()
        wrong += [future.exception() for future in searching]
        faults += [repr(error) for error in wrong if error]
        results = sum(future.result() for future in searching if not future.exception())
    grown = resident_mb("VmRSS") - first_mb
    load = f"{SEARCHERS} threads search, {CHANGERS} change; {results:,} results, {grown:+.0f} MB"
    return Result(inputs=changes, load=load, faults=faults)


PARTS = (
    Part(
        name="classes",
        tried="changes of the classes of one detector that many threads use",
        unit="inputs",
        full=10_000,
        short=1_000,
        run=classes,
    ),
)
