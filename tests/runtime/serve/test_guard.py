"""Who may come in."""

from __future__ import annotations

import asyncio
from urllib.parse import urljoin

import anyio
import pytest
from colour_detector import picture, png
from coroutines import run_apart
from starlette.applications import Starlette
from starlette.routing import Mount
from starlette.testclient import TestClient
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
    assert right.status_code == 303 and right.headers["location"] == "./"
    cookie = right.headers["set-cookie"]
    assert "HttpOnly" in cookie and "SameSite=strict" in cookie and TOKEN not in cookie
    assert "Secure" not in cookie
    assert client.get("/classes").status_code == 200
    client.cookies.clear()
    assert client.get("/classes").status_code == 401


def test_two_services_on_one_host_keep_their_sign_ins(serve):
    """A browser sends the cookies of one port to the others."""
    one, other = serve(token=TOKEN), serve(token=TOKEN[::-1])
    one.post("/session", data={"token": TOKEN}, follow_redirects=False)
    other.post("/session", data={"token": TOKEN[::-1]}, follow_redirects=False)
    one.cookies.update(other.cookies)
    assert one.get("/classes").status_code == 200


def test_behind_a_proxy_with_https_the_cookie_is_for_https(serve):
    headers = {"Origin": "https://cam.example.org", "Host": "cam.example.org"}
    answer = serve(token=TOKEN).post(
        "/session", data={"token": TOKEN}, headers=headers, follow_redirects=False
    )
    assert answer.status_code == 303 and "Secure" in answer.headers["set-cookie"]


@pytest.mark.parametrize("path", ["/", "/classes", "/live/door", "/static/x/y"])
@pytest.mark.parametrize("below", ["", "/cameras/zsd"])
@pytest.mark.parametrize("strips", [True, False])
def test_a_browser_signs_in_below_any_path(serve, path, below, strips):
    """Whether the proxy strips the path, or the application is mounted there."""
    app = serve(token=TOKEN).app
    app = app if strips else Starlette(routes=[Mount(below, app)])
    client, inside = TestClient(app), "" if strips else below
    page = client.get(inside + path, headers={"Accept": "text/html"})
    assert page.status_code == 401
    action = page.text.partition('action="')[2].partition('"')[0]
    assert urljoin(f"http://host{below}{path}", action) == f"http://host{below}/session"
    answer = client.post(f"{inside}/session", data={"token": TOKEN}, follow_redirects=False)
    assert answer.status_code == 303
    assert urljoin(f"http://host{below}/session", answer.headers["location"]) == (
        f"http://host{below}/"
    )
    assert "path=" not in answer.headers["set-cookie"].lower()  # below the form, not the host
    assert client.get(f"{inside}/classes").status_code == 200
    client.cookies.clear()
    assert client.get(f"{inside}/health").status_code == 200
    assert client.get(f"{inside}/classes").status_code == 401


def test_a_form_without_end_is_refused(serve):
    answer = serve(token=TOKEN).post("/session", content=b"x" * 10_000)
    assert answer.status_code == 413


@pytest.mark.parametrize("token", [None, TOKEN])
@pytest.mark.parametrize("origin", ["http://[", "http://]", "null", "\x80://x", "http://[::1]:x"])
def test_an_origin_that_is_no_address_is_another_site(serve, token, origin):
    client = serve(token=token)
    answer = client.post("/classes", json={}, headers={"Origin": origin.encode("latin-1")})
    assert answer.status_code == 403 and "may not change" in answer.json()["error"]


def test_forms_that_do_not_come_end_and_keep_nobody_out(monkeypatch):
    monkeypatch.setattr(runtime.serve.guard, "FORM_SECONDS", 0.2)

    async def main():
        guard = Guard(None, TOKEN, ())
        statuses = []

        async def sign_in(body=None):
            sent = []

            async def receive():
                if body is None:
                    await asyncio.Event().wait()
                return {"type": "http.request", "body": body}

            async def send(message):
                sent.append(message)

            scope = {"type": "http", "method": "POST", "path": "/session", "headers": []}
            await guard({**scope, "scheme": "http"}, receive, send)
            statuses.append(sent[0]["status"])

        async with anyio.create_task_group() as tasks:
            for _ in range(200):
                tasks.start_soon(sign_in)
            await anyio.sleep(0.05)
            await sign_in(f"token={TOKEN}".encode())
        assert statuses == [303] + [408] * 200

    run_apart(main)


def test_there_are_no_websockets(serve):
    client = serve(token=TOKEN)
    for path in ("/", "/static/x", "/events"):
        with pytest.raises(WebSocketDisconnect), client.websocket_connect(path):
            pass


def test_pages_of_other_sites_cannot_change_anything(client):
    answer = client.post("/classes", json={"classes": ["blue"]}, headers={"Origin": "http://evil"})
    assert answer.status_code == 403 and "http://evil" in answer.json()["error"]
    assert "Host header" in answer.json()["error"]


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Origin": "http://testserver"}, 200),
        ({"Origin": "http://testserver", "Host": "TestServer:80"}, 200),
        ({"Origin": "https://cam.example", "Host": "cam.example:443"}, 200),
        ({"Origin": "http://cam.example:8080", "Host": "cam.example"}, 403),
        ({"Origin": "https://cam.example", "Host": "127.0.0.1:8000"}, 403),
        ({"Origin": "null", "Host": ""}, 403),
        # A proxy changed Host, but the browser knows better; no page can set this header.
        (
            {
                "Origin": "https://cam.example",
                "Host": "127.0.0.1:8000",
                "Sec-Fetch-Site": "same-origin",
            },
            200,
        ),
        ({"Sec-Fetch-Site": "none"}, 200),
        ({"Origin": "http://testserver", "Sec-Fetch-Site": "same-site"}, 403),
        ({"Origin": "http://testserver", "Sec-Fetch-Site": "cross-site"}, 403),
    ],
)
def test_a_page_of_this_site_may_change_it_also_behind_a_proxy(client, headers, status):
    answer = client.patch("/thresholds", json={"max_detections": 5}, headers=headers)
    assert answer.status_code == status, answer.text


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
    for probe in ("/health", "/ready"):  # of a balancer, which asks an address
        assert client.get(probe, headers={"Host": host}).status_code != 421


@pytest.mark.parametrize(
    ("given", "host"),
    [
        ("Cam.Example.org", "cam.example.org"),
        ("cam.example.org:8443", "cam.example.org:8000"),
        ("cam.example.org.", "cam.example.org"),
        ("cam.example.org", "CAM.example.org.:80"),
        (" my_service ", "my_service:8000"),
        ("2001:DB8:0:0::1", "[2001:db8::1]:8000"),
        ("[2001:db8::1]:8000", "[2001:DB8::0:1]"),
        ("192.0.2.7:80", "192.0.2.7"),
        ("fe80::1%eth0", "[fe80::1%eth0]:8000"),
        ("FE80::1%25eth0.100", "[fe80::0:1%eth0.100]:8000"),
        ("fe80::1%br-lan", "[fe80::1%25br-lan]"),
        ("fe80::1%25", "[fe80::1%25]:8000"),
    ],
)
def test_a_name_may_be_written_in_every_way(serve, given, host):
    client = serve(hosts=(given,))
    assert client.get("/classes", headers={"Host": host}).status_code == 200
    assert client.get("/classes", headers={"Host": f"x{host}"}).status_code == 421


def test_a_name_that_is_given_twice_is_said_once(serve):
    client = serve(hosts=("localhost", "::1", "LOCALHOST:8000", "[0::1]"))
    error = client.get("/classes", headers={"Host": "cam"}).json()["error"]
    assert error.startswith("this service answers for localhost, ::1, not for 'cam'")


@pytest.mark.parametrize(
    ("origin", "site"),
    [(None, "another site"), ("null", "another site"), ("http://a.b", "http://a.b")],
)
def test_who_may_not_change_the_service_is_named(client, origin, site):
    headers = {"Sec-Fetch-Site": "cross-site", **({"Origin": origin} if origin else {})}
    error = client.patch("/thresholds", json={}, headers=headers).json()["error"]
    assert error.startswith(f"a page of {site} may not change")


@pytest.mark.parametrize(
    ("site", "to", "status"),
    [
        ("cross-site", "image", 403),
        ("cross-site", "iframe", 403),
        ("cross-site", "empty", 403),  # a script
        ("cross-site", "document", 200),  # a link
        ("same-site", "image", 200),
        ("same-origin", "image", 200),
        ("none", "document", 200),
    ],
)
def test_a_page_of_another_site_shows_nothing_of_this(client, site, to, status):
    headers = {"Sec-Fetch-Site": site, "Sec-Fetch-Dest": to}
    for path in ("/classes", "/static/icon.svg"):
        answer = client.get(path, headers=headers)
        assert answer.status_code == status
        assert status == 200 or "of another site may not show" in answer.json()["error"]
    assert client.get("/health", headers=headers).status_code == 200


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
        ({"token": " " * 20}, "no blank at either end"),
        ({"token": TOKEN + "\n"}, "printable ASCII"),
        ({"token": ""}, "16 printable"),
        ({"hosts": ("",)}, "'' is no name"),
        ({"hosts": (" ",)}, "' ' is no name"),
        ({"hosts": ("*",)}, "no name or address"),
        ({"hosts": (".",)}, "no name or address"),
        ({"hosts": ("https://cam.example.org/",)}, "without http://"),
        ({"hosts": ("a b",)}, "no name or address"),
        ({"hosts": ("fe80::1%",)}, "no name or address"),
        ({"hosts": ("bücher.example",)}, "xn--"),
        ({"hosts": "localhost"}, "tuple of names"),
    ],
)
def test_a_configuration_that_cannot_work_is_refused(change, words):
    with pytest.raises(ConfigError, match=words):
        ServeConfig(**change)


def test_the_token_is_not_shown():
    assert TOKEN not in repr(ServeConfig(token=TOKEN))
