"""Everything that commands share: their parser, progress on standard error, and how they end.

@command
def main(argv: Sequence[str] | None = None) -> int:
    args = new_parser("package.module", __doc__).parse_args(argv)
    ...
    return 0
"""

from __future__ import annotations

import argparse
import functools
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import NoReturn, TextIO

from zsd_core.errors import ZsdError, require
from zsd_core.files import visible

__all__ = ["Parser", "Progress", "Steps", "command", "new_parser", "print_error", "say"]

INTERRUPTED = 130  # exit status after Ctrl-C, as shells have it


def command(main: Callable[[Sequence[str] | None], int]) -> Callable[..., int]:
    """Wrap the ``main`` of a command: it returns its exit status, whatever happens.

    A ``ZsdError`` or ``OSError`` is one sentence on standard error and status 1. Ctrl-C is status
    130. A reader of the output that has seen enough, as ``head`` has, ends the command quietly.
    Other exceptions are mistakes of ours and keep their traceback.
    """

    @functools.wraps(main)
    def guarded(argv: Sequence[str] | None = None) -> int:
        _open_missing()
        try:
            status = main(argv)
            sys.stdout.flush()  # a reader that is gone shows here, not at exit
            return status
        except BrokenPipeError:
            _silence(sys.stdout)
            return 1
        except (ZsdError, OSError) as error:
            print_error(error)
            return 1
        except KeyboardInterrupt:
            say("stopped", file=sys.stderr)
            return INTERRUPTED

    return guarded


def print_error(error: Exception) -> None:
    """Print an error as a sentence on standard error."""
    say(f"error: {error}", file=sys.stderr)


def say(text: str, *, start: str = "", end: str = "\n", file: TextIO | None = None) -> None:
    """Print a line, if anybody reads it: a closed pipe or a full disk does not end the work.

    Args:
        text: the line; what it holds cannot move the cursor.
        start: what stands before it, such as a carriage return.
        end: what follows it.
        file: standard output unless it is given.
    """
    stream = sys.stdout if file is None else file
    try:
        print(start + visible(text), end=end, file=stream, flush=True)
    except (OSError, ValueError):  # a closed pipe, a full disk; a closed file
        _silence(stream)


def _silence(stream: TextIO) -> None:
    """Send what else is printed nowhere, so that the flush at the end is no error either."""
    try:
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
    except (OSError, ValueError):  # no file of the system's, as in a test
        return


def _open_missing() -> None:
    """Give a command that was started with a closed output (``2>&-``) one that leads nowhere.

    Python has None in its place; ``print`` takes None for standard output, and the next file that
    is opened would take its number.
    """
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))


class Parser(argparse.ArgumentParser):
    """A parser whose errors repeat a file's name as a terminal can show it."""

    def error(self, message: str) -> NoReturn:
        """Print the usage and the message, and exit with status 2."""
        super().error(visible(message))

    def parse_intermixed_args(  # type: ignore[override]
        self, args: Sequence[str] | None = None, namespace: argparse.Namespace | None = None
    ) -> argparse.Namespace:
        """Parse inputs and options in any order; behind ``--`` all are inputs.

        Python before 3.13 takes ``-a.jpg`` for an option even there: it is parsed in disguise.
        """
        given = list(sys.argv[1:] if args is None else args)
        end = given.index("--") if "--" in given else len(given)
        mark = "\0"  # no argument of a command can hold it
        disguised = given[:end] + [mark + argument for argument in given[end + 1 :]]
        found = super().parse_intermixed_args(disguised, namespace)
        for name, value in vars(found).items():
            if isinstance(value, list):
                setattr(found, name, [_without(mark, item) for item in value])
        return found


def _without(mark: str, value: object) -> object:
    return value.removeprefix(mark) if isinstance(value, str) else value


def new_parser(
    module: str, text: str | None, kind: type[argparse.ArgumentParser] = Parser
) -> argparse.ArgumentParser:
    """Make the parser of a command.

    Args:
        module: name of the module, as ``python -m`` takes it.
        text: docstring of the module: a line that says what the command does, then examples.
        kind: class of the parser.
    """
    summary, _, examples = (text or "").partition("\n\n")
    return kind(
        prog=f"python -m {module}",
        description=summary,
        epilog=examples,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


class Progress:
    """A bar with rate and remaining time; in a log file, a line every quarter of a minute.

    Use as a context manager, so that an error leaves the terminal as it was.
    """

    def __init__(self, title: str, total: int, done: int = 0) -> None:
        interactive = sys.stderr.isatty()
        self._bar = require("tqdm", "report").tqdm(
            desc=title,
            total=total,
            initial=done,
            file=sys.stderr,
            leave=True,
            ncols=110,
            mininterval=0.2 if interactive else 15,
        )

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
        self._bar.write(visible(line), file=sys.stderr)


class Steps:
    """Announce the numbered steps of a command and time them: ``[1/4] load weights ... 0.4 s``."""

    def __init__(self, total: int) -> None:
        self.total, self.done = total, 0

    @contextmanager
    def __call__(self, title: str) -> Iterator[None]:
        """Announce a step, run the body, print how long it took."""
        self.done += 1
        say(f"[{self.done}/{self.total}] {title} ...", end=" ", file=sys.stderr)
        started = time.perf_counter()
        try:
            yield
        except BaseException:
            say("failed", file=sys.stderr)
            raise
        say(f"{time.perf_counter() - started:.1f} s", file=sys.stderr)
