"""Hostile inputs from good ones: bytes, JSON values, and names that are not what they seem."""

from __future__ import annotations

import json
import marshal
import random
import struct
from collections.abc import Sequence
from typing import Any

__all__ = ["NAMES", "ODD", "mutated_bytes", "mutated_json", "written_json"]

INTEGERS = (0, 1, 127, 128, 255, 2**15, 2**16 - 1, 2**31 - 1, 2**31, 2**32 - 1, 2**40, 2**63 - 1)
LONG = 10**400  # an integer that JSON and Python hold, and no float
MANY = 0.1  # share of the growths that are made: they take milliseconds
# Paths that leave the bundle, or that some file system takes for another one.
NAMES = (
    "../outside",
    "/etc/passwd",
    "a/../../outside",
    "./trunk.onnx",
    "trunk.onnx/",
    "C:\\outside",
    "TRUNK.ONNX",
    "trunk\u200b.onnx",
    "tr\u03c5nk.onnx",
    "\uff54runk.onnx",
    "trunk.onnx ",
    "trunk.onnx.",
    "CON",
    "manifest.json",
    "MANIFEST.JSON",
    "a\x00b",
    "a\nb",
    "\ud800",
    "x" * 300,
    "a/" * 600 + "b",
)
ODD: tuple[Any, ...] = (
    *(None, True, False, "", "x", [], {}, [[]], {"": None}, -1, 0, 1, 2, 0.5, 1e308),
    *(
        float("nan"),
        float("inf"),
        -float("inf"),
        2**31,
        2**63,
        2**64,
        -(2**63),
        10**40,
        10**309,
        -(10**4298),
    ),
    *([1, 2], {"a": 1}, ["a"], "\ud800", "x" * 5000, *NAMES),
)


def mutated_bytes(data: bytes, rng: random.Random, most: int = 6) -> bytes:
    """Change a few bytes: flipped, cut, doubled, or integers that lie at an edge."""
    changed = bytearray(data)
    for _ in range(rng.randint(1, most)):
        size = len(changed)
        if not size:
            return bytes(rng.randbytes(rng.randint(0, 40)))
        at, kind = rng.randrange(size), rng.randrange(8)
        if rng.random() < 0.5:  # headers come first
            at = min(at, rng.randrange(1, 200), size - 1)
        if kind == 0:
            changed[at] ^= 1 << rng.randrange(8)
        elif kind == 1:
            changed[at] = rng.choice((0, 1, 0x7F, 0x80, 0xFF, 0x22, 0x7B, 0x5B))
        elif kind == 2:
            del changed[at : at + rng.randint(1, 64)]
        elif kind == 3:
            changed[at:at] = rng.randbytes(rng.randint(1, 16))
        elif kind == 4:
            length = rng.randint(1, 200)
            changed[at:at] = changed[at : at + length]
        elif kind == 5:
            layout = rng.choice(("<I", "<Q", ">I", ">Q", "<H"))
            limit = 1 << 8 * struct.calcsize(layout)
            number = struct.pack(layout, rng.choice(INTEGERS) % limit)
            changed[at : at + len(number)] = number
        elif kind == 6:
            other = rng.randrange(size)
            changed[at : at + 16] = changed[other : other + 16]
        else:
            del changed[at if rng.random() < 0.5 else size - rng.randint(1, min(64, size)) :]
    return bytes(changed)


def mutated_json(value: Any, rng: random.Random, most: int = 3, odd: Sequence[Any] = ODD) -> Any:
    """Change a few places of a JSON value: another value, or a key less, more or renamed.

    An element may take the place of its list, and a part that of another; a list or an object may
    grow by thousands of elements.
    """
    value, grown = _copied(value), False
    for _ in range(rng.randint(1, most)):
        holder, key = _place(value, rng)
        if holder is None:
            return _copied(rng.choice(odd))
        kind = rng.randrange(10)
        if kind == 0:
            del holder[key]
        elif kind == 1 and isinstance(holder, dict):
            holder[rng.choice((*NAMES, "x", key.upper(), key + " "))] = holder.pop(key)
        elif kind == 2 and isinstance(holder, list):
            holder[key:key] = [_copied(holder[key])] * rng.choice((1, 2, 1000))
        elif kind == 3:
            nested: Any = _copied(rng.choice(odd))  # a later change must not reach `odd`
            for _ in range(rng.choice((1, 10, 60))):
                nested = [nested] if rng.random() < 0.5 else {"a": nested}
            holder[key] = nested
        elif kind == 4 and isinstance(holder[key], (int, float)) and abs(holder[key]) <= 1e308:
            holder[key] = rng.choice((-holder[key], holder[key] + 1, holder[key] * 10**9, 0))
        elif kind == 5:
            holder[key] = _unlike(holder[key], rng)
        elif kind == 6:
            source, place = _place(value, rng)
            holder[key] = _copied(source[place])
        elif kind == 7 and not grown and rng.random() < MANY:  # twice would be millions
            _grow(holder, key, rng)
            grown = True
        else:
            holder[key] = _copied(rng.choice(odd))
    return value


def _unlike(value: Any, rng: random.Random) -> Any:
    """A value of another kind that some reader takes for the same one."""
    if isinstance(value, list) and value and rng.random() < 0.7:
        return value[rng.randrange(len(value))]
    if isinstance(value, dict) and value and rng.random() < 0.7:
        return rng.choice((list(value), list(value.values()), [*map(list, value.items())]))
    if isinstance(value, (int, float)):
        return rng.choice((str(value), str(value).lower(), [value], bool(value), LONG, -LONG))
    if isinstance(value, str):
        return rng.choice((list(value), [value], {value: value}, value.upper(), LONG))
    return [value]


def _grow(holder: Any, key: Any, rng: random.Random) -> None:
    """Let a list or a dict, or what holds them, have thousands of different elements."""
    grown = holder[key] if isinstance(holder[key], (list, dict)) and holder[key] else holder
    place = rng.choice(list(grown)) if isinstance(grown, dict) else rng.randrange(len(grown))
    example = grown[place]
    count = min(rng.choice((300, 1000, 3000)), 200_000 // len(marshal.dumps(example)))
    if isinstance(grown, dict):
        grown.update((f"x{n}", _numbered(example, n)) for n in range(count))
    else:
        grown.extend([_numbered(example, n) for n in range(count)])
        if rng.random() < 0.5:  # the last one again, for readers that look through all before it
            grown.append(_copied(grown[-1]))


def _numbered(value: Any, number: int) -> Any:
    """A copy whose names and numbers are other ones than those of every other copy."""
    if isinstance(value, dict):
        return {key: _numbered(inner, number) for key, inner in value.items()}
    if isinstance(value, list):
        return [_numbered(inner, number) for inner in value]
    if isinstance(value, str):
        return f"{value}{number}"
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return value + number if abs(value) < 1e300 else value
    return _copied(value)


def _copied(value: Any) -> Any:
    """A deep copy of plain values; marshal takes a tenth of the time of copy.deepcopy."""
    return marshal.loads(marshal.dumps(value))


def _place(value: Any, rng: random.Random) -> tuple[Any, Any]:
    """A random place of a JSON value: what holds it, and its key; None for an empty value."""
    holder, key = None, None
    while isinstance(value, (dict, list)) and value:
        if holder is not None and rng.random() < 0.25:
            break
        holder = value
        key = rng.choice(list(value)) if isinstance(value, dict) else rng.randrange(len(value))
        value = value[key]
    return holder, key


def written_json(value: Any, rng: random.Random) -> bytes:
    """Write JSON; now and then in a way that is no JSON, or not any more."""
    text = json.dumps(value, ensure_ascii=rng.random() < 0.7)
    data = text.encode("utf-8", "surrogatepass")
    if rng.random() < 0.02:
        return b"[" * 100_000 + data
    if rng.random() < 0.05:
        return data.replace(b"1", b"1" * 5000, 1)  # more digits than int() converts
    return mutated_bytes(data, rng) if rng.random() < 0.2 else data
