"""Width and height as a file's header says, before a pixel is decoded."""

from __future__ import annotations

import struct

from runtime.avif import avif_size, is_avif

__all__ = ["picture_size", "tells_size"]

HEADS = (b"\x89PNG", b"\xff\xd8", b"RIFF", b"BM", b"GIF8", b"GIF9", b"II*\0", b"MM\0*")
NO_SIZE = (0xC4, 0xC8, 0xCC)  # JPEG markers between the frame headers that are none
BARE = (0x01, *range(0xD0, 0xD9))  # JPEG markers without a length


def tells_size(data: bytes) -> bool:
    """Whether a file is of a format whose header tells the size, unless it is damaged."""
    return data.startswith(HEADS) or is_avif(data)


def picture_size(data: bytes) -> tuple[int, int] | None:
    """Width and height of a JPEG, PNG, WebP, BMP, GIF, TIFF or AVIF file; None of any other."""
    try:
        if data[:8] == b"\x89PNG\r\n\x1a\n":
            return _pair(">II", data, 16)
        if data[:2] == b"\xff\xd8":
            return _jpeg_size(data)
        if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
            return _webp_size(data)
        if data[:2] == b"BM":
            width, height = _pair("<ii", data, 18)
            return abs(width), abs(height)  # rows from the top have a negative height
        if data[:4] in (b"GIF8", b"GIF9"):
            return _pair("<HH", data, 6)
        if data[:4] in (b"II*\0", b"MM\0*"):
            return _tiff_size(data)
        if is_avif(data):
            return avif_size(data)
    except (IndexError, struct.error):  # the header ends early
        pass
    return None


def _pair(form: str, data: bytes, at: int) -> tuple[int, int]:
    first, second = struct.unpack_from(form, data, at)
    return int(first), int(second)


def _jpeg_size(data: bytes) -> tuple[int, int] | None:
    """From the frame header; segments before it, a thumbnail's in EXIF too, are stepped over."""
    at = 2
    while data[at] == 0xFF:
        marker = data[at + 1]
        if marker == 0xFF:  # padding
            at += 1
        elif marker in BARE:
            at += 2
        elif 0xC0 <= marker <= 0xCF and marker not in NO_SIZE:
            height, width = _pair(">HH", data, at + 5)
            return width, height
        elif marker in (0xD9, 0xDA):  # the end, or pixels, and no header before them
            return None
        else:
            at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    return None


def _webp_size(data: bytes) -> tuple[int, int] | None:
    kind = data[12:16]
    if kind == b"VP8X":
        return 1 + int.from_bytes(data[24:27], "little"), 1 + int.from_bytes(data[27:30], "little")
    if kind == b"VP8L":
        (bits,) = struct.unpack_from("<I", data, 21)
        return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    if kind == b"VP8 ":
        width, height = _pair("<HH", data, 26)
        return width & 0x3FFF, height & 0x3FFF
    return None


def _tiff_size(data: bytes) -> tuple[int, int] | None:
    """From the tags 256 and 257 of the first page."""
    order = "<" if data[:1] == b"I" else ">"
    (at,) = struct.unpack_from(order + "I", data, 4)
    (count,) = struct.unpack_from(order + "H", data, at)
    sizes = {}
    for entry in range(at + 2, at + 2 + 12 * count, 12):
        tag, kind = struct.unpack_from(order + "HH", data, entry)
        if tag in (256, 257) and kind in (3, 4):
            (sizes[tag],) = struct.unpack_from(order + ("H" if kind == 3 else "I"), data, entry + 8)
    return (sizes[256], sizes[257]) if len(sizes) == 2 else None
