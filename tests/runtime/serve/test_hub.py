"""Open streams: newest wins, everyone gets it, everyone ends."""

from __future__ import annotations

import asyncio

import pytest
from coroutines import run_apart

from runtime.serve.errors import RequestError
from runtime.serve.hub import Hub


def test_a_slow_viewer_gets_the_newest_of_every_topic():
    async def main():
        hub = Hub(2)
        hub.publish("classes", 0)
        viewer, other = hub.subscribe(), hub.subscribe(frozenset({"frame b"}))
        for index in range(100):
            hub.publish("frame a", index)
            hub.publish("frame b", index)
        items, seen = viewer.items(), []
        for _ in range(3):
            seen.append(await anext(items))
        assert seen == [("classes", 0), ("frame a", 99), ("frame b", 99)]
        assert await anext(other.items()) == ("frame b", 99)

    run_apart(main)


def test_viewers_are_bounded_and_leave():
    async def main():
        hub = Hub(1)
        viewer = hub.subscribe()
        with pytest.raises(RequestError, match="1 streams are open"):
            hub.subscribe()
        viewer.close()
        viewer.close()
        assert hub.viewers == 0
        hub.subscribe()

    run_apart(main)


def test_stopping_ends_all_at_once_and_takes_no_more():
    async def main():
        hub = Hub(2)
        viewer = hub.subscribe()

        async def watch():
            return [item async for item in viewer.items()]

        task = asyncio.create_task(watch())
        await asyncio.sleep(0)
        hub.stop()
        assert await asyncio.wait_for(task, 1) == []
        with pytest.raises(RequestError, match="stopping"):
            hub.subscribe()

    run_apart(main)


def test_silence_is_told():
    async def main():
        viewer = Hub(1).subscribe()
        assert await anext(viewer.items(pause=0.01)) is None

    run_apart(main)


def test_news_come_from_any_thread_and_not_after_the_end():
    hub = Hub(1)
    hub.send("early", 1)  # not started: nobody is there

    async def main():
        hub.start()
        viewer = hub.subscribe()
        await asyncio.to_thread(hub.send, "topic", 2)
        assert await anext(viewer.items()) == ("topic", 2)

    run_apart(main)
    hub.send("late", 3)
