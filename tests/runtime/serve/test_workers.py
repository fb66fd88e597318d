"""The queue: bounded, honest about waiting, and not fooled by time-outs."""

from __future__ import annotations

import statistics
import threading
import time

import anyio
import pytest
from colour_detector import ColourDetector, picture, png
from coroutines import run_apart

from runtime.serve.errors import RequestError
from runtime.serve.workers import Workers

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
        with workers.place(), pytest.raises(RequestError, match="taken"), workers.place():
            pass
        workers.close()

    run_apart(main)
