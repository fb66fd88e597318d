"""Runs the application under uvicorn, and ends it in time."""

from __future__ import annotations

import signal
import socket
from collections.abc import Sequence
from types import FrameType
from typing import Any

import uvicorn

from runtime.serve import create_app
from runtime.serve.config import ServeConfig
from runtime.serve.connections import connections

__all__ = ["run"]

GRACE = 1  # seconds that requests in progress have after a signal


class _Server(uvicorn.Server):
    """Ends open streams at once on a signal: uvicorn alone would wait for their viewers."""

    def __init__(self, config: uvicorn.Config, service: Any) -> None:
        super().__init__(config)
        self._service = service

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Called by uvicorn on SIGINT and SIGTERM."""
        self._service.stop()
        self.should_exit = True


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
    service = app.state.service
    most = 16 * (config.queue + config.viewers)  # with some beyond what can be in work: told so
    server = _Server(
        uvicorn.Config(
            app,
            log_config=None,
            access_log=access_log,
            server_header=False,
            timeout_graceful_shutdown=GRACE,
            http=connections(most),
            ws="none",
            limit_concurrency=most,
            lifespan="on",
        ),
        service,
    )
    if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # nohup
        signal.signal(signal.SIGHUP, server.handle_exit)
    server.run(sockets=[listener])
