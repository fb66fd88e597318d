"""Work on several threads, where Python still starts them.

Once the main thread has ended, other threads of a program may go on, and a pool of threads refuses
work from then on.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from zsd_core.errors import DeviceError

__all__ = ["no_thread", "pools_work", "side_by_side"]

T = TypeVar("T")
R = TypeVar("R")


def pools_work() -> bool:
    """Whether a pool of threads still takes work."""
    return threading.main_thread().is_alive()


def no_thread(error: RuntimeError) -> DeviceError:
    """The error that says that the system starts no thread."""
    return DeviceError(
        f"the system starts no more threads ({error}). Raise its limit of processes (ulimit -u, or "
        "that of the container), or pass threads=1."
    )


def side_by_side(function: Callable[[T], R], items: Sequence[T], threads: int) -> list[R]:
    """Call a function for every item, on up to so many threads.

    Returns:
        The results, in order. An error is that of the first item that has one.

    Raises:
        DeviceError: the system starts no thread.
    """
    if min(threads, len(items)) < 2 or not pools_work():  # starting threads takes its time
        return [function(item) for item in items]
    with ThreadPoolExecutor(threads) as pool:
        try:
            results = pool.map(function, items)
        except RuntimeError as error:  # of the pool, whose threads start here
            raise no_thread(error) from error
        return list(results)
