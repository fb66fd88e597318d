"""The number that means white in a picture, and its pixels with 8 bits a channel."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zsd_core.pictures.png import png_chunks
from zsd_core.pictures.size import PNM_BLANK
from zsd_core.pictures.tiff import TIFF_HEADS, tiff_white

__all__ = ["declared_white", "eight_bits", "likely_white"]

DEPTHS = (10, 12, 14, 16)  # bits of cameras that fill two bytes
_PNM = re.compile(rb"P([2356])\s" + 3 * (PNM_BLANK + rb"(\d{1,9})\s"))


def eight_bits(image: NDArray[Any], white: int | None) -> NDArray[np.uint8]:
    """Pixels of 8 or 16 bits a channel as 8, so that white becomes 255.

    Args:
        image: uint8 or uint16.
        white: the number that is white; None takes ``likely_white``, as do numbers above it.
    """
    if image.dtype == np.uint8 and (white is None or white >= 255):
        return np.asarray(image, np.uint8)
    if white is None or white < image.max(initial=0):  # numbers may fill 16 bits all the same
        white = likely_white(image)
    scaled = image.astype(np.float32) * (255 / white)
    return np.asarray(np.clip(scaled.round(), 0, 255), np.uint8)


def likely_white(image: NDArray[Any]) -> int:
    """The largest number of the least usual bits that hold the brightest value."""
    if image.dtype == np.uint8:
        return 255
    brightest = int(image.max(initial=0))
    return next((1 << bits) - 1 for bits in DEPTHS if brightest < 1 << bits)


def declared_white(data: bytes) -> int | None:
    """The largest number that a file says, by a PNG's ``sBIT``, a PNM's maximum, a TIFF's bits.

    A PNG whose numbers fill 16 bits, whatever bits a camera had, holds larger ones.
    """
    if data.startswith(TIFF_HEADS):
        return tiff_white(data)
    if data[:4] == b"\x89PNG":
        for kind, at, length in png_chunks(data):
            if kind == b"sBIT" and length in (1, 2, 3, 4):
                bits = max(data[at : at + (1, 1, 3, 3)[length - 1]])  # not that of transparency
                return (1 << bits) - 1 if 8 <= bits <= 16 else None
            if kind == b"IDAT":
                break
        return None
    header = _PNM.match(data)
    if header is None:
        return None
    least = 256 if header[1] in b"23" else 1  # OpenCV scales the small numbers of text itself
    return int(header[4]) if least <= int(header[4]) < 65535 else None
