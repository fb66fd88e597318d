"""How uvicorn runs the application: as many connections as files, and a log that stays short."""

from __future__ import annotations

import asyncio
import errno
import logging
import resource
import signal
import socket
import subprocess
import sys
import time

import pytest
from colour_detector import ColourDetector
from coroutines import run_apart

from runtime.serve import ServeConfig, server
from runtime.serve.connections import HEAD_SECONDS
from runtime.serve.server import ACCEPTED, OTHER_FILES, most_connections, settings
from zsd_core.errors import ConfigError

CONFIG = ServeConfig(queue=4, viewers=6)


@pytest.mark.parametrize(
    ("files", "most"),
    [
        (resource.RLIM_INFINITY, 160),
        (100_000, 160),
        (OTHER_FILES + 160, 160),
        (OTHER_FILES + 159, 159),
        (OTHER_FILES + 10, 10),
    ],
)
def test_there_are_no_more_connections_than_files(monkeypatch, files, most):
    monkeypatch.setattr(resource, "getrlimit", lambda which: (files, resource.RLIM_INFINITY))
    assert most_connections(CONFIG) == most
    assert settings(None, CONFIG).limit_concurrency == most + 2 * ACCEPTED


def test_a_connection_may_wait_as_long_for_its_next_request_as_for_its_first():
    assert settings(None, CONFIG).timeout_keep_alive == HEAD_SECONDS


def test_signals_after_the_end_change_nothing(monkeypatch):
    """uvicorn leaves signals as they were: the second Ctrl-C ended the process with -2."""
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = [signal.signal(number, signal.SIG_DFL) for number in numbers]
    ran = []
    monkeypatch.setattr(server.Server, "run", lambda self, sockets: ran.append(self))
    try:
        server.run(ColourDetector(), CONFIG, (), None, access_log=True)
        for number in numbers:
            signal.getsignal(number)(number, None)
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)
    assert ran[0].should_exit and ran[0]._service.status == "stopping"


def test_fewer_files_than_what_can_be_in_work_are_refused(monkeypatch):
    files = OTHER_FILES + 9
    monkeypatch.setattr(resource, "getrlimit", lambda which: (files, files))
    with pytest.raises(ConfigError, match=rf"may open {files}; raise that \(ulimit -n"):
        most_connections(CONFIG)


CLIENTS = """
import json, socket, sys
from urllib.parse import urlsplit
address = urlsplit(sys.argv[1])
clients = [socket.create_connection((address.hostname, address.port)) for _ in range(400)]
last = clients[-1]
last.sendall(f"GET /health HTTP/1.1\\r\\nHost: {address.netloc}\\r\\n\\r\\n".encode())
last.settimeout(20)
print(last.recv(100).partition(b"\\r")[0].decode())
"""


def test_more_connections_than_files_leave_the_log_empty(start):
    """Each that could not be accepted was logged with its traceback, thousands a second."""
    process = start("--queue", "4", "--max-viewers", "6")
    resource.prlimit(process.process.pid, resource.RLIMIT_NOFILE, (OTHER_FILES + 160,) * 2)
    client = [sys.executable, "-c", CLIENTS, process.url]
    told = subprocess.run(client, capture_output=True, text=True, timeout=60)
    assert told.stdout == "HTTP/1.1 200 OK\n", told.stderr
    process.end()
    assert "Traceback" not in process.errors and "accept" not in process.errors


def test_that_files_run_out_is_said_once(caplog):
    async def main():
        one = server.Server(settings(None, CONFIG), None)
        loop = asyncio.get_running_loop()
        for _ in range(100):
            one.say(loop, {"message": "no", "exception": OSError(errno.EMFILE, "Too many files")})
        one.say(loop, {"message": "something else"})

    run_apart(main)
    said = [record.getMessage() for record in caplog.records]
    assert said == ["no connection can be accepted: Too many files.", "something else"]


def test_the_system_keeps_connections_that_are_not_accepted_yet(served):
    """uvicorn's backlog is also the number of connections that one turn of the loop accepts."""
    service = served()
    assert settings(None, CONFIG).backlog == ACCEPTED
    host, port = service.url.split("/")[2].split(":")
    while service.service.status != "ready":
        time.sleep(0.01)
    service.service._loop.call_soon_threadsafe(time.sleep, 1)
    begin = time.monotonic()
    clients = [socket.create_connection((host, int(port)), timeout=20) for _ in range(300)]
    for client in clients:
        client.close()
    assert time.monotonic() - begin < 0.9


def test_what_a_proxy_says_cannot_steer_a_terminal():
    record = logging.LogRecord(
        "uvicorn.access", 20, "", 0, '%s - "%s" %d', ("\x1b[2J\x9b1m\n", "GET /", 200), None
    )
    assert server._plain(record)
    assert record.getMessage() == '\\x1b[2J\\x9b1m\\n - "GET /" 200'
