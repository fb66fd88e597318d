"""Greedy non-maximum suppression, the one definition inside ``propose`` and ``detect``."""

from __future__ import annotations

from numbers import Real

import numpy as np
from numpy.typing import ArrayLike, NDArray

from zsd_core.errors import expect_shapes
from zsd_core.kernels._load import compiled, floats
from zsd_core.options import check_option

__all__ = ["check_overlap", "nms"]


def check_overlap(where: str, threshold: float) -> None:
    """Refuse what no two boxes' IoU can be compared with: nothing would be suppressed.

    Raises:
        ConfigError: ``threshold`` is no number in [0, 1].
    """
    share = isinstance(threshold, Real) and 0 <= threshold <= 1
    rule = "must be a number in [0, 1]; it is a box's overlap (IoU), no percentage"
    check_option(share, where, threshold, rule)


def nms(boxes: ArrayLike, scores: ArrayLike, *, threshold: float) -> NDArray[np.int64]:
    """Keep the best boxes, each dropping the later ones that overlap it.

    Args:
        boxes: ``(n, 4)`` ``x1 y1 x2 y2`` in any pixels.
        scores: ``(n,)``; ties go to the lower index, NaN comes last.
        threshold: a box goes when its IoU with a kept one is above this, in [0, 1].

    Returns:
        Indices of the kept boxes, best first.

    Raises:
        ShapeError: not one score per box of four numbers.
        ConfigError: ``threshold`` is not in [0, 1].
    """
    check_overlap("nms: threshold", threshold)
    boxes, scores = floats(boxes), floats(scores)
    expect_shapes("nms", "One score per box.", boxes=(boxes, "n 4"), scores=(scores, "n"))
    kept: NDArray[np.int64] = compiled().nms(boxes, scores, float(threshold))
    return kept
