"""List the images of a batch: folders, globs, text lists and Parquet tables of paths."""

from __future__ import annotations

import glob
import hashlib
import json
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path, PurePath

from runtime.sources import IMAGES
from zsd_core.errors import ImageError, require
from zsd_core.files import decode_text

__all__ = ["Listing", "list_images"]

LISTS = {".txt", ".lst", ".list"}


@dataclass(frozen=True, slots=True)
class Listing:
    """Images in the order in which they are numbered.

    Attributes:
        paths: as they are opened; none is there twice.
        notes: sentences about files that were left out.
    """

    paths: tuple[str, ...]
    notes: tuple[str, ...] = ()

    @property
    def sha256(self) -> str:
        """Hash of the paths in their order; the contents of the images are not part of it."""
        digest = hashlib.sha256()
        for path in self.paths:
            digest.update(json.dumps(path).encode() + b"\n")
        return digest.hexdigest()


def list_images(
    inputs: Sequence[str], column: str | None = None, *, without: Path | None = None
) -> Listing:
    """List the images that the inputs name.

    Args:
        inputs: folders (searched recursively, hidden files not), images, globs such as
            ``"photos/**/*.jpg"``, text files with a path per line, and Parquet files of paths.
            Paths in a file are relative to the current folder.
        column: of Parquet files; None: "path", or the only column of text.
        without: a folder of which folders and globs list nothing: of the run's own pictures.

    Raises:
        ImageError: an input is not there, cannot be read, or names no image.
        MissingPackageError: a Parquet file is named and pyarrow is not installed.
    """
    here = os.getcwd()
    paths: dict[str, str] = {}  # as they are named first, by the path without "./" and "//"
    notes: list[str] = []
    for text in inputs:
        count, before = 0, len(paths)
        for path in _paths(text, column, notes, without):
            paths.setdefault(str(PurePath(here, path)), path)
            count += 1
        if not count:
            raise ImageError(f"{text}: names no image ({', '.join(sorted(IMAGES))}).")
        if (again := count - (len(paths) - before)) > 0:
            notes.append(f"{text}: {_count(again, 'path')} named before, searched once")
    return Listing(tuple(paths.values()), tuple(notes))


def _paths(text: str, column: str | None, notes: list[str], without: Path | None) -> Iterable[str]:
    """Paths of one input."""
    suffix = os.path.splitext(text)[1].lower()
    if os.path.isdir(text):
        return _images(text, _files_below(text, notes), notes, without)
    if os.path.isfile(text):
        if suffix in LISTS:
            return _lines(text)
        if suffix == ".parquet":
            return _column(text, column)
        if suffix in IMAGES:
            return [text]
        raise ImageError(
            f"{text}: {suffix or 'no suffix'} is neither an image ({', '.join(sorted(IMAGES))}), "
            f"a list ({', '.join(sorted(LISTS))}) nor a .parquet file."
        )
    if glob.has_magic(text):
        found = sorted({p for p in _matches(text, notes) if not os.path.isdir(p)})
        if not found:
            raise ImageError(f"{text}: no file matches; is the pattern quoted, as in '**/*.jpg'?")
        return _images(text, found, notes, without)
    raise ImageError(f"{text}: no such file or folder.")


def _files_below(folder: str, notes: list[str]) -> Iterator[str]:
    """Files of a folder and its subfolders in the order of their names, hidden ones not."""
    for place, files in _walk(folder, notes):
        yield from (os.path.join(place, name) for name in files)


def _matches(pattern: str, notes: list[str]) -> Iterator[str]:
    """What matches a glob, some of it twice; ``**`` follows no link, which may lead back."""
    parts = pattern.split("/")
    if "**" not in parts:
        yield from glob.iglob(pattern)
        return
    at = parts.index("**")
    rest = "/".join(parts[at + 1 :] or ["*"]).lstrip("/")
    for top in glob.iglob("/".join(parts[:at]) + "/") if at else ["."]:
        for place, _ in _walk(top, notes):
            place = place if at else place[2:]
            yield from _matches(os.path.join(glob.escape(place), rest), notes)


def _walk(top: str, notes: list[str]) -> Iterator[tuple[str, list[str]]]:
    """A folder and those below it, each with its files in order; what is left out is noted."""

    def stop(error: OSError) -> None:
        raise ImageError(f"{error.filename}: cannot be listed: {error.strerror}.") from error

    hidden = links = 0
    for place, folders, files in os.walk(top, onerror=stop):
        hidden += sum(name[0] == "." for name in (*folders, *files))
        folders[:] = sorted(name for name in folders if name[0] != ".")
        links += sum(os.path.islink(os.path.join(place, name)) for name in folders)
        yield place, sorted(name for name in files if name[0] != ".")
    if hidden:
        notes.append(f"{top}: {_count(hidden, 'hidden name')} left out")
    if links:
        notes.append(f"{top}: {_count(links, 'linked folder')} not followed")


def _images(
    text: str, files: Iterable[str], notes: list[str], without: Path | None
) -> Iterator[str]:
    """The files with the suffix of an image; the others, and those of a folder, are counted."""
    closed = None if without is None else os.path.realpath(without)

    @cache
    def is_closed(folder: str) -> bool:
        return closed is not None and PurePath(os.path.realpath(folder)).is_relative_to(closed)

    left_out: Counter[str] = Counter()
    own = 0
    for path in files:
        suffix = os.path.splitext(path)[1].lower()
        if suffix not in IMAGES:
            left_out[suffix or "no suffix"] += 1
        elif is_closed(os.path.dirname(path)):
            own += 1
        else:
            yield path
    if own:
        notes.append(f"{text}: {_count(own, 'picture')} of the run itself left out")
    if left_out:
        kinds = ", ".join(f"{count} {suffix}" for suffix, count in left_out.most_common(5))
        notes.append(f"{text}: {_count(left_out.total(), 'file')} left out, no images ({kinds})")


def _lines(path: str) -> Iterator[str]:
    """Paths of a text file, one per line; blank lines and lines that begin with # do not count."""
    try:
        data = Path(path).read_bytes().removeprefix(b"\xef\xbb\xbf")
    except OSError as error:
        raise ImageError(f"{path}: cannot be read: {error.strerror}.") from error
    if b"\0" in data:  # as PowerShell writes a list of files, in UTF-16
        data = decode_text(data, path, ImageError).encode()
    for line in data.splitlines():
        if (text := os.fsdecode(line).strip()) and text[0] != "#":
            yield text


def _column(path: str, column: str | None) -> Iterator[str]:
    """Paths in a column of a Parquet file."""
    pyarrow, parquet = require("pyarrow", "batch"), require("pyarrow.parquet", "batch")
    try:
        schema = parquet.read_schema(path)
        kinds = pyarrow.types
        texts = [f.name for f in schema if kinds.is_string(f.type) or kinds.is_large_string(f.type)]
        name = column or ("path" if "path" in texts else texts[0] if len(texts) == 1 else None)
        if name not in texts:
            raise ImageError(
                f"{path}: which column holds the paths? Name it with --column; columns of text: "
                f"{', '.join(texts) or 'none'}."
            )
        values = parquet.read_table(path, columns=[name])[name].to_pylist()
    except (OSError, UnicodeDecodeError, pyarrow.ArrowException) as error:
        raise ImageError(f"{path}: cannot be read as Parquet: {error}") from error
    if None in values:
        raise ImageError(f"{path}: row {values.index(None)} of column {name!r} is empty.")
    yield from values


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'s' * (number != 1)}"
