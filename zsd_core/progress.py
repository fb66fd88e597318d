"""Progress on standard error: a bar with an estimate for loops, numbered steps for commands."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from zsd_core.errors import require

__all__ = ["Progress", "Steps"]


class Progress:
    """A bar with rate and remaining time; in a log file, a line every quarter of a minute.

    Use as a context manager, so that an error leaves the terminal as it was.
    """

    def __init__(self, title: str, total: int, done: int = 0) -> None:
        interactive = sys.stderr.isatty()
        self._bar = require("tqdm", "report").tqdm(
            desc=title, total=total, initial=done, file=sys.stderr, leave=True, ncols=110,
            mininterval=0.2 if interactive else 15,
        )  # fmt: skip

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()

    def advance(self, count: int = 1, values: Mapping[str, str] | None = None) -> None:
        """Report ``count`` more items done, and short values to show beside the bar."""
        if values:
            self._bar.set_postfix(values, refresh=False)
        self._bar.update(count)

    def note(self, line: str) -> None:
        """Print a line above the bar."""
        self._bar.write(line, file=sys.stderr)


class Steps:
    """Announce the numbered steps of a command and time them: ``[1/4] load weights ... 0.4 s``."""

    def __init__(self, total: int) -> None:
        self.total, self.done = total, 0

    @contextmanager
    def __call__(self, title: str) -> Iterator[None]:
        """Announce a step, run the body, print how long it took."""
        self.done += 1
        print(f"[{self.done}/{self.total}] {title} ...", end=" ", file=sys.stderr, flush=True)
        started = time.perf_counter()
        try:
            yield
        except BaseException:
            print("failed", file=sys.stderr)
            raise
        print(f"{time.perf_counter() - started:.1f} s", file=sys.stderr)
