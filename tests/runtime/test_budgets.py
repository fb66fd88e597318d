"""Budgets of work, counted and not timed: importing, opening, and changes of classes stay cheap."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from runtime import Detector
from runtime.backends.shares import Later
from runtime.bundle import default_bundle
from zsd_core.scoring.prototypes import PrototypeScorer

ROOT = Path(__file__).parents[2]
OWN = ("contrastzsd", "runtime", "zsd_core")
HEAVY = ("PIL", "cv2", "matplotlib", "onnx", "onnxruntime", "openvino", "torch", "safetensors")
MODULES = 80  # of ours; 79 since the readers of pictures, tensors and networks are modules each

IMPORT = """
import json, sys
from contrastzsd import Detector, Stream
print(json.dumps(sorted(sys.modules)))
"""
OPEN = """
import collections, json, sys
opened = collections.Counter()

def count(event, arguments):
    if event == "open" and isinstance(arguments[0], str) and sys.argv[1] in arguments[0]:
        opened[arguments[0].rpartition("/")[2]] += 1

sys.addaudithook(count)
from contrastzsd import Detector
import onnxruntime
sessions, Session = [], onnxruntime.InferenceSession

class Counted(Session):
    def __init__(self, path, *arguments, **options):
        sessions.append(str(path).rpartition("/")[2])
        super().__init__(path, *arguments, **options)

onnxruntime.InferenceSession = Counted
import numpy
detector = Detector(threads=2, backend="onnxruntime")
at_opening = list(sessions)
detector(numpy.zeros((48, 64, 3), numpy.uint8))
print(json.dumps([opened, at_opening, sessions]))
"""


def told(code, *arguments):
    command = [sys.executable, "-c", code, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_importing_loads_numpy_and_little_else():
    modules = told(IMPORT)
    assert [name for name in modules if name.partition(".")[0] in HEAVY] == []
    own = [name for name in modules if name.partition(".")[0] in OWN]
    assert 10 < len(own) <= MODULES, own


def test_opening_reads_every_file_at_most_three_times_and_loads_two_networks():
    """Once for its hash; networks once more for their check, and tables for their contents."""
    opened, at_opening, sessions = told(OPEN, default_bundle())
    assert set(opened) >= {"manifest.json", "trunk.onnx", "head.onnx", "weights.bin"}
    assert max(opened.values()) <= 3, opened
    assert opened["text_encoder.onnx"] == 1  # for its hash; it is loaded for the first phrase
    assert sorted(at_opening) == ["head.onnx", "trunk.onnx"]
    assert sessions == at_opening  # a single image needs no more


@pytest.fixture(scope="module")
def shipped():
    with Detector(threads=1, backend="onnxruntime") as detector:
        words = [n for n in detector.bundle.vocabulary.names if n not in detector.classes]
        detector.set_classes([*detector.classes, *words[:1123]])
        assert len(detector.classes) == 1203
        yield detector, words[1123:]


def test_a_change_computes_the_rows_of_new_classes_alone(shipped, monkeypatch):
    detector, words = shipped
    rows, whole = [], PrototypeScorer.prototypes_of

    def counted(scorer, vectors):
        rows.append(len(vectors))
        return whole(scorer, vectors)

    monkeypatch.setattr(PrototypeScorer, "prototypes_of", counted)
    detector.add_classes(words[:1])
    assert rows == [1]
    detector.remove_classes(words[:1])
    detector.set_thresholds(score_threshold=0.3)
    assert rows == [1]
    detector.add_classes(words[:3])
    assert rows == [1, 3]
    detector.remove_classes(words[:3])


def test_a_name_runs_no_network_and_three_examples_run_the_head_three_times(shipped, monkeypatch):
    detector, words = shipped
    runs: Counter[str] = Counter()
    for stage in ("trunk", "head"):
        network = getattr(detector._backend, stage)

        def counted(*arrays, stage=stage, network=network):
            runs[stage] += 1
            return network(*arrays)

        monkeypatch.setattr(detector._backend, stage, counted)
    detector.add_classes(words[:1])
    assert not runs
    crop = np.full((40, 40, 3), 128, np.uint8)
    detector.add_classes({"bracket": [crop, crop, crop]})
    assert runs == {"head": 3}
    detector.remove_classes([words[0], "bracket"])


def test_what_is_made_later_is_not_made_before():
    made = []
    Later(lambda: made.append(1) or (lambda *arrays: arrays))
    assert made == []
