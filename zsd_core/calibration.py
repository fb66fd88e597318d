"""Scores that are probabilities: of detections near 0.6, about 60 % are right.

A calibration is three numbers for each role, fitted on photographs that trained nothing
(``python -m export.calibrate``). It is monotone within a role, so it changes no order of a class's
detections; across roles it makes scores comparable. ``kernels.calibrate_scores`` is its arithmetic.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from zsd_core.errors import ConfigError

__all__ = ["IDENTITY", "CalibrationConfig", "Curve", "floor_of", "probability"]

Floats = NDArray[np.float32]
Curve = tuple[float, float, float]

IDENTITY: Curve = (1.0, 1.0, 0.0)
LEAST = 2.0**-24  # of 1 - s
SLACK = 1e-5  # of a threshold: the kernels compute in float32, floors are found in float64


@dataclass(frozen=True, slots=True, kw_only=True)
class CalibrationConfig:
    """From final scores s to probabilities: 1 / (1 + exp(-(a ln s - b ln(1 - s) + c))).

    Attributes:
        seen: a, b and c of the seen classes; a is above 0 and b not negative. None leaves the
            scores of the role as they are.
        unseen: likewise, of the unseen classes.

    References:
        Kull et al., "Beta calibration", AISTATS 2017.
    """

    seen: Curve | None = None
    unseen: Curve | None = None

    def __post_init__(self) -> None:
        for role, curve in (("seen", self.seen), ("unseen", self.unseen)):
            if curve is not None and not (curve[0] > 0 and curve[1] >= 0):
                raise ConfigError(
                    f"CalibrationConfig.{role} is {curve}, but a, its first number, must be above "
                    "0 and b, the second, not negative: else a better score would not become a "
                    "larger probability."
                )

    def __bool__(self) -> bool:
        """Whether any score changes."""
        return self.seen is not None or self.unseen is not None

    def parameters(self, seen: int, unseen: int) -> Floats | None:
        """``(seen + unseen, 3)``, what ``kernels.calibrate_scores`` reads; None: nothing changes.

        Args:
            seen: number of seen classes, whose columns come first.
            unseen: number of unseen classes.
        """
        if not self:
            return None
        table = np.empty((seen + unseen, 3), np.float32)
        table[:seen], table[seen:] = self.seen or IDENTITY, self.unseen or IDENTITY
        return table

    def floors(self, thresholds: Floats, seen: int) -> Floats:
        """Scores before calibration that ``thresholds`` on probabilities ask for.

        A score up to its floor becomes no probability above its threshold, so scoring can leave it
        out. The reverse holds but for rounding; ``detect`` compares the probabilities themselves.

        Args:
            thresholds: ``(C,)``, infinity hides a class.
            seen: number of seen classes, whose columns come first.
        """
        if not self:
            return thresholds
        floors = np.empty_like(thresholds)
        for part, curve in ((slice(0, seen), self.seen), (slice(seen, None), self.unseen)):
            values, places = np.unique(thresholds[part], return_inverse=True)
            found = [floor_of(curve or IDENTITY, float(value)) for value in values]
            floors[part] = np.asarray(found, np.float32)[places]
        return floors


def probability(curve: Curve, score: float) -> float:
    """One score above 0, calibrated in double precision; others become 0."""
    if not score > 0:
        return 0.0
    a, b, c = curve
    logit = a * math.log(score) - b * math.log(max(1 - score, LEAST)) + c
    return 1 / (1 + math.exp(-logit)) if logit > -700 else 0.0


@lru_cache(maxsize=1024)
def floor_of(curve: Curve, threshold: float) -> float:
    """A score up to which no probability exceeds a threshold, close to the largest such score."""
    if threshold < 0 or threshold == math.inf:
        return math.copysign(math.inf, threshold)
    low, high, wanted = 0.0, 1.0, threshold * (1 - SLACK)
    for _ in range(60):
        middle = (low + high) / 2
        if probability(curve, middle) <= wanted:
            low = middle
        else:
            high = middle
    return float(np.nextafter(np.float32(low), np.float32(0)))
