"""Several threads where Python starts them, and one where it does not any more."""

from __future__ import annotations

import subprocess
import sys
import threading

import pytest

from runtime.side_by_side import pools_work, side_by_side
from zsd_core.errors import DeviceError


@pytest.mark.parametrize("count", [0, 1, 7])
def test_results_are_in_order(count):
    assert side_by_side(lambda item: item * item, range(count), 3) == [i * i for i in range(count)]


def test_it_is_side_by_side():
    together = threading.Barrier(2)
    waited = side_by_side(lambda _: together.wait(timeout=10), range(2), 2)  # breaks if in turns
    assert sorted(waited) == [0, 1] and pools_work()


def test_the_error_is_that_of_the_first_bad_item():
    def fail(item):
        if item:
            raise ValueError(f"item {item}")

    with pytest.raises(ValueError, match="item 1"):
        side_by_side(fail, [0, 1, 2], 3)


def test_a_system_that_starts_no_thread_is_named(monkeypatch):
    """As in a container whose limit of processes is reached."""

    def start(self):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", start)
    with pytest.raises(DeviceError, match=r"\(can't start new thread\). Raise its limit of proc"):
        side_by_side(str, range(3), 2)
    assert side_by_side(str, range(3), 1) == ["0", "1", "2"]


AFTER = """
import threading, sys
import numpy as np
from runtime import Detector

def work():
    threading.main_thread().join()
    with Detector(sys.argv[1], backend="onnxruntime", threads=2) as detector:
        image = np.zeros((48, 64, 3), np.uint8)
        print(len(detector([image, image, image])))

threading.Thread(target=work).start()
"""


def test_a_detector_opens_and_searches_after_the_end_of_the_main_thread(bundle_path):
    command = [sys.executable, "-c", AFTER, str(bundle_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert (done.stdout, done.returncode) == ("3\n", 0), done.stderr
