"""Scores to probabilities."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from zsd_core.errors import expect_shapes
from zsd_core.kernels._load import compiled, floats

__all__ = ["calibrate_scores"]


def calibrate_scores(
    scores: ArrayLike, parameters: ArrayLike, floors: ArrayLike | None = None
) -> NDArray[np.float32]:
    """Beta calibration of every score: ``1 / (1 + exp(-(a ln s - b ln(1 - s) + c)))``.

    The order of a column's scores stays, since a and b are not negative. (1, 1, 0) changes nothing.

    Args:
        scores: ``(R, C)``.
        parameters: ``(C, 3)``, a, b and c of each column; a and b are not negative.
        floors: ``(C,)``, a score that is not above its floor becomes 0, which saves its two
            logarithms; None is 0 for all.

    Returns:
        ``(R, C)`` in [0, 1]. NaN and scores that are not above 0 become 0; ``1 - s`` counts as
        at least 2^-24.

    Raises:
        ShapeError: an argument does not have the shape above.

    References:
        Kull et al., "Beta calibration", AISTATS 2017.
    """
    values, table = floats(scores), floats(parameters)
    sizes = expect_shapes(
        "calibrate_scores",
        "Parameters are a, b and c of each column of the scores.",
        scores=(values, "R C"),
        parameters=(table, "C 3"),
    )
    if floors is not None:
        floors = floats(floors)
        expect_shapes("calibrate_scores", "One per column.", floors=(floors, f"{sizes['C']}"))
    result: NDArray[np.float32] = compiled().calibrate_scores(values, table, floors)
    return result
