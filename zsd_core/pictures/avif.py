"""Facts that an AVIF file states beside its pixels: its size, its range, and how it is turned.

OpenCV gives the pixels as they are stored. An AVIF is turned by its properties ``irot`` and
``imir``, not by its EXIF (ISO/IEC 23008-12, 6.5.10 and 6.5.12; MIAF applies them in this order).
"""

from __future__ import annotations

import struct

import numpy as np
from numpy.typing import NDArray

from zsd_core.pictures.av1 import av1_sizes
from zsd_core.pictures.boxes import Box, boxes, item_streams

__all__ = [
    "avif_parts",
    "avif_size",
    "brands",
    "full_range",
    "is_avif",
    "is_sequence",
    "upright",
]

Image = NDArray[np.uint8]
MOST_BYTES = 1024  # of the box of kinds that are read; files have some 30
Part = dict[bytes, tuple[int, int]]  # where each box's content begins and ends


def brands(data: bytes) -> set[bytes]:
    """The kinds that a file of AVIF's container says it is of; HEIC and MP4 are others of it."""
    if data[4:8] != b"ftyp":
        return set()
    end = min(int.from_bytes(data[:4], "big"), len(data), MOST_BYTES)
    return {data[8:12], *(data[at : at + 4] for at in range(16, end - 3, 4))}


def is_avif(data: bytes) -> bool:
    """Whether a file says that it is an AVIF; of its container OpenCV reads no other kind."""
    return not brands(data).isdisjoint((b"avif", b"avis"))


def is_sequence(data: bytes) -> bool:
    """Whether a decoder would read the film of an AVIF file, rather than a picture."""
    kinds = (kind for kind, _, _ in boxes(data, 0, len(data)))
    return data[8:12] != b"avif" and b"moov" in kinds


def avif_size(data: bytes) -> tuple[int, int] | None:
    """Width and height as they are stored, not turned; None where the file does not say.

    A sequence has none: its size is its track's, and it is no picture.

    Raises:
        IndexError, struct.error: the file is damaged.
    """
    if is_sequence(data):
        return None
    for kind, start, _ in _properties(data):
        if kind == b"ispe":
            return _extent(data, start)
    return None


def avif_parts(data: bytes) -> list[tuple[int, int]]:
    """Sizes of all items, as properties and as AV1 streams tell them: each is decoded whole.

    A decoder makes a stream's frame first, and then scales it to the size that its item tells.

    Raises:
        IndexError, struct.error: the file is damaged.
    """
    inside = _meta(data)
    known, used = _known(data, inside)
    sizes = [_extent(data, start) for kind, start, _ in known if kind == b"ispe"]
    coded = {item for item, own in used.items() if any(kind == b"av1C" for kind, _, _ in own)}
    places = inside.get(b"iloc"), inside.get(b"idat")
    for stream in {stream for item, stream in item_streams(data, *places) if item in coded}:
        sizes.extend(av1_sizes(stream))
    return sizes


def full_range(image: Image, data: bytes) -> Image:
    """Stretch the pixels of a grey AVIF file whose black is 16 and white is 235, as in video.

    OpenCV does so for colours only. The range stands in ``colr`` (ISO/IEC 23008-12, 6.5.5).

    Raises:
        IndexError: the file is damaged.
    """
    grey = limited = False
    for kind, start, _ in _properties(data):
        if kind == b"pixi":
            grey = grey or data[start + 4] == 1  # channels
        elif kind == b"av1C":
            grey = grey or bool(data[start + 2] & 16)  # monochrome
        elif kind == b"colr" and data[start : start + 4] == b"nclx":
            limited = not data[start + 10] & 128
    if not (grey and limited):
        return image
    table = np.clip((np.arange(256) - 16) * (255 / 219), 0, 255).round().astype(np.uint8)
    return np.asarray(table[image])


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
    inside = _meta(data)
    if b"pitm" not in inside:
        return []
    wide, start = data[inside[b"pitm"][0]], inside[b"pitm"][0] + 4
    (primary,) = struct.unpack_from(">I" if wide else ">H", data, start)
    return _known(data, inside)[1].get(int(primary), [])


def _meta(data: bytes) -> Part:
    """The boxes of ``meta``; none where one comes twice: which of them counts?"""
    for kind, start, end in boxes(data, 0, len(data)):
        if kind == b"meta":
            return _parts(data, start + 4, end)
    return {}


def _parts(data: bytes, start: int, end: int) -> Part:
    found = [box for box in boxes(data, start, end) if box[0] not in (b"free", b"skip")]
    parts = {kind: (start, end) for kind, start, end in found}
    return parts if len(parts) == len(found) else {}


def _known(data: bytes, inside: Part) -> tuple[list[Box], dict[int, list[Box]]]:
    """All properties, and those of each item."""
    parts = _parts(data, *inside[b"iprp"]) if b"iprp" in inside else {}
    if b"ipco" not in parts or b"ipma" not in parts:
        return [], {}
    known = list(boxes(data, *parts[b"ipco"]))
    used = _associations(data, parts[b"ipma"][0])
    return known, {
        item: [known[index - 1] for index in places if 0 < index <= len(known)]
        for item, places in used.items()
    }


def _extent(data: bytes, start: int) -> tuple[int, int]:
    width, height = struct.unpack_from(">II", data, start + 4)
    return int(width), int(height)


def _associations(data: bytes, at: int) -> dict[int, list[int]]:
    """Numbers of the properties of every item, counted from 1."""
    version, flags = data[at], int.from_bytes(data[at + 1 : at + 4], "big")
    (count,) = struct.unpack_from(">I", data, at + 4)
    at += 8
    found: dict[int, list[int]] = {}
    item, index = (">I" if version else ">H"), (">H" if flags & 1 else ">B")
    mask = 0x7FFF if flags & 1 else 0x7F  # the first bit says whether a reader must know it
    for _ in range(count):
        (number,) = struct.unpack_from(item, data, at)
        at += struct.calcsize(item)
        many, at = data[at], at + 1
        size = struct.calcsize(index)
        places = [struct.unpack_from(index, data, at + size * i)[0] & mask for i in range(many)]
        found[int(number)] = found.get(int(number), []) + places
        at += size * many
    return found
