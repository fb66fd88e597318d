"""Targets of regions and anchors: matching, sampling and the offsets of eq. 4."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torchvision.ops import box_iou

from zsd_core.errors import expect_shapes

__all__ = ["BOX_WEIGHTS", "RPN_WEIGHTS", "decode", "encode", "match", "sample"]

# Scales of (dx, dy, dw, dh), Faster R-CNN's; ``propose`` and ``detect`` divide by the same.
RPN_WEIGHTS = (1.0, 1.0, 1.0, 1.0)
BOX_WEIGHTS = (10.0, 10.0, 5.0, 5.0)


def encode(boxes: Tensor, truth: Tensor, weights: tuple[float, ...] = BOX_WEIGHTS) -> Tensor:
    """Offsets that turn ``boxes`` into ``truth``; both ``(R, 4)``, ``x1 y1 x2 y2``.

    Eq. 4 as printed divides absolute centre differences by the centre coordinate, which would
    depend on where in the image a box lies and lose its sign; this is the coding of Faster R-CNN
    that the paper refers to: signed differences over width and height, logarithms of size ratios.
    """
    expect_shapes("encode", "One true box per box.", boxes=(boxes, "R 4"), truth=(truth, "R 4"))
    size, true_size = boxes[:, 2:] - boxes[:, :2], truth[:, 2:] - truth[:, :2]
    shift = (truth[:, :2] + true_size / 2 - boxes[:, :2] - size / 2) / size
    scale = torch.log(true_size / size)
    return torch.cat([shift, scale], dim=1) * shift.new_tensor(weights)


def decode(boxes: Tensor, offsets: Tensor, weights: tuple[float, ...] = RPN_WEIGHTS) -> Tensor:
    """Inverse of ``encode``: move ``boxes`` by ``offsets``, both ``(R, 4)``.

    Logarithms of size ratios are cut at log(1000 / 16), as the kernels do.
    """
    expect_shapes("decode", "Four offsets per box.", boxes=(boxes, "R 4"), offsets=(offsets, "R 4"))
    shift, scale = (offsets / offsets.new_tensor(weights)).split(2, dim=1)
    size = boxes[:, 2:] - boxes[:, :2]
    centre = boxes[:, :2] + size / 2 + shift * size
    half = size * scale.clamp(max=math.log(1000 / 16)).exp() / 2
    return torch.cat([centre - half, centre + half], dim=1)


def match(
    boxes: Tensor,
    truth: Tensor,
    ignored: Tensor,
    *,
    positive: float,
    negative: float,
    keep_best: bool = False,
) -> tuple[Tensor, Tensor]:
    """Assign each box to the true box it overlaps most.

    Args:
        boxes: ``(R, 4)`` anchors or regions.
        truth: ``(G, 4)`` boxes to learn; G may be 0.
        ignored: ``(I, 4)`` boxes that are neither object nor background (weak labels).
        positive: IoU from which a box is an object.
        negative: IoU below which it is background; between the two it is left out.
        keep_best: every true box also claims the boxes that overlap it most (anchors).

    Returns:
        ``(R,)`` index into ``truth``, -1 background, -2 left out; and ``(R,)`` the best IoU.
    """
    assignment = torch.full((len(boxes),), -1, dtype=torch.long, device=boxes.device)
    best = boxes.new_zeros(len(boxes))
    if len(truth):
        overlaps = box_iou(truth, boxes)  # (G, R)
        best, index = overlaps.max(dim=0)
        assignment[best >= negative] = -2
        assignment = torch.where(best >= positive, index, assignment)
        if keep_best:
            of_truth = overlaps.max(dim=1, keepdim=True).values
            # Equal but for rounding, and never the overlap 0 that a tiny box has with most.
            chosen = ((overlaps > 0) & (overlaps >= of_truth * (1 - 1e-5))).nonzero()
            assignment[chosen[:, 1]] = chosen[:, 0]
    if len(ignored):
        near = box_iou(ignored, boxes).max(dim=0).values >= negative
        assignment[near & (assignment == -1)] = -2
    return assignment, best


def sample(
    assignment: Tensor, count: int, share: float, generator: torch.Generator | None = None
) -> tuple[Tensor, Tensor]:
    """Draw at most ``count`` rows, at most ``share`` of them objects.

    Returns:
        Indices of the objects and of the background drawn.
    """
    objects, background = (assignment >= 0).nonzero()[:, 0], (assignment == -1).nonzero()[:, 0]
    objects = _draw(objects, min(len(objects), int(count * share)), generator)
    background = _draw(background, min(len(background), count - len(objects)), generator)
    return objects, background


def _draw(rows: Tensor, count: int, generator: torch.Generator | None) -> Tensor:
    return rows[torch.randperm(len(rows), generator=generator)[:count].to(rows.device)]
