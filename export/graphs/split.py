"""Run conv5's first 1 x 1 convolutions once on the map instead of once per region: the same result.

A 1 x 1 convolution without bias and RoIAlign are both linear, one across channels, the other across
cells, so either may come first. A ResNet's conv5 begins with two: one that reduces the channels,
and the shortcut around its first block. With batch norm folded into them they move into the trunk,
and their biases stay in the head. 300 regions of 14 x 14 bins overlap so much on a map of 38 x 50
cells that a quarter of conv5's arithmetic goes; the head is given as many numbers as before, for a
convolution with a stride wants only that share of the bins.

Checkpoints and training know nothing of it; ``RegionConfig.maps`` says what a bundle's networks do.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models.resnet import Bottleneck

from export.graphs.fold import fold_batch_norm
from zsd_core.config import ModelConfig
from zsd_core.learning.models import ContrastZSD, Head, Trunk

__all__ = ["SplitModel", "split_conv5"]

MAPS = ("reduced", "shortcut")


class SplitModel(nn.Module):
    """Trunk and head that compute what those of a model compute, cut at another place.

    Attributes:
        config: of the model, with the maps that this head reads.
        trunk: image to both maps, objectness and anchor deltas.
        head: regions of both maps to embeddings and box deltas.
    """

    def __init__(self, config: ModelConfig, trunk: nn.Module, head: nn.Module) -> None:
        super().__init__()
        self.config, self.trunk, self.head = config, trunk, head


def split_conv5(model: ContrastZSD) -> SplitModel | None:
    """The model with the first convolutions of conv5 in its trunk; None where that saves nothing.

    It saves where a ResNet with bottlenecks runs conv5 per region, on more bins than the map has
    cells. A regressor that reads bins of its own (``box_hidden``) is left alone.
    """
    config, regions = model.config, model.config.regions
    edges = config.preprocess.padded(config.preprocess.shorter_edge, config.preprocess.longer_edge)
    bins = config.proposals.post_nms_top * math.prod(regions.output_size)
    stage = model.head.region_stage
    if not (isinstance(stage, nn.Sequential) and isinstance(stage[0], Bottleneck)):
        return None
    if regions.box_hidden or bins * regions.stride**2 < math.prod(edges):
        return None
    sample = torch.zeros(1, model.trunk.channels, *regions.output_size)
    head = cast(Head, fold_batch_norm(model.head, sample))
    block: Any = cast("nn.Sequential", head.region_stage)[0]
    layers = (block.conv1, block.downsample[0])
    steps = [layer.stride[0] for layer in layers]
    maps = tuple(zip(MAPS, steps, strict=True))
    config = dataclasses.replace(config, regions=dataclasses.replace(regions, maps=maps))
    return SplitModel(config, _Trunk(model.trunk, layers), _Head(head)).eval()


class _Trunk(nn.Module):
    """The trunk and, on its features, ``layers`` at every cell and without their biases."""

    def __init__(self, trunk: Trunk, layers: tuple[nn.Conv2d, ...]) -> None:
        super().__init__()
        self.trunk = trunk
        self.layers = nn.ModuleList(
            nn.Conv2d(layer.in_channels, layer.out_channels, 1, bias=False) for layer in layers
        )
        for own, layer in zip(self.layers, layers, strict=True):
            own.weight = layer.weight

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        features, objectness, deltas = self.trunk(images)
        return *(layer(features) for layer in self.layers), objectness, deltas


class _Head(nn.Module):
    """The head without those layers, but with their biases.

    Args:
        head: batch norm folded into its convolutions; it is taken apart.
    """

    def __init__(self, head: Head) -> None:
        super().__init__()
        layers = cast("nn.Sequential", head.region_stage)
        block: Any = layers[0]
        self.bias = nn.Parameter(block.conv1.bias[:, None, None])
        self.conv2, self.conv3 = block.conv2, block.conv3
        with torch.no_grad():  # added to one another either way
            self.conv3.bias += block.downsample[0].bias
        head.region_stage = layers[1:]
        self.rest = head

    def forward(self, reduced: Tensor, shortcut: Tensor) -> tuple[Tensor, Tensor]:
        x = F.relu(self.conv2(F.relu(reduced + self.bias)))
        embeddings, deltas = self.rest(F.relu(self.conv3(x) + shortcut))
        return embeddings, deltas
