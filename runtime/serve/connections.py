"""Connections of clients: those that ask for nothing, or take nothing, are closed."""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol

__all__ = ["HEAD_SECONDS", "STALLED_SECONDS", "connections"]

HEAD_SECONDS = 10.0  # until the head of a request is whole, however it trickles in
STALLED_SECONDS = 30.0  # in which a client takes less than this of its answer:
LEAST_TAKEN = 64 * 2**10  # bytes
LEAST_LATE = 4 * 2**10  # bytes that a client takes of the rest while it waits, or all


def connections(
    most: int, head_seconds: float = HEAD_SECONDS, stalled_seconds: float = STALLED_SECONDS
) -> type[asyncio.Protocol]:
    """A protocol for uvicorn, whose connections share one bound.

    A connection waits from its beginning, and from the end of every answer, until the head of the
    next request is whole. One that waits too long is closed; so is the one that waits longest where
    more come than there is room for. Clients that send nothing keep nobody else out.

    Args:
        most: connections at a time, those that wait among them.
        head_seconds: that one may wait.
        stalled_seconds: in which a client must take 64 KiB of an answer that waits for it.
    """
    waiting: dict[Any, None] = {}  # in the order in which they began to

    class Connection(H11Protocol):
        """One connection."""

        _late: asyncio.TimerHandle | None = None
        _stalled: asyncio.TimerHandle | None = None

        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            super().connection_made(transport)
            self._look()
            oldest = next(iter(waiting), self)
            if len(self.connections) >= most and oldest is not self:
                oldest._drop()

        def connection_lost(self, exc: Exception | None) -> None:
            super().connection_lost(exc)
            self._rest()
            if self._stalled is not None:
                self._stalled.cancel()

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            self._look()

        def on_response_complete(self) -> None:
            super().on_response_complete()
            self._look()

        def pause_writing(self) -> None:
            super().pause_writing()
            self._take()

        def resume_writing(self) -> None:
            super().resume_writing()
            if self._stalled is not None:
                self._stalled.cancel()

        def timeout_keep_alive_handler(self) -> None:
            if not self.transport.get_write_buffer_size():  # what still goes out is of `_expire`
                super().timeout_keep_alive_handler()

        def _look(self) -> None:
            """Note whether this connection waits for the head of a request."""
            asked = self.cycle is not None and not self.cycle.response_complete
            if asked or self not in self.connections:
                self._rest()
            elif self not in waiting:
                waiting[self] = None
                self._wait_on()

        def _wait_on(self) -> None:
            size = self.transport.get_write_buffer_size()
            self._late = self.loop.call_later(head_seconds, self._expire, size)

        def _expire(self, before: int) -> None:
            """Drop a connection that asks for nothing, but not while it takes an answer."""
            taken = before - self.transport.get_write_buffer_size()
            if taken and taken >= min(before, LEAST_LATE):
                self._wait_on()
            else:
                self._drop()

        def _take(self, before: int | None = None) -> None:
            """Let the client go if too few bytes have left the buffer, else look again later."""
            size = self.transport.get_write_buffer_size()
            if before is not None and before - size < LEAST_TAKEN:
                self._drop()
            else:
                self._stalled = self.loop.call_later(stalled_seconds, self._take, size)

        def _rest(self) -> None:
            """Wait no more."""
            waiting.pop(self, None)
            if self._late is not None:
                self._late.cancel()

        def _drop(self) -> None:
            """Close at once, whatever was not sent."""
            self._rest()
            self.transport.abort()

    return Connection
