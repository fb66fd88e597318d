"""The trunk network: image to feature map, objectness and anchor deltas (section 3.2.1)."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zsd_core.config import ModelConfig, ProposalConfig
from zsd_core.learning.models.backbone import Backbone
from zsd_core.options import check_option

__all__ = ["RegionProposalNetwork", "Trunk"]


class RegionProposalNetwork(nn.Module):
    """Score and shift every anchor: hidden 3 x 3 convolutions, then two 1 x 1 convolutions.

    With ``config.objectness == "background"`` the score contrasts each anchor with the learned
    background vector a_0 against a learned foreground vector (Background Learnable RPN, [58]); as
    both are linear in the hidden map, the vectors fold into one 1 x 1 convolution.
    """

    def __init__(self, config: ProposalConfig, channels: dict[int, int], vector_dim: int) -> None:
        super().__init__()
        self.levels, self.stride = config.levels, config.stride
        anchors = len(config.anchor_sizes) * len(config.aspect_ratios)
        self.laterals = nn.ModuleList()
        if len(self.levels) > 1:
            self.laterals.extend(nn.Conv2d(channels[s], config.channels, 1) for s in self.levels)
        self.smoothers = nn.ModuleList()
        if config.merge == "topdown":
            self.smoothers.extend(
                nn.Conv2d(config.channels, config.channels, 3, padding=1) for _ in self.levels[1:]
            )
        widths = [channels[self.levels[0]]] if len(self.levels) == 1 else [config.channels]
        widths += [config.channels] * config.depth
        self.hidden = nn.ModuleList(nn.Conv2d(a, b, 3, padding=1) for a, b in pairwise(widths))
        self.deltas = nn.Conv2d(config.channels, 4 * anchors, 1)
        self.background: nn.Parameter | None = None
        if config.objectness == "background":
            self.semantic = nn.Conv2d(config.channels, anchors * vector_dim, 1)
            self.foreground = nn.Parameter(torch.randn(vector_dim) / vector_dim**0.5)
            self.background = nn.Parameter(torch.randn(vector_dim) / vector_dim**0.5)
        else:
            self.objectness = nn.Conv2d(config.channels, anchors, 1)
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d):
                nn.init.normal_(layer.weight, std=0.01)
                nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
        if config.objectness == "quality":
            nn.init.constant_(self.objectness.bias, -4.6)  # type: ignore[arg-type]  # 0.01
        for lateral in (
            *self.laterals,
            *self.smoothers,
            *(self.hidden[1:] if config.depth > 1 else ()),
        ):
            nn.init.kaiming_normal_(lateral.weight)

    def forward(self, maps: Mapping[int, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """Map ``{stride: (N, C, H, W)}`` to logits, deltas and the hidden map they come from.

        Logits are ``(N, A, h, w)``, deltas ``(N, 4A, h, w)``, the hidden map ``(N, C', h, w)``.
        Channel ``4 a + k`` of the deltas holds dx, dy, dw, dh (k = 0 .. 3) of anchor a.
        """
        x = self._merge(maps)
        for layer in self.hidden:
            x = F.relu(layer(x))
        return self._score(x), self.deltas(x), x

    def _merge(self, maps: Mapping[int, Tensor]) -> Tensor:
        if len(self.levels) == 1:
            return maps[self.levels[0]]
        if self.smoothers:
            return self._descend(maps)
        total = None
        for stride, lateral in zip(self.levels, self.laterals, strict=True):
            x = lateral(maps[stride])
            if stride < self.stride:
                x = F.max_pool2d(x, self.stride // stride)
            elif stride > self.stride:
                x = F.interpolate(x, scale_factor=stride // self.stride, mode="nearest")
            total = x if total is None else total + x
        assert total is not None
        return F.relu(total)

    def _descend(self, maps: Mapping[int, Tensor]) -> Tensor:
        """From the coarsest map down, each smoothed before it is enlarged and added to the next."""
        x = F.relu(self.laterals[-1](maps[self.levels[-1]]))
        for index in reversed(range(len(self.levels) - 1)):
            x = F.relu(self.smoothers[index](x))
            factor = self.levels[index + 1] // self.levels[index]
            x = F.interpolate(x, scale_factor=factor, mode="nearest")
            x = F.relu(x + self.laterals[index](maps[self.levels[index]]))
        return x

    def _score(self, x: Tensor) -> Tensor:
        if self.background is None:
            return self.objectness(x)
        contrast = self.foreground - self.background  # (E,)
        anchors = self.semantic.weight.shape[0] // len(contrast)
        weight = self.semantic.weight.view(anchors, len(contrast), -1)  # (A, E, C)
        bias = self.semantic.bias.view(anchors, -1)  # type: ignore[union-attr]
        return F.conv2d(
            x, torch.einsum("aec,e->ac", weight, contrast)[..., None, None], bias @ contrast
        )


class Trunk(nn.Module):
    """Backbone and region proposal network: everything that runs once per image.

    Attributes:
        channels: of the features that regions are cut from.
    """

    def __init__(self, config: ModelConfig, backbone: Backbone) -> None:
        super().__init__()
        self.backbone = backbone
        self.regions = config.regions
        self.source_stride = 32 if config.regions.conv5 == "map" else config.regions.stride
        offered = ", ".join(map(str, sorted(backbone.channels)))
        for field, wanted in (
            ("ProposalConfig.levels", config.proposals.levels),
            ("RegionConfig.stride", (self.source_stride,)),
        ):
            present = set(wanted) <= set(backbone.channels)
            check_option(present, field, wanted, f"but the backbone has maps of strides {offered}")
        self.rpn = RegionProposalNetwork(
            config.proposals, backbone.channels, config.scoring.vector_dim
        )
        self.channels = backbone.channels[self.source_stride]
        if config.regions.box_hidden:
            self.channels += config.proposals.channels

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Map ``(N, 3, H, W)`` to features ``(N, C, h, w)``, objectness logits and deltas."""
        return self.read(self.backbone(images))

    def read(self, maps: Mapping[int, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """Outputs from the backbone's maps, which a frozen backbone lets one keep.

        The last channels of the features are the proposal network's hidden map, where boxes are
        regressed from it.
        """
        objectness, deltas, hidden = self.rpn(maps)
        features = maps[self.source_stride]
        if self.source_stride > self.regions.stride:
            scale = self.source_stride // self.regions.stride
            features = F.interpolate(features, scale_factor=scale, mode="nearest")
        if self.regions.box_hidden:
            features = torch.cat([features, hidden], dim=1)
        return features, objectness, deltas
