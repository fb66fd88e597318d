"""Matching, sampling and the offsets of eq. 4."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torchvision.models.detection._utils import BoxCoder

from zsd_core.kernels import reference
from zsd_core.learning.targets import BOX_WEIGHTS, RPN_WEIGHTS, encode, match, sample


def boxes(count, seed=0):
    generator = torch.Generator().manual_seed(seed)
    corner = 200 * torch.rand(count, 2, generator=generator, dtype=torch.float64)
    size = 5 + 100 * torch.rand(count, 2, generator=generator, dtype=torch.float64)
    return torch.cat([corner, corner + size], dim=1)


def test_encode_by_hand():
    box, truth = torch.tensor([[10.0, 20, 30, 60]]), torch.tensor([[14.0, 10, 24, 90]])
    # centres (20, 40) and (19, 50), sizes (20, 40) and (10, 80)
    expected = [-1 / 20, 10 / 40, math.log(0.5), math.log(2)]
    assert encode(box, truth, RPN_WEIGHTS)[0].tolist() == pytest.approx(expected)
    scaled = [10 * expected[0], 10 * expected[1], 5 * expected[2], 5 * expected[3]]
    assert encode(box, truth, BOX_WEIGHTS)[0].tolist() == pytest.approx(scaled)


@pytest.mark.parametrize("weights", [RPN_WEIGHTS, BOX_WEIGHTS])
def test_encode_is_torchvision_s(weights):
    a, b = boxes(20), boxes(20, seed=1)
    (expected,) = BoxCoder(weights).encode([b], [a])
    torch.testing.assert_close(encode(a, b, weights), expected)


def test_detect_undoes_encode():
    truth, regions = boxes(5), boxes(5, seed=1)
    found, *_ = reference.detect(
        np.eye(5),
        encode(regions, truth).numpy(),
        regions.numpy(),
        np.zeros(5, np.int32),
        np.array([[400.0, 400.0]]),
        np.full(5, 0.5),
        nms_threshold=1.0,
        max_detections=9,
        min_size=0.0,
    )
    np.testing.assert_allclose(found, truth.numpy(), rtol=1e-9)


def test_match_assigns_object_background_and_neither():
    truth = torch.tensor([[0.0, 0, 10, 10], [20, 20, 30, 30]])
    regions = torch.tensor(
        [[0.0, 0, 10, 10], [0, 0, 10, 20], [50, 50, 60, 60], [20, 20, 30, 29], [0, 0, 10, 30]]
    )
    assignment, best = match(regions, truth, torch.zeros(0, 4), positive=0.7, negative=0.4)
    assert assignment.tolist() == [0, -2, -1, 1, -1]
    assert best.tolist() == pytest.approx([1, 0.5, 0, 0.9, 1 / 3])


def test_match_keeps_the_best_anchor_of_every_object_and_ignores_weak_boxes():
    truth = torch.tensor([[0.0, 0, 10, 10]])
    anchors = torch.tensor([[0.0, 0, 10, 40], [0, 0, 10, 80], [50, 50, 60, 60], [70, 70, 80, 80]])
    weak = torch.tensor([[50.0, 50, 60, 60]])
    assignment, _ = match(anchors, truth, weak, positive=0.7, negative=0.3, keep_best=True)
    assert assignment.tolist() == [0, -1, -2, -1]


def test_a_tiny_box_claims_the_anchors_around_it_and_no_others():
    truth = torch.tensor([[5.0, 5, 5.05, 5.05]])  # IoU 1.6e-7 with the first, 0 with the rest
    anchors = torch.tensor([[-59.0, -59, 69, 69], [500, 0, 628, 128], [0, 500, 128, 628]])
    assignment, _ = match(
        anchors, truth, torch.zeros(0, 4), positive=0.7, negative=0.3, keep_best=True
    )
    assert assignment.tolist() == [0, -1, -1]


def test_match_without_objects_is_all_background():
    assignment, best = match(
        boxes(3), torch.zeros(0, 4), torch.zeros(0, 4), positive=0.5, negative=0.5, keep_best=True
    )
    assert assignment.tolist() == [-1, -1, -1]
    assert best.tolist() == [0, 0, 0]


@pytest.mark.parametrize(
    ("objects", "background", "expected"),
    [(0, 0, (0, 0)), (0, 9, (0, 8)), (9, 0, (2, 0)), (1, 2, (1, 2)), (9, 99, (2, 6))],
)
def test_sample_keeps_to_its_count_and_share(objects, background, expected):
    assignment = torch.cat(
        [torch.zeros(objects), torch.full((background,), -1), torch.full((3,), -2)]
    )
    chosen = sample(assignment.long(), 8, 0.25, torch.Generator().manual_seed(0))
    assert tuple(len(rows) for rows in chosen) == expected
    assert (assignment[chosen[0]] == 0).all()
    assert (assignment[chosen[1]] == -1).all()
    assert all(len(set(rows.tolist())) == len(rows) for rows in chosen)
