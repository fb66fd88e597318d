"""Facts that an AVIF file states beside its pixels: its size, and how it is turned.

OpenCV gives the pixels as they are stored. An AVIF is turned by its properties ``irot`` and
``imir``, not by its EXIF (ISO/IEC 23008-12, 6.5.10 and 6.5.12; MIAF applies them in this order).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

__all__ = ["avif_size", "is_avif", "upright"]

Image = NDArray[np.uint8]
Box = tuple[bytes, int, int]  # type, and where its content begins and ends


def is_avif(data: bytes) -> bool:
    """Whether a file is of AVIF's container; of these OpenCV reads no other."""
    return data[4:8] == b"ftyp"


def avif_size(data: bytes) -> tuple[int, int] | None:
    """Width and height as they are stored, not turned; None where the file does not say.

    Raises:
        IndexError, struct.error: the file is damaged.
    """
    for kind, start, _ in _properties(data):
        if kind == b"ispe":
            width, height = struct.unpack_from(">II", data, start + 4)
            return int(width), int(height)
    return None


def upright(image: Image, data: bytes) -> Image:
    """Turn and mirror the stored pixels of an AVIF file as it asks.

    Raises:
        IndexError, struct.error: the file is damaged.
    """
    turns, mirror = 0, None
    for kind, start, _ in _properties(data):
        if kind == b"irot":
            turns = data[start] & 3  # quarters, anti-clockwise
        elif kind == b"imir":
            mirror = data[start] & 1  # 0: top and bottom change places, 1: left and right
    turned = np.rot90(image, turns)
    return np.ascontiguousarray(turned if mirror is None else np.flip(turned, mirror))


def _properties(data: bytes) -> list[Box]:
    """Properties of the primary picture."""
    for kind, start, end in _boxes(data, 0, len(data)):
        if kind == b"meta":
            inside = {kind: (start, end) for kind, start, end in _boxes(data, start + 4, end)}
            break
    else:
        return []
    if b"iprp" not in inside or b"pitm" not in inside:
        return []
    wide, start = data[inside[b"pitm"][0]], inside[b"pitm"][0] + 4
    (primary,) = struct.unpack_from(">I" if wide else ">H", data, start)
    parts = {kind: (start, end) for kind, start, end in _boxes(data, *inside[b"iprp"])}
    if b"ipco" not in parts or b"ipma" not in parts:
        return []
    known = list(_boxes(data, *parts[b"ipco"]))
    used = _associations(data, parts[b"ipma"][0]).get(int(primary), [])
    return [known[index - 1] for index in used if 0 < index <= len(known)]


def _associations(data: bytes, at: int) -> dict[int, list[int]]:
    """Numbers of the properties of every item, counted from 1."""
    version, flags = data[at], int.from_bytes(data[at + 1 : at + 4], "big")
    (count,) = struct.unpack_from(">I", data, at + 4)
    at, found = at + 8, {}
    item, index = (">I" if version else ">H"), (">H" if flags & 1 else ">B")
    mask = 0x7FFF if flags & 1 else 0x7F  # the first bit says whether a reader must know it
    for _ in range(count):
        (number,) = struct.unpack_from(item, data, at)
        at += struct.calcsize(item)
        many, at = data[at], at + 1
        size = struct.calcsize(index)
        places = [struct.unpack_from(index, data, at + size * i)[0] & mask for i in range(many)]
        found[int(number)] = places
        at += size * many
    return found


def _boxes(data: bytes, start: int, end: int) -> Iterator[Box]:
    """The boxes that lie one behind the other in a part of a file."""
    while start + 8 <= end:
        size, kind = struct.unpack_from(">I4s", data, start)
        content = start + 8
        if size == 1:
            (size,) = struct.unpack_from(">Q", data, content)
            content += 8
        elif size == 0:
            size = end - start
        if start + size < content:  # no box is shorter than its own head
            return
        yield kind, content, min(start + size, end)
        start += size
