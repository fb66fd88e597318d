"""The benchmark in turns prints every case beside the first one, on a tiny bundle."""

from __future__ import annotations

import json

import cv2
import pytest

from benchmarks import turns


@pytest.fixture
def photo_path(photo, tmp_path):
    path = tmp_path / "photo.png"
    assert cv2.imwrite(str(path), photo)
    return path


def test_every_case_has_its_time_and_its_ratio(bundle_path, photo_path, tmp_path, capsys):
    bundle, rows_path = str(bundle_path), tmp_path / "rows.json"
    options = ["--classes", "3", "4", "--rounds", "3", "--backend", "onnxruntime", "--threads", "1"]
    arguments = [str(photo_path), "--bundle", bundle, *options, "--json", str(rows_path)]
    assert turns.main(arguments) == 0
    rows = json.loads(rows_path.read_text(encoding="utf-8"))
    assert [row["classes"] for row in rows] == [3, 4]
    assert rows[0]["ratio"] == 1
    assert rows[1]["ratio"] == pytest.approx(rows[1]["p50_ms"] / rows[0]["p50_ms"])
    printed = capsys.readouterr().out
    assert "3 rounds" in printed
    assert f"{rows[1]['p50_ms']:.1f}" in printed


def test_too_few_rounds_are_refused(capsys):
    with pytest.raises(SystemExit):
        turns.parse(["--rounds", "1"])
    assert "--rounds must be at least 2" in capsys.readouterr().err
