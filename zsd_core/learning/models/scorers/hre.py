"""HRE: ConSE's classifier, and a projection so that the right class leads by a margin of cosine.

References:
    Demirel et al., "Zero-Shot Object Detection by Hybrid Region Embedding", BMVC 2018,
    arXiv:1805.06157, the max-margin objective of the label embedding.

Readings. The two parts are trained together over one p_v, with weights of 1. The margin loss is the
mean over regions of objects and over wrong seen classes of max(0, margin - right + wrong); regions
of the background train the classifier alone, which has a class for them.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zsd_core.config import ScoringConfig
from zsd_core.learning.experiment import LossConfig
from zsd_core.learning.models.scorers.conse import ConseScoring

__all__ = ["HreScoring", "make"]


class HreScoring(ConseScoring):
    """The classifier and the projection."""

    METHOD = "hre"

    def __init__(self, config: ScoringConfig, rpn_background: nn.Parameter | None) -> None:
        super().__init__(config, rpn_background)
        self.project = nn.Linear(config.joint_dim, config.vector_dim)

    def losses(self, embeddings: Tensor, labels: Tensor, config: LossConfig) -> dict[str, Tensor]:
        """Cross entropy, and the margin of the projection; see ``TrainableScorer``."""
        objects = labels > 0
        seen = F.normalize(self.centered(self.seen_vectors), dim=1)
        cosines = F.normalize(self.project(embeddings[objects]), dim=1) @ seen.T  # (O, Ks)
        place = labels[objects, None] - 1
        wrong = torch.ones_like(cosines).scatter(1, place, 0)
        lags = (config.hre_margin - cosines.gather(1, place) + cosines).relu() * wrong
        margin = lags.sum() / wrong.sum().clamp(min=1)
        return {**super().losses(embeddings, labels, config), "margin": margin}

    def named_tensors(self) -> dict[str, Tensor]:
        """See ``TrainableScorer``."""
        projection = {"project.weight": self.project.weight, "project.bias": self.project.bias}
        return super().named_tensors() | projection


make = HreScoring
