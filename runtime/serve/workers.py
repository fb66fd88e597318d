"""A bounded number of pictures or changes at a time, worked on by a few threads."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import partial
from typing import TypeVar

import anyio

from runtime.serve.changes import Change
from runtime.serve.errors import RequestError

__all__ = ["Place", "Workers"]

T = TypeVar("T")
WEIGHT = 0.2  # of the newest picture in the running mean of seconds a picture


class Workers:
    """Threads that search pictures or change classes, and the places before them.

    A request takes a place once its body has come, so that clients that send nothing, or send
    slowly, keep no place from others. Bodies have a bound of their own: the bytes of all that are
    on their way, that wait or are worked on. Both are free again when the request has its answer
    and its work has really ended: work that a time-out left behind still counts.

    Args:
        threads: requests worked on at the same time.
        places: most requests that wait or are worked on.
        name: of the threads.
        largest: bytes of one body; all together hold at most as many as ``places`` of this size.
    """

    def __init__(self, threads: int, places: int, name: str = "detect", largest: int = 0) -> None:
        self.places, self.taken = places, 0
        self.bytes, self.held = places * largest, 0
        self._threads = threads
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix=name)
        self._seconds = 0.0

    @contextmanager
    def place(self) -> Iterator[Place]:
        """What one request holds, until it ends.

        Raises:
            RequestError: every place is taken (503), so that its body need not come.
        """
        self.look()
        place = Place(self)
        try:
            yield place
        finally:
            place.leave()

    def look(self) -> None:
        """See whether a place is free.

        Raises:
            RequestError: none is (503); ``Retry-After`` estimates when.
        """
        if self.taken >= self.places:
            raise self.busy(f"all {self.places} places are taken")

    def busy(self, why: str) -> RequestError:
        """The refusal of a request, for now."""
        wait = max(1, math.ceil(self.taken * self._seconds / self._threads))
        return RequestError(503, f"{why}; try again in {wait} s.", {"Retry-After": str(wait)})

    def submit(self, work: Callable[[], T]) -> Future[T]:
        """Let a thread do it."""
        return self._pool.submit(self._timed, work)

    def _timed(self, work: Callable[[], T]) -> T:
        start = time.perf_counter()
        try:
            return work()
        finally:
            seconds = time.perf_counter() - start
            self._seconds += (seconds - self._seconds) * (WEIGHT if self._seconds else 1)

    def close(self) -> None:
        """Let what waits wait no more; what runs ends by itself."""
        self._pool.shutdown(wait=False, cancel_futures=True)


class Place:
    """One request's body, and its right to have it worked on."""

    def __init__(self, workers: Workers) -> None:
        self._workers = workers
        self._taken = self._held = 0
        self._future: Future[object] | None = None

    def hold(self, size: int) -> None:
        """Count bytes of the body, which have come.

        Raises:
            RequestError: all bodies together would be too many (503).
        """
        if self._workers.held + size > self._workers.bytes:
            mib = self._workers.bytes / 2**20
            raise self._workers.busy(f"the bodies of others fill the {mib:.3g} MiB for them")
        self._workers.held += size
        self._held += size

    async def run(self, work: Callable[[], T]) -> T:
        """Wait for a thread to do it; cancelled while it waits, it is never done.

        Raises:
            RequestError: every place is taken (503).
        """
        return await asyncio.wrap_future(self._begin(work))

    async def change(self, work: Callable[[Change], T]) -> T:
        """As ``run`` for a change: cancelled, it is never made, or it is waited for."""
        change = Change()
        future = self._begin(partial(work, change))
        try:
            return await asyncio.wrap_future(future)
        except asyncio.CancelledError:
            if change.give_up():
                raise
            with anyio.CancelScope(shield=True):
                made = await asyncio.wrap_future(future)
            return made

    def _begin(self, work: Callable[[], T]) -> Future[T]:
        self._workers.look()
        self._workers.taken += 1
        self._taken = 1
        future = self._workers.submit(work)
        self._future = future  # type: ignore[assignment]
        return future

    def leave(self) -> None:
        """Free all that this holds, now or when its work has ended."""
        if self._future is None:
            self._free()
            return
        loop = asyncio.get_running_loop()

        def ended(_: Future[object]) -> None:
            with suppress(RuntimeError):  # the loop is closed: nobody counts any more
                loop.call_soon_threadsafe(self._free)

        self._future.add_done_callback(ended)

    def _free(self) -> None:
        """Called in the event loop."""
        self._workers.taken -= self._taken
        self._workers.held -= self._held
