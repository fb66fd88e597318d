"""Every equation against a hand computation in float64, one number at a time."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from zsd_core.errors import ShapeError
from zsd_core.learning.losses import (
    box_regression_loss,
    contrastive_loss,
    seen_classification_loss,
    unseen_classification_loss,
)

LABELS = torch.tensor([0, 2, 1, 2, 0, 1, 3])


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_box_regression_loss_is_smooth_l1_of_foreground_over_all_regions():
    deltas, targets = 2 * random(7, 4), random(7, 4, seed=1)
    expected = 0.0
    for i, label in enumerate(LABELS):
        for j in range(4):
            d = abs(float(deltas[i, j] - targets[i, j]))
            expected += (0.5 * d * d if d < 1 else d - 0.5) if label > 0 else 0.0
    assert box_regression_loss(deltas, targets, LABELS).item() == pytest.approx(expected / 7)
    total = box_regression_loss(deltas, targets, LABELS, reduction="sum")
    assert total.item() == pytest.approx(expected)


def test_seen_classification_loss_is_cross_entropy_with_background_in_column_0():
    logits = random(7, 4)
    expected = 0.0
    for row, label in zip(logits.tolist(), LABELS.tolist(), strict=True):
        expected -= math.log(math.exp(row[label]) / sum(math.exp(v) for v in row))
    assert seen_classification_loss(logits, LABELS).item() == pytest.approx(expected / 7)


@pytest.mark.parametrize("background", [True, False])
def test_unseen_classification_loss_is_binary_cross_entropy_against_s(background):
    logits = random(7, 2)
    similarity = torch.tensor([[0, 0], [0.3, 0.7], [0.9, 0.1], [0.5, 0.5]], dtype=torch.float64)
    terms = []
    for row, label in zip(logits.tolist(), LABELS.tolist(), strict=True):
        if label == 0 and not background:
            continue
        for value, share in zip(row, similarity[label].tolist(), strict=True):
            o = 1 / (1 + math.exp(-value))
            terms.append(-share * math.log(o) - (1 - share) * math.log(1 - o))
    loss = unseen_classification_loss(logits, LABELS, similarity, background=background)
    assert loss.item() == pytest.approx(sum(terms) / len(terms))


@pytest.mark.parametrize("background", [True, False])
@pytest.mark.parametrize("normalized", [True, False])
def test_contrastive_loss_averages_over_positives_and_never_counts_itself(normalized, background):
    z, tau = random(7, 5), 0.5
    rows = z / z.norm(dim=1, keepdim=True) if normalized else z
    rows, labels, losses = rows.tolist(), LABELS.tolist(), []

    def similar(i, k):
        return math.exp(float(np.dot(rows[i], rows[k])) / tau)

    for i, label in enumerate(labels):
        positives = [k for k in range(7) if k != i and labels[k] == label]
        if not positives or (label == 0 and not background):
            continue
        everything = sum(similar(i, k) for k in range(7) if k != i)
        losses.append(
            sum(-math.log(similar(i, p) / everything) for p in positives) / len(positives)
        )
    loss = contrastive_loss(
        z, LABELS, temperature=tau, normalized=normalized, background=background
    )
    assert loss.item() == pytest.approx(sum(losses) / len(losses), rel=1e-5)


@pytest.mark.parametrize("labels", [[], [1], [1, 2, 3], [0, 0]])
def test_contrastive_loss_without_positives_is_zero_and_has_a_finite_gradient(labels):
    z = random(len(labels), 5).requires_grad_()
    loss = contrastive_loss(z, torch.tensor(labels, dtype=torch.long))
    loss.backward()
    assert loss.item() == 0
    assert torch.isfinite(z.grad).all()


def test_contrastive_gradient_is_finite_and_pulls_a_class_together():
    z = random(6, 5).requires_grad_()
    labels = torch.tensor([1, 1, 2, 2, 0, 3])
    before = contrastive_loss(z, labels)
    before.backward()
    assert torch.isfinite(z.grad).all()
    assert contrastive_loss(z.detach() - 0.1 * z.grad, labels) < before


@pytest.mark.parametrize(
    "loss",
    [
        lambda: box_regression_loss(random(3, 4), random(3, 4), torch.zeros(3)),
        lambda: box_regression_loss(random(0, 4), random(0, 4), torch.zeros(0)),
        lambda: seen_classification_loss(random(0, 4), torch.zeros(0, dtype=torch.long)),
        lambda: unseen_classification_loss(
            random(3, 2), torch.zeros(3, dtype=torch.long), random(1, 2), background=False
        ),
    ],
)
def test_an_image_without_objects_gives_zero_and_not_nan(loss):
    assert loss().item() == 0


def test_a_wrong_shape_is_named():
    with pytest.raises(ShapeError, match=r"similarity has shape \(4, 3\).*U=2"):
        unseen_classification_loss(random(7, 2), LABELS, random(4, 3))
