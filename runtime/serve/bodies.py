"""Bodies on their way: as slow as they must be, but not slower, and the time for the answer."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import anyio
from starlette.requests import Request

from runtime.serve.errors import RequestError
from runtime.serve.workers import Place

__all__ = ["Bodies", "stopping"]

T = TypeVar("T")
SLOWEST = 4 * 2**10  # bytes a second, in the mean of half the time that an answer has


def stopping() -> RequestError:
    """The refusal of a request while the service stops."""
    return RequestError(503, "the service is stopping.", {"Retry-After": "5"})


class Bodies:
    """Reads bodies. The time of a request runs from the end of its body.

    Args:
        timeout: seconds that an answer has.
    """

    def __init__(self, timeout: float) -> None:
        self._timeout = timeout
        self._coming: set[anyio.CancelScope] = set()
        self._stopped = False

    @contextmanager
    def in_time(self, request: Request) -> Iterator[None]:
        """Give a request its time.

        Raises:
            TimeoutError: it took longer.
        """
        with anyio.fail_after(self._timeout) as request.state.limit:
            yield

    async def read(
        self,
        request: Request,
        place: Place,
        read: Callable[[Callable[[int], None]], Awaitable[T]],
    ) -> T:
        """Read a body, however long that takes.

        Args:
            request: one that was given its time.
            place: what holds the body.
            read: reads it; calls what it is given with the bytes of every part.

        Raises:
            RequestError: the body comes too slowly (408), bodies hold too much memory, or the
                service stops (503).
        """
        seconds, limit, came = self._timeout / 2, request.state.limit, 0

        def count(size: int) -> None:
            nonlocal came
            place.hold(size)
            came += size
            if came >= SLOWEST * seconds:
                came, scope.deadline = 0, anyio.current_time() + seconds

        limit.deadline = math.inf
        with anyio.move_on_after(seconds) as scope:
            self._coming.add(scope)
            try:
                return await read(count)
            finally:
                self._coming.discard(scope)
                limit.deadline = anyio.current_time() + self._timeout
        if self._stopped:
            raise stopping()
        raise RequestError(
            408,
            f"less than {SLOWEST / 2**10:g} KiB a second of the body came for {seconds:g} s.",
            {"Connection": "close"},
        )

    def stop(self) -> None:
        """Refuse the requests whose bodies are still coming."""
        self._stopped = True
        for scope in tuple(self._coming):
            scope.cancel()
