"""The demonstration: real photographs, pictures, JSON, and what it prints."""

import importlib.util
import json
import shutil
from pathlib import Path

import pytest

import runtime.demo
from runtime.demo import PHOTOGRAPHS, main, photograph
from zsd_core.errors import MissingPackageError

pytest.importorskip("skimage")


def test_it_writes_a_picture_per_photograph_and_one_summary(bundle_path, tmp_path, capsys):
    assert main(["--bundle", str(bundle_path), "--output", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    stems = [name.partition(".")[0] for name in PHOTOGRAPHS]
    summary = json.loads((tmp_path / "detections.json").read_text())
    assert list(summary) == stems
    for stem in stems:
        assert (tmp_path / f"{stem}.jpg").stat().st_size > 1000
        assert json.loads((tmp_path / f"{stem}.json").read_text()) == summary[stem]
        assert f"{stem}: " in out
    assert "3 seen and 2 unseen" in out
    assert "ms per image" in out
    assert str(tmp_path) in out


def test_classes_of_the_vocabulary_are_added_to_the_running_detector(
    bundle_path, tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr(runtime.demo, "OPEN_CLASSES", ("zebra", "no such word", "teapot"))
    assert main(["--bundle", str(bundle_path), "--output", str(tmp_path)]) == 0
    assert "with zebra, teapot added" in capsys.readouterr().out
    assert (tmp_path / "chelsea-open.jpg").is_file()
    assert "chelsea-open" in json.loads((tmp_path / "detections.json").read_text())


@pytest.mark.parametrize("name", PHOTOGRAPHS)
def test_every_photograph_ships_inside_scikit_image(name):
    assert photograph(name).is_file()


def test_without_scikit_image_the_error_says_how_to_install_it(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(MissingPackageError, match=r"contrastzsd\[demo\]"):
        photograph("chelsea.png")


def test_a_missing_bundle_is_one_sentence(tmp_path, capsys):
    assert main(["--bundle", str(tmp_path / "none"), "--output", str(tmp_path)]) == 1
    assert "error: " in capsys.readouterr().err


def test_a_photograph_is_never_replaced(bundle_path, tmp_path, capsys, monkeypatch):
    copies = {name: shutil.copy(photograph(name), tmp_path) for name in PHOTOGRAPHS}
    monkeypatch.setattr(runtime.demo, "photograph", lambda name: Path(copies[name]))
    assert main(["--bundle", str(bundle_path), "--output", str(tmp_path)]) == 1
    assert "rocket.jpg is an input itself" in capsys.readouterr().err
    assert {path.name for path in tmp_path.iterdir()} == set(PHOTOGRAPHS)  # none was written first
    original, copy = photograph("rocket.jpg"), tmp_path / "rocket.jpg"
    assert copy.read_bytes() == original.read_bytes()
