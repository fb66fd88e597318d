"""Shared parts of the benchmarks: samples, percentiles, memory, energy, and the conditions."""

from __future__ import annotations

import ctypes
import json
import os
import platform
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import quantiles
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zsd_core import kernels
from zsd_core.errors import ZsdError, require

__all__ = [
    "Energy",
    "conditions",
    "interleaved",
    "keep_memory",
    "markdown",
    "percentiles",
    "photograph",
    "resident_mb",
    "restart_peak",
    "write_rows",
]

RAPL = Path("/sys/class/powercap")


def percentiles(samples: Sequence[float]) -> dict[str, float]:
    """``p50_ms``, ``p90_ms`` and ``p99_ms`` of at least two samples, interpolated."""
    cuts = quantiles(samples, n=100, method="inclusive")
    return {f"p{p}_ms": cuts[p - 1] for p in (50, 90, 99)}


def interleaved(
    functions: Mapping[str, Callable[[], Any]],
    calls: Mapping[str, int],
    *,
    warmup: int = 1,
    between: Callable[[], Any] | None = None,
    before: Callable[[], Any] = lambda: None,
    done: Callable[[str], None] = lambda name: None,
) -> dict[str, list[float]]:
    """Milliseconds of every call, the functions in turns, so that all see the same machine.

    Args:
        functions: by name.
        calls: measured calls of each; those with fewer are spread evenly over the rounds.
        warmup: calls of each before.
        between: call each once more right before every call, then this, outside of its time: the
            caches and threads are its own then, as in a stream of frames.
        before: every call, outside of its time.
        done: told the name after every call, warm-up included.
    """
    samples: dict[str, list[float]] = {name: [] for name in functions}
    rounds = max(calls.values(), default=0)
    for round_ in range(-warmup, rounds):
        for name, function in functions.items():
            due = -(-calls[name] * (round_ + 1) // rounds)  # by the end of this round
            if round_ >= 0 and len(samples[name]) >= due:
                continue
            before()
            if between is not None:
                function()
                between()
            start = time.perf_counter()
            function()
            if round_ >= 0:
                samples[name].append(1e3 * (time.perf_counter() - start))
            done(name)
    return samples


def resident_mb(field: str) -> float:
    """``VmRSS`` (now) or ``VmHWM`` (its peak) of this process in megabytes; Linux only."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1]) * 1024 / 1e6
    raise ZsdError(f"/proc/self/status has no {field}.")


def restart_peak(*, trim: bool = True) -> float:
    """Let ``VmHWM`` begin anew at ``VmRSS``, which is returned in megabytes; Linux only.

    Args:
        trim: give back what was freed first (0.1 ms and more): an allocation that is served from
            it makes nothing grow, and a process may hold gigabytes of it.
    """
    if trim and (malloc_trim := getattr(ctypes.CDLL(None), "malloc_trim", None)) is not None:
        malloc_trim(0)  # malloc_trim(3), of glibc
    Path("/proc/self/clear_refs").write_text("5")  # proc_pid_clear_refs(5)
    return resident_mb("VmRSS")


def keep_memory() -> bool:
    """Let this process keep what it frees, so that no later call pays for fresh pages again.

    glibc returns every large block to the system at once, and the next call that asks for it waits
    until its pages are mapped and zeroed. On virtual machines that can cost PyTorch, which
    allocates every layer's output anew, more than its arithmetic does.

    Returns:
        False where the allocator is not glibc's, and nothing was changed.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # mallopt(3)
    if mallopt is None:
        return False
    mmap_threshold, trim_threshold = -3, -1  # names in malloc.h; -1 as a value: never trim
    return bool(mallopt(mmap_threshold, 2**30) and mallopt(trim_threshold, -1))


class Energy:
    """Joules the processor packages used since this was made, where the kernel reports them."""

    def __init__(self, root: Path = RAPL) -> None:
        self._zones: list[tuple[Path, int, int]] = []
        for zone in sorted(root.glob("intel-rapl:[0-9]*")):
            if zone.name.count(":") > 1:  # a part of a package, counted with it
                continue
            try:
                limit = int((zone / "max_energy_range_uj").read_text())
                self._zones.append(
                    (zone / "energy_uj", int((zone / "energy_uj").read_text()), limit)
                )
            except OSError:  # root only on most systems
                continue

    def joules(self) -> float | None:
        """Return None where nothing is reported."""
        if not self._zones:
            return None
        used = ((int(path.read_text()) - start) % (limit + 1) for path, start, limit in self._zones)
        return sum(used) / 1e6


def photograph(path: Path | None = None) -> NDArray[np.uint8]:
    """An image ``(H, W, 3)`` RGB: the file, or a packaged photograph brought to 640 x 480."""
    if path is not None:
        from runtime.images import read_image

        return read_image(path, "rgb")
    cv2 = require("cv2", "cpu")
    picture = require("skimage.data", "demo").coffee()  # 600 x 400
    return np.ascontiguousarray(cv2.resize(picture, (640, 480)))


def conditions() -> str:
    """Conditions of the numbers, in one line: processor, load, threads, versions."""
    built = ", ".join(f"{key} {value}" for key, value in kernels.build_info().items())
    return (
        f"{_processor()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}; "
        f"kernels: {built}; numpy {np.__version__}; Python {platform.python_version()}"
    )


def _processor() -> str:
    if sys.platform == "linux":
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def markdown(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table; columns of numbers, named by a leading ``>``, are aligned right."""
    titles = [column.removeprefix(">") for column in columns]
    rule = ["---:" if column.startswith(">") else "---" for column in columns]
    return "\n".join("| " + " | ".join(line) + " |" for line in (titles, rule, *rows))


def write_rows(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write the rows as a JSON list."""
    path.write_text(json.dumps(list(rows), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
