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
        self.region_stage = region_stage
        self.project_visual = Projection(width, config.scoring.joint_dim)
        self.regressor = nn.Linear(width, 4)
        nn.init.normal_(self.regressor.weight, std=0.001)
        nn.init.zeros_(self.regressor.bias)

    def describe(self, region_features: Tensor) -> Tensor:
        """Region features ``(R, C, PH, PW)`` to f, ``(R, F)``: conv5 and the mean over its bins."""
        return self.region_stage(region_features).mean(dim=(2, 3))

    def embed(self, f: Tensor) -> tuple[Tensor, Tensor]:
        """F ``(R, F)`` to p_v(f) ``(R, D)`` and class-agnostic box deltas ``(R, 4)``."""
        return self.project_visual(f), self.regressor(f)

    def forward(self, region_features: Tensor) -> tuple[Tensor, Tensor]:
        """Region features ``(R, C, PH, PW)`` to embeddings ``(R, D)`` and deltas ``(R, 4)``."""
        return self.embed(self.describe(region_features))
