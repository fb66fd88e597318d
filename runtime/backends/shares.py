"""Regions of one call in equal shares, each on a thread of its own.

A small network on many regions gains more from a thread for each share than from threads that meet
after every operator, most of all where another program takes turns on a core.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray

__all__ = ["Shares"]

Floats = NDArray[np.float32]


class Shares:
    """Runs a function of whole batches on shares of them; any thread may call it.

    Args:
        run: takes arrays ``(R, …)`` and returns arrays ``(R, …)``, R above 0, from any thread.
        count: most shares of a call; the calling thread takes one of them.
    """

    def __init__(self, run: Callable[..., Sequence[Floats]], count: int) -> None:
        self._run, self._count = run, count
        self._workers = ThreadPoolExecutor(count - 1, "contrastzsd-share") if count > 1 else None

    def __call__(self, *arrays: Floats) -> Sequence[Floats]:
        """Run all rows of ``arrays``, which have equally many; the results are in their order."""
        shares = min(self._count, len(arrays[0]))
        if self._workers is None or shares == 1:
            return self._run(*arrays)
        parts = list(zip(*(np.array_split(array, shares) for array in arrays), strict=True))
        waiting = [self._workers.submit(self._run, *part) for part in parts[1:]]
        done = [self._run(*parts[0]), *(future.result() for future in waiting)]
        return [np.concatenate(results) for results in zip(*done, strict=True)]

    def close(self) -> None:
        """End the threads; calls in hand are finished first."""
        if self._workers is not None:
            self._workers.shutdown()
