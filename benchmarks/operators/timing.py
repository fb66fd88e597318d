"""Times and memory for the operators' benchmark."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from statistics import median
from typing import Any

from numpy.typing import NDArray

from benchmarks.measure import resident_mb, restart_peak

__all__ = ["Bench", "extra_mb"]

LONG_MS = 3000.0  # what takes longer is timed three times only


class Bench:
    """Times calls and knows how often."""

    def __init__(self, calls: int) -> None:
        self.calls = calls

    def together(self, functions: dict[str, Callable[[], Any]]) -> dict[str, float]:
        """Median milliseconds of each, called in turn after one warm-up of all.

        In turn, so that all see the same machine: its clock and its other work change slowly.
        """
        samples: dict[str, list[float]] = {name: [] for name in functions}
        calls, call = self.calls, 0
        while call <= calls:
            for name, function in functions.items():
                start = time.perf_counter()
                function()
                samples[name].append(1e3 * (time.perf_counter() - start))
            if call == 0 and max(times[0] for times in samples.values()) > LONG_MS:
                calls = min(calls, 3)
            call += 1
        return {name: median(times[1:]) for name, times in samples.items()}

    def pair(self, ours: Callable[[], Any], theirs: Callable[[], Any]) -> tuple[float, float]:
        """The same for two."""
        times = self.together({"ours": ours, "theirs": theirs})
        return times["ours"], times["theirs"]


def extra_mb(function: Callable[[], list[NDArray[Any]]]) -> float | None:
    """Peak resident memory of a call beyond what was there and its results; Linux only."""
    if sys.platform != "linux":
        return None
    before = restart_peak()
    size = sum(array.nbytes for array in function())
    return max(0.0, resident_mb("VmHWM") - before - size / 1e6)
