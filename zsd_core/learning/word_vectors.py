"""Read word vectors: word2vec's text and binary, fastText's and GloVe's text, each also as .gz."""

from __future__ import annotations

import codecs
import gzip
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from io import BufferedIOBase
from itertools import chain
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
    if not binary:
        return _text(path)
    with _unpacked(path) as file:
        count, width = (int(number) for number in file.readline(100).split())
        if min(count, width) < 1 or count * width * 4 > file.left:
            raise DataError(
                f"{path} has {path.stat().st_size} bytes, too few for {count} x {width}."
            )
        _check_binary(file, count, width)
    models = require("gensim.models", "train")
    try:
        vectors = models.KeyedVectors.load_word2vec_format(str(path), binary=True)
    except Exception as error:  # of kinds that gensim chooses
        raise DataError(f"cannot read class vectors {path}: {error}") from error
    return list(vectors.key_to_index), vectors.get_vector, "word2vec binary"


class _Unpacked:
    """Bytes of a file that are unpacked as they are read, and no more of them than is likely."""

    def __init__(self, file: BufferedIOBase, path: Path) -> None:
        self.left = _limit(path)
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


def _limit(path: Path) -> int:
    """The most bytes that are read of a file."""
    size = path.stat().st_size
    return max(FREE, FACTOR * size) if path.suffix == ".gz" else size


@contextmanager
def _unpacked(path: Path) -> Iterator[_Unpacked]:
    with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
        yield _Unpacked(file, path)


def _lines(path: Path) -> Iterator[bytes]:
    """Lines of a text file that are not blank, without their ends and a byte order mark."""
    with _unpacked(path) as file:
        mark = codecs.BOM_UTF8
        while line := file.readline(LONGEST_LINE + 1):
            if len(line) > LONGEST_LINE:
                raise DataError(
                    f"{path} holds a line of more than {LONGEST_LINE} bytes, which is no word and "
                    f"its numbers: {shown(line[:20])}..."
                )
            if mark and b"\0" in line:
                raise DataError(f"{path} is UTF-16, or no text; save it as UTF-8.")
            line, mark = line.removeprefix(mark).rstrip(), b""
            if line:
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


def _text(path: Path) -> tuple[list[str], Callable[[str], Vectors], str]:
    """A word and its numbers a line, between blanks or tabs.

    "count width" heads every format but GloVe's. Numbers are split off from the right, because
    some of GloVe's words hold blanks.
    """
    lines = _lines(path)
    first = next(lines, b"")
    if not first:
        raise DataError(f"{path} is empty; word vectors are a word and its numbers a line.")
    head = first.split()
    heads = len(head) == 2 and head[0].isdigit() and head[1].isdigit()
    count, width = (int(head[0]), int(head[1])) if heads else (1, len(head) - 1)
    places: dict[str, int] = {}
    rows: list[Vectors] = []
    if 2 * count * width > _limit(path):
        raise DataError(f"{path} has {path.stat().st_size} bytes, too few for {count} x {width}.")
    found = 0
    for line in lines if heads else chain([first], lines):
        word, *numbers = line.rsplit(None, width)
        if line[:1].isspace() and len(numbers) == width - 1:  # the word is a blank
            word, numbers = b"", [word, *numbers]
        if width < 1 or len(numbers) != width:
            raise DataError(
                f"{path} must hold a word and {max(width, 1)} numbers on every line: {shown(line)}"
            )
        try:
            name = word.decode("utf-8")
        except UnicodeDecodeError as error:
            raise DataError(f"{path} is no text in UTF-8 ({error}); save it as UTF-8.") from error
        if places.setdefault(name, len(rows)) == len(rows):
            rows.append(float32(numbers))
        found += 1
    if found < count:
        raise DataError(
            f"{path} holds {found} words and their numbers, not {count}; copy it again."
        )
    return list(places), lambda word: rows[places[word]], "word2vec text" if heads else "GloVe text"
