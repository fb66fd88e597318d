"""Messages that systemd hears, on a socket like its own."""

from __future__ import annotations

import asyncio
import signal
import socket
import time

import pytest
from coroutines import run_apart

from runtime.serve.notify import notify, watchdog


@pytest.fixture
def manager(tmp_path):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(str(tmp_path / "notify"))
        listener.settimeout(60)
        yield listener


def test_nobody_is_told_where_nobody_listens(monkeypatch, tmp_path):
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    assert notify("READY=1") is False
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "gone"))
    assert notify("READY=1") is False


def test_abstract_sockets_are_reached(monkeypatch):
    name = f"contrastzsd-test-{time.time_ns()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(f"\0{name}")
        monkeypatch.setenv("NOTIFY_SOCKET", f"@{name}")
        assert notify("READY=1") is True
        assert listener.recv(100) == b"READY=1"


def test_the_watchdog_goes_on_after_its_manager_was_away(monkeypatch, tmp_path):
    address = tmp_path / "manager"
    monkeypatch.setenv("NOTIFY_SOCKET", str(address))
    monkeypatch.setenv("WATCHDOG_USEC", "20000")
    monkeypatch.delenv("WATCHDOG_PID", raising=False)

    async def main():
        alive = asyncio.create_task(watchdog())
        await asyncio.sleep(0.1)  # nobody is there yet
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
            listener.bind(str(address))
            listener.settimeout(60)
            heard = await asyncio.to_thread(listener.recv, 100)
        alive.cancel()
        assert heard == b"WATCHDOG=1"

    run_apart(main)


def test_the_command_says_ready_alive_and_stopping(start, manager):
    process = start(env={"NOTIFY_SOCKET": manager.getsockname(), "WATCHDOG_USEC": "200000"})
    heard = []
    while b"READY=1" not in heard or heard.count(b"WATCHDOG=1") < 3:
        heard.append(manager.recv(100))
    assert set(heard) == {b"READY=1", b"WATCHDOG=1"}
    process.process.send_signal(signal.SIGTERM)
    while manager.recv(100) != b"STOPPING=1":
        pass
    assert process.process.wait(timeout=60) == 0
