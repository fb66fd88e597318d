"""The scoring methods as graphs, one file each, named as in ``zsd_core.scoring``."""

from __future__ import annotations

import importlib
from types import ModuleType

from zsd_core.scoring import check_method

__all__ = ["graph_of"]


def graph_of(method: str) -> ModuleType:
    """The module of a method: ``WEIGHTS``, ``prototype_width(config)`` and ``score(op, ...)``.

    Raises:
        ConfigError: no such method.
    """
    return importlib.import_module(f"export.graphs.scorers.{check_method(method)}")
