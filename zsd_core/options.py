"""Checks of options, and configurations built from YAML or JSON: every mistake is one sentence."""

from __future__ import annotations

import dataclasses
import math
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any, Literal, TypeVar

from zsd_core.errors import ConfigError, did_you_mean, join_sentences
from zsd_core.files import shown

__all__ = [
    "check_max",
    "check_not_negative",
    "check_option",
    "check_positive",
    "check_share",
    "from_mapping",
]

T = TypeVar("T")
WIDEST = 2**63
# Options become float32: beyond these a number would be infinite there, or 0 or nearly so.
LEAST, LARGEST = 2.0**-126, (2 - 2.0**-23) * 2.0**127
FLOAT32 = f"must be 0 or a float32 number, from {LEAST:.2g} to {LARGEST:.2g} without its sign"
MOST_NAMED = 10  # unknown keys in a message


def check_option(condition: bool, where: str, value: object, rule: str) -> None:
    """Raise ConfigError that ``where`` is ``value`` and breaks ``rule``, unless ``condition``."""
    if not condition:
        raise ConfigError(f"{where} is {shown(value)}, {rule}.")


def check_positive(config: object, *names: str) -> None:
    """Refuse fields that are not above 0, or hold a value that is not, as float32 too."""
    _check(config, names, lambda value: value > 0, "must be above 0")


def check_not_negative(config: object, *names: str) -> None:
    """Refuse fields below 0."""
    _check(config, names, lambda value: value >= 0, "must not be negative")


def check_share(config: object, *names: str) -> None:
    """Refuse fields outside [0, 1]."""
    _check(config, names, lambda value: 0 <= value <= 1, "must lie in [0, 1]")


def check_max(config: object, most: float, *names: str) -> None:
    """Refuse fields above ``most``: a file that a stranger wrote must not ask for all memory."""
    _check(config, names, lambda value: value <= most, f"must be at most {most}")


def _check(
    config: object, names: Sequence[str], condition: Callable[[float], bool], rule: str
) -> None:
    for name in names:
        value = getattr(config, name)
        values = value if isinstance(value, tuple) else (value,)
        where = f"{type(config).__name__}.{name}"
        check_option(all(map(condition, values)), where, value, rule)
        check_option(all(map(_fits_float32, values)), where, value, FLOAT32)


def _fits_float32(value: float) -> bool:
    return value == 0 or LEAST <= abs(value) <= LARGEST


def from_mapping(
    kind: type[T], values: Mapping[str, Any], where: str = "", *, strict: bool = False
) -> T:
    """Build a configuration dataclass from nested mappings (YAML, JSON).

    Args:
        kind: the dataclass.
        values: of its fields; those left out keep their defaults.
        where: name of the mapping, for messages.
        strict: refuse a number that is written as a text, which YAML needs (``1e-3`` is one) and
            JSON does not.

    Raises:
        ConfigError: an unknown key (with the nearest field) or a value of the wrong type.
    """
    where = where or kind.__name__
    if not isinstance(values, Mapping):
        raise ConfigError(f"{where} is {shown(values)}, must be a mapping of fields to values.")
    hints = _hints(typing.cast(typing.Hashable, kind))
    strange = [key for key in values if key not in hints]
    if strange:
        sentences = [
            f"{where} has no field {shown(key)}{did_you_mean(key, hints)}"
            for key in strange[:MOST_NAMED]
        ]
        if len(strange) > MOST_NAMED:
            sentences.append(f"There are {len(strange) - MOST_NAMED} other fields that it lacks")
        raise ConfigError(join_sentences(sentences))
    return kind(**{k: _convert(hints[k], v, f"{where}.{k}", strict) for k, v in values.items()})


@cache
def _hints(kind: Any) -> dict[str, Any]:
    """Types of the fields of a dataclass; to find them takes longer than to check a value."""
    return typing.get_type_hints(kind)


@cache
def _taken_apart(hint: Any) -> tuple[bool, Any, tuple[Any, ...]]:
    """Whether a type is a dataclass, its origin, and its arguments."""
    return dataclasses.is_dataclass(hint), typing.get_origin(hint), typing.get_args(hint)


def _convert(hint: Any, value: Any, where: str, strict: bool) -> Any:
    if type(value) is hint and hint in (bool, int, str):  # most values
        if hint is int:  # YAML and pickles hold any; C++ and numpy do not
            check_option(-WIDEST <= value < WIDEST, where, value, "must have at most 64 bits")
        return value
    nested, origin, arguments = _taken_apart(hint)
    if nested:
        return from_mapping(hint, value, where, strict=strict)
    if origin is Literal:
        known = any(type(value) is type(one) and value == one for one in arguments)
        check_option(known, where, value, f"must be one of {', '.join(map(repr, arguments))}")
        return value
    if origin in (typing.Union, types.UnionType):
        return None if value is None else _convert(arguments[0], value, where, strict)
    if origin is tuple:
        items = list(value) if isinstance(value, (list, tuple)) else None  # bytes are no numbers
        check_option(items is not None, where, value, "must be a list")
        assert items is not None
        if arguments[-1] is not Ellipsis:
            check_option(
                len(items) == len(arguments), where, value, f"must hold {len(arguments)} values"
            )
        return tuple(
            _convert(
                arguments[0 if arguments[-1] is Ellipsis else i], item, f"{where}[{i}]", strict
            )
            for i, item in enumerate(items)
        )
    numbers = int if strict else (int, str)
    if hint is float and isinstance(value, numbers) and not isinstance(value, bool):
        try:
            value = float(value)  # YAML 1.1 reads 1e-3 as a string
        except (ValueError, OverflowError):
            pass
    if isinstance(value, float):
        check_option(math.isfinite(value), where, value, "must be finite")
        check_option(_fits_float32(value), where, value, FLOAT32)
    wrong = not isinstance(value, hint) or (isinstance(value, bool) and hint is not bool)
    check_option(not wrong, where, value, f"must be of type {hint.__name__}")
    return value
