"""Phases of a training run, each of which yields batches and turns one into losses.

One end-to-end phase is the paper's training; the others are in
``zsd_core.learning.training.cached`` and ``tuned``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, DistributedSampler, RandomSampler

from zsd_core.errors import ConfigError
from zsd_core.learning.experiment import Config
from zsd_core.learning.objective import Objective, Target
from zsd_core.learning.training.batches import TrainingImages, collate
from zsd_core.learning.training.cached import CachedProposals, CachedRegions
from zsd_core.learning.training.tuned import TunedTrunk

__all__ = ["EndToEnd", "Phase", "build_phases", "summed"]

Losses = dict[str, Tensor]


class Phase(Protocol):
    """A stretch of training with its own batches, losses, rate and trainable part."""

    name: str
    epochs: int
    learning_rate: float

    def prepare(self) -> None:
        """Do what must be done once before the first epoch, such as filling a cache."""

    def begin(self) -> None:
        """Do what belongs before the very first epoch; a resumed run skips it."""

    def steps(self) -> int:
        """Batches of an epoch, in this process."""

    def batches(self, epoch: int) -> Iterator[Any]:
        """The batches of an epoch, the same for the same seed and epoch."""

    def losses(self, batch: Any) -> Losses:
        """Weighted losses by name; their sum is what is minimised."""

    def parameters(self) -> list[nn.Parameter]:
        """Parameters that the optimiser changes."""


class EndToEnd:
    """The paper's training: all losses of eq. 13 and the RPN's, on images."""

    name = "end to end"

    def __init__(
        self,
        objective: Objective,
        forward: nn.Module,
        images: TrainingImages,
        config: Config,
        device: torch.device,
        processes: int = 1,
    ) -> None:
        training = config.training
        self.objective, self.forward, self.images, self.device = objective, forward, images, device
        self.epochs, self.seed = training.epochs, training.seed
        self.learning_rate = training.learning_rate
        self.order = torch.Generator()
        self.sampler = (
            DistributedSampler(images, seed=training.seed)
            if processes > 1
            else RandomSampler(images, generator=self.order)
        )
        self.loader = DataLoader(
            images,
            training.batch_size,
            sampler=self.sampler,
            collate_fn=collate,
            num_workers=training.workers,
        )

    def prepare(self) -> None:
        """Check on the first batch that g_s is not dead."""
        images, targets = next(self.batches(0))
        with torch.no_grad():
            maps = self.objective.model.trunk.backbone(images)
            features, objectness, deltas = self.objective.model.trunk.read(maps)
            regions = self.objective.sample_regions(objectness, deltas, targets)
            patches = self.objective.region_features(features, regions)
            f, _ = self.objective.model.head.describe(patches)
        self.objective.check_alive(f)

    def begin(self) -> None:
        """Nothing."""

    def steps(self) -> int:
        """Batches of an epoch, in this process."""
        return len(self.loader)

    def batches(self, epoch: int) -> Iterator[tuple[Tensor, list[Target]]]:
        """Images ``(N, 3, H, W)`` and their targets."""
        self.images.epoch = epoch
        if isinstance(self.sampler, DistributedSampler):
            self.sampler.set_epoch(epoch)
        else:
            self.order.manual_seed(self.seed * 100_003 + epoch)
        for images, targets in self.loader:
            yield images.to(self.device), [target.to(self.device) for target in targets]

    def losses(self, batch: tuple[Tensor, list[Target]]) -> Losses:
        """All losses."""
        losses: Losses = self.forward(*batch)
        return losses

    def parameters(self) -> list[nn.Parameter]:
        """Everything that is not frozen."""
        return [p for p in self.objective.parameters() if p.requires_grad]


def build_phases(
    objective: Objective,
    forward: nn.Module,
    images: TrainingImages,
    config: Config,
    device: torch.device,
    regions: Path,
    others: Sequence[Path] = (),
    processes: int = 1,
) -> list[Phase]:
    """The phases that ``training.cache`` asks for.

    Kept features are in ``regions``, or come there from one of ``others``.

    Raises:
        ConfigError: a cache is asked for, but the backbone is trained or several processes run.
    """
    if config.training.cache == "none":
        return [EndToEnd(objective, forward, images, config, device, processes)]
    if config.model.backbone.frozen != "all" or processes > 1:
        raise ConfigError(
            "training.cache is 'regions', which needs backbone.frozen: all and one process; got "
            f"{config.model.backbone.frozen!r} and {processes}. Set training.cache to none."
        )
    proposals = CachedProposals(objective, images, config, device, regions.with_name("maps.pt"))
    tuned = [TunedTrunk(proposals)] if config.training.trunk_epochs else []
    return [proposals, *tuned, CachedRegions(proposals, regions, others)]


def summed(losses: Mapping[str, Tensor]) -> Tensor:
    """The number that is minimised."""
    return torch.stack(list(losses.values())).sum()
