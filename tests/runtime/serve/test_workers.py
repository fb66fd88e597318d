"""The queue: bounded, honest about waiting, and not fooled by time-outs."""

from __future__ import annotations

import select
import socket
import statistics
import threading
import time
from contextlib import closing, suppress
from http.client import HTTPResponse
from urllib.parse import urlsplit

import anyio
import pytest
from colour_detector import ColourDetector, picture, png
from coroutines import run_apart

from runtime.serve.errors import RequestError
from runtime.serve.workers import Workers

TOKEN = "a-token-of-twenty-characters"
RED = png(picture(red=(40, 40, 120, 100)))


def at_once(count, ask):
    """Answers of requests that are made at the same time."""
    answers = [None] * count

    def one(index):
        answers[index] = ask()

    threads = [threading.Thread(target=one, args=(index,)) for index in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return answers


def test_more_pictures_than_places_are_refused_with_a_time_to_wait(serve):
    client = serve(ColourDetector(seconds=0.3), queue=3)
    answers = at_once(10, lambda: client.post("/detect", content=RED))
    statuses = sorted(answer.status_code for answer in answers)
    assert set(statuses) == {200, 503} and 3 <= statuses.count(200) < 10
    for answer in answers:
        if answer.status_code == 503:
            assert 1 <= int(answer.headers["retry-after"]) <= 60
            assert "all 3 places are taken" in answer.json()["error"]
    assert client.post("/detect", content=RED).status_code == 200
    assert "contrastzsd_queue_depth 0.0" in client.get("/metrics").text


def test_health_answers_at_once_while_64_clients_wait(serve):
    """The pictures only take time, no processor, so the machine's load is not in the numbers."""
    client = serve(ColourDetector(seconds=0.05), queue=64)
    bodies = (RED, RED[: len(RED) // 2], b"no picture at all", RED[::-1])
    waiting = iter(bodies * 16)
    clients = threading.Thread(
        target=at_once, args=(64, lambda: client.post("/detect", content=next(waiting)))
    )
    clients.start()
    taken, seconds = [], []
    while clients.is_alive():
        begin = time.perf_counter()
        assert client.get("/health").status_code == 200
        seconds.append(time.perf_counter() - begin)
        taken.append(client.app.state.service.workers.taken)
        time.sleep(0.01)
    clients.join()
    assert max(taken) >= 8 and len(seconds) >= 5  # there was a queue, and it was asked in it
    assert statistics.median(seconds) < 0.1


def test_a_late_answer_is_504_and_its_work_keeps_its_place(serve):
    detector = ColourDetector(seconds=0)
    client = serve(detector, queue=2, timeout=0.4)
    detector.seconds = 1.0
    answers = at_once(2, lambda: client.post("/detect", content=RED))
    assert [answer.status_code for answer in answers] == [504, 504]
    assert "within 0.4 s" in answers[0].json()["error"]
    # The picture that is still searched has its place; the one that waited was never begun.
    workers = client.app.state.service.workers
    assert workers.taken == 1
    end = time.monotonic() + 5
    while workers.taken and time.monotonic() < end:
        time.sleep(0.02)
    assert workers.taken == 0 and detector.calls <= 3  # one more than asked: the warm-up


def test_work_that_waits_is_dropped_at_the_end():
    async def main():
        workers, done = Workers(1, 4), []
        begun = threading.Event()

        def slow():
            begun.set()
            time.sleep(0.2)
            done.append("slow")

        with workers.place() as first, workers.place() as second:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(first.run, slow)
                await anyio.to_thread.run_sync(begun.wait)

                async def waits():
                    with pytest.raises(BaseException):  # noqa: B017 (cancelled)
                        await second.run(lambda: done.append("second"))

                tasks.start_soon(waits)
                await anyio.sleep(0.05)
                workers.close()
        assert done == ["slow"]

    run_apart(main)


def test_a_place_is_free_after_an_error():
    async def main():
        workers = Workers(1, 1)
        with pytest.raises(ValueError), workers.place():
            raise ValueError
        with pytest.raises(ZeroDivisionError), workers.place() as place:
            await place.run(lambda: 1 / 0)
        await anyio.sleep(0.05)
        assert workers.taken == 0
        workers.taken = 1
        with pytest.raises(RequestError, match="taken"), workers.place():
            pass
        workers.close()

    run_apart(main)


HEADS = [("POST", "/session"), ("POST", "/detect"), ("POST", "/classes/examples?name=x")]
HEADS += [("POST", "/classes"), ("PUT", "/classes"), ("PATCH", "/thresholds")]


def connect(url, head, size, body=b""):
    address = urlsplit(url)
    client = socket.create_connection((address.hostname, address.port), timeout=20)
    client.sendall(
        f"{head} HTTP/1.1\r\nHost: {address.netloc}\r\nAuthorization: Bearer {TOKEN}\r\n"
        f"Content-Length: {size}\r\n\r\n".encode()
    )
    client.sendall(body)
    return client


def told(client):
    """Status and body of an answer, after which the connection is closed."""
    with closing(client), HTTPResponse(client) as answer:
        answer.begin()
        return answer.status, answer.read().decode()


@pytest.mark.parametrize(("method", "path"), HEADS)
def test_requests_whose_bodies_do_not_come_keep_nobody_out(served, method, path):
    """Also more of them than there may be connections."""
    service = served(queue=1, viewers=1, token=TOKEN)
    idle = [connect(service.url, f"{method} {path}", 99, b"token"[:n]) for n in [0, 5] * 32]
    assert told(connect(service.url, "POST /detect", len(RED), RED))[0] == 200
    changed = told(connect(service.url, "PATCH /thresholds", 22, b'{"max_detections": 50}'))
    assert changed[0] == 200
    form = f"token={TOKEN}".encode()
    assert told(connect(service.url, "POST /session", len(form), form))[0] == 303
    assert told(connect(service.url, "GET /health", 0))[0] == 200
    for client in idle:
        client.close()


def test_bodies_that_are_on_their_way_have_one_bound(served):
    service = served(queue=2, body_bytes=2**20)
    workers = service.service.workers
    part = bytes(2**20 - 1)
    first = [connect(service.url, "POST /detect", 2**20, part) for _ in range(2)]
    end = time.monotonic() + 20
    while workers.held < 2 * len(part) and time.monotonic() < end:
        time.sleep(0.01)
    status, words = told(connect(service.url, "POST /detect", 2**20, part))
    assert status == 503 and "the bodies of others fill the 2 MiB for them; try again in" in words
    assert told(connect(service.url, "PATCH /thresholds", 2, b"{}"))[0] != 503
    for client in first:
        client.sendall(b"x")
        assert told(client)[0] == 415  # zeros are no picture
    assert told(connect(service.url, "POST /detect", len(RED), RED))[0] == 200
    while workers.held and time.monotonic() < end:
        time.sleep(0.01)
    assert workers.held == workers.taken == 0


def test_a_body_may_take_its_time_but_not_stand_still(served):
    service = served(timeout=1)
    body = RED + bytes(16_000)
    slow = connect(service.url, "POST /detect", len(body))
    begin = time.monotonic()
    for start in range(0, len(body), 10_000):
        slow.sendall(body[start : start + 10_000])
        time.sleep(0.12)
    assert told(slow)[0] == 200 and time.monotonic() - begin > 1.5
    for sent in (b"", bytes(9_000)):  # what was sent fast gives no right to drip
        begin, drips = time.monotonic(), connect(service.url, "POST /detect", 64_000, sent)
        drips.setblocking(False)
        with suppress(BlockingIOError, ConnectionError):
            while time.monotonic() - begin < 5 and not select.select([drips], [], [], 0.05)[0]:
                drips.send(b"x")
        assert time.monotonic() - begin < 3
        drips.setblocking(True)
        status, words = told(drips)
        assert status == 408 and "less than 4 KiB a second of the body came for 0.5 s" in words
