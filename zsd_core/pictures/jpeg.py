"""The size of a JPEG file, and whether it is whole; markers are followed as libjpeg follows them.

Two readers that disagree on where a segment begins see two pictures in one file. A marker that
libjpeg refuses is therefore refused here, and what libjpeg steps over is stepped over.
"""

from __future__ import annotations

import re
import struct

__all__ = ["jpeg_is_whole", "jpeg_size"]

FRAMES = (0xC0, 0xC1, 0xC2, 0xC3, 0xC9, 0xCA, 0xCB)  # frame headers that some libjpeg decodes
BARE = (0x01, *range(0xD0, 0xD8))  # without a length: TEM and restarts
# DHT, DAC, DQT, DNL, DRI, APP0 to APP15, COM
SEGMENTS = (0xC4, 0xCC, 0xDB, 0xDC, 0xDD, *range(0xE0, 0xF0), 0xFE)
_MARKER = re.compile(rb"\xff[\x01-\xcf\xd8-\xfe]")  # not a stuffed zero, a restart or padding
_NEXT = re.compile(rb"\xff+[\x01-\xfe]")  # stuffed zeros and bytes between segments are skipped


def jpeg_size(data: bytes) -> tuple[int, int] | None:
    """Width and height by the frame header; a thumbnail's, inside EXIF, is stepped over.

    Raises:
        struct.error: the file ends before its frame header.
    """
    at = 2
    while found := _NEXT.search(data, at):
        at = found.end()
        marker = data[at - 1]
        if marker in FRAMES:
            height, width = struct.unpack_from(">HH", data, at + 3)
            return int(width), int(height)
        if marker in SEGMENTS:
            (length,) = struct.unpack_from(">H", data, at)
            at += length  # one below 2 is no length: libjpeg goes on behind it, as the search does
        elif marker not in BARE:  # the end, pixels, or no marker of a picture
            return None
    return None


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
