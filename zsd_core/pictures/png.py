"""The chunks of a PNG file: its size, and whether it is whole."""

from __future__ import annotations

import struct
from collections import deque
from collections.abc import Iterator

__all__ = ["png_chunks", "png_is_whole", "png_size"]

HEAD = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR"  # this chunk is the first, and comes once


def png_size(data: bytes) -> tuple[int, int] | None:
    """Width and height.

    Raises:
        struct.error: the file ends early.
    """
    if not data.startswith(HEAD):
        return None
    width, height = struct.unpack_from(">II", data, 16)
    return int(width), int(height)


def png_is_whole(data: bytes) -> bool:
    """Whether a PNG's chunks lie inside the file and lead to its end.

    OpenCV makes room for a chunk as long as it says it is, before it reads it: up to 4 GB.
    """
    last = deque(png_chunks(data), maxlen=1)
    return any(kind == b"IEND" and at + n + 4 <= len(data) for kind, at, n in last)


def png_chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Chunks of a PNG up to its end: the name, where the content begins, its length as it says."""
    at, kind = 8, b""
    while kind != b"IEND" and at + 12 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, at)
        yield kind, at + 8, int(length)
        at += 12 + length
