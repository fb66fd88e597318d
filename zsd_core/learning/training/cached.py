"""Training from caches, for a backbone frozen whole: the RPN first, then the heads.

A frozen backbone gives the same maps at every epoch, and a trained RPN the same regions; keeping
them turns hours into minutes on a CPU.
"""

from __future__ import annotations

import dataclasses
import hashlib
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from zsd_core.commands import Progress
from zsd_core.errors import DataError
from zsd_core.learning.checkpoint import save_whole
from zsd_core.learning.data.photographs import PIXELS
from zsd_core.learning.experiment import Config, TrainingConfig
from zsd_core.learning.objective import Objective, Target
from zsd_core.learning.training.batches import TrainingImages
from zsd_core.learning.training.regions import (
    Columns,
    class_weights,
    link_regions,
    read_regions,
    region_batches,
)
from zsd_core.learning.training.warm_start import fit_ridge, regress, warm_start

__all__ = [
    "CachedProposals",
    "CachedRegions",
    "has_bfloat16",
    "start_warm",
]

SLOW_BFLOAT16 = (
    "training.bfloat16: this processor has no instructions for bfloat16 and may take many times "
    "as long as in float32; stop (Ctrl+C), and give training.bfloat16=false"
)
Losses = dict[str, Tensor]


def has_bfloat16() -> bool:
    """Whether PyTorch's oneDNN has convolutions in bfloat16 for this processor."""
    supported = getattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", None)
    return torch.backends.mkldnn.is_available() and (supported is None or bool(supported()))


class CachedProposals:
    """The RPN alone, on kept backbone maps of every image and augmented version.

    With ``training.keep_maps`` they are written to ``file``, so that a resumed run starts at once.
    """

    name = "proposals"

    def __init__(
        self,
        objective: Objective,
        images: TrainingImages,
        config: Config,
        device: torch.device,
        file: Path,
    ) -> None:
        self.objective, self.images, self.config, self.device = objective, images, config, device
        self.file = file
        self.epochs = config.training.epochs
        self.learning_rate = config.training.learning_rate
        self.maps: list[dict[int, Tensor]] = []
        self.targets: list[Target] = []

    @torch.no_grad()
    def prepare(self) -> None:
        """Run the backbone over every version of every image; float16 maps stay in memory.

        Or read the maps that a run with the same backbone, images and augmentations has kept.
        """
        self._make_maps()
        torch.manual_seed(self.config.training.seed)  # whatever options of the heads have drawn

    def _make_maps(self) -> None:
        if self.config.training.bfloat16 and self.device.type == "cpu" and not has_bfloat16():
            print(SLOW_BFLOAT16, file=sys.stderr)
        keep = self.config.training.keep_maps
        fingerprint = self._fingerprint() if keep else ""
        if keep and self.file.exists():
            try:
                kept = torch.load(self.file, weights_only=True, mmap=True)
                found, maps, targets = kept["fingerprint"], kept["maps"], kept["targets"]
            except Exception as error:  # torch raises many kinds for a damaged file
                raise DataError(
                    f"{self.file} does not hold kept maps; delete it, and they are made anew."
                ) from error
            if found == fingerprint:
                print(f"kept maps: {self.file}", file=sys.stderr)
                self.maps, self.targets = maps, [Target(*values) for values in targets]
                return
            print(f"{self.file} holds other maps than these options keep", file=sys.stderr)
        versions = self.config.training.versions
        for maps, target in self.run_backbone("keep backbone maps", versions):
            self.maps.append({s: maps[s].half() for s in self.config.model.proposals.levels})
            self.targets.append(target)
        if keep:
            targets = [
                (t.boxes.cpu(), t.labels.cpu(), t.ignored.cpu(), t.size, t.machine)
                for t in self.targets
            ]
            values = {"fingerprint": fingerprint, "maps": self.maps, "targets": targets}
            save_whole(values, self.file)

    def _fingerprint(self) -> str:
        """Names everything that the kept maps depend on."""
        training, digest = self.config.training, hashlib.sha256()
        for tensor in self.objective.model.trunk.backbone.state_dict().values():
            digest.update(tensor.detach().cpu().numpy().tobytes())
        parts = (
            self.config.model.preprocess,
            self.config.model.proposals.levels,
            training.seed,
            training.versions,
            training.stretch,
            training.edges,
            training.flip,
            training.bfloat16,
        )
        digest.update(repr(parts).encode())
        _add_images(digest, self.images)
        return digest.hexdigest()

    def run_backbone(self, title: str, versions: int) -> Iterator[tuple[dict[int, Tensor], Target]]:
        """The backbone's maps ``{stride: (1, C, h, w)}`` and the target of every image version."""
        training, backbone = self.config.training, self.objective.model.trunk.backbone
        loader = DataLoader(self.images, batch_size=None, num_workers=training.workers)
        with Progress(title, len(self.images) * versions) as progress:
            for version in range(versions):
                self.images.epoch = version
                for image, target in loader:
                    pixels = image[None].to(self.device, memory_format=torch.channels_last)
                    with self.precision():
                        maps = backbone(pixels)
                    yield maps, target.to(self.device)
                    progress.advance()

    def begin(self) -> None:
        """Nothing."""

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
        return self.mean_losses(map(self._outputs, batch), len(batch))

    def _outputs(self, index: int) -> tuple[Tensor, Tensor, Target]:
        maps = {
            s: m.to(self.device, memory_format=torch.channels_last).float()
            for s, m in self.maps[index].items()
        }
        with self.precision():
            objectness, deltas, _ = self.objective.model.trunk.rpn(maps)
        return objectness, deltas, self.targets[index]

    def mean_losses(self, outputs: Iterable[tuple[Tensor, Tensor, Target]], count: int) -> Losses:
        """Means of the two losses over ``count`` images, of the RPN's outputs and the target."""
        total: Losses = {}
        for objectness, deltas, target in outputs:
            for name, value in self.objective.rpn_losses(objectness, deltas, [target]).items():
                total[name] = total.get(name, torch.zeros_like(value)) + value / count
        return total

    def precision(self) -> torch.autocast:
        """Return a context in the precision that ``training.bfloat16`` asks for."""
        return torch.autocast("cpu", torch.bfloat16, enabled=self.config.training.bfloat16)

    def parameters(self) -> list[nn.Parameter]:
        """The RPN."""
        return [p for p in self.objective.model.trunk.rpn.parameters() if p.requires_grad]


class CachedRegions:
    """The heads, on kept features of the regions that the trained RPN proposes.

    They are written to ``file``, so that a resumed run, or another with other options of the heads,
    starts at once; ``others`` are files of other runs that may hold them.
    """

    name = "heads"

    def __init__(self, proposals: CachedProposals, file: Path, others: Sequence[Path] = ()) -> None:
        self.proposals, self.objective = proposals, proposals.objective
        self.file, self.others = file, others
        self.config, self.device = proposals.config, proposals.device
        self.epochs = self.config.training.head_epochs
        self.learning_rate = self.config.training.learning_rate
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
                    link_regions(path, self.file)
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
        parts = (
            model.preprocess,
            network,
            model.regions,
            training.seed,
            training.regions,
            training.foreground,
            _region_versions(training),
            training.stretch,
            training.edges,
            training.flip,
            training.bfloat16,
            images.labels,
        )
        digest.update(repr(parts).encode())
        _add_images(digest, images)
        return digest.hexdigest()

    def _describe_regions(self) -> Columns:
        """Sample regions of every kept image and run the frozen region stage over them."""
        self.proposals.maps.clear()  # the largest thing in memory, not needed again
        objective, count = self.objective, len(self.proposals.images)
        columns: list[list[Tensor]] = []
        torch.manual_seed(self.config.training.seed)
        versions = _region_versions(self.config.training)
        for maps, target in self.proposals.run_backbone("keep region features", versions):
            with self.proposals.precision():
                features, objectness, deltas = objective.model.trunk.read(maps)
                regions = objective.sample_regions(objectness.float(), deltas.float(), [target])
                patches = objective.region_features(features, regions)
                described = objective.model.head.describe(patches)
            owner = torch.full_like(regions.labels, len(columns) % count)
            kept = (*(x.half() for x in described), regions.labels, regions.offsets, owner)
            columns.append([x.cpu() for x in kept])
        f, bins, labels, offsets, owners = (torch.cat(c) for c in zip(*columns, strict=True))
        return f, bins, labels, offsets, owners

    def begin(self) -> None:
        """Put p_v, the scorer and a linear box regressor where ``training.warm_start`` says."""
        assert self.columns is not None
        f, _, labels, offsets, _ = self.columns
        start_warm(self.objective, f, labels)
        regressor, strength = self.objective.model.head.regressor, self.config.training.warm_start
        objects = labels > 0
        if strength and isinstance(regressor, nn.Linear) and objects.any():
            alike = torch.ones(int(objects.sum()))
            weight, bias = regress(f[objects].float(), offsets[objects].float(), alike, strength)
            with torch.no_grad():
                regressor.weight.copy_(weight.T)
                regressor.bias.copy_(bias)

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
        f, bins, labels, offsets = (x[batch].to(self.device) for x in self.columns[:4])
        return self.objective.head_losses(f.float(), bins.float(), labels, offsets)

    def parameters(self) -> list[nn.Parameter]:
        """The head (its region stage is frozen) and the scorer; a_0 too, unless the RPN owns it."""
        model = self.objective.model
        of_rpn = {id(p) for p in model.trunk.rpn.parameters()}
        trained = [*model.head.parameters(), *model.scorer.parameters()]
        return [p for p in trained if p.requires_grad and id(p) not in of_rpn]


def _add_images(digest: hashlib._Hash, images: TrainingImages) -> None:
    digest.update(PIXELS.encode())
    for record in images.records:
        digest.update(f"{record.path} {_state(record.path)} {record.labels}".encode())
        for values in (record.boxes, record.ignore, record.scores):
            digest.update(np.ascontiguousarray(values).tobytes())


def _state(path: Path) -> tuple[int, int] | None:
    """Size and time of a file, which change with its content; None of one that is gone."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_size, found.st_mtime_ns


def _region_versions(training: TrainingConfig) -> int:
    return training.region_versions or training.versions


def start_warm(objective: Objective, features: Tensor, labels: Tensor) -> None:
    """Start the scoring as ``training.warm_start`` says, from features ``(R, F)`` of regions."""
    training, model = objective.config.training, objective.model
    if training.warm_start:
        weights = class_weights(labels, training.balance, training.foreground)
        seen = model.scorer.centered(model.scorer.seen_vectors)
        ridge = fit_ridge(features.float(), labels, weights, seen, training.warm_start)
        warm_start(model.head.project_visual, model.scorer, ridge)
