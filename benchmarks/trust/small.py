"""The tiny bundle of the tests, whose networks run in a blink."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

__all__ = ["helper"]

HELPERS = Path(__file__).parents[2] / "tests" / "helpers"


def helper(name: str) -> ModuleType:
    """Import a module of ``tests/helpers``, which the repository has and no wheel."""
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, HELPERS / f"{name}.py")
        assert spec is not None and spec.loader is not None, name
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        spec.loader.exec_module(module)
    return sys.modules[name]
