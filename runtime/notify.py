"""Tell systemd that a service is ready, alive or stopping: ``Type=notify`` and its watchdog.

A message is a datagram to the socket that systemd names in ``NOTIFY_SOCKET``. Without that variable
every function does nothing, so that a program may call them wherever it runs.
"""

from __future__ import annotations

import os
import socket

__all__ = ["ready", "stopping", "watchdog", "watchdog_seconds"]


def ready(status: str = "") -> bool:
    """Say that the service can answer now.

    Args:
        status: a line for ``systemctl status``.

    Returns:
        Whether systemd was told; False where no systemd has started this process.
    """
    return _send("READY=1", status)


def stopping(status: str = "") -> bool:
    """Say that the service is ending."""
    return _send("STOPPING=1", status)


def watchdog(status: str = "") -> bool:
    """Say that the service is alive; call it more often than every ``watchdog_seconds``."""
    return _send("WATCHDOG=1", status)


def watchdog_seconds() -> float | None:
    """Seconds after which systemd restarts a silent service; None without a watchdog.

    Call ``watchdog`` in half of that time, as ``sd_watchdog_enabled(3)`` advises.
    """
    limit, process = os.environ.get("WATCHDOG_USEC", ""), os.environ.get("WATCHDOG_PID", "")
    if not limit.isdecimal() or int(limit) == 0 or process not in ("", str(os.getpid())):
        return None
    return int(limit) / 1e6


def _send(state: str, status: str) -> bool:
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address.startswith(("/", "@")):
        return False
    if address[0] == "@":  # a name of Linux's abstract namespace
        address = "\0" + address[1:]
    lines = [state, *([f"STATUS={' '.join(status.split())}"] if status else [])]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender:
        try:
            sender.sendto("\n".join(lines).encode(), address)
        except OSError:  # systemd is gone, or restarting: no reason for a service to end
            return False
    return True
