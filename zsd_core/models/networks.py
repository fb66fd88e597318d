"""A model's trunk and head as the pipeline calls them: numpy in, numpy out."""

from __future__ import annotations

from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

__all__ = ["Parts", "TorchNetworks"]

Floats = NDArray[np.float32]


class Parts(Protocol):
    """A model, as far as the pipeline runs it."""

    @property
    def trunk(self) -> nn.Module:
        """Image to maps, objectness and anchor deltas."""

    @property
    def head(self) -> nn.Module:
        """Regions of the maps to embeddings and box deltas."""

    def eval(self) -> Parts:
        """Set evaluation mode."""


class TorchNetworks:
    """The two networks of a model for ``zsd_core.pipeline``, on the CPU, in evaluation mode."""

    def __init__(self, model: Parts) -> None:
        self._model = model.eval()

    @torch.inference_mode()
    def trunk(self, images: Floats) -> tuple[Floats, ...]:
        """See ``zsd_core.pipeline.Networks``."""
        return tuple(output.numpy() for output in self._model.trunk(torch.from_numpy(images)))

    @torch.inference_mode()
    def head(self, *region_features: Floats) -> tuple[Floats, Floats]:
        """See ``zsd_core.pipeline.Networks``."""
        embeddings, deltas = self._model.head(*map(torch.from_numpy, region_features))
        return embeddings.numpy(), deltas.numpy()
