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

    A request takes a place before its body is read, so that bodies in memory are bounded too. The
    place is free again when the request has its answer and its work has really ended: work that a
    time-out left behind still counts.

    Args:
        threads: requests worked on at the same time.
        places: most requests that are being sent, waiting or worked on.
        name: of the threads.
    """

    def __init__(self, threads: int, places: int, name: str = "detect") -> None:
        self.places, self.taken = places, 0
        self._threads = threads
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix=name)
        self._seconds = 0.0

    @contextmanager
    def place(self) -> Iterator[Place]:
        """A place for one request.

        Raises:
            RequestError: every place is taken (503); ``Retry-After`` estimates when one is free.
        """
        if self.taken >= self.places:
            wait = max(1, math.ceil(self.taken * self._seconds / self._threads))
            raise RequestError(
                503,
                f"all {self.places} places are taken; try again in {wait} s.",
                {"Retry-After": str(wait)},
            )
        place = Place(self)
        self.taken += 1
        try:
            yield place
        finally:
            place.leave()

    def free(self) -> None:
        """Give one place back; called in the event loop."""
        self.taken -= 1

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
    """One request's right to send its body and to have it worked on."""

    def __init__(self, workers: Workers) -> None:
        self._workers = workers
        self._future: Future[object] | None = None

    async def run(self, work: Callable[[], T]) -> T:
        """Wait for a thread to do it; cancelled while it waits, it is never done."""
        future = self._workers.submit(work)
        self._future = future  # type: ignore[assignment]
        return await asyncio.wrap_future(future)

    async def change(self, work: Callable[[Change], T]) -> T:
        """As ``run`` for a change: cancelled, it is never made, or it is waited for."""
        change = Change()
        future = self._workers.submit(partial(work, change))
        self._future = future  # type: ignore[assignment]
        try:
            return await asyncio.wrap_future(future)
        except asyncio.CancelledError:
            if change.give_up():
                raise
            with anyio.CancelScope(shield=True):
                made = await asyncio.wrap_future(future)
            return made

    def leave(self) -> None:
        """Free the place, now or when its work has ended."""
        if self._future is None:
            self._workers.free()
            return
        loop = asyncio.get_running_loop()

        def ended(_: Future[object]) -> None:
            with suppress(RuntimeError):  # the loop is closed: nobody counts any more
                loop.call_soon_threadsafe(self._workers.free)

        self._future.add_done_callback(ended)
