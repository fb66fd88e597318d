from __future__ import annotations

import json

import pytest

from zsd_core.errors import DataError
from zsd_core.learning.data.read import read_dataset, read_training_set
from zsd_core.learning.data.splits import Split
from zsd_core.learning.experiment import DataConfig


@pytest.fixture
def folder(tmp_path):
    for name in ("a", "b"):
        (tmp_path / f"{name}.jpg").touch()
        values = {
            "images": [{"id": 1, "file_name": f"{name}.jpg", "width": 9, "height": 9}],
            "annotations": [{"image_id": 1, "category_id": 1, "bbox": [0, 0, 3, 3]}],
            "categories": [{"id": 1, "name": "cat"}],
        }
        (tmp_path / f"{name}.json").write_text(json.dumps(values))
    return tmp_path


def test_files_are_joined_in_order_over_one_folder_or_one_each(folder):
    files = [str(folder / "a.json"), str(folder / "b.json")]
    for folders in ([str(folder)], [str(folder)] * 2):
        dataset = read_dataset("coco", files, folders)
        assert [image.path.name for image in dataset.images] == ["a.jpg", "b.jpg"]
        assert dataset.counts["boxes read"] == 2


def test_voc_image_sets_are_read(folder):
    with pytest.raises(DataError, match="cannot read image set"):
        read_dataset("voc", [str(folder / "none.txt")], [str(folder)])


@pytest.mark.parametrize(("files", "folders"), [(0, 1), (1, 2), (2, 3), (1, 0)])
def test_files_and_folders_must_pair_up(files, folders):
    with pytest.raises(DataError, match=f"{files} annotation files and {folders} image folders"):
        read_dataset("coco", ["x"] * files, ["y"] * folders)


def test_a_subset_is_drawn_from_all_photographs_and_training_leaves_the_others_out(tmp_path):
    count = 503
    for index in range(count):
        (tmp_path / f"{index}.jpg").touch()
    values = {
        "images": [
            {"id": i, "file_name": f"{i}.jpg", "width": 9, "height": 9} for i in range(count)
        ],
        "annotations": [
            {"image_id": i, "category_id": 1, "bbox": [0, 0, 3, 3]} for i in range(count)
        ],
        "categories": [{"id": 1, "name": "cat"}],
    }
    notes = str(tmp_path / "all.json")
    (tmp_path / "all.json").write_text(json.dumps(values))
    held = {
        image.id
        for subset in ("test", "validation")
        for image in read_dataset("coco", [notes], [str(tmp_path)], subset).images
    }
    config = DataConfig(annotations=(notes,), images=(str(tmp_path),), subset="train")
    training = read_training_set(config, Split(name="cats", seen=("cat",), unseen=()))
    assert len(held) == 500 and len(training) == 3
    assert held.isdisjoint(image.id for image in training.images)
