"""Search one shard of a batch: images in, one row each out, written as a whole."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from runtime.annotate import annotate
from runtime.batch.folder import Shard, shard_path, written_aside
from runtime.detections import Detections
from runtime.detector import Detector
from runtime.images import read_image
from zsd_core.errors import ConfigError, ImageError

__all__ = ["PICTURES", "search_shard"]

Image = NDArray[np.uint8]
WIDEST_JPEG = 65_500  # pixels, of OpenCV's encoder
PICTURES = "pictures"  # folder of the annotated pictures, in that of the run
LONGEST = 100  # bytes of an image's name in that of its picture
READERS = 4  # threads that decode the images of the next batch


def search_shard(
    detector: Detector,
    shard: Shard,
    folder: Path,
    *,
    batch: int = 8,
    pictures: bool = False,
    progress: Callable[[int, int], object] = lambda images, damaged: None,
) -> int:
    """Search the images of a shard and write its file; an image that cannot be read is a row too.

    A row has ``index``, ``path``, ``width``, ``height``, ``error`` (None, or a sentence) and
    ``detections`` as ``Detections.to_list`` gives them. The same shard gives the same bytes.

    Args:
        detector: ready to use.
        shard: which images.
        folder: of the run.
        batch: most images in memory and in the networks together.
        pictures: write annotated pictures into ``pictures/`` as well.
        progress: is told the images of every batch, and how many of these are damaged.

    Returns:
        The number of damaged images.

    Raises:
        ConfigError: a file cannot be written.
        DeviceError: the detector cannot go on.
    """
    bad, index = 0, shard.first
    with written_aside(shard_path(folder, shard.number)) as file:
        for paths, images in _read_ahead(shard.paths, batch, detector.max_pixels):
            damaged = 0
            for path, image, found in zip(paths, images, _search(detector, images), strict=True):
                row = _row(index, path, image, found)
                damaged += row["error"] is not None
                file.write(json.dumps(row, ensure_ascii=False) + "\n")
                if pictures and isinstance(found, Detections) and not isinstance(image, ImageError):
                    _write_picture(folder, shard.number, index, path, annotate(image, found))
                index += 1
            bad += damaged
            progress(len(paths), damaged)
    return bad


def _read_ahead(
    paths: Sequence[str], batch: int, max_pixels: int
) -> Iterator[tuple[Sequence[str], list[Image | ImageError]]]:
    """Read images in batches; while one batch is searched, threads decode the next."""
    chunks = [paths[start : start + batch] for start in range(0, len(paths), batch)]
    with ThreadPoolExecutor(READERS, thread_name_prefix="read-image") as pool:
        ahead: list[Future[Image | ImageError]] = []
        for position in range(len(chunks) + 1):
            images = [future.result() for future in ahead]
            following = chunks[position] if position < len(chunks) else ()
            ahead = [pool.submit(_read, path, max_pixels) for path in following]
            if images:
                yield chunks[position - 1], images


def _read(path: str, max_pixels: int) -> Image | ImageError:
    try:
        return read_image(path, "bgr", max_pixels)
    except ImageError as error:
        return error


def _search(
    detector: Detector, images: Sequence[Image | ImageError]
) -> list[Detections | ImageError]:
    """Detections per image, or why there are none; one bad image spoils no other."""
    good = [image for image in images if not isinstance(image, ImageError)]
    found: list[Detections | ImageError]
    try:
        found = list(detector(good, color="bgr", max_batch=len(good))) if good else []
    except ImageError as error:
        found = [error] if len(good) == 1 else [_search(detector, [image])[0] for image in good]
    results = iter(found)
    return [image if isinstance(image, ImageError) else next(results) for image in images]


def _row(
    index: int, path: str, image: Image | ImageError, found: Detections | ImageError
) -> dict[str, Any]:
    height, width = (None, None) if isinstance(image, ImageError) else image.shape[:2]
    failure = str(found) if isinstance(found, ImageError) else None
    return {
        "index": index,
        "path": _as_text(path),
        "width": width,
        "height": height,
        "error": None if failure is None else _as_text(failure),
        "detections": [] if isinstance(found, ImageError) else found.to_list(),
    }


def _as_text(path: str) -> str:
    r"""A path as text; bytes of its name that are no UTF-8 are written as ``\xe9``."""
    return path.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def _write_picture(folder: Path, shard: int, index: int, path: str, picture: Image) -> None:
    """Write a picture as ``pictures/SHARD/INDEX-NAME.jpg``, or .png where a JPEG is too small."""
    import cv2

    suffix = ".jpg" if max(picture.shape) <= WIDEST_JPEG else ".png"
    place = folder / PICTURES / f"{shard:05d}"
    stem = Path(path).stem[:LONGEST]
    while len(os.fsencode(stem)) > LONGEST:  # file systems count bytes
        stem = stem[:-1]
    target = place / f"{index:08d}-{stem}{suffix}"
    try:
        place.mkdir(parents=True, exist_ok=True)
        target.write_bytes(cv2.imencode(suffix, picture)[1].tobytes())
    except OSError as error:
        raise ConfigError(f"{target}: cannot be written: {error.strerror}.") from error
