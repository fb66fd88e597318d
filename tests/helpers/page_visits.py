"""Visits of the service's page in a real Chromium: what a test does on it, and waits for."""

from __future__ import annotations

import shutil
import socket
import threading
import time

import pytest
from colour_detector import ColourDetector, png

from runtime.serve import create_app
from runtime.serve.config import ServeConfig
from runtime.serve.server import Server, settings

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")
QUIET = (
    "--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync --disable-dev-shm-usage "
    "--use-fake-device-for-media-stream --use-fake-ui-for-media-stream"
).split()
DESK, PHONE = {"width": 1440, "height": 900}, {"width": 390, "height": 844}
WAIT = 60_000  # milliseconds: a busy machine is no failure


class Served:
    """A service on the double, in threads of this process."""

    def __init__(self, detector=None, sources=(), port=0, **config) -> None:
        self.detector = detector or ColourDetector()
        limits = ServeConfig(**config)
        app = create_app(self.detector, limits, sources)
        self.service = app.state.service
        listener = socket.create_server(("127.0.0.1", port))
        self.url = f"http://127.0.0.1:{listener.getsockname()[1]}/"
        self._server = Server(settings(app, limits), self.service)
        self._thread = threading.Thread(target=self._server.run, args=([listener],))
        self._thread.start()

    def stop(self) -> None:
        self.service.stop()
        self._server.should_exit = True
        self._thread.join()


def choose(page, image):
    page.set_input_files(
        "#file", {"name": "photo.png", "mimeType": "image/png", "buffer": png(image)}
    )


def tags(page, *names):
    """Wait until the boxes have these names."""
    end = time.monotonic() + WAIT / 1000
    while time.monotonic() < end:
        found = sorted(text.split(" ")[0] for text in page.locator(".tag").all_inner_texts())
        if found == sorted(names):
            return
        page.wait_for_timeout(50)
    assert found == sorted(names)


def place(page, index, size=(640, 480)):
    """A box of the page in pixels of the picture."""
    frame = page.locator("#canvas").bounding_box()
    box = page.locator(".box").nth(index).bounding_box()
    across, down = size[0] / frame["width"], size[1] / frame["height"]
    left, top = (box["x"] - frame["x"]) * across, (box["y"] - frame["y"]) * down
    return [left, top, left + box["width"] * across, top + box["height"] * down]


def drag(page, x1, y1, x2, y2, size=(640, 480)):
    area = page.locator("#draw").bounding_box()
    across, down = area["width"] / size[0], area["height"] / size[1]
    page.mouse.move(area["x"] + x1 * across, area["y"] + y1 * down)
    page.mouse.down()
    page.mouse.move(area["x"] + (x1 + x2) / 2 * across, area["y"] + (y1 + y2) / 2 * down)
    page.mouse.move(area["x"] + x2 * across, area["y"] + y2 * down)
    page.mouse.up()
