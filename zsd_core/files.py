"""Files: text that a stranger may have written, and files that are written after long work."""

from __future__ import annotations

import json
import math
import os
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zsd_core.errors import ConfigError, DataError, ZsdError, require

__all__ = ["parse_json", "parse_yaml", "prepare_files", "read_npz", "shown"]

DEEPEST = 100  # levels of a strict JSON text
LARGEST = 1024  # bits of its whole numbers; float64 holds no larger ones
INFLATED = 1100  # times; deflate reaches 1032 at most
LONGEST = 200  # characters of a value in a message


def prepare_files(*paths: Path | None) -> None:
    """Make the folders of files to be written later; None is a file nobody asked for.

    Raises:
        ConfigError: a file could not be written there.
    """
    for path in paths:
        if path is None:
            continue
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            problem = f"its folder cannot be made: {error.strerror}"
        else:
            problem = "it is a folder" if path.is_dir() else ""
            if not os.access(path if path.exists() else path.parent, os.W_OK):
                problem = "there is no permission to write there"
        if problem:
            raise ConfigError(f"cannot write {path}: {problem}; name another file.")


def parse_json(
    text: str | bytes, where: str, kind: type[ZsdError] = DataError, *, strict: bool = False
) -> Any:
    """Parse JSON that a stranger may have written.

    Args:
        text: UTF-8, if bytes.
        where: the file, for messages.
        kind: of the error.
        strict: also refuse what readers understand differently: a key that stands there twice, NaN
            and infinity, halves of characters, and more than 100 levels.

    Raises:
        ZsdError: of ``kind``: it is not JSON, or not as above.
    """
    try:
        if not strict:
            return json.loads(text)
        value = json.loads(text, object_pairs_hook=_once, parse_constant=_no_constant)
        _check_plain(value)
        return value
    except RecursionError:
        raise kind(f"{where} is not JSON that can be read: it is nested too deeply.") from None
    except ValueError as error:  # a syntax, an encoding, or more digits than Python converts
        raise kind(f"{where} is not JSON: {error}. Copy or export it again.") from error


def _once(pairs: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise ValueError(f"the key {shown(key)} stands there twice")
        found[key] = value
    return found


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is no number of JSON")


def _check_plain(value: Any) -> None:
    """Refuse deep values, numbers that overflow, and text that cannot be written as UTF-8."""
    level: list[Any] = [value]
    for _ in range(DEEPEST):
        below: list[Any] = []
        for item in level:
            kind = type(item)  # those that json.loads makes
            if kind is str:
                item.encode()  # UnicodeEncodeError is a ValueError
            elif kind is dict:
                below += item.keys()
                below += item.values()
            elif kind is list:
                below += item
            elif kind is float and math.isinf(item):
                raise ValueError("a number is too large")
            elif kind is int and item.bit_length() > LARGEST:
                raise ValueError("a number is too large")
        if not below:
            return
        level = below
    raise RecursionError


def parse_yaml(text: str, where: str, kind: type[ZsdError] = ConfigError) -> Any:
    """Parse YAML of plain values; an alias, by which a small file grows without end, is refused.

    Raises:
        ZsdError: of ``kind``: it is not YAML, or not as above.
    """
    yaml = require("yaml", "train")
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # without libyaml, ten times the time
    level = 0
    try:
        for event in yaml.parse(text, loader):
            if isinstance(event, yaml.AliasEvent):
                raise kind(
                    f"{where} has an alias (*name), which is not read; write the value again."
                )
            level += isinstance(event, yaml.CollectionStartEvent)
            level -= isinstance(event, yaml.CollectionEndEvent)
            if level > DEEPEST:  # every level makes the parser slower
                raise RecursionError
        return yaml.load(text, loader)
    except RecursionError:
        raise kind(f"{where} is not YAML that can be read: it is nested too deeply.") from None
    except (yaml.YAMLError, ValueError) as error:  # a date such as 2026-99-99 is a ValueError
        raise kind(f"{where} is not valid YAML: {error}") from error


def read_npz(path: Path) -> dict[str, NDArray[Any]]:
    """Arrays of an npz file; each must be as long as its header says before memory is taken.

    Raises:
        DataError: it is not such a file, or holds Python objects.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            for info in archive.infolist():
                with archive.open(info) as file:
                    version = np.lib.format.read_magic(file)
                    read = getattr(np.lib.format, f"read_array_header_{version[0]}_0")
                    shape, _, dtype = read(file)
                wanted = math.prod(shape) * dtype.itemsize
                if dtype.hasobject or wanted > info.file_size or wanted < 0:
                    raise ValueError(f"{info.filename} has {info.file_size} bytes, not {wanted}")
                if info.file_size > max(1 << 20, INFLATED * info.compress_size):
                    raise ValueError(f"{info.filename} would unpack to {info.file_size} bytes")
        with np.load(path, allow_pickle=False) as arrays:
            return dict(arrays)
    except Exception as error:  # zipfile, zlib, tokenize and numpy raise kinds of their own
        raise DataError(f"{path} is not an npz file of arrays that can be read: {error}") from error


def shown(value: object) -> str:
    """``repr`` of a value, cut where it is long, for a message."""
    try:
        text = ascii(value) if isinstance(value, str) else repr(value)
    except (RecursionError, ValueError):  # an integer of more digits than Python writes
        return f"a {type(value).__name__} that is too large to show"
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}..."
