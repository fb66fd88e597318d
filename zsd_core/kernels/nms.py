"""Greedy non-maximum suppression, the one definition inside ``propose`` and ``detect``."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from zsd_core.errors import expect_shapes
from zsd_core.kernels._load import compiled, floats

__all__ = ["nms"]


def nms(boxes: ArrayLike, scores: ArrayLike, *, threshold: float) -> NDArray[np.int64]:
    """Keep the best boxes, each dropping the later ones that overlap it.

    Args:
        boxes: ``(n, 4)`` ``x1 y1 x2 y2`` in any pixels.
        scores: ``(n,)``; ties go to the lower index, NaN comes last.
        threshold: a box goes when its IoU with a kept one is above this.

    Returns:
        Indices of the kept boxes, best first.

    Raises:
        ShapeError: not one score per box of four numbers.
    """
    boxes, scores = floats(boxes), floats(scores)
    expect_shapes("nms", "One score per box.", boxes=(boxes, "n 4"), scores=(scores, "n"))
    kept: NDArray[np.int64] = compiled().nms(boxes, scores, float(threshold))
    return kept
