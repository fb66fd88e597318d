"""Whether a video file ends where its own structure says, so that nothing was cut off.

The duration that Matroska, WebM and fragmented MP4 announce is that of the longest track, and may
count from a time before the first frame: a file whose pictures end before it is not damaged if it
is whole. MP4 with a table of its frames is ``runtime.mp4``'s.
"""

from __future__ import annotations

import struct
from typing import BinaryIO

__all__ = ["is_whole"]

EBML, SEGMENT, CLUSTER = 0x1A45DFA3, 0x18538067, 0x1F43B675  # elements of a Matroska file
MOST = 2_000_000  # elements that are looked at: some hours of video and sound


def is_whole(path: str) -> bool | None:
    """Whether Matroska, WebM or fragmented MP4 is complete; None of other files and addresses."""
    try:
        with open(path, "rb") as file:
            size = file.seek(0, 2)
            file.seek(0)
            matroska = file.read(4) == EBML.to_bytes(4, "big")
            return _fills_segment(file, size) if matroska else _holds_fragments(file, size)
    except (OSError, ValueError):  # an address, or a name that no file can have
        return None


def _holds_fragments(file: BinaryIO, size: int) -> bool | None:
    """Whether the boxes of a fragmented MP4 fill it; None where no box is a fragment."""
    start, fragmented = 0, False
    for _ in range(MOST):
        file.seek(start)
        head = file.read(16)
        length, kind = struct.unpack(">I4s", head[:8].ljust(8, b"\0"))
        if length == 1 and len(head) == 16:
            (length,) = struct.unpack(">Q", head[8:])
        if length < 8 or not kind.isalnum():  # the end, zeros, or a head that is cut
            break
        fragmented |= kind == b"moof"
        start += length
    return start == size if fragmented else None


def _fills_segment(file: BinaryIO, size: int) -> bool | None:
    """Whether the blocks and other elements of a Matroska file reach its announced end."""
    start, end = 0, size
    for _ in range(MOST):
        if start >= end:
            return start == end <= size
        file.seek(start)
        (name, _bits), (marked, bits) = _number(file), _number(file)
        if not name or not marked:  # zeros, or a head that is cut
            return False
        start, length = file.tell(), marked - (1 << bits)
        known = marked != (2 << bits) - 1
        if name == SEGMENT and known:
            end = start + length
        elif name not in (SEGMENT, CLUSTER):  # whose elements follow
            if not known:
                return False
            start += length
    return None


def _number(file: BinaryIO) -> tuple[int, int]:
    """A number with the bit that marks its width, and how many bits follow; 0 if there is none."""
    first = file.read(1)
    width = 9 - first[0].bit_length() if first else 9
    data = first + file.read(width - 1)
    whole = width < 9 and len(data) == width
    return (int.from_bytes(data, "big") if whole else 0), 7 * width
