"""One thread a source: opens it, reads it, and opens it again when it is lost."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections import deque
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from runtime.capture import Capture, open_capture
from runtime.redact import hide_credentials, shown_place
from runtime.sources import Kind, Source
from zsd_core.errors import ImageError

__all__ = ["Frame", "Reader", "Shared", "SourceState", "Status"]

log = logging.getLogger("runtime.stream")

Status = Literal["opening", "running", "lost", "ended", "failed"]
AHEAD = 2  # frames that are read ahead where all are wanted
LOOK = 0.2  # seconds between two looks at whether the program ends


@dataclass(frozen=True, slots=True, eq=False)
class Frame:
    """One picture of a source.

    Attributes:
        source: name of the source; the address without its credentials, unless a name was given.
        index: number of the frame in its source, from 0; frames that were dropped or could not be
            read have numbers too.
        seconds: time in the video, by the file's own clock; for a live source since its first
            frame.
        captured: ``time.time()`` when the frame came out of the decoder.
        image: ``(H, W, 3)`` uint8 BGR, as OpenCV draws and writes it.
        connection: 0 until a live source is first lost, then 1, and so on.
    """

    source: str
    index: int
    seconds: float
    captured: float
    image: NDArray[np.uint8]
    connection: int = 0


@dataclass(frozen=True, slots=True)
class SourceState:
    """State of a source; ``str`` gives the status, and the reason of a loss or failure.

    Attributes:
        status: "opening", "running", "lost" (the next attempt comes), "ended" or "failed" (no
            attempt comes).
        kind: "image", "video" or "live".
        frames: frames handed out.
        dropped: frames that were read and not handed out: a newer one replaced them, or the
            detector or tracker raised an error on them.
        skipped: frames of a file that could not be read.
        losses: how often a live source was lost.
        rate: frames per second that the source announces; 0 until it is open.
        count: frames that a file announces, or None.
        error: why it was last lost or failed, without credentials; None while all is well.
        since: ``time.time()`` of the last change of the status.
    """

    status: Status
    kind: Kind
    frames: int
    dropped: int
    skipped: int
    losses: int
    rate: float
    count: int | None
    error: str | None
    since: float

    def __str__(self) -> str:
        return f"{self.status}: {self.error}" if self.error else self.status


class Shared:
    """State shared by the readers and whoever takes their frames.

    Args:
        endless: whether ``take`` waits when all sources have ended.
    """

    def __init__(self, endless: bool) -> None:
        self.process = os.getpid()
        self.changed = threading.Condition()  # guards everything here and in the readers
        self.readers: dict[str, Reader] = {}
        self.turns: deque[Reader] = deque()  # whoever was served longest ago comes first
        self.endless, self.closed = endless, False

    def close(self) -> None:
        """End every reader, and whoever waits in ``take``."""
        self.closed = True
        if os.getpid() == self.process:  # in a forked child the lock may be held for ever
            with self.changed:
                self.changed.notify_all()

    @property
    def over(self) -> bool:
        """Whether the stream is closed or the program ends."""
        return self.closed or not threading.main_thread().is_alive()

    def take(self, most: int) -> list[Frame]:
        """Wait for up to ``most`` frames; see ``Frames.take``."""
        with self.changed:
            while not self.over:
                self._raise_failures(every=False)
                ready = [reader for reader in self.turns if reader.waiting][:most]
                for reader in ready:
                    self.turns.remove(reader)
                    self.turns.append(reader)
                if ready:
                    self.changed.notify_all()  # there is room again
                    frames = [reader.waiting.popleft() for reader in ready]
                    held_up = len(ready) > 1 or any(reader.newest for reader in self.turns)
                    while not held_up and ready[0].waiting and len(frames) < most:
                        frames.append(ready[0].waiting.popleft())
                    return frames
                if not self.endless and all(r.status in ("ended", "failed") for r in self.turns):
                    self._raise_failures(every=True)
                    return []
                self.changed.wait(LOOK)
        return []

    def _raise_failures(self, every: bool) -> None:
        """Report a failure nobody has heard of yet: of live sources, or of every one."""
        for reader in self.turns:
            heard = reader.failure is None or reader.waiting
            if not heard and (every or reader.source.kind == "live"):
                failure, reader.failure = reader.failure, None
                raise ImageError(str(failure))


class Reader(threading.Thread):
    """Reads one source.

    The thread is no daemon: Python would end such a thread inside the decoder's C++ code, which
    aborts the process. Instead it looks whether the main thread is alive.

    Args:
        shared: where its frames are taken from.
        source: what it reads.
        newest: keep the newest frame only; otherwise wait until a frame is taken.
        timeout: seconds for opening and for a read.
        retry: (shortest, longest) pause before a lost source is opened again, or None.
        max_pixels: largest width times height of an image.
    """

    def __init__(
        self,
        shared: Shared,
        source: Source,
        newest: bool,
        timeout: float,
        retry: tuple[float, float] | None,
        max_pixels: int,
    ) -> None:
        super().__init__(name=f"reader of {source.name}", daemon=False)
        self.source, self.given = source, source.place
        self.stopped = False
        self.waiting: deque[Frame] = deque()
        self.failure: str | None = None
        self.status: Status = "opening"
        self._shared, self._timeout, self._retry = shared, timeout, retry
        self._max_pixels = max_pixels
        self.newest = newest
        self._given_out = self._dropped = self._skipped = self._losses = 0
        self._rate, self._count = 0.0, None if source.kind != "image" else 1
        self._error: str | None = None
        self._told: str | None = None  # the loss that the log tells of
        self._since = time.time()
        self._pause = retry[0] if retry else 0.0
        self._index, self._first = 0, 0.0

    def state(self) -> SourceState:
        """State of the source; called with the lock held."""
        return SourceState(
            self.status,
            self.source.kind,
            self._given_out,
            self._dropped,
            self._skipped,
            self._losses,
            self._rate,
            self._count,
            self._error,
            self._since,
        )

    def count(self, *, dropped: bool) -> None:
        """Count a frame that was taken as handed out or as dropped; called with the lock held."""
        self._given_out += not dropped
        self._dropped += dropped

    def run(self) -> None:
        """Read until the end, or until nobody wants to see more."""
        try:
            while not self._over:
                if not self._read_once():
                    return
        except Exception as error:  # else whoever waits for frames would wait for ever
            said = str(error)
            if "://" in self.given:  # its end is known here, whatever it holds
                said = said.replace(self.given, shown_place(self.given))
            text = hide_credentials(f"{type(error).__name__}: {said}")
            self._become("failed", f"{self.source.name}: reading failed: {text}")

    @property
    def _over(self) -> bool:
        return self.stopped or self._shared.over

    def _read_once(self) -> bool:
        """Open the source and read it to its end or loss; whether to try again."""
        live = self.source.kind == "live"
        try:
            capture = open_capture(self.source, self._timeout, self._max_pixels)
        except ImageError as error:
            return self._lost(str(error)) if live else self._become("failed", str(error))
        start = time.monotonic()
        try:
            frames = self._pump(capture)
        finally:
            capture.close()
        if self._over:
            return False
        if live:
            # One that is lost again at once is left alone for longer and longer, too.
            if frames and self._retry and time.monotonic() - start >= self._pause:
                self._pause = self._retry[0]
            return self._lost(f"{self.source.name}: sends no more frames")
        if not frames:
            return self._become(
                "failed", f"{self.source.name}: holds no frame that can be decoded."
            )
        if self._skipped:
            log.warning("%s: %d frames could not be read", self.source.name, self._skipped)
        return self._become("ended")

    def _pump(self, capture: Capture) -> int:
        """Hand on frames until there are no more; return their number."""
        live, number, start = self.source.kind == "live", 0, time.monotonic()
        while not self._over:
            got = capture.read()
            with self._shared.changed:
                self._skipped = capture.skipped
                if got is None or self._over:
                    return number
            now, seconds = time.monotonic(), got[0]
            if number == 0:
                self._rate, self._count = capture.rate, capture.count
                self._first = self._first or now
                self._become("running")
                if self._told is not None:
                    log.warning("%s: sends frames again", self.source.name)
                    self._told = None
            if live:
                seconds = now - self._first
            elif self.newest:  # a file as though it was a camera: at its own pace
                self._wait(start + seconds - now)
            index = self._index if live else number + capture.skipped
            self._offer(Frame(self.source.name, index, seconds, time.time(), got[1], self._losses))
            self._index += 1
            number += 1
        return number

    def _offer(self, frame: Frame) -> None:
        """Put a frame where it can be taken: in place of an older one, or when there is room."""
        changed = self._shared.changed
        with changed:
            while not self.newest and len(self.waiting) >= AHEAD and not self._over:
                changed.wait(LOOK)
            if self._over:
                return
            if self.newest:
                self._dropped += len(self.waiting)
                self.waiting.clear()
            self.waiting.append(frame)
            changed.notify_all()

    def _lost(self, error: str) -> bool:
        """Note a loss, and wait for the next attempt; whether there is one."""
        if self._retry is None:
            return self._become("failed", error)
        with self._shared.changed:
            self._losses += self.status == "running"
            self._dropped += len(self.waiting)
            self.waiting.clear()  # nothing older than the loss comes after it
        pause, self._pause = self._pause, min(2 * self._pause, self._retry[1])
        level = logging.DEBUG if error == self._told else logging.WARNING  # attempts go on for ever
        log.log(level, "%s; next attempt in %.3g s", error.rstrip("."), pause)
        self._told = error
        self._become("lost", error)
        self._wait(pause)
        return not self._over

    def _wait(self, seconds: float) -> None:
        """Let time pass, unless the source is removed or the stream closed."""
        end = time.monotonic() + seconds
        with self._shared.changed:
            while not self._over and (rest := end - time.monotonic()) > 0:
                self._shared.changed.wait(min(rest, LOOK))

    def _become(self, status: Status, error: str | None = None) -> Literal[False]:
        """Change the status, and tell whoever waits."""
        with self._shared.changed:
            self.status, self._error, self._since = status, error, time.time()
            if status == "failed":
                self.failure = error
                if self._shared.endless and self.source.kind != "live":  # never raised
                    log.error("%s", error)
            self._shared.changed.notify_all()
        return False
