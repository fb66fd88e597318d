from __future__ import annotations

import json
import time

import numpy as np
import pytest

from zsd_core.errors import DataError
from zsd_core.learning.data.coco import read_coco


def annotation(**changes):
    return {"id": 1, "image_id": 9, "category_id": 18, "bbox": [10, 20, 30, 40], **changes}


@pytest.fixture
def write(tmp_path):
    (tmp_path / "a.jpg").touch()

    def _write(**changes):
        values = {
            "images": [{"id": 9, "file_name": "a.jpg", "width": 100, "height": 80}],
            "annotations": [annotation()],
            "categories": [{"id": 18, "name": "dog"}, {"id": 1, "name": "person"}],
            **changes,
        }
        path = tmp_path / "instances.json"
        path.write_text(json.dumps(values))
        return path, tmp_path

    return _write


def test_boxes_become_corners_and_names(write):
    notes = [
        annotation(),
        annotation(id=2, category_id=1, bbox=[0.5, 0, 1, 2], iscrowd=1),
        annotation(id=3, score=0.25),
    ]
    dataset = read_coco(*write(annotations=notes))
    (image,) = dataset.images
    np.testing.assert_array_equal(
        image.boxes, [[10, 20, 40, 60], [0.5, 0, 1.5, 2], [10, 20, 40, 60]]
    )
    assert image.labels == ("dog", "person", "dog")
    assert image.scores.tolist() == [1, 1, 0.25]
    assert image.crowd.tolist() == [False, True, False]
    assert (image.id, image.width, image.height, image.path.name) == (9, 100, 80, "a.jpg")
    assert dataset.categories == ("dog", "person")
    assert dataset.counts == {"images read": 1, "boxes read": 3}


def test_image_without_annotation_stays(write):
    assert read_coco(*write(annotations=[])).images[0].labels == ()


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"annotations": [annotation(category_id=2)]}, "category_id 2, which is not among the 2"),
        ({"annotations": [annotation(category_id=[])]}, r"category_id \[\], must be a number or"),
        ({"annotations": [annotation(image_id={})]}, "image_id {}, must be a number or"),
        ({"annotations": [None]}, "an annotation has no 'image_id': None"),
        ({"annotations": [annotation(image_id=8)]}, "names image 8, not listed"),
        ({"annotations": [annotation(bbox=[1, 2, 3])]}, r"has bbox \[1, 2, 3\]"),
        ({"annotations": [annotation(bbox=None)]}, "has bbox None"),
        ({"annotations": [annotation(bbox="1234")]}, "has bbox '1234', must be x, y, width"),
        ({"annotations": [annotation(bbox={"1": 0, "2": 0, "3": 0, "4": 0})]}, "has bbox {"),
        ({"annotations": [annotation(bbox=["1", 2, 3, 4])]}, "has bbox \\['1', 2, 3, 4\\]"),
        ({"annotations": [annotation(bbox=[True, 2, 3, 4])]}, "has bbox \\[True, 2, 3, 4\\]"),
        ({"annotations": [annotation(bbox=[10**400, 0, 1, 1])]}, "has bbox .* finite numbers"),
        ({"annotations": [annotation(bbox=[0, float("nan"), 1, 1])]}, "has bbox .* finite"),
        ({"annotations": [annotation(iscrowd="0")]}, "has iscrowd '0', must be 0 or 1"),
        ({"annotations": [annotation(iscrowd=2)]}, "has iscrowd 2, must be 0 or 1"),
        ({"annotations": [annotation(category_id=True)]}, "category_id True, must be a number"),
        ({"annotations": [annotation(image_id=True)]}, "image_id True, must be a number"),
        ({"annotations": [annotation(score=True)]}, "score True, must lie in"),
        ({"annotations": [annotation(bbox=[1, 2, -3, 4])]}, "must be finite, with x1 <= x2"),
        ({"annotations": [annotation(score=1.5)]}, "score 1.5, must lie in"),
        ({"annotations": [annotation(score="high")]}, "score 'high'"),
        ({"annotations": [{"id": 1}]}, "an annotation has no 'image_id'"),
        ({"annotations": {}}, "not in COCO format: there is no list 'annotations'"),
        ({"images": [{"id": 9, "width": 1, "height": 1}]}, "an image has no 'file_name'"),
        ({"images": [{"id": 9}, {"id": 9}]}, "image id 9 stands there twice"),
        ({"images": [{"id": None}]}, "an image has id None, must be"),
        ({"images": [{"id": True}]}, "an image has id True, must be"),
        ({"images": [{"id": "\ud800"}]}, r"an image has id '\\ud800', must be"),
        ({"images": [9]}, "an image has no 'id': 9"),
        (
            {"images": [{"id": 9, "file_name": 3, "width": 1, "height": 1}]},
            "file_name 3, must be a string",
        ),
        (
            {"images": [{"id": 9, "file_name": "a.jpg", "width": True, "height": 80}]},
            "size True x 80; both must be positive whole numbers",
        ),
        (
            {"images": [{"id": 9, "file_name": "a.jpg", "width": 100, "height": 79.5}]},
            "size 100 x 79.5; both must be positive whole numbers",
        ),
        (
            {"images": [{"id": 9, "file_name": "a.jpg", "width": "100", "height": 80}]},
            "size '100' x 80; both must be positive whole numbers",
        ),
        (
            {"images": [{"id": 9, "file_name": "a.jpg", "width": 1e999, "height": 80}]},
            "size inf x 80",
        ),
        ({"categories": [{"id": 18, "name": None}]}, "category 18 has name None, must be a word"),
        ({"categories": [{"id": 18, "name": "\udc80"}]}, "category 18 has name"),
        ({"categories": ["dog"]}, "a category has no 'id'"),
        ({"categories": [{"id": 18, "name": "a"}, {"id": 18, "name": "b"}]}, "'b' .* twice"),
        ({"categories": [{"id": 18, "name": "a"}, {"id": 19, "name": "a"}]}, "'a' .* twice"),
    ],
)
def test_malformed_file_is_a_sentence(write, changes, says):
    with pytest.raises(DataError, match=says):
        read_coco(*write(**changes))


def test_missing_files_are_named(write, tmp_path):
    path, folder = write()
    with pytest.raises(DataError, match=r"cannot read annotations .*No such file"):
        read_coco(tmp_path / "none.json", folder)
    with pytest.raises(DataError, match=r"annotations 'a\\x00b': its name holds a character"):
        read_coco("a\0b", folder)
    with pytest.raises(DataError, match="1 of 1 image files are missing"):
        read_coco(path, folder / "elsewhere")
    path.write_text("{")
    with pytest.raises(DataError, match="is not JSON"):
        read_coco(path, folder)


def test_a_flag_may_be_a_boolean_and_a_size_a_float_without_a_fraction(write):
    image = {"id": "x", "file_name": "a.jpg", "width": 100.0, "height": 80}
    notes = [annotation(image_id="x", iscrowd=flag) for flag in (True, False, 0, 0.0, None)]
    (found,) = read_coco(*write(images=[image], annotations=notes)).images
    assert found.crowd.tolist() == [True, *[False] * 4]
    assert (found.width, found.height) == (100, 80)


def test_ids_are_the_same_as_numbers_floats_and_texts(write):
    image = {"id": "9", "file_name": "a.jpg", "width": 100, "height": 80}
    notes = [annotation(image_id=key, category_id=18.0) for key in (9, 9.0, "9")]
    names = [{"id": "18", "name": "dog"}, {"id": 1.0, "name": "person"}]
    dataset = read_coco(*write(images=[image], annotations=notes, categories=names))
    assert dataset.images[0].labels == ("dog",) * 3 and dataset.images[0].id == "9"
    assert dataset.categories == ("dog", "person")
    (found,) = read_coco(*write(images=[{**image, "id": 9.0}])).images
    assert (found.id, type(found.id), found.labels) == (9, int, ("dog",))
    for other in (9.0, "9", 9):
        with pytest.raises(DataError, match=r"image id .* stands there twice"):
            read_coco(*write(images=[image, {**image, "id": other}], annotations=[]))
    with pytest.raises(DataError, match=r"image_id 9\.5, must be a number or a string"):
        read_coco(*write(annotations=[annotation(image_id=9.5)]))
    with pytest.raises(DataError, match="names image '09', not listed"):
        read_coco(*write(annotations=[annotation(image_id="09")]))


def test_a_score_of_null_is_a_human_s(write):
    (image,) = read_coco(*write(annotations=[annotation(score=None)])).images
    assert image.scores.tolist() == [1]


def roboflow(root="dog", *names):
    first = {"id": 0, "name": root, "supercategory": "none"}
    return [first, *({"id": i, "name": n, "supercategory": root} for i, n in enumerate(names, 1))]


@pytest.mark.parametrize("root", ["animals-x7a2", "dog"])
def test_the_group_of_roboflow_is_no_category(write, root):
    names = roboflow(root, "dog", "cat")
    dataset = read_coco(*write(categories=names, annotations=[annotation(category_id=1)]))
    assert dataset.categories == ("dog", "cat")
    assert dataset.images[0].labels == ("dog",)


def test_a_category_with_boxes_or_of_another_tool_stays(write):
    """COCO's person is its own group, and a group of boxes is a class."""
    names = roboflow("animal", "dog")
    dataset = read_coco(*write(categories=names, annotations=[annotation(category_id=0)]))
    assert dataset.categories == ("animal", "dog") and dataset.images[0].labels == ("animal",)
    for group in ("person", "", None):
        names = [
            {"id": 1, "name": "person", "supercategory": group},
            {"id": 2, "name": "face", "supercategory": "person"},
        ]
        assert read_coco(*write(categories=names, annotations=[])).categories == ("person", "face")
    with pytest.raises(DataError, match=r"'dog' \(id 1\) stands there twice; give each"):
        read_coco(
            *write(categories=roboflow("dog", "dog"), annotations=[annotation(category_id=0)])
        )


@pytest.mark.parametrize(
    "others",
    [
        [{"id": 1, "name": "dog", "supercategory": "none"}, ("puppy", "dog")],
        [("dog", "none"), ("puppy", "dog"), ("cat", "none")],
        [("dog", "none"), ("puppy", "dog"), ("cat", "pet")],
        [("puppy", "dog"), ("dog", "none")],
        [("dog", None), ("puppy", "dog")],
        [("dog", "none")],
        [("none", "none"), ("dog", "none")],
    ],
)
def test_a_category_that_does_not_group_all_others_stays(write, others):
    """Without boxes in this file, a class that others name as theirs was left out."""
    names = [
        entry
        if isinstance(entry, dict)
        else {"id": index, "name": entry[0], "supercategory": entry[1]}
        for index, entry in enumerate(others)
    ]
    if isinstance(others[0], dict):
        names[1]["id"] = 2
    dataset = read_coco(*write(categories=names, annotations=[]))
    assert dataset.categories == tuple(entry["name"] for entry in names)


def test_backslashes_of_windows_name_folders_where_no_file_is_called_so(write, tmp_path):
    (tmp_path / "images" / "1").mkdir(parents=True)
    (tmp_path / "images" / "1" / "b.jpg").touch()
    image = {"id": 9, "file_name": "images\\1/b.jpg", "width": 100, "height": 80}
    (found,) = read_coco(*write(images=[image])).images
    assert found.path == tmp_path / "images" / "1" / "b.jpg"
    (tmp_path / "images\\1").mkdir()
    (tmp_path / image["file_name"]).touch()
    (found,) = read_coco(*write(images=[image])).images
    assert found.path == tmp_path / "images\\1" / "b.jpg"


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_a_file_of_an_editor_with_marks_is_read(write, encoding):
    path, folder = write()
    path.write_bytes(path.read_text().encode(encoding))
    assert len(read_coco(path, folder)) == 1


def test_many_categories_take_no_time_that_grows_with_their_square(write):
    """20,000 took three seconds and more: every name was looked for in a list of all."""
    names = [{"id": i, "name": f"n{i}"} for i in range(50_000)]
    start = time.process_time()
    dataset = read_coco(*write(images=[], annotations=[], categories=names))
    assert len(dataset.categories) == 50_000
    assert time.process_time() - start < 5
