"""Classes as a request gives them: their names and vectors, checked before anything is computed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from zsd_core.errors import ClassError, join_first
from zsd_core.files import shown
from zsd_core.semantics import fold_name, name_fault

__all__ = ["MOST_CLASSES", "check_name", "check_names", "vectors_by_name", "vectors_of"]

MOST_CLASSES = 5000
LONGEST_NAME = 200  # characters


def check_names(classes: Any, active: int) -> None:
    """Refuse what would keep the service busy for long, and names that no class can have.

    What is no list is the detector's to refuse.

    Args:
        classes: names, or names and vectors.
        active: classes that are there beside them.

    Raises:
        ClassError: there are too many, or a name cannot be one.
    """
    if not isinstance(classes, (list, tuple, Mapping)):
        return
    if len(classes) + active > MOST_CLASSES:
        raise ClassError(
            f"{len(classes)} classes beside {active} are more than {MOST_CLASSES}, the most that "
            "this service looks for."
        )
    wrong = [fault for name in classes if isinstance(name, str) and (fault := _fault(name))]
    if wrong:
        raise ClassError(join_first(wrong, len(wrong)))


def check_name(name: str) -> None:
    """Refuse the name of one class; see ``check_names``."""
    if not fold_name(name):
        raise ClassError(f"class name {shown(name)} must be a text that is not blank.")
    check_names([name], 0)


def _fault(name: str) -> str:
    if len(name) > LONGEST_NAME:
        return f"class {shown(name[:40])}… is longer than {LONGEST_NAME} characters"
    fault = name_fault(name)
    return fault and f"class name {shown(name)} {fault}"


def vectors_by_name(classes: Any) -> dict[str, Any]:
    """The vectors among classes, by folded name."""
    if not isinstance(classes, Mapping):
        return {}
    return {fold_name(name): vector for name, vector in classes.items() if vector is not None}


def vectors_of(classes: Any) -> Any:
    """Numbers of JSON as arrays of float32; anything but a mapping is the detector's to refuse.

    Raises:
        ClassError: a vector is no list of numbers that float32 holds.
    """
    if not isinstance(classes, Mapping):
        return classes
    return {
        name: vector if vector is None else _array(name, vector) for name, vector in classes.items()
    }


def _array(name: str, vector: Any) -> Any:
    try:
        numbers = np.asarray(vector)
    except (TypeError, ValueError, OverflowError):
        numbers = np.empty(0, object)
    with np.errstate(over="ignore"):
        array = numbers.astype(np.float32) if numbers.dtype.kind in "fiu" else None
    if array is None or not np.isfinite(array).all():
        raise ClassError(
            f"the vector of class {shown(name)} must be a list of numbers within float32, or null."
        )
    return array
