"""The proposal network's losses where objectness predicts how well a box fits.

Every anchor takes part. The score of one that stands for an object is the IoU its own box reaches
(quality focal loss), of every other one 0; boxes are fitted by generalised IoU. Objects weigh
alike, large or small, however many anchors they have.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.ops import box_iou, generalized_box_iou_loss

from zsd_core.learning.targets import decode

__all__ = ["Assignment", "assign", "quality_losses"]

NEAREST = 9  # anchors that an object has at least
OBJECT, BACKGROUND = 0.5, 0.35  # IoU from which an anchor is an object, and to which background


@dataclass(frozen=True, slots=True)
class Assignment:
    """Assignment of every anchor of an image.

    Attributes:
        anchors: ``(P,)`` those that stand for an object.
        owners: ``(P,)`` the object of each.
        weights: ``(P,)`` their part in the loss, at most ``NEAREST`` per object together.
        left_out: ``(L,)`` those that are neither object nor background.
    """

    anchors: Tensor
    owners: Tensor
    weights: Tensor
    left_out: Tensor


@torch.no_grad()
def assign(anchors: Tensor, boxes: Tensor, ignored: Tensor, inside: Tensor) -> Assignment:
    """Give every object the anchors that overlap it, or else its nearest.

    Args:
        anchors: ``(M, 4)``.
        boxes: ``(G, 4)``; G may be 0.
        ignored: ``(I, 4)`` boxes that are neither object nor background.
        inside: ``(M,)`` anchors that take part.
    """
    near = ~inside
    if len(ignored):
        near |= box_iou(ignored, anchors).max(dim=0).values >= BACKGROUND
    none = torch.zeros(0, dtype=torch.long, device=anchors.device)
    if not len(boxes):
        return Assignment(none, none, anchors.new_zeros(0), near.nonzero()[:, 0])
    overlaps = box_iou(boxes, anchors) * inside  # (G, M)
    near |= overlaps.max(dim=0).values >= BACKGROUND
    wanted = overlaps >= OBJECT
    nearest = overlaps.topk(min(NEAREST, overlaps.shape[1]), dim=1)
    wanted.scatter_(1, nearest.indices, nearest.values > 0)
    best, owners = overlaps.masked_fill(~wanted, -1).max(dim=0)
    chosen = (best > 0).nonzero()[:, 0]
    near[chosen] = False
    owners = owners[chosen]
    counts = torch.bincount(owners, minlength=len(boxes))
    weights = (NEAREST / counts[owners].float()).clamp(max=1)
    return Assignment(chosen, owners, weights, near.nonzero()[:, 0])


def quality_losses(
    logits: Tensor,
    deltas: Tensor,
    anchors: Tensor,
    boxes: Tensor,
    assignment: Assignment,
    background: float = 1.0,
) -> tuple[Tensor, Tensor]:
    """Loss of scores and loss of boxes of one image.

    Args:
        logits: ``(M,)`` objectness before the sigmoid.
        deltas: ``(M, 4)``.
        anchors: ``(M, 4)``.
        boxes: ``(G, 4)`` the objects.
        assignment: of those anchors to those objects.
        background: weight of the anchors that stand for no object.
    """
    logits, chosen = logits.float(), assignment.anchors
    total = assignment.weights.sum().clamp(min=1)
    keep = torch.ones_like(logits)
    keep[assignment.left_out] = 0
    keep[chosen] = 0
    empty = (keep * logits.sigmoid().square() * F.softplus(logits)).sum() * background
    truth = boxes[assignment.owners]
    found = decode(anchors[chosen], deltas[chosen].float())
    misfit = generalized_box_iou_loss(found, truth)
    quality = _paired_iou(found.detach(), truth)
    own = logits[chosen]
    scores = F.binary_cross_entropy_with_logits(own, quality, reduction="none")
    scores = scores * (quality - own.sigmoid()).square()
    return (
        ((scores * assignment.weights).sum() + empty) / total,
        (misfit * assignment.weights).sum() / total,
    )


def _paired_iou(boxes: Tensor, others: Tensor) -> Tensor:
    """IoU ``(P,)`` of each of ``(P, 4)`` with its partner."""
    sides = torch.minimum(boxes[:, 2:], others[:, 2:]) - torch.maximum(boxes[:, :2], others[:, :2])
    shared = sides.clamp(min=0).prod(dim=1)
    areas = [(x[:, 2:] - x[:, :2]).prod(dim=1) for x in (boxes, others)]
    return shared / (areas[0] + areas[1] - shared).clamp(min=1e-9)
