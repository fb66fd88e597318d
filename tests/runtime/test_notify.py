"""Messages to systemd, received by a real socket as systemd's is."""

from __future__ import annotations

import os
import socket

import pytest

from runtime import notify


@pytest.fixture(params=["path", "abstract"])
def systemd(request, tmp_path, monkeypatch):
    """A datagram socket and its address in the environment."""
    name = str(tmp_path / "notify") if request.param == "path" else f"\0zsd-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind(name)
        receiver.settimeout(5)
        monkeypatch.setenv("NOTIFY_SOCKET", name.replace("\0", "@"))
        yield receiver


def test_each_state_arrives_as_systemd_reads_it(systemd):
    assert notify.ready("65 classes\nand more") and notify.watchdog() and notify.stopping()
    messages = [systemd.recv(1024).decode() for _ in range(3)]
    assert messages == ["READY=1\nSTATUS=65 classes and more", "WATCHDOG=1", "STOPPING=1"]


@pytest.mark.parametrize("address", [None, "", "relative", "/nowhere/socket"])
def test_without_systemd_nothing_happens(monkeypatch, address):
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    if address is not None:
        monkeypatch.setenv("NOTIFY_SOCKET", address)
    assert notify.ready() is False


@pytest.mark.parametrize(
    ("limit", "process", "seconds"),
    [
        (None, None, None),
        ("30000000", None, 30.0),
        ("30000000", "mine", 30.0),
        ("30000000", "1", None),
        ("0", None, None),
        ("soon", None, None),
    ],
)
def test_the_watchdog_is_that_of_this_process(monkeypatch, limit, process, seconds):
    for name, value in (("WATCHDOG_USEC", limit), ("WATCHDOG_PID", process)):
        monkeypatch.delenv(name, raising=False)
        if value is not None:
            monkeypatch.setenv(name, str(os.getpid()) if value == "mine" else value)
    assert notify.watchdog_seconds() == seconds
