"""The scoring methods as graphs, one file each, named as in ``zsd_core.scoring``."""

from __future__ import annotations

import importlib
from types import ModuleType

from zsd_core.errors import ConfigError
from zsd_core.scoring import check_method

__all__ = ["graph_of"]


def graph_of(method: str) -> ModuleType:
    """The module of a method: ``WEIGHTS``, ``prototype_width(config)`` and ``score(op, ...)``.

    Raises:
        ConfigError: no such method, or one without a graph.
    """
    name = f"export.graphs.scorers.{check_method(method)}"
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name != name:
            raise
        raise ConfigError(
            f"the scoring method {method!r} has no graph; write {name.replace('.', '/')}.py."
        ) from error
