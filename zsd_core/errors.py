"""Every error a user of this project can meet, and the checks that raise them.

A message says where, what was received, and the fix. ``assert`` is kept for our own mistakes.
"""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Iterable, Mapping
from itertools import islice
from types import ModuleType
from typing import Protocol

__all__ = [
    "BundleError",
    "ClassError",
    "ConfigError",
    "DataError",
    "DeviceError",
    "ImageError",
    "MissingPackageError",
    "ShapeError",
    "Shaped",
    "ZsdError",
    "did_you_mean",
    "expect_shapes",
    "join_first",
    "join_sentences",
    "require",
]

MOST_SAID = 20  # faults of one kind that a message names


class ZsdError(Exception):
    """Base of every error this project raises on purpose; command lines print it and exit 1."""


class ShapeError(ZsdError, ValueError):
    """An array does not have the documented shape or dtype."""


class DeviceError(ZsdError, ValueError):
    """Arguments lie on different devices, or on one that cannot run the operator."""


class ConfigError(ZsdError, ValueError):
    """A configuration value or key is not valid."""


class DataError(ZsdError, ValueError):
    """A data set, split or vector file is malformed, or breaks the protocol."""


class ClassError(ZsdError, KeyError):
    """A class name is unknown, repeated or missing a vector.

    Attributes:
        meant: likelier spellings of names that look misspelt, by the name.
    """

    def __init__(self, *args: object, meant: Mapping[str, str] | None = None) -> None:
        super().__init__(*args)
        self.meant = dict(meant or {})

    def __str__(self) -> str:  # KeyError would print the repr of the sentence
        return str(self.args[0]) if self.args else ""


class ImageError(ZsdError, ValueError):
    """An image cannot be read or is not an image."""


class BundleError(ZsdError, ValueError):
    """A bundle is damaged, incomplete, or of a format this version cannot read."""


class MissingPackageError(ZsdError, ImportError):
    """An optional package is not installed; the message carries the ``pip install`` line."""


class Shaped(Protocol):
    """Anything with a shape: numpy, torch, DLPack."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Sizes of the axes."""


def expect_shapes(
    where: str, fix: str, known: Mapping[str, int] | None = None, /, **arrays: tuple[Shaped, str]
) -> dict[str, int]:
    """Match arrays against shape formulas and return the size behind each letter.

    A letter that is not ``known`` binds on first sight and must agree after; a number is literal.
    ``expect_shapes("roi_align", fix, rois=(rois, "R 4"))``.

    Raises:
        ShapeError: an array does not match; the message names it, both shapes and ``fix``.
    """
    sizes = dict(known or {})
    for name, (array, formula) in arrays.items():
        shape, letters, bound = tuple(array.shape), formula.split(), dict(sizes)
        agrees = len(shape) == len(letters) and all(
            size == (int(letter) if letter.isdigit() else bound.setdefault(letter, size))
            for letter, size in zip(letters, shape, strict=True)
        )
        if not agrees:
            given = ", ".join(f"{k}={sizes[k]}" for k in letters if k in sizes)
            raise ShapeError(
                f"{where}: {name} has shape {shape}, expected ({', '.join(letters)})"
                f"{f' with {given}' if given else ''}. {fix}"
            )
        sizes = bound
    return sizes


def did_you_mean(name: object, candidates: Iterable[str], count: int = 3) -> str:
    """Return ``"; did you mean 'a' or 'b'?"`` for the nearest spellings, or ``""``."""
    if not isinstance(name, str):  # a key of YAML may be anything
        return ""
    near = difflib.get_close_matches(name, list(candidates), n=count, cutoff=0.6)
    return f"; did you mean {' or '.join(repr(n) for n in near)}?" if near else ""


def join_sentences(sentences: Iterable[str]) -> str:
    """Return everything that is wrong as one message, so that one try mends all of it."""
    return " ".join(s if s.endswith((".", "?")) else f"{s}." for s in sentences)


def join_first(sentences: Iterable[str], count: int) -> str:
    """``join_sentences`` of the first few of ``count``; the others are counted, and never made.

    For what a stranger may send thousands of: the nearest spelling of each takes milliseconds.
    """
    first = list(islice(sentences, MOST_SAID))
    more = [f"{count - len(first)} more are wrong in the same way"] if count > len(first) else []
    return join_sentences([*first, *more])


def require(package: str, extra: str) -> ModuleType:
    """Import an optional package, or raise the error that says how to install it."""
    try:
        return importlib.import_module(package)
    except ImportError as error:
        raise MissingPackageError(
            f"{package} is needed here and cannot be imported ({error}). "
            f"Install it: pip install 'contrastzsd[{extra}]'"
        ) from error
