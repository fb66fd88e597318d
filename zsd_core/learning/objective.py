"""The training objective, eq. 13 with the RPN's losses, over a model and its class vectors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zsd_core import kernels
from zsd_core.learning import ops
from zsd_core.learning.experiment import Config
from zsd_core.learning.losses import box_regression_loss
from zsd_core.learning.models import ContrastZSD
from zsd_core.learning.models.networks import roi_pool
from zsd_core.learning.quality import assign, quality_losses
from zsd_core.learning.targets import BOX_WEIGHTS, RPN_WEIGHTS, encode, match, sample

__all__ = ["Objective", "Regions", "Target"]

ANCHORS_PER_IMAGE = 256  # sampled by the RPN's loss, half of them objects at most
REGION_CANDIDATES = 1000  # an image offers to the sampler, before and after NMS


@dataclass(frozen=True, slots=True)
class Target:
    """Labels of one training image.

    Attributes:
        boxes: ``(G, 4)`` in pixels of the network input.
        labels: ``(G,)`` seen class, from 1.
        ignored: ``(I, 4)`` boxes that are neither object nor background.
        size: height and width of the resized image without padding.
        machine: a machine made the boxes, so that some objects have none.
    """

    boxes: Tensor
    labels: Tensor
    ignored: Tensor
    size: tuple[int, int]
    machine: bool = False

    def to(self, device: torch.device) -> Target:
        """The same on a device."""
        return Target(
            self.boxes.to(device),
            self.labels.to(device),
            self.ignored.to(device),
            self.size,
            self.machine,
        )


@dataclass(frozen=True, slots=True)
class Regions:
    """Regions sampled for the heads.

    Attributes:
        boxes: ``(R, 4)`` in pixels of the network input.
        batch_indices: ``(R,)`` int32.
        labels: ``(R,)``, 0 is background.
        offsets: ``(R, 4)`` targets of eq. 5, zero for background.
    """

    boxes: Tensor
    batch_indices: Tensor
    labels: Tensor
    offsets: Tensor


class Objective(nn.Module):
    """Losses of a batch; the model is inside, so that one wrapper distributes both."""

    def __init__(
        self, model: ContrastZSD, config: Config, seen_vectors: Tensor, unseen_vectors: Tensor
    ) -> None:
        super().__init__()
        self.model, self.config = model, config
        model.scorer.read_classes(seen_vectors, unseen_vectors)
        anchors = torch.from_numpy(config.model.proposals.anchors())
        self.register_buffer("anchors", anchors, persistent=False)

    def forward(self, images: Tensor, targets: Sequence[Target]) -> dict[str, Tensor]:
        """All losses of a batch of images ``(N, 3, H, W)``, by name."""
        maps = self.model.trunk.backbone(images)
        return self.forward_maps(maps, targets)

    def forward_maps(
        self, maps: Mapping[int, Tensor], targets: Sequence[Target]
    ) -> dict[str, Tensor]:
        """Losses from the backbone's maps, which a frozen backbone lets one keep."""
        features, objectness, deltas = self.model.trunk.read(maps)
        losses = self.rpn_losses(objectness, deltas, targets)
        regions = self.sample_regions(objectness.detach(), deltas.detach(), targets)
        described = self.model.head.describe(self.region_features(features, regions))
        return losses | self.head_losses(*described, regions.labels, regions.offsets)

    def rpn_losses(
        self, objectness: Tensor, deltas: Tensor, targets: Sequence[Target]
    ) -> dict[str, Tensor]:
        """Faster R-CNN's two losses over sampled anchors, section 3.4."""
        count, anchors_per_cell, height, width = objectness.shape
        logits = objectness.permute(0, 2, 3, 1).reshape(count, -1)
        offsets = deltas.view(count, anchors_per_cell, 4, height, width)
        offsets = offsets.permute(0, 3, 4, 1, 2).reshape(count, -1, 4)
        anchors = self._anchor_grid(height, width)
        if self.config.model.proposals.objectness == "quality":
            return self._quality_losses(logits, offsets, anchors, targets)
        quality = self.config.model.proposals.objectness == "iou"
        score_terms, box_terms = [], []
        for logit, offset, target in zip(logits, offsets, targets, strict=True):
            inside = self._inside(anchors, target.size)
            bounds = (0.3, 0.3) if quality else (0.7, 0.3)
            assignment, best = match(
                anchors,
                target.boxes,
                target.ignored,
                positive=bounds[0],
                negative=bounds[1],
                keep_best=True,
            )
            assignment[~inside] = -2
            objects, background = sample(assignment, ANCHORS_PER_IMAGE, 0.5)
            chosen = objects if quality else torch.cat([objects, background])
            truth = best[chosen] if quality else (assignment[chosen] >= 0).float()
            score_terms.append(
                F.binary_cross_entropy_with_logits(logit[chosen].float(), truth, reduction="sum")
                / max(len(chosen), 1)
            )
            wanted = encode(anchors[objects], target.boxes[assignment[objects]], RPN_WEIGHTS)
            box_terms.append(
                F.smooth_l1_loss(offset[objects].float(), wanted, beta=1 / 9, reduction="sum")
                / max(len(chosen), 1)
            )
        return {
            "rpn_objectness": torch.stack(score_terms).mean(),
            "rpn_box": torch.stack(box_terms).mean(),
        }

    def _quality_losses(
        self, logits: Tensor, offsets: Tensor, anchors: Tensor, targets: Sequence[Target]
    ) -> dict[str, Tensor]:
        terms = []
        for logit, offset, target in zip(logits, offsets, targets, strict=True):
            assignment = assign(
                anchors, target.boxes, target.ignored, self._inside(anchors, target.size)
            )
            background = self.config.training.machine_background if target.machine else 1.0
            terms.append(
                quality_losses(logit, offset, anchors, target.boxes, assignment, background)
            )
        scores, boxes = (torch.stack(column).mean() for column in zip(*terms, strict=True))
        return {"rpn_objectness": scores, "rpn_box": boxes}

    @torch.no_grad()
    def sample_regions(
        self, objectness: Tensor, deltas: Tensor, targets: Sequence[Target]
    ) -> Regions:
        """Propose regions, add the true boxes, and draw those the heads learn from."""
        proposals = self.config.model.proposals
        training = self.config.training
        arrays = kernels.propose(
            objectness.float().cpu().numpy(),
            deltas.float().cpu().numpy(),
            proposals.anchors(),
            np.asarray([target.size for target in targets], np.float32),
            stride=proposals.stride,
            pre_nms_top=REGION_CANDIDATES,
            post_nms_top=REGION_CANDIDATES,
            nms_threshold=proposals.nms_threshold,
            min_size=proposals.min_size,
        )
        rois, batch_indices = (torch.from_numpy(a).to(objectness.device) for a in arrays[:2])
        parts = []
        for index, target in enumerate(targets):
            boxes = torch.cat([rois[batch_indices == index], target.boxes])
            assignment, _ = match(boxes, target.boxes, target.ignored, positive=0.5, negative=0.5)
            objects, background = sample(assignment, training.regions, training.foreground)
            chosen = torch.cat([objects, background])
            labels = torch.zeros(len(chosen), dtype=torch.long, device=boxes.device)
            offsets = boxes.new_zeros(len(chosen), 4)
            owner = assignment[objects]
            labels[: len(objects)] = target.labels[owner]
            offsets[: len(objects)] = encode(boxes[objects], target.boxes[owner], BOX_WEIGHTS)
            where = torch.full((len(chosen),), index, dtype=torch.int32, device=boxes.device)
            parts.append((boxes[chosen], where, labels, offsets))
        return Regions(*(torch.cat(column) for column in zip(*parts, strict=True)))

    def region_features(self, features: Tensor, regions: Regions) -> Tensor:
        """Cut regions ``(R, C, PH, PW)`` from the trunk's features ``(N, C, h, w)``."""
        config = self.config.model.regions
        if config.pooling == "pool":
            return roi_pool(features, regions.boxes, regions.batch_indices, config)
        return ops.roi_align(
            features,
            regions.boxes,
            regions.batch_indices,
            output_size=config.output_size,
            spatial_scale=1 / config.stride,
            sampling_ratio=config.sampling_ratio,
        )

    def head_losses(
        self, f: Tensor, bins: Tensor, labels: Tensor, offsets: Tensor
    ) -> dict[str, Tensor]:
        """Eq. 5, 8, 9 and 12, weighted as eq. 13 says, of what ``Head.describe`` returns."""
        config = self.config.loss
        deltas = self.model.head.regress(f, bins)
        return {
            "box": box_regression_loss(deltas, offsets, labels, reduction=config.reduction),
            **self.scoring_losses(f, labels),
        }

    def scoring_losses(self, f: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """The same without the box regression's."""
        f = F.dropout(f, self.config.training.dropout)
        return self.model.scorer.losses(self.model.head.project_visual(f), labels, self.config.loss)

    @torch.no_grad()
    def check_alive(self, f: Tensor) -> None:
        """Raise if the scoring method could not learn from features ``(R, F)``, before training."""
        self.model.scorer.check_alive(self.model.head.project_visual(f))

    def _anchor_grid(self, height: int, width: int) -> Tensor:
        stride = self.config.model.proposals.stride
        anchors = cast(Tensor, self.anchors)
        y, x = torch.meshgrid(
            torch.arange(height, device=anchors.device) * stride,
            torch.arange(width, device=anchors.device) * stride,
            indexing="ij",
        )
        shifts = torch.stack([x, y, x, y], dim=-1).view(-1, 1, 4)
        return (shifts + anchors).view(-1, 4)

    def _inside(self, anchors: Tensor, size: tuple[int, int]) -> Tensor:
        """Anchors whose cell lies in the image and not in its padding."""
        centre = (anchors[:, :2] + anchors[:, 2:]) / 2
        return (centre[:, 0] < size[1]) & (centre[:, 1] < size[0])
