"""Boxes of the ISO base media file format, which AVIF and JPEG 2000 files consist of."""

from __future__ import annotations

import struct
from collections.abc import Iterator

__all__ = ["Box", "boxes", "item_streams"]

Box = tuple[bytes, int, int]  # type, and where its content begins and ends


def boxes(data: bytes, start: int, end: int) -> Iterator[Box]:
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


def item_streams(
    data: bytes, places: tuple[int, int] | None, inner: tuple[int, int] | None
) -> Iterator[tuple[int, bytes]]:
    """Number and bytes of every item, from the boxes ``iloc`` and ``idat`` (ISO/IEC 14496-12).

    Args:
        data: the whole file.
        places: where the content of ``iloc`` begins and ends.
        inner: the same of ``idat``, which holds small items.

    Raises:
        IndexError, struct.error: there is no ``iloc``, or the file is damaged: such as different
            items that are longer than the file, all together.
    """
    if places is None:
        raise IndexError("no box says where the items lie")
    at, left = places[0], len(data)

    def number(size: int) -> int:
        nonlocal at
        at += size
        if at > places[1]:
            raise IndexError("iloc ends early")
        return int.from_bytes(data[at - size : at], "big")

    version = number(4) >> 24
    sizes = number(2)
    offset, length, base, index = (sizes >> shift & 15 for shift in (12, 8, 4, 0))
    seen: dict[tuple[tuple[int, int], ...], bytes] = {}
    for _ in range(number(4 if version == 2 else 2)):
        item = number(4 if version == 2 else 2)
        method = number(2) & 15 if version else 0
        number(2)
        start, parts = number(base), []
        if method > 1 or (method and inner is None):
            raise IndexError("an item lies in another one")
        first, last = inner if method and inner else (0, len(data))
        for _ in range(number(2)):
            number(index if version else 0)
            begin = first + start + number(offset)
            end = min(begin + (number(length) or last - begin), last)
            if end <= begin:
                raise IndexError("an item lies outside the file")
            parts.append((begin, end))
        if (place := tuple(parts)) not in seen:  # cells that look alike may lie in one place
            left -= sum(end - begin for begin, end in place)
            if left < 0:
                raise IndexError("items overlap")
            seen[place] = b"".join(data[begin:end] for begin, end in place)
        yield item, seen[place]
