"""Mutated image files through decoding and detection: by path, as bytes, and by Pillow.

Among them are files whose header hides how large the picture becomes: none is decoded to another
size than its header tells, and none that is too large reaches a decoder that would decode it.
"""

from __future__ import annotations

import io
import os
import random
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
from numpy.typing import NDArray

from benchmarks.trust.attempts import WrongResultError, loader_part
from benchmarks.trust.hidden_sizes import hidden_sizes
from benchmarks.trust.mutate import mutated_bytes
from benchmarks.trust.small import helper
from benchmarks.trust.table import Attempt
from runtime.detector import Detector
from runtime.images import decode_image
from zsd_core.errors import ImageError
from zsd_core.pictures.size import picture_size

__all__ = ["PARTS", "images"]

FORMS = ("JPEG", "PNG", "WEBP", "AVIF", "TIFF", "GIF", "BMP", "PPM", "JPEG2000")
UNCHANGED = 0.02  # share of the files that must give what they gave at first
HIDDEN = 0.1  # share of files whose header hides a size
SIDE = 96  # of their pictures
MOST = 4_000_000  # pixels: a header may tell any size, and one that is allowed takes its memory


def images(folder: Path, quiet: bool = True) -> Attempt:
    """Files of every format, size, turn and depth; most of them damaged.

    Args:
        folder: for the files.
        quiet: send standard error of this process to nowhere: libraries print what they dislike.
    """
    if quiet:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
        warnings.simplefilter("ignore")
    bundle = helper("tiny").tiny_bundle(folder / "bundle")
    detector = Detector(
        bundle, backend="onnxruntime", threads=1, score_threshold=0.0, max_pixels=MOST
    )
    good = _files(random.Random(0))
    before = [detector(decode_image(data, "rgb", "x")) for data in good]
    path = folder / "image"
    hidden = list(hidden_sizes(SIDE).values())

    def attempt(rng: random.Random) -> None:
        if rng.random() < HIDDEN:
            _hidden(hidden, rng)
            return
        index = rng.randrange(len(good))
        whole = rng.random() < UNCHANGED
        data = good[index] if whole else mutated_bytes(good[index], rng)
        entry = rng.choice(("path", "bytes", "pillow"))
        if entry == "pillow":
            picture = _opened(data)
            if picture is None:
                return
            found = detector(picture)
        elif entry == "bytes":
            found = detector(decode_image(data, "rgb", "x", MOST))
        else:
            path.write_bytes(data)
            found = detector(path)
        if whole and entry != "pillow" and found != before[index]:
            raise WrongResultError(f"file {index} by {entry}: {found} is not {before[index]}")

    return attempt


def _hidden(files: list[bytes], rng: random.Random) -> None:
    """Decode a file that hides a size, as it is or damaged, with a limit below that size."""
    data, whole = rng.choice(files), rng.random() < UNCHANGED
    if not whole:
        data = mutated_bytes(data, rng, 3)
    with _watched(data, SIDE * SIDE - 1):
        try:
            decode_image(data, "rgb", "x", SIDE * SIDE - 1)
        except ImageError:
            if not whole:
                raise
        else:
            if whole:
                raise WrongResultError("a picture above the limit was read")


@contextmanager
def _watched(data: bytes, most: int) -> Iterator[None]:
    """Fail where OpenCV decodes more pixels than allowed, or others than the header tells."""
    import cv2

    decode = cv2.imdecode

    def watched(*given: Any) -> Any:
        image = decode(*given)
        told = picture_size(data)
        if image is not None and (told is None or sorted(image.shape[:2]) != sorted(told)):
            raise WrongResultError(f"the header tells {told}, OpenCV decodes {image.shape}")
        if image is not None and image.shape[0] * image.shape[1] > most:
            raise WrongResultError(f"{image.shape} was decoded, more than {most} pixels")
        return image

    with patch.object(cv2, "imdecode", watched):
        yield


def _files(rng: random.Random) -> list[bytes]:
    from PIL import Image

    found = []
    for form in FORMS:
        for mode in ("RGB", "L", "P", "I;16", "RGBA", "CMYK"):
            if (form, mode) == ("JPEG2000", "CMYK"):  # OpenCV reads no such file
                continue
            height, width = rng.randint(1, 90), rng.randint(1, 90)
            exif = Image.Exif()
            exif[0x0112] = rng.randint(1, 8)
            file = io.BytesIO()
            try:
                _picture(mode, height, width, rng).save(file, form, exif=exif)
            except (OSError, ValueError, KeyError):  # the format has no such mode
                continue
            found.append(file.getvalue())
    return found


def _picture(mode: str, height: int, width: int, rng: random.Random) -> Any:
    from PIL import Image

    noise = np.random.default_rng(rng.randrange(1 << 32))
    if mode == "I;16":
        return Image.fromarray(noise.integers(0, 4096, (height, width)).astype(np.uint16))
    pixels: NDArray[np.uint8] = noise.integers(0, 256, (height, width, 3), np.uint8)
    return Image.fromarray(pixels).convert(mode)


def _opened(data: bytes) -> Any:
    """The image, as a caller opens it; None where PIL itself refuses to."""
    from PIL import Image

    try:
        return Image.open(io.BytesIO(data))
    except Exception:  # the caller's call, not ours
        return None


PARTS = (
    loader_part(
        images,
        "images",
        "damaged image files of nine formats, by path, bytes and Pillow; hidden sizes",
        100_000,
        1_500,
    ),
)
