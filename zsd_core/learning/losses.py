"""The losses of the paper, one function per equation.

Every mean is over regions; ``reduction="sum"`` is the equation as printed. All compute in float32,
whatever autocast does around them.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from zsd_core.errors import expect_shapes

__all__ = [
    "box_regression_loss",
    "contrastive_loss",
    "seen_classification_loss",
    "unseen_classification_loss",
]


def _reduce(values: Tensor, count: int, reduction: str) -> Tensor:
    return values.sum() if reduction == "sum" else values.sum() / max(count, 1)


def box_regression_loss(
    deltas: Tensor, targets: Tensor, labels: Tensor, *, reduction: str = "mean"
) -> Tensor:
    """Eq. 5: smooth L1 between predicted and true box offsets, over the foreground regions.

    The mean divides by *all* regions, as Faster R-CNN does, so that the term does not grow when
    few regions are objects.

    Args:
        deltas: ``(R, 4)`` predicted offsets.
        targets: ``(R, 4)`` true offsets (``zsd_core.learning.targets.encode``).
        labels: ``(R,)``, 0 is background.
        reduction: "mean" or "sum".
    """
    expect_shapes(
        "box_regression_loss",
        "One row per region.",
        deltas=(deltas, "R 4"),
        targets=(targets, "R 4"),
        labels=(labels, "R"),
    )
    foreground = labels > 0
    values = F.smooth_l1_loss(
        deltas[foreground].float(), targets[foreground].float(), reduction="none"
    )
    return _reduce(values, len(labels), reduction)


def seen_classification_loss(
    seen_logits: Tensor, labels: Tensor, *, reduction: str = "mean"
) -> Tensor:
    """Eq. 8: cross entropy over background and seen classes.

    Args:
        seen_logits: ``(R, 1 + Ks)``, o_s before the softmax; column 0 is the background.
        labels: ``(R,)`` in ``[0, Ks]``.
        reduction: "mean" or "sum".
    """
    expect_shapes(
        "seen_classification_loss",
        "One row per region.",
        seen_logits=(seen_logits, "R K"),
        labels=(labels, "R"),
    )
    values = F.cross_entropy(seen_logits.float(), labels, reduction="none")
    return _reduce(values, len(labels), reduction)


def unseen_classification_loss(
    unseen_logits: Tensor,
    labels: Tensor,
    similarity: Tensor,
    *,
    background: bool = True,
    reduction: str = "mean",
) -> Tensor:
    """Eq. 9: binary cross entropy of o_u against the row of S of each region's class.

    Args:
        unseen_logits: ``(R, U)``, o_u before the sigmoid.
        labels: ``(R,)`` in ``[0, Ks]``.
        similarity: ``(1 + Ks, U)`` or more rows, S; row 0, the background, is zero.
        background: background regions take part, with the target zero.
        reduction: "mean" over regions and unseen classes, or "sum".
    """
    expect_shapes(
        "unseen_classification_loss",
        "S needs one column per unseen class.",
        unseen_logits=(unseen_logits, "R U"),
        labels=(labels, "R"),
        similarity=(similarity, "K U"),
    )
    if not background:
        kept = labels > 0
        unseen_logits, labels = unseen_logits[kept], labels[kept]
    values = F.binary_cross_entropy_with_logits(
        unseen_logits.float(), similarity[labels].float(), reduction="none"
    )
    return _reduce(values, values.numel(), reduction)


def contrastive_loss(
    z: Tensor,
    labels: Tensor,
    *,
    temperature: float = 0.1,
    normalized: bool = True,
    background: bool = False,
    reduction: str = "mean",
) -> Tensor:
    """Eq. 11 and 12: pull regions of one class together, push the rest away.

    A region's denominator holds every other region of the batch, never itself; the loss of a region
    is the mean over its positives, and a region without positives is skipped.

    Args:
        z: ``(R, P)``, h_v of the regions.
        labels: ``(R,)``, 0 is background.
        temperature: tau.
        normalized: scale z to unit length first, as in supervised contrastive learning [54].
        background: background regions are anchors too (they are negatives of objects always).
        reduction: "mean" or "sum" over the regions that have positives.
    """
    expect_shapes("contrastive_loss", "One row per region.", z=(z, "R P"), labels=(labels, "R"))
    z = F.normalize(z.float(), dim=1) if normalized else z.float()
    others = ~torch.eye(len(z), dtype=torch.bool, device=z.device)
    positive = (labels[:, None] == labels) & others  # (R, R)
    logits = (z @ z.T / temperature).masked_fill(~others, -torch.inf)
    log_share = logits - logits.logsumexp(dim=1, keepdim=True)
    counts = positive.sum(dim=1)
    anchors = counts > 0 if background else (counts > 0) & (labels > 0)
    values = -log_share.masked_fill(~positive, 0).sum(dim=1)[anchors] / counts[anchors]
    return _reduce(values, len(values), reduction)
