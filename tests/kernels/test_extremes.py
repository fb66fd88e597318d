"""Numbers that no network should give, and sizes that none has: like the twins, no crash."""

from __future__ import annotations

import numpy as np
import pytest

from zsd_core import kernels
from zsd_core.kernels import reference

RNG = np.random.default_rng(0)
DENORMAL = np.float32(1e-41)
SPECIAL = [np.nan, np.inf, -np.inf, np.finfo(np.float32).max, DENORMAL, -0.0]
SIZES = np.float32([[64, 80]])
MANY = 100_000


def boxes_of(count, low=-30, high=90, edge=40):
    corners = RNG.uniform(low, high, (count, 2))
    return np.concatenate([corners, corners + RNG.uniform(1, edge, (count, 2))], 1).astype("f4")


def sprinkled(array, values=SPECIAL, every=7):
    """A copy in which every few numbers is a special one."""
    found = array.copy()
    flat = found.reshape(-1)
    flat[::every] = np.resize(np.float32(values), len(flat[::every]))
    return found


def degenerate(boxes):
    """A copy with boxes of no area, turned round, far away and of numbers that are none."""
    found = boxes.copy()
    found[0, 2:] = found[0, :2]
    found[1] = found[1, [2, 3, 0, 1]]
    found[2] = 1e30
    found[3] = [-np.inf, -np.inf, np.inf, np.inf]
    found[4, 1] = np.nan
    found[5] = DENORMAL
    return found


@pytest.fixture(params=kernels.build_info()["simd_paths"])
def _path(request):
    best = kernels.build_info()["simd"]
    kernels.set_simd(request.param)
    yield
    kernels.set_simd(best)


def alike(found, exact, **options):
    """Not finite in the same places and equal there, and close elsewhere."""
    np.testing.assert_allclose(found, exact, **{"rtol": 1e-4, "atol": 1e-5} | options)


@pytest.mark.usefixtures("_path")
@pytest.mark.parametrize("value", SPECIAL)
def test_a_special_number_reaches_its_own_row_only(value):
    """Of PackedLinear and product_mlp, whose sums run over what a tile holds."""
    rows, weight = RNG.random((11, 21), np.float32), RNG.random((13, 21), np.float32)
    arguments = [RNG.random((4, 21), np.float32), weight, *RNG.random((2, 13), np.float32)]
    arguments.append(np.zeros(1, np.float32))
    calls = {
        "linear": kernels.PackedLinear(weight),
        "mlp": lambda regions: kernels.product_mlp(regions, *arguments),
    }
    for name, call in calls.items():
        clean, dirty = call(rows), rows.copy()
        dirty[5, 3] = value
        found = call(dirty)
        others = np.arange(11) != 5
        np.testing.assert_array_equal(found[others], clean[others], err_msg=name)
        if not np.isfinite(value):
            assert not np.isfinite(found[5]).all(), name


@pytest.mark.usefixtures("_path")
def test_roi_align_of_strange_boxes_is_that_of_the_twin():
    features = RNG.standard_normal((1, 19, 9, 13)).astype(np.float32)
    rois, images = degenerate(boxes_of(9)), np.zeros(9, np.int32)
    options = {"output_size": (3, 2), "spatial_scale": 0.25, "sampling_ratio": 2}
    with np.errstate(invalid="ignore", over="ignore"):
        exact = reference.roi_align(features, rois, images, **options)
    alike(kernels.roi_align(features, rois, images, **options), exact)
    assert kernels.roi_align(features, rois, images, **options | {"sampling_ratio": 0}).size


def test_detect_takes_any_number():
    count, classes = 40, 9
    scores = sprinkled(RNG.random((count, classes)).astype(np.float32))
    deltas = sprinkled(RNG.standard_normal((count, 4)).astype(np.float32), every=11)
    arguments = (scores, deltas, degenerate(boxes_of(count)), np.zeros(count, np.int32), SIZES)
    thresholds = np.full(classes, 0.2, np.float32)
    thresholds[1], thresholds[2] = np.inf, -np.inf
    options = {"nms_threshold": 0.5, "max_detections": 100, "min_size": 1.0}
    boxes, found, columns, _ = kernels.detect(*arguments, thresholds, **options)
    with np.errstate(all="ignore"):
        exact = reference.detect(*arguments, thresholds, **options)
    alike(boxes, exact[0], atol=1e-3)
    np.testing.assert_array_equal(found, exact[1])
    np.testing.assert_array_equal(columns, exact[2])
    assert np.isfinite(boxes).all() and not np.isnan(found).any() and 1 not in columns
    assert (boxes >= 0).all() and (boxes[:, 2:] <= SIZES[0, ::-1]).all()


def test_propose_takes_any_number():
    logits = sprinkled(RNG.standard_normal((1, 3, 7, 9)).astype(np.float32), every=5)
    deltas = sprinkled(RNG.standard_normal((1, 12, 7, 9)).astype(np.float32), every=13)
    anchors = np.float32([[-20, -12, 20, 12], [-8, -8, 8, 8], [4, 4, 4, 4]])
    options = {
        "stride": 8,
        "pre_nms_top": 150,
        "post_nms_top": 60,
        "nms_threshold": 0.6,
        "min_size": 2.0,
    }
    arguments = (logits, deltas, anchors, SIZES)
    rois, _, scores = kernels.propose(*arguments, **options)
    with np.errstate(all="ignore"):
        exact, _, exact_scores = reference.propose(*arguments, **options)
    alike(rois, exact, atol=1e-3)
    alike(scores, exact_scores)
    assert np.isfinite(rois).all() and not np.isnan(scores).any()


def test_nms_of_strange_boxes_and_scores_is_that_of_the_twin():
    boxes = degenerate(boxes_of(60))
    scores = sprinkled(RNG.random(60).astype(np.float32), every=9)
    with np.errstate(all="ignore"):
        exact = reference.nms(boxes, scores, threshold=0.3)
    np.testing.assert_array_equal(kernels.nms(boxes, scores, threshold=0.3), exact)


def test_scores_of_strange_logits_are_those_of_the_twins():
    logits = sprinkled(4 * RNG.standard_normal((9, 12)).astype(np.float32), every=17)
    unseen = RNG.random((9, 5)).astype(np.float32)
    similarity = RNG.random((6, 5)).astype(np.float32)
    with np.errstate(all="ignore"):
        for fusion in ("softmax", "sigmoid"):
            exact = reference.fuse(logits, unseen, similarity, fusion=fusion)
            alike(kernels.fuse(logits, unseen, similarity, fusion=fusion), exact)
        curves = np.float32([[1, 2, -1]] * 12)
        exact = reference.calibrate_scores(logits.copy(), curves)
        alike(kernels.calibrate_scores(logits.copy(), curves), exact)


@pytest.mark.parametrize("count", [0, MANY])
def test_no_and_very_many_regions(count):
    rois = boxes_of(count, 0, 2000, 60)
    images, sizes = np.zeros(count, np.int32), np.float32([[2000, 2000]])
    scores = RNG.random((count, 2)).astype(np.float32)
    kept = kernels.nms(rois, scores[:, 0], threshold=0.3)
    assert len(kept) == len(set(kept.tolist())) and (len(kept) > 1000) == bool(count)
    boxes, found, _, _ = kernels.detect(
        scores,
        np.zeros((count, 4), np.float32),
        rois,
        images,
        sizes,
        np.full(2, 0.999, np.float32),
        nms_threshold=0.5,
        max_detections=50,
        min_size=1.0,
    )
    assert len(boxes) == (50 if count else 0) and (np.diff(found) <= 0).all()
    patches = kernels.roi_align(
        RNG.random((1, 1, 8, 8)).astype(np.float32),
        rois,
        images,
        output_size=(1, 1),
        spatial_scale=1 / 250,
        sampling_ratio=1,
    )
    assert patches.shape == (count, 1, 1, 1)


@pytest.mark.parametrize("classes", [0, 1, 20_000])
def test_no_one_and_very_many_classes(classes):
    rows = RNG.random((3, 24), np.float32)
    prototypes = RNG.random((classes, 24), np.float32)
    exact = rows.astype(np.float64) @ prototypes.T.astype(np.float64)
    alike(kernels.PackedLinear(prototypes)(rows), exact)
    layers = [RNG.random((8, 24), np.float32) / 24, *RNG.random((2, 8), np.float32), np.zeros(1)]
    scores = kernels.product_mlp(rows, prototypes, *layers)
    assert scores.shape == (3, classes) and np.isfinite(scores).all()
    boxes, _, columns, _ = kernels.detect(
        np.float32(RNG.random((3, classes))),
        np.zeros((3, 4), np.float32),
        np.float32([[0, 0, 9, 9], [20, 0, 40, 20], [0, 30, 30, 60]]),
        np.zeros(3, np.int32),
        SIZES,
        np.full(classes, 0.5, np.float32),
        nms_threshold=0.5,
        max_detections=300,
        min_size=1.0,
    )
    assert len(boxes) == len(columns) <= 300 and (columns < max(classes, 1)).all()


def test_sizes_beyond_32_bits_are_refused_or_counted_right():
    """A view that repeats one row claims more numbers than there is memory for."""
    row = np.zeros((1, 8), np.float32)
    endless = np.broadcast_to(row, (2**40, 8))
    with pytest.raises((MemoryError, ValueError)):
        kernels.PackedLinear(np.ones((3, 8), np.float32))(endless)
