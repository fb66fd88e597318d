"""Detections in videos, cameras and network streams, many at once."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from numbers import Integral
from statistics import median
from typing import Any, NamedTuple, NoReturn, Protocol
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray

from runtime.detections import Detections
from runtime.frames import Frame, Frames, Policy, SourceState
from runtime.images import MAX_PIXELS
from runtime.reader import Reader
from runtime.sources import Place, Source
from runtime.tracking import Tracks
from zsd_core.errors import ConfigError

__all__ = ["Finder", "Stream"]

Image = NDArray[np.uint8]


class Finder(Protocol):
    """Protocol of a detector for streams: ``runtime.Detector`` is one."""

    def __call__(self, image: Sequence[Any], *, color: Any) -> list[Detections]:
        """Detections of every image of a list, ``(H, W, 3)`` uint8 in the order ``color``."""


class Stream:
    """Iterate over ``(frame, detections)`` of files, cameras and network streams.

        with Stream(detector, ["rtsp://cam/1", "door.mp4"]) as stream:
            for frame, found in stream:
                print(frame.source, frame.seconds, found)

    Every source is read in a thread of its own. A file gives every frame, a live source the newest:
    a detector that is slower than the camera skips frames and never falls behind. Sources take
    turns, so a busy one cannot hold up the others, and one that is lost is tried again while the
    others go on. The iteration ends when every source has ended; cameras that are retried never do.

    All methods may be called from any thread; classes and thresholds of the detector may change
    while the stream runs.

    Args:
        detector: a ``Detector``, or anything that is called like one with a list of images.
        sources: paths of videos and images, addresses, camera numbers; or {name: one of these}.
            A ``runtime.sources.Source`` says itself whether it is a file or live.
            Without a name, a source is called by its address, credentials hidden.
        timeout: seconds for opening a live source and for a read. OpenCV may wait two or three
            times as long before it reports a loss.
        retry: (shortest, longest) pause in seconds before a lost live source is opened again; the
            pause doubles with every attempt that fails. None: a lost source raises ``ImageError``.
        policy: "all" frames or the "newest"; "auto" is all of a file and the newest of a live
            source. "all" of a live source lets its delay grow. "newest" of a file plays it at its
            own pace, as though it was a camera.
        tracker: an object with ``update(sv.Detections)``, of which every source gets a copy, or a
            function that makes one. ``Detections.track_ids`` are its numbers, per source.
        max_batch: most frames that are searched together: one each of several sources, or the next
            ones of a single file. Whether that pays is measured on the first frames; where it does
            not, frames are searched one by one. A frame that is searched before its turn, and has
            to wait while classes or thresholds change, is searched again.
        endless: wait for ``add`` when all sources have ended, until ``close``.

    Raises:
        ConfigError: an argument is not valid, or two sources have one name.
        ImageError: there is no such file.
    """

    def __init__(
        self,
        detector: Finder,
        sources: Sequence[Place | Source] | Mapping[str, Place | Source] = (),
        *,
        timeout: float = 5.0,
        retry: tuple[float, float] | None = (0.5, 30.0),
        policy: Policy = "auto",
        tracker: Any = None,
        max_batch: int = 8,
        endless: bool = False,
    ) -> None:
        if not _is_count(max_batch):
            raise ConfigError(
                f"Stream: max_batch is {max_batch!r}, must be a whole number of at least 1."
            )
        self._detector, self._tracker = detector, tracker
        self._pace = _Pace(max_batch)
        self._found: deque[_Found] = deque()  # searched, and not yet handed out
        self._tracks = WeakKeyDictionary[Any, Tracks]()  # by what reads the source
        if tracker is not None:
            Tracks(tracker)  # what is wrong with it shows before anything is opened
        self._frames = Frames(
            sources,
            timeout=timeout,
            retry=retry,
            policy=policy,
            endless=endless,
            max_pixels=getattr(detector, "max_pixels", MAX_PIXELS),
        )

    @property
    def states(self) -> dict[str, SourceState]:
        """The state of every source, by name: how it is doing, what was dropped or skipped."""
        return self._frames.states

    def add(
        self, source: Place | Source, *, name: str | None = None, policy: Policy | None = None
    ) -> str:
        """Add a source while the stream runs; return its name, as ``frame.source`` has it.

        Args:
            source: path, address or camera number.
            name: what to call it.
            policy: "all", "newest" or "auto", for this source alone.

        Raises:
            ConfigError: it is there already, or the stream is closed.
            ImageError: there is no such file.
        """
        return self._frames.add(source, name=name, policy=policy)

    def remove(self, source: Place) -> None:
        """Remove a source, by its name or as it was given; no frame of it comes any more.

        Raises:
            ConfigError: the stream has no such source.
        """
        self._frames.remove(source)

    def __iter__(self) -> Iterator[tuple[Frame, Detections]]:
        """Yield every frame with what was found in it.

        Raises:
            DeviceError: this process was forked from the one that opened the stream.
            ImageError: a source has failed: of ``retry=None`` at once, a file when all other
                sources have ended. Iterating again goes on with the others.

        An error of the detector or tracker is raised too. The frames that it was searching count
        as ``dropped``; iterating again goes on with the next ones.
        """
        while (found := self._next()) is not None:
            with self._frames.dropping([found.reader]):
                tracked = self._tracked(found)
            self._frames.count([found.reader], dropped=False)
            yield found.frame, tracked

    def _next(self) -> _Found | None:
        """The next frame with what was found in it; None at the end."""
        while not self._frames.closed:
            if not self._found:
                frames = self._frames.take(self._pace.most)
                if not frames:
                    return None
                self._found.extend(self._search(frames))
                continue
            try:
                found = self._found.popleft()
            except IndexError:  # another thread took it
                continue
            if found.reader is None or found.reader is not self._frames.reader(found.frame.source):
                continue  # removed meanwhile
            version, limits = _settings(self._detector)
            if found.settings[0] != version or found.settings[1] is not limits:
                (found,) = self._search([found.frame])
            return found
        self._found.clear()
        return None

    def _search(self, frames: Sequence[Frame]) -> list[_Found]:
        readers = [self._frames.reader(frame.source) for frame in frames]
        with self._frames.dropping(readers):
            settings, start = _settings(self._detector), time.perf_counter()
            results = self._detector([frame.image for frame in frames], color="bgr")
            self._pace.note(len(frames), time.perf_counter() - start)
            return [_Found(*row, settings) for row in zip(frames, results, readers, strict=True)]

    def stop(self) -> None:
        """End every iteration soon, without waiting; may be called from a signal handler."""
        self._frames.stop()

    def close(self) -> None:
        """End every iteration and all reading; closing again is harmless.

        A camera that hangs is left to its thread, which frees it within the time-out; the program
        waits that long at its end.
        """
        self._frames.close()
        self._found.clear()

    def __reduce__(self) -> NoReturn:
        raise TypeError(
            "a Stream cannot be pickled or copied: its cameras are open in this process. Make one "
            "where it is to be used; a Detector can be sent there."
        )

    def __enter__(self) -> Stream:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _tracked(self, found: _Found) -> Detections:
        """With numbers of tracks; those of a source that was added again begin anew."""
        if self._tracker is None:
            return found.detections
        if found.reader not in self._tracks:
            self._tracks[found.reader] = Tracks(self._tracker)
        return self._tracks[found.reader].follow(found.frame, found.detections)


class _Found(NamedTuple):
    """A frame, what was found in it, and the settings of the detector that found it."""

    frame: Frame
    detections: Detections
    reader: Reader | None  # of its source
    settings: tuple[Any, Any]


def _is_count(number: Any) -> bool:
    return isinstance(number, Integral) and int(number) >= 1


def _settings(detector: Finder) -> tuple[Any, Any]:
    """What a user may change of a detector between two frames, where it says so."""
    return getattr(detector, "class_set_version", None), getattr(detector, "limits", None)


class _Pace:
    """Whether it pays to search several frames together: measured, then decided once.

    Args:
        largest: most frames together.
    """

    SAMPLES = 4  # of each way; the first of each is left out, since it may be a warm-up
    GAIN = 0.9  # together must take less than this share of the time

    def __init__(self, largest: int) -> None:
        self._largest = largest
        self._seconds: dict[bool, list[float]] = {False: [], True: []}  # a frame's, by "together"
        self._decided: int | None = 1 if largest == 1 else None

    @property
    def most(self) -> int:
        """Maximum number of frames to take next."""
        if self._decided is not None:
            return self._decided
        together = len(self._seconds[True]) < self.SAMPLES
        return self._largest if together else 1

    def note(self, frames: int, seconds: float) -> None:
        """Learn from a call that took ``seconds`` for ``frames``."""
        if self._decided is not None:
            return
        samples = self._seconds[frames > 1]
        if len(samples) < self.SAMPLES:
            samples.append(seconds / frames)
        if all(len(s) == self.SAMPLES for s in self._seconds.values()):
            alone, together = (median(self._seconds[way][1:]) for way in (False, True))
            self._decided = self._largest if together < self.GAIN * alone else 1
