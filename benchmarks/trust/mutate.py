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
    *(float("nan"), float("inf"), -float("inf"), 2**31, 2**63, 2**64, -(2**63), 10**40),
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
    """Change a few places of a JSON value: another value, a key less, more or renamed."""
    value = _copied(value)
    for _ in range(rng.randint(1, most)):
        holder, key = _place(value, rng)
        if holder is None:
            return _copied(rng.choice(odd))
        kind = rng.randrange(6)
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
        elif kind == 4 and isinstance(holder[key], (int, float)):
            holder[key] = rng.choice((-holder[key], holder[key] + 1, holder[key] * 10**9, 0))
        else:
            holder[key] = _copied(rng.choice(odd))
    return value


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
