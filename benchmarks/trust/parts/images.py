"""Mutated image files through decoding and detection: by path, as bytes, and by Pillow."""

from __future__ import annotations

import io
import os
import random
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.trust.attempts import WrongResultError, loader_part
from benchmarks.trust.mutate import mutated_bytes
from benchmarks.trust.small import helper
from benchmarks.trust.table import Attempt
from runtime.detector import Detector
from runtime.images import decode_image

__all__ = ["PARTS", "images"]

FORMS = ("JPEG", "PNG", "WEBP", "AVIF", "TIFF", "GIF")
UNCHANGED = 0.02  # share of the files that must give what they gave at first


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
    detector = Detector(bundle, backend="onnxruntime", threads=1, score_threshold=0.0)
    good = _files(random.Random(0))
    before = [detector(decode_image(data, "rgb", "x")) for data in good]
    path = folder / "image"

    def attempt(rng: random.Random) -> None:
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
            found = detector(decode_image(data, "rgb", "x"))
        else:
            path.write_bytes(data)
            found = detector(path)
        if whole and entry != "pillow" and found != before[index]:
            raise WrongResultError(f"file {index} by {entry}: {found} is not {before[index]}")

    return attempt


def _files(rng: random.Random) -> list[bytes]:
    from PIL import Image

    found = []
    for form in FORMS:
        for mode in ("RGB", "L", "P", "I;16", "RGBA", "CMYK"):
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
        "damaged JPEG, PNG, WebP, AVIF, TIFF and GIF files, by path, bytes and Pillow",
        100_000,
        1_500,
    ),
)
