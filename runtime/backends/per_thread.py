"""One of something for every thread that asks; that of a thread which has ended goes to the next.

So a server that starts a thread for every request holds as many as it has threads at a time.
"""

from __future__ import annotations

import threading
import weakref
from collections import deque
from collections.abc import Callable
from contextlib import ExitStack
from typing import Generic, Protocol, TypeVar

from runtime.backends.cuda_driver import Device
from zsd_core.errors import DeviceError

__all__ = ["PerThread"]


class _Closable(Protocol):
    def close(self) -> None: ...


T = TypeVar("T", bound=_Closable)


class PerThread(Generic[T]):
    """A value that threads must not share, made when a thread first asks.

    Args:
        device: that is made current for the thread whenever it asks.
        make: a new one; may raise.
    """

    def __init__(self, device: Device, make: Callable[[], T]) -> None:
        self._device, self._make = device, make
        self._all: list[T] = []
        self._free: deque[T] = deque()
        self._local = threading.local()
        self._closed = False

    def get(self) -> T:
        """The calling thread's own.

        Raises:
            DeviceError: it is closed.
        """
        if self._closed:
            raise DeviceError("the networks are closed; open the detector again.")
        self._device.activate()  # each time: the thread may have used another GPU in between
        held: _Held[T] | None = getattr(self._local, "held", None)
        if held is None:
            try:
                own = self._free.pop()
            except IndexError:
                own = self._make()
                self._all.append(own)
            held = self._local.held = _Held(own)
            weakref.finalize(held, self._free.append, own).atexit = False
        return held.own

    def close(self) -> None:
        """Close all of them; the threads must have returned."""
        self._closed = True
        self._device.activate()
        self._local = threading.local()
        self._free.clear()
        with ExitStack() as closing:  # every one, even if another fails
            while self._all:
                closing.callback(self._all.pop().close)


class _Held(Generic[T]):
    """Lives as long as its thread."""

    def __init__(self, own: T) -> None:
        self.own = own
