"""Thresholds that detections must pass: one score threshold, one per role, or one per class."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from runtime.classes import ActiveClasses
from zsd_core.config import MOST_DETECTIONS, DetectionConfig
from zsd_core.errors import ClassError, ConfigError, did_you_mean, join_first
from zsd_core.files import shown
from zsd_core.semantics import fold_name

__all__ = ["Limits", "ScoreChange", "ScoreThreshold", "State"]

ScoreThreshold = float | tuple[float, float] | Mapping[str, float]
ScoreChange = ScoreThreshold | Mapping[str, float | None]
ROLES = ("seen", "unseen")


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Thresholds of a detector, checked.

    Attributes:
        by_role: score threshold of "seen" and "unseen" classes.
        by_class: score threshold of single classes, by folded name; wins over ``by_role``. Never of
            a class called "seen" or "unseen": these names are the roles'.
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
        if default.unseen_threshold is not None:
            by_role["unseen"] = default.unseen_threshold
        limits = cls(
            by_role=by_role,
            nms_threshold=default.nms_threshold,
            max_detections=default.max_detections,
        )
        return limits.changed(score, nms_threshold, max_detections)

    def changed(
        self,
        score: ScoreChange | None = None,
        nms_threshold: float | None = None,
        max_detections: int | None = None,
    ) -> Limits:
        """Limits of which some are others; what is None, or what a mapping leaves out, stays.

        Args:
            score: one number or a pair for all classes, which ends thresholds of single classes;
                or a mapping, in which None ends the threshold of a single class.
            nms_threshold: IoU, in [0, 1].
            max_detections: from 1 to ``MOST_DETECTIONS``, as in a bundle.

        Raises:
            ConfigError: a number is out of range or not a number.
        """
        by_role, by_class = dict(self.by_role), dict(self.by_class)
        if isinstance(score, Mapping):
            given: set[str] = set()
            for name, value in score.items():
                folded = fold_name(name) if isinstance(name, str) else ""
                if not folded or folded in given:
                    why = (
                        "given twice (case and blanks do not count)" if folded else "no class name"
                    )
                    raise ConfigError(f"score_threshold: {shown(name)} is {why}.")
                if folded in ROLES and name != folded:
                    raise ConfigError(
                        f"score_threshold: {shown(name)} is no name of a threshold: that of all "
                        f"{folded} classes is called {folded!r}, and a class called so has no "
                        "other; give the class another name."
                    )
                if name in ROLES:
                    by_role[name] = _share(f"score_threshold[{shown(name)}]", value)
                    continue
                given.add(folded)
                if value is None:
                    by_class.pop(folded, None)
                else:
                    by_class[folded] = _share(f"score_threshold[{shown(name)}]", value)
        elif isinstance(score, (tuple, list)):
            if len(score) != 2:
                raise ConfigError(
                    f"score_threshold is {shown(score)}; a pair is (seen, unseen). For one number "
                    "per class pass a mapping of names to numbers."
                )
            for role, value in zip(ROLES, score, strict=True):
                by_role[role] = _share(f"score_threshold of {role} classes", value)
            by_class = {}
        elif score is not None:
            by_role, by_class = dict.fromkeys(ROLES, _share("score_threshold", score)), {}
        if nms_threshold is not None:
            nms_threshold = _share("nms_threshold", nms_threshold)
        if max_detections is not None and not (
            isinstance(max_detections, (int, np.integer))
            and not isinstance(max_detections, bool)
            and 0 < max_detections <= MOST_DETECTIONS
        ):
            raise ConfigError(
                f"max_detections is {shown(max_detections)}, must be a whole number from 1 to "
                f"{MOST_DETECTIONS}."
            )
        return Limits(
            by_role=by_role,
            by_class=by_class,
            nms_threshold=self.nms_threshold if nms_threshold is None else nms_threshold,
            max_detections=int(max_detections or self.max_detections),
        )

    def among(self, names: Sequence[str]) -> Limits:
        """The same without thresholds of classes that are not among ``names`` any more."""
        active = {fold_name(name) for name in names} if self.by_class else set()
        return replace(self, by_class={n: t for n, t in self.by_class.items() if n in active})

    def check_names(self, names: Sequence[str]) -> None:
        """Refuse a threshold for a class that is not there: most likely it is misspelt.

        Raises:
            ClassError: it names such thresholds and the nearest class of each.
        """
        folded = {fold_name(name) for name in names} if self.by_class else set()
        absent = [name for name in self.by_class if name not in folded]
        if absent:
            sentences = (
                f"score_threshold has a number for {shown(name)}, which is none of the "
                f"{len(names)} active classes{did_you_mean(name, folded)}"
                for name in absent
            )
            raise ClassError(join_first(sentences, len(absent)))

    def per_column(self, active: ActiveClasses) -> NDArray[np.float32]:
        """``(C,)`` score thresholds in the order of the class set; infinity hides a class."""
        classes = active.class_set
        result, seen = np.empty(len(active.reported), np.float32), classes.seen_count
        result[:seen], result[seen:] = (self.by_role[role] for role in ROLES)
        result[~active.reported] = np.inf
        for column in np.flatnonzero(active.reported) if self.by_class else ():
            name = fold_name(active.names[active.ids[column]])
            result[column] = self.by_class.get(name, result[column])
        return result


class State:
    """Classes and limits that belong together; replaced whole, never changed."""

    __slots__ = ("active", "limits", "thresholds")

    def __init__(self, active: ActiveClasses, limits: Limits) -> None:
        self.active, self.limits = active, limits
        self.thresholds = limits.per_column(active)


def _share(where: str, value: Any) -> float:
    try:
        number = math.nan if isinstance(value, (str, bytes, bool)) else float(value)
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if not 0 <= number <= 1:
        raise ConfigError(
            f"{where} is {shown(value)}, must be a number in [0, 1]; it is no percentage."
        )
    return number
