"""Coroutines in tests that share a process with a browser."""

from __future__ import annotations

import threading
from collections.abc import Awaitable, Callable

import anyio


def run_apart(main: Callable[[], Awaitable[object]]) -> None:
    """Run `main` to its end on a thread of its own; what it raises is raised here.

    Playwright's synchronous driver keeps an event loop running in the thread that opened it, for
    as long as the browser lives, and one thread runs one loop.
    """
    raised: list[BaseException] = []

    def run() -> None:
        try:
            anyio.run(main)
        except BaseException as error:
            raised.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    if raised:
        raise raised[0]
