"""Protobuf's wire format, read as its own parsers read it, or refused.

What one reader skips and another takes would let a weight past a check: a tag or number of more
bits than its type has, or a list that ends within a number, is an error here.

References:
    protobuf.dev/programming-guides/encoding.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator

__all__ = ["BYTES", "LONG", "SHORT", "VARINT", "Malformed", "fields", "packed_varints"]

VARINT, LONG, BYTES, SHORT = 0, 1, 2, 5  # wire types
TAG_BITS = 32


class Malformed(Exception):
    """The file breaks the wire format, or a message its declaration."""


def fields(data: mmap.mmap, start: int, end: int) -> Iterator[tuple[int, int, int, int]]:
    """Field, wire type, and the number, or where the field's bytes begin and end."""
    while start < end:
        tag = data[start]
        if tag < 128:
            start += 1
        else:
            tag, start = _varint(data, start, end)
        field, wire = tag >> 3, tag & 7
        if not field or tag >> TAG_BITS:
            raise Malformed("a field has a number that protobuf does not know")
        if wire == VARINT:
            value, start = _varint(data, start, end)
            yield field, wire, value, 0
            continue
        if wire == BYTES:
            length, start = _varint(data, start, end)
        elif wire in (LONG, SHORT):
            length = 8 if wire == LONG else 4
        else:
            raise Malformed(f"its wire type {wire} is none of ONNX's")
        if length > end - start:
            raise Malformed("a field is longer than the file")
        yield field, wire, start, start + length
        start += length


def packed_varints(data: mmap.mmap, start: int, end: int) -> Iterator[int]:
    """The numbers of a packed list."""
    while start < end:
        value, start = _varint(data, start, end)
        yield value


def _varint(data: mmap.mmap, start: int, end: int) -> tuple[int, int]:
    value = shift = 0
    while start < end and shift < 70:
        byte = data[start]
        value |= (byte & 127) << shift
        start, shift = start + 1, shift + 7
        if byte < 128:
            return value & (1 << 64) - 1, start
    raise Malformed("it ends within a number")
