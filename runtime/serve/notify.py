"""Tells systemd (``Type=notify``, ``WatchdogSec=``) that the service is ready, alive, stopping."""

from __future__ import annotations

import asyncio
import os
import socket

__all__ = ["notify", "watchdog"]


def notify(message: str) -> bool:
    """Send a message such as ``READY=1``; return whether anybody listens.

    Does nothing where systemd did not start this process.
    """
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address.startswith(("/", "@")):
        return False
    if address.startswith("@"):  # Linux's abstract names begin with a zero byte
        address = "\0" + address[1:]
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as manager:
            manager.connect(address)
            manager.sendall(message.encode())
    except OSError:  # the manager is gone: nothing to tell it
        return False
    return True


async def watchdog() -> None:
    """Say from the event loop that it turns, twice as often as systemd asks for; until cancelled.

    A loop that hangs says nothing, and systemd starts the service again. A manager that is away for
    a moment, since it starts itself again, is told the next time.
    """
    microseconds = os.environ.get("WATCHDOG_USEC", "")
    mine = os.environ.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
    listened = bool(os.environ.get("NOTIFY_SOCKET"))
    if not (microseconds.isdecimal() and int(microseconds) and mine and listened):
        return
    while True:
        notify("WATCHDOG=1")
        await asyncio.sleep(int(microseconds) / 2e6)
