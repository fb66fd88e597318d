"""Rows times a matrix that stays: the layers of p_s, and cosines with the seen classes."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from zsd_core.errors import expect_shapes
from zsd_core.kernels._load import compiled, floats

__all__ = ["PackedLinear"]

_FIX = "Rows must be as wide as the weight's."


class PackedLinear:
    """A linear layer without bias: packed once, asked whenever classes change.

    A row's result does not depend on the other rows, to the bit, and few rows do not leave the
    caller's thread. A BLAS promises neither: it sums another way in another shape, and waits for
    its threads even if all cores are busy with frames.

    Args:
        weight: ``(M, D)``.
    """

    def __init__(self, weight: ArrayLike) -> None:
        matrix = floats(weight)
        expect_shapes("PackedLinear", _FIX, weight=(matrix, "M D"))
        self.inputs = int(matrix.shape[1])
        self._handle: Any = compiled().PackedLinear(matrix)

    def __call__(self, rows: ArrayLike) -> NDArray[np.float32]:
        """``rows @ weight.T``, ``(N, M)``, of rows ``(N, D)``."""
        matrix = floats(rows)
        expect_shapes("PackedLinear", _FIX, rows=(matrix, f"N {self.inputs}"))
        result: NDArray[np.float32] = self._handle.multiply(matrix)
        return result
