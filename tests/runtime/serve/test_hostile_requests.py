"""What a stranger may send: every answer is one of ours, and the service is as good as before."""

from __future__ import annotations

import gc
import json
import tracemalloc

import pytest
from colour_detector import picture, png
from coroutines import run_apart
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from starlette.requests import Request

from runtime.serve import pictures
from runtime.serve.errors import RequestError
from runtime.serve.operations import OPERATIONS
from runtime.serve.requests import read_body
from zsd_core.errors import ImageError

WIDTH = 8  # of the tiny bundle's vectors
RED = png(picture(red=(40, 40, 120, 100)))
LONG = 10**400  # more than a float holds
DIGITS = "9" * 5000  # more than Python makes a number of

# Bodies, with how each is refused; the text may hold what json.dumps does not write.
REFUSED = [
    ("POST", "/classes", '{"classes": [[1], "blorb"], "exact": true}', 422, "class name [1] must"),
    ("POST", "/classes", '{"classes": [{}, [], null, 3, true]}', 422, "text that is not blank"),
    ("PUT", "/classes", '{"classes": [["a"], ["a"]]}', 422, "text that is not blank"),
    ("PUT", "/classes", '{"mode": []}', 422, "mode is []"),
    ("PUT", "/classes", '{"mode": {"a": 1}}', 422, "mode is"),
    ("PUT", "/classes", '{"mode": ""}', 422, "mode is ''"),
    ("PUT", "/classes", '{"mode": "gzds"}', 422, "did you mean 'gzsd'"),
    ("PUT", "/classes", '{"classes": ["cat"], "mode": 0}', 422, "mode is 0"),
    ("PUT", "/classes", '{"mode": null}', 400, "neither classes nor mode"),
    ("POST", "/classes", '{"classes": ["cat"], "exact": "yes"}', 400, "exact is 'yes'"),
    ("POST", "/classes", '{"classes": ["cat"], "exact": 1}', 400, "exact is 1"),
    ("POST", "/classes", '{"classes": false}', 422, "type bool"),
    ("POST", "/classes", '{"classes": null}', 400, "names no classes"),
    ("POST", "/classes", json.dumps({"classes": {"q": [LONG] * WIDTH}}), 422, "within float32"),
    ("POST", "/classes", json.dumps({"classes": {"q": [1e39] * WIDTH}}), 422, "within float32"),
    ("POST", "/classes", '{"classes": {"q": [NaN, 1]}}', 422, "within float32"),
    ("POST", "/classes", json.dumps({"classes": {"q": ["1"] * WIDTH}}), 422, "list of numbers"),
    ("POST", "/classes", json.dumps({"classes": {"q": [True] * WIDTH}}), 422, "list of numbers"),
    ("POST", "/classes", '{"classes": {"q": [[1], [1, 2]]}}', 422, "list of numbers"),
    ("POST", "/classes", '{"classes": {"q": %s}}' % ("[" * 99 + "]" * 99), 422, "list of numbers"),
    ("POST", "/classes", f'{{"classes": {{"q": {DIGITS}}}}}', 400, "no JSON"),
    ("PUT", "/classes", json.dumps({"classes": {"\ud800": [0.1] * WIDTH}}), 422, "U+D800"),
    ("PUT", "/classes", json.dumps({"classes": ["\ud800"], "exact": True}), 422, "U+D800"),
    ("POST", "/classes", json.dumps({"classes": {"a\0b": [0.1] * WIDTH}}), 422, "U+0000"),
    ("POST", "/classes", json.dumps({"classes": {"a\u202eb": [0.1] * WIDTH}}), 422, "U+202E"),
    ("POST", "/classes", json.dumps({"\ud800": 1}), 400, "\\ud800"),
    ("POST", "/classes", json.dumps({f"{n}": 1 for n in range(9000)}), 400, "8980 more are wrong"),
    ("PATCH", "/thresholds", '{"max_detections": 1%s}' % ("0" * 30), 422, "from 1 to 1048576"),
    ("PATCH", "/thresholds", '{"max_detections": true}', 422, "from 1 to 1048576"),
    ("PATCH", "/thresholds", f'{{"score_threshold": {LONG}}}', 422, "[0, 1]"),
    ("PATCH", "/thresholds", f'{{"nms_threshold": {LONG}}}', 422, "[0, 1]"),
    ("PATCH", "/thresholds", '{"score_threshold": true}', 422, "[0, 1]"),
    ("PATCH", "/thresholds", '{"score_threshold": [[1], 2]}', 422, "[0, 1]"),
    ("PATCH", "/thresholds", '{"score_threshold": {"cat": "0.5"}}', 422, "[0, 1]"),
    ("PATCH", "/thresholds", json.dumps({"score_threshold": {"\ud800": 1}}), 422, "U+D800"),
    (
        "PATCH",
        "/thresholds",
        json.dumps({"score_threshold": {f"thing {n}": 0.5 for n in range(4000)}}),
        422,
        "3980 more are wrong",
    ),
    ("GET", f"/search?text=cat&count={DIGITS}", "", 400, "from 1 to 50"),
    ("GET", "/search?text=cat&count=%E2%85%A7", "", 400, "from 1 to 50"),
    ("DELETE", "/classes?name=%00", "", 422, "U+0000"),
    (
        "DELETE",
        "/classes?" + "&".join(f"name=x{n}" for n in range(3000)),
        "",
        422,
        "2980 more are wrong",
    ),
    ("GET", "/static/%00", "", 404, "there is no"),
    ("GET", "/static/" + "x" * 5000, "", 404, "there is no"),
    ("GET", "/%ED%A0%80", "", 404, "there is no"),
]


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "words"),
    [pytest.param(*case, id=f"{case[0]} {case[1][:20]} {case[2][:40]}") for case in REFUSED],
)
def test_what_cannot_be_is_refused_in_a_sentence_and_changes_nothing(
    serve, detector, method, path, body, status, words
):
    client = serve(detector)
    before = client.get("/classes").json(), client.get("/thresholds").json()
    answer = client.request(method, path, content=body.encode())
    assert answer.status_code == status, answer.text
    assert words in answer.json()["error"]
    assert (client.get("/classes").json(), client.get("/thresholds").json()) == before
    assert client.post("/detect", content=RED).status_code == 200
    assert client.get("/metrics").status_code == 200


def test_a_length_of_many_digits_is_too_long(serve):
    client = serve()
    answer = client.post("/classes", content=b"{}", headers={"Content-Length": DIGITS})
    assert answer.status_code == 413


def test_a_body_that_is_too_long_is_freed_at_once():
    """In a cycle of references it would stay until that is collected."""

    async def receive():
        return {"type": "http.request", "body": bytes(2**20), "more_body": True}

    async def main():
        with pytest.raises(RequestError, match="more than 8 MiB"):
            await read_body(Request({"type": "http", "headers": []}, receive), 2**23, int)
        assert tracemalloc.get_traced_memory()[0] < 2**22

    gc.collect()
    gc.disable()
    tracemalloc.start()
    try:
        run_apart(main)
    finally:
        tracemalloc.stop()
        gc.enable()


@pytest.mark.parametrize(
    ("headers", "words"),
    [
        ({"Content-Encoding": "gzip"}, "the body is compressed ('gzip'); send it without"),
        ({"Content-Type": "multipart/form-data; boundary=x"}, "curl --data-binary @photo.jpg"),
    ],
)
@pytest.mark.parametrize("path", ["/detect", "/classes", "/classes/examples?name=x"])
def test_a_body_in_a_wrapping_is_refused_in_a_sentence(serve, path, headers, words):
    client = serve()
    answer = client.post(path, content=RED, headers=headers)
    assert answer.status_code == 415 and words in answer.json()["error"]
    plain = {"Content-Encoding": "identity", "Content-Type": "application/x-www-form-urlencoded"}
    assert client.post("/detect", content=RED, headers=plain).status_code == 200


def test_the_decoder_has_the_limit_of_the_service_too(monkeypatch):
    monkeypatch.setattr(pictures, "picture_size", lambda data: (1, 1))  # a header that lies
    with pytest.raises(ImageError, match="320 x 240 pixels, more than 1,000"):
        pictures.decode(RED, 1000)


# ------------------------------------------------------------------ whatever else there is

TEXTS = st.one_of(
    st.text(st.characters(exclude_categories=()), max_size=12),
    st.sampled_from(["cat", "person", "seen", "unseen", "", "\ud800", "a\0b", "x" * 300, "gzsd"]),
)
NUMBERS = st.one_of(
    st.integers(),
    st.floats(),
    st.sampled_from([LONG, -LONG, 2**63, 10**30, 1e308, 5e-324]),
)
VALUES = st.recursive(
    st.one_of(st.none(), st.booleans(), NUMBERS, TEXTS, st.just([0.1] * WIDTH)),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(TEXTS, inner, max_size=4)),
    max_leaves=8,
)
VECTORS = st.lists(NUMBERS, min_size=WIDTH, max_size=WIDTH) | VALUES
NAMED = st.one_of(
    st.lists(TEXTS, min_size=1, max_size=3), st.dictionaries(TEXTS, VECTORS, max_size=3), VALUES
)
SCORES = st.one_of(NUMBERS, st.lists(NUMBERS, max_size=3), st.dictionaries(TEXTS, NUMBERS), VALUES)
FIELDS = {  # of each path, and what they may hold
    "/classes": {"classes": NAMED, "mode": TEXTS | VALUES, "exact": st.booleans() | VALUES},
    "/thresholds": {
        "score_threshold": SCORES,
        "nms_threshold": NUMBERS | VALUES,
        "max_detections": NUMBERS | VALUES,
    },
}
OTHERS = st.one_of(
    st.binary(max_size=64),
    VALUES.map(lambda value: json.dumps(value).encode()),
    st.dictionaries(TEXTS, VALUES, max_size=3).map(lambda value: json.dumps(value).encode()),
    st.binary(max_size=40).map(lambda data: RED[:60] + data),
)


def bodies(path):
    """Bodies for a path: mostly one or all of the fields that it knows."""
    known = FIELDS.get(path, {})
    fields = [st.fixed_dictionaries({name: value}) for name, value in known.items()] * 3
    fields.append(st.fixed_dictionaries(known))
    return st.one_of(*(f.map(lambda value: json.dumps(value).encode()) for f in fields), OTHERS)


HEADERS = st.dictionaries(
    st.sampled_from(["Accept", "Origin", "Host", "Cookie", "Authorization", "Range", "Expect"]),
    st.text(st.characters(codec="latin-1", exclude_categories=("Cc",)), max_size=30),
    max_size=3,
)
PARAMETERS = ("name", "box", "text", "count", "draw", "source", "frames")
PARAMETER = st.text(max_size=10) | st.just(DIGITS)
QUERIES = st.lists(st.tuples(st.sampled_from(PARAMETERS), PARAMETER), max_size=4)


def queries(known):
    """Queries of an operation: mostly of the parameters that it knows."""
    own = st.fixed_dictionaries({}, optional=dict.fromkeys(known, PARAMETER))
    return st.one_of(own, own, own, QUERIES)


STREAMS = ("/live/{source}", "/events")  # which have no end


@pytest.mark.parametrize("token", [None, "a-token-of-twenty-characters"])
def test_no_request_is_a_failure_of_the_service(serve, detector, token):
    client = serve(detector, token=token, timeout=20)
    places = [(o.method, o.path) for o in OPERATIONS if o.path not in STREAMS]
    places += [("GET", "/"), ("GET", "/static/app.js"), ("POST", "/session"), ("TRACE", "/x")]
    known = {(o.method, o.path): o.query or () for o in OPERATIONS}
    changes = [(o.method, o.path) for o in OPERATIONS if o.path in FIELDS and o.body]

    @settings(
        max_examples=200, deadline=None, suppress_health_check=list(HealthCheck), database=None
    )
    @given(
        st.data(),
        st.sampled_from(places) | st.sampled_from(changes * 5),
        HEADERS,
        st.integers(0, 9),
    )
    def ask(data, place, headers, stranger):
        body, query = data.draw(bodies(place[1])), data.draw(queries(known.get(place, ())))
        sent = {name: value.encode("latin-1") for name, value in headers.items()}
        if token and stranger:
            sent["Authorization"] = f"Bearer {token}"
        answer = client.request(
            *place, content=body, headers=sent, params=query, follow_redirects=False
        )
        assert answer.status_code < 500 or answer.status_code in (503, 504), answer.text

    ask()
    signed = {"Authorization": f"Bearer {token}"}
    client.put("/classes", json={"classes": None}, headers=signed)
    for method, path in places:
        if method == "GET":
            assert client.request(method, path, headers=signed).status_code in (200, 400)
    assert client.post("/detect", content=RED, headers=signed).status_code == 200
