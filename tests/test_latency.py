"""The latency benchmark measures what it says, on a tiny bundle."""

from __future__ import annotations

import cv2
import pytest

from benchmarks import latency
from zsd_core.pipeline import STAGES


@pytest.fixture
def photo_path(photo, tmp_path):
    path = tmp_path / "photo.png"
    assert cv2.imwrite(str(path), photo)
    return path


def test_percentiles_of_known_samples():
    rows = latency.table({"trunk": list(range(1, 102))}).splitlines()
    assert rows[2] == "| trunk | 51.000 | 91.000 | 100.000 | 101 |"


def test_every_stage_is_measured_and_fits_into_the_call(detector, photo_path):
    samples = latency.stage_ms(detector, photo_path, calls=3)
    assert set(samples) == {*STAGES, "whole call"}
    for call in zip(*samples.values(), strict=True):
        *stages, whole = call
        assert 0 < sum(stages) <= whole


def test_a_class_change_is_measured_and_undone(detector):
    before = detector.classes, detector.class_set_version
    samples = latency.class_change_ms(detector, calls=3)
    assert [len(values) for values in samples.values()] == [3, 3]
    assert detector.classes == before[0]
    assert detector.class_set_version == before[1] + 6


def test_the_command_prints_table_and_conditions(bundle_path, photo_path, capsys):
    arguments = [str(photo_path), "--bundle", str(bundle_path), "--calls", "2", "--warmup", "0"]
    assert latency.main(arguments) == 0
    printed = capsys.readouterr().out
    assert "| whole call |" in printed and "| classes +1 |" in printed
    assert "kernels: " in printed and "cores" in printed


def test_errors_are_sentences(tmp_path, capsys):
    assert latency.main(["photo.jpg", "--bundle", str(tmp_path / "none")]) == 1
    assert capsys.readouterr().err.startswith("error: ")
    with pytest.raises(SystemExit):
        latency.main(["photo.jpg", "--calls", "1"])
    assert "--calls must be at least 2" in capsys.readouterr().err
