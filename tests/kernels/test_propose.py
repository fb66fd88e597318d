from __future__ import annotations

import numpy as np
import pytest
import torch
import torchvision

from zsd_core import kernels
from zsd_core.config import ProposalConfig
from zsd_core.errors import ShapeError
from zsd_core.kernels import reference

OPTIONS = {
    "stride": 16,
    "pre_nms_top": 200,
    "post_nms_top": 50,
    "nms_threshold": 0.7,
    "min_size": 1.0,
}


def propose_arguments(batch=2, height=12, width=15, seed=0, dtype=np.float32):
    rng = np.random.default_rng(seed)
    anchors = ProposalConfig(anchor_sizes=(32.0, 64.0, 128.0)).anchors()
    count = len(anchors)
    return (
        rng.standard_normal((batch, count, height, width)).astype(dtype) * 3,
        rng.standard_normal((batch, 4 * count, height, width)).astype(dtype) * 0.4,
        anchors.astype(dtype),
        np.tile([height * 16 - 5, width * 16 - 9], (batch, 1)).astype(dtype),
    )


def test_agrees_with_the_float64_twin():
    arguments = propose_arguments()
    rois, indices, scores = kernels.propose(*arguments, **OPTIONS)
    exact = reference.propose(*(a.astype(np.float64) for a in arguments), **OPTIONS)
    assert (rois.dtype, indices.dtype, scores.dtype) == (np.float32, np.int32, np.float32)
    assert np.array_equal(indices, exact[1])
    np.testing.assert_allclose(rois, exact[0], atol=1e-3)
    np.testing.assert_allclose(scores, exact[2], atol=1e-6)


def test_agrees_with_torchvisions_region_proposal_network():
    from torchvision.models.detection.image_list import ImageList
    from torchvision.models.detection.rpn import AnchorGenerator, RegionProposalNetwork, RPNHead

    objectness, deltas, _, image_sizes = propose_arguments()
    generator = AnchorGenerator(sizes=((32, 64, 128),), aspect_ratios=((0.5, 1.0, 2.0),))
    network = RegionProposalNetwork(
        generator,
        RPNHead(1, 9),
        0.7,
        0.3,
        256,
        0.5,
        {"training": 200, "testing": 200},
        {"training": 50, "testing": 50},
        0.7,
    ).eval()
    network.min_size = 1.0

    class Head(torch.nn.Module):
        def forward(self, _):
            return [torch.from_numpy(objectness)], [torch.from_numpy(deltas)]

    network.head = Head()
    sizes = [(int(h), int(w)) for h, w in image_sizes]
    images = ImageList(torch.zeros(2, 3, 12 * 16, 15 * 16), sizes)
    with torch.no_grad():
        boxes, _ = network(images, {"0": torch.zeros(2, 1, 12, 15)})
    rois, indices, _ = kernels.propose(
        objectness,
        deltas,
        ProposalConfig(anchor_sizes=(32.0, 64.0, 128.0)).anchors(),
        image_sizes,
        **OPTIONS,
    )
    assert [len(b) for b in boxes] == np.bincount(indices, minlength=2).tolist()
    np.testing.assert_allclose(rois, torch.cat(boxes).numpy(), atol=1e-3)


def test_ties_go_to_the_lower_index():
    objectness, deltas, anchors, sizes = propose_arguments(batch=1, height=3, width=4)
    objectness[:], deltas[:] = 1.0, 0.0
    options = {**OPTIONS, "pre_nms_top": 5, "nms_threshold": 1.0}
    rois, _, _ = kernels.propose(objectness, deltas, anchors, sizes, **options)
    expected = reference.clip_boxes(anchors[:5], sizes[0])  # the anchors of the first cell
    np.testing.assert_allclose(rois, expected, atol=1e-4)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite_do_not_crash(value):
    rng = np.random.default_rng(3)
    arguments = propose_arguments()
    for array in arguments[:2]:
        array[rng.random(array.shape) < 0.2] = value
    rois, indices, scores = kernels.propose(*arguments, **OPTIONS)
    assert np.isfinite(rois).all()
    assert not np.isnan(scores).any()
    exact = reference.propose(*arguments, **OPTIONS)
    assert np.array_equal(indices, exact[1])
    np.testing.assert_allclose(rois, exact[0], atol=1e-3)


@pytest.mark.parametrize(
    "shape", [{"batch": 0}, {"height": 0}, {"batch": 1, "height": 1, "width": 1}], ids=str
)
def test_empty_and_single(shape):
    arguments = propose_arguments(**shape)
    rois, indices, scores = kernels.propose(*arguments, **OPTIONS)
    assert rois.shape == (len(indices), 4)
    assert len(scores) == len(indices) == len(reference.propose(*arguments, **OPTIONS)[0])


def test_does_not_depend_on_threads_nor_on_the_other_images():
    arguments = propose_arguments(batch=3)
    threads = kernels.get_threads()
    rois, indices, _ = kernels.propose(*arguments, **OPTIONS)
    kernels.set_threads(1)
    alone = kernels.propose(*(a[1:2] if len(a) == 3 else a for a in arguments), **OPTIONS)
    kernels.set_threads(threads)
    assert np.array_equal(rois[indices == 1], alone[0])


def test_deltas_need_four_channels_per_anchor():
    arguments = list(propose_arguments())
    arguments[1] = arguments[1][:, :-1]
    with pytest.raises(ShapeError, match="deltas has shape"):
        kernels.propose(*arguments, **OPTIONS)


@pytest.mark.parametrize("threshold", [0.0, 0.3, 0.5, 0.7, 1.0])
def test_nms_is_torchvisions(threshold):
    rng = np.random.default_rng(0)
    corners = rng.uniform(0, 60, (300, 2))
    boxes = np.concatenate([corners, corners + rng.uniform(0, 40, (300, 2))], 1).astype(np.float32)
    boxes[::17] = boxes[0]  # exact duplicates
    boxes[5, 2:] = boxes[5, :2]  # no area
    scores = np.round(rng.random(300), 2).astype(np.float32)  # ties
    order = np.argsort(-scores, kind="stable")  # torchvision leaves the order of ties open
    expected = torchvision.ops.nms(
        torch.from_numpy(boxes[order]), -torch.arange(300.0), threshold
    ).numpy()
    kept = kernels.nms(boxes, scores, threshold=threshold)
    assert np.array_equal(kept, order[expected])
    assert np.array_equal(kept, reference.nms(boxes, scores, threshold=threshold))


def test_decoding_is_torchvisions():
    from torchvision.models.detection._utils import BoxCoder

    rng = np.random.default_rng(0)
    boxes = rng.uniform(0, 50, (40, 4))
    boxes[:, 2:] += boxes[:, :2]
    deltas = rng.standard_normal((40, 4)) * 5
    for weights in ((1.0, 1.0, 1.0, 1.0), (10.0, 10.0, 5.0, 5.0)):
        expected = BoxCoder(weights).decode_single(
            torch.from_numpy(deltas), torch.from_numpy(boxes)
        )
        result = reference.decode_boxes(deltas, boxes, weights)
        np.testing.assert_allclose(result, expected.numpy(), rtol=1e-12)
