"""Addresses of requests: queries are read strictly, paths and methods are told."""

from __future__ import annotations

import pytest
from colour_detector import picture, png
from starlette.testclient import TestClient

RED = png(picture(red=(40, 40, 120, 100)))
CAFE = "name=caf%E9"
QUERIES = [
    ("POST", f"/classes/examples?{CAFE}", "no UTF-8"),
    ("DELETE", f"/classes?name=red&{CAFE}", "no UTF-8"),
    ("GET", "/search?text=%ff", "no UTF-8"),
    ("POST", "/classes/examples?name=a&name=bb", "name stands there 2 times"),
    ("GET", "/search?text=a&count=3&count=4", "count stands there 2 times"),
    ("POST", "/classes/examples?name=a&Box=1,2,30,40", "did you mean 'box'"),
    ("GET", "/search?text=a&counts=3", "did you mean 'count'"),
    ("DELETE", "/classes?name=red&nam=green", "no parameter 'nam'"),
    ("GET", "/classes?name=red", "no parameter 'name' here, only none"),
    ("POST", "/detect?threshold=0.1", "no parameter 'threshold'"),
    ("GET", "/search?text=a&count=%D9%A3", "from 1 to 50"),
    ("POST", "/classes/examples?name=a&box=1_0,2,30,40", "must be four numbers"),
    ("POST", "/classes/examples?name=a&box=%D9%A3,2,30,40", "must be four numbers"),
    ("POST", "/classes/examples?name=a&box=1,2,inf,40", "must be four numbers"),
    ("GET", "/events?frames=maybe", "must be true or false"),
]


@pytest.mark.parametrize(("method", "path", "words"), QUERIES)
def test_a_query_is_read_strictly(client, method, path, words):
    before = client.get("/classes").json()
    answer = client.request(method, path, content=RED if method == "POST" else b"")
    assert answer.status_code == 400 and words in answer.json()["error"], answer.text
    assert client.get("/classes").json() == before


@pytest.mark.parametrize("box", ["40,40,120,100", "40.0, 4e1, 120., 1e2"])
def test_numbers_of_a_box_may_be_written_as_programs_write_them(client, box):
    answer = client.post("/classes/examples", params={"name": "café", "box": box}, content=RED)
    assert answer.json()["classes"][-1]["name"] == "café"


@pytest.mark.parametrize("root", ["", "/cameras"])
def test_a_final_slash_is_told_and_not_redirected(serve, root):
    """A redirection named an address that only the service knows, without the proxy's path."""
    client = TestClient(serve().app, root_path=root)
    for path, status in (("/classes/", 404), ("/live/door/", 404), ("/static", 404)):
        answer = client.get(root + path, follow_redirects=False)
        assert answer.status_code == status and "location" not in answer.headers
        assert ("leave out the / at the end" in answer.json()["error"]) == path.endswith("/")


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("PATCH", "/classes", "DELETE, GET, HEAD, POST, PUT"),
        ("OPTIONS", "/thresholds", "GET, HEAD, PATCH"),
        ("GET", "/detect", "POST"),
        ("POST", "/live/door", "GET, HEAD"),
        ("DELETE", "/", "GET, HEAD"),
        ("PUT", "/static/classes", "GET, HEAD"),
    ],
)
def test_a_method_that_a_path_does_not_take_is_told_which_it_takes(client, method, path, allowed):
    answer = client.request(method, path)
    assert answer.status_code == 405 and answer.headers["allow"] == allowed
    assert "/openapi.json" in answer.json()["error"]


@pytest.mark.parametrize("path", ["/static/app.js", "/"])
@pytest.mark.parametrize("range_", ["lines=1-2", "bytes=9999999-", "bytes=0-1"])
def test_files_of_the_page_are_whole(client, path, range_):
    whole = client.get(path)
    part = client.get(path, headers={"Range": range_})
    assert part.status_code == 200 and part.content == whole.content
    assert part.headers["accept-ranges"] == "none"
    assert client.get(path, headers={"If-None-Match": whole.headers["etag"]}).status_code == 304


def test_the_first_of_several_accept_headers_is_not_the_only_one(client):
    headers = [("Accept", "text/html"), ("Accept", "image/png")]
    answer = client.post("/detect", content=RED, headers=headers)
    assert answer.status_code == 200 and answer.headers["content-type"] == "image/png"


def test_a_body_that_is_too_long_is_not_blamed_on_others(serve):
    """Where there is one place, the memory for all bodies is that of one."""
    client = serve(queue=1, body_bytes=10_000)
    answer = client.post("/detect", content=(bytes(5_000) for _ in range(4)))
    assert answer.status_code == 413 and "the most that is taken" in answer.json()["error"]
