"""The cost curves: one number changes at a time, every stage is there, and the picture is drawn."""

from __future__ import annotations

import json

import cv2
import pytest

from benchmarks import curves
from runtime.bundle import open_bundle
from zsd_core.stages import STAGES


def test_the_command_measures_every_axis_and_draws(bundle_path, tmp_path, capsys):
    rows, picture = tmp_path / "rows.json", tmp_path / "curves.png"
    options = ["--calls", "1", "--most", "2", "--threads", "1", "--axis", "classes", "batch"]
    arguments = ["--bundle", str(bundle_path), *options, "regions", "threads"]
    assert curves.main([*arguments, "--json", str(rows), "--picture", str(picture)]) == 0
    found = json.loads(rows.read_text(encoding="utf-8"))
    assert [(r["axis"], r["value"]) for r in found if r["axis"] != "threads"] == [
        ("classes", 1),
        ("batch", 1),
        ("batch", 2),
        ("regions", 1),
        ("regions", 2),
    ]
    assert {r["value"] for r in found if r["axis"] == "threads"} >= {1}
    assert all(set(r["stages"]) == set(STAGES) for r in found)
    assert "images of a batch 2: " in capsys.readouterr().out
    assert cv2.imread(str(picture)).std() > 10


def test_classes_go_from_the_table_to_the_vocabulary_to_what_is_made_up(bundle_path):
    bundle = open_bundle(bundle_path)
    table = len(bundle.seen) + len(bundle.unseen)
    found = curves.classes_of(bundle, 60)
    assert len(found) == 60
    assert list(found)[:table] == [*bundle.seen, *bundle.unseen]
    made_up = [name for name, vector in found.items() if vector is not None]
    assert made_up and all(name.startswith("made up") for name in made_up)


def test_numbers_that_cannot_be_are_refused(capsys):
    with pytest.raises(SystemExit):
        curves.parse(["--calls", "0"])
    assert "must be at least 1" in capsys.readouterr().err
