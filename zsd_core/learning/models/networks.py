"""A model's trunk and head as the pipeline calls them: numpy in, numpy out."""

from __future__ import annotations

from types import ModuleType
from typing import Protocol

import numpy as np
import torch
import torchvision
from numpy.typing import NDArray
from torch import Tensor, nn

from zsd_core import kernels
from zsd_core.config import RegionConfig

__all__ = ["Parts", "TorchNetworks", "kernels_for", "roi_pool"]

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
        """See ``zsd_core.stages.Networks``."""
        return tuple(output.numpy() for output in self._model.trunk(torch.from_numpy(images)))

    @torch.inference_mode()
    def head(self, *region_features: Floats) -> tuple[Floats, Floats]:
        """See ``zsd_core.stages.Networks``."""
        embeddings, deltas = self._model.head(*map(torch.from_numpy, region_features))
        return embeddings.numpy(), deltas.numpy()


def roi_pool(features: Tensor, rois: Tensor, batch_indices: Tensor, config: RegionConfig) -> Tensor:
    """Cut regions ``(R, C, PH, PW)`` as ``pooling: pool`` says: maxima of bins of whole cells."""
    rows = torch.cat([batch_indices[:, None].to(rois), rois], dim=1)  # a half cannot hold a pixel
    return torchvision.ops.roi_pool(features, rows, config.output_size, 1 / config.stride)


def kernels_for(config: RegionConfig) -> ModuleType:
    """The operators that the pipeline needs to cut regions as training did."""
    if config.pooling == "align":
        return kernels

    def pool(features: Floats, rois: Floats, indices: NDArray[np.int32], **_: object) -> Floats:
        tensors = torch.from_numpy(features), torch.from_numpy(rois), torch.from_numpy(indices)
        return np.asarray(roi_pool(*tensors, config).numpy())

    pooling = ModuleType("zsd_core.kernels, with RoI pooling")
    vars(pooling).update({name: getattr(kernels, name) for name in kernels.__all__})
    vars(pooling)["roi_align"] = pool
    return pooling
