"""The trunk whole, after its proposal network has learned on the maps of a frozen backbone.

A backbone that only ever told ImageNet's classes apart hardly says where an object ends. Some
passes over images in which it may change find more regions, above all of classes that no box
showed.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from zsd_core.learning.objective import Target
from zsd_core.learning.training.cached import CachedProposals

__all__ = ["TunedTrunk"]

FROM_STRIDE = 8  # the backbone's stages before it stay as they are

Losses = dict[str, Tensor]


class TunedTrunk:
    """Backbone and RPN, on newly augmented images; the region stage is another network.

    In float32: the gradients of depthwise convolutions take longer in bfloat16, on CPUs too.
    """

    name = "trunk"

    def __init__(self, proposals: CachedProposals) -> None:
        self.proposals, self.config = proposals, proposals.config
        self.epochs = self.config.training.trunk_epochs
        self.learning_rate = self.config.training.trunk_rate

    def prepare(self) -> None:
        """Let the backbone change; the kept maps are another backbone's then."""
        self.proposals.maps.clear()
        for parameter in self._backbone():
            parameter.requires_grad_(True)

    def begin(self) -> None:
        """Nothing."""

    def steps(self) -> int:
        """Batches of an epoch: every image once."""
        return self.proposals.steps()

    def batches(self, epoch: int) -> Iterator[list[int]]:
        """Indices of images, which this epoch augments anew."""
        training = self.config.training
        self.proposals.images.epoch = training.versions + epoch
        generator = torch.Generator().manual_seed(training.seed * 100_003 + training.epochs + epoch)
        order = torch.randperm(len(self.proposals.images), generator=generator)
        yield from (chunk.tolist() for chunk in order.split(training.batch_size))

    def losses(self, batch: list[int]) -> Losses:
        """The two RPN losses; images of any size share a batch, one forward pass each."""
        return self.proposals.mean_losses(map(self._outputs, batch), len(batch))

    def _outputs(self, index: int) -> tuple[Tensor, Tensor, Target]:
        trunk, device = self.proposals.objective.model.trunk, self.proposals.device
        image, target = self.proposals.images[index]
        pixels = image[None].to(device, memory_format=torch.channels_last)
        objectness, deltas, _ = trunk.rpn(trunk.backbone(pixels))
        return objectness, deltas, target.to(device)

    def parameters(self) -> list[nn.Parameter]:
        """The backbone from ``FROM_STRIDE`` on, and the RPN."""
        return [*self._backbone(), *self.proposals.parameters()]

    def _backbone(self) -> list[nn.Parameter]:
        backbone = self.proposals.objective.model.trunk.backbone
        stages = zip(backbone.strides, backbone.stages.values(), strict=True)
        return [p for stride, stage in stages if stride >= FROM_STRIDE for p in stage.parameters()]
