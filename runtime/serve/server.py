"""Runs the application under uvicorn, and ends it in time."""

from __future__ import annotations

import asyncio
import errno
import logging
import math
import signal
import socket
import time
from collections.abc import Sequence
from types import FrameType
from typing import Any

import uvicorn

from runtime.serve import create_app
from runtime.serve.config import ServeConfig
from runtime.serve.connections import HEAD_SECONDS, connections
from zsd_core.errors import ConfigError

__all__ = ["Server", "most_connections", "run", "settings"]

log = logging.getLogger(__name__)
OUT_OF_FILES = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
GRACE = 1  # seconds that requests in progress have after a signal
ACCEPTED = 32  # connections in one turn of the event loop
QUEUED = 2048  # connections that the system keeps until they are accepted
OTHER_FILES = 64 + 2 * ACCEPTED  # open beside the connections; with those that come and go
QUIET_SECONDS = 60.0  # between two lines of the log that say that no connection can be accepted


class Server(uvicorn.Server):
    """Ends open streams at once on a signal: uvicorn alone would wait for their viewers.

    Args:
        config: see ``settings``.
        service: the ``Application``.
    """

    def __init__(self, config: uvicorn.Config, service: Any) -> None:
        super().__init__(config)
        self._service = service
        self._said = -math.inf

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Called by uvicorn."""
        await super().startup(sockets)
        for listener in sockets or ():
            listener.listen(QUEUED)
        asyncio.get_running_loop().set_exception_handler(self.say)

    def say(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """Log what goes wrong in the event loop; where files run out, once a minute."""
        error = context.get("exception")
        if not (isinstance(error, OSError) and error.errno in OUT_OF_FILES):
            loop.default_exception_handler(context)
        elif time.monotonic() - self._said >= QUIET_SECONDS:
            self._said = time.monotonic()
            log.error("no connection can be accepted: %s.", error.strerror)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Called by uvicorn on SIGINT and SIGTERM."""
        self._service.stop()
        self.should_exit = True


def settings(app: Any, config: ServeConfig, *, access_log: bool = False) -> uvicorn.Config:
    """How uvicorn runs the application.

    Raises:
        ConfigError: this process may not open as many files as that takes.
    """
    most = most_connections(config)
    return uvicorn.Config(
        app,
        log_config=None,
        access_log=access_log,
        server_header=False,
        timeout_graceful_shutdown=GRACE,
        timeout_keep_alive=HEAD_SECONDS,
        http=connections(most),
        ws="none",
        limit_concurrency=most + 2 * ACCEPTED,  # those that make room are gone some turns later
        backlog=ACCEPTED,
        lifespan="on",
    )


def most_connections(config: ServeConfig) -> int:
    """Connections at a time: some beyond what can be in work, which are told so.

    They are fewer where this process may not open as many files.

    Raises:
        ConfigError: it may not even open those of all that can be in work.
    """
    busy = config.queue + config.viewers
    most = 16 * busy
    try:
        from resource import RLIM_INFINITY, RLIMIT_NOFILE, getrlimit
    except ImportError:  # Windows, which has no such limit
        return most
    files, _ = getrlimit(RLIMIT_NOFILE)
    if files == RLIM_INFINITY:
        return most
    if files < busy + OTHER_FILES:
        raise ConfigError(
            f"{config.queue} pictures and {config.viewers} streams at a time need "
            f"{busy + OTHER_FILES} open files, and this process may open {files}; raise that "
            "(ulimit -n, or LimitNOFILE= of systemd), or lower --queue and --max-viewers."
        )
    return min(most, files - OTHER_FILES)


def run(
    detector: Any,
    config: ServeConfig,
    sources: Sequence[str],
    listener: socket.socket,
    *,
    access_log: bool = False,
) -> None:
    """Serve on a socket until a signal comes; threads of sources may still be ending then."""
    app = create_app(detector, config, sources)
    server = Server(settings(app, config, access_log=access_log), app.state.service)
    for name in ("SIGINT", "SIGTERM", "SIGHUP"):  # uvicorn leaves them as they were when it ends
        number = getattr(signal, name, None)  # Windows has no SIGHUP
        if number is not None and signal.getsignal(number) is not signal.SIG_IGN:  # nohup
            signal.signal(number, server.handle_exit)
    if not access_log:  # uvicorn warns of what any client can send, as often as it does
        logging.getLogger("uvicorn.error").setLevel(logging.ERROR)
    logging.getLogger("uvicorn.access").addFilter(_plain)
    server.run(sockets=[listener])


def _plain(record: logging.LogRecord) -> bool:
    """Escape what a client or a proxy wrote, so that it cannot steer a terminal."""
    if isinstance(record.args, tuple):
        record.args = tuple(
            part if not isinstance(part, str) else part.encode("unicode_escape").decode()
            for part in record.args
        )
    return True
