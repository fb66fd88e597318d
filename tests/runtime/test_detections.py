"""The one result type: checked when made, iterable, sliceable, convertible."""

import copy
import dataclasses
import json
import pickle
import sys

import numpy as np
import pytest

from runtime import Detections
from zsd_core.errors import MissingPackageError, ShapeError


@pytest.fixture
def three():
    return Detections(
        boxes=np.float32([[0, 1, 2.126, 3], [4, 5, 6, 7], [8, 9, 10, 11]]),
        scores=np.float32([0.9, 0.5, 0.1]),
        class_ids=np.int64([2, 0, 2]),
        class_names=("cat", "cup", "cat"),
        roles=("unseen", "seen", "unseen"),
        class_set_version=4,
        times_ms={"trunk": 1.0},
    )


def none():
    return Detections(
        np.zeros((0, 4), np.float32),
        np.zeros(0, np.float32),
        np.zeros(0, np.int64),
        (),
        (),
        near_miss=("cat", 0.04),
    )


def test_it_is_true_when_something_was_found(three):
    assert three
    assert len(three) == 3
    assert not none()
    assert list(none()) == []
    assert str(none()) == "nothing found"
    assert str(three) == "cat 0.9, cup 0.5, cat 0.1"


def test_iterating_gives_plain_values(three):
    first, *_ = three
    assert first.class_name == "cat"
    assert first.class_id == 2
    assert first.role == "unseen"
    assert first.score == pytest.approx(0.9)
    assert all(type(x) is float for x in (*first.box, first.score))


@pytest.mark.parametrize(
    "mask", [np.array([True, False, True]), [True, False, True], slice(None, None, 2)], ids=str
)
def test_a_mask_or_slice_keeps_rows_and_the_rest(three, mask):
    kept = three[mask]
    assert kept.class_names == ("cat", "cat")
    assert kept.roles == ("unseen", "unseen")
    np.testing.assert_array_equal(kept.scores, three.scores[[0, 2]])
    np.testing.assert_array_equal(kept.boxes, three.boxes[[0, 2]])
    assert kept.class_set_version == 4
    assert kept.times_ms == {"trunk": 1.0}


def test_a_mask_that_keeps_nothing_is_an_ordinary_result(three):
    assert not three[three.scores > 2]
    assert not none()[none().scores > 0.5]
    assert three[three.scores > 2].to_list() == []


def test_an_empty_list_is_the_mask_of_nothing():
    assert not none()[[]]


@pytest.mark.parametrize(
    "mask", [np.array([True]), np.array([0, 1, 2]), [0, 1, 2], [True], [], 1.0, "cat"], ids=str
)
def test_another_index_is_refused_with_an_example(three, mask):
    with pytest.raises(ShapeError, match=r"detections\[detections.scores > 0.5\]"):
        three[mask]


@pytest.mark.parametrize("whole", [int, np.int8, np.int64, np.uint16])
def test_a_place_gives_the_object_as_in_a_list(three, whole):
    expected = list(three)
    assert [three[whole(place)] for place in range(3)] == expected
    assert (three[-1], three[-3]) == (expected[2], expected[0])
    assert list(reversed(three)) == expected[::-1]
    assert expected[1] in three
    for place in (3, -4):
        with pytest.raises(IndexError, match=f"no object {place}, only 3"):
            three[place]
    with pytest.raises(IndexError, match="no object 0, only 0"):
        none()[whole(0)]


def test_equal_means_the_same_objects(three):
    assert three == dataclasses.replace(three, times_ms={}, class_set_version=9)
    assert three != three[:2]
    assert three != dataclasses.replace(three, boxes=three.boxes + 1)
    assert three != list(three)
    assert none() == three[:0]
    with pytest.raises(TypeError, match="unhashable"):
        hash(three)


def test_pickle_and_copies_keep_every_field(three):
    three = dataclasses.replace(three, track_ids=np.int64([4, -1, 5]), near_miss=("cat", 0.5))
    for other in (pickle.loads(pickle.dumps(three)), copy.deepcopy(three), copy.copy(three)):
        for field in dataclasses.fields(three):
            np.testing.assert_equal(getattr(other, field.name), getattr(three, field.name))


def test_a_reversing_slice_would_break_the_order(three):
    with pytest.raises(ShapeError, match="must fall"):
        three[::-1]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"boxes": np.zeros((3, 5), np.float32)}, "boxes has shape"),
        ({"boxes": np.zeros((3, 4))}, "boxes is float64"),
        ({"scores": np.float32([0.5, 0.1])}, "scores has shape"),
        ({"scores": np.float32([0.1, 0.5, 0.9])}, "scores must fall"),
        ({"class_ids": np.int32([0, 1, 2])}, "class_ids is int32"),
        ({"class_names": ("cat",)}, "class_names has shape"),
        ({"roles": ("seen", "seen", "old")}, "must be seen or unseen"),
    ],
)
def test_it_is_checked_when_made(three, changes, message):
    with pytest.raises(ShapeError, match=message):
        dataclasses.replace(three, **changes)


def test_json_is_what_the_readme_says(three):
    first = json.loads(three.to_json())[0]
    assert first == {"box": [0.0, 1.0, 2.13, 3.0], "score": 0.9, "class": "cat", "role": "unseen"}
    assert none().to_json() == "[]"


class FakeSupervision:
    class Detections:
        def __init__(self, **fields):
            self.fields = fields


@pytest.mark.parametrize("count", [0, 3])
def test_to_supervision_hands_over_every_field(three, monkeypatch, count):
    monkeypatch.setitem(sys.modules, "supervision", FakeSupervision)
    fields = three[:count].to_supervision().fields
    np.testing.assert_array_equal(fields["xyxy"], three.boxes[:count])
    np.testing.assert_array_equal(fields["confidence"], three.scores[:count])
    np.testing.assert_array_equal(fields["class_id"], three.class_ids[:count])
    assert fields["data"]["class_name"].tolist() == list(three.class_names[:count])
    assert fields["data"]["role"].tolist() == list(three.roles[:count])


def test_without_supervision_the_error_says_how_to_install_it(three, monkeypatch):
    monkeypatch.setitem(sys.modules, "supervision", None)
    with pytest.raises(MissingPackageError, match="pip install supervision"):
        three.to_supervision()
