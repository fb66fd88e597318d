"""A real RTSP server in a process of its own, to be killed, stopped and continued."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
from functools import cache
from pathlib import Path

import numpy as np
import pytest

PYTHON = "/usr/bin/python3"  # the system's, for GStreamer's bindings are its packages
SCRIPT = Path(__file__).with_name("rtsp_server.py")
IMPORTS = (
    "import gi; gi.require_version('GstRtspServer', '1.0'); from gi.repository import Gst, "
    "GstRtspServer; Gst.init(None); assert all(map(Gst.ElementFactory.find, "
    "('appsrc', 'videoconvert', 'x264enc', 'rtph264pay')))"
)


@cache
def _missing() -> str:
    if not os.path.exists(PYTHON):
        return f"there is no {PYTHON}"
    tried = subprocess.run([PYTHON, "-c", IMPORTS], capture_output=True, text=True)
    return tried.stderr.strip().splitlines()[-1] if tried.returncode else ""


def require_server() -> None:
    """Skip the test where the server cannot run."""
    if _missing():
        pytest.skip(f"no RTSP server: {_missing()}; run scripts/install-system-packages")


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


class RtspServer:
    """Serves ``url``; frames show when they were made, see ``read_clock``."""

    def __init__(self, *credentials: str, port: int | None = None) -> None:
        require_server()
        self.port, self._credentials = port or free_port(), credentials
        user = ":".join(credentials) + "@" if credentials else ""
        self.url = f"rtsp://{user}127.0.0.1:{self.port}/clock"
        self.start()

    def start(self) -> None:
        command = [PYTHON, str(SCRIPT), str(self.port), "25", *self._credentials]
        self._process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == "ready\n"

    def pause(self) -> None:
        self._process.send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        self._process.send_signal(signal.SIGCONT)

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()
        self._process.stdout.close()

    def __enter__(self) -> RtspServer:
        return self

    def __exit__(self, *exception: object) -> None:
        self.kill()


def read_clock(image: np.ndarray) -> tuple[float, int]:
    """The monotonic clock in seconds when a frame was made, and its number modulo 256."""
    bits = "".join("1" if level > 128 else "0" for level in image[8::16, 8::16, 0].ravel())
    return int(bits[:32], 2) / 1000, int(bits[32:], 2)


class SilentServer:
    """Accepts connections and never says a word."""

    def __init__(self) -> None:
        self._socket = socket.socket()
        self._socket.bind(("127.0.0.1", 0))
        self._socket.listen(8)
        self.port = int(self._socket.getsockname()[1])
        self.url = f"rtsp://127.0.0.1:{self.port}/clock"

    def __enter__(self) -> SilentServer:
        return self

    def __exit__(self, *exception: object) -> None:
        self._socket.close()
