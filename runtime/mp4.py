"""Display times of the pictures of an MP4 or QuickTime file, as its edit list says.

A trimmed file keeps the frames that are cut off, and its header counts them: without the edit list
it would look as though its end was missing.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import BinaryIO

__all__ = ["presented_seconds"]


def presented_seconds(path: str) -> float | None:
    """Return the seconds that the first video track shows; None where no edit list says so."""
    try:
        with open(path, "rb") as file:
            size = file.seek(0, 2)
            for kind, start, end in _boxes(file, 0, size):
                if kind == b"moov":
                    return _movie_seconds(file, start, end)
    except (OSError, struct.error, ValueError):  # an address, or a file that is damaged here
        return None
    return None


def _movie_seconds(file: BinaryIO, start: int, end: int) -> float | None:
    boxes = list(_boxes(file, start, end))
    scale = next((_timescale(file, first) for kind, first, _ in boxes if kind == b"mvhd"), 0)
    for kind, first, last in boxes:
        if kind == b"trak" and scale:
            inside = {k: (a, b) for k, a, b in _boxes(file, first, last)}
            if _handler(file, *inside[b"mdia"]) == b"vide" if b"mdia" in inside else False:
                return _edited(file, *inside[b"edts"], scale) if b"edts" in inside else None
    return None


def _boxes(file: BinaryIO, start: int, end: int) -> Iterator[tuple[bytes, int, int]]:
    """Kind, start and end of the content of every box between two positions."""
    while start + 8 <= end:
        file.seek(start)
        size, kind = struct.unpack(">I4s", file.read(8))
        head = 8
        if size == 1:
            (size,), head = struct.unpack(">Q", file.read(8)), 16
        stop = end if size == 0 else start + size
        if size and size < head:
            return
        yield kind, start + head, min(stop, end)
        start = stop


def _timescale(file: BinaryIO, start: int) -> int:
    """Ticks per second of a movie header."""
    file.seek(start)
    long = file.read(1) == b"\1"
    file.seek(start + (20 if long else 12))
    return int(struct.unpack(">I", file.read(4))[0])


def _handler(file: BinaryIO, start: int, end: int) -> bytes:
    """Kind of media of a track: b"vide" for pictures."""
    for kind, first, _ in _boxes(file, start, end):
        if kind == b"hdlr":
            file.seek(first + 8)
            return file.read(4)
    return b""


def _edited(file: BinaryIO, start: int, end: int, scale: int) -> float | None:
    """Sum of the edits that show something."""
    for kind, first, _ in _boxes(file, start, end):
        if kind == b"elst":
            file.seek(first)
            version, _, count = struct.unpack(">B3sI", file.read(8))
            form = ">Qq4x" if version == 1 else ">Ii4x"
            edits = [struct.unpack(form, file.read(struct.calcsize(form))) for _ in range(count)]
            shown = sum(length for length, media_time in edits if media_time >= 0)
            return shown / scale if shown else None
    return None
