"""Files: text that a stranger may have written, and files that are written after long work."""

from __future__ import annotations

import codecs
import io
import json
import math
import os
import re
import zipfile
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zsd_core.errors import ConfigError, DataError, ZsdError, require

__all__ = [
    "decode_text",
    "parse_json",
    "parse_yaml",
    "prepare_files",
    "read_file",
    "read_lines",
    "read_npz",
    "read_text",
    "shown",
    "visible",
]

DEEPEST = 100  # levels of a strict JSON text
LONGEST_YAML = 1_000_000  # characters
HEADER = 1 << 14  # bytes of an array's header, which are parsed; numpy takes 10,000
LARGEST = 1024  # bits of its whole numbers; float64 holds no larger ones
INFLATED = 1100  # times; deflate reaches 1032 at most
LONGEST = 200  # characters of a value in a message
# Numbers of YAML 1.1 without those in base 60, as PyYAML spells them; 1e-3 is a text there.
INTEGER = re.compile(r"[-+]?(?:0b[01_]+|0[0-7_]+|0|[1-9][0-9_]*|0x[0-9a-fA-F_]+)$")
FRACTION = re.compile(
    r"(?:[-+]?[0-9][0-9_]*\.[0-9_]*|\.[0-9][0-9_]*)(?:[eE][-+][0-9]+)?$"
    r"|[-+]?\.(?:inf|Inf|INF)$|\.(?:nan|NaN|NAN)$"
)
# Control characters but for a line's end and a tabulator; those that reorder letters; further line
# ends; halves of characters.
_UNSEEN = re.compile(
    "[\0-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]"
)
NO_NAME = "its name holds a character that no file's name can hold"  # NUL, half of a character


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
        except ValueError:
            problem = NO_NAME
        else:
            problem = _why_not_there(path)
        if problem:
            raise ConfigError(f"cannot write {_named(path)}: {problem}; name another file.")


def _why_not_there(path: Path) -> str:
    """Why a file cannot be written into a folder that is there; "" if it can."""
    if os.path.isdir(path):
        return "it is a folder"
    try:
        there = bool(os.stat(path))
    except FileNotFoundError:
        there = False
    except OSError as error:  # a name that is too long for the disk, a circle of links
        return str(error.strerror)
    except ValueError:
        return NO_NAME
    allowed = os.access(path if there else path.parent, os.W_OK)
    return "" if allowed else "there is no permission to write there"


def read_file(path: Path, what: str, kind: type[ZsdError] = DataError) -> bytes:
    """The bytes of a file that a stranger may have named.

    Args:
        path: the file.
        what: it should be, for messages.
        kind: of the error.

    Raises:
        ZsdError: of ``kind``: it cannot be read.
    """
    try:
        return path.read_bytes()
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else NO_NAME
        raise kind(f"cannot read {what} {_named(path)}: {reason}.") from error


def read_text(path: Path, what: str, kind: type[ZsdError] = DataError) -> str:
    """The text of a file that a stranger may have named; see ``read_file`` and ``decode_text``."""
    return decode_text(read_file(path, what, kind), f"{what} {_named(path)}", kind)


def read_lines(
    path: Path, what: str, kind: type[ZsdError] = DataError, *, comments: bool = True
) -> list[str]:
    """Lines of a list that a stranger may have written, trimmed; see ``read_text``.

    Blank lines are left out, and comments: lines that begin with "#". A list whose order or count
    matters has no comments, because a name may begin so.
    """
    lines = map(str.strip, read_text(path, what, kind).split("\n"))
    return [line for line in lines if line and not (comments and line[0] == "#")]


def decode_text(data: bytes, where: str, kind: type[ZsdError] = DataError) -> str:
    """Text as editors save it: UTF-8 with or without a byte order mark, or UTF-16 with one.

    The mark is left out, and every line ends as on Unix.

    Args:
        data: the bytes.
        where: the file, for messages.
        kind: of the error.

    Raises:
        ZsdError: of ``kind``: it is no such text.
    """
    wide = data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    try:
        text = data.decode("utf-16" if wide else "utf-8-sig")
        if "\0" in text:  # UTF-16 without a mark has one behind every letter of English
            raise ValueError("it holds U+0000, as UTF-16 without a byte order mark does")
    except ValueError as error:
        raise kind(f"{where} is no text in UTF-8 or UTF-16 ({error}); save it as UTF-8.") from error
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _named(path: Path) -> str:
    """A path for a message; one that no terminal should print, as Python writes it."""
    return str(path) if str(path).isprintable() else ascii(str(path))


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
    """Parse YAML of plain values.

    Refused are an alias, by which a small file grows without end, a tag, a key that stands there
    twice, and a text that would take seconds. ``1:30`` is a text, not the 90 of YAML 1.1.

    Raises:
        ZsdError: of ``kind``: it is not YAML, or not as above.
    """
    yaml = require("yaml", "train")
    if len(text) > LONGEST_YAML:
        raise kind(
            f"{where} has {len(text):,} characters, and at most {LONGEST_YAML:,} are read as YAML, "
            "which takes a second for each million; save long lists as JSON."
        )
    loader = _plain_loader()
    level = 0
    try:
        for event in yaml.parse(text, loader):
            if isinstance(event, yaml.AliasEvent):
                raise kind(
                    f"{where} has an alias (*name), which is not read; write the value again."
                )
            if tag := getattr(event, "tag", None):
                raise kind(
                    f"{where} has the tag {shown(tag)}, which is not read; write a plain value."
                )
            level += isinstance(event, yaml.CollectionStartEvent)
            level -= isinstance(event, yaml.CollectionEndEvent)
            if level > DEEPEST:  # every level makes the parser slower
                raise RecursionError
        return yaml.load(text, loader)
    except ZsdError:
        raise
    except RecursionError:
        raise kind(f"{where} is not YAML that can be read: it is nested too deeply.") from None
    except Exception as error:  # the library lets errors of dates, numbers and texts pass
        raise kind(f"{where} is not valid YAML: {error}") from error


@cache
def _plain_loader() -> Any:
    """A loader of plain values whose time grows with the text, and not with its square."""
    yaml = require("yaml", "train")
    base = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # without libyaml, ten times the time

    class PlainLoader(base):  # type: ignore[misc, valid-type]
        def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
            values: dict[Any, Any] = super().construct_mapping(node, deep)
            if len(values) < len(node.value):
                raise yaml.constructor.ConstructorError(
                    None, None, "a key stands there twice", node.start_mark
                )
            return values

    # 1:30 in base 60; and <<, which has no use without an alias.
    unread = ("tag:yaml.org,2002:int", "tag:yaml.org,2002:float", "tag:yaml.org,2002:merge")
    PlainLoader.yaml_implicit_resolvers = {
        first: [pair for pair in pairs if pair[0] not in unread]
        for first, pairs in base.yaml_implicit_resolvers.items()
    }
    PlainLoader.add_implicit_resolver(unread[0], INTEGER, list("-+0123456789"))
    PlainLoader.add_implicit_resolver(unread[1], FRACTION, list("-+0123456789."))
    return PlainLoader


def read_npz(path: Path) -> dict[str, NDArray[Any]]:
    """Arrays of an npz file; each must be as long as its header says before memory is taken.

    Raises:
        DataError: it is not such a file, or holds Python objects.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            unpacked = sum(info.file_size for info in archive.infolist())
            if unpacked > max(1 << 20, INFLATED * path.stat().st_size):
                raise ValueError(f"it would unpack to {unpacked} bytes")
            for info in archive.infolist():
                with archive.open(info) as file:
                    head = io.BytesIO(file.read(HEADER))
                version = np.lib.format.read_magic(head)
                read = getattr(np.lib.format, f"read_array_header_{version[0]}_0")
                shape, _, dtype = read(head)
                wanted = math.prod(shape) * dtype.itemsize
                if dtype.hasobject:
                    raise ValueError(
                        f"{info.filename} holds Python objects; save it with a dtype, such as str "
                        "or float32"
                    )
                if dtype.itemsize < 1:
                    raise ValueError(f"{info.filename} has items of type {dtype}")
                if not 0 <= wanted <= info.file_size - head.tell():
                    raise ValueError(f"{info.filename} has {info.file_size} bytes, not {wanted}")
        with np.load(path, allow_pickle=False) as arrays:
            return dict(arrays)
    except Exception as error:  # zipfile, zlib, tokenize and numpy raise kinds of their own
        raise DataError(f"{path} is not an npz file of arrays that can be read: {error}") from error


def shown(value: object) -> str:
    """``repr`` of a value, cut where it is long, for a message."""
    try:
        text = ascii(value) if isinstance(value, str) else repr(value)
    except (RecursionError, ValueError):  # an integer of more digits than Python writes
        return f"a value of type {type(value).__name__} that is too large to show"
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}..."


def visible(text: str) -> str:
    """A text for a terminal: U+FFFD stands for what could change what is there already."""
    return _UNSEEN.sub("\ufffd", text)
