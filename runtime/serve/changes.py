"""Changes that are given up whole or made whole, so that a late answer tells the truth."""

from __future__ import annotations

import threading

__all__ = ["Change", "GivenUpError"]


class GivenUpError(Exception):
    """Nobody waits for this change any more; nothing of it has been made."""


class Change:
    """One change, on its way from a request to the detector.

    Its thread prepares it, asks ``go_on`` now and then, and calls ``begin`` before the first thing
    that others can see. Whoever waits for it may give it up until then, and not after: a change
    that has begun is waited for. Names and vectors then take milliseconds; an example of a class
    runs the networks.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._begun = self._given_up = False

    def go_on(self) -> None:
        """Say that the change is still wanted.

        Raises:
            GivenUpError: it is not.
        """
        if self._given_up:
            raise GivenUpError

    def begin(self) -> None:
        """From here on the change is made; may be called again.

        Raises:
            GivenUpError: it is not wanted any more.
        """
        with self._lock:
            self.go_on()
            self._begun = True

    def give_up(self) -> bool:
        """Want it no more; return whether that comes in time."""
        with self._lock:
            self._given_up = not self._begun
            return self._given_up
