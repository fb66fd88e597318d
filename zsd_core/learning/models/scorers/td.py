"""TD: cross entropy over background and the seen classes, each by its description.

References:
    Li et al., "Zero-shot Object Detection with Textual Descriptions", AAAI 2019.

Readings. The losses are one cross entropy over the region's matching scores; the paper's detector
losses are those of the shared detector. ``benchmarks.paper.bench`` takes descriptions from WordNet:
the name, the nearest kinds, and the words of the gloss.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zsd_core.config import ScoringConfig
from zsd_core.learning.experiment import LossConfig
from zsd_core.learning.losses import seen_classification_loss
from zsd_core.learning.models.scorers.base import TrainableScorer
from zsd_core.scoring.td import NOTHING, word_width

__all__ = ["TdScoring", "make"]


class TdScoring(TrainableScorer):
    """Projections of regions and words, and the background's logit."""

    METHOD = "td"

    def __init__(self, config: ScoringConfig, rpn_background: nn.Parameter | None) -> None:
        super().__init__(config)
        self.word = nn.Linear(word_width(config), config.hidden_dim, bias=False)
        self.region = nn.Linear(config.joint_dim, config.hidden_dim)
        self.empty = nn.Linear(config.joint_dim, 1)

    def losses(self, embeddings: Tensor, labels: Tensor, config: LossConfig) -> dict[str, Tensor]:
        """Cross entropy; see ``TrainableScorer``."""
        words = self.seen_vectors.unflatten(1, (self.config.td_words, -1))  # (Ks, L, W)
        there = words.norm(dim=2) > 0
        dots = torch.einsum(
            "rm,klm->rkl", self.region(embeddings), self.word(F.normalize(words, dim=2))
        )
        scaled = dots / self.config.hidden_dim**0.5
        attention = scaled.masked_fill(~there, NOTHING).softmax(dim=2)
        logits = torch.cat([self.empty(embeddings), (attention * dots).sum(dim=2)], dim=1)
        return {"seen": seen_classification_loss(logits, labels, reduction=config.reduction)}

    def named_tensors(self) -> dict[str, Tensor]:
        """See ``TrainableScorer``."""
        return {
            "background": torch.zeros_like(self.center),
            "word.weight": self.word.weight,
            "region.weight": self.region.weight,
            "region.bias": self.region.bias,
            "empty.weight": self.empty.weight,
            "empty.bias": self.empty.bias,
        }


make = TdScoring
