"""OpenVINO's one entry point of this process."""

from __future__ import annotations

from functools import cache
from typing import Any

from runtime.processes import never_freed_in_a_fork
from zsd_core.errors import require

__all__ = ["EXTRA", "PACKAGE", "core"]

PACKAGE, EXTRA = "openvino", "openvino"


@cache
def core() -> Any:
    """Return the one ``openvino.Core`` of this process, which lives as long as the process.

    OpenVINO's CPU plugin gives the thread that loads it a stack for signal handlers and unmaps that
    stack when the plugin goes, in whichever thread that is. If it is another thread, the next
    signal that Python handles in the first one ends the process with a segmentation fault. A core
    that stays keeps the plugin, and a second detector opens sooner.

    Raises:
        MissingPackageError: openvino is not installed.
    """
    return never_freed_in_a_fork(require(PACKAGE, EXTRA).Core())
