"""Ids of images and categories that a batch takes from COCO annotations."""

from __future__ import annotations

import json

import pytest

from runtime.batch.formats import CocoIds
from zsd_core.errors import ConfigError

PERSON = [("person", 1), ("cat", 2)]


@pytest.fixture
def ids(tmp_path, monkeypatch):
    """The ids for images by their paths."""
    monkeypatch.chdir(tmp_path)

    def read(images, paths, categories=PERSON, classes=("person", "cat")):
        truth = {
            "images": [{"file_name": name, "id": number} for name, number in images],
            "categories": [{"name": name, "id": number} for name, number in categories],
        }
        (tmp_path / "truth.json").write_text(json.dumps(truth))
        found = CocoIds.of(classes, tmp_path / "truth.json", paths)
        return [found.image(index, path) for index, path in enumerate(paths)]

    return read


def test_an_image_is_found_by_its_path_as_it_is_written_and_by_every_end_of_it(ids):
    path = "/data/./val//1.jpg"
    assert ids([(path, 4), ("1.jpg", 5)], [path]) == [4]
    for name in ("/data/val/1.jpg", "data/val/1.jpg", "val\\1.jpg", "./val/1.jpg", "1.jpg"):
        assert ids([(name, 4)], [path]) == [4]
    assert ids([("./1.jpg", 4)], ["1.jpg"]) == ids([("1.jpg", 4)], ["./1.jpg"]) == [4]
    assert ids([("1.jpg", 4), ("x/1.jpg", 5)], ["x/1.jpg", "y/1.jpg"]) == [5, 4]


def test_two_images_that_would_get_one_id_are_refused(ids):
    with pytest.raises(ConfigError, match=r"'x/1\.jpg' and 'y/1\.jpg' would both get the id 7"):
        ids([("1.jpg", 7)], ["x/1.jpg", "y/1.jpg"])
    with pytest.raises(ConfigError, match="let each file_name say the folder"):
        ids([("1.jpg", 7), ("2.jpg", 7)], ["1.jpg", "2.jpg"])


def test_a_name_with_two_ids_is_refused(ids):
    with pytest.raises(
        ConfigError, match=r"'1\.jpg' has the id 7, and '1\.jpg' the id 8; leave one"
    ):
        ids([("1.jpg", 7), ("1.jpg", 8)], ["1.jpg"])
    assert ids([("1.jpg", 7), ("1.jpg", 7)], ["1.jpg"]) == [7]


def test_classes_with_two_ids_or_with_one_for_both_are_refused(ids):
    twice = [*PERSON, ("Person", 3)]
    with pytest.raises(ConfigError, match="'person' has the id 1, and 'Person' the id 3"):
        ids([("1.jpg", 7)], ["1.jpg"], twice)
    assert ids([("1.jpg", 7)], ["1.jpg"], twice, classes=["cat"]) == [7]
    with pytest.raises(ConfigError, match="'person' and 'cat' would both get the id 1"):
        ids([("1.jpg", 7)], ["1.jpg"], [("person", 1), ("cat", 1)])
