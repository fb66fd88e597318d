"""Changes: made whole or not at all, and nobody who only asks waits for them."""

from __future__ import annotations

import json
import threading
import time

import anyio
import numpy as np
import pytest
from colour_detector import ColourDetector, picture, png
from coroutines import run_apart

from runtime.serve.changes import Change, GivenUpError
from runtime.serve.errors import RequestError
from runtime.serve.requests import MOST_OF
from runtime.serve.service import MOST_PHRASES, Service
from runtime.serve.workers import Workers
from zsd_core.errors import ClassError

RED = png(picture(red=(40, 40, 120, 100)))


class SlowDetector(ColourDetector):
    """Its encoder and its changes take the time that they are told to."""

    def __init__(self, **options):
        super().__init__(**options)
        self.encoding = self.changing = 0.0
        self.encoded = []

    def encode(self, phrases):
        time.sleep(self.encoding)
        self.encoded.extend(phrases)
        return super().encode(phrases)

    def add_classes(self, classes):
        time.sleep(self.changing)
        super().add_classes(classes)

    def set_classes(self, classes, *, mode=None):
        time.sleep(self.changing)
        super().set_classes(classes, mode=mode)


def names(client):
    return [item["name"] for item in client.get("/classes").json()["classes"]]


def phrases(count):
    return [f"thing {number} red" for number in range(count)]


def test_a_change_that_answers_504_is_never_made(serve):
    detector = SlowDetector(phrases=True)
    client = serve(detector, timeout=0.5)
    detector.encoding = 0.3
    for body in ({"classes": phrases(200), "exact": True}, {"classes": phrases(200)}):
        assert client.post("/classes", json=body).status_code == 504
        assert client.put("/classes", json=body).status_code == 504
    time.sleep(1.0)  # what was begun has ended
    assert names(client) == ["red", "green"]
    assert len(detector.encoded) < 400, "the encoder went on for nobody"
    assert client.app.state.service.changes.taken == 0


def test_a_change_that_has_begun_is_waited_for(serve):
    detector = SlowDetector()
    client = serve(detector, timeout=0.3)
    detector.changing = 0.8
    answer = client.post("/classes", json={"classes": ["blue"]})
    assert answer.status_code == 200
    assert [item["name"] for item in answer.json()["classes"]] == names(client)
    assert names(client)[-1] == "blue"


def test_a_change_that_waits_for_another_and_is_late_is_never_made(serve):
    detector = SlowDetector()
    client = serve(detector, timeout=0.5)
    detector.changing, statuses = 1.2, {}

    def add(name):
        statuses[name] = client.post("/classes", json={"classes": [name]}).status_code

    threads = [threading.Thread(target=add, args=(name,)) for name in ("blue", "yellow")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(statuses.values()) == [200, 504]
    time.sleep(1.5)
    (made,) = (name for name, status in statuses.items() if status == 200)
    assert names(client) == ["red", "green", made]


def test_an_example_that_comes_late_is_never_learnt(serve):
    detector = SlowDetector()
    client = serve(detector, timeout=0.4)
    service = client.app.state.service.service
    with service._change:  # another change has its turn
        answer = client.post("/classes/examples?name=tube", content=RED)
    assert answer.status_code == 504
    time.sleep(0.3)
    assert names(client) == ["red", "green"] and not service._taught


def test_who_asks_for_the_classes_waits_for_no_change(serve):
    detector = SlowDetector()
    client = serve(detector)
    detector.changing = 1.0
    change = threading.Thread(
        target=client.put, args=("/classes",), kwargs={"json": {"classes": ["blue"]}}
    )
    change.start()
    time.sleep(0.2)
    start = time.perf_counter()
    assert names(client) == ["red", "green"] and change.is_alive()
    assert time.perf_counter() - start < 0.6
    change.join()
    assert names(client) == ["blue"]


def test_threads_that_change_are_few_however_many_were_late(serve):
    detector = SlowDetector(phrases=True)
    client = serve(detector, timeout=0.2)
    detector.encoding = 0.6
    before = threading.active_count()
    statuses = [
        client.post("/classes", json={"classes": ["a red thing"]}).status_code for _ in range(12)
    ]
    assert set(statuses) <= {503, 504} and 504 in statuses
    assert threading.active_count() - before <= 2


def test_bodies_of_changes_take_places(serve):
    client = serve()
    changes = client.app.state.service.changes
    changes.taken = changes.places
    for method, path in (("POST", "/classes"), ("PUT", "/classes"), ("PATCH", "/thresholds")):
        answer = client.request(method, path, content=b"{}")
        assert answer.status_code == 503 and "retry-after" in answer.headers
    assert client.delete("/classes?name=red").status_code == 503
    assert client.get("/classes").status_code == client.get("/thresholds").status_code == 200
    assert client.get("/search?text=red").status_code == 200
    assert client.post("/detect", content=RED).status_code == 200
    changes.taken = 0
    assert client.delete("/classes?name=red").status_code == 200


def test_a_place_for_a_change_is_held_until_its_thread_has_ended():
    async def main():
        workers, ended = Workers(1, 1), threading.Event()

        def work(change):
            ended.wait(5)
            change.begin()

        with workers.place() as place:
            with anyio.move_on_after(0.1):
                await place.change(work)
        assert workers.taken == 1
        with pytest.raises(RequestError, match="taken"), workers.place():
            pass
        ended.set()
        with anyio.fail_after(5):
            while workers.taken:
                await anyio.sleep(0.01)
        workers.close()

    run_apart(main)


def test_a_change_is_given_up_in_time_or_not_at_all():
    change = Change()
    change.begin()
    assert not change.give_up()
    change.go_on()
    change.begin()
    late = Change()
    assert late.give_up()
    for ask in (late.go_on, late.begin):
        with pytest.raises(GivenUpError):
            ask()


def test_one_request_may_not_bring_phrases_without_end(detector):
    service = Service(SlowDetector(phrases=True))
    with pytest.raises(ClassError, match=f"at most {MOST_PHRASES} phrases at a time"):
        service.add(phrases(MOST_PHRASES + 1))
    with pytest.raises(ClassError, match="1500 of 1500 names are not in the vocabulary"):
        Service(detector).add(phrases(1500))


def test_phrases_stay_as_they_are_when_the_mode_changes():
    detector = SlowDetector(phrases=True)
    service = Service(detector)
    service.replace(["a red thing", "blue"], exact=True)
    detector.encoded.clear()
    detector._vectors_before = detector.class_vectors()
    service.set_mode("zsd")
    after = detector.class_vectors()
    assert detector.encoded == []
    np.testing.assert_array_equal(after["a red thing"], detector._vectors_before["a red thing"])


@pytest.mark.parametrize("byte", MOST_OF)
def test_json_of_very_many_values_is_refused_before_it_is_parsed(serve, monkeypatch, byte):
    client = serve()
    monkeypatch.setattr(json, "loads", lambda text: pytest.fail("parsed"))
    answer = client.post("/classes", content=byte * (MOST_OF[byte] + 1))
    assert answer.status_code == 413 and "in several requests" in answer.text


def test_as_many_classes_and_vectors_as_are_taken_are_parsed(serve):
    client = serve()
    names = [f"[thing] {number}" for number in range(5000)]
    answer = client.put("/classes", content=json.dumps({"classes": names}))
    assert answer.status_code == 422, "read, and refused by the detector for what it names"
    vectors = {f"own {n}": np.linspace(0.1, 0.9, 384).round(4).tolist() for n in range(900)}
    answer = client.put("/classes", content=json.dumps({"classes": vectors}))
    assert answer.status_code == 200 and len(answer.json()["classes"]) == 900
