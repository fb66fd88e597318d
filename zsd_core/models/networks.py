"""A model's trunk and head as the pipeline calls them: numpy in, numpy out."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from zsd_core.models.detector import ContrastZSD

__all__ = ["TorchNetworks"]

Floats = NDArray[np.float32]


class TorchNetworks:
    """The two networks of a model for ``zsd_core.pipeline``, on the CPU, in evaluation mode."""

    def __init__(self, model: ContrastZSD) -> None:
        self._model = model.eval()

    @torch.inference_mode()
    def trunk(self, images: Floats) -> tuple[Floats, Floats, Floats]:
        """See ``zsd_core.pipeline.Networks``."""
        features, objectness, deltas = self._model.trunk(torch.from_numpy(images))
        return features.numpy(), objectness.numpy(), deltas.numpy()

    @torch.inference_mode()
    def head(self, region_features: Floats) -> tuple[Floats, Floats]:
        """See ``zsd_core.pipeline.Networks``."""
        embeddings, deltas = self._model.head(torch.from_numpy(region_features))
        return embeddings.numpy(), deltas.numpy()
