"""The number that means white in a picture of 16 bits, where its file says it."""

from __future__ import annotations

import re

from zsd_core.pictures.png import png_chunks
from zsd_core.pictures.size import PNM_BLANK

__all__ = ["declared_white"]

_PNM = re.compile(rb"P[2356]\s" + 3 * (PNM_BLANK + rb"(\d{1,9})\s"))


def declared_white(data: bytes) -> int | None:
    """The largest number that a file says, by a PNG's ``sBIT`` or a PNM's maximum.

    A PNG whose numbers fill 16 bits, whatever bits a camera had, holds larger ones.
    """
    if data[:4] == b"\x89PNG":
        for kind, at, length in png_chunks(data):
            if kind == b"sBIT" and length in (1, 2, 3, 4):
                bits = max(data[at : at + (1, 1, 3, 3)[length - 1]])  # not that of transparency
                return (1 << bits) - 1 if 8 <= bits <= 16 else None
            if kind == b"IDAT":
                break
        return None
    header = _PNM.match(data)
    return int(header[3]) if header and 255 < int(header[3]) < 65535 else None
