"""Limits and secrets of the service, checked when made."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from ipaddress import ip_address

from zsd_core.errors import ConfigError

__all__ = ["ServeConfig", "host_name"]

SHORTEST_TOKEN = 16


def host_name(text: str) -> str:
    """A host in one spelling: small letters, without its port, brackets and final dot.

    The zone of an address stands behind ``%``, which some write as ``%25``, as in an address of a
    page.
    """
    name = text.strip().lower()
    if match := re.fullmatch(r"\[(.+)\](:\d*)?|([^:]+):\d*", name):
        name = match[1] or match[3]
    name = re.sub("%25(?=.)", "%", name.removesuffix("."))
    try:
        return str(ip_address(name))  # an IPv6 address has many spellings
    except ValueError:
        return name


@dataclass(frozen=True, slots=True, kw_only=True)
class ServeConfig:
    """Limits of one service.

    Attributes:
        queue: most pictures that wait or are searched at a time; more are refused with 503 and a
            ``Retry-After``. The bodies of all pictures, also of those that are still coming, hold
            at most ``queue`` times ``body_bytes`` of memory.
        workers: pictures searched at the same time.
        body_bytes: largest body of a request.
        pixels: largest picture, width times height; asked of its header, before it is decoded.
        timeout: seconds from the end of a request's body to its answer.
        viewers: most open streams (``/live`` and ``/events``).
        token: bearer token that every request but ``/health`` and ``/ready`` must carry; None asks
            for none.
        hosts: names and addresses that a request's ``Host`` may carry, whatever the port; empty
            takes any. The loopback names keep other sites, open in the same browser, from reaching
            the service. ``/health`` and ``/ready`` answer under every name.
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
        if isinstance(self.hosts, str):
            raise ConfigError(f"ServeConfig.hosts is {self.hosts!r}, must be a tuple of names.")
        hosts = tuple(dict.fromkeys(_checked_host(host) for host in self.hosts))
        object.__setattr__(self, "hosts", hosts)
        if self.token is not None and not (
            len(self.token) >= SHORTEST_TOKEN
            and self.token.isascii()
            and self.token.isprintable()
            and self.token == self.token.strip()
        ):
            raise ConfigError(
                f"the token must be at least {SHORTEST_TOKEN} printable ASCII characters, with no "
                "blank at either end; try: "
                "python -c 'import secrets; print(secrets.token_urlsafe())'"
            )


def _checked_host(given: str) -> str:
    name = host_name(given)
    if not re.fullmatch(r"[a-z0-9_.-]+|[0-9a-f:.]+(%[a-z0-9_.~-]+)?", name):
        raise ConfigError(
            f"{given!r} is no name or address of a host; write it as browsers send it, without "
            "http:// and path, such as cam.example.org, and an international one as xn--…"
        )
    return name
