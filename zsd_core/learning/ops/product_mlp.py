"""Eq. 6 as a torch operator whose gradient keeps memory flat: ``torch.ops.zsd.product_mlp``."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from zsd_core import kernels
from zsd_core.errors import expect_shapes

__all__ = ["product_mlp"]

# Entries of the largest temporary tensor: 4 MB in float32, whatever R and K are.
_BUDGET = 1 << 20


def product_mlp(
    regions: Tensor,
    prototypes: Tensor,
    weight1: Tensor,
    bias1: Tensor,
    weight2: Tensor,
    bias2: Tensor,
) -> Tensor:
    """Score every (region, class) pair: element-wise product, then a two-layer MLP (eq. 6).

    ``weight2 . relu(weight1 (region * prototype) + bias1) + bias2``; the last layer is linear.
    Neither forward nor backward holds the products (R, K, D) or the hidden layer (R, K, M): the
    gradient computes the hidden layer again, a few classes at a time. Runs in float32 under
    autocast.

    Args:
        regions: ``(R, D)`` region embeddings, p_v.
        prototypes: ``(K, D)`` projected class vectors, p_s.
        weight1: ``(M, D)``.
        bias1: ``(M,)``.
        weight2: ``(M,)``.
        bias2: ``(1,)``.

    Returns:
        ``(R, K)`` logits in the dtype and device of ``regions``; all six have a gradient.

    Raises:
        ShapeError: an argument does not have the shape above.
    """
    expect_shapes(
        "product_mlp",
        "D and M come from the configuration; project class vectors to D first.",
        regions=(regions, "R D"),
        prototypes=(prototypes, "K D"),
        weight1=(weight1, "M D"),
        bias1=(bias1, "M"),
        weight2=(weight2, "M"),
        bias2=(bias2, "1"),
    )
    result: Tensor = torch.ops.zsd.product_mlp(regions, prototypes, weight1, bias1, weight2, bias2)
    return result


@torch.library.custom_op("zsd::product_mlp", mutates_args=())
def _product_mlp(
    regions: Tensor,
    prototypes: Tensor,
    weight1: Tensor,
    bias1: Tensor,
    weight2: Tensor,
    bias2: Tensor,
) -> Tensor:
    if regions.device.type == "cpu" and regions.dtype == torch.float32:
        arrays = [a.numpy() for a in (regions, prototypes, weight1, bias1, weight2, bias2)]
        return torch.from_numpy(kernels.product_mlp(*arrays))
    scores = regions.new_empty(len(regions), len(prototypes))
    for rows, classes in _blocks(regions, prototypes, weight1):
        hidden = _hidden(regions[rows], prototypes[classes], weight1, bias1)
        scores[rows, classes] = hidden @ weight2 + bias2
    return scores


@_product_mlp.register_fake
def _(regions: Tensor, prototypes: Tensor, *_: Tensor) -> Tensor:
    return regions.new_empty(regions.shape[0], prototypes.shape[0])


@torch.library.custom_op("zsd::product_mlp_backward", mutates_args=())
def _product_mlp_backward(
    gradient: Tensor,
    regions: Tensor,
    prototypes: Tensor,
    weight1: Tensor,
    bias1: Tensor,
    weight2: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    for_regions, for_prototypes = torch.zeros_like(regions), torch.zeros_like(prototypes)
    for_weight1, for_bias1 = torch.zeros_like(weight1), torch.zeros_like(bias1)
    for_weight2 = torch.zeros_like(weight2)
    for rows, classes in _blocks(regions, prototypes, weight1):
        block, some, part = regions[rows], prototypes[classes], gradient[rows, classes]
        hidden = _hidden(block, some, weight1, bias1)  # (r, k, M)
        for_weight2 += torch.einsum("rk,rkm->m", part, hidden)
        inner = part[:, :, None] * weight2 * (hidden > 0)  # (r, k, M)
        flat = inner.flatten(1)  # (r, k M)
        for_bias1 += inner.sum(dim=(0, 1))
        for_regions[rows] += flat @ _folded(some, weight1)
        outer = (flat.T @ block).view(-1, *weight1.shape)  # (k, M, D)
        for_prototypes[classes] += (outer * weight1).sum(dim=1)
        for_weight1 += (outer * some[:, None]).sum(dim=0)
    return for_regions, for_prototypes, for_weight1, for_bias1, for_weight2


@_product_mlp_backward.register_fake
def _(gradient: Tensor, *arguments: Tensor) -> tuple[Tensor, ...]:
    return tuple(torch.empty_like(a) for a in arguments)


def _folded(prototypes: Tensor, weight1: Tensor) -> Tensor:
    """``(k M, D)``: the first layer of every class, its prototype multiplied in."""
    return (prototypes[:, None] * weight1).flatten(0, 1)


def _hidden(regions: Tensor, prototypes: Tensor, weight1: Tensor, bias1: Tensor) -> Tensor:
    hidden = (regions @ _folded(prototypes, weight1).T).view(len(regions), -1, len(bias1))
    return hidden.add_(bias1).relu_()


def _blocks(regions: Tensor, prototypes: Tensor, weight1: Tensor) -> Iterator[tuple[slice, slice]]:
    """Blocks of regions and classes whose temporaries stay within the budget."""
    hidden, joint = weight1.shape
    rows = max(1, min(len(regions), _BUDGET // max(1, hidden)))
    classes = max(1, _BUDGET // max(1, hidden * max(rows, joint)))
    for row in range(0, len(regions), rows):
        for k in range(0, len(prototypes), classes):
            yield slice(row, row + rows), slice(k, k + classes)


def _save(ctx: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
    ctx.save_for_backward(*inputs[:5])


def _differentiate(ctx: Any, gradient: Tensor) -> tuple[Tensor, ...]:
    gradient = gradient.contiguous()
    return (
        *torch.ops.zsd.product_mlp_backward(gradient, *ctx.saved_tensors),
        gradient.sum().reshape(1),
    )


_product_mlp.register_autograd(_differentiate, setup_context=_save)
_product_mlp.register_autocast("cuda", torch.float32)
