"""Objects in another process: what may cross, and what a forked child must leave alone.

A forked child has none of the parent's threads. A network that it runs may wait for them for ever,
and so does one that it frees, at the latest when it ends by ``sys.exit``: ONNX Runtime waits for a
thread that importing it starts, OpenVINO for those of its models. So a child neither runs nor frees
what its parent opened, and leaves without the exit handlers of libraries.
"""

from __future__ import annotations

import ctypes
import os
import sys
import weakref
from typing import Any, TypeVar

from zsd_core.errors import DeviceError

__all__ = ["check_process", "never_freed_in_a_fork"]

T = TypeVar("T")
_opened: weakref.WeakSet[Any] = weakref.WeakSet()
_ever: list[bool] = []


def check_process(opened_in: int, what: str) -> None:
    """Refuse to use in a forked child what its parent opened.

    Args:
        opened_in: number of the process that opened it.
        what: of the object, such as "detector".

    Raises:
        DeviceError: this is another process.
    """
    if os.getpid() != opened_in:
        raise DeviceError(
            f"this {what} was opened in process {opened_in}, and this one, {os.getpid()}, was "
            f"forked from it without its threads. Open the {what} after the fork, or start "
            "processes by multiprocessing.get_context('spawn'), which reopens detectors."
        )


def never_freed_in_a_fork(native: T) -> T:
    """Remember an object that holds threads of a library; return it."""
    _opened.add(native)
    _ever[:] = [True]
    return native


def _in_child() -> None:
    for native in list(_opened):
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(native))
    if _ever and sys.platform == "linux":
        library = ctypes.CDLL(None)  # handlers run in reverse: C's buffers first, then the end
        library.on_exit(library._exit, None)
        library.on_exit(library.fcloseall, None)


os.register_at_fork(after_in_child=_in_child)
