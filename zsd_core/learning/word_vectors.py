"""Read word vectors: word2vec's text and binary, fastText's and GloVe's text, each also as .gz."""

from __future__ import annotations

import gzip
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from io import BufferedIOBase
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from zsd_core.errors import DataError, require
from zsd_core.files import shown
from zsd_core.semantics import float32

__all__ = ["read_words"]

Vectors = NDArray[np.float32]
LONGEST_LINE = 1 << 20  # bytes of a word and its numbers
LONGEST_WORD = 1 << 12  # bytes of a word in a binary file
FACTOR = 100  # a .gz may unpack to so many times its size; word vectors shrink to a third
FREE = 16 << 20  # bytes that any .gz may unpack to
CHUNK = 1 << 16


def read_words(path: Path, *, binary: bool) -> tuple[Sequence[str], Callable[[str], Vectors], str]:
    """The words of a file, the vector of each, and the file's format.

    A word that stands there twice has its first vector.

    Raises:
        DataError: it has another format, or is far larger than its size lets expect.
        OSError, EOFError, ValueError, zlib.error: it cannot be read.
    """
    lines = _lines(path)
    first = b"" if binary else next(lines, b"")
    numbers = len(first.split()) - 1
    if not binary and numbers != 1:  # "count width" heads every format but GloVe's
        return *_glove(path, max(numbers, 0)), "GloVe text"
    kind = "word2vec binary" if binary else "word2vec text"
    with _unpacked(path) as file:
        count, width = (int(number) for number in file.readline(100).split())
        least = count * width * (4 if binary else 2)  # bytes
        if min(count, width) < 1 or least > file.left:
            raise DataError(
                f"{path} has {path.stat().st_size} bytes, too few for {count} x {width}."
            )
        if binary:
            _check_binary(file, count, width)
    for _ in () if binary or path.suffix != ".gz" else lines:
        pass  # nothing is kept; a line that is too long, or one too many, is an error
    models = require("gensim.models", "train")
    try:
        vectors = models.KeyedVectors.load_word2vec_format(str(path), binary=binary)
    except Exception as error:  # of kinds that gensim chooses
        raise DataError(f"cannot read class vectors {path}: {error}") from error
    return list(vectors.key_to_index), vectors.get_vector, kind


class _Unpacked:
    """Bytes of a file that are unpacked as they are read, and no more of them than is likely."""

    def __init__(self, file: BufferedIOBase, path: Path) -> None:
        size = path.stat().st_size
        self.left = max(FREE, FACTOR * size) if path.suffix == ".gz" else size
        self.path = path
        self._file = file

    def read(self, most: int) -> bytes:
        return self._taken(self._file.read(most))

    def readline(self, most: int) -> bytes:
        return self._taken(self._file.readline(most))

    def _taken(self, data: bytes) -> bytes:
        self.left -= len(data)
        if self.left < 0:
            raise DataError(
                f"{self.path} unpacks to more than {FACTOR} times its size, which no word vectors "
                "do; if they are yours, unpack them yourself."
            )
        return data


@contextmanager
def _unpacked(path: Path) -> Iterator[_Unpacked]:
    with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
        yield _Unpacked(file, path)


def _lines(path: Path) -> Iterator[bytes]:
    """Lines of a text file, each with its end."""
    with _unpacked(path) as file:
        while line := file.readline(LONGEST_LINE + 1):
            if len(line) > LONGEST_LINE:
                raise DataError(
                    f"{path} holds a line of more than {LONGEST_LINE} bytes, which is no word and "
                    f"its numbers: {shown(line[:20])}..."
                )
            yield line


def _check_binary(file: _Unpacked, count: int, width: int) -> None:
    """Refuse words without an end, and a file that ends early, before anything is kept."""
    buffer, at = b"", 0
    for number in range(count):
        end = buffer.find(b" ", at, at + LONGEST_WORD)
        if end < 0:
            buffer, at = buffer[at:] + file.read(CHUNK), 0
            end = buffer.find(b" ", 0, LONGEST_WORD)
        if end < 0:
            raise DataError(
                f"{file.path} is not in word2vec's binary format: word {number} of {count} has no "
                f"end within {LONGEST_WORD} bytes."
            )
        at = end + 1 + 4 * width
        while at > len(buffer):
            at -= len(buffer)
            buffer = file.read(CHUNK)
            if not buffer:
                raise DataError(f"{file.path} ends within the vector of word {number} of {count}.")


def _glove(path: Path, width: int) -> tuple[list[str], Callable[[str], Vectors]]:
    """Split from the right: some of GloVe's words hold spaces, which gensim cannot read."""
    places: dict[str, int] = {}
    rows: list[Vectors] = []
    for line in _lines(path):
        word, *numbers = line.decode("utf-8").rstrip("\n").rsplit(" ", width)
        if not numbers or len(numbers) != width:
            raise DataError(
                f"{path} is not in GloVe's format, a word and its numbers: {shown(line.decode())}"
            )
        if places.setdefault(word, len(rows)) == len(rows):
            rows.append(float32(numbers))
    if not rows:
        raise DataError(f"{path} is not in GloVe's format, a word and its numbers: it is empty.")
    return list(places), lambda word: rows[places[word]]
