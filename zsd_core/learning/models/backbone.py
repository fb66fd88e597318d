"""Backbones: a chain of stages that yields a map per stride, and the stage that reads regions.

The trunk runs conv1-conv4 on the image; conv5 (the last stages of MobileNetV2) runs on every region
(section 3.2.1) or, as an option, on the image too. Weights are torchvision's, batch norm is frozen.
"""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Mapping
from typing import cast

import torch
import torchvision
from torch import Tensor, nn
from torchvision.ops import FrozenBatchNorm2d

from zsd_core.config import BackboneConfig
from zsd_core.errors import ConfigError, DataError
from zsd_core.files import shown
from zsd_core.learning.models.efficientnet_lite import LAST_CHANNELS, EfficientNetLite

__all__ = ["Backbone", "build_backbone"]


class Backbone(nn.Module):
    """conv1 to conv4 or conv5 as consecutive stages, each ending at a stride the detector reads.

    Attributes:
        channels: channels of the map at each stride.
        stages: stage modules by name, in order.
    """

    def __init__(self, stages: OrderedDict[str, nn.Module], channels: dict[int, int]) -> None:
        super().__init__()
        self.stages = nn.ModuleDict(stages)
        self.strides = tuple(channels)
        self.channels = {1: 3, **channels}

    def append(self, stride: int, stage: nn.Module, channels: int) -> None:
        """Add the stage that ends at ``stride``."""
        self.stages[f"stage{len(self.stages) + 1}"] = stage
        self.strides += (stride,)
        self.channels[stride] = channels

    def forward(self, images: Tensor) -> dict[int, Tensor]:
        """Map ``(N, 3, H, W)`` to ``{stride: (N, C, H / stride, W / stride)}``.

        The map of stride 1 is the images.
        """
        maps: dict[int, Tensor] = {1: images}
        x = images
        for stride, stage in zip(self.strides, self.stages.values(), strict=True):
            x = stage(x)
            maps[stride] = x
        return maps


def build_backbone(
    config: BackboneConfig, *, conv5: str = "region", look: bool = False
) -> tuple[Backbone, nn.Module, int]:
    """Build the trunk's backbone and the region stage; conv5 is in one of the two.

    With ``conv5="map"`` it is the backbone's stage of stride 32, and the region stage does nothing.
    With ``look`` regions are cut from the image itself: the region stage is a whole classifier.

    Returns:
        The backbone, the region stage ``(R, C, PH, PW) -> (R, F, ph, pw)``, and F.

    Raises:
        DataError: ``config.weights`` cannot be read or does not fit the network.
    """
    if config.name == "mobilenet_v2":
        backbone, region_stage, width = _mobilenet_v2(config)
    elif config.name == "efficientnet_lite0":
        backbone, region_stage, width = _efficientnet_lite(config)
    else:
        backbone, region_stage, width = _resnet(config)
    if look:
        if config.name != "efficientnet_lite0":
            raise ConfigError(
                f"RegionConfig.stride is 1, which needs a classifier that reads crops; there is "
                f"efficientnet_lite0, but BackboneConfig.name is {config.name!r}."
            )
        top = cast(nn.Sequential, region_stage)[:-3]  # without the last convolution
        backbone.append(32, top, 320)
        region_stage = nn.Sequential(*(m for s in _load_lite(config).stages() for m in s))
    _freeze(backbone, region_stage, config.frozen)
    if conv5 == "map":
        backbone.append(32, region_stage, width)
        region_stage = nn.Identity()
    return backbone, region_stage, width


def _mobilenet_v2(config: BackboneConfig) -> tuple[Backbone, nn.Module, int]:
    network = torchvision.models.mobilenet_v2(norm_layer=FrozenBatchNorm2d)
    _load(network.features, config.weights, prefix="features.")
    blocks = list(network.features)
    cuts = OrderedDict(
        stem=nn.Sequential(*blocks[:2]),
        stage2=nn.Sequential(*blocks[2:4]),
        stage3=nn.Sequential(*blocks[4:7]),
        stage4=nn.Sequential(*blocks[7:14]),
    )
    backbone = Backbone(cast("OrderedDict[str, nn.Module]", cuts), {2: 16, 4: 24, 8: 32, 16: 96})
    return backbone, nn.Sequential(*blocks[14:]), network.last_channel


def _efficientnet_lite(config: BackboneConfig) -> tuple[Backbone, nn.Module, int]:
    stages = _load_lite(config).stages()
    names = ("stem", "stage2", "stage3", "stage4")
    backbone = Backbone(
        OrderedDict(zip(names, stages[:4], strict=True)), {2: 16, 4: 24, 8: 40, 16: 112}
    )
    return backbone, nn.Sequential(*stages[4], *stages[5]), LAST_CHANNELS


def _load_lite(config: BackboneConfig) -> EfficientNetLite:
    network = EfficientNetLite()
    _load(network, config.weights)
    return network


def _resnet(config: BackboneConfig) -> tuple[Backbone, nn.Module, int]:
    network = getattr(torchvision.models, config.name)(norm_layer=FrozenBatchNorm2d)
    _load(network, config.weights)
    if config.stride_in_1x1:
        _move_stride(network, config.name)
    cuts = OrderedDict(
        stem=nn.Sequential(network.conv1, network.bn1, network.relu),
        stage2=nn.Sequential(network.maxpool, network.layer1),
        stage3=network.layer2,
        stage4=network.layer3,
    )
    width = cast(int, network.fc.in_features)  # 512, or 2048 with bottlenecks
    channels = {2: 64, 4: width // 8, 8: width // 4, 16: width // 2}
    return Backbone(cast("OrderedDict[str, nn.Module]", cuts), channels), network.layer4, width


def _move_stride(network: nn.Module, name: str) -> None:
    if name in ("resnet18", "resnet34"):
        raise ConfigError(
            f"BackboneConfig.stride_in_1x1 is True, but {name} has no 1 x 1 convolution to carry "
            "the stride; set it to False."
        )
    for module in network.modules():
        if isinstance(module, torchvision.models.resnet.Bottleneck):
            module.conv1.stride, module.conv2.stride = module.conv2.stride, module.conv1.stride


def _load(network: nn.Module, path: str, prefix: str = "") -> None:
    if not path:
        return
    if not os.path.isfile(path):  # False too where the name is none that a file can have
        raise DataError(f"backbone weights {path} are not a file; see docs/training.md.")
    try:
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many kinds for a damaged file
        raise DataError(
            f"backbone weights {path} are damaged, or no state dict that torch.save wrote."
        ) from error
    if not isinstance(loaded, Mapping):
        raise DataError(
            f"backbone weights {path} are not a state dict but {type(loaded).__name__}."
        )
    for key, value in loaded.items():
        if not (isinstance(key, str) and isinstance(value, Tensor)):
            raise DataError(
                f"backbone weights {path} are not a state dict: {shown(key)} is of type "
                f"{type(value).__name__}, must be a name with a tensor."
            )
    state: dict[str, Tensor] = {
        key.removeprefix(prefix): value
        for key, value in loaded.items()
        if not key.endswith("num_batches_tracked") and not key.startswith(("classifier.", "_fc."))
    }
    own = network.state_dict()
    names = [
        key for key in own if not key.startswith("fc.") and not key.endswith("num_batches_tracked")
    ]
    wanted = set(names)
    if len(names) == len(state) and "1.conv.0.weight" in state:
        # MobileNetV2 files of before torchvision 0.3 number the layers of a block without nesting;
        # the order is the same.
        state = dict(zip(names, state.values(), strict=True))
    missing, extra = sorted(wanted - set(state)), sorted(set(state) - wanted)
    extra = [key for key in extra if not key.startswith("fc.")]
    other = [key for key in names if key in state and state[key].shape != own[key].shape]
    if missing or extra or other:
        raise DataError(
            f"backbone weights {path} do not fit: missing {missing[:3]}, unexpected {extra[:3]}, "
            f"of another shape {other[:3]}. Give the state dict of the torchvision network named "
            "in backbone.name."
        )
    network.load_state_dict({key: state[key] for key in names}, strict=False)  # fc stays


def _freeze(backbone: Backbone, region_stage: nn.Module, frozen: str) -> None:
    bottom = [backbone.stages["stem"], backbone.stages["stage2"]]
    chosen = {"none": [], "bottom": bottom, "all": [backbone, region_stage]}[frozen]
    for module in chosen:
        _fold_batch_norm(module)
        module.requires_grad_(False)


def _fold_batch_norm(module: nn.Module) -> None:
    """Put every batch norm into the convolution before it: the same function, six times faster."""
    convolution: nn.Conv2d | None = None
    for name, child in list(module.named_children()):
        if isinstance(child, FrozenBatchNorm2d):
            assert convolution is not None
            scale = child.weight / torch.sqrt(child.running_var + child.eps)
            convolution.weight = nn.Parameter(convolution.weight * scale[:, None, None, None])
            convolution.bias = nn.Parameter(child.bias - child.running_mean * scale)
            setattr(module, name, nn.Identity())
        _fold_batch_norm(child)
        convolution = child if isinstance(child, nn.Conv2d) else convolution
