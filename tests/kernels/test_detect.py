from __future__ import annotations

import numpy as np
import pytest
import torch
import torchvision

from zsd_core import kernels
from zsd_core.errors import ShapeError
from zsd_core.kernels import reference

OPTIONS = {"nms_threshold": 0.5, "max_detections": 20, "min_size": 1.0}


def detect_arguments(regions=40, classes=6, batch=2, seed=0):
    rng = np.random.default_rng(seed)
    corners = rng.uniform(0, 80, (regions, 2))
    rois = np.concatenate([corners, corners + rng.uniform(5, 60, (regions, 2))], axis=1)
    arrays = (
        rng.random((regions, classes)) ** 3,
        rng.standard_normal((regions, 4)),
        rois,
        rng.integers(0, max(batch, 1), regions),
        np.tile([100.0, 120.0], (batch, 1)),
        np.full(classes, 0.05),
    )
    return [a.astype(np.int32 if i == 3 else np.float32) for i, a in enumerate(arrays)]


def compare(arguments, options=OPTIONS, atol=1e-4):
    result = kernels.detect(*arguments, **options)
    exact = reference.detect(*arguments, **options)
    assert [a.dtype for a in result] == [np.float32, np.float32, np.int32, np.int32]
    for ours, twin in zip(result, exact, strict=True):
        assert ours.shape == twin.shape
        np.testing.assert_allclose(ours, twin, atol=atol)
    return result


@pytest.mark.parametrize("shape", [(40, 6, 2), (0, 3, 1), (0, 3, 0), (5, 0, 1), (1, 1, 1)])
def test_agrees_with_the_twin(shape):
    compare(detect_arguments(*shape))


def test_agrees_with_torchvision():
    from torchvision.models.detection._utils import BoxCoder

    scores, deltas, rois = (torch.from_numpy(a) for a in detect_arguments(batch=1)[:3])
    boxes = BoxCoder((10.0, 10.0, 5.0, 5.0)).decode_single(deltas, rois)
    boxes = torchvision.ops.clip_boxes_to_image(boxes, (100, 120))
    regions, columns = torch.nonzero(scores > 0.05, as_tuple=True)
    big = torchvision.ops.remove_small_boxes(boxes[regions], 1.0)
    regions, columns = regions[big], columns[big]
    values = scores[regions, columns]
    kept = torchvision.ops.batched_nms(boxes[regions], values, columns, 0.5)[:20]
    result = kernels.detect(*detect_arguments(batch=1), **OPTIONS)
    np.testing.assert_allclose(result[0], boxes[regions[kept]].numpy(), atol=1e-4)
    assert np.array_equal(result[1], values[kept].numpy())
    assert np.array_equal(result[2], columns[kept].numpy())


def test_ties_go_by_region_then_column():
    arguments = detect_arguments(batch=1)
    arguments[0][:] = 0.5
    _, _, columns, _ = compare(arguments, {**OPTIONS, "nms_threshold": 1.0})
    assert columns[:6].tolist() == [0, 1, 2, 3, 4, 5]


def test_an_infinite_threshold_masks_a_class():
    arguments = detect_arguments()
    arguments[0][:, 2] = np.inf
    arguments[5][2] = np.inf
    columns = compare(arguments)[2]
    assert len(columns) and 2 not in columns


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite_do_not_crash(value):
    rng = np.random.default_rng(1)
    arguments = detect_arguments()
    for index in (0, 1, 2):
        arguments[index][rng.random(arguments[index].shape) < 0.1] = value
    boxes, scores, _, _ = compare(arguments)
    assert np.isfinite(boxes).all()
    assert not np.isnan(scores).any()


def test_does_not_depend_on_threads_nor_on_the_other_images():
    arguments = detect_arguments(batch=3)
    boxes, _, _, images = kernels.detect(*arguments, **OPTIONS)
    own = arguments[3] == 1
    alone = [a[own] if len(a) == 40 else a for a in arguments]
    alone[3], alone[4] = np.zeros(own.sum(), np.int32), arguments[4][1:2]
    threads = kernels.get_threads()
    kernels.set_threads(1)
    single = kernels.detect(*alone, **OPTIONS)[0]
    kernels.set_threads(threads)
    assert np.array_equal(single, boxes[images == 1])


def test_errors_are_sentences():
    arguments = detect_arguments()
    with pytest.raises(ShapeError, match="thresholds has shape"):
        kernels.detect(*arguments[:5], np.zeros(5), **OPTIONS)
    with pytest.raises(ShapeError, match="max_detections is -1"):
        kernels.detect(*arguments, **{**OPTIONS, "max_detections": -1})
