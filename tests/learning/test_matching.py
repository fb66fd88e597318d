from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from zsd_core.errors import ConfigError, DataError
from zsd_core.learning.data.dataset import image_record
from zsd_core.learning.matching import box_iou, match

CLASSES, SEEN = ("person", "cat"), ("person",)
BOX, FAR = (0, 0, 10, 10), (50, 50, 60, 60)


def truth(*boxes, labels=None, crowd=None, difficult=None):
    return image_record(
        where="test",
        path=Path("a.jpg"),
        id=1,
        width=100,
        height=100,
        boxes=boxes,
        labels=labels or ["person"] * len(boxes),
        crowd=crowd,
        difficult=difficult,
    )


def found(image, boxes, scores, columns=None, **options):
    columns = [0] * len(boxes) if columns is None else columns
    return match([image], [(boxes, scores, columns)], CLASSES, SEEN, thresholds=(0.5,), **options)


def test_iou_by_hand():
    others = [(0, 0, 10, 10), (5, 0, 15, 10), (20, 20, 30, 30), (0, 0, 100, 100), (3, 3, 3, 9)]
    iou = box_iou([BOX], others)
    np.testing.assert_allclose(iou, [[1, 50 / 150, 0, 100 / 10000, 0]])
    assert box_iou([BOX], others, [False, False, False, True, False])[0, 3] == 1  # crowd: cover
    assert box_iou([(0, 0, 0, 0)], [(0, 0, 0, 0)]) == 0
    assert box_iou(np.zeros((0, 4)), others).shape == (0, 5)


def test_iou_has_no_plus_one():
    """Overlap 1 x 1 of two 2 x 2 boxes is 1/7; with VOC's + 1 it would be 4/14."""
    np.testing.assert_allclose(box_iou([(0, 0, 2, 2)], [(1, 1, 3, 3)]), 1 / 7)


def test_the_second_detection_of_one_box_is_a_miss():
    result = found(truth(BOX), [BOX, BOX, FAR], [0.5, 0.9, 0.7])
    assert result.scores.tolist() == [0.9, 0.7, 0.5]
    assert result.hits.tolist() == [[True, False, False]]
    assert not result.ignored.any()
    assert result.truths.tolist() == [[1, 0]]


def test_a_detection_takes_the_best_free_box():
    near = (2, 0, 12, 10)
    result = found(truth(BOX, near), [BOX, BOX], [0.9, 0.8])
    assert result.hits.tolist() == [[True, True]]  # the second one takes ``near``, IoU 80/120


def test_a_detection_of_another_class_finds_nothing():
    assert not found(truth(BOX), [BOX], [0.9], [1]).hits.any()


def test_iou_equal_to_the_threshold_is_found():
    half = (0, 0, 10, 5)
    assert found(truth(BOX), [half], [0.9]).hits.all()


def test_difficult_box_takes_one_detection_and_a_crowd_many():
    difficult = found(truth(BOX, difficult=[True]), [BOX, BOX], [0.9, 0.8])
    assert difficult.ignored.tolist() == [[True, False]] and not difficult.hits.any()
    crowd = found(truth((0, 0, 90, 90), crowd=[True]), [BOX, FAR], [0.9, 0.8])
    assert crowd.ignored.tolist() == [[True, True]]
    assert difficult.truths.sum() == crowd.truths.sum() == 0


def test_an_object_comes_before_an_ignored_box_even_at_lower_iou():
    image = truth(BOX, (0, 0, 10, 8), difficult=[True, False])
    result = found(image, [BOX], [0.9])
    assert result.hits.tolist() == [[True]] and not result.ignored.any()


def test_cap_is_per_image_over_all_classes_or_per_role():
    image = truth(FAR, labels=["cat"])
    boxes, scores, columns = [BOX, BOX, FAR], [0.9, 0.8, 0.7], [0, 0, 1]
    joint = found(image, boxes, scores, columns, limit=2)
    assert joint.cap == "2" and not joint.hits.any() and len(joint.scores) == 2
    separate = found(image, boxes, scores, columns, limit=2, separate=True)
    assert separate.cap == "2 + 2" and separate.hits.tolist() == [[False, False, True]]


def test_no_detections_and_no_truth_are_ordinary():
    assert found(truth(BOX), [], []).hits.shape == (1, 0)
    assert found(truth(), [BOX], [0.9]).hits.tolist() == [[False]]


@pytest.mark.parametrize(
    ("prediction", "says"),
    [
        (([BOX], [0.9], [2]), "column outside the 2 classes"),
        (([BOX], [0.9], [-1]), "column outside the 2 classes"),
        (([BOX], [0.9, 0.8], [0]), "1 boxes, 2 scores and 1 columns"),
        (([BOX], [np.nan], [0]), "not finite"),
        (([[*BOX, *FAR]], [0.5, 0.5], [0, 0]), r"boxes of shape \(1, 8\), must be \(n, 4\)"),
    ],
)
def test_malformed_predictions_are_sentences(prediction, says):
    with pytest.raises(DataError, match=says):
        match([truth(BOX)], [prediction], CLASSES, SEEN)


def test_images_and_predictions_must_pair_up():
    for images, predictions in (([truth(BOX)], []), ([], [])):
        with pytest.raises(DataError, match=f"0 predictions for {len(images)} images"):
            match(images, predictions, CLASSES, SEEN)
    with pytest.raises(DataError, match="truth of 'dog', not asked for"):
        found(truth(BOX, labels=["dog"]), [], [])


@pytest.mark.parametrize("limit", [0, -1])
def test_a_limit_that_keeps_nothing_is_refused(limit):
    with pytest.raises(ConfigError, match=f"limit is {limit}, must be at least 1"):
        found(truth(BOX), [BOX, FAR], [0.9, 0.8], limit=limit)
