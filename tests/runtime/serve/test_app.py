"""Every operation: what it answers, and the sentence and status where it cannot."""

from __future__ import annotations

import json
import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from colour_detector import ColourDetector, jpeg, picture, png
from starlette.routing import Route

from runtime.annotate import COLORS, annotate
from runtime.serve.operations import OPERATIONS, openapi

RED = png(picture(red=(40, 40, 120, 100)))
BOTH = png(picture(red=(40, 40, 120, 100), blue=(200, 100, 280, 180)))


def names(client):
    return [item["name"] for item in client.get("/classes").json()["classes"]]


def found(client, body=BOTH):
    answer = client.post("/detect", content=body)
    assert answer.status_code == 200, answer.text
    return [item["class"] for item in answer.json()["detections"]]


def refused(answer, status, *words):
    assert answer.status_code == status, answer.text
    sentence = answer.json()["error"]
    assert all(word in sentence for word in words), sentence


# ------------------------------------------------------------------ /detect


def test_a_picture_gives_boxes_in_its_pixels(client):
    record = client.post("/detect", content=RED).json()
    (item,) = record["detections"]
    assert item["box"] == [40, 40, 120, 100] and item["class"] == "red" and item["score"] == 1
    assert record["image"] == {"width": 320, "height": 240}
    assert record["class_set_version"] == client.get("/classes").json()["version"]
    assert record["near_miss"] is None and record["times_ms"]["trunk"] == 12
    blue, green, red = COLORS["seen"]
    assert item["color"] == f"#{red:02x}{green:02x}{blue:02x}"


def test_nothing_found_says_what_came_near(serve):
    client = serve()
    client.patch("/thresholds", json={"score_threshold": 1.0})
    record = client.post("/detect", content=RED).json()
    assert record["detections"] == [] and record["near_miss"] == {"class": "red", "score": 1.0}
    assert "'red'" in record["message"]


@pytest.mark.parametrize(
    ("accept", "kind"),
    [
        ("image/jpeg", "image/jpeg"),
        ("image/png", "image/png"),
        ("image/*", "image/jpeg"),
        ("application/json;q=0.5, image/png", "image/png"),
        ("*/*", "application/json"),
        ("image/png;q=0, */*", "application/json"),
        ("image/png;q=1_0, */*;q=0.1", "application/json"),
    ],
)
def test_the_accept_header_chooses_json_or_the_drawn_picture(client, accept, kind):
    answer = client.post("/detect", content=RED, headers={"Accept": accept})
    assert answer.status_code == 200 and answer.headers["content-type"] == kind


def test_the_drawn_picture_is_that_of_annotate(client):
    answer = client.post("/detect", content=RED, headers={"Accept": "image/png"})
    image = cv2.imdecode(np.frombuffer(answer.content, np.uint8), cv2.IMREAD_COLOR)
    original = cv2.imdecode(np.frombuffer(RED, np.uint8), cv2.IMREAD_COLOR)
    assert (image == annotate(original, ColourDetector()(original, color="bgr"))).all()
    assert answer.headers["x-class-set-version"] == "1"


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        (b"", 415, ["empty"]),
        (b"no picture", 415, ["JPEG, PNG, WebP or BMP"]),
        (RED[:400], 422, ["damaged"]),
        (jpeg(picture(red=(1, 1, 200, 200)))[:-300], 422, ["ends early"]),
        (b"\xff\xd8\xff\xe0" + b"\0" * 50, 415, ["JPEG, PNG"]),
    ],
    ids=["empty", "text", "png", "jpeg", "zeros"],
)
def test_a_body_that_is_no_picture_is_refused_with_a_sentence(client, body, status, words):
    refused(client.post("/detect", content=body), status, *words)
    assert found(client, RED) == ["red"]


def test_an_accept_header_that_cannot_be_met_is_refused(client):
    answer = client.post("/detect", content=RED, headers={"Accept": "text/html"})
    refused(answer, 406, "application/json", "image/png")


def test_a_large_body_is_refused_by_its_announcement_and_by_its_length(serve):
    client = serve(body_bytes=10_000)
    refused(client.post("/detect", content=b"x" * 20_000), 413, "MiB")
    parts = (b"x" * 5_000 for _ in range(4))  # chunked: no announced length
    refused(client.post("/detect", content=parts), 413, "MiB")


def test_many_pixels_are_refused_before_they_are_decoded(serve):
    client = serve(pixels=100_000)
    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    chunk = b"IHDR" + header
    bomb = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + chunk
    bomb += struct.pack(">I", zlib.crc32(chunk))
    refused(client.post("/detect", content=bomb), 413, "60000 x 60000", "100,000")
    assert found(client, RED) == ["red"]  # 320 x 240


# ------------------------------------------------------------------ /classes


def test_classes_are_listed_added_removed_and_replaced(client):
    first = client.get("/classes").json()
    assert [item["name"] for item in first["classes"]] == ["red", "green"]
    assert {item["role"] for item in first["classes"]} == {"seen"} and first["mode"] == "gzsd"
    added = client.post("/classes", json={"classes": ["blue"]}).json()
    assert added["version"] == first["version"] + 1 and added["classes"][-1]["role"] == "unseen"
    assert found(client) == ["red", "blue"]
    removed = client.delete("/classes", params={"name": ["red", "green"]}).json()
    assert [item["name"] for item in removed["classes"]] == ["blue"] == names(client)
    client.put("/classes", json={"classes": ["red", "zebra"]})
    assert names(client) == ["red", "zebra"]
    client.put("/classes", json={"classes": None})
    assert names(client) == ["red", "green"]


def test_a_class_may_be_given_as_a_vector(client):
    client.post("/classes", json={"classes": {"sky": [40, 60, 220], "yellow": None}})
    assert names(client) == ["red", "green", "sky", "yellow"] and "sky" in found(client)
    refused(client.post("/classes", json={"classes": {"x": "text"}}), 422, "'x'", "numbers")


def test_phrases_are_classes_and_what_looks_misspelt_may_be_meant(serve):
    client = serve(ColourDetector(phrases=True))
    assert client.get("/about").json()["phrases"] is True
    client.post("/classes", json={"classes": ["dented blue pallet"]})
    assert found(client) == ["red", "dented blue pallet"]
    answer = client.post("/classes", json={"classes": ["a bleu one", "yellow"]})
    refused(answer, 422, "did you mean 'a blue one'?")
    assert answer.json()["meant"] == {"a bleu one": "a blue one"}
    answer = client.post("/classes", json={"classes": ["red"]})
    assert answer.status_code == 422 and "meant" not in answer.json()
    client.post("/classes", json={"classes": ["a bleu one", "yellow"], "exact": True})
    assert names(client)[-2:] == ["a bleu one", "yellow"]
    client.put("/classes", json={"classes": {"bleu blue": None, "red": None}, "exact": True})
    assert found(client) == ["bleu blue", "red"]


def test_the_mode_is_changed_with_the_classes_or_alone(client):
    client.post("/classes", json={"classes": {"sky": [40, 60, 220], "yellow": [40, 60, 220]}})
    assert client.put("/classes", json={"mode": "zsd"}).json()["mode"] == "zsd"
    assert names(client) == ["red", "green", "sky", "yellow"]
    assert {"sky", "yellow"} <= set(found(client))  # their vectors, not the vocabulary's


@pytest.mark.parametrize(
    ("method", "body", "status", "words"),
    [
        ("POST", {"classes": ["bleu"]}, 422, ["'bleu'", "did you mean 'blue'"]),
        ("POST", {"classes": ["red"]}, 422, ["already active"]),
        ("POST", {"classes": []}, 400, ["names no classes"]),
        ("POST", {"classes": {}}, 400, ["names no classes"]),
        ("POST", {"clases": ["red"]}, 400, ["'clases'", "classes"]),
        ("PUT", {}, 400, ["neither"]),
        ("POST", {"classes": ["x" * 300]}, 422, ["200 characters"]),
        ("PUT", {"classes": [f"c{i}" for i in range(6000)]}, 422, ["6000", "5000"]),
        ("PUT", ["red"], 400, ["JSON object"]),
    ],
)
def test_what_is_wrong_with_classes_is_said(client, method, body, status, words):
    before = client.get("/classes").json()
    refused(client.request(method, "/classes", json=body), status, *words)
    assert client.get("/classes").json() == before


def test_broken_json_and_missing_names_are_refused(client):
    refused(client.post("/classes", content=b"{"), 400, "no JSON")
    refused(client.post("/classes", content=b"[" * 9_000), 400, "no JSON")
    refused(client.get("/x%C2%9B31m%E2%80%AE"), 404, "GET /x\ufffd31m\ufffd here")
    twice = b'{"score_threshold": {"red": 0.2, "green": 0.1, "red": 0.9}}'
    refused(client.patch("/thresholds", content=twice), 400, "the key 'red' stands there twice")
    refused(client.delete("/classes"), 400, "name=")
    refused(client.delete("/classes?name=cat"), 422, "'cat'", "not active")


def test_real_classes_change_and_refuse_as_the_detector_does(serve, detector):
    client = serve(detector)
    before = names(client)
    assert client.post("/classes", json={"classes": ["Teapot"]}).status_code == 200
    assert names(client) == [*before, "Teapot"]
    refused(client.post("/classes", json={"classes": ["teappot"]}), 422, "'teapot'")
    refused(client.put("/classes", json={"classes": "cat"}), 422, "must be a list")
    refused(client.put("/classes", json={"classes": []}), 422, "no classes")
    refused(client.put("/classes", json={"mode": "all"}), 422, "'gzsd'")
    assert client.put("/classes", json={"classes": None}).status_code == 200
    assert names(client) == before


# ------------------------------------------------------------------ examples


def teach(client, name, body, box=None):
    query = {"name": name, **({"box": box} if box else {})}
    return client.post("/classes/examples", params=query, content=body)


def test_an_example_becomes_a_class_and_more_make_it_better(client):
    shown = png(picture(odd=(20, 20, 90, 90)))
    assert teach(client, "bracket", shown, "20,20,90,90").status_code == 200
    elsewhere = png(picture(400, 300, odd=(200, 100, 280, 180)))
    record = client.post("/detect", content=elsewhere).json()
    assert [(i["class"], i["box"]) for i in record["detections"]] == [
        ("bracket", [200, 100, 280, 180])
    ]
    crop = png(picture(odd=(0, 0, 320, 240)))
    item = teach(client, "Bracket", crop).json()["classes"][-1]
    assert item["name"] == "bracket" and item["examples"] == 2


def test_a_taught_class_outlives_changes_of_the_others(client):
    shown = png(picture(odd=(20, 20, 90, 90)))
    teach(client, "bracket", shown, "20,20,90,90")
    client.put("/classes", json={"classes": ["blue", "bracket"]})
    assert found(client, shown) == ["bracket"]
    client.put("/classes", json={"mode": "zsd"})
    assert found(client, shown) == ["bracket"]
    client.delete("/classes?name=bracket")
    refused(client.post("/classes", json={"classes": ["bracket"]}), 422, "vocabulary")


def test_a_vector_of_a_client_replaces_what_was_taught_for_good(client):
    """The taught one came back with the next change, or was mixed into the next example."""
    shown, other = png(picture(odd=(20, 20, 90, 90))), png(picture(blue=(20, 20, 90, 90)))
    teach(client, "bracket", shown, "20,20,90,90")
    listed = client.put("/classes", json={"classes": {"red": None, "Bracket": [40, 60, 220]}})
    assert [item["examples"] for item in listed.json()["classes"]] == [0, 0]
    for change in (
        lambda: client.put("/classes", json={"mode": "gzsd"}),
        lambda: teach(client, "cup", RED, "40,40,120,100"),
        lambda: teach(client, "cup", RED, "40,40,120,100"),
    ):
        assert change().status_code == 200
        assert found(client, shown) == [] and found(client, other) == ["Bracket"]
    assert teach(client, "bracket", shown, "20,20,90,90").json()["classes"][1]["examples"] == 1
    client.put("/classes", json={"mode": "gzsd"})
    assert found(client, shown) == ["Bracket"] and found(client, other) == []


def test_the_classes_of_the_bundle_are_those_that_it_came_with(client):
    shown = png(picture(odd=(20, 20, 90, 90)))
    teach(client, "green", shown, "20,20,90,90")
    assert found(client, shown) == ["green"]
    listed = client.put("/classes", json={"classes": None}).json()["classes"]
    assert [item["examples"] for item in listed] == [0, 0]
    client.put("/classes", json={"mode": "gzsd"})
    assert found(client, shown) == []


@pytest.mark.parametrize(
    ("name", "box", "status", "words"),
    [
        ("bracket", "20,20,900,90", 422, ["inside the picture of 320 x 240"]),
        ("bracket", "20,20,22,90", 422, ["at least"]),
        ("bracket", "90,20,20,90", 422, ["x1 < x2"]),
        ("bracket", "nan,20,90,90", 400, ["x1,y1,x2,y2"]),
        ("bracket", "1,2,3", 400, ["x1,y1,x2,y2"]),
        (" ", None, 422, ["blank"]),
    ],
)
def test_what_is_wrong_with_an_example_is_said(client, name, box, status, words):
    refused(teach(client, name, RED, box), status, *words)
    assert names(client) == ["red", "green"]


def test_examples_are_bounded(client):
    for _ in range(10):
        assert teach(client, "bracket", RED, "40,40,120,100").status_code == 200
    refused(teach(client, "bracket", RED, "40,40,120,100"), 422, "10 examples")


def test_a_bundle_that_cannot_learn_says_so(serve):
    client = serve(ColourDetector(learns=False))
    refused(teach(client, "bracket", RED), 422, "cannot learn from examples")
    assert client.get("/about").json()["examples"] is False


# ------------------------------------------------------------------ thresholds, search, state


def test_thresholds_are_changed_one_by_one(client):
    before = client.get("/thresholds").json()
    assert before["score_threshold"] == {"seen": 0.3, "unseen": 0.3}
    after = client.patch("/thresholds", json={"max_detections": 7}).json()
    assert after == {**before, "max_detections": 7}
    after = client.patch("/thresholds", json={"score_threshold": {"red": 1.0}}).json()
    assert after["score_threshold"] == {"seen": 0.3, "unseen": 0.3, "red": 1.0}
    assert after["max_detections"] == 7 and found(client, RED) == []
    after = client.patch("/thresholds", json={"score_threshold": {"red": None, "seen": 0.2}}).json()
    assert after["score_threshold"] == {"seen": 0.2, "unseen": 0.3} and found(client, RED) == [
        "red"
    ]
    after = client.patch("/thresholds", json={"score_threshold": 0.5}).json()
    assert after["score_threshold"] == {"seen": 0.5, "unseen": 0.5}


@pytest.mark.parametrize(
    ("method", "path", "body", "wrong"),
    [
        ("PATCH", "/thresholds", {"score_threshold": {"catt": 0.1, "cup": 0.2, "zebr": 0.3}}, 2),
        ("PATCH", "/thresholds", {"nms": 0.1, "nms_threshold": 0.3, "most": 3}, 2),
        ("POST", "/classes", {"classes": ["catt", "zebra", "zebr"]}, 2),
        ("PUT", "/classes", {"classes": ["cat", "Cat", "CAT"]}, 2),
        ("PUT", "/classes", {"classes": ["x" * 300, "cat", "y" * 300]}, 2),
        ("DELETE", "/classes?name=catt&name=cup&name=zebr", None, 2),
    ],
)
def test_all_that_is_wrong_is_answered(serve, detector, method, path, body, wrong):
    client = serve(detector)
    before = client.get("/classes").json(), client.get("/thresholds").json()
    answer = client.request(method, path, json=body)
    assert answer.status_code == (400 if "nms" in str(body) else 422)
    said = answer.json()["error"]
    names = ("catt", "zebr", "nms'", "most", "Cat'", "CAT'", "x" * 40, "y" * 40)
    assert sum(f"'{name}" in said for name in names) == wrong, said
    assert (client.get("/classes").json(), client.get("/thresholds").json()) == before


def test_a_threshold_goes_with_its_class(client):
    client.patch("/thresholds", json={"score_threshold": {"green": 0.9}})
    client.delete("/classes?name=green")
    after = client.patch("/thresholds", json={"nms_threshold": 0.4}).json()
    assert "green" not in after["score_threshold"] and after["nms_threshold"] == 0.4


@pytest.mark.parametrize(
    ("change", "status", "words"),
    [
        ({"score_threshold": 50}, 422, ["[0, 1]"]),
        ({"score_threshold": {"gren": 0.1}}, 422, ["'gren'", "green"]),
        ({"max_detections": 0}, 422, ["whole number"]),
        ({"score": 0.1}, 400, ["'score'", "score_threshold"]),
    ],
)
def test_what_is_wrong_with_a_threshold_is_said(client, change, status, words):
    before = client.get("/thresholds").json()
    refused(client.patch("/thresholds", json=change), status, *words)
    assert client.get("/thresholds").json() == before


def test_search_gives_near_names_and_whether_the_word_is_known(client):
    assert client.get("/search?text=bleu").json() == {
        "text": "bleu",
        "known": False,
        "names": ["blue"],
    }
    assert client.get("/search?text=Blue").json()["known"] is True
    assert client.get("/search?text=").json()["names"] == []
    refused(client.get("/search?text=a&count=1000"), 400, "1 to 50")


def test_the_service_says_what_it_is_and_that_it_is_ready(client):
    about = client.get("/about").json()
    assert about["bundle"] == "colors" and about["examples"] is True and about["phrases"] is False
    assert set(about["colors"]) == {"seen", "unseen"} and about["limits"]["queue"] == 16
    assert client.get("/health").json() == {"status": "ok"}
    for _ in range(100):
        answer = client.get("/ready")
        if answer.status_code == 200:
            break
    assert answer.json() == {"status": "ready"}
    client.app.state.service.stop()
    refused(client.get("/ready"), 503, "stopping")
    assert client.get("/health").status_code == 200


def test_what_is_not_here_is_said(client):
    refused(client.get("/nothing"), 404, "/nothing", "/openapi.json")
    refused(client.post("/search"), 405, "POST /search")
    refused(client.get("/live/door"), 404, "'door'", "name sources when the service starts")


def test_a_failure_is_one_sentence_and_in_the_log(serve, caplog):
    detector = ColourDetector()
    client = serve(detector)
    detector.limits = None
    refused(client.get("/thresholds"), 500, "its log says where")
    assert "AttributeError" in caplog.text


# ------------------------------------------------------------------ descriptions and numbers


def test_every_operation_is_a_route_and_described(client):
    routes = {
        (route.path, method)
        for route in client.app.routes
        if isinstance(route, Route) and route.path != "/"
        for method in route.methods - {"HEAD"}
    }
    assert routes == {(o.path, o.method) for o in OPERATIONS}
    description = client.get("/openapi.json").json()
    assert description["openapi"].startswith("3.1")
    assert {
        (path, method.upper())
        for path, methods in description["paths"].items()
        for method in methods
    } == routes
    text = json.dumps(description)
    for name in {part.split('"')[0] for part in text.split("#/components/schemas/")[1:]}:
        assert name in description["components"]["schemas"]


def test_the_documentation_names_every_operation():
    text = (Path(__file__).parents[3] / "docs" / "serve.md").read_text(encoding="utf-8")
    for operation in OPERATIONS:
        assert operation.path.replace("{source}", "door") in text, operation
        assert f"`{operation.method} " in text or operation.method == "GET", operation


def test_the_description_knows_the_token():
    assert "security" not in openapi("1", token=False)
    assert openapi("1", token=True)["security"] == [{"token": []}]


def series(client, name):
    lines = client.get("/metrics").text.splitlines()
    return [line for line in lines if line.startswith(name) and "_created" not in line]


def test_metrics_count_requests_times_and_objects(client):
    found(client)
    client.get("/nothing")
    client.get("/other")
    text = client.get("/metrics").text
    assert 'contrastzsd_requests_total{method="POST",route="/detect",status="200"} 1.0' in text
    assert 'contrastzsd_requests_total{method="GET",route="(other)",status="404"} 2.0' in text
    assert 'contrastzsd_request_seconds_bucket{le="30.0",method="POST",route="/detect"} 1.0' in text
    assert 'contrastzsd_detections_total{class="red"} 1.0' in text
    assert "contrastzsd_queue_depth 0.0" in text
    assert 'contrastzsd_stage_seconds_count{stage="trunk"} 1.0' in text


def test_clients_cannot_make_series_without_end(client):
    for index in range(130):
        client.put("/classes", json={"classes": {f"name {index}": [220, 30, 30]}})
        found(client, RED)
    lines = series(client, "contrastzsd_detections_total")
    assert len(lines) == 101 and 'contrastzsd_detections_total{class="(other)"} 30.0' in lines
