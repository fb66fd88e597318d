"""Class names and vectors: spellings, unit rows, rows stored small, S (section 3.1).

numpy only, so that an edge device computes exactly what training saw.
"""

from __future__ import annotations

from typing import Any
from unicodedata import category, normalize

import numpy as np
from numpy.typing import NDArray

from zsd_core.errors import ConfigError, DataError, expect_shapes

__all__ = [
    "as_numbers",
    "float32",
    "fold_name",
    "name_fault",
    "plain_name",
    "quantize_rows",
    "row_lengths",
    "seen_similarity",
    "similarity",
    "similarity_of_cosines",
    "unit_rows",
]

Floats = NDArray[np.floating[Any]]
# Letters that NFD takes no accent from, then quotes and hyphens.
_KEYBOARD = str.maketrans(
    {"æ": "ae", "œ": "oe", "ø": "o", "ł": "l", "đ": "d", "\u0131": "i"}
    | dict.fromkeys("\u2018\u2019\u02bc", "'")
    | dict.fromkeys("\u2010\u2011\u2012\u2013\u2212", "-")
)
# What makes a reader see other letters in another order; marks of a single letter's side may stay.
_REORDERING = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


def fold_name(name: str) -> str:
    """The form names are compared in, whoever typed them.

    Lower case, one blank for underscores and runs of white space, and Unicode's NFKC: an accent is
    the same whether it is a letter's part or a sign of its own, as file systems write it.
    """
    return " ".join(normalize("NFKC", name).replace("_", " ").split()).casefold()


def plain_name(name: str) -> str:
    """The folded form with the letters, quotes and hyphens of an English keyboard.

    "Café" is "cafe", and typographic apostrophes are plain ones. Letters of other scripts stay.
    """
    folded = fold_name(name)
    if folded.isascii():
        return folded
    parts = normalize("NFD", folded.translate(_KEYBOARD))
    return normalize("NFC", "".join(sign for sign in parts if not "\u0300" <= sign <= "\u036f"))


def name_fault(name: str) -> str:
    """Why a text cannot be the name of a class; "" where it can.

    A name must be writable as UTF-8 and must be what a reader sees: it holds no half of a surrogate
    pair, no control character and nothing that reorders the letters around it. White space counts
    as blanks; letters and marks of any script are welcome, as are the joiners between them.
    """
    if name.isprintable():  # nearly every name
        return ""
    for character in " ".join(name.split()):
        kind = category(character)
        if kind == "Cs":
            return f"holds U+{ord(character):04X}, half of a character; names are UTF-8"
        if kind == "Cc" or character in _REORDERING:
            return f"holds U+{ord(character):04X}, a control character; leave it out"
    return ""


def as_numbers(value: Any) -> NDArray[Any]:
    """What a caller gives as an array; its ``dtype.kind`` is one of "fiu" where it is numbers.

    An array ``()`` of object where numpy raises: ragged lists, tensors of a GPU or of a gradient.
    """
    try:
        return np.asarray(value)
    except Exception:  # other libraries raise what they like
        return np.array(None, dtype=object)


def float32(numbers: Any) -> NDArray[np.float32]:
    """Numbers, or texts of numbers, as float32; one beyond its range is infinite, without a word.

    ``unit_rows`` then refuses the vector.
    """
    with np.errstate(over="ignore"):
        return np.array(numbers, dtype=np.float32)


def row_lengths(vectors: Floats) -> Floats:
    """The Euclidean length ``(K, 1)`` of every row, of their dtype.

    Squares are summed in float64, as C++ does: those of small and of large float32 are 0 and
    infinite in float32.
    """
    with np.errstate(over="ignore"):  # a length beyond the dtype is infinite
        lengths = np.linalg.norm(np.asarray(vectors, np.float64), axis=1, keepdims=True)
        return np.asarray(lengths, dtype=vectors.dtype)


def unit_rows(vectors: Floats) -> Floats:
    """Scale every row of ``(K, E)`` to unit Euclidean length.

    Raises:
        DataError: a row is zero or not finite, so it has no direction.
    """
    vectors = np.asarray(vectors)
    norms = row_lengths(vectors)
    usable = (norms > 0) & (norms < np.inf)
    if not usable.all():
        bad = int(np.argmin(usable))
        raise DataError(
            f"unit_rows: class vector {bad} has length {float(norms[bad, 0])}; "
            "every class needs a finite, non-zero vector."
        )
    return np.asarray(vectors / norms)


def quantize_rows(vectors: NDArray[Any]) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """Store rows ``(V, E)`` as int8 with one float32 scale each: row = int8 * scale.

    A row whose scale would be subnormal in float32, every entry below about 1.5e-36, is stored as
    zero: it has no direction to speak of, and looking it up is an error.
    """
    vectors = np.asarray(vectors, np.float32)
    largest = np.abs(vectors).max(axis=1, initial=0.0)
    smallest = 127 * np.finfo(np.float32).tiny
    scales = (np.where(largest >= smallest, largest, 1) / 127).astype(np.float32)
    return np.rint(vectors / scales[:, None]).astype(np.int8), scales


def seen_similarity(seen: Floats, unseen: Floats, temperature: float) -> Floats:
    """The stored block of S: how much each seen class resembles each unseen one.

    Args:
        seen: ``(Ks, E)`` vectors of the seen classes.
        unseen: ``(U, E)`` vectors of the unseen classes.
        temperature: divides the cosine before the softmax; 1 is the paper's formula, smaller is
            sharper.

    Returns:
        ``(Ks, U)``; every row is softmax(cosine / temperature) and sums to 1 (``U = 0``: empty).

    References:
        Paper section 3.1, "Category Similarity".
    """
    expect_shapes(
        "seen_similarity",
        "Both need the width E of one encoder.",
        seen=(seen, "Ks E"),
        unseen=(unseen, "U E"),
    )
    if not len(unseen) or not len(seen):
        return np.zeros((len(seen), len(unseen)), dtype=np.asarray(seen).dtype)
    return similarity_of_cosines(unit_rows(seen) @ unit_rows(unseen).T, temperature)


def similarity_of_cosines(cosines: Floats, temperature: float) -> Floats:
    """The rows of S from cosines ``(Ks, U)``: softmax(cosine / temperature) over unseen classes.

    Kept apart from the cosines because those of a class never change, while every entry of S does
    when a class comes or goes.
    """
    if not temperature > 0:
        raise ConfigError(f"similarity temperature is {temperature}, must be above 0.")
    if not cosines.size:
        return np.zeros(cosines.shape, cosines.dtype)
    weights = cosines - np.maximum.reduce(cosines, axis=1, keepdims=True)
    weights /= temperature  # in place: with many classes, new memory costs more than the sums
    np.exp(weights, out=weights)
    weights /= np.add.reduce(weights, axis=1, keepdims=True)
    return np.asarray(weights)


def similarity(seen: Floats, unseen: Floats, temperature: float) -> Floats:
    """S in full, ``(1 + Ks + U, U)``: background row zero, seen rows softmax, unseen rows one-hot.

    Only the seen block carries information; the runtime never builds this matrix. It is for
    training targets (eq. 9), for ``detector.onnx``, and for tests.
    """
    block = seen_similarity(seen, unseen, temperature)
    count = block.shape[1]
    background = np.zeros((1, count), block.dtype)
    return np.concatenate([background, block, np.eye(count, dtype=block.dtype)])
