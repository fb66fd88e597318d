"""Hostile files of class vectors, in every format; what is taken must be what numpy reads."""

from __future__ import annotations

import gzip
import io
import random
import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.trust.arrays import bomb, other_arrays, other_headers, other_safetensors
from benchmarks.trust.attempts import WrongResultError, loader_part
from benchmarks.trust.mutate import mutated_bytes
from benchmarks.trust.parts.files import Planted
from benchmarks.trust.table import Attempt

__all__ = ["PARTS", "vectors"]

Array = np.ndarray[Any, Any]
WORDS = ("cat", "dog", "fire_truck")
ASKED = ("cat", "fire truck")
NUMBER = rb"-?[0-9]{1,9}(?:\.[0-9]{1,9})?"
PLAIN = {  # lines that leave nothing to interpret
    "txt": re.compile(rb"([a-z_]+)((?: " + NUMBER + rb"){4})\n"),
    "csv": re.compile(rb"([a-z_]+)((?:," + NUMBER + rb"){4})\n?"),
}
RARE = 0.0003  # share of the bombs, which take a second where they go off


def vectors(folder: Path) -> Attempt:
    """Files of class vectors, in every format."""
    from zsd_core.learning.vectors import load_vectors

    rows = np.random.default_rng(0).normal(size=(3, 4)).astype(np.float32)
    good = _good(rows)
    pickled = io.BytesIO()
    np.savez(pickled, names=np.array([Planted(folder / "planted")], object), vectors=rows[:1])
    blanks = gzip.compress(b"1 " * (48 << 20), 1)
    bombs = {"a.npz": bomb(), "a.txt.gz": blanks, "a.vec.gz": blanks}

    def attempt(rng: random.Random) -> None:
        name = rng.choice(list(good))
        right: Array | None = None
        judged = False
        if rng.random() < RARE:
            name = rng.choice(list(bombs))
            data, judged = bombs[name], True
        elif name == "a.npz" and rng.random() < 0.7:
            if rng.random() < 0.6:
                data, right = other_arrays(WORDS, rows, rng)
                judged = True
            else:
                data = other_headers(rng) if rng.random() < 0.9 else pickled.getvalue()
        elif name == "a.safetensors" and rng.random() < 0.5:
            data, right = other_safetensors(WORDS, rows, rng)
            judged = True
        else:
            data = _other_text(good[name], name, rng)
            right = _plain(data, name)
            judged = right is not None
        if name.endswith(".gz") and name not in bombs:
            data = gzip.compress(data, 1)
            if rng.random() < 0.5:
                data, judged = mutated_bytes(data, rng), False
        (folder / name).write_bytes(data)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            table = load_vectors(folder / name, ASKED)
        if not np.allclose(np.linalg.norm(table.vectors, axis=1), 1, atol=1e-3):
            raise WrongResultError("a vector is not of unit length")
        if (folder / "planted").exists():
            raise WrongResultError("a pickle ran")
        if judged:
            _judge(table.vectors, right, name)

    return attempt


def _good(rows: Array) -> Mapping[str, bytes]:
    from safetensors.numpy import save

    lines = [
        f"{word} " + " ".join(f"{value:.4f}" for value in row)
        for word, row in zip(WORDS, rows, strict=True)
    ]
    text = "\n".join(lines).encode() + b"\n"
    binary = b"3 4\n" + b"".join(
        word.encode() + b" " + row.tobytes() + b"\n" for word, row in zip(WORDS, rows, strict=True)
    )
    buffer = io.BytesIO()
    np.savez(buffer, names=np.array(WORDS), vectors=rows)
    packed = np.frombuffer("\n".join(WORDS).encode(), np.uint8)
    return {
        "a.txt": text,
        "a.vec": b"3 4\n" + text,
        "a.bin": binary,
        "a.csv": text.replace(b" ", b","),
        "a.npz": buffer.getvalue(),
        "a.safetensors": save({"names": packed, "vectors": rows}),
        "a.txt.gz": text,
        "a.vec.gz": b"3 4\n" + text,
        "a.bin.gz": binary,
    }


def _other_text(data: bytes, name: str, rng: random.Random) -> bytes:
    """Other bytes, counts, digits or lines."""
    kind = rng.random()
    if name.startswith(("a.vec", "a.bin")) and kind < 0.3:
        counts = [rng.choice((b"0", b"-1", b"3", b"4", b"9" * 11, b"x")) for _ in range(2)]
        return b" ".join(counts) + data[3:]
    if name in ("a.txt", "a.csv", "a.txt.gz") and kind < 0.5:
        lines = data.splitlines(keepends=True)
        if kind < 0.1:  # a word twice is its first row
            lines.append(lines[0].replace(b".", b"1.", 1))
        elif kind < 0.3:
            lines = [re.sub(rb"[0-9]", lambda _: b"%d" % rng.randrange(10), each) for each in lines]
        rng.shuffle(lines) if kind > 0.1 else None
        return b"".join(lines)
    return mutated_bytes(data, rng)


def _plain(data: bytes, name: str) -> Array | None:
    """Rows of ``WORDS`` in a text that leaves nothing to interpret; None of any other."""
    form = PLAIN.get(name.split(".")[1])
    found = dict[bytes, list[float]]()
    at = 0
    while form is not None and at < len(data):
        line = form.match(data, at)
        if line is None:
            return None
        numbers = line[2].replace(b",", b" ").split()
        found.setdefault(line[1], [float(number) for number in numbers])
        at = line.end()
    rows = [found.get(word.encode()) for word in WORDS]
    return None if None in rows else np.array(rows)


def _judge(found: Array, right: Array | None, name: str) -> None:
    """Compare unit vectors with the rows that the file holds; None: it must be refused."""
    if right is None:
        raise WrongResultError(f"taken: {name}, though its arrays are no vectors of the names")
    rows = right[[WORDS.index(word.replace(" ", "_")) for word in ASKED]]
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    if not np.allclose(found, rows / lengths, atol=1e-4):
        raise WrongResultError(f"other vectors than {name} holds: {found.tolist()}")


PARTS = (
    loader_part(
        vectors,
        "class-vectors",
        "nine formats: bytes, counts, types, shapes, headers, bombs, pickles; equal to numpy's",
        1_000_000,
        600,
    ),
)
