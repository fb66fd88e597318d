"""An open page in a real Chromium, while its service ends, begins again, or asks for a token."""

from __future__ import annotations

import threading
import time
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

import pytest
from colour_detector import ColourDetector, picture
from page_visits import WAIT, choose, needs_chromium, tags

expect = pytest.importorskip("playwright.sync_api").expect
pytestmark = [pytest.mark.slow, needs_chromium]

BOTH = picture(640, 480, red=(40, 60, 200, 220), blue=(300, 50, 420, 160))
TOKEN = "a-token-of-twenty-characters"


def test_a_service_that_begins_anew_is_found_again(served, visit, door):
    first = served(sources=[door])
    page = visit(first.url)
    page.wait_for_selector("[data-source='live:door']")
    choose(page, BOTH)
    for name in ("yellow", "blue"):
        first.service.service.add([name])
    tags(page, "blue", "red")
    first.stop()
    page.wait_for_selector("#state[data-state=gone]")
    served(ColourDetector(classes=["blue"]), port=urlsplit(first.url).port)
    page.wait_for_selector("#state[data-state=ready]")
    tags(page, "blue")
    assert page.locator("#chips li").count() == 1
    page.wait_for_selector("[data-source='live:door']", state="detached")


class Unavailable(BaseHTTPRequestHandler):
    """A proxy whose service is away: 503 to whatever is asked."""

    def do_GET(self):
        self.send_response(503)
        self.end_headers()

    do_POST = do_GET

    def log_message(self, *_):
        pass


@contextmanager
def proxy_without_service(port):
    server = ThreadingHTTPServer(("127.0.0.1", port), Unavailable)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_page_comes_back_after_a_proxy_has_answered_for_the_service(served, visit, door):
    first = served(sources=[door], loop=True)
    port = urlsplit(first.url).port
    page = visit(first.url)
    page.click("[data-source='live:door']")
    tags(page, "red")
    asked = []
    page.on("response", lambda answer: asked.append((answer.status, urlsplit(answer.url).path)))
    first.stop()
    with proxy_without_service(port):
        end = time.monotonic() + WAIT / 1000
        while time.monotonic() < end and not {(503, "/events"), (503, "/live/door")} <= {*asked}:
            page.wait_for_timeout(50)
        assert page.get_attribute("#state", "data-state") == "gone"
    served(ColourDetector(classes=["blue"], learns=False), sources=[door], port=port, loop=True)
    page.wait_for_selector("#state[data-state=ready]")
    page.wait_for_selector("#chips li[data-name=blue]")
    expect(page.locator("#chips li")).to_have_count(1, timeout=WAIT)
    expect(page.locator("#teach")).to_be_disabled(timeout=WAIT)  # another bundle, maybe
    page.wait_for_function("document.querySelector('#view').dataset.view === 'live'")
    expect(page.locator("#alert")).to_be_hidden(timeout=WAIT)


def test_a_page_that_was_opened_while_the_service_began_comes_to_life(served, visit):
    page = visit(served().url)
    page.route("**/about", lambda route: route.fulfill(status=503, body="{}"), times=1)
    page.reload()
    page.wait_for_selector("#state[data-state=ready]")
    expect(page.locator("#about")).to_have_text("colors on a test double", timeout=WAIT)
    assert page.locator("#alert").is_hidden()
    choose(page, BOTH)
    tags(page, "red")


@pytest.mark.parametrize("watching", [True, False])
def test_a_page_whose_token_is_no_longer_valid_asks_for_the_new_one(served, visit, door, watching):
    first = served(sources=[door], loop=True)
    page = visit(first.url)
    if watching:
        page.click("[data-source='live:door']")
        tags(page, "red")
        page.route("**/events*", lambda route: None)  # its picture alone tells
    first.stop()
    served(sources=[door], port=urlsplit(first.url).port, token=TOKEN)
    page.wait_for_selector("#token")


def test_a_video_that_has_ended_is_not_asked_for_again(served, visit, door, monkeypatch):
    monkeypatch.setattr("runtime.serve.streams.HEARTBEAT", 0.2)
    page = visit(served(sources=[door]).url)
    asked = []
    page.on("request", lambda request: asked.append(urlsplit(request.url).path))
    page.click("[data-source='live:door']")
    tags(page, "red")
    page.wait_for_selector("#tabs i[data-state=ended]")
    page.wait_for_timeout(3000)
    assert asked.count("/live/door") == 1 and page.locator("#alert").is_hidden()
    tags(page, "red")
