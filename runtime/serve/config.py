"""Limits and secrets of the service, checked when made."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from zsd_core.errors import ConfigError

__all__ = ["ServeConfig"]

SHORTEST_TOKEN = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class ServeConfig:
    """Limits of one service.

    Attributes:
        queue: most pictures that are being sent, waiting or searched at a time; more are refused
            with 503 and a ``Retry-After``.
        workers: pictures searched at the same time.
        body_bytes: largest body of a request.
        pixels: largest picture, width times height; asked of its header, before it is decoded.
        timeout: seconds from a request's first byte to its answer.
        viewers: most open streams (``/live`` and ``/events``).
        token: bearer token that every request but ``/health`` and ``/ready`` must carry; None asks
            for none.
        hosts: names that a request's ``Host`` may carry, without the port; empty takes any. The
            loopback names keep other sites, open in the same browser, from reaching the service.
        live_timeout: seconds after which a silent camera is lost.
        loop: begin a watched video again when it has ended.
        retry: shortest and longest pause in seconds before a lost camera is tried again.
    """

    queue: int = 16
    workers: int = 1
    body_bytes: int = 16 * 2**20
    pixels: int = 25_000_000
    timeout: float = 30.0
    viewers: int = 32
    token: str | None = field(default=None, repr=False)
    hosts: tuple[str, ...] = ("127.0.0.1", "localhost", "[::1]")
    live_timeout: float = 5.0
    loop: bool = False
    retry: tuple[float, float] = (0.5, 30.0)

    def __post_init__(self) -> None:
        for name in ("queue", "workers", "body_bytes", "pixels", "viewers"):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise ConfigError(f"ServeConfig.{name} is {value!r}, must be a whole number > 0.")
        for name in ("timeout", "live_timeout"):
            value = getattr(self, name)
            if not (isinstance(value, (int, float)) and math.isfinite(value) and value > 0):
                raise ConfigError(f"ServeConfig.{name} is {value!r}, must be seconds above 0.")
        if self.workers > self.queue:
            raise ConfigError(
                f"ServeConfig.workers is {self.workers}, above queue {self.queue}; a picture that "
                "is searched has a place in the queue, so make the queue larger."
            )
        if self.token is not None and not (
            len(self.token) >= SHORTEST_TOKEN and self.token.isascii() and self.token.isprintable()
        ):
            raise ConfigError(
                f"the token must be at least {SHORTEST_TOKEN} printable ASCII characters; try: "
                "python -c 'import secrets; print(secrets.token_urlsafe())'"
            )
