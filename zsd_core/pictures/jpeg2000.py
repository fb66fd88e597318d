"""The size of a JPEG 2000 file, with boxes around its codestream or without."""

from __future__ import annotations

import struct

from zsd_core.pictures.boxes import boxes

__all__ = ["JPEG_2000_HEADS", "jpeg_2000_size"]

START = b"\xff\x4f\xff\x51"  # of a codestream: SOC, and SIZ, which comes first and once
MOST_CHANNELS = 4  # that OpenCV reads; 16,384 would take the memory of as many pictures
JPEG_2000_HEADS = (b"\0\0\0\x0cjP  \r\n\x87\n", START)


def jpeg_2000_size(data: bytes) -> tuple[int, int] | None:
    """Width and height by the codestream, which is what OpenJPEG goes by; not by its ``ihdr``.

    None where it does not say, or has more channels than colour and alpha.

    Raises:
        struct.error: the file is damaged.
    """
    at = 0
    if not data.startswith(START):
        streams = (start for kind, start, _ in boxes(data, 0, len(data)) if kind == b"jp2c")
        at = next(streams, len(data))
    if data[at : at + 4] != START:
        return None
    right, bottom, left, top = struct.unpack_from(">IIII", data, at + 8)
    (channels,) = struct.unpack_from(">H", data, at + 40)
    if channels > MOST_CHANNELS:
        return None
    return int(right) - int(left), int(bottom) - int(top)
