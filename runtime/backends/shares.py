"""Images or regions of one call in equal shares, each on a thread of its own.

A small network on many rows gains more from a thread for each share than from threads that meet
after every operator, most of all where another program takes turns on a core. Fewer rows than
threads would leave some idle, so these may have a network of their own that uses all threads.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from threading import Lock

import numpy as np
from numpy.typing import NDArray

from runtime.side_by_side import no_thread, pools_work
from zsd_core.errors import DeviceError

__all__ = ["CLOSED", "Later", "Run", "Shares"]

CLOSED = "the networks are closed; open the detector again."
Floats = NDArray[np.float32]
Run = Callable[..., Sequence[Floats]]


class Later:
    """A function that is made at its first call; any thread may call it.

    Args:
        make: the function; called once.
    """

    def __init__(self, make: Callable[[], Run]) -> None:
        self._make, self._made, self._lock = make, list[Run](), Lock()

    def __call__(self, *arrays: Floats) -> Sequence[Floats]:
        """Run the function."""
        with self._lock:
            if not self._made:
                self._made.append(self._make())
        return self._made[0](*arrays)


class Shares:
    """Runs a function of whole batches on shares of them; any thread may call it.

    Args:
        run: takes arrays ``(R, …)`` and returns arrays ``(R, …)``, R above 0, from any thread.
        count: most shares of a call; the calling thread takes one of them.
        alone: in place of ``run`` for a call of fewer rows than shares; None shares them too.
    """

    def __init__(self, run: Run, count: int, alone: Run | None = None) -> None:
        self._run, self._count, self._alone = run, count, alone
        self._workers = ThreadPoolExecutor(count - 1, "contrastzsd-share") if count > 1 else None
        self._closed = False

    def __call__(self, *arrays: Floats) -> Sequence[Floats]:
        """Run all rows of ``arrays``, which have equally many; the results are in their order.

        Raises:
            DeviceError: it was closed, by another thread, before all shares were given out, or the
                system starts no thread.
        """
        shares = min(self._count, len(arrays[0]))
        few = shares == 1 or (shares < self._count and self._alone is not None)
        if self._workers is None or few or not pools_work():
            return (self._alone or self._run)(*arrays)
        parts = list(zip(*(np.array_split(array, shares) for array in arrays), strict=True))
        try:
            waiting = [self._workers.submit(self._run, *part) for part in parts[1:]]
        except RuntimeError as error:  # of a pool that has ended, or has no threads
            if self._closed:
                raise DeviceError(CLOSED) from None
            raise no_thread(error) from error
        done = [self._run(*parts[0]), *(future.result() for future in waiting)]
        return [np.concatenate(results) for results in zip(*done, strict=True)]

    def close(self) -> None:
        """End the threads; calls in hand are finished first."""
        self._closed = True
        if self._workers is not None:
            self._workers.shutdown()
