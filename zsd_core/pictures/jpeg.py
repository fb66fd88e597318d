"""The size of a JPEG file, whether it is whole, and its inks; read as libjpeg reads it.

Two readers that disagree on where a segment begins see two pictures in one file. A marker that
libjpeg refuses is therefore refused here, and what libjpeg steps over is stepped over.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator

__all__ = ["jpeg_is_whole", "jpeg_refusal", "jpeg_size"]

FRAMES = (0xC0, 0xC1, 0xC2, 0xC3, 0xC9, 0xCA, 0xCB)  # frame headers that some libjpeg decodes
BARE = (0x01, *range(0xD0, 0xD8))  # without a length: TEM and restarts
# DHT, DAC, DQT, DNL, DRI, APP0 to APP15, COM
SEGMENTS = (0xC4, 0xCC, 0xDB, 0xDC, 0xDD, *range(0xE0, 0xF0), 0xFE)
ADOBE = 0xEE  # the application segment that tells what the channels are
_MARKER = re.compile(rb"\xff[\x01-\xcf\xd8-\xfe]")  # not a stuffed zero, a restart or padding
_NEXT = re.compile(rb"\xff+[\x01-\xfe]")  # stuffed zeros and bytes between segments are skipped


def jpeg_size(data: bytes) -> tuple[int, int] | None:
    """Width and height by the frame header; a thumbnail's, inside EXIF, is stepped over.

    Raises:
        struct.error: the file ends before its frame header.
    """
    for marker, at in _segments(data):
        if marker in FRAMES:
            height, width = struct.unpack_from(">HH", data, at + 3)
            return int(width), int(height)
    return None


def jpeg_refusal(data: bytes) -> str:
    """Why OpenCV may show the negative of the picture, in words; "" where it does not.

    Raises:
        struct.error: the file ends before its frame header.
    """
    adobe = False
    for marker, at in _segments(data):
        adobe |= marker == ADOBE and data[at + 2 : at + 7] == b"Adobe"
        if marker in FRAMES and data[at + 7 : at + 8] == b"\4" and not adobe:
            return "is a JPEG in CMYK that does not say whether its inks are inverted"
    return ""


def _segments(data: bytes) -> Iterator[tuple[int, int]]:
    """Markers before the pixels of a JPEG, and where the lengths of their segments lie."""
    at = 2
    while found := _NEXT.search(data, at):
        at = found.end()
        marker = data[at - 1]
        if marker in FRAMES or marker in SEGMENTS:
            yield marker, at
            (length,) = struct.unpack_from(">H", data, at)
            at += length  # one below 2 is no length: libjpeg goes on behind it, as the search does
        elif marker not in BARE:  # the end, pixels, or no marker of a picture
            return


def jpeg_is_whole(data: bytes) -> bool:
    """Whether a JPEG's markers lead to its end; some OpenCV versions pad the rest with grey."""
    position = 2
    while found := _MARKER.search(data, position):
        position = found.end()
        marker = data[position - 1]
        if marker == 0xD9:
            return True
        if marker not in (0x01, 0xD8):  # all others carry a length; a scan's data is skipped over
            position += int.from_bytes(data[position : position + 2], "big")
    return False
