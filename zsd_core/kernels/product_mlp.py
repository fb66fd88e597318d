"""The score of every (region, class) pair, without the tensors of all pairs."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from zsd_core.errors import expect_shapes
from zsd_core.kernels._load import compiled, floats

__all__ = ["product_mlp"]


def product_mlp(
    regions: ArrayLike,
    prototypes: ArrayLike,
    weight1: ArrayLike,
    bias1: ArrayLike,
    weight2: ArrayLike,
    bias2: ArrayLike,
) -> NDArray[np.float32]:
    """Score every (region, class) pair: element-wise product, then a two-layer MLP (eq. 6).

    ``weight2 . relu(weight1 (region * prototype) + bias1) + bias2``; the last layer is linear.
    Neither the products (R, K, D) nor the hidden layer (R, K, M) ever exists. Entries of a
    prototype that are exactly 0 cost nothing: their products are taken as 0, even of a region
    entry that is not finite.

    Args:
        regions: ``(R, D)`` region embeddings, p_v.
        prototypes: ``(K, D)`` projected class vectors, p_s.
        weight1: ``(M, D)``.
        bias1: ``(M,)``.
        weight2: ``(M,)``.
        bias2: ``(1,)``.

    Returns:
        ``(R, K)`` logits.

    Raises:
        ShapeError: an argument does not have the shape above.
    """
    arrays = [floats(a) for a in (regions, prototypes, weight1, bias1, weight2, bias2)]
    expect_shapes(
        "product_mlp", "D and M come from the bundle; project class vectors to D first.",
        regions=(arrays[0], "R D"), prototypes=(arrays[1], "K D"), weight1=(arrays[2], "M D"),
        bias1=(arrays[3], "M"), weight2=(arrays[4], "M"), bias2=(arrays[5], "1"),
    )  # fmt: skip
    module = compiled()
    packed = module.PackedMlp(*arrays[2:])
    result: NDArray[np.float32] = module.product_mlp(arrays[0], arrays[1], [packed], [0])[0]
    return result
