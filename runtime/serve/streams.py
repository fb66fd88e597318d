"""Answers without an end: MJPEG and server-sent events."""

from __future__ import annotations

import json
import logging
from collections.abc import AsyncIterator

import anyio
from starlette.responses import Response, StreamingResponse
from starlette.types import Message, Receive, Scope, Send

from runtime.serve.hub import Subscription
from runtime.serve.live import Shown

__all__ = ["mjpeg", "server_sent_events"]

log = logging.getLogger(__name__)
STALLED = 20.0  # seconds after which a viewer that takes no bytes is let go
HEARTBEAT = 10.0  # seconds without news after which a stream shows that it lives
WAITING = b"X-Source: waiting\r\n"  # a header of the first part, while there is no frame


def mjpeg(viewer: Subscription, source: str, draw: bool) -> Response:
    """Frames as ``multipart/x-mixed-replace``, with their boxes in the picture or not.

    A source that is silent has its last frame sent again, so that no proxy takes the answer for
    dead. The answer ends after the last frame of a video that has ended.

    Args:
        viewer: of the source's frames and of "sources".
        source: its name.
        draw: whether boxes are drawn.
    """

    async def parts() -> AsyncIterator[bytes]:
        last: Shown | None = None
        ended = False
        yield b"--frame\r\n"
        async for news in viewer.items(HEARTBEAT):
            if news is None and ended:  # frames may still be searched when the reading has ended
                return
            if news is not None and news[0] == "sources":
                ended = {"name": source, "state": "ended", "error": None} in news[1]
                continue
            if news is not None:
                last = news[1]
            yield await anyio.to_thread.run_sync(last.part, draw) if last else WAITING

    return _Stream(viewer, parts(), "multipart/x-mixed-replace; boundary=frame")


def server_sent_events(viewer: Subscription) -> Response:
    """News as events: "frame", and the topics that are no frames by their own names."""

    async def events() -> AsyncIterator[bytes]:
        yield b"retry: 1000\n\n"
        async for news in viewer.items(HEARTBEAT):
            if news is None:
                yield b": still here\n\n"
                continue
            topic, item = news
            name, value = ("frame", item.record) if isinstance(item, Shown) else (topic, item)
            text = json.dumps(value, ensure_ascii=False)
            yield f"event: {name}\ndata: {text}\n\n".encode()

    return _Stream(viewer, events(), "text/event-stream")


class _Stream(StreamingResponse):
    """An answer without an end; its viewer leaves when it ends, however it does."""

    def __init__(self, viewer: Subscription, content: AsyncIterator[bytes], kind: str) -> None:
        headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no", "Content-Type": kind}
        super().__init__(content, headers=headers)
        self._viewer = viewer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def in_time(message: Message) -> None:
            with anyio.fail_after(STALLED):
                await send(message)

        if scope["method"] == "HEAD":  # as GET would be answered, 503 among it, but no more
            self._viewer.end()
            self._viewer.close()
        try:
            await super().__call__(scope, receive, in_time)
        except TimeoutError:
            log.info("a viewer took nothing for %g s", STALLED)
        finally:
            self._viewer.close()
