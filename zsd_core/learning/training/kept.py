"""Scoring alone, on kept features: trained in a minute, tested in seconds.

Trunk, proposals and box regression of a trained detector stay as they are; p_v and the scoring
method are trained anew on the regions that ``zsd_core.learning.training.cached`` kept, and tested
on photographs whose regions were described once. Every run then differs in its scoring only.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import count, islice
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from zsd_core import stages
from zsd_core.commands import Progress
from zsd_core.config import ModelConfig
from zsd_core.errors import DataError
from zsd_core.learning.checkpoint import Checkpoint
from zsd_core.learning.data.dataset import Dataset, ImageRecord
from zsd_core.learning.data.photographs import read_image
from zsd_core.learning.experiment import Config
from zsd_core.learning.matching import Matches, Prediction, match
from zsd_core.learning.models import ContrastZSD, TorchNetworks, kernels_for
from zsd_core.learning.objective import Objective
from zsd_core.learning.training.batches import shown
from zsd_core.learning.training.cached import start_warm
from zsd_core.learning.training.loop import fit
from zsd_core.learning.training.position import Position
from zsd_core.learning.training.regions import read_regions, region_batches
from zsd_core.scoring import ClassSet, Scorer, VectorScorer, scorer_for

__all__ = [
    "Kept",
    "class_set_of",
    "describe_photographs",
    "load_regions",
    "matches_of",
    "predictions_of",
    "score_photographs",
    "train_scoring",
]

Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class Kept:
    """Regions of training photographs, as ``regions.pt`` keeps them.

    Attributes:
        features: ``(R, F)`` float16, f of each.
        labels: ``(R,)`` seen class from 1, 0 is background.
        owners: ``(R,)`` the photograph of each, counted as an epoch of training shows them.
        fingerprint: names the proposals and the data they come from.
    """

    features: Tensor
    labels: Tensor
    owners: Tensor
    fingerprint: str

    def photographs(self, images: Sequence[ImageRecord], config: Config) -> Tensor:
        """``(R,)`` index of the photograph of each region.

        Raises:
            DataError: the regions are not of all those photographs.
        """
        order = torch.tensor(shown(images, config.training))
        owning = len(self.owners.unique())
        if owning != len(order):
            raise DataError(
                f"the kept regions are not of these {len(order)} photographs (those that are shown "
                f"twice count twice), but of {owning}; name the photographs and the checkpoint of "
                "the training that kept them."
            )
        return order[self.owners]


def load_regions(path: Path) -> Kept:
    """Read what scoring learns from of what cached training kept.

    Raises:
        DataError: no such file, or another kind.
    """
    fingerprint, (features, _, labels, _, owners) = read_regions(path)
    return Kept(features, labels, owners, fingerprint)


class _Scoring:
    """The phase that trains p_v and the scoring method, for a number of steps."""

    name, epochs = "scoring", 1

    def __init__(self, objective: Objective, features: Tensor, labels: Tensor, steps: int) -> None:
        self.objective, self.features, self.labels = objective, features, labels
        self.learning_rate, self._steps = objective.config.training.learning_rate, steps

    def prepare(self) -> None:
        self.objective.check_alive(self.features[:256].float())

    def begin(self) -> None:
        start_warm(self.objective, self.features, self.labels)

    def steps(self) -> int:
        return self._steps

    def batches(self, epoch: int) -> Iterator[Tensor]:
        training = self.objective.config.training
        passes = (region_batches(self.labels, training, number) for number in count())
        yield from islice((batch for one in passes for batch in one), self._steps)

    def losses(self, batch: Tensor) -> dict[str, Tensor]:
        return self.objective.scoring_losses(self.features[batch].float(), self.labels[batch])

    def parameters(self) -> list[nn.Parameter]:
        model = self.objective.model
        return [*model.head.project_visual.parameters(), *model.scorer.parameters()]


def train_scoring(
    base: Checkpoint,
    config: Config,
    vectors: NDArray[np.float32],
    features: Tensor,
    labels: Tensor,
    *,
    seen: int,
    steps: int,
) -> tuple[ContrastZSD, dict[str, float]]:
    """Train the scoring of ``config`` over the frozen rest of a checkpoint.

    Args:
        base: whose trunk, region stage and box regressor are taken.
        config: the experiment; its seed decides everything drawn by chance.
        vectors: ``(Ks + U, E)``, seen then unseen.
        features: ``(R, F)`` of kept regions.
        labels: ``(R,)`` in ``[0, Ks]``.
        seen: Ks.
        steps: of the optimiser; the rate's schedule is stretched over them.

    Returns:
        The model, in evaluation mode, and the mean of each loss over the last tenth of the steps.
    """
    torch.manual_seed(config.training.seed)
    backbone = dataclasses.replace(config.model.backbone, weights="")  # base holds the weights
    model = ContrastZSD(dataclasses.replace(config.model, backbone=backbone))
    model.trunk.load_state_dict(base.model.trunk.state_dict())
    model.head.region_stage.load_state_dict(base.model.head.region_stage.state_dict())
    model.head.regressor.load_state_dict(base.model.head.regressor.state_dict())
    training = config.training
    short = dataclasses.replace(training, warmup_steps=min(training.warmup_steps, steps // 10))
    table = torch.from_numpy(np.asarray(vectors, np.float32))
    own = dataclasses.replace(config, training=short)
    objective = Objective(model, own, table[:seen], table[seen:])
    last: dict[str, list[float]] = {}

    def log(tag: str, value: float, step: int) -> None:
        if tag.startswith("loss/") and step >= int(0.9 * steps):
            last.setdefault(tag.removeprefix("loss/"), []).append(value)

    fit(
        [_Scoring(objective, features, labels, steps)],
        short,
        device=torch.device("cpu"),
        position=Position(),
        save=lambda position: None,
        log=log,
    )
    return model.eval(), {name: float(np.mean(values)) for name, values in last.items()}


class _Describing(TorchNetworks):
    """Networks whose embeddings are f: what a region is before p_v."""

    def __init__(self, model: ContrastZSD) -> None:
        super().__init__(model)
        self._head = model.head

    @torch.inference_mode()
    def head(self, *region_features: Floats) -> tuple[Floats, Floats]:
        """See ``zsd_core.stages.Networks``."""
        f, bins = self._head.describe(*map(torch.from_numpy, region_features))
        return f.numpy(), self._head.regress(f, bins).numpy()


def describe_photographs(model: ContrastZSD, photographs: Dataset) -> list[stages.Described]:
    """Regions of every photograph with f as their embedding, for any scoring of this trunk."""
    networks, kernels, found = _Describing(model), kernels_for(model.config.regions), []
    with Progress("describe photographs", len(photographs)) as progress:
        for record in photographs.images:
            image = read_image(record)
            found.append(stages.describe(networks, model.config, [image], kernels=kernels))
            progress.advance()
    return found


def class_set_of(
    model: ContrastZSD, config: ModelConfig, names: Sequence[str], vectors: Floats, seen: int
) -> tuple[VectorScorer, ClassSet]:
    """The scorer of a model under a configuration, and its classes, seen then unseen."""
    scorer = scorer_for(config.scoring, model.scorer_tensors())
    return scorer, scorer.class_set(names[:seen], vectors[:seen], names[seen:], vectors[seen:])


@torch.inference_mode()
def score_photographs(
    model: ContrastZSD, scorer: Scorer, classes: ClassSet, found: Sequence[stages.Described]
) -> list[Floats]:
    """Scores ``(R, Ks + U)`` of the regions of every photograph."""
    return [
        scorer.score(
            model.head.project_visual(torch.from_numpy(one.embeddings)).numpy(),
            one.objectness,
            classes,
        )
        if len(one.rois)
        else np.zeros((0, len(classes.names)), np.float32)
        for one in found
    ]


def predictions_of(
    test: Dataset,
    found: Sequence[stages.Described],
    scores: Sequence[Floats],
    names: Sequence[str],
    config: ModelConfig,
    *,
    limit: int = 100,
) -> list[Prediction]:
    """Detections in the photographs of a test; see ``matches_of``."""
    wanted = np.array([name in set(test.categories) for name in names])
    place = np.array([test.categories.index(n) if n in test.categories else -1 for n in names])
    thresholds = np.where(wanted, 0, np.inf).astype(np.float32)
    predictions: list[Prediction] = []
    for one, values in zip(found, scores, strict=True):
        ((boxes, best, columns),) = stages.decide(
            values, one, config, thresholds, max_detections=limit
        )
        predictions.append((boxes, best, place[columns]))
    return predictions


def matches_of(
    test: Dataset,
    found: Sequence[stages.Described],
    scores: Sequence[Floats],
    names: Sequence[str],
    seen: Sequence[str],
    config: ModelConfig,
    *,
    limit: int = 100,
) -> Matches:
    """Detections in the photographs of a test, matched to its truth.

    Args:
        test: as ``zsd_core.learning.data.protocol.test_set`` gives it; only its classes are looked
            for.
        found: regions of its photographs, in order.
        scores: of those regions, ``(R, C)``.
        names: of the C columns.
        seen: names of the seen classes.
        config: of the model.
        limit: detections kept of a photograph.
    """
    predictions = predictions_of(test, found, scores, names, config, limit=limit)
    return match(test.images, predictions, test.categories, seen, limit=limit)
