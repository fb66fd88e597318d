"""The demonstration: real photographs, pictures, JSON, and what it prints."""

import importlib.util
import json
import shutil
from pathlib import Path

import pytest
import tiny_given
import tiny_text

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


def test_what_the_bundle_can_take_is_added_and_the_rest_is_told(
    bundle_path, tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr(runtime.demo, "NAMES", ("zebra", "teapot"))
    assert main(["--bundle", str(bundle_path), "--output", str(tmp_path)]) == 0
    out, err = capsys.readouterr()
    assert "ms: names zebra, teapot" in out
    assert "not added, phrases 'flag with stars and stripes'" in err  # no text encoder
    assert "not added, an example, 'my spoon'" in err  # no second look
    assert "phrases" not in out
    assert (tmp_path / "chelsea-open.jpg").is_file()
    assert "chelsea-open" in json.loads((tmp_path / "detections.json").read_text())


def test_names_phrases_and_an_example_are_added_to_the_running_detector(
    tmp_path, capsys, monkeypatch
):
    path = tiny_text.with_text(tiny_given.given_bundle(tmp_path / "bundle"))
    monkeypatch.setattr(runtime.demo, "NAMES", ("zebra", "teapot"))
    monkeypatch.setattr(runtime.demo, "PHRASES", ("red dent", "blue chip"))
    assert main(["--bundle", str(path), "--output", str(tmp_path / "out")]) == 0
    out, err = capsys.readouterr()
    assert "not added" not in err
    for what in (
        "names zebra, teapot",
        "phrases 'red dent', 'blue chip'",
        "an example, 'my spoon'",
    ):
        assert f"ms: {what}" in out
    found = json.loads((tmp_path / "out" / "detections.json").read_text())
    assert {entry["class"] for entry in found["coffee-open"]} & {"my spoon", "red dent"}


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
