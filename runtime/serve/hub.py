"""News for open streams: newest wins, so that a slow viewer neither lags nor fills memory."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from typing import Any

from runtime.serve.errors import RequestError

__all__ = ["Hub", "Subscription"]


class Subscription:
    """The news of one viewer: of every topic the newest item that was not taken yet.

    Args:
        topics: topics that are wanted; None takes all.
        left: called once, when the viewer is gone.
    """

    def __init__(self, topics: frozenset[str] | None, left: Callable[[Subscription], None]) -> None:
        self._topics, self._left = topics, left
        self._waiting: dict[str, Any] = {}
        self._wake = asyncio.Event()
        self._ended = False

    def put(self, topic: str, item: Any) -> None:
        """Replace the topic's item."""
        if self._topics is None or topic in self._topics:
            self._waiting.pop(topic, None)  # the newest goes last
            self._waiting[topic] = item
            self._wake.set()

    def end(self) -> None:
        """Let the iteration end, items that wait are dropped."""
        self._ended = True
        self._wake.set()

    def close(self) -> None:
        """The viewer is gone; may be called again."""
        self._left(self)

    async def items(self, pause: float | None = None) -> AsyncIterator[tuple[str, Any] | None]:
        """Yield ``(topic, item)``, and None after every ``pause`` seconds without news."""
        while not self._ended:
            with suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._wake.wait(), pause)
            self._wake.clear()
            if not self._waiting and not self._ended:
                yield None
            while self._waiting and not self._ended:
                topic = next(iter(self._waiting))
                yield topic, self._waiting.pop(topic)


class Hub:
    """Hands news to viewers; everything but ``send`` is called in the event loop.

    Args:
        most: viewers at a time.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._viewers: set[Subscription] = set()
        self._newest: dict[str, Any] = {}
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stopped = False

    @property
    def viewers(self) -> int:
        """Open streams."""
        return len(self._viewers)

    def start(self) -> None:
        """Take the running event loop for ``send``."""
        self._loop = asyncio.get_running_loop()

    def subscribe(self, topics: frozenset[str] | None = None) -> Subscription:
        """A new viewer, who first gets the newest item of every topic.

        Raises:
            RequestError: too many viewers (503), or the service is stopping.
        """
        if self._stopped:
            raise RequestError(503, "the service is stopping.", {"Retry-After": "5"})
        if len(self._viewers) >= self._most:
            raise RequestError(
                503,
                f"{self._most} streams are open already, the most at a time; close one.",
                {"Retry-After": "5"},
            )
        viewer = Subscription(topics, self._viewers.discard)
        self._viewers.add(viewer)
        for topic, item in self._newest.items():
            viewer.put(topic, item)
        return viewer

    def publish(self, topic: str, item: Any) -> None:
        """Hand an item to everyone who wants its topic."""
        self._newest[topic] = item
        for viewer in self._viewers:
            viewer.put(topic, item)

    def send(self, topic: str, item: Any) -> None:
        """``publish`` from any thread; does nothing before the start and after the end."""
        if self._loop is not None:
            with suppress(RuntimeError):  # the loop is closed
                self._loop.call_soon_threadsafe(self.publish, topic, item)

    def stop(self) -> None:
        """End every stream and open no more."""
        self._stopped = True
        for viewer in tuple(self._viewers):
            viewer.end()
