"""The paper's recipes take two steps on made-up miniatures of the real folders."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from zsd_core.learning.checkpoint import load_checkpoint
from zsd_core.learning.data.splits import load_split
from zsd_core.learning.experiment import load_config
from zsd_core.train import main as train

CONFIGS = Path(__file__).parents[2] / "configs"
# What a CPU cannot do in seconds: 600 px, 128 regions, batches of 2 and a 2048-wide joint space.
SMALL = [
    "model.preprocess.shorter_edge=96",
    "model.preprocess.longer_edge=128",
    "model.regions.output_size=[4, 4]",
    "model.scoring.joint_dim=32",
    "model.scoring.hidden_dim=16",
    "training.regions=4",
    "training.batch_size=1",
    "training.workers=0",
]
VOC_XML = (
    "<annotation><size><width>120</width><height>90</height><depth>3</depth></size>{}</annotation>"
)
VOC_BOX = (
    "<object><name>{}</name><difficult>0</difficult><bndbox><xmin>10</xmin><ymin>12</ymin>"
    "<xmax>80</xmax><ymax>70</ymax></bndbox></object>"
)


def picture(path: Path, seed: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (90, 120, 3), np.uint8)
    assert cv2.imwrite(str(path), pixels)


def coco(root: Path, split_name: str) -> list[str]:
    """COCO 2014 as it is unpacked: train2014/ and annotations/instances_train2014.json."""
    split = load_split(split_name)
    categories = [{"id": i, "name": name} for i, name in enumerate(split.classes, start=1)]
    images, boxes = [], []
    for number in range(4):
        name = f"COCO_train2014_{number:012}.jpg"
        picture(root / "train2014" / name, number)
        images.append({"id": number, "file_name": name, "width": 120, "height": 90})
        category = len(split.classes) if number == 3 else number + 1  # the last one is unseen
        boxes.append(
            {
                "id": number + 1,
                "image_id": number,
                "bbox": [10, 12, 70, 58],
                "category_id": category,
                "area": 4060,
                "iscrowd": 0,
            }
        )
    (root / "annotations").mkdir()
    file = root / "annotations/instances_train2014.json"
    file.write_text(json.dumps({"images": images, "annotations": boxes, "categories": categories}))
    vectors = root / "word2vec.npz"
    rows = np.random.default_rng(0).normal(size=(len(split.classes), 300)).astype(np.float32)
    np.savez(vectors, names=np.array(split.classes), vectors=rows)
    return [
        f"data.annotations=[{file}]",
        f"data.images=[{root / 'train2014'}]",
        f"data.vectors={vectors}",
    ]


def voc(root: Path) -> list[str]:
    """VOC 2007 and 2012 as they are unpacked, and aPY's attributes with classes as columns."""
    split = load_split("voc_16_4")
    lists, folders = [], []
    for year in (2007, 2012):
        folder = root / f"VOCdevkit/VOC{year}"
        (folder / "Annotations").mkdir(parents=True)
        (folder / "ImageSets/Main").mkdir(parents=True)
        for number, name in enumerate((split.seen[0], split.seen[3], split.unseen[0])):
            picture(folder / f"JPEGImages/{year}_{number:06}.jpg", number)
            xml = VOC_XML.format(VOC_BOX.format(name))
            (folder / f"Annotations/{year}_{number:06}.xml").write_text(xml)
        lists.append(folder / "ImageSets/Main/train.txt")
        lists[-1].write_text("".join(f"{year}_{number:06}\n" for number in range(3)))
        folders.append(folder / "JPEGImages")
    names = root / "names.txt"
    names.write_text("\n".join(split.classes) + "\n")
    attributes = np.random.default_rng(0).random((64, len(split.classes)))
    np.savetxt(root / "VOC_att.txt", attributes, delimiter=",")
    return [
        f"data.annotations=[{lists[0]}, {lists[1]}]",
        f"data.images=[{folders[0]}, {folders[1]}]",
        f"data.vectors={root / 'VOC_att.txt'}::{names}",
    ]


def miniature(root: Path, recipe: str) -> list[str]:
    return voc(root) if "voc" in recipe else coco(root, recipe.removeprefix("paper_"))


RECIPES = ("paper_voc_16_4", "paper_coco_48_17", "paper_coco_65_15")


def test_there_is_no_other_recipe_of_the_paper():
    assert {path.stem for path in CONFIGS.glob("paper_*.yaml")} == set(RECIPES)


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_recipe_is_the_papers_section_4_1(recipe):
    config = load_config(CONFIGS / f"{recipe}.yaml")
    model, training = config.model, config.training
    assert (model.backbone.name, model.backbone.frozen) == ("resnet101", "bottom")
    assert model.preprocess.shorter_edge == 600
    assert model.proposals.nms_threshold == 0.7 and len(model.proposals.anchors()) == 9
    scoring = model.scoring
    assert (scoring.joint_dim, scoring.hidden_dim, scoring.contrast_dim) == (2048, 1024, 512)
    assert scoring.vector_dim == (64 if "voc" in recipe else 300)
    assert (training.optimizer, training.momentum, training.learning_rate) == ("sgd", 0.9, 0.01)
    assert training.flip and config.data.split == recipe.removeprefix("paper_")
    loss = config.loss
    assert (loss.unseen_weight, loss.contrast_weight, loss.contrast_temperature) == (0.2, 0.5, 0.1)


@pytest.mark.slow
@pytest.mark.parametrize("recipe", RECIPES)
def test_a_recipe_trains_on_the_real_folder_layout(recipe, tmp_path):
    arguments = [str(CONFIGS / f"{recipe}.yaml"), *miniature(tmp_path, recipe), *SMALL]
    assert train([*arguments, "--output", str(tmp_path / "run"), "--max-steps", "2"]) == 0
    checkpoint = load_checkpoint(tmp_path / "run/last.pt")
    assert checkpoint.state["position"]["step"] == 2
    assert checkpoint.training["counts"]["images dropped, unseen class"] >= 1
    assert checkpoint.config.model.backbone.name == "resnet101"


@pytest.mark.slow
def test_a_recipe_trains_under_torchrun_with_two_processes(tmp_path):
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--nproc_per_node=2",
        "--standalone",
        "--local-addr=127.0.0.1",
        "-m",
        "zsd_core.train",
        str(CONFIGS / "paper_coco_48_17.yaml"),
        *miniature(tmp_path, "paper_coco_48_17"),
        *SMALL,
        "--output",
        str(tmp_path / "run"),
        "--max-steps",
        "2",
        "--device",
        "cpu",
    ]
    done = subprocess.run(
        command,
        cwd=CONFIGS.parent,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=400,
    )
    assert done.returncode == 0, done.stderr
    assert load_checkpoint(tmp_path / "run/last.pt").state["position"]["step"] == 2
