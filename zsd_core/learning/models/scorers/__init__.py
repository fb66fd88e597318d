"""The training halves of the scoring methods, one file each.

A file is named as its method in ``zsd_core.scoring``; where a method can be learned in several
ways, each way has a file and a name of its own, which ``ScoringConfig.learned`` gives.
"""

from __future__ import annotations

import importlib
import pkgutil
from typing import Any

from torch import nn

from zsd_core.config import ScoringConfig
from zsd_core.errors import ConfigError, did_you_mean
from zsd_core.learning.models.scorers.base import TrainableScorer
from zsd_core.scoring import check_method

__all__ = ["TrainableScorer", "build_scorer", "training_names"]

SHARED = ("base", "cosine")  # files that others build on


def training_names() -> tuple[str, ...]:
    """The training halves, one per file of this folder."""
    return tuple(sorted(m.name for m in pkgutil.iter_modules(__path__) if m.name not in SHARED))


def build_scorer(config: ScoringConfig, rpn_background: nn.Parameter | None) -> TrainableScorer:
    """The training half that ``config.learned`` or else ``config.method`` names.

    Args:
        config: of scoring.
        rpn_background: a_0 where the RPN learns it.

    Raises:
        ConfigError: no such method or training half, or the two do not belong together.
    """
    method = check_method(config.method)
    name, names = config.learned or method, training_names()
    if name not in names:
        fitting = [one for one in names if _half(one).METHOD == method]
        field = "learned" if config.learned else "method"
        if fitting:
            nearest = did_you_mean(name, fitting) or "."
            cure = f"set learned to one of {', '.join(map(repr, fitting))}{nearest}"
        else:
            others = sorted({_half(one).METHOD for one in names})
            cure = (
                f"choose a method that is trained: {', '.join(map(repr, others))}; or, for a new "
                f"one, write zsd_core/learning/models/scorers/{method}.py."
            )
        raise ConfigError(f"ScoringConfig.{field} is {name!r}, which nothing trains; {cure}")
    make = _half(name)
    if make.METHOD != method:
        raise ConfigError(
            f"ScoringConfig.learned is {name!r}, which trains the method {make.METHOD!r}, but "
            f"method is {method!r}; make them agree."
        )
    scorer: TrainableScorer = make(config, rpn_background)
    return scorer


def _half(name: str) -> Any:
    """The class of a training half."""
    return importlib.import_module(f"zsd_core.learning.models.scorers.{name}").make
