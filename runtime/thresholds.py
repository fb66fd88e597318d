"""Which detections are kept: one score threshold, one per role, or one per class."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from runtime.classes import ActiveClasses
from zsd_core.config import DetectionConfig
from zsd_core.errors import ClassError, ConfigError, did_you_mean
from zsd_core.semantics import fold_name

__all__ = ["Limits", "ScoreThreshold"]

ScoreThreshold = float | tuple[float, float] | Mapping[str, float]
ROLES = ("seen", "unseen")


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Thresholds of a detector, checked.

    Attributes:
        by_role: score threshold of "seen" and "unseen" classes.
        by_class: score threshold of single classes, by folded name; wins over ``by_role``.
        nms_threshold: IoU above which the worse of two boxes of one class is dropped.
        max_detections: most detections of an image.
    """

    by_role: Mapping[str, float]
    by_class: Mapping[str, float] = field(default_factory=dict)
    nms_threshold: float
    max_detections: int

    @classmethod
    def of(
        cls,
        default: DetectionConfig,
        score: ScoreThreshold | None,
        nms_threshold: float | None,
        max_detections: int | None,
    ) -> Limits:
        """Limits from a caller's arguments; None takes the default's.

        Raises:
            ConfigError: a number is out of range or not a number.
        """
        by_role = dict.fromkeys(ROLES, default.score_threshold)
        by_class: dict[str, float] = {}
        if isinstance(score, Mapping):
            for name, value in score.items():
                value = _share(f"score_threshold[{name!r}]", value)
                if name in ROLES:
                    by_role[name] = value
                    continue
                folded = fold_name(name) if isinstance(name, str) else ""
                if not folded or folded in by_class:
                    why = (
                        "given twice (case and blanks do not count)" if folded else "no class name"
                    )
                    raise ConfigError(f"score_threshold: {name!r} is {why}.")
                by_class[folded] = value
        elif isinstance(score, (tuple, list)):
            if len(score) != 2:
                raise ConfigError(
                    f"score_threshold is {score!r}; a pair is (seen, unseen). For one number per "
                    "class pass a mapping of names to numbers."
                )
            for role, value in zip(ROLES, score, strict=True):
                by_role[role] = _share(f"score_threshold of {role} classes", value)
        elif score is not None:
            by_role = dict.fromkeys(ROLES, _share("score_threshold", score))
        if nms_threshold is not None:
            nms_threshold = _share("nms_threshold", nms_threshold)
        if max_detections is not None and not (
            isinstance(max_detections, (int, np.integer)) and max_detections > 0
        ):
            raise ConfigError(f"max_detections is {max_detections!r}, must be a whole number > 0.")
        return cls(
            by_role=by_role,
            by_class=by_class,
            nms_threshold=default.nms_threshold if nms_threshold is None else nms_threshold,
            max_detections=int(max_detections or default.max_detections),
        )

    def check_names(self, names: Sequence[str]) -> None:
        """Refuse a threshold for a class that is not there: most likely it is misspelt.

        Raises:
            ClassError: it names the threshold and the nearest class.
        """
        folded = {fold_name(name) for name in names} if self.by_class else set()
        for name in self.by_class:
            if name not in folded:
                raise ClassError(
                    f"score_threshold has a number for {name!r}, which is none of the "
                    f"{len(names)} active classes{did_you_mean(name, folded)}"
                )

    def per_column(self, active: ActiveClasses) -> NDArray[np.float32]:
        """``(C,)`` score thresholds in the order of the class set; infinity hides a class."""
        classes = active.class_set
        result, seen = np.empty(len(active.reported), np.float32), classes.seen_count
        result[:seen], result[seen:] = (self.by_role[role] for role in ROLES)
        result[~active.reported] = np.inf
        for name, value in self.by_class.items():
            column = active.columns.get(name)
            if column is not None and active.reported[column]:
                result[column] = value
        return result


def _share(where: str, value: Any) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not 0 <= number <= 1:
        raise ConfigError(f"{where} is {value!r}, must be a number in [0, 1]; it is no percentage.")
    return number
