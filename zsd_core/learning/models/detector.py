"""ContrastZSD: trunk, head and scorer under one roof."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from torch import nn

from zsd_core.config import ModelConfig, RegionConfig
from zsd_core.errors import ConfigError
from zsd_core.learning.models.backbone import build_backbone
from zsd_core.learning.models.head import Head
from zsd_core.learning.models.scorers import build_scorer
from zsd_core.learning.models.trunk import Trunk

__all__ = ["ContrastZSD"]


class ContrastZSD(nn.Module):
    """The detector of section 3.2.

    It has no ``forward`` of its own: ``zsd_core.learning.objective`` trains it and
    ``zsd_core.pipeline`` runs it, both through these three parts.

    Attributes:
        trunk: image to features, objectness and anchor deltas.
        head: region feature to embedding and box deltas.
        scorer: embeddings and class vectors to scores.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        if config.regions.maps != RegionConfig().maps:
            raise ConfigError(
                f"RegionConfig.maps is {config.regions.maps!r}, which only a bundle can have: the "
                "exporter sets it. Leave it out."
            )
        self.config = config
        backbone, region_stage, width = build_backbone(
            config.backbone, conv5=config.regions.conv5, look=config.regions.stride == 1
        )
        self.trunk = Trunk(config, backbone)
        self.head = Head(config, region_stage, width)
        self.scorer = build_scorer(config.scoring, self.trunk.rpn.background)

    def scorer_tensors(self) -> dict[str, NDArray[np.float32]]:
        """The arrays of ``scorer.safetensors``."""
        return self.scorer.tensors()
