"""Small data under the names that README and docs/ use, and a service for their curl commands."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import cv2
import numpy as np
import pytest
import tiny
import tiny_given
import tiny_text
from documented import ROOT
from tiny_detector import detector_bundle
from videos import write_video

from runtime import Detector

COUNT = 8  # photographs


def small_world(place: Path) -> None:
    """Fill a folder with photographs, videos, annotations and tiny bundles."""
    data = pytest.importorskip("skimage.data")
    (place / "photos").mkdir()
    for name, file in (("chelsea", "photo.jpg"), ("coffee", "desk.jpg")):
        image = cv2.resize(getattr(data, name)()[:, :, ::-1], (300, 200))
        cv2.imwrite(str(place / file), image)
        cv2.imwrite(str(place / "photos" / f"{name}.jpg"), image)
    for crop in ("crop.jpg", "crop2.jpg"):
        cv2.imwrite(str(place / crop), cv2.imread(str(place / "photo.jpg"))[20:180, 60:220])
    for video in ("door.mp4", "gate.mp4", "street.mp4"):
        write_video(place / video, frames=6, size=(160, 120))
    bundle = tiny_text.with_text(detector_bundle(place / "bundle"))
    _annotated(place / "photographs", bundle)
    for name in ("instances", "mine", "test", "instances_val2017"):
        shutil.copy(place / "photographs" / "truth.json", place / f"{name}.json")
    (place / "images").symlink_to("photographs")
    split = {"name": "tiny", "seen": list(tiny.SEEN), "unseen": list(tiny.UNSEEN)}
    (place / "split.json").write_text(json.dumps(split))
    tiny_given.given_bundle(place / "given")
    _shown(place / "examples")
    (place / "docs").mkdir()  # commands fill the numbers of a page
    shutil.copy(ROOT / "docs" / "precision.md", place / "docs")


def _annotated(folder: Path, bundle: Path) -> None:
    """Photographs whose truth is every second box that a detector finds, best first."""
    folder.mkdir()
    rng, notes, names = np.random.default_rng(0), [], [*tiny.SEEN, *tiny.UNSEEN]
    with Detector(bundle, score_threshold=0.0, max_detections=40, threads=1) as detector:
        for index in range(COUNT):
            image = rng.integers(0, 256, (4, 6, 3), np.uint8).repeat(30, 0).repeat(30, 1)
            cv2.imwrite(str(folder / f"{index}.png"), image[:, :, ::-1])
            for found in list(detector(image))[:24:2]:
                x1, y1, x2, y2 = map(float, found.box)
                category = names.index(found.class_name)
                notes.append(_note(notes, index, category, [x1, y1, x2 - x1, y2 - y1]))
    _write(folder / "truth.json", (180, 120), notes, dict(enumerate(names)))


def _shown(folder: Path) -> None:
    """Photographs with one square each, and the same as pictures with a name each."""
    folder.mkdir()
    rng, notes = np.random.default_rng(3), []
    for index in range(COUNT):
        image = rng.integers(0, 256, (5, 6, 3), np.uint8).repeat(30, 0).repeat(30, 1)
        x, y = map(int, rng.integers(0, 60, 2))
        image[y : y + 60, x : x + 60] = (30 * index, 200, 30)
        cv2.imwrite(str(folder / f"{index}.png"), image)
        notes.append(_note(notes, index, 7, [x, y, 60, 60]))
    _write(folder / "truth.json", (180, 150), notes, {7: "zebra"})
    names = ["zebra"] * 4 + ["teapot"] * 3 + ["cloud"]
    labels = [{"file": f"{i}.png", "name": name} for i, name in enumerate(names)]
    (folder / "labels.json").write_text(json.dumps(labels))
    (folder / "held_out.txt").write_text("zebra\nteapot\n")


def _note(notes: list, image: int, category: int, box: list) -> dict[str, object]:
    return {"id": len(notes) + 1, "image_id": image, "category_id": category, "bbox": box}


def _write(path: Path, size: tuple[int, int], notes: list, names: dict[int, str]) -> None:
    """Annotations in COCO's format."""
    width, height = size
    images = [
        {"id": i, "file_name": f"{i}.png", "width": width, "height": height} for i in range(COUNT)
    ]
    categories = [{"id": number, "name": name} for number, name in names.items()]
    values = {"images": images, "annotations": notes, "categories": categories}
    path.write_text(json.dumps(values))


class Service:
    """The service that a page starts, one after the other; the last is asked by curl."""

    def __init__(self, place: Path) -> None:
        self._place = place
        self._process: subprocess.Popen[str] | None = None
        self._url = ""

    def __enter__(self) -> Service:
        return self

    def __exit__(self, *exception: object) -> None:
        self.stop()

    def start(self, words: list[str]) -> None:
        """Start the command on a free port in place of the last one, and wait until it is warm."""
        self.stop()
        arguments = words[
            words.index("serve" if words[0] == "contrastzsd" else "runtime.serve") + 1 :
        ]
        self._process = subprocess.Popen(
            [sys.executable, "-m", "runtime.serve", *arguments, "--port", "0", "--threads", "1"],
            cwd=self._place,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        assert self._process.stdout is not None
        self._url = self._process.stdout.readline().strip().rstrip("/")
        assert self._url.startswith("http://"), words
        for _ in range(600):
            try:
                with urllib.request.urlopen(f"{self._url}/ready", timeout=5) as answer:
                    assert answer.status == 200
                    return
            except OSError:
                self._process.poll()
                assert self._process.returncode is None, words
                time.sleep(0.1)
        raise AssertionError(f"{words} is not ready after a minute")

    def here(self, text: str) -> str:
        """A command that asks the service where it really listens."""
        for address in ("http://127.0.0.1:8000", "http://server:8000"):
            text = text.replace(address, self._url)
        return text

    def stop(self) -> None:
        """End the service as a unit of the system would."""
        if self._process is not None:
            self._process.terminate()
            assert self._process.wait(20) is not None
            assert self._process.stdout is not None
            self._process.stdout.close()
            self._process = None
