"""The head network: region feature to region embedding v and box deltas (section 3.2.2-3.2.3)."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from zsd_core.config import ModelConfig

__all__ = ["Head", "Projection"]


class Projection(nn.Module):
    """Two linear layers with ReLU after each: p_v and p_s (eq. 2, 3)."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.linear1 = nn.Linear(inputs, outputs)
        self.linear2 = nn.Linear(outputs, outputs)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(..., inputs)`` to ``(..., outputs)``, not negative."""
        return F.relu(self.linear2(F.relu(self.linear1(x))))


class Head(nn.Module):
    """Everything that runs once per region: conv5, pooling, p_v, box regressor.

    Attributes:
        region_stage: conv5, or the last stages of MobileNetV2.
    """

    def __init__(self, config: ModelConfig, region_stage: nn.Module, width: int) -> None:
        super().__init__()
        regions = config.regions
        self.region_stage = region_stage
        self.project_visual = Projection(width, config.scoring.joint_dim)
        self.box_channels = config.proposals.channels if regions.box_hidden else 0
        self.regressor: nn.Module
        if regions.box_hidden:
            bins = self.box_channels * regions.output_size[0] * regions.output_size[1]
            last = nn.Linear(regions.box_hidden, 4)
            self.regressor = nn.Sequential(nn.Linear(bins, regions.box_hidden), nn.ReLU(), last)
        else:
            self.regressor = last = nn.Linear(width, 4)
        nn.init.normal_(last.weight, std=0.001)
        nn.init.zeros_(last.bias)

    def describe(self, region_features: Tensor) -> tuple[Tensor, Tensor]:
        """Region features ``(R, C, PH, PW)`` to what can be kept of a frozen backbone.

        Returns:
            f ``(R, F)``, conv5's mean over its bins; and ``(R, B)``, the bins of the proposal
            network's hidden map for the regressor, B = 0 where it reads f.
        """
        own = region_features.shape[1] - self.box_channels
        if isinstance(self.region_stage, nn.Identity):  # copy means, not all the bins
            f = region_features.mean(dim=(2, 3))[:, :own]
        else:
            f = self.region_stage(region_features[:, :own]).mean(dim=(2, 3))
        return f, region_features[:, own:].flatten(1)

    def regress(self, f: Tensor, bins: Tensor) -> Tensor:
        """Class-agnostic box deltas ``(R, 4)`` from what ``describe`` returns."""
        deltas: Tensor = self.regressor(bins if self.box_channels else f)
        return deltas

    def forward(self, region_features: Tensor) -> tuple[Tensor, Tensor]:
        """Region features ``(R, C, PH, PW)`` to embeddings ``(R, D)`` and deltas ``(R, 4)``."""
        f, bins = self.describe(region_features)
        return self.project_visual(f), self.regress(f, bins)
