"""Manners of a command in its terminal: printing never ends the work, and a signal ends it well."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any, TextIO

__all__ = ["Stop", "introduce", "say", "tolerate_any_text"]


def tolerate_any_text() -> None:
    """Let standard output and error take names that the terminal cannot show, escaped."""
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors="backslashreplace")


def say(text: str, *, end: str = "\n", file: TextIO | None = None) -> None:
    """Print a line, if anybody reads it: a closed pipe or a full disk does not end the work.

    Args:
        text: the line.
        end: what follows it.
        file: standard output unless it is given.
    """
    stream = sys.stdout if file is None else file
    try:
        print(text, end=end, file=stream, flush=True)
    except (OSError, ValueError):  # a closed pipe, a full disk; a closed file
        _silence(stream)


def introduce(detector: Any) -> None:
    """Say on standard error what was opened, and which phrases may hold a slip."""
    say(f"      {detector!r}", file=sys.stderr)
    for name, likelier in detector.spelling_hints(detector.classes).items():
        say(f"      {name!r} is looked for as written; did you mean {likelier!r}?", file=sys.stderr)


def _silence(stream: TextIO) -> None:
    """Send what else is printed nowhere, so that the flush at the end is no error either."""
    import os

    try:
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
    except (OSError, ValueError):  # no file of the system's, as in a test
        return


class Stop:
    """Turns Ctrl-C, SIGTERM and SIGHUP into a request, so that files are completed.

        with Stop() as stop:
            for item in work:
                if stop.signal:
                    break

    A second signal does what it did before. Outside the main thread nothing is caught.

    Attributes:
        signal: number of the first signal that came, or None.
    """

    SIGNALS = ("SIGINT", "SIGTERM", "SIGHUP")  # Windows has no SIGHUP

    def __init__(self) -> None:
        self.signal: int | None = None
        self._before: dict[int, Any] = {}
        self._tell: Callable[[], object] = lambda: None

    def tells(self, whom: Callable[[], object]) -> None:
        """Call ``whom`` from the signal's handler: it must not wait, nor take a lock."""
        self._tell = whom

    def __enter__(self) -> Stop:
        if threading.current_thread() is threading.main_thread():
            for name in self.SIGNALS:
                number = getattr(signal, name, None)
                if number is not None and signal.getsignal(number) is not signal.SIG_IGN:  # nohup
                    self._before[number] = signal.signal(number, self._caught)
        return self

    def __exit__(self, *exception: object) -> None:
        for number, before in self._before.items():
            signal.signal(number, before)

    def _caught(self, number: int, frame: FrameType | None) -> None:
        self.signal = number
        for other, before in self._before.items():
            signal.signal(other, before)
        self._tell()
