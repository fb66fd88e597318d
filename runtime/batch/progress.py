"""Progress of a batch on standard error, with the time that is left."""

from __future__ import annotations

import sys
import time
from datetime import timedelta

from zsd_core.commands import say

__all__ = ["Countdown"]


class Countdown:
    """A line that counts images: rewritten on a terminal, repeated every 15 s in a log.

    Args:
        total: images of the run.
        done: of these, images that an earlier start has searched.
    """

    def __init__(self, total: int, done: int = 0) -> None:
        self._total, self._done, self._damaged = total, done, 0
        self._first, self._started = done, time.monotonic()
        self._terminal = sys.stderr.isatty()
        self._next = 0.0

    def add(self, images: int, damaged: int) -> None:
        """Count images that have been searched, and of these the damaged ones."""
        self._done += images
        self._damaged += damaged
        now = time.monotonic()
        if now >= self._next or self._done == self._total:
            self._next = now + (0.2 if self._terminal else 15)
            start, end = ("\r\033[K", "") if self._terminal else ("", "\n")
            say(self._line(now), start=start, end=end, file=sys.stderr)

    def _line(self, now: float) -> str:
        rate = (self._done - self._first) / max(now - self._started, 1e-9)
        left = timedelta(seconds=round((self._total - self._done) / max(rate, 1e-9)))
        damaged = f", {self._damaged} damaged" if self._damaged else ""
        return f"{self._done}/{self._total} images{damaged}, {rate:.1f} images/s, {left} left"

    def close(self) -> None:
        """Leave the line as it is and go to the next."""
        if self._terminal:
            say("", file=sys.stderr)
