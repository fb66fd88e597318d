"""Work on several threads, where Python still starts them.

Once the main thread has ended, other threads of a program may go on, and a pool of threads refuses
work from then on.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

__all__ = ["pools_work", "side_by_side"]

T = TypeVar("T")
R = TypeVar("R")


def pools_work() -> bool:
    """Whether a pool of threads still takes work."""
    return threading.main_thread().is_alive()


def side_by_side(function: Callable[[T], R], items: Sequence[T], threads: int) -> list[R]:
    """Call a function for every item, on up to so many threads.

    Returns:
        The results, in order. An error is that of the first item that has one.
    """
    if min(threads, len(items)) < 2 or not pools_work():  # starting threads takes its time
        return [function(item) for item in items]
    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(function, items))
