"""One of something for every thread that asks; that of a thread which has ended goes to the next.

So a server that starts a thread for every request holds as many as it has threads at a time.
"""

from __future__ import annotations

import threading
import weakref
from collections import Counter, deque
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Generic, Protocol, TypeVar

from runtime.backends.cuda_driver import Device
from runtime.backends.shares import CLOSED
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
        self._calls: Counter[int] = Counter()  # in hand, by thread
        self._ended = threading.Condition()

    @contextmanager
    def lent(self) -> Iterator[T]:
        """The calling thread's own, for a call; ``close`` waits until the call has ended.

        Raises:
            DeviceError: it is closed.
        """
        thread = threading.get_ident()
        with self._ended:
            if self._closed:
                raise DeviceError(CLOSED)
            self._calls[thread] += 1
        try:
            yield self._own()
        finally:
            with self._ended:
                self._calls -= Counter([thread])
                self._ended.notify_all()

    def _own(self) -> T:
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
        """Close all of them, once the calls of other threads have ended.

        Not to be called by a handler of a signal that interrupts a call.
        """
        own = {threading.get_ident()}
        with self._ended:
            self._closed = True
            self._ended.wait_for(lambda: self._calls.keys() <= own)
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
