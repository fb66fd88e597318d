"""Shared part of the ways to learn "cosine": a projection into the space of the class vectors."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zsd_core.config import ScoringConfig
from zsd_core.learning.models.scorers.base import TrainableScorer

__all__ = ["CosineScoring"]


class CosineScoring(TrainableScorer):
    """One linear layer from p_v to the width of a class vector, and a fixed background vector."""

    METHOD = "cosine"

    background: Tensor

    def __init__(self, config: ScoringConfig, rpn_background: nn.Parameter | None) -> None:
        super().__init__(config)
        self.project = nn.Linear(config.joint_dim, config.vector_dim)
        self.register_buffer("background", torch.zeros(config.vector_dim))

    def known(self) -> Tensor:
        """Background and seen vectors ``(1 + Ks, E)``, of unit length."""
        rows = F.normalize(self.centered(self.seen_vectors), dim=1)
        return torch.cat([self.background[None], rows])

    def named_tensors(self) -> dict[str, Tensor]:
        """See ``TrainableScorer``."""
        return {
            "background": self.background,
            "project.weight": self.project.weight,
            "project.bias": self.project.bias,
        }
