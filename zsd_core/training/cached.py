"""Training from caches, for a backbone frozen whole: the RPN first, then the heads.

A frozen backbone gives the same maps at every epoch, and a trained RPN the same regions; keeping
them turns hours into minutes on a CPU.
"""

from __future__ import annotations

import dataclasses
import hashlib
import os
import shutil
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from zsd_core.checkpoint import save_whole
from zsd_core.errors import DataError
from zsd_core.experiment import Config, TrainingConfig
from zsd_core.objective import Objective, Target
from zsd_core.progress import Progress
from zsd_core.training.batches import TrainingImages

__all__ = ["CachedProposals", "CachedRegions", "class_weights", "read_regions", "region_batches"]

Losses = dict[str, Tensor]
Columns = tuple[Tensor, Tensor, Tensor, Tensor]


class CachedProposals:
    """The RPN alone, on kept backbone maps of every image and augmented version."""

    name = "proposals"

    def __init__(
        self, objective: Objective, images: TrainingImages, config: Config, device: torch.device
    ) -> None:
        self.objective, self.images, self.config, self.device = objective, images, config, device
        self.epochs = config.training.epochs
        self.maps: list[dict[int, Tensor]] = []
        self.targets: list[Target] = []

    @torch.no_grad()
    def prepare(self) -> None:
        """Run the backbone over every version of every image; float16 maps stay in memory."""
        for maps, target in self.run_backbone("keep backbone maps"):
            self.maps.append({s: maps[s].half() for s in self.config.model.proposals.levels})
            self.targets.append(target)
        torch.manual_seed(self.config.training.seed)  # whatever options of the heads have drawn

    def run_backbone(self, title: str) -> Iterator[tuple[dict[int, Tensor], Target]]:
        """The backbone's maps ``{stride: (1, C, h, w)}`` and the target of every image version."""
        training, backbone = self.config.training, self.objective.model.trunk.backbone
        loader = DataLoader(self.images, batch_size=None, num_workers=training.workers)
        with Progress(title, len(self.images) * training.versions) as progress:
            for version in range(training.versions):
                self.images.epoch = version
                for image, target in loader:
                    pixels = image[None].to(self.device, memory_format=torch.channels_last)
                    yield backbone(pixels), target.to(self.device)
                    progress.advance()

    def steps(self) -> int:
        """Batches of an epoch: one version of every image."""
        return -(-len(self.images) // self.config.training.batch_size)

    def batches(self, epoch: int) -> Iterator[list[int]]:
        """Indices of kept images; epochs take turns at the versions."""
        count, training = len(self.images), self.config.training
        generator = torch.Generator().manual_seed(training.seed * 100_003 + epoch)
        order = torch.randperm(count, generator=generator) + count * (epoch % training.versions)
        yield from (chunk.tolist() for chunk in order.split(training.batch_size))

    def losses(self, batch: list[int]) -> Losses:
        """The two RPN losses; images of any size share a batch, one forward pass each."""
        total: Losses = {}
        for index in batch:
            maps = {s: m.to(self.device).float() for s, m in self.maps[index].items()}
            target = self.targets[index]
            objectness, deltas, _ = self.objective.model.trunk.rpn(maps)
            for name, value in self.objective.rpn_losses(objectness, deltas, [target]).items():
                total[name] = total.get(name, torch.zeros_like(value)) + value / len(batch)
        return total

    def parameters(self) -> list[nn.Parameter]:
        """The RPN."""
        return [p for p in self.objective.model.trunk.rpn.parameters() if p.requires_grad]


class CachedRegions:
    """The heads, on kept features of the regions that the trained RPN proposes.

    They are written to ``file``, so that a resumed run, or another with other options of the heads,
    starts at once; ``others`` are files of other runs that may hold them.
    """

    name = "heads"

    def __init__(
        self, proposals: CachedProposals, file: Path, others: Sequence[Path] = ()
    ) -> None:  # fmt: skip
        self.proposals, self.objective = proposals, proposals.objective
        self.file, self.others = file, others
        self.config, self.device = proposals.config, proposals.device
        self.epochs = self.config.training.head_epochs
        self.columns: Columns | None = None

    @torch.no_grad()
    def prepare(self) -> None:
        """Read the kept features, or make them if they are not those of this RPN and data."""
        fingerprint = self._fingerprint()
        self.columns = self._find(fingerprint)
        if self.columns is None:
            self.columns = self._describe_regions()
            save_whole({"fingerprint": fingerprint, "columns": self.columns}, self.file)
        f = self.columns[0]
        self.objective.check_alive(f[: self.config.training.head_batch].to(self.device).float())
        torch.manual_seed(self.config.training.seed)  # as if nothing had been drawn before

    def _find(self, fingerprint: str) -> Columns | None:
        """The kept features of that fingerprint, if a file has them; ``self.file`` then does."""
        for path in (self.file, *self.others):
            if not path.exists():
                continue
            found, columns = read_regions(path)
            if found == fingerprint:
                print(f"kept regions: {path}", file=sys.stderr)
                if path != self.file:
                    _link(path, self.file)
                return columns
            print(f"{path} holds other regions than these options keep", file=sys.stderr)
        return None

    def _fingerprint(self) -> str:
        """Names everything that the kept features depend on."""
        digest = hashlib.sha256()
        for name, tensor in self.objective.model.state_dict().items():
            if name.startswith(("trunk.", "head.region_stage.")):
                digest.update(tensor.detach().cpu().numpy().tobytes())
        model, training = self.config.model, self.config.training
        network = dataclasses.replace(model.proposals, pre_nms_top=1, post_nms_top=1)
        images = self.proposals.images
        parts = (model.preprocess, network, model.regions, training.seed, training.regions,
                 training.foreground, training.versions, training.stretch, training.edges,
                 training.flip, images.labels)  # fmt: skip
        digest.update(repr(parts).encode())
        for record in images.records:
            digest.update(f"{record.path} {record.labels}".encode())
            digest.update(np.ascontiguousarray(record.boxes).tobytes() + record.ignore.tobytes())
        return digest.hexdigest()

    def _describe_regions(self) -> Columns:
        """Sample regions of every kept image and run the frozen region stage over them."""
        self.proposals.maps.clear()  # the largest thing in memory, not needed again
        objective, columns = self.objective, []
        torch.manual_seed(self.config.training.seed)
        for maps, target in self.proposals.run_backbone("keep region features"):
            features, objectness, deltas = objective.model.trunk.read(maps)
            regions = objective.sample_regions(objectness, deltas, [target])
            described = objective.model.head.describe(objective.region_features(features, regions))
            kept = (*(x.half() for x in described), regions.labels, regions.offsets)
            columns.append([x.cpu() for x in kept])
        f, bins, labels, offsets = (torch.cat(column) for column in zip(*columns, strict=True))
        return f, bins, labels, offsets

    def steps(self) -> int:
        """Batches of an epoch."""
        assert self.columns is not None
        return -(-len(self.columns[0]) // self.config.training.head_batch)

    def batches(self, epoch: int) -> Iterator[Tensor]:
        """Indices of kept regions."""
        assert self.columns is not None
        yield from region_batches(self.columns[2], self.config.training, epoch)

    def losses(self, batch: Tensor) -> Losses:
        """Eq. 13 without the RPN's."""
        assert self.columns is not None
        f, bins, labels, offsets = (column[batch].to(self.device) for column in self.columns)
        return self.objective.head_losses(f.float(), bins.float(), labels, offsets)

    def parameters(self) -> list[nn.Parameter]:
        """The head (its region stage is frozen) and the scorer; a_0 too, unless the RPN owns it."""
        model = self.objective.model
        of_rpn = {id(p) for p in model.trunk.rpn.parameters()}
        trained = [*model.head.parameters(), *model.scorer.parameters()]
        return [p for p in trained if p.requires_grad and id(p) not in of_rpn]


def read_regions(path: Path) -> tuple[str, Columns]:
    """Read kept regions; they stay on disk until they are used.

    Returns:
        What names the proposals and data they come from; and of each region f ``(R, F)`` float16,
        the bins ``(R, B)`` float16 of the regressor, the label ``(R,)`` from 1, 0 is background,
        and the offsets ``(R, 4)`` of eq. 5.

    Raises:
        DataError: no such file, or another kind.
    """
    try:
        kept = torch.load(path, weights_only=True, mmap=True)
        f, bins, labels, offsets = kept["columns"]
        return str(kept["fingerprint"]), (f, bins, labels, offsets)
    except Exception as error:  # torch raises many kinds for a damaged file
        problem = "does not hold kept regions" if path.is_file() else "is not there"
        raise DataError(
            f"{path} {problem}; training with training.cache: regions writes regions.pt."
        ) from error


def _link(source: Path, target: Path) -> None:
    """Give ``target`` the content of ``source``, without its size on disk where that can be."""
    target.parent.mkdir(parents=True, exist_ok=True)
    target.unlink(missing_ok=True)
    try:
        os.link(source, target)
    except OSError:  # another disk
        shutil.copyfile(source, target)


def region_batches(labels: Tensor, training: TrainingConfig, epoch: int) -> Iterator[Tensor]:
    """Batches of indices of kept regions with labels ``(R,)``, for one epoch."""
    generator = torch.Generator().manual_seed(training.seed * 100_003 + epoch)
    if training.balance:
        weights = class_weights(labels, training.balance, training.foreground)
        order = torch.multinomial(weights, len(labels), replacement=True, generator=generator)
    else:
        order = torch.randperm(len(labels), generator=generator)
    yield from order.split(training.head_batch)


def class_weights(labels: Tensor, balance: float, foreground: float) -> Tensor:
    """Weight ``(R,)`` of every region, so that objects have ``foreground`` of the sum.

    Within the objects, a class of n regions weighs n ** (1 - balance); labels ``(R,)``, 0 is
    background.
    """
    counts = torch.bincount(labels).double()
    weights = counts[labels] ** -balance
    objects = labels > 0
    for part, share in ((objects, foreground), (~objects, 1 - foreground)):
        weights[part] *= share / weights[part].sum().clamp(min=1e-12)
    return weights
