"""scripts/coco48-data on a few photographs: VOC's labels, and what goes together."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from zsd_core.learning.data.coco import read_coco
from zsd_core.learning.data.protocol import test_set as photographs_of
from zsd_core.learning.data.splits import VOC_TO_COCO, load_split

SCRIPT = Path(__file__).parents[2] / "scripts" / "coco48-data"
SHOWN = (("person", "toaster"), ("person", "couch"), ("airplane",), ("car", "toaster"))


@pytest.fixture(scope="module")
def human(tmp_path_factory):
    folder = tmp_path_factory.mktemp("human")
    (folder / "images").mkdir()
    classes = [VOC_TO_COCO.get(name, name) for name in load_split("voc_16_4").classes]
    names = [*classes, "toaster"]
    images, boxes = [], []
    for i, shown in enumerate(SHOWN):
        Image.new("RGB", (40, 30)).save(folder / "images" / f"{i}.png")
        images.append({"id": i, "file_name": f"{i}.png", "width": 40, "height": 30})
        for name in shown:
            box = {"category_id": 1 + names.index(name), "bbox": [1, 2, 20, 10]}
            boxes.append(box | {"id": len(boxes), "image_id": i, "area": 200, "iscrowd": 0})
    categories = [{"id": 1 + i, "name": name} for i, name in enumerate(names)]
    values = {"images": images, "annotations": boxes, "categories": categories}
    (folder / "instances.json").write_text(json.dumps(values))
    return folder / "instances.json"


def run(*arguments):
    command = [sys.executable, str(SCRIPT), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True)


def photographs(path):
    return {image["id"] for image in json.loads(path.read_text())["images"]}


def test_listed_only_gives_labels_as_voc_has_them(human, tmp_path):
    options = ("--split", "voc_16_4", "--listed-only", "--output", tmp_path)
    done = run("--human", human, *options)
    assert done.returncode == 0, done.stderr
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "held_out.json",
        "split.json",
        "test.json",
        "train.json",
    ]
    train, held = (photographs(tmp_path / f"{name}.json") for name in ("train", "held_out"))
    assert train | held == {0, 2} and not train & held  # a toaster has no box, a couch is a sofa
    split = load_split(tmp_path / "split.json")
    assert split.classes == load_split("voc_16_4").classes
    labelled = read_coco(tmp_path / "test.json", human.parent / "images")
    assert [image.labels for image in labelled.images] == [
        tuple(name for name in shown if name != "toaster") for shown in SHOWN
    ]
    assert [image.id for image in photographs_of(labelled, split, "zsd").images] == [1, 3]


def test_a_class_that_the_split_does_not_list_drops_a_photograph_otherwise(human, tmp_path):
    done = run("--human", human, "--split", "voc_16_4", "--output", tmp_path)
    assert done.returncode == 0, done.stderr
    assert photographs(tmp_path / "others.json") == {0}
    assert json.loads((tmp_path / "others_split.json").read_text())["unseen"] == ["toaster"]


def test_machine_made_boxes_want_their_photographs_and_a_detector(human, tmp_path):
    done = run("--human", human, "--machine", human, "--output", tmp_path)
    assert done.returncode == 2 and "go together" in done.stderr
    others = ("--photographs", human.parent, "--detector", human, "--listed-only")
    done = run("--human", human, "--machine", human, "--output", tmp_path, *others)
    assert done.returncode == 2 and "is for human boxes" in done.stderr
