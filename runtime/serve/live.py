"""Live sources: one ``runtime.Stream`` in a thread, its frames as viewers get them."""

from __future__ import annotations

import json
import logging
import re
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from runtime.annotate import annotate
from runtime.detections import Detections
from runtime.redact import shown_place
from runtime.serve.config import ServeConfig
from runtime.serve.pictures import encode
from runtime.serve.records import describe
from runtime.stream import Stream
from zsd_core.errors import ImageError, ZsdError

__all__ = ["Live", "Shown", "open_stream", "play_again", "source_names"]

log = logging.getLogger(__name__)
LONGEST = 80  # letters of a source's name
POLL = 0.5  # seconds between two looks at the states of sources


class Shown:
    """One searched frame of a live source; its JPEG is made once, however many look at it.

    Attributes:
        source: name of the source, as addresses have it.
        found: what was found in the frame.
    """

    def __init__(
        self, source: str, frame: Any, image: NDArray[np.uint8], found: Detections
    ) -> None:
        self.source, self.found, self._image = source, found, image
        self._captured = float(frame.captured)
        self._record = {
            "source": source,
            "index": int(frame.index),
            "seconds": round(float(frame.seconds), 3),
            **describe(found, image.shape[1], image.shape[0]),
        }
        self._lock = threading.Lock()
        self._files: dict[bool, bytes] = {}

    @property
    def record(self) -> dict[str, Any]:
        """The frame without its pixels, as JSON has it, and its age by now."""
        return {**self._record, "age_ms": round((time.time() - self._captured) * 1e3, 1)}

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
        retry: shortest and longest pause in seconds before a stream that failed is opened again.
    """

    def __init__(
        self,
        open_stream: Callable[[], Any],
        names: Sequence[str],
        shown: Callable[[Shown], None],
        changed: Callable[[list[dict[str, Any]]], None],
        replay: Callable[[Any, str], None] | None = None,
        retry: tuple[float, float] = (0.5, 30.0),
    ) -> None:
        self._open, self.names = open_stream, tuple(names)
        self._shown, self._changed, self._replay = shown, changed, replay
        self._retry, self._pause = retry, retry[0]
        self._unplayed: dict[str, str] = {}  # why a video could not begin again, by name
        self._stream: Any = None
        self._stop = threading.Event()
        self._last = [{"name": name, "state": "opening", "error": None} for name in self.names]
        self._thread = threading.Thread(target=self._run, name="live")
        self._watcher = threading.Thread(target=self._watch, name="live-states")

    @property
    def sources(self) -> list[dict[str, Any]]:
        """Name, state ("opening", "running", "lost", "ended", "failed") and error of each.

        A video that begins again is never "ended".
        """
        return list(self._last)

    def start(self) -> None:
        """Begin to watch."""
        self._thread.start()
        self._watcher.start()

    def stop(self) -> None:
        """End the stream; ``join`` waits for it."""
        self._stop.set()
        stream = self._stream  # its thread may put another in its place
        if stream is not None:
            stream.close()

    def join(self, timeout: float) -> bool:
        """Wait for the threads; whether they have ended."""
        if self._thread.ident is None:  # never started
            return True
        end = time.monotonic() + timeout
        for thread in (self._watcher, self._thread):
            thread.join(max(0.0, end - time.monotonic()))
        return not (self._thread.is_alive() or self._watcher.is_alive())

    def _run(self) -> None:
        """Watch until the end; what fails, foreseen or not, is said and tried again."""
        while not self._stop.is_set():
            try:
                with self._open() as self._stream:
                    while not self._stop.is_set():
                        self._follow()
            except Exception as error:
                self._stream = None
                if self._stop.is_set():
                    return
                self._fail(error)
                self._stop.wait(self._pause)
                self._pause = min(2 * self._pause, self._retry[1])

    def _fail(self, error: Exception) -> None:
        """Say that no source gives frames, in the log and as the state of each."""
        said = isinstance(error, ZsdError)
        why = (
            str(error) if said else f"an error of the service, {type(error).__name__}: see its log"
        )
        log.error(
            "the live sources failed and are tried again in %g s: %s",
            self._pause,
            why,
            exc_info=None if said else error,
        )
        self._tell([{"name": name, "state": "failed", "error": why} for name in self.names])

    def _tell(self, sources: list[dict[str, Any]]) -> None:
        self._last = sources
        self._changed(sources)

    def _follow(self) -> None:
        """Hand on frames until the stream ends or one of its sources fails for good."""
        try:
            for frame, found in self._stream:
                if self._stop.is_set():
                    return
                self._shown(Shown(frame.source, frame, frame.image, found))
                self._pause = self._retry[0]
        except ImageError as error:  # of one source: the others go on
            log.error("%s", error)
        self._stop.wait(POLL)

    def _watch(self) -> None:
        while not self._stop.wait(POLL):
            stream = self._stream
            if stream is not None:
                try:
                    self._look(stream)
                except Exception:
                    log.exception("the states of the live sources could not be read")

    def _look(self, stream: Any) -> None:
        """Tell of states that changed, and begin ended videos again."""
        states, found, ended = stream.states, [], []
        for name in self.names:
            if name in states:
                state, error = states[name].status, states[name].error
                if self._replay and state == "ended":
                    ended.append(name)
                    state = "opening"
            elif name in self._unplayed:
                state, error = "failed", self._unplayed[name]
            else:  # it begins again
                continue
            found.append({"name": name, "state": state, "error": error})
        if found != self._last and stream is self._stream:
            self._tell(found)
        for name in (*ended, *self._unplayed):
            if not self._stop.is_set():
                self._play(stream, name)

    def _play(self, stream: Any, name: str) -> None:
        """Begin a video again; one that is gone is looked for again and again."""
        assert self._replay is not None
        try:
            self._replay(stream, name)
        except ZsdError as error:
            if self._unplayed.get(name) != str(error):
                log.error("%s cannot begin again: %s", name, error)
            self._unplayed[name] = str(error)
        else:
            self._unplayed.pop(name, None)


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
    """Begin a source of a stream again.

    Raises:
        ConfigError: the stream is closed.
        ImageError: there is no such file any more.
    """
    if name in stream.states:
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
    source = shown_place(source)
    if " ! " not in source and "://" in source:
        place = re.split(r"[?#]", source.partition("://")[2].removeprefix("***@"))[0]
        text = re.sub(r"^([^/]*?):\d*(?=/|$)", r"\1", place)  # without the port
    elif source.isdecimal():
        text = f"camera-{source}"
    elif " ! " in source:
        text = source
    else:
        name = re.split(r"[/\\]", source)[-1]
        text = name.rpartition(".")[0] or name
    return re.sub(r"[^A-Za-z0-9_]+", "-", text).strip("-")[:LONGEST].strip("-").lower() or "source"


def _unique(name: str, taken: Iterable[str]) -> str:
    used, found, number = set(taken), name, 1
    while found in used:
        number += 1
        found = f"{name}-{number}"
    return found
