"""Each example runs as a user would run it, on photographs that scikit-image brings."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

import runtime
from runtime.bundle import open_bundle

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = {path.name for path in (ROOT / "examples").glob("*.py")}
needs_stream = pytest.mark.skipif(
    "Stream" not in runtime.__all__, reason="runtime.Stream is not here"
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two photographs, and a short video that pans over one of them."""
    data = pytest.importorskip("skimage.data")
    place = tmp_path_factory.mktemp("examples")
    for name in ("chelsea", "coffee"):
        cv2.imwrite(str(place / f"{name}.png"), getattr(data, name)()[:, :, ::-1])
    cat = cv2.copyMakeBorder(data.chelsea()[:, :, ::-1], 90, 90, 300, 300, cv2.BORDER_REFLECT)
    writer = cv2.VideoWriter(
        str(place / "pan.mp4"), cv2.VideoWriter.fourcc(*"mp4v"), 10, (640, 480)
    )
    for step in range(8):
        writer.write(np.ascontiguousarray(cat[:480, 40 * step : 40 * step + 640]))
    writer.release()
    return place


def run(folder: Path, name: str, *arguments: str) -> list[str]:
    """The lines that an example prints."""
    result = subprocess.run(
        [sys.executable, ROOT / "examples" / name, *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert result.returncode == 0, result.stderr
    return result.stdout.splitlines()


def test_image(folder):
    lines = run(folder, "image.py", "chelsea.png", "cat, cup", "found.jpg")
    form = r"(cat|cup) [\d.e-]+ at( -?\d+){4}|nothing found; the best guess was .*"
    assert lines and all(re.fullmatch(form, line) for line in lines)
    drawn, original = (cv2.imread(str(folder / n)) for n in ("found.jpg", "chelsea.png"))
    assert drawn.shape == original.shape


def test_add_class(folder):
    before, after = run(folder, "add_class.py", "chelsea.png", "kitten")
    assert before.startswith("person, cup: ")
    assert re.match(r"person, cup, kitten: .*\(\d+\.\d ms to add\)", after)


def test_add_class_from_a_picture(folder):
    if open_bundle().model_config.regions.maps[0][0] != "image":
        pytest.skip("the bundle that ships cannot learn from pictures")
    cat = cv2.imread(str(folder / "chelsea.png"))
    cv2.imwrite(str(folder / "crop.png"), cat[20:280, 100:400])
    _, after = run(folder, "add_class.py", "chelsea.png", "chelsea=crop.png")
    assert after.startswith("person, cup, chelsea: ")


def test_zones(folder):
    pytest.importorskip("supervision", reason="pip install 'contrastzsd[track]'")
    lines = run(folder, "zones.py", "chelsea.png", "coffee.png")
    found = [re.fullmatch(r"\w+\.png: (\d+) objects, (\d+) in the zone", line) for line in lines]
    assert len(found) == 2 and all(found)
    assert all(int(match[2]) <= int(match[1]) for match in found)


@needs_stream
def test_stream(folder):
    lines = run(folder, "stream.py", "pan.mp4", "chelsea.png")
    assert sum(line.startswith("pan.mp4 ") for line in lines) == 8
    assert sum(line.startswith("chelsea.png ") for line in lines) == 1


@needs_stream
def test_track(folder):
    pytest.importorskip("trackers", reason="pip install 'contrastzsd[track]'")
    *frames, last = run(folder, "track.py", "pan.mp4")
    assert len(frames) == 8
    assert re.fullmatch(r"\d+ in, \d+ out", last)


def test_every_example_is_tested_and_short():
    tested = set(re.findall(r'run\(folder, "(\w+\.py)"', Path(__file__).read_text("utf-8")))
    elsewhere = {"gstreamer_overlay.py", "ros2_detections.py"}
    assert tested | elsewhere == EXAMPLES and len(tested) == 5
    for name in tested:
        assert len((ROOT / "examples" / name).read_text("utf-8").splitlines()) <= 45, name
