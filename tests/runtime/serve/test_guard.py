"""Who may come in."""

from __future__ import annotations

import asyncio

import anyio
import pytest
from colour_detector import picture, png
from coroutines import run_apart
from starlette.websockets import WebSocketDisconnect

import runtime.serve.guard
from runtime.serve import ServeConfig
from runtime.serve.guard import Guard
from zsd_core.errors import ConfigError

TOKEN = "a-token-of-twenty-characters"
BEARER = {"Authorization": f"Bearer {TOKEN}"}
PROTECTED = [
    ("GET", "/"),
    ("GET", "/static/app.js"),
    ("POST", "/detect"),
    ("GET", "/classes"),
    ("GET", "/live/door"),
    ("GET", "/events"),
    ("GET", "/metrics"),
    ("GET", "/openapi.json"),
]


@pytest.mark.parametrize(("method", "path"), PROTECTED)
def test_everything_needs_the_token(serve, method, path):
    client = serve(token=TOKEN)
    for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": TOKEN}):
        answer = client.request(method, path, headers=headers)
        assert answer.status_code == 401 and answer.headers["www-authenticate"] == "Bearer"
        assert "Authorization: Bearer" in answer.json()["error"]


def test_the_token_opens_and_probes_need_none(serve):
    client = serve(token=TOKEN)
    assert client.get("/classes", headers=BEARER).status_code == 200
    body = png(picture(red=(40, 40, 120, 100)))
    assert client.post("/detect", content=body, headers=BEARER).status_code == 200
    assert client.get("/health").status_code == 200
    assert client.get("/ready").status_code in (200, 503)


@pytest.mark.parametrize("host", ["x/health?", "x/health#", "x/session?", "health"])
def test_a_host_header_does_not_open_the_door(serve, host):
    answer = serve(token=TOKEN).get("/classes", headers={"Host": host})
    assert answer.status_code in (400, 401)


def test_a_browser_signs_in_once(serve):
    client = serve(token=TOKEN)
    page = client.get("/", headers={"Accept": "text/html"})
    assert page.status_code == 401 and 'type="password"' in page.text
    wrong = client.post("/session", data={"token": "wrong"})
    assert wrong.status_code == 401 and "not the service's token" in wrong.text
    assert not client.cookies
    right = client.post("/session", data={"token": TOKEN}, follow_redirects=False)
    assert right.status_code == 303 and right.headers["location"] == "/"
    cookie = right.headers["set-cookie"]
    assert "HttpOnly" in cookie and "SameSite=strict" in cookie and TOKEN not in cookie
    assert client.get("/classes").status_code == 200
    client.cookies.clear()
    assert client.get("/classes").status_code == 401


def test_a_form_without_end_is_refused(serve):
    answer = serve(token=TOKEN).post("/session", content=b"x" * 10_000)
    assert answer.status_code == 413


@pytest.mark.parametrize("token", [None, TOKEN])
@pytest.mark.parametrize("origin", ["http://[", "http://]", "null", "\x80://x", "http://[::1]:x"])
def test_an_origin_that_is_no_address_is_another_site(serve, token, origin):
    client = serve(token=token)
    answer = client.post("/classes", json={}, headers={"Origin": origin.encode("latin-1")})
    assert answer.status_code == 403 and "may not change" in answer.json()["error"]


def test_a_form_that_does_not_come_ends(monkeypatch):
    monkeypatch.setattr(runtime.serve.guard, "FORM_SECONDS", 0.2)
    monkeypatch.setattr(runtime.serve.guard, "MOST_SIGNING_IN", 2)

    async def main():
        guard = Guard(None, TOKEN, ())
        statuses = []

        async def sign_in():
            sent = []
            asked = asyncio.Event()

            async def receive():
                await asked.wait()

            async def send(message):
                sent.append(message)

            scope = {"type": "http", "method": "POST", "path": "/session", "headers": []}
            await guard(scope, receive, send)
            statuses.append(sent[0]["status"])

        async with anyio.create_task_group() as tasks:
            for _ in range(3):
                tasks.start_soon(sign_in)
        assert statuses == [503, 408, 408]
        await sign_in()
        assert statuses[-1] == 408  # places are free again

    run_apart(main)


def test_there_are_no_websockets(serve):
    client = serve(token=TOKEN)
    for path in ("/", "/static/x", "/events"):
        with pytest.raises(WebSocketDisconnect), client.websocket_connect(path):
            pass


def test_pages_of_other_sites_cannot_change_anything(client):
    answer = client.post("/classes", json={"classes": ["blue"]}, headers={"Origin": "http://evil"})
    assert answer.status_code == 403 and "http://evil" in answer.json()["error"]
    same = client.post(
        "/classes", json={"classes": ["blue"]}, headers={"Origin": "http://testserver"}
    )
    assert same.status_code == 200


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("127.0.0.1:8000", 200),
        ("LOCALHOST", 200),
        ("[::1]:8000", 200),
        ("evil.example:8000", 421),
        ("", 421),
    ],
)
def test_only_this_hosts_names_are_answered(serve, host, status):
    client = serve(hosts=ServeConfig().hosts)
    answer = client.get("/classes", headers={"Host": host})
    assert answer.status_code == status, answer.text


def test_the_page_loads_nothing_from_elsewhere(client):
    page = client.get("/")
    assert page.status_code == 200
    policy = page.headers["content-security-policy"]
    assert policy.startswith("default-src 'self'") and "http" not in policy
    assert page.headers["permissions-policy"].startswith("camera=(self)")
    for name in (
        "app.js",
        "api.js",
        "stage.js",
        "classes.js",
        "found.js",
        "limits.js",
        "sources.js",
    ):
        text = client.get(f"/static/{name}").text
        assert "http://" not in text.replace("http://www.w3.org/2000/svg", "")
        assert "https://" not in text


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"queue": 0}, "queue"),
        ({"timeout": float("nan")}, "timeout"),
        ({"queue": True}, "queue is True"),
        ({"workers": 20}, "queue 16"),
        ({"token": "short"}, "16 printable"),
        ({"token": "ä" * 20}, "printable ASCII"),
    ],
)
def test_a_configuration_that_cannot_work_is_refused(change, words):
    with pytest.raises(ConfigError, match=words):
        ServeConfig(**change)


def test_the_token_is_not_shown():
    assert TOKEN not in repr(ServeConfig(token=TOKEN))
