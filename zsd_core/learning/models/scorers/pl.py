"""PL: focal loss, weighed by how far a wrong class is from being below the right one.

References:
    Rahman et al., "Improved Visual-Semantic Alignment for Zero-Shot Object Detection", AAAI 2020
    (arXiv:1811.08982): the focal loss FL of Lin et al. (RetinaNet, ICCV 2017), the polarity loss
    sum_i f(p_i - p_l) FL_i with the penalty f(z) = 1 / (1 + exp(-beta z)), l the right class, and
    the vocabulary metric tanh(W M D).

Readings. A region of the background has no right class: its penalty is 1, so it has the focal loss.
The vocabulary D is the vectors of the seen classes, in the place of 4,717 tags of NUS-WIDE, so that
training needs no more data than the other systems. M starts as the pseudo-inverse of D, so that M D
is the identity on what the seen vectors span. The sum is divided by the number of objects,
as in RetinaNet.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zsd_core.config import ScoringConfig
from zsd_core.errors import ConfigError
from zsd_core.learning.experiment import LossConfig
from zsd_core.learning.models.scorers.base import TrainableScorer

__all__ = ["PlScoring", "make"]

PRIOR = 0.01  # probability of a class before training, as in RetinaNet


class PlScoring(TrainableScorer):
    """The projection, the metric M and the bias.

    M exists once the classes are known, which is when ``read_classes`` is called.
    """

    METHOD = "pl"

    def __init__(self, config: ScoringConfig, rpn_background: nn.Parameter | None) -> None:
        super().__init__(config)
        self.project = nn.Linear(config.joint_dim, config.vector_dim)
        self.bias = nn.Parameter(torch.full((1,), -math.log(1 / PRIOR - 1)))
        self.metric: nn.Parameter | None = None  # M, (E, Ks)
        self.register_buffer("words", torch.zeros(0, config.vector_dim), persistent=False)

    words: Tensor  # D, (Ks, E)

    def read_classes(self, seen_vectors: Tensor, unseen_vectors: Tensor) -> None:
        """Take the class vectors, and the seen ones as the vocabulary; see ``TrainableScorer``."""
        super().read_classes(seen_vectors, unseen_vectors)
        self.words = F.normalize(self.centered(seen_vectors), dim=1)
        if self.metric is None or self.metric.shape[1] != len(seen_vectors):
            # M D is then the identity on what the rows of D span.
            start = torch.linalg.pinv(self.words.double(), rtol=1e-3).float()
            self.metric = nn.Parameter(start.to(seen_vectors.device))

    def bend(self) -> Tensor:
        """M D, ``(E, E)``.

        Raises:
            ConfigError: before ``read_classes``.
        """
        if self.metric is None:
            raise ConfigError("PL's metric has no size before read_classes() was called.")
        return self.metric @ self.words

    def losses(self, embeddings: Tensor, labels: Tensor, config: LossConfig) -> dict[str, Tensor]:
        """The polarity loss; see ``TrainableScorer``."""
        seen = F.normalize(self.centered(self.seen_vectors), dim=1)
        logits = self.project(embeddings) @ torch.tanh(seen @ self.bend()).T + self.bias  # (R, Ks)
        targets = F.one_hot(labels, 1 + len(seen))[:, 1:].to(logits)
        chances = logits.sigmoid()
        entropy = F.binary_cross_entropy_with_logits(logits, targets, reduction="none")
        missed = targets * (1 - chances) + (1 - targets) * chances
        share = targets * config.pl_alpha + (1 - targets) * (1 - config.pl_alpha)
        focal = share * missed**config.pl_focus * entropy
        right = (chances * targets).sum(dim=1, keepdim=True)
        penalty = torch.sigmoid(config.pl_steepness * (chances - right))
        penalty = torch.where(labels[:, None] > 0, penalty, torch.ones_like(penalty))
        return {"polarity": (penalty * focal).sum() / (labels > 0).sum().clamp(min=1)}

    def named_tensors(self) -> dict[str, Tensor]:
        """See ``TrainableScorer``."""
        return {
            "background": torch.zeros_like(self.center),
            "bend": self.bend(),
            "project.weight": self.project.weight,
            "project.bias": self.project.bias,
            "bias": self.bias,
        }


make = PlScoring
