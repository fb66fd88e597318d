"""Detectors in other processes: pickled they reopen, forked they are refused, and nothing hangs."""

import copy
import os
import pickle
import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pytest
import tiny
import tiny_text
from videos import write_video

from runtime import Detector, Stream
from runtime.bundle import open_bundle
from zsd_core.errors import BundleError

ROOT = Path(__file__).parents[2]


def same(one, two):
    np.testing.assert_array_equal(one.boxes, two.boxes)
    np.testing.assert_array_equal(one.scores, two.scores)
    np.testing.assert_array_equal(one.class_ids, two.class_ids)
    assert (one.class_names, one.roles) == (two.class_names, two.roles)
    assert one.class_set_version == two.class_set_version
    return True


@pytest.fixture
def changed(detector):
    """A detector that is not as it was opened."""
    detector.set_classes(["truck", "zebra", "cat"], mode="zsd")
    detector.add_classes({"bracket": np.linspace(-1, 1, 8), "fire truck": None})
    detector.remove_classes(["zebra"])
    detector.set_thresholds(score_threshold={"bracket": 0.001, "unseen": 0.0}, nms_threshold=0.4)
    return detector


@pytest.mark.parametrize("way", [lambda d: pickle.loads(pickle.dumps(d)), copy.copy, copy.deepcopy])
def test_a_copy_is_a_detector_of_its_own_with_the_same_results(changed, photo, way):
    with way(changed) as other:
        assert len(changed(photo)) > 0
        assert same(other(photo), changed(photo))
        assert (other.classes, other.mode, other.limits) == (
            changed.classes,
            changed.mode,
            changed.limits,
        )
        assert other.description == changed.description
        other.add_classes(["zebra"])
        assert other.class_set_version == changed.class_set_version + 1
        assert "zebra" not in changed.classes
    assert changed(photo)  # closing the copy did not close it


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
def test_a_copy_keeps_the_options(bundle_path, backend, monkeypatch):
    pytest.importorskip(backend)
    monkeypatch.chdir(bundle_path.parent)
    options = {"backend": backend, "threads": 1, "max_pixels": 20_000}
    with Detector(bundle_path.name, scoring_precision="int8", **options) as detector:
        data = pickle.dumps(detector)
        monkeypatch.chdir("/")
        with pickle.loads(data) as other:
            assert other._options == detector._options
            assert other.max_pixels == 20_000


def test_a_started_process_reopens_it(changed, photo):
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        assert same(pool.submit(changed, photo).result(), changed(photo))


def test_a_bundle_that_has_changed_is_not_reopened(fresh_bundle_path, tmp_path):
    data = pickle.dumps(open_bundle(fresh_bundle_path))
    assert pickle.loads(data).manifest == open_bundle(fresh_bundle_path).manifest
    (fresh_bundle_path / "trunk.onnx").rename(tmp_path / "old")
    with pytest.raises(BundleError, match="missing"):
        pickle.loads(data)
    tiny.tiny_bundle(fresh_bundle_path, name="another", overwrite=True)
    with pytest.raises(BundleError, match="another than the one that was pickled"):
        pickle.loads(data)


def test_a_stream_is_not_pickled(detector):
    with Stream(detector) as stream:
        for way in (pickle.dumps, copy.copy, copy.deepcopy):
            with pytest.raises(TypeError, match=r"Stream cannot be pickled .* Make one where"):
                way(stream)


FORK = """
import os, sys, numpy as np
from runtime import Detector, Stream
backend, threads, ending = sys.argv[2:]
image = np.random.default_rng(0).integers(0, 256, (90, 120, 3), np.uint8)
detector = Detector(sys.argv[1], backend=backend, threads=int(threads), score_threshold=0)
expected, _ = detector(image), detector.encode(["fire truck"])
stream = Stream(detector)
sys.stdout.flush()
if not (child := os.fork()):
    for use in (
        lambda: detector(image),
        lambda: detector.add_classes(["zebra"]),
        lambda: detector.set_thresholds(nms_threshold=0.3),
        lambda: detector.encode(["zebra"]),
        lambda: next(iter(stream)),
    ):
        try:
            use()
        except Exception as error:
            print(type(error).__name__, error)
    if ending == "close":
        detector.close()
    if ending == "drop":
        del detector, stream
    if ending == "new":
        with Detector(sys.argv[1], backend=backend, threads=int(threads), score_threshold=0) as own:
            print("own", own(image) == expected)
    print("leaving", flush=False)
    sys.exit(7)
print("status", os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
print("parent", detector(image) == expected)
"""


STREAM = """
import os, signal, sys, threading
from runtime import Stream

stream = Stream(lambda images, *, color: [None] * len(images), [sys.argv[1]])
iterator = iter(stream)
next(iterator)
held, over = threading.Event(), threading.Event()

def hold():  # as a reader may at the moment of the fork
    with stream._frames._shared.changed:
        held.set()
        over.wait()

threading.Thread(target=hold).start()
held.wait()
if not (child := os.fork()):
    signal.alarm(10)
    for use in (
        lambda: next(iterator),
        lambda: stream.states,
        lambda: stream.add(sys.argv[1], name="again"),
        lambda: stream.remove(sys.argv[1]),
    ):
        try:
            use()
        except Exception as error:
            print(type(error).__name__, error)
    stream.stop()
    stream.close()
    sys.exit(7)
over.set()
print("status", os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
print("parent", 1 + len(list(iterator)))
"""


def printed(program, *arguments):
    """Lines that a program prints in a process of its own, which ends well."""
    run = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program, *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    assert run.returncode == 0, run.stderr
    return run.stdout.splitlines()


def test_a_forked_child_is_refused_a_stream_that_runs(tmp_path):
    *refused, status, parent = printed(STREAM, write_video(tmp_path / "a.mp4"))
    assert len(refused) == 4
    assert all(line.startswith("DeviceError this Stream was opened in") for line in refused)
    assert (status, parent) == ("status 7", "parent 6")


@pytest.mark.parametrize("ending", ["close", "drop", "new", "exit"])
@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
def test_a_forked_child_is_refused_and_ends(tmp_path, backend, ending):
    pytest.importorskip(backend)
    bundle = tiny_text.with_text(tiny.tiny_bundle(tmp_path / "tiny"))
    lines = printed(FORK, bundle, backend, "2", ending)
    refused = [line for line in lines if line.startswith("DeviceError this ")]
    assert len(refused) == 5, lines
    assert all("Open the" in line and "'spawn'" in line for line in refused)
    assert sum(line.startswith("DeviceError this Stream was opened") for line in lines) == 1
    rest = [line for line in lines if line not in refused]
    own = ["own True"] if ending == "new" else []
    assert rest == [*own, "leaving", "status 7", "parent True"]
