"""Detectors that are pickled or copied: the bundle is opened again where they arrive."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from runtime.bundle import Bundle
from runtime.thresholds import Limits, State
from zsd_core.semantics import fold_name

__all__ = ["reopening"]


def reopening(
    kind: type[Any], bundle: Bundle, options: Mapping[str, Any], state: State
) -> tuple[Any, ...]:
    """What ``__reduce__`` of a detector answers: how to open it again.

    Args:
        kind: the class of the detector.
        bundle: of the detector; it is pickled by its path.
        options: arguments of ``kind`` other than classes and limits.
        state: classes and limits to go on with.
    """
    active = state.active
    own = {name: active.own.get(fold_name(name)) for name in active.names}
    options = {**options, "classes": own, "mode": active.mode}
    return _reopened, (kind, bundle, options, state.limits, active.class_set.version)


def _reopened(
    kind: type[Any], bundle: Bundle, options: Mapping[str, Any], limits: Limits, version: int
) -> Any:
    detector = kind(bundle, **options)
    active = detector._state.active
    class_set = replace(active.class_set, version=version)
    detector._state = State(replace(active, class_set=class_set), limits)
    return detector
