"""Connections of clients: those that ask for nothing, or take nothing, are closed."""

from __future__ import annotations

import asyncio
import weakref
from http import HTTPStatus
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from runtime.serve.errors import RequestError, answer

__all__ = ["HEAD_SECONDS", "STALLED_SECONDS", "UNSENT_BYTES", "connections"]

HEAD_SECONDS = 10  # until the head of a request is whole, however it trickles in
STALLED_SECONDS = 30.0  # in which a client takes less than this of its answer:
LEAST_TAKEN = 64 * 2**10  # bytes
LEAST_LATE = 4 * 2**10  # bytes that a client takes of the rest while it waits, or all
UNSENT_BYTES = 256 * 2**20  # of the answers that clients have not taken yet
HEAD_BYTES = 16 * 2**10  # of a request; somewhat longer ones may pass
PIECE = 16 * 2**10  # bytes that are parsed at a time: the bound of a head is looked at in between
MANY_CHUNKS = 1024  # of a body, from which on they must hold, in the mean,
LEAST_CHUNK = 64  # bytes: each takes as long to parse as thousands; lines of photographs hold 200
UNREAD_BYTES = 256 * 2**20  # of a body that are let pass once it was answered


def connections(
    most: int,
    head_seconds: float = HEAD_SECONDS,
    stalled_seconds: float = STALLED_SECONDS,
    unsent_bytes: int = UNSENT_BYTES,
) -> type[asyncio.Protocol]:
    """A protocol for uvicorn, whose connections share two bounds.

    A connection waits from its beginning, and from the end of every answer, until the head of the
    next request is whole. One that waits too long is closed. Where more connections come than there
    is room for, the one that has waited longest is closed: for a head, or for 64 KiB of a body.
    Clients that send nothing keep nobody else out.

    A client that gets its answer before its body was whole is told that the connection ends with
    it. It may send the rest, up to 256 MiB, which nobody reads: closed at once, the connection
    would be reset and the answer lost. One that says with its request that it sends no more gets
    its answer, too.

    Args:
        most: connections at a time, those that wait among them.
        head_seconds: that one may wait.
        stalled_seconds: in which a client must take 64 KiB of an answer that waits for it, or send
            as much of a body that was answered before.
        unsent_bytes: of all answers that wait for their clients; where they are more, the client
            that has kept its answer waiting longest is let go.
    """
    waiting: dict[Any, None] = {}  # in the order in which they began to
    unsent: dict[Any, None] = {}  # connections with an answer that waits, in the same order

    class Connection(H11Protocol):
        """One connection."""

        _late: asyncio.TimerHandle | None = None
        _stalled: asyncio.TimerHandle | None = None
        _came = 0  # bytes of a body since it waits
        ended = False  # whether the client sends no more
        stopping = False  # whether the service is

        def __init__(self, *arguments: Any, **options: Any) -> None:
            super().__init__(*arguments, **options)
            self.conn: _Parser = _Parser(h11.SERVER, HEAD_BYTES)

        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            # Not one through the other: what a client sent would stay until both are collected.
            patient = _Transport(transport, weakref.proxy(self))
            super().connection_made(patient)  # type: ignore[arg-type]
            self._look()
            oldest = next(iter(waiting), self)
            if len(self.connections) >= most and oldest is not self:
                oldest._drop()

        def connection_lost(self, exc: Exception | None) -> None:
            super().connection_lost(exc)
            self._rest()
            self._taken()

        def data_received(self, data: bytes) -> None:
            self._came += len(data)
            for start in range(0, len(data), PIECE):
                if self.transport.is_closing():  # it was answered: nobody reads the rest
                    if self._came > UNREAD_BYTES:
                        self._drop()
                    return
                super().data_received(data[start : start + PIECE])
            self._look()

        def eof_received(self) -> bool:  # type: ignore[override]
            """Whether the connection stays, for an answer that has an end."""
            self.ended = True
            endless = self.cycle is not None and self.cycle.response_started and self.conn.endless
            return self._owes() and not endless

        def on_response_complete(self) -> None:
            super().on_response_complete()
            if self.ended and not self._owes():
                self.transport.close()
            self._look()

        def send_400_response(self, msg: str) -> None:
            """Called by uvicorn where what came cannot be read."""
            if self.conn.our_state not in (h11.IDLE, h11.SEND_RESPONSE):  # an answer is under way
                self._drop()
                return
            response = answer(self.conn.fault)
            status = HTTPStatus(response.status_code)
            headers = [*response.raw_headers, (b"connection", b"close")]
            for event in (
                h11.Response(status_code=status, headers=headers, reason=status.phrase.encode()),
                h11.Data(data=bytes(response.body)),
                h11.EndOfMessage(),
            ):
                self.transport.write(self.conn.send(event))
            if self.cycle is not None:  # whoever reads the body is told that it ends here
                self.cycle.disconnected = True
                self.cycle.message_event.set()
            self.transport.close()

        def _get_upgrade(self) -> bytes | None:
            return None  # neither websockets nor h2c: the request is answered as it stands

        def shutdown(self) -> None:
            self.stopping = True
            if self.transport.is_closing():
                self._drop()
            else:
                super().shutdown()

        def pause_writing(self) -> None:
            super().pause_writing()
            unsent[self] = None
            self._take()
            while sum(one.transport.get_write_buffer_size() for one in unsent) > unsent_bytes:
                slowest = next(iter(unsent))
                if slowest is self:
                    break
                slowest._drop()

        def resume_writing(self) -> None:
            super().resume_writing()
            self._taken()

        def timeout_keep_alive_handler(self) -> None:
            if not self.transport.get_write_buffer_size():  # what still goes out is of `_expire`
                super().timeout_keep_alive_handler()

        def linger(self) -> None:
            """Let the client send on until it ends, while it does."""
            self._rest()
            if self.cycle is not None:
                self.cycle.body = bytearray()
            waiting[self], self._came = None, 0
            self._hear_on()

        def _hear_on(self) -> None:
            self._late = self.loop.call_later(stalled_seconds, self._hear, self._came)

        def _hear(self, before: int) -> None:
            """Drop a connection that sends too little of the rest of its body."""
            if self._came - before < LEAST_TAKEN:
                self._drop()
            else:
                self._hear_on()

        def _asked(self) -> bool:
            """Whether there is a request whose answer is not complete."""
            return self.cycle is not None and not self.cycle.response_complete

        def _owes(self) -> bool:
            """Whether a request that has come whole waits for the end of its answer."""
            return self._asked() and not self.cycle.more_body

        def _look(self) -> None:
            """Note whether this connection waits for a request, or for its body."""
            if self not in self.connections or self.transport.is_closing():
                return
            if self._asked():
                fresh = self._late is not None or self._came >= LEAST_TAKEN
                if fresh or not self.cycle.more_body:
                    self._rest()
                if self.cycle.more_body and self not in waiting:
                    waiting[self], self._came = None, 0
            elif self._late is None:
                self._rest()
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

        def _taken(self) -> None:
            """No answer waits any more."""
            unsent.pop(self, None)
            if self._stalled is not None:
                self._stalled.cancel()

        def _rest(self) -> None:
            """Wait no more."""
            waiting.pop(self, None)
            if self._late is not None:
                self._late.cancel()
                self._late = None

        def _drop(self) -> None:
            """Close at once, whatever was not sent."""
            self._rest()
            self._taken()
            self.transport.abort()

    return Connection


class _Parser(h11.Connection):
    """As h11's; refuses a body with two lengths, and one in chunks that cost more than they bring.

    An answer that begins before its request is whole says that the connection ends: who sent the
    next request there, after what nobody reads, would get no answer.

    Attributes:
        endless: whether the newest answer has no length, as streams.
        fault: why what came cannot be read.
    """

    endless = False
    fault = RequestError(400, "this is no HTTP request.")
    _chunks = _bytes = 0

    def send(self, event: Any) -> Any:
        """As h11's."""
        if isinstance(event, h11.Response):
            self.endless = b"content-length" not in dict(event.headers)
            if self.their_state is h11.SEND_BODY:
                kept = [(name, value) for name, value in event.headers if name != b"connection"]
                event = h11.Response(
                    status_code=event.status_code,
                    headers=[*kept, (b"connection", b"close")],
                    reason=event.reason,
                )
        return super().send(event)

    def next_event(self) -> Any:
        """As h11's."""
        try:
            event = super().next_event()
        except h11.RemoteProtocolError as error:
            self.fault = _fault(error)
            raise
        if isinstance(event, h11.Request):
            self._chunks = self._bytes = 0
            if {b"content-length", b"transfer-encoding"} <= {name for name, _ in event.headers}:
                self._refuse("the request has a Content-Length and a Transfer-Encoding; send one.")
        elif isinstance(event, h11.Data):
            self._chunks += event.chunk_start
            self._bytes += len(event.data)
            whole = self._chunks - 1  # the newest may have begun only
            if whole > MANY_CHUNKS and self._bytes < LEAST_CHUNK * whole:
                self._refuse(
                    f"the chunks of the body hold less than {LEAST_CHUNK} bytes each; send larger "
                    "ones, or the whole body with its Content-Length."
                )
        return event

    def _refuse(self, sentence: str) -> None:
        self.fault = RequestError(400, sentence)
        raise h11.RemoteProtocolError(sentence)


def _fault(error: h11.RemoteProtocolError) -> RequestError:
    """What h11 could not read, in a sentence."""
    status = error.error_status_hint
    if status == HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE:
        return RequestError(
            status,
            f"the head of the request has more than {HEAD_BYTES // 2**10} KiB; send fewer or "
            "shorter headers and parameters. Many classes fit into the body of PUT /classes.",
        )
    reason = str(error).partition(": bytearray(")[0]  # without what came
    return RequestError(status, f"the request cannot be read as HTTP: {reason}.")


class _Transport:
    """A transport that hears its client out before it closes."""

    def __init__(self, transport: asyncio.Transport, protocol: Any) -> None:
        self._transport, self._protocol = transport, protocol
        self._closing = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def is_closing(self) -> bool:
        """Whether it closes, or will."""
        return self._closing or self._transport.is_closing()

    def close(self) -> None:
        """Close, now or when the client has sent the rest of its body."""
        first, self._closing = not self._closing, True
        more = self._protocol.conn.their_state in (h11.SEND_BODY, h11.ERROR)
        unread = more and not self._protocol.ended and not self._protocol.stopping
        if first and unread and not self._transport.is_closing() and self._ended():
            self._transport.resume_reading()
            self._protocol.linger()
        else:
            self._transport.close()

    def _ended(self) -> bool:
        """Say that the answer ends here; whether the client is still there to hear it."""
        try:
            self._transport.write_eof()
        except OSError:  # it has reset the connection
            return False
        return True
