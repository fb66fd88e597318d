"""Frames of many sources at once: sources take turns, and come and go while it runs."""

from __future__ import annotations

import threading
import time
import weakref
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from numbers import Real
from typing import Any, Literal

from runtime.images import MAX_PIXELS
from runtime.processes import check_process
from runtime.reader import Frame, Reader, Shared, SourceState
from runtime.redact import shown_place
from runtime.sources import Place, Source, resolve, source_of
from zsd_core.errors import ConfigError

__all__ = ["Frame", "Frames", "Policy", "SourceState"]

Policy = Literal["auto", "all", "newest"]


class Frames:
    """Iterate over the frames of many sources; sources take turns.

        with Frames(["rtsp://cam/1", "door.mp4"]) as frames:
            for frame in frames:
                ...

    Every method may be called from any thread. ``runtime.Stream`` describes the arguments, but
    for ``max_pixels``: the largest width times height of an image file.
    """

    def __init__(
        self,
        sources: Sequence[Place | Source] | Mapping[str, Place | Source] = (),
        *,
        timeout: float = 5.0,
        retry: tuple[float, float] | None = (0.5, 30.0),
        policy: Policy = "auto",
        endless: bool = False,
        max_pixels: int = MAX_PIXELS,
    ) -> None:
        if not (_are_numbers(timeout) and timeout > 0):
            raise ConfigError(f"Stream: timeout is {timeout!r}, must be a number of seconds > 0.")
        if retry is not None and not _are_pauses(retry):
            raise ConfigError(
                f"Stream: retry is {retry!r}, must be (shortest, longest) pause in seconds, such "
                "as (0.5, 30), or None to raise when a source is lost."
            )
        if not isinstance(sources, Iterable) or isinstance(sources, (str, bytes)):
            raise ConfigError(
                "Stream: sources is a single one, must be a list: Stream(detector, [it])."
            )
        self._timeout, self._retry, self._policy = timeout, retry, _checked(policy)
        self._max_pixels = max_pixels
        self._shared = Shared(endless)
        weakref.finalize(self, self._shared.close)  # threads end with a stream nobody closed
        named = sources.items() if isinstance(sources, Mapping) else ((None, s) for s in sources)
        try:
            for name, place in named:
                self.add(place, name=name)
        except BaseException:
            self.close()
            raise

    @property
    def states(self) -> dict[str, SourceState]:
        """The state of every source, by name."""
        shared = self._own()
        with shared.changed:
            return {name: reader.state() for name, reader in shared.readers.items()}

    @property
    def closed(self) -> bool:
        """Whether the stream has been stopped or closed."""
        return self._shared.closed

    def _own(self) -> Shared:
        """State shared with the readers.

        Raises:
            DeviceError: this process was forked from the one that opened the stream.
        """
        check_process(self._shared.process, "Stream")
        return self._shared

    def reader(self, name: str) -> Reader | None:
        """What reads a source: another object once it was removed and added again, None without."""
        return self._own().readers.get(name)

    def add(
        self, source: Place | Source, *, name: str | None = None, policy: Policy | None = None
    ) -> str:
        """Add a source; return its name.

        Raises:
            ConfigError: it is there already, or the stream is closed.
            ImageError: there is no such file.
        """
        shared, found = self._own(), source_of(source, name)
        chosen = self._policy if policy is None else _checked(policy)
        if chosen == "auto":
            chosen = "newest" if found.kind == "live" else "all"
        newest = chosen == "newest"
        with shared.changed:
            if name is None and not isinstance(source, Source):
                found = self._told_apart(found)
            reader = Reader(shared, found, newest, self._timeout, self._retry, self._max_pixels)
            if shared.closed:
                raise ConfigError(f"{found.name}: the stream is closed; make a new one.")
            if found.name in shared.readers:
                raise ConfigError(
                    f"{found.name}: is one of the sources already; give the second one a name: "
                    "stream.add(source, name='...')."
                )
            shared.readers[found.name] = reader
            shared.turns.append(reader)
        reader.start()
        return found.name

    def _told_apart(self, source: Source) -> Source:
        """A source under another name where only what is hidden tells it from one that is there."""
        name, number = source.name, 1
        while (there := self._shared.readers.get(name)) and there.given != source.place:
            number += 1
            name = f"{source.name}-{number}"
        return Source(source.kind, source.place, name)

    def remove(self, source: Place) -> None:
        """Remove a source, by its name or as it was given; no frame of it comes any more.

        Raises:
            ConfigError: there is no such source.
        """
        shared, place = self._own(), resolve(source)
        with shared.changed:
            readers = shared.readers
            given = (name for name, reader in readers.items() if reader.given == place)
            name = str(source) if str(source) in readers else next(given, None)
            if name is None:
                raise ConfigError(
                    f"{shown_place(str(source))}: is none of the sources "
                    f"({', '.join(readers) or 'none'})."
                )
            reader = readers.pop(name)
            shared.turns.remove(reader)
            reader.stopped = True
            reader.waiting.clear()
            shared.changed.notify_all()

    def take(self, most: int = 1) -> list[Frame]:
        """Wait for frames, and take one each of up to ``most`` sources, those served longest ago.

        If one source alone has frames, and none has the policy "newest", the list takes further
        frames of that source, in order. Whoever takes frames counts them by ``count``.

        Returns:
            An empty list when all sources have ended, or the stream is closed.

        Raises:
            ImageError: a source has failed. One of ``retry=None`` is reported at once; a file when
                all other sources have ended. Each is reported once, so that iterating may go on.
        """
        return self._own().take(most)

    def count(self, readers: Sequence[Reader | None], *, dropped: bool) -> None:
        """Count a frame of each of these readers that was taken: handed out, or dropped."""
        with self._own().changed:
            for reader in readers:
                if reader is not None:
                    reader.count(dropped=dropped)

    @contextmanager
    def dropping(self, readers: Sequence[Reader | None]) -> Iterator[None]:
        """Count a frame of each of these readers as dropped where the body raises an error."""
        try:
            yield
        except BaseException:
            self.count(readers, dropped=True)
            raise

    def __iter__(self) -> Iterator[Frame]:
        while frames := self.take():
            self.count([self.reader(frames[0].source)], dropped=False)
            yield from frames

    def stop(self) -> None:
        """End all reading and every iteration soon, without waiting; a signal handler may call."""
        self._shared.closed = True  # no lock: whoever waits looks again within LOOK

    def close(self) -> None:
        """End all reading, and every iteration.

        A source that hangs in a read is left to its thread, which frees it when the read returns,
        within the time-out. The program waits for such a thread at its end.
        """
        self._shared.close()
        end = time.monotonic() + 1.0
        for reader in list(self._shared.readers.values()):
            if reader is not threading.current_thread() and reader.ident is not None:
                reader.join(max(0.0, end - time.monotonic()))

    def __enter__(self) -> Frames:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def _are_pauses(retry: Any) -> bool:
    """Whether these are a shortest and a longest pause in seconds."""
    pair = isinstance(retry, Sequence) and len(retry) == 2 and _are_numbers(*retry)
    return pair and 0 < retry[0] <= retry[1]


def _are_numbers(*values: Any) -> bool:
    return all(isinstance(value, Real) for value in values)


def _checked(policy: Any) -> Policy:
    if policy not in ("auto", "all", "newest"):
        raise ConfigError(f"Stream: policy is {policy!r}, must be 'auto', 'all' or 'newest'.")
    checked: Policy = policy
    return checked
