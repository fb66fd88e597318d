"""Whole frames: the trunk alone, many classes, int8, batches, and a video."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from benchmarks.latency import class_names
from benchmarks.measure import photograph
from benchmarks.peers_models import photographs
from benchmarks.speed.rows import Bar, Group, Row, Settings, in_turns
from runtime.bundle import default_bundle, open_bundle
from runtime.detector import Detector
from runtime.stream import Stream
from zsd_core.errors import require
from zsd_core.kernels import preprocess

__all__ = ["GROUPS"]

FRAMES = 120  # of the video
BATCH = 8


def _classes(bars: Sequence[Bar], settings: Settings) -> list[Row]:
    """80 classes over the trunk, 1,203 over 80."""
    bundle, image = open_bundle(default_bundle()), photograph()
    prepared = bundle.model_config.preprocess
    size = prepared.resized(*image.shape[:2])
    tensor = preprocess(
        image, size=size, padded=prepared.padded(*size), mean=prepared.mean, std=prepared.std
    )[None]
    with ExitStack() as stack:
        few, one_more, many = (
            stack.enter_context(
                Detector(bundle, threads=settings.threads, classes=class_names(bundle, count))
            )
            for count in (80, 81, 1203)
        )
        networks: Any = few._backend
        medians = in_turns(
            {
                "trunk": lambda: networks.trunk(tensor),
                "80 classes": lambda: few(image),
                "81 classes": lambda: one_more(image),
                "1,203 classes": lambda: many(image),
            },
            settings.rounds,
        )
    whole = medians["80 classes"]
    return [
        Row(bar=bars[0], measured=whole / medians["trunk"], medians=medians),
        Row(bar=bars[1], measured=medians["1,203 classes"] / whole, medians=medians),
    ]


def _int8(bars: Sequence[Bar], settings: Settings) -> list[Row]:
    """float32 over int8 at 1,203 classes, and 1,203 classes over 80 in int8."""
    bundle, image = open_bundle(default_bundle()), photograph()
    with ExitStack() as stack:
        detectors = {
            name: stack.enter_context(
                Detector(
                    bundle,
                    threads=settings.threads,
                    classes=class_names(bundle, count),
                    precision=precision,
                )
            )
            for name, precision, count in (
                ("80 classes, int8", "int8", 80),
                ("float32", "float32", 1203),
                ("int8", "int8", 1203),
            )
        }
        calls = {name: (lambda d=detector: d(image)) for name, detector in detectors.items()}
        medians = in_turns(calls, settings.rounds)
    faster = medians["float32"] / medians["int8"]
    more = medians["int8"] / medians["80 classes, int8"]
    return [
        Row(bar=bar, measured=v, medians=medians)
        for bar, v in zip(bars, (faster, more), strict=True)
    ]


def _batch(bars: Sequence[Bar], settings: Settings) -> list[Row]:
    """Images a second of batches over those of single images."""
    images = (photographs() * BATCH)[:BATCH]
    with Detector(threads=settings.threads) as detector:

        def singly() -> None:
            for image in images:
                detector(image)

        medians = in_turns(
            {"8 single images": singly, "a batch of 8": lambda: detector(images)},
            max(3, settings.rounds // 3),
        )
    value = medians["8 single images"] / medians["a batch of 8"]
    return [Row(bar=bars[0], measured=value, medians=medians)]


def _stream(bars: Sequence[Bar], settings: Settings) -> list[Row]:
    """A video file through ``Stream``, over the same with one frame at a time."""
    seconds: dict[int, list[float]] = {1: [], BATCH: []}
    with tempfile.TemporaryDirectory(prefix="contrastzsd-") as work:
        path = _video(Path(work))
        with Detector(threads=settings.threads) as detector:
            for _ in range(max(3, settings.rounds // 6)):
                for most, samples in seconds.items():
                    with Stream(detector, [path], max_batch=most) as stream:
                        found = iter(stream)
                        for _ in range(FRAMES // 4):  # while it measures whether batches pay
                            next(found)
                        start = time.perf_counter()
                        count = sum(1 for _ in found)
                        samples.append(1e3 * (time.perf_counter() - start) / count)
    medians = {"a frame alone": median(seconds[1]), "a frame of Stream": median(seconds[BATCH])}
    value = medians["a frame alone"] / medians["a frame of Stream"]
    return [Row(bar=bars[0], measured=value, medians=medians)]


def _video(folder: Path) -> Path:
    """A photograph that moves, as a video file."""
    cv2, path = require("cv2", "cpu"), folder / "video.mp4"
    image = photograph()
    height, width = image.shape[:2]
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"mp4v"), 25, (width, height))
    for number in range(FRAMES):
        writer.write(np.roll(image, 2 * number, axis=1)[:, :, ::-1])
    writer.release()
    return path


GROUPS = [
    Group(
        name="classes",
        bars=[
            Bar(what="80 classes, over the trunk network alone", asked=1.3, at_most=True),
            Bar(what="1,203 classes, over 80", asked=1.2, at_most=True),
        ],
        run=_classes,
    ),
    Group(
        name="int8",
        bars=[
            Bar(what="int8 as fast as float32, 1,203 classes", asked=1.5, at_most=False),
            Bar(what="1,203 classes, over 80, in int8", asked=1.5, at_most=True),
        ],
        run=_int8,
    ),
    Group(
        name="stream",
        bars=[
            Bar(what="frames a second of a video, over one at a time", asked=1.15, at_most=False)
        ],
        run=_stream,
    ),
    Group(
        name="batch",
        bars=[Bar(what="images a second of a batch of 8, over singly", asked=1.2, at_most=False)],
        run=_batch,
    ),
]
