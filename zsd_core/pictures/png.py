"""The size of a PNG file whose chunks all lie inside the file."""

from __future__ import annotations

import struct

__all__ = ["png_size"]

HEAD = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR"  # this chunk is the first, and comes once


def png_size(data: bytes) -> tuple[int, int] | None:
    """Width and height; None where a chunk is longer than the file, or the header comes twice.

    OpenCV makes room for a chunk as long as it says it is, before it reads it: up to 4 GB.

    Raises:
        struct.error: the file ends before its last chunk.
    """
    if not data.startswith(HEAD):
        return None
    at, kind = 8, b""
    while kind != b"IEND":
        length, kind = struct.unpack_from(">I4s", data, at)
        if at + 12 + length > len(data) or (kind == b"IHDR" and at > 8):
            return None
        at += 12 + length
    width, height = struct.unpack_from(">II", data, 16)
    return int(width), int(height)
