"""Facts about the compiled module: what runs on this CPU, and how many threads it uses."""

from __future__ import annotations

import importlib.util
from typing import Any

import numpy as np

from zsd_core.errors import ConfigError
from zsd_core.kernels._load import compiled
from zsd_core.options import check_option

__all__ = [
    "build_info",
    "check_threads",
    "get_threads",
    "set_simd",
    "set_threads",
    "sums_int8_exactly",
    "thread_limit",
    "usable_threads",
]


MOST_THREADS = 1024  # as in csrc/kernels/cpu/usable_threads.h


def build_info() -> dict[str, Any]:
    """Describe the compiled module.

    Returns:
        ``compiler``, ``simd`` (the path in use), ``simd_paths`` (those compiled that this CPU
        runs, best first), ``int8`` (the instruction that multiplies integers), ``threads``,
        ``cuda`` (whether the CUDA module was built).
    """
    cuda = importlib.util.find_spec("zsd_core._compiled_cuda") is not None
    return {**compiled().build_info(), "cuda": cuda}


def sums_int8_exactly() -> bool:
    """Whether libraries sum products of 8-bit integers exactly on this CPU.

    x86 without VNNI adds two of them in 16 bits, which do not always hold the sum.
    """
    paths = build_info()["simd_paths"]
    return "sse2" not in paths or any(path.endswith("_vnni") for path in paths)


def check_threads(where: str, count: int, cure: str = "") -> int:
    """A number of threads that may be asked for, as an int.

    Raises:
        ConfigError: it is no whole number from 1 to 1,024; ``cure`` follows.
    """
    whole = isinstance(count, (int, np.integer))
    rule = f"must be a whole number from 1 to {MOST_THREADS}{cure}"
    check_option(whole and 1 <= count <= MOST_THREADS, where, count, rule)
    return int(count)


def set_threads(count: int) -> None:
    """Use ``count`` threads, the caller's included. Results never depend on it.

    Raises:
        ConfigError: ``count`` is no whole number from 1 to 1,024.
    """
    compiled().set_threads(check_threads("set_threads: count", count))


def get_threads() -> int:
    """Threads in use; at first ``usable_threads()``."""
    return int(compiled().get_threads())


def usable_threads() -> int:
    """Threads that this process may keep busy: ``thread_limit``, or all of the machine."""
    return int(compiled().usable_threads())


def thread_limit() -> int | None:
    """Threads that this process may keep busy, or None where that is the whole machine.

    ``OMP_NUM_THREADS`` where it is set. Otherwise the cores that the process may run on
    (its affinity), and no more than the whole cores of the quota of its cgroup, but at least one.
    Kernels, backends and training use no more by default; a number that is asked for goes before.
    """
    return int(compiled().thread_limit()) or None


def set_simd(path: str) -> None:
    """Choose the vector instructions, one of ``build_info()["simd_paths"]``; for tests."""
    paths = build_info()["simd_paths"]
    if path not in paths:
        raise ConfigError(f"set_simd: path is {path!r}, must be one of {', '.join(paths)} here.")
    compiled().set_simd(path)
