"""BLC: cross entropy at every stage of the cascade, background vector included.

References:
    Zheng et al., "Background Learnable Cascade for Zero-Shot Object Detection", ACCV 2020,
    arXiv:2010.04502; the weights of the stages are those of Cascade R-CNN (Cai and Vasconcelos,
    CVPR 2018): 1, 1/2, 1/4.

Readings. All stages learn from the same labels, at IoU 0.5: the paper raises the IoU from stage to
stage because the boxes get better, and here they stay. With ``background: rpn`` the background
vector is the proposal network's, as in the paper, and with ``head`` one that these losses learn.
"""

from __future__ import annotations

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zsd_core.config import ScoringConfig
from zsd_core.learning.experiment import LossConfig
from zsd_core.learning.losses import seen_classification_loss
from zsd_core.learning.models.scorers.base import TrainableScorer, learned_background

__all__ = ["BlcScoring", "make"]


class BlcScoring(TrainableScorer):
    """The stages' projections and flows, and a_0."""

    METHOD = "blc"

    def __init__(self, config: ScoringConfig, rpn_background: nn.Parameter | None) -> None:
        super().__init__(config)
        stages, width = config.blc_stages, config.vector_dim
        self.visual = nn.ModuleList(nn.Linear(config.joint_dim, width) for _ in range(stages))
        self.flow = nn.ModuleList(nn.Linear(width, width, bias=False) for _ in range(stages - 1))
        self.background = learned_background(config, rpn_background)

    def background_vector(self) -> Tensor:
        """a_0, ``(E,)``, as scoring uses it."""
        vector = self.background
        return F.normalize(vector, dim=0) if self.config.background_unit else vector

    def losses(self, embeddings: Tensor, labels: Tensor, config: LossConfig) -> dict[str, Tensor]:
        """Cross entropy over background and seen classes, by stage; see ``TrainableScorer``."""
        seen = F.normalize(self.centered(self.seen_vectors), dim=1)
        rows = torch.cat([self.background_vector()[None], seen])
        losses: dict[str, Tensor] = {}
        found = embeddings.new_zeros(0)
        for stage, visual in enumerate(self.visual):
            carried = self.flow[stage - 1](F.relu(found)) if stage else 0
            found = visual(embeddings) + carried
            loss = seen_classification_loss(found @ rows.T, labels, reduction=config.reduction)
            losses[f"stage{stage + 1}"] = loss / 2**stage
        return losses

    def named_tensors(self) -> dict[str, Tensor]:
        """See ``TrainableScorer``."""
        stages = [cast(nn.Linear, one) for one in self.visual]
        flows = [cast(nn.Linear, one).weight for one in self.flow]
        weights = torch.stack([one.weight for one in stages])
        unread = weights.new_zeros(weights.shape[1], weights.shape[1])
        return {
            "background": self.background_vector(),
            "visual.weight": weights,
            "visual.bias": torch.stack([one.bias for one in stages]),
            "flow.weight": torch.stack([unread, *flows]),
        }


make = BlcScoring
