"""A detector may be closed during searches: each gives a right result or a DeviceError."""

from __future__ import annotations

import importlib.util
import threading

import numpy as np
import pytest

from runtime import Detector
from runtime.backends import shares
from zsd_core.errors import DeviceError

CPU = [name for name in ("onnxruntime", "openvino") if importlib.util.find_spec(name)]
SEARCHERS, TIMES = 3, 25


class Searcher(threading.Thread):
    """Searches until the detector is closed; notes what went wrong."""

    def __init__(self, detector, images, wanted, found):
        super().__init__(daemon=True)
        self.detector, self.images, self.wanted, self.found = detector, images, wanted, found
        self.wrong = None

    def run(self):
        try:
            while True:
                for found, exact in zip(self.detector(self.images), self.wanted, strict=True):
                    np.testing.assert_allclose(found.scores, exact.scores, rtol=1e-4)
                self.found.release()
        except DeviceError as error:
            if "networks are closed; open the detector again" not in str(error):
                self.wrong = error
        except BaseException as error:
            self.wrong = error


@pytest.mark.parametrize("name", CPU)
def test_closing_while_threads_search(bundle_path, photo, name):
    images = [photo, photo[::-1].copy(), photo[:, ::-1].copy()]  # shared by threads, and so are
    for time in range(TIMES):  # the regions
        detector = Detector(bundle_path, backend=name, threads=2, score_threshold=0)
        wanted, found = detector(images), threading.Semaphore(0)
        searchers = [Searcher(detector, images, wanted, found) for _ in range(SEARCHERS)]
        for searcher in searchers:
            searcher.start()
        for _ in range(time % 4):  # results until it is closed
            assert found.acquire(timeout=60), [searcher.wrong for searcher in searchers]
        detector.close()
        for searcher in searchers:
            searcher.join(timeout=60)
            assert not searcher.is_alive(), "a search does not end"
            assert searcher.wrong is None, repr(searcher.wrong)


@pytest.mark.parametrize("at", [1, 2])
def test_closing_at_every_step_of_a_search(bundle_path, photo, monkeypatch, at):
    """Another thread closes when the search has come to the trunk's shares, or the head's."""
    if "onnxruntime" not in CPU:
        pytest.skip("onnxruntime is not installed")
    images = [photo, photo[::-1].copy()]
    with Detector(bundle_path, backend="onnxruntime", threads=2, score_threshold=0) as detector:
        detector(images)
        steps = []

        def step():
            steps.append(1)
            if len(steps) == at:
                closing = threading.Thread(target=detector.close)
                closing.start()
                closing.join(timeout=30)
            return True

        monkeypatch.setattr(shares, "pools_work", step)
        with pytest.raises(DeviceError, match="networks are closed; open the detector again"):
            detector(images)
