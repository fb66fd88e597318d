"""Ways to run the CUDA operators with no GPU: fibers under a schedule, or interpreted PTX.

An engine calls a function of the module with host arrays; what it launches is then run by the
engine. A test is written once and takes the engine as a parameter.
"""

from __future__ import annotations

import ctypes
from pathlib import Path
from typing import Any

from cuda_proof import build

SCHEDULES = {"forward": (0, 0), "reverse": (1, 0), "random-1": (2, 1), "random-2": (2, 2)}


class ShimEngine:
    """Runs every block's threads as fibers, in the order that ``schedule`` names."""

    def __init__(self, path: Path, schedule: str = "forward") -> None:
        self.module = build.load(path)
        self.library = ctypes.CDLL(str(path))
        self.library.shim_error.restype = ctypes.c_char_p
        self.schedule = schedule

    def call(self, operator: str, *arguments: Any, **options: Any) -> Any:
        """Run an operator; the shim's own complaint replaces the binding's."""
        self.library.shim_hook(None)
        self.library.shim_schedule(*SCHEDULES[self.schedule])
        try:
            return getattr(self.module, operator)(*arguments, **options)
        except Exception as error:
            if "unknown error" in str(error):
                raise AssertionError(self.library.shim_error().decode()) from error
            raise
