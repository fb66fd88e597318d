"""Manners of a command in its terminal: printing never ends the work, and a signal ends it well."""

from __future__ import annotations

import logging
import signal
import sys
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any

from runtime.redact import hide_credentials
from zsd_core.commands import say
from zsd_core.files import visible

__all__ = ["Stop", "introduce", "log_to_stderr", "say", "tolerate_any_text"]


def tolerate_any_text() -> None:
    """Let standard output and error take names that the terminal cannot show, escaped."""
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors="backslashreplace")


def log_to_stderr(level: int, form: str) -> None:
    """Print records of this level and above, tracebacks too, without credentials.

    Args:
        level: of ``logging``.
        form: of a record, as ``logging.Formatter`` takes it.
    """
    handler = logging.StreamHandler()
    handler.setFormatter(_Shown(form))
    logging.basicConfig(level=level, handlers=[handler])


class _Shown(logging.Formatter):
    """Writes records that anybody may read: also those of other packages, which know no secret."""

    def format(self, record: logging.LogRecord) -> str:
        return visible(hide_credentials(super().format(record)))


def introduce(detector: Any) -> None:
    """Say on standard error what was opened, and which phrases may hold a slip."""
    say(f"      {detector!r}", file=sys.stderr)
    for name, likelier in detector.spelling_hints(detector.classes).items():
        say(f"      {name!r} is looked for as written; did you mean {likelier!r}?", file=sys.stderr)


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
        """Call ``whom`` from the signal's handler: it must not wait, nor take a lock.

        It is called at once where the signal has come already; it may be called twice.
        """
        self._tell = whom
        if self.signal is not None:
            whom()

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
