"""Differences between systems, with intervals over photographs and seeds at once.

A run keeps its numbers in every bootstrap sample of the photographs; all runs draw the same
photographs. A sample of the comparison draws seeds too, the same for both systems, and takes the
mean over them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["compared", "over_seeds", "summary"]

Floats = NDArray[np.float64]
LEVEL = 0.95


def over_seeds(drawn: Floats, seed: int = 0) -> Floats:
    """Mean over drawn seeds in every sample.

    Args:
        drawn: ``(S, B)``, a number of S seeds in B samples of the photographs.
        seed: of the draw; the same seed draws the same rows of every system with as many.

    Returns:
        ``(B,)``.
    """
    seeds, samples = drawn.shape
    rows = np.random.default_rng(seed).integers(seeds, size=(seeds, samples))
    return np.asarray(np.take_along_axis(drawn, rows, axis=0).mean(axis=0))


def summary(points: Sequence[float], drawn: Floats) -> dict[str, Any]:
    """Mean, deviation over seeds, and interval of a number, in the unit it comes in.

    Args:
        points: of each seed, over all photographs.
        drawn: ``(S, B)``; see ``over_seeds``.
    """
    spread = float(np.std(points, ddof=1)) if len(points) > 1 else 0.0
    return {
        "mean": round(float(np.mean(points)), 3),
        "deviation": round(spread, 3),
        "interval": _interval(over_seeds(drawn)),
    }


def compared(
    points: Sequence[float], drawn: Floats, others: Sequence[float], other_drawn: Floats
) -> dict[str, Any]:
    """One system less another: ``difference``, its ``interval``, and the share of samples above 0.

    Both have the same seeds in the same order, and the same bootstrap samples.
    """
    spread = over_seeds(drawn) - over_seeds(other_drawn)
    return {
        "difference": round(float(np.mean(points) - np.mean(others)), 3),
        "interval": _interval(spread),
        "above": round(float(np.nanmean(spread > 0)), 3),
    }


def _interval(values: Floats) -> list[float]:
    ends = np.nanquantile(values, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return [round(float(end), 3) for end in ends]
