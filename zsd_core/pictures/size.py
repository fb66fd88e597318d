"""Width and height as a file's header says, before a pixel is decoded.

Each format is read as strictly as its decoder reads it, or more strictly: where a file could show
one size here and another there, it has none. Formats without a reader here are not decoded at all.
"""

from __future__ import annotations

import re
import struct

from zsd_core.pictures.avif import avif_parts, avif_size, is_avif
from zsd_core.pictures.jpeg import jpeg_size
from zsd_core.pictures.jpeg2000 import JPEG_2000_HEADS, jpeg_2000_size
from zsd_core.pictures.png import png_size
from zsd_core.pictures.tiff import TIFF_HEADS, tiff_sizes

__all__ = [
    "ENDINGS",
    "FORMATS",
    "PNM_BLANK",
    "SUFFIXES",
    "SUN_RASTER",
    "largest_part",
    "picture_size",
    "tells_size",
]

# Every format that is decoded, and how its files end.
ENDINGS = {
    "JPEG": (".jfif", ".jpe", ".jpeg", ".jpg"),
    "PNG": (".png",),
    "WebP": (".webp",),
    "BMP": (".bmp", ".dib"),
    "GIF": (".gif",),
    "TIFF": (".tif", ".tiff"),
    "AVIF": (".avif",),
    "JPEG 2000": (".j2k", ".jp2"),
    "PNM": (".pbm", ".pgm", ".pnm", ".ppm"),
    "Sun raster": (".ras", ".sr"),
}
FORMATS = " or ".join(", ".join(ENDINGS).rsplit(", ", 1))
SUFFIXES = frozenset(suffix for endings in ENDINGS.values() for suffix in endings)
Size = tuple[int, int]
# The header ends early, or an offset leads to nowhere.
DAMAGED = (IndexError, OverflowError, struct.error)

SUN_RASTER = b"\x59\xa6\x6a\x95"
SHORT_HEADS = (b"\x89PNG", b"\xff\xd8", b"RIFF", b"BM", b"GIF")
HEADS = (*SHORT_HEADS, SUN_RASTER, *TIFF_HEADS, *JPEG_2000_HEADS)
PNM_BLANK = rb"(?:\s|#[^\r\n]*[\r\n])*"
_PNM = re.compile(rb"P[1-6]\s" + PNM_BLANK + rb"(\d{1,9})\s" + PNM_BLANK + rb"(\d{1,9})\s")


def tells_size(data: bytes) -> bool:
    """Whether a file is of a format whose header tells the size, unless it is damaged."""
    return data.startswith(HEADS) or re.match(rb"P[1-6]\s", data) is not None or is_avif(data)


def picture_size(data: bytes) -> Size | None:
    """Width and height as they are stored; None where the header does not say, or is damaged.

    JPEG, PNG, WebP, BMP, GIF, TIFF, BigTIFF, AVIF, JPEG 2000, PNM and Sun raster files.
    """
    try:
        size = _size(data)
    except DAMAGED:
        return None
    return size if size and min(size) > 0 else None


def largest_part(data: bytes) -> Size | None:
    """Size of the largest part that is decoded whole: a tile of a TIFF, an item of an AVIF.

    The picture's own size, where it is the largest or the only one; None where a size is missing.
    """
    size = picture_size(data)
    if size is None:
        return None
    parts = [size]
    try:
        if data.startswith(TIFF_HEADS):
            parts += tiff_sizes(data)
        elif is_avif(data):
            parts += avif_parts(data)
    except DAMAGED:
        return None
    return max(parts, key=lambda part: part[0] * part[1])


def _size(data: bytes) -> Size | None:
    if is_avif(data):
        return avif_size(data)
    if data[:2] == b"\xff\xd8":
        return jpeg_size(data)
    if data[:4] == b"\x89PNG":
        return png_size(data)
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return _webp_size(data)
    if data[:2] == b"BM":
        return _bmp_size(data)
    if data[:3] == b"GIF":
        return _pair("<HH", data, 6)
    if data.startswith(TIFF_HEADS):
        return next(iter(tiff_sizes(data)), None)
    if data.startswith(JPEG_2000_HEADS):
        return jpeg_2000_size(data)
    if data.startswith(SUN_RASTER):
        return _pair(">II", data, 4)
    found = _PNM.match(data)
    return (int(found[1]), int(found[2])) if found else None


def _pair(form: str, data: bytes, at: int) -> Size:
    first, second = struct.unpack_from(form, data, at)
    return int(first), int(second)


def _webp_size(data: bytes) -> Size | None:
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


def _bmp_size(data: bytes) -> Size:
    """OS/2's header of 12 bytes has shorter numbers than all later ones."""
    (length,) = struct.unpack_from("<I", data, 14)
    if length == 12:
        return _pair("<HH", data, 18)
    width, height = _pair("<ii", data, 18)
    return width, abs(height)  # rows from the top have a negative height
