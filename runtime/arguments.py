"""Class names and thresholds as a command line gives them."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

from runtime.backends import BACKENDS
from runtime.bundle import PRECISIONS
from runtime.redact import hide_credentials
from runtime.thresholds import ScoreThreshold
from zsd_core import commands
from zsd_core.errors import ConfigError, DataError
from zsd_core.files import read_text

__all__ = [
    "Parser",
    "add_detector_arguments",
    "parse_classes",
    "parse_threshold",
    "whole_number",
]

OTHERS = (".json", ".xml", ".yaml", ".yml")  # files of which each line would be a class


class Parser(commands.Parser):
    """A command's parser whose errors show no password of an address."""

    def error(self, message: str) -> NoReturn:
        """Print the usage and the message, and exit with status 2."""
        super().error(hide_credentials(message))


def add_detector_arguments(add: Callable[..., Any]) -> None:
    """Add the options that say what is found, and with which networks.

    Args:
        add: ``add_argument`` of a parser or of a group.
    """
    add(
        "--classes",
        type=parse_classes,
        metavar='"cat, cup"',
        help="names, separated by commas, or @FILE with one per line; any word or phrase "
        "(contrastzsd detect --search finds the nearest names). Default: the bundle's own table",
    )
    add("--exact", action="store_true", help="take names that look misspelt as they stand")
    add(
        "--mode",
        default="gzsd",
        choices=("zsd", "gzsd", "seen"),
        help="report the unseen classes only (zsd), all (gzsd, the default), or the seen only",
    )
    add(
        "--score-threshold",
        type=parse_threshold,
        metavar="T",
        help='0.3, or "seen=0.4,unseen=0.2", or "cat=0.3,cup=0.2,unseen=0.4". Default: the '
        "bundle's, which fits its scores",
    )
    add("--bundle", type=Path, help="directory or zip; default: the bundle that ships")
    add(
        "--require-signature",
        type=Path,
        metavar="PEM",
        help="public key by which the bundle must be signed (python -m export.sign)",
    )
    add("--backend", default="auto", choices=("auto", *BACKENDS), help="default: the first there")
    add("--precision", default="float32", choices=PRECISIONS, help="of the networks (float32)")


def whole_number(option: str, number: float, unit: int) -> int:
    """The number of an option as a whole number of a smaller unit: ``--max-pixels 25`` is 25e6.

    Raises:
        ConfigError: it is not finite.
    """
    if not math.isfinite(number):
        raise ConfigError(f"{option} is {number}, must be a number above 0.")
    return int(number * unit)


def parse_classes(text: str) -> list[str]:
    """Names from ``"cat, cup"`` or from a file ``@classes.txt``, one per line.

    Blank lines and what follows a ``#`` are left out; a name may stand in quotes, which keep a
    comma or a ``#`` in it. A file of a single line is read as the text would be: ``cat, cup`` are
    two names. Files are UTF-8, or UTF-16 with its mark.
    """
    if text.startswith("@"):
        parts = [line for line in _read_text(text[1:]).split("\n") if _unquoted(line)]
        if text.lower().endswith(OTHERS) or (parts and parts[0].lstrip()[0] in "[{"):
            raise argparse.ArgumentTypeError(
                f"{text[1:]} is no list of names, one per line; write them into a .txt file"
            )
        if len(parts) == 1 and "#" not in parts[0]:
            parts = _split(parts[0])
    else:
        parts = _split(text)
    names = [name for name in map(_unquoted, parts) if name]
    if not names:
        raise argparse.ArgumentTypeError('names no class; write for example "cat, cup"')
    return names


def parse_threshold(text: str) -> ScoreThreshold:
    """A threshold from ``0.3``, ``seen=0.4,unseen=0.2`` or ``cat=0.3,unseen=0.2``."""
    parts = [part.strip() for part in text.split(",")]
    try:
        if "=" in text:
            pairs = [part.rsplit("=", 1) for part in parts]
            numbered = [(name.strip(), float(value)) for name, value in pairs]
            return _once(text, numbered)
        if len(parts) == 1:
            return float(text)
        numbers = [float(part) for part in parts]
    except ValueError:
        numbers = []
    if len(numbers) == 2:
        one, pair = ".".join(parts), f"seen={parts[0]},unseen={parts[1]}"
        number = f"the number {one}" if "." not in text and parts[1].isdigit() else "one number"
        raise argparse.ArgumentTypeError(
            f"{text!r} can be read as {number} or as two, for seen and for unseen classes; "
            f"write {one if number != 'one number' else parts[0]} or {pair}"
        )
    raise argparse.ArgumentTypeError(
        f'{text!r} is not a number such as 0.3, nor "seen=0.4,unseen=0.2", nor "cat=0.3,unseen=0.2"'
    )


def _once(text: str, numbered: Sequence[tuple[str, float]]) -> dict[str, float]:
    """Thresholds by name, none given twice."""
    found: dict[str, float] = {}
    for name, number in numbered:
        if name in found:
            raise argparse.ArgumentTypeError(f"{text!r} gives {name!r} twice; leave one out")
        found[name] = number
    return found


def _read_text(path: str) -> str:
    try:
        return read_text(Path(path), "class names")
    except DataError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def _split(text: str) -> list[str]:
    """The parts between commas that stand in no quotes."""
    parts, quote = [""], ""
    for letter in text:
        if letter == "," and not quote:
            parts.append("")
            continue
        if letter == quote:
            quote = ""
        elif letter in "\"'" and not parts[-1].strip():  # an apostrophe within a word is no quote
            quote = letter
        parts[-1] += letter
    return parts


def _unquoted(line: str) -> str:
    """A name without its quotes and without a comment behind it."""
    line = line.strip()
    if line[:1] in ('"', "'"):
        name, closed, _ = line[1:].partition(line[0])
        if closed:
            return name.strip()
    start = 0 if line.startswith("#") else line.find(" #")
    return line if start < 0 else line[:start].strip()
