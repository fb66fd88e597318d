"""Pictures: red and green, labels inside, at any size."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runtime import Detections
from runtime.annotate import COLORS, SMALLEST_EDGE, annotate


def detections(*objects):
    objects = sorted(objects, key=lambda o: -o[1])
    return Detections(
        np.float32([box for box, *_ in objects]).reshape(-1, 4),
        np.float32([score for _, score, *_ in objects]),
        np.arange(len(objects), dtype=np.int64),
        tuple(name for _, _, name, _ in objects),
        tuple(role for *_, role in objects),
    )


def count(image, color):
    return int((image == color).all(axis=2).sum())


def letters(image):
    """Pixels of letters: nothing else is light in every channel."""
    return int((image > 150).all(axis=2).sum())


GREY = np.full((300, 400, 3), 128, np.uint8)


@pytest.mark.parametrize(("role", "other"), [("seen", "unseen"), ("unseen", "seen")])
def test_roles_have_their_colours(role, other):
    picture = annotate(GREY, detections(([50, 60, 200, 220], 0.9, "cat", role)))
    assert count(picture, COLORS[role]) > 500
    assert count(picture, COLORS[other]) == 0
    red, green = np.array(COLORS["seen"]), np.array(COLORS["unseen"])  # BGR
    assert red.argmax() == 2
    assert green.argmax() == 1


def test_the_original_is_left_alone_and_nothing_is_drawn_without_detections():
    image = GREY.copy()
    annotate(image, detections(([50, 60, 200, 220], 0.9, "cat", "seen")))
    np.testing.assert_array_equal(image, GREY)
    empty = annotate(image, detections())
    np.testing.assert_array_equal(empty, GREY)
    assert not np.shares_memory(empty, image)


def test_the_box_is_where_it_was_found():
    picture = annotate(GREY, detections(([50, 100, 200, 220], 0.9, "x", "seen")))
    rows, columns = np.nonzero((picture == COLORS["seen"]).all(axis=2))
    assert abs(rows.max() - 219) <= 1
    assert abs(columns.min() - 50) <= 1
    assert abs(columns.max() - 199) <= 1


@pytest.mark.parametrize(
    "box", [[0, 0, 40, 40], [380, 280, 400, 300], [0, 0, 400, 300], [399, 0, 400, 1]]
)
def test_a_label_never_leaves_the_picture(box):
    """Its letters are as many in a corner as in the middle."""
    middle = annotate(GREY, detections(([100, 100, 300, 200], 0.5, "teapot", "unseen")))
    corner = annotate(GREY, detections((box, 0.5, "teapot", "unseen")))
    assert letters(middle) > 50
    assert letters(corner) == letters(middle)


@pytest.mark.parametrize("corner", [[100, 100], [10, 0], [330, 60]])
def test_labels_do_not_cover_each_other(corner):
    """Boxes in one place are drawn with as many letters as apart."""
    names = ("giraffe", "kitten", "horse", "a coffee cup")
    scores = (0.5, 0.4, 0.3, 0.2)
    box = [*corner, corner[0] + 60, corner[1] + 190]
    alone = [
        letters(annotate(GREY, detections((box, score, name, "seen"))))
        for name, score in zip(names, scores, strict=True)
    ]
    objects = [(box, score, name, "seen") for name, score in zip(names, scores, strict=True)]
    assert letters(annotate(GREY, detections(*objects))) == sum(alone)


def test_where_there_is_no_room_below_the_best_label_is_on_top():
    low = [10, 60, 200, 300]
    narrow = GREY[:40]
    best = detections((low, 0.5, "best", "seen"))
    both = detections((low, 0.5, "best", "seen"), (low, 0.4, "rest", "seen"))
    assert letters(annotate(narrow, both)) == letters(annotate(narrow, best))


def test_a_small_picture_is_enlarged_by_a_whole_factor():
    picture = annotate(GREY[:30, :40], detections(([5, 5, 30, 25], 0.5, "cat", "seen")))
    assert picture.shape == (SMALLEST_EDGE, SMALLEST_EDGE * 4 // 3, 3)
    assert letters(picture) > 50


def test_a_long_phrase_fits_a_narrow_picture():
    phrase = "a very long phrase about a red fire truck in the rain"
    picture = annotate(GREY[:, :60], detections(([5, 100, 50, 200], 0.5, phrase, "seen")))
    label = (picture == COLORS["seen"]).all(axis=2)[: 100 * picture.shape[0] // 300 - 5]
    assert label.any()
    assert picture.shape[1] % 60 == 0


@pytest.mark.parametrize(("version", "text"), [("4.10.0", "creme brulee ??"), ("5.0.0", None)])
def test_opencv_4_gets_the_letters_its_font_has(monkeypatch, version, text):
    import cv2

    written = []
    monkeypatch.setattr(cv2, "__version__", version)
    monkeypatch.setattr(cv2, "putText", lambda _, text, *__: written.append(text))
    annotate(GREY, detections(([5, 100, 50, 200], 0.5, "crème brûlée 猫猫", "seen")))
    assert written == [f"{text or 'crème brûlée 猫猫'} 0.5"]


@settings(max_examples=40)
@given(
    size=st.tuples(st.integers(1, 700), st.integers(1, 700)),
    box=st.tuples(*[st.floats(0, 1, width=32)] * 4),
    name=st.sampled_from(["cat", "crème brûlée", "猫", "a long name " * 9]),
)
def test_any_picture_can_be_annotated(size, box, name):
    height, width = size
    corners = np.float32(box) * [width, height, width, height]
    picture = annotate(
        np.zeros((height, width, 3), np.uint8), detections((corners, 0.5, name, "seen"))
    )
    assert picture.shape[0] % height == 0
    assert picture.shape[0] // height == picture.shape[1] // width
    assert picture.dtype == np.uint8
