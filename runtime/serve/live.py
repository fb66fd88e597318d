"""Live sources: one ``runtime.Stream`` in a thread, its frames as viewers get them."""

from __future__ import annotations

import json
import logging
import re
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

import numpy as np
from numpy.typing import NDArray

from runtime.annotate import annotate
from runtime.detections import Detections
from runtime.serve.config import ServeConfig
from runtime.serve.pictures import encode
from runtime.serve.records import describe
from runtime.stream import Stream
from zsd_core.errors import ImageError, ZsdError

__all__ = ["Live", "Shown", "open_stream", "play_again", "source_names"]

log = logging.getLogger(__name__)
POLL = 0.5  # seconds between two looks at the states of sources


class Shown:
    """One searched frame of a live source; its JPEG is made once, however many look at it.

    Attributes:
        source: name of the source, as addresses have it.
        found: what was found in the frame.
        record: the frame without its pixels, as JSON has it.
    """

    def __init__(
        self, source: str, frame: Any, image: NDArray[np.uint8], found: Detections
    ) -> None:
        self.source, self.found, self._image = source, found, image
        self.record = {
            "source": source,
            "index": int(frame.index),
            "seconds": round(float(frame.seconds), 3),
            "age_ms": round((time.time() - float(frame.captured)) * 1e3, 1),
            **describe(found, image.shape[1], image.shape[0]),
        }
        self._lock = threading.Lock()
        self._files: dict[bool, bytes] = {}

    def jpeg(self, drawn: bool) -> bytes:
        """The frame as a JPEG, with or without boxes."""
        with self._lock:
            if drawn not in self._files:
                image = annotate(self._image, self.found) if drawn else self._image
                self._files[drawn] = encode(image, quality=80)
            return self._files[drawn]

    def part(self, drawn: bool) -> bytes:
        """The frame as a part of ``multipart/x-mixed-replace``, its record in a header.

        The next part's boundary ends it, so that a browser shows the frame at once.
        """
        data = self.jpeg(drawn)
        head = (
            f"Content-Type: image/jpeg\r\nContent-Length: {len(data)}\r\n"
            f"X-Frame: {json.dumps(self.record)}\r\n\r\n"
        )
        return head.encode("ascii") + data + b"\r\n--frame\r\n"


class Live:
    """Runs a stream in a thread and hands on what it finds.

    Args:
        open_stream: makes the ``runtime.Stream``, whose sources have the names given here; called
            in the thread.
        names: of the sources.
        shown: called with every searched frame.
        changed: called with the list of sources when a state changes.
        replay: begin a video again when it has ended.
    """

    def __init__(
        self,
        open_stream: Callable[[], Any],
        names: Sequence[str],
        shown: Callable[[Shown], None],
        changed: Callable[[list[dict[str, Any]]], None],
        replay: Callable[[Any, str], None] | None = None,
    ) -> None:
        self._open, self.names = open_stream, tuple(names)
        self._shown, self._changed, self._replay = shown, changed, replay
        self._stream: Any = None
        self._stop = threading.Event()
        self._last = [{"name": name, "state": "opening", "error": None} for name in self.names]
        self._thread = threading.Thread(target=self._run, name="live")
        self._watcher = threading.Thread(target=self._watch, name="live-states")

    @property
    def sources(self) -> list[dict[str, Any]]:
        """Name, state ("opening", "running", "lost", "ended", "failed") and error of each."""
        return list(self._last)

    def start(self) -> None:
        """Begin to watch."""
        self._thread.start()
        self._watcher.start()

    def stop(self) -> None:
        """End the stream; ``join`` waits for it."""
        self._stop.set()
        if self._stream is not None:
            self._stream.close()

    def join(self, timeout: float) -> bool:
        """Wait for the threads; whether they have ended."""
        if self._thread.ident is None:  # never started
            return True
        end = time.monotonic() + timeout
        for thread in (self._watcher, self._thread):
            thread.join(max(0.0, end - time.monotonic()))
        return not (self._thread.is_alive() or self._watcher.is_alive())

    def _run(self) -> None:
        try:
            with self._open() as self._stream:
                while not self._stop.is_set():
                    self._follow()
        except ZsdError as error:
            log.error("the live sources ended: %s", error)
            self._last = [{**s, "state": "failed", "error": str(error)} for s in self._last]
            self._changed(self._last)

    def _follow(self) -> None:
        """Hand on frames until the stream ends or one of its sources fails for good."""
        try:
            for frame, found in self._stream:
                if self._stop.is_set():
                    return
                self._shown(Shown(frame.source, frame, frame.image, found))
        except ImageError as error:  # of one source: the others go on
            log.error("%s", error)
        self._stop.wait(POLL)

    def _watch(self) -> None:
        while not self._stop.wait(POLL):
            if self._stream is not None:
                self._look()

    def _look(self) -> None:
        """Tell of states that changed, and begin ended videos again."""
        states = self._stream.states
        found = [
            {"name": name, "state": states[name].status, "error": states[name].error}
            for name in self.names
            if name in states
        ]
        if found != self._last:
            self._last = found
            self._changed(found)
        for source in found:
            if source["state"] == "ended" and self._replay and not self._stop.is_set():
                self._replay(self._stream, source["name"])


def open_stream(detector: Any, named: Mapping[str, str], config: ServeConfig) -> Stream:
    """A stream of the sources, which ends when it is closed; viewers want the newest frame."""
    return Stream(
        detector,
        dict(named),
        timeout=config.live_timeout,
        retry=config.retry,
        policy="newest",
        endless=True,
    )


def play_again(named: Mapping[str, str], stream: Stream, name: str) -> None:
    """Begin a source of a stream again."""
    stream.remove(name)
    stream.add(named[name], name=name)


def source_names(sources: Sequence[str]) -> dict[str, str]:
    """Sources by short names, fit for addresses, without passwords and unique.

    ``rtsp://user:secret@cam:554/front`` is called ``cam-front``, ``films/door.mp4`` ``door`` and
    ``0`` ``camera-0``.
    """
    named: dict[str, str] = {}
    for source in sources:
        named[_unique(_short(source), named)] = source
    return named


def _short(source: str) -> str:
    if "://" in source:
        parts = urlsplit(source)
        text = f"{parts.hostname or ''}{parts.path}"
    elif source.isdecimal():
        text = f"camera-{source}"
    else:
        name = re.split(r"[/\\]", source)[-1]
        text = name.rpartition(".")[0] or name
    return re.sub(r"[^A-Za-z0-9_]+", "-", text).strip("-").lower() or "source"


def _unique(name: str, taken: Iterable[str]) -> str:
    used, found, number = set(taken), name, 1
    while found in used:
        number += 1
        found = f"{name}-{number}"
    return found
