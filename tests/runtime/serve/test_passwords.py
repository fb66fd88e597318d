"""Passwords of cameras, looked for in everything that a service says."""

from __future__ import annotations

import socket
import time
from contextlib import suppress
from urllib.error import URLError
from urllib.request import urlopen


def read(url):
    """Text of an answer; "" while nobody answers."""
    with suppress(URLError), urlopen(url, timeout=60) as answer:
        return answer.read().decode()
    return ""


def test_no_password_of_a_camera_leaves_the_service(start):
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    cameras = [
        f"rtsp://127.0.0.1:{port}/stream?user=admin&password=secret",
        f"rtsp://127.0.0.1:{port}/user=admin_password=secret_channel=1",
        f"rtsp://admin:se/secret@127.0.0.1:{port}/1",
        f'rtspsrc location="rtsp://127.0.0.1:{port}/1?p=secret" user-pw="a secret" ! appsink',
    ]
    process = start(*cameras, "--live-timeout", "1", "--verbose")
    end = time.monotonic() + 60
    while time.monotonic() < end:
        told = read(process.url + "/sources")
        if told.count('"lost"') == len(cameras):
            break
        time.sleep(0.1)
    told += read(process.url + "/metrics")
    process.end()
    assert told.count('"lost"') == len(cameras) and 'contrastzsd_source_up{source="' in told
    assert "secret" not in told and "secret" not in process.errors
    assert "127-0-0-1-stream: cannot be opened" in process.errors
