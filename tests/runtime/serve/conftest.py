"""A service around the double, and a real one in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path
from urllib.parse import urlsplit

import cv2
import pytest

pytest.importorskip("starlette")
pytest.importorskip("prometheus_client")
pytest.importorskip("uvicorn")
pytest.importorskip("httpx2")

from colour_detector import ColourDetector, picture
from page_visits import CHROMIUM, DESK, QUIET, WAIT, Served
from starlette.testclient import TestClient

from runtime.serve import ServeConfig, create_app

ROOT = Path(__file__).parents[3]


@pytest.fixture
def serve():
    """Make a client of a service; it is closed at the end."""
    clients = []

    def make(detector=None, sources=(), **config):
        config.setdefault("hosts", ())
        app = create_app(detector or ColourDetector(), ServeConfig(**config), sources)
        client = TestClient(app)
        client.__enter__()
        clients.append(client)
        return client

    yield make
    for client in clients:
        client.__exit__(None, None, None)


@pytest.fixture
def client(serve):
    return serve()


class Process:
    """``python -m runtime.serve`` on a free port; stderr is kept."""

    def __init__(self, *arguments, env=None) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "runtime.serve", "--port", "0", *map(str, arguments)],
            cwd=ROOT,
            env={**os.environ, **(env or {})},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.url = self.process.stdout.readline().strip().rstrip("/")
        self._lines: list[str] = []
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    @property
    def errors(self) -> str:
        return "".join(self._lines)

    def memory(self) -> float:
        """Most memory so far in MiB."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(status.split("VmHWM:")[1].split()[0]) / 1024

    def _read(self) -> None:
        self._lines.extend(self.process.stderr)

    def end(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self._reader.join()
        self.process.stdout.close()
        self.process.stderr.close()


@pytest.fixture
def start(bundle_path):
    """Start the command on the tiny bundle; it is killed at the end."""
    running = []

    def make(*arguments, env=None):
        process = Process(
            "--bundle", bundle_path, "--threads", 1, "--score-threshold", 0, *arguments, env=env
        )
        running.append(process)
        return process

    yield make
    for process in running:
        process.end()


@pytest.fixture
def served():
    running = []

    def make(*arguments, **options):
        running.append(Served(*arguments, **options))
        return running[-1]

    yield make
    for one in running:
        one.stop()


@pytest.fixture
def door(tmp_path):
    """A video of two seconds, "door", of a red and two odd boxes."""
    path = tmp_path / "door.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 10, (640, 480))
    odd = picture(
        640, 480, red=(40, 60, 200, 220), odd=(300, 300, 400, 400), odd2=(480, 80, 600, 200)
    )
    for _ in range(20):
        writer.write(odd)
    writer.release()
    return str(path)


@pytest.fixture(scope="package")
def browser():
    playwright = pytest.importorskip("playwright.sync_api")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=QUIET)
        yield browser
        browser.close()


@pytest.fixture
def visit(browser):
    """Open the page of a service; every request must stay on this machine, no script may fail."""
    contexts, hosts, problems = [], set(), []

    def open_page(url, size=DESK, wait="#state[data-state=ready]", **options):
        context = browser.new_context(viewport=size, reduced_motion="reduce", **options)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(WAIT)
        page.on("request", lambda request: hosts.add(urlsplit(request.url)[:2]))
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on(
            "console",
            lambda message: (
                problems.append(message.text)
                if message.type == "error" and "Failed to load resource" not in message.text
                else None
            ),
        )
        page.goto(url)
        page.wait_for_selector(wait)
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert not problems
    assert hosts
    for scheme, host in hosts:
        assert scheme in ("data", "blob") or host.startswith("127.0.0.1:"), (scheme, host)
