"""Class vectors by name, from word vectors, tables, attributes or a sentence encoder.

The source decides the reader:

    *.txt *.vec *.bin (and .gz)  word vectors: text of word2vec, fastText and GloVe, word2vec binary
                                 (by gensim); a .gz unpacks to 100 times its size at most
    *.csv                        a table; names inline, or in FILE.csv::NAMES.txt, one a line.
                                 Between commas, semicolons, tabs or blanks. Comments (#) and a
                                 header may come first; pandas' index is left out
                                 Rows are classes; columns are where only their count fits, as in
                                 aPY's 64 x 20 attributes (*.txt with ::NAMES.txt works too)
    *.npz *.safetensors          "vectors" and "names"; a bundle's vocabulary too
    minilm[:FOLDER]              sentence vectors of "a photo of a NAME." (extra: text)

Where a name stands twice in a source, its first vector counts.
"""

from __future__ import annotations

import csv
import os
import re
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import dropwhile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file

from zsd_core.errors import ClassError, DataError, did_you_mean
from zsd_core.files import read_lines, read_npz, read_text, shown
from zsd_core.learning.data.splits import VOC_TO_COCO
from zsd_core.learning.word_vectors import read_words
from zsd_core.semantics import float32, fold_name, row_lengths, unit_rows
from zsd_core.text import TEMPLATE, encode_names, encoder_folder

__all__ = ["VectorTable", "load_vectors", "stored_names"]

Vectors = NDArray[np.float32]
MOST_NAMED = 10  # classes without a vector whose nearest spellings are looked for
SAMPLE = 20  # lines of a table that show its separator
_COCO_TO_VOC = {coco: voc for voc, coco in VOC_TO_COCO.items()}


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class VectorTable:
    """One vector per class.

    Attributes:
        names: the classes, in the order asked for.
        vectors: ``(K, E)`` float32, unit rows.
        provenance: source, kind, width, normalisation, lengths before it, names that were averaged
            over words or found under another spelling. JSON values only.
    """

    names: tuple[str, ...]
    vectors: Vectors
    provenance: Mapping[str, Any] = field(default_factory=dict)


def load_vectors(
    source: str | Path, names: Sequence[str], *, template: str = TEMPLATE
) -> VectorTable:
    """Find the vector of every name.

    A name of several words takes the phrase's own vector if the source has one (``fire_truck``,
    ``fire-truck``), else the mean of its words'. VOC and COCO spellings stand for each other.

    Args:
        source: see the module's list.
        names: class names.
        template: sentence around a name, for "minilm".

    Raises:
        ClassError: names the source does not know, with its nearest spellings.
        DataError: an unreadable or malformed source.
    """
    text = str(source)
    kind, _, place = text.partition(":")
    if kind == "minilm":
        rows = encode_names(names, template=template, folder=place)
        how = {"template": template, "encoder": "all-MiniLM-L6-v2"}
        return _table(names, rows, {"source": _label(encoder_folder(place)), "kind": kind, **how})
    file, _, names_file = text.partition("::")
    path = Path(file)
    if not os.path.isfile(path):  # False too where the name is none that a file can have
        raise DataError(f"no class vectors at {shown(file)}; give a file, or minilm.")
    known, kind = _open(path, Path(names_file) if names_file else None)
    found = [_find(name, known) for name in names]
    missing = [name for name, (row, _) in zip(names, found, strict=True) if row is None]
    if missing:
        hints = "; ".join(f"{shown(name)}{_near(name, known)}" for name in missing[:MOST_NAMED])
        others = len(missing) - MOST_NAMED
        raise ClassError(
            f"{path} has no vector for {len(missing)} of {len(names)} classes: {hints}"
            f"{f'; and {others} others' if others > 0 else ''}"
        )
    other = {
        name: spelling for name, (_, spelling) in zip(names, found, strict=True) if spelling != name
    }
    rows = float32([row for row, _ in found]).reshape(len(names), -1)
    return _table(names, rows, {"source": path.name, "kind": kind, "found as": other})


def _table(names: Sequence[str], rows: Vectors, provenance: Mapping[str, Any]) -> VectorTable:
    lengths = row_lengths(rows)[:, 0]
    for name, length in zip(names, lengths, strict=True):
        if not 0 < length < np.inf:
            raise DataError(
                f"{provenance['source']}: the vector of {name!r} has length {length:g}; every "
                "class needs one that is finite and not zero."
            )
    facts = {
        "width": int(rows.shape[1]),
        "normalisation": "unit length (L2)",
        "lengths before": [float(f(lengths)) for f in (np.min, np.max)] if len(names) else [],
    }
    vectors = np.asarray(unit_rows(rows), dtype=np.float32)
    return VectorTable(names=tuple(names), vectors=vectors, provenance={**provenance, **facts})


def _label(folder: str) -> str:
    """A model's name without the folders of this machine."""
    parts = Path(folder).parts
    return "/".join(parts[-2:]) if len(parts) > 2 else folder


class _Known:
    """Knowledge of a source: names in its own spelling, and a vector for each."""

    def __init__(self, keys: Sequence[str], vector: Callable[[str], Vectors]) -> None:
        self.keys, self.vector = keys, vector
        self.exact = set(keys)
        self.folded: dict[str, str] = {}
        for key in keys:  # the first spelling wins: frequent words come first in word vectors
            self.folded.setdefault(fold_name(key), key)

    def spelling(self, name: str) -> str | None:
        """The key for one name as a whole: as written, with _ or -, or in any case."""
        folded = fold_name(name)
        joined = [folded, folded.replace(" ", "_"), folded.replace(" ", "-")]
        for spelling in (name, *joined):
            if spelling in self.exact:
                return spelling
        return next((self.folded[s] for s in joined if s in self.folded), None)


def _find(name: str, known: _Known) -> tuple[Vectors | None, str]:
    folded = fold_name(name)
    for candidate in (name, VOC_TO_COCO.get(folded), _COCO_TO_VOC.get(folded)):
        if candidate is None:
            continue
        whole = known.spelling(candidate)
        if whole is not None:
            return known.vector(whole), whole
        words = [known.spelling(word) for word in fold_name(candidate).replace("-", " ").split()]
        if len(words) > 1 and None not in words:
            rows = np.array([known.vector(word) for word in words if word is not None])
            return rows.mean(axis=0), " + ".join(str(word) for word in words)
    return None, ""


def _near(name: str, known: _Known) -> str:
    """Nearest spellings among the keys that begin alike; a word list may hold millions."""
    folded = fold_name(name)
    alike = [
        key
        for key in known.keys
        if key[:1].lower() == folded[:1] and abs(len(key) - len(folded)) <= 2
    ]
    return did_you_mean(folded, alike[:50_000])


def _open(path: Path, names_file: Path | None) -> tuple[_Known, str]:
    suffixes = [suffix for suffix in path.suffixes if suffix != ".gz"]
    suffix = suffixes[-1] if suffixes else ""
    try:
        if suffix == ".npz":
            return _arrays(path, read_npz(path)), "npz"
        if suffix == ".safetensors":
            return _arrays(path, _read_safetensors(path)), "safetensors"
        if suffix == ".csv" or names_file is not None:
            return _csv(path, names_file), "table"
        if suffix in (".txt", ".vec", ".bin"):
            words, vector, kind = read_words(path, binary=suffix == ".bin")
            return _Known(words, vector), kind
    except DataError:
        raise
    except (OSError, EOFError, ValueError, zlib.error) as error:
        raise DataError(f"cannot read class vectors {path}: {error}") from error
    raise DataError(
        f"{path}: class vectors come as .txt, .vec, .bin, .csv, .npz or .safetensors, not "
        f"{suffix or 'without a suffix'}."
    )


def _csv(path: Path, names_file: Path | None) -> _Known:
    lines = [line for line in read_text(path, "class vectors").split("\n") if line.strip(" ,;\t")]
    inline = names_file is None
    separator = _separator(lines[:SAMPLE], inline)
    while lines and lines[0].startswith("#") and not _is_row(lines[0], separator, inline):
        del lines[0]  # a comment
    cells = [_split(line, separator) for line in lines]
    header = cells.pop(0) if len(cells) > 1 and _is_header(cells[0]) else []
    if names_file is None:
        if all(_is_number(row[0]) and len(row) > 1 and not _is_number(row[1]) for row in cells):
            cells = [row[1:] for row in cells]  # pandas' index
        names, cells = [row[0].strip() for row in cells], [row[1:] for row in cells]
    else:
        names = read_lines(names_file, "class names", comments=False)
        if header and not header[0].strip() and all(_is_number(row[0]) for row in cells):
            cells = [row[1:] for row in cells]  # pandas' index
        elif len(cells) != len(names) and cells and len(cells[0]) > 2 and _counts(cells[0]):
            del cells[0]  # pandas' header
    if len({len(row) for row in cells}) > 1:
        raise DataError(f"{path}: its rows have different numbers of columns.")
    if separator != ",":
        cells = [[cell.replace(",", ".") for cell in row] for row in cells]
    table = float32(cells)
    if len(table) != len(names) and table.shape[1:] == (len(names),):
        table = table.T  # columns are classes
    if len(table) != len(names):
        raise DataError(
            f"{path} is a table of {' x '.join(map(str, table.shape))}, but there are {len(names)} "
            f"names{f' in {names_file}' if names_file else ''}; one side must match."
        )
    return _rows(names, table)


def _separator(lines: Sequence[str], inline: bool) -> str:
    """The separator that makes most lines rows, or else the most frequent of the last one."""

    def votes(separator: str) -> tuple[int, int]:
        count = 0 if separator == " " or not lines else lines[-1].count(separator)
        return sum(_is_row(line, separator, inline) for line in lines), count

    return max(" ;\t,", key=votes)  # of equals the first: numbers may hold a comma


def _is_row(line: str, separator: str, inline: bool) -> bool:
    """Whether several cells hold nothing but numbers; where names are inline, after the first."""
    cells = _split(line, separator)
    return len(cells) > 1 and all(map(_is_number, cells[inline:]))


def _split(line: str, separator: str) -> list[str]:
    """Cells of a line, without empty ones at its end; a quote that ends no cell is a letter."""
    line = line.rstrip(f" \t{separator}")
    if '"' in line:
        closed = re.sub(rf'" +(?={separator}|$)', '"', line)
        try:
            return next(
                csv.reader([closed], delimiter=separator, skipinitialspace=True, strict=True)
            )
        except csv.Error:
            pass
    return [cell for cell in line.split(separator) if cell or separator != " "]


def _is_header(row: Sequence[str]) -> bool:
    """Whether it names columns, which pandas counts; ``cat,0,1,2`` may be a class."""
    numbers = list(dropwhile(lambda cell: not _is_number(cell), row))
    unnamed = not row[0].strip() or len(row) - len(numbers) > 1
    return not numbers or (unnamed and _counts(numbers))


def _counts(row: Sequence[str]) -> bool:
    return [cell.strip() for cell in row] == [str(index) for index in range(len(row))]


def _is_number(cell: str) -> bool:
    """Whether it is one, also as a spreadsheet writes it in some countries (0,5)."""
    try:
        float(re.sub("(?<=[0-9]),(?=[0-9])", ".", cell))
    except ValueError:
        return False
    return True


def _arrays(path: Path, arrays: Mapping[str, NDArray[Any]]) -> _Known:
    for key in ("names", "vectors"):
        if key not in arrays:
            raise DataError(f"{path} holds {', '.join(arrays) or 'nothing'}, but not {key!r}.")
    names, vectors = stored_names(path, arrays["names"]), _numbers(path, arrays, "vectors")
    if vectors.ndim != 2 or len(vectors) != len(names):
        raise DataError(f"{path}: {len(names)} names and vectors of shape {vectors.shape}.")
    if "scales" in arrays:  # small integers times one scale per row
        scales = _numbers(path, arrays, "scales")
        if scales.shape != (len(names),):
            raise DataError(f"{path}: {len(names)} names and scales of shape {scales.shape}.")
        vectors = vectors * scales[:, None]
    return _rows(names, vectors)


def stored_names(path: Path, stored: NDArray[Any]) -> list[str]:
    """Names of an array of texts, or of UTF-8 text with a name a line.

    Raises:
        DataError: it is something else.
        UnicodeDecodeError: its bytes are not UTF-8.
    """
    if stored.ndim == 1 and stored.dtype == np.uint8:  # safetensors: UTF-8 text, newline joined
        return stored.tobytes().decode("utf-8").split("\n")
    if stored.ndim == 1 and stored.dtype.kind == "U":
        return [str(name) for name in stored.tolist()]
    if stored.ndim == 1 and stored.dtype.kind == "S":
        return [name.decode("utf-8") for name in stored.tolist()]
    raise DataError(
        f"{path}: names has shape {stored.shape} and dtype {stored.dtype}, must be one row of "
        "texts, or of the bytes of UTF-8 text with a name a line."
    )


def _numbers(path: Path, arrays: Mapping[str, NDArray[Any]], key: str) -> Vectors:
    array = arrays[key]
    if array.dtype.kind not in "fiu":
        raise DataError(
            f"{path}: {key} has dtype {array.dtype}, must be real numbers, such as float32."
        )
    return float32(array)


def _read_safetensors(path: Path) -> dict[str, NDArray[Any]]:
    try:
        return load_file(path)
    except Exception as error:  # numpy has no BF16 and no F8, and says so in several ways
        raise DataError(f"cannot read class vectors {path}: {error}") from error


def _rows(names: Sequence[str], vectors: Vectors) -> _Known:
    rows: dict[str, int] = {}
    for row, name in enumerate(names):
        rows.setdefault(name, row)  # the first, as in word vectors
    return _Known(names, lambda name: vectors[rows[name]])
