"""The benchmark of class changes: it leaves things as they were, and a soak finds mixed frames."""

from __future__ import annotations

import json
import re

import pytest
import tiny
import tiny_text

from benchmarks import vocabulary
from runtime import Detector
from zsd_core.errors import ConfigError


@pytest.fixture(scope="module")
def wide_path(tmp_path_factory):
    """The tiny bundle with enough words for the sets of the soak test."""
    words = tuple(f"word {i}" for i in range(40))
    path = tmp_path_factory.mktemp("wide") / "tiny"
    return tiny.tiny_bundle(path, vocabulary=(words, tiny.unit_vectors(len(words), 9)))


@pytest.fixture(scope="module")
def wide(wide_path):
    with Detector(wide_path, backend="onnxruntime", threads=1) as detector:
        yield detector


def test_changes_are_measured(wide):
    rows = vocabulary.changes(wide, 10, calls=20)
    assert [(row.operation, row.classes, row.calls) for row in rows] == [
        ("add one, by name", 10, 20),
        ("add one, by vector", 10, 20),
        ("remove one", 10, 20),
        ("replace all", 10, 3),
    ]
    assert all(0 < row.p50_ms <= row.p99_ms for row in rows)
    assert len(wide.classes) == 10


def test_new_phrases_are_measured_where_the_bundle_encodes_them(tmp_path):
    path = tiny_text.with_text(tiny.tiny_bundle(tmp_path / "tiny"))
    with Detector(path, backend="onnxruntime", threads=1) as detector:
        rows = vocabulary.changes(detector, 5, calls=5)
        assert len(detector.classes) == 5
    assert [(row.operation, row.calls) for row in rows][2] == ("add one, by phrase", 5)


def test_a_prepared_detector_is_measured_too(wide_path):
    with Detector(wide_path, backend="onnxruntime", threads=1) as detector:
        rows = vocabulary.prepared(detector, [5, 10], calls=20)
    assert [(row.operation, row.classes, row.calls) for row in rows] == [
        ("prepare the vocabulary", 40, 3),
        ("add one, by name, prepared", 5, 20),
        ("replace all, prepared", 5, 3),
        ("add one, by name, prepared", 10, 20),
        ("replace all, prepared", 10, 3),
    ]


def test_frames_are_measured_at_rest_and_while_classes_change(wide, photo):
    before = wide.class_set_version
    rest, changing = vocabulary.stream(wide, photo, 10, calls=10)
    assert rest.calls == changing.calls == 10
    assert wide.class_set_version > before + 1  # set once, then changed by the thread


def test_the_rate_of_changes_is_measured(wide, photo, monkeypatch):
    _, changing = vocabulary.stream(wide, photo, 10, calls=10)
    assert re.fullmatch(r"frame, \d+ changes a second", changing.operation)
    monkeypatch.setattr(Detector, "add_classes", lambda *_: None)
    monkeypatch.setattr(Detector, "remove_classes", lambda *_: None)
    _, resting = vocabulary.stream(wide, photo, 10, calls=2)
    assert resting.operation == "frame, 0 changes a second"


def test_soak_compares_every_frame(wide, photo):
    result = vocabulary.soak(wide, photo, swaps=200, count=4)
    assert result.swaps == 200 == len(result.swap_ms)
    assert result.wrong == 0 and result.frames > 0 and result.detections > result.frames


def test_soak_notices_a_frame_of_another_set(wide, photo, monkeypatch):
    real, turn = Detector.__call__, iter(range(1 << 30))

    def mixed(self, image, **options):
        result = real(self, image, **options)
        if self is wide and next(turn) == 0:
            return result[:-1]  # as if a class had been missed
        return result

    monkeypatch.setattr(Detector, "__call__", mixed)
    assert vocabulary.soak(wide, photo, swaps=300, count=4).wrong == 1


def test_soak_refuses_an_image_in_which_a_mixed_frame_would_not_show(wide, photo, monkeypatch):
    real = Detector.__call__
    monkeypatch.setattr(Detector, "__call__", lambda *a, **options: real(*a, **options)[:0])
    with pytest.raises(ConfigError, match="do not differ"):
        vocabulary.soak(wide, photo, swaps=1, count=4)


def test_the_command_writes_rows(wide, tmp_path, capsys):
    path = tmp_path / "rows.json"
    arguments = [
        "--bundle",
        str(wide.bundle.path),
        "--classes",
        "10",
        "--calls",
        "5",
        "--frames",
        "2",
        "--threads",
        "1",
        "--json",
        str(path),
    ]
    assert vocabulary.main(arguments) == 0
    rows = json.loads(path.read_text())
    assert {"operation", "classes", "p50_ms", "p99_ms"} <= set(rows[0]) and len(rows) == 9
    assert "| add one, by name | 10 |" in capsys.readouterr().out


def test_errors_are_sentences(tmp_path, capsys):
    assert vocabulary.main(["--bundle", str(tmp_path / "none")]) == 1
    assert capsys.readouterr().err.startswith("error: ")
    with pytest.raises(SystemExit):
        vocabulary.main(["--calls", "1"])
