"""Batch norm folded into the convolutions before it."""

from __future__ import annotations

import copy
from typing import Any, cast

import torch
from torch import Tensor, nn
from torchvision.ops import FrozenBatchNorm2d

from export.graphs.errors import ExportError

__all__ = ["fold_batch_norm"]


def fold_batch_norm(network: nn.Module, *samples: Tensor) -> nn.Module:
    """Copy of ``network`` whose frozen batch norms are part of the convolutions before them.

    Which convolution precedes which batch norm is read off a run on ``samples``, so any way of
    writing a network will do.

    Raises:
        ExportError: a batch norm does not follow a convolution directly.
    """
    network = copy.deepcopy(network).eval()
    makers: list[tuple[Tensor, nn.Conv2d]] = []  # keeps the tensors alive, so identity is safe
    pairs: dict[nn.Module, nn.Conv2d] = {}

    def note_convolution(module: nn.Module, _: Any, output: Tensor) -> None:
        makers.append((output, cast(nn.Conv2d, module)))

    def note_norm(module: nn.Module, arguments: tuple[Tensor, ...]) -> None:
        found = [conv for output, conv in makers if output is arguments[0]]
        if not found:
            raise ExportError(
                "a batch norm of the model does not follow a convolution directly; "
                "fold it by hand or place it behind one."
            )
        pairs[module] = found[0]

    kinds = (nn.BatchNorm2d, FrozenBatchNorm2d)
    handles = [
        module.register_forward_hook(note_convolution)
        if isinstance(module, nn.Conv2d)
        else module.register_forward_pre_hook(note_norm)
        for module in network.modules()
        if isinstance(module, (nn.Conv2d, *kinds))
    ]
    try:
        with torch.no_grad():
            network(*samples)
    finally:
        for handle in handles:
            handle.remove()
    for norm, convolution in pairs.items():
        _fold(convolution, cast("nn.BatchNorm2d", norm))
    for parent in list(network.modules()):
        for name, child in parent.named_children():
            if child in pairs:
                setattr(parent, name, nn.Identity())
    return network


def _fold(convolution: nn.Conv2d, norm: nn.BatchNorm2d) -> None:
    with torch.no_grad():  # in float64: folding costs no accuracy
        mean, variance = (
            x.double() for x in (norm.running_mean, norm.running_var) if x is not None
        )
        scale = norm.weight.double() / (variance + norm.eps).sqrt()
        bias = 0.0 if convolution.bias is None else convolution.bias.double()
        weight = convolution.weight.double() * scale[:, None, None, None]
        shifted = (bias - mean) * scale + norm.bias.double()
        convolution.weight = nn.Parameter(weight.float(), requires_grad=False)
        convolution.bias = nn.Parameter(shifted.float(), requires_grad=False)
