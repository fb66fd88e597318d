from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from zsd_core.errors import DataError
from zsd_core.learning.data.dataset import Dataset, image_record, join, require_files


def record(boxes, labels=None, **changes):
    arguments = {"where": "boxes.json", "path": Path("a.jpg"), "id": 7, "width": 100, "height": 50}
    labels = ["cat"] * len(boxes) if labels is None else labels
    return image_record(**{**arguments, "boxes": boxes, "labels": labels, **changes})


def test_boxes_are_clipped_float32_and_human_by_default():
    image = record([(-3, 10, 20, 60)])
    assert image.boxes.dtype == np.float32
    np.testing.assert_array_equal(image.boxes, [[0, 10, 20, 50]])
    assert image.scores.tolist() == [1.0]
    assert not image.ignore.any()


def test_an_image_without_boxes_is_ordinary():
    image = record([])
    assert image.boxes.shape == (0, 4) and image.labels == ()


@pytest.mark.parametrize(
    "box",
    [
        (5, 5, 4, 9),  # inverted
        (5, 9, 8, 5),
        (float("nan"), 0, 5, 5),
        (0, 0, float("inf"), 5),
        (101, 0, 120, 5),  # outside
        (0, -9, 5, -1),
    ],
)
def test_malformed_box_is_an_error_that_shows_it(box):
    with pytest.raises(DataError, match=r"boxes.json: image 7 \(100 x 50\) has a box"):
        record([(0, 0, 5, 5), box])


def test_flat_box_stays_but_nothing_learns_from_it():
    image = record([(5, 5, 5, 9), (0, 0, 5, 5), (100, 0, 120, 5)])  # the last is flat once clipped
    assert image.difficult.tolist() == image.ignore.tolist() == [True, False, True]


def test_crowd_and_difficult_are_ignored():
    image = record([(0, 0, 5, 5)] * 3, crowd=[True, False, False], difficult=[False, True, False])
    assert image.ignore.tolist() == [True, True, False]


def test_image_without_size_is_an_error():
    with pytest.raises(DataError, match="size 0 x 50"):
        record([], width=0)


def test_select_keeps_every_field_in_step():
    image = record(
        [(0, 0, 1, 1), (0, 0, 2, 2), (0, 0, 3, 3)],
        ["cat", "dog", "cup"],
        scores=[0.1, 0.2, 0.3],
        crowd=[False, False, True],
    ).select([True, False, True])
    assert image.labels == ("cat", "cup")
    assert image.boxes[:, 2].tolist() == [1, 3]
    np.testing.assert_allclose(image.scores, [0.1, 0.3])
    assert image.crowd.tolist() == image.ignore.tolist() == [False, True]
    assert image.select([False, False]).labels == ()


def test_join_adds_counts_and_refuses_the_same_file_twice():
    a = Dataset(images=(record([]),), categories=("cat",), counts={"images read": 1})
    b = Dataset(
        images=(record([], path=Path("b.jpg")),), categories=("dog", "cat"), counts=a.counts
    )
    both = join([a, b])
    assert len(both) == 2 and both.categories == ("cat", "dog") and both.counts["images read"] == 2
    with pytest.raises(DataError, match=r"a\.jpg"):
        join([a, a])


def test_missing_files_are_counted(tmp_path):
    (tmp_path / "there.jpg").touch()
    there = record([], path=tmp_path / "there.jpg")
    require_files([there], "boxes.json")
    with pytest.raises(
        DataError, match=r"boxes.json: 1 of 2 image files are missing, first .*none"
    ):
        require_files([there, record([], path=tmp_path / "none.jpg")], "boxes.json")


def test_boxes_per_class_leaves_ignored_ones_out():
    image = record([(0, 0, 5, 5)] * 3, ["cat", "cat", "dog"], crowd=[True, False, False])
    assert Dataset(images=(image,)).boxes_per_class() == {"cat": 1, "dog": 1}
