"""The proposal network's quality losses: who stands for what, and what is minimised."""

from __future__ import annotations

import pytest
import torch
from torchvision.ops import box_iou

from zsd_core.learning.quality import NEAREST, assign, quality_losses
from zsd_core.learning.targets import decode, encode

NOTHING = torch.zeros(0, 4)


def grid(size=64, stride=8, side=16.0):
    y, x = torch.meshgrid(*[torch.arange(0, size, stride).float()] * 2, indexing="ij")
    centres = torch.stack([x, y], dim=-1).view(-1, 2)
    return torch.cat([centres - side / 2, centres + side / 2], dim=1)


def assigned(anchors, boxes, ignored=NOTHING):
    return assign(anchors, boxes, ignored, torch.ones(len(anchors), dtype=torch.bool))


def test_decoding_undoes_encoding():
    boxes, truth = grid(), grid(side=24.0) + 3
    torch.testing.assert_close(decode(boxes, encode(boxes, truth, (1, 1, 1, 1))), truth)


def test_a_tiny_object_still_has_its_nearest_anchors():
    anchors, boxes = grid(), torch.tensor([[30.0, 30.0, 33.0, 33.0]])
    found = assigned(anchors, boxes)
    assert 1 <= len(found.anchors) <= NEAREST
    assert (box_iou(boxes, anchors[found.anchors]) > 0).all()
    assert (found.owners == 0).all()


def test_a_large_object_weighs_no_more_than_a_small_one():
    anchors = torch.cat([grid(side=48.0), grid(stride=2, side=48.0)])
    found = assigned(anchors, torch.tensor([[8.0, 8.0, 56.0, 56.0]]))
    assert len(found.anchors) > NEAREST
    torch.testing.assert_close(found.weights.sum(), torch.tensor(float(NEAREST)))


def test_an_anchor_of_two_objects_goes_to_the_one_it_fits_better():
    anchors = torch.tensor([[0.0, 0.0, 10.0, 10.0]])
    boxes = torch.tensor([[0.0, 0.0, 10.0, 14.0], [0.0, 0.0, 10.0, 11.0]])
    assert assigned(anchors, boxes).owners.tolist() == [1]


def test_anchors_of_ignored_boxes_and_of_the_padding_are_left_out():
    anchors = torch.tensor(
        [[0.0, 0.0, 10.0, 10.0], [20.0, 0.0, 30.0, 10.0], [50.0, 50.0, 60.0, 60.0]]
    )
    inside = torch.tensor([True, True, False])
    found = assign(anchors, NOTHING, torch.tensor([[0.0, 0.0, 10.0, 12.0]]), inside)
    assert found.left_out.tolist() == [0, 2]
    assert not len(found.anchors)


def test_perfect_boxes_with_sure_scores_cost_nothing():
    anchors, boxes = grid(), torch.tensor([[18.0, 20.0, 33.0, 37.0]])
    found = assigned(anchors, boxes)
    logits = torch.full((len(anchors),), -20.0)
    deltas = torch.zeros(len(anchors), 4)
    logits[found.anchors] = 20.0
    deltas[found.anchors] = encode(anchors[found.anchors], boxes[found.owners], (1, 1, 1, 1))
    scores, misfit = quality_losses(logits, deltas, anchors, boxes, found)
    assert scores < 1e-4
    assert misfit < 1e-4


def test_the_score_learns_the_fit_of_the_predicted_box():
    anchors, boxes = grid(), torch.tensor([[16.0, 16.0, 32.0, 32.0]])
    found = assigned(anchors, boxes)
    logits = torch.zeros(len(anchors), requires_grad=True)
    deltas = torch.zeros(len(anchors), 4)
    optimizer = torch.optim.Adam([logits], 0.1)
    for _ in range(400):
        optimizer.zero_grad()
        quality_losses(logits, deltas, anchors, boxes, found)[0].backward()
        optimizer.step()
    fit = box_iou(anchors[found.anchors], boxes)[:, 0]
    torch.testing.assert_close(logits.detach().sigmoid()[found.anchors], fit, atol=0.05, rtol=0)


@pytest.mark.parametrize("background", [0.0, 0.5])
def test_background_weighs_as_asked(background):
    anchors = grid()
    found = assigned(anchors, NOTHING)
    logits, deltas = torch.zeros(len(anchors)), torch.zeros(len(anchors), 4)
    whole, misfit = quality_losses(logits, deltas, anchors, NOTHING, found)
    part, _ = quality_losses(logits, deltas, anchors, NOTHING, found, background)
    torch.testing.assert_close(part, background * whole)
    assert misfit == 0
