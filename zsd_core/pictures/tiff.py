"""The size of a TIFF or BigTIFF file's first page, and of the tiles that it is decoded in."""

from __future__ import annotations

import struct

__all__ = ["TIFF_HEADS", "tiff_sizes"]

TIFF_HEADS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")  # a plus: BigTIFF
WIDTH, HEIGHT, TILE_WIDTH, TILE_HEIGHT = TAGS = (256, 257, 322, 323)
MOST = 4096  # entries of a page that libtiff reads
SHORT, LONG, LONG8 = 3, 4, 16  # types of an entry


def tiff_sizes(data: bytes) -> list[tuple[int, int]]:
    """Width and height of the first page, then of its tiles where it has some.

    Empty where a size is missing, or comes twice: readers disagree on which one counts.

    Raises:
        struct.error: the file ends before its tags.
    """
    order = "<" if data[:1] == b"I" else ">"
    big = b"+" in data[2:4]
    form, count_form = (order + "HHQ", order + "Q") if big else (order + "HHI", order + "H")
    (at,) = struct.unpack_from(order + ("Q" if big else "I"), data, 8 if big else 4)
    (count,) = struct.unpack_from(count_form, data, at)
    if count > MOST:
        return []
    at += struct.calcsize(count_form)
    values = {SHORT: order + "H", LONG: order + "I"} | ({LONG8: order + "Q"} if big else {})
    found: dict[int, int] = {}
    for entry in range(at, at + count * (20 if big else 12), 20 if big else 12):
        tag, kind, numbers = struct.unpack_from(form, data, entry)
        if tag not in TAGS:
            continue
        if tag in found or kind not in values or numbers != 1:
            return []
        (found[tag],) = struct.unpack_from(values[kind], data, entry + struct.calcsize(form))
    if not (found.get(WIDTH) and found.get(HEIGHT)):
        return []
    sizes = [(found[WIDTH], found[HEIGHT])]
    if TILE_WIDTH in found or TILE_HEIGHT in found:
        tile = found.get(TILE_WIDTH, found[WIDTH]), found.get(TILE_HEIGHT, found[HEIGHT])
        sizes.append(tile)
    return sizes
