"""Memory that kernels reuse: never while somebody has it, and no more than was ever needed."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from zsd_core import kernels
from zsd_core.kernels._load import compiled

SIDE = 128  # of the smallest results that are not malloc's: 192 KB
PATIENCE = 256  # csrc/kernels/cpu/block_cache.h


def result(value: int, side: int) -> np.ndarray:
    """A result of 12 ``side`` x ``side`` bytes, full of ``value``."""
    grey = np.full((1, 1, 3), value, np.uint8)
    return kernels.preprocess(
        grey, size=(side, side), padded=(side, side), mean=(0, 0, 0), std=(1, 1, 1)
    )


def size(side: int) -> int:
    """Bytes of a result."""
    return 12 * side * side


def holds(array: np.ndarray, value: int) -> bool:
    return bool((np.abs(array - value / 255) < 1e-6).all())


def large_results(kind: str) -> int:
    """Bytes "used" or "idle"."""
    found: int = compiled().large_results()[kind]
    return found


def forget() -> None:
    """Ask for so many small results that all else is forgotten."""
    for _ in range(PATIENCE + 2):
        result(1, SIDE)
    assert large_results("idle") <= 8 * size(SIDE)


@given(st.lists(st.tuples(st.integers(0, 7), st.integers(1, 6)), max_size=30))
def test_no_two_results_share_memory(steps):
    """Whatever is kept and dropped, in whatever order and size."""
    kept: dict[int, tuple[np.ndarray, int]] = {}
    for count, (place, times) in enumerate(steps):
        kept[place] = result(count, SIDE * times), count
        assert all(holds(array, value) for array, value in kept.values())


def test_a_view_keeps_the_memory_of_its_result():
    view = result(5, 4 * SIDE)[1, 2:]
    others = [result(9, 4 * SIDE) for _ in range(3)]
    assert holds(view, 5) and all(holds(other, 9) for other in others)


@pytest.mark.skipif(sys.platform != "linux", reason="counts the page faults of Linux")
def test_results_that_are_dropped_cost_no_new_pages():
    sides = [10 * SIDE, 8 * SIDE, 6 * SIDE]  # 20, 13 and 7 MB, which are 9,600 pages

    def faults():
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        for _ in range(5):
            held = [result(1, side) for side in sides]
            del held
        return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

    faults()
    assert faults() < 1000


def grow_and_forget() -> None:
    """In a process that has held no more than one of these at a time."""
    for times in range(1, 17):  # each larger than what is idle, which goes for it
        large = result(1, times * SIDE)
        assert large_results("idle") == 0
        del large
        assert large_results("idle") == size(times * SIDE)
    forget()


def test_idle_memory_makes_room_for_what_does_not_fit_and_goes_when_nobody_asks():
    code = "import test_block_cache; test_block_cache.grow_and_forget()"
    paths = [str(Path(__file__).parent), str(Path(__file__).parents[2])]
    subprocess.run(
        [sys.executable, "-c", code], check=True, env=os.environ | {"PYTHONPATH": ":".join(paths)}
    )


def test_small_results_that_are_kept_do_not_hold_large_blocks():
    before, small = large_results("used"), []
    for value in range(8):
        large = result(1, 16 * SIDE)
        del large
        small.append(result(value, 2 * SIDE))
    assert all(holds(array, value) for value, array in enumerate(small))
    assert large_results("used") - before <= 4 * 8 * size(2 * SIDE)


def test_threads_share_it():
    wrong = []

    def work(value):
        for step in range(30):
            array = result(value, SIDE * (2 + (step + value) % 5))
            wrong.extend([value] * (not holds(array, value)))

    threads = [threading.Thread(target=work, args=(value,)) for value in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork")
def test_a_forked_child_uses_its_own():
    array = result(3, 4 * SIDE)
    child = os.fork()
    if child == 0:
        os._exit(0 if holds(array, 3) and holds(result(4, 4 * SIDE), 4) else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert holds(array, 3)
