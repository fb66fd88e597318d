"""Regions that a detector offers: the best, and those looked at again, against plain loops."""

from __future__ import annotations

import numpy as np
import pytest

from zsd_core.errors import ShapeError
from zsd_core.kernels import reference
from zsd_core.kernels.offered import second_look, sigmoid, spoken_for, top_regions

SIZES = [(0, 5, 3), (1, 0, 3), (1, 1, 1), (2, 7, 3), (3, 150, 80)]  # N, Q, Ks


def offered(images, queries, classes, seed=0):
    rng = np.random.default_rng(seed)
    centre, size = rng.random((2, images, queries, 2))
    boxes = np.concatenate([centre - size / 2, centre + size / 2], axis=2)
    logits = rng.normal(size=(images, queries, classes))
    sizes = rng.integers(20, 90, (images, 2))
    return boxes.astype(np.float32), logits.astype(np.float32), sizes.astype(np.float32)


def by_hand(boxes, logits, sizes, count, min_size):
    """The definition, one region at a time, in float64."""
    rois, images, objectness, rows = [], [], [], []
    for n in range(len(boxes)):
        likely = [max(map(float, row)) for row in logits[n]]
        for q in sorted(range(len(likely)), key=lambda q: (-likely[q], q))[:count]:
            x1, y1, x2, y2 = (min(max(float(v), 0.0), 1.0) for v in boxes[n, q])
            height, width = map(float, sizes[n])
            box = [x1 * width, y1 * height, x2 * width, y2 * height]
            if box[2] - box[0] >= min_size and box[3] - box[1] >= min_size:
                rois.append(box)
                images.append(n)
                objectness.append(1 / (1 + np.exp(-likely[q])))
                rows.append(logits[n, q])
    return rois, images, objectness, rows


@pytest.mark.parametrize("count", [1, 4, 1000])
@pytest.mark.parametrize("sizes", SIZES, ids=lambda s: "N{}-Q{}-Ks{}".format(*s))
def test_the_best_regions_are_those_of_a_plain_loop(sizes, count):
    given = offered(*sizes)
    rois, images, objectness, logits = top_regions(*given, count=count, min_size=4.0)
    expected = by_hand(*given, count, 4.0)
    assert rois.dtype == objectness.dtype == logits.dtype == np.float32
    assert images.dtype == np.int32
    assert rois.shape == (len(expected[0]), 4)
    assert logits.shape == (len(expected[0]), sizes[2])
    np.testing.assert_allclose(rois, np.reshape(expected[0], (-1, 4)), rtol=1e-6, atol=1e-5)
    np.testing.assert_array_equal(images, expected[1])
    np.testing.assert_allclose(objectness, expected[2], rtol=1e-6)
    np.testing.assert_array_equal(logits, np.reshape(expected[3], (-1, sizes[2])))


def test_equal_regions_keep_their_order():
    boxes, logits, sizes = offered(1, 6, 2)
    boxes[..., 2:], boxes[..., :2] = 0.9, np.arange(6)[:, None] / 10
    logits[:] = 0.25
    rois, *_ = top_regions(boxes, logits, sizes, count=4, min_size=0)
    np.testing.assert_allclose(rois[:, 0], np.arange(4) / 10 * sizes[0, 1], rtol=1e-6)


def test_a_region_of_nan_logits_comes_last_and_one_of_a_nan_box_is_dropped():
    boxes, logits, sizes = offered(1, 5, 3)
    boxes[:] = [0.1, 0.1, 0.9, 0.9]
    logits[0, 1, 2] = np.nan
    boxes[0, 3, 0] = np.nan
    *_, objectness, found = top_regions(boxes, logits, sizes, count=5, min_size=1)
    assert len(found) == 4
    assert np.isnan(objectness).tolist() == [False, False, False, True]
    assert (np.diff(objectness[:3]) <= 0).all()
    *_, found = top_regions(boxes, logits, sizes, count=4, min_size=1)
    assert np.isfinite(found).all()  # the region of NaN is the fifth


def test_a_wrong_shape_is_a_sentence():
    boxes, logits, sizes = offered(1, 5, 3)
    with pytest.raises(ShapeError, match=r"top_regions: logits has shape \(1, 4, 3\)"):
        top_regions(boxes, logits[:, :4], sizes, count=5, min_size=1)


def overlap(a, b):
    width = max(0.0, min(a[2], b[2]) - max(a[0], b[0]))
    height = max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (a, b)]
    return width * height / (sum(areas) - width * height)


def looked_by_hand(rois, images, count, threshold):
    """Regions are best first, so a region is dropped by any kept one in front of it."""
    chosen = []
    for image in sorted(set(images.tolist())):
        kept = []
        for r in np.flatnonzero(images == image):
            if all(overlap(rois[r], rois[k]) <= threshold for k in kept):
                kept.append(int(r))
        chosen += kept[:count]
    return sorted(chosen)


@pytest.mark.parametrize("count", [1, 3, 100])
@pytest.mark.parametrize("regions", [0, 1, 2, 37])
def test_what_is_looked_at_again_is_that_of_a_plain_loop(regions, count):
    rng = np.random.default_rng(regions)
    corner, size = rng.random((regions, 2)) * 40, 5 + rng.random((regions, 2)) * 40
    rois = np.concatenate([corner, corner + size], axis=1).astype(np.float32)
    images = np.sort(rng.integers(0, 3, regions)).astype(np.int32)
    objectness = np.zeros(regions, np.float32)
    for image in range(3):
        own = images == image
        objectness[own] = np.sort(rng.random(own.sum()))[::-1]
    found = second_look(rois, images, objectness, count=count, nms_threshold=0.4)
    assert found.dtype == np.intp
    assert found.tolist() == looked_by_hand(rois.astype(float), images, count, 0.4)


def test_of_two_equal_regions_the_first_is_looked_at():
    rois = np.float32([[0, 0, 10, 10], [0, 0, 10, 10], [50, 50, 60, 60]])
    found = second_look(
        rois, np.zeros(3, np.int32), np.full(3, 0.5, np.float32), count=3, nms_threshold=0.7
    )
    assert found.tolist() == [0, 2]


@pytest.mark.parametrize("regions", [0, 1, 2, 37])
@pytest.mark.parametrize("threshold", [0.1, 0.5])
def test_a_look_holds_for_what_the_best_region_overlaps(regions, threshold):
    rng = np.random.default_rng(regions)
    corner, size = rng.random((regions, 2)) * 20, 10 + rng.random((regions, 2)) * 20
    rois = np.concatenate([corner, corner + size], axis=1).astype(np.float32)
    images = np.sort(rng.integers(0, 2, regions)).astype(np.int32)
    looked = np.arange(0, regions, 3)
    found = spoken_for(rois, images, looked, threshold=threshold)
    assert found.shape == (regions,)
    for r in range(regions):
        near = [
            place
            for place, best in enumerate(looked)
            if images[best] == images[r] and reference.iou(rois[best], rois[[r]])[0] > threshold
        ]
        assert found[r] == min(near, default=len(looked))


def test_sigmoid_neither_overflows_nor_loses_its_ends():
    logits = np.float32([-1e4, -100, -1, 0, 1, 100, 1e4, np.inf, -np.inf])
    with np.errstate(all="raise", under="ignore"):
        found = sigmoid(logits)
    exact = [0, np.exp(-100.0), 1 / (1 + np.e), 0.5, np.e / (1 + np.e), 1, 1, 1, 0]
    np.testing.assert_allclose(found, exact, rtol=1e-6, atol=1e-38)
    assert np.isnan(sigmoid(np.float32([np.nan]))).all()
