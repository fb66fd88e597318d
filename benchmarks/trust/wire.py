"""Protobuf's wire format, written field by field, so that a message may break every rule of it.

References:
    protobuf.dev/programming-guides/encoding.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence

__all__ = ["BYTES", "VARINT", "Field", "field", "message", "mutated_message", "read", "varint"]

VARINT, LONG, BYTES, SHORT = 0, 1, 2, 5  # wire types; 3 and 4 are groups, 6 and 7 are none
Field = tuple[int, int, int | bytes]  # number, wire type and value
Tree = Mapping[int, "Tree"]  # numbers of the fields that are messages, and those of each
EDGES = (0, 1, 2, 127, 128, 2**31, 2**32 - 1, 2**62, 2**63, 2**64 - 1)
DEEPEST = 4  # levels below the message that are changed


def varint(value: int, padding: int = 0) -> bytes:
    """A number in groups of seven bits; ``padding`` groups of zeros more than it needs."""
    found = bytearray()
    while value > 127:
        found.append(value & 127 | 128)
        value >>= 7
    if not padding:
        return bytes((*found, value))
    return bytes((*found, value | 128, *[128] * (padding - 1), 0))


def field(number: int, wire: int, value: int | bytes, padding: int = 0) -> bytes:
    """One field; a wire type that does not fit the value is written all the same."""
    tag = varint(number << 3 | wire, padding)
    if wire == BYTES:
        data = value if isinstance(value, bytes) else varint(value)
        return tag + varint(len(data), padding) + data
    if wire == VARINT and isinstance(value, int):
        return tag + varint(value, padding)
    size = {LONG: 8, SHORT: 4}.get(wire, 0)
    data = value if isinstance(value, bytes) else value.to_bytes(10, "little")
    return tag + data[:size].ljust(size, b"\0")


def message(fields: Sequence[Field], padding: int = 0) -> bytes:
    """A message of fields, in this order."""
    return b"".join(field(*each, padding) for each in fields)


def read(data: bytes) -> list[Field]:
    """Fields of a message that keeps the rules."""
    found, at = list[Field](), 0
    while at < len(data):
        tag, at = _number(data, at)
        if tag & 7 == VARINT:
            value, at = _number(data, at)
            found.append((tag >> 3, VARINT, value))
            continue
        size = {LONG: 8, SHORT: 4}.get(tag & 7, 0)
        if tag & 7 == BYTES:
            size, at = _number(data, at)
        found.append((tag >> 3, tag & 7, data[at : at + size]))
        at += size
    return found


def _number(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while data[at] > 127:
        value |= (data[at] & 127) << shift
        at, shift = at + 1, shift + 7
    return value | data[at] << shift, at + 1


def mutated_message(data: bytes, tree: Tree, rng: random.Random, deepest: int = DEEPEST) -> bytes:
    """Change a field of a message, or of a message in it, by a rule that the format has not."""
    fields = read(data)
    if not fields:
        return field(rng.randrange(1, 30), rng.randrange(8), rng.choice(EDGES))
    inner = [i for i, (number, wire, _) in enumerate(fields) if wire == BYTES and number in tree]
    if inner and deepest and rng.random() < 0.75:
        index = rng.choice(inner)
        number, wire, value = fields[index]
        assert isinstance(value, bytes)
        changed = mutated_message(value, tree[number], rng, deepest - 1)
        fields[index] = (number, wire, changed)
        return message(fields)
    index, kind = rng.randrange(len(fields)), rng.randrange(8)
    number, wire, value = fields[index]
    if kind == 0:
        fields[index] = (number, rng.randrange(8), value)
    elif kind == 1:
        fields.insert(rng.randrange(len(fields) + 1), fields[index])  # a message again is merged
    elif kind == 2:
        fields.append((number, rng.choice((VARINT, LONG, BYTES, SHORT)), rng.choice(EDGES)))
    elif kind == 3 and isinstance(value, bytes):
        cut = rng.randrange(len(value) + 1)
        fields[index : index + 1] = [(number, wire, value[:cut]), (number, wire, value[cut:])]
    elif kind == 4:
        fields[index] = (rng.choice((0, 1, 2, 9, 13, 14, 19, 999, 2**29 - 1)), wire, value)
    elif kind == 5:
        del fields[index]
    elif kind == 6:
        fields[index] = (number, wire, rng.choice(EDGES))
    else:
        rng.shuffle(fields)
    return message(fields, padding=rng.choice((0, 0, 0, 1, 3)))
