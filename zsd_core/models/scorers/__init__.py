"""The training halves of the scoring methods, one file each, named as in ``zsd_core.scoring``."""

from __future__ import annotations

import importlib

from torch import nn

from zsd_core.config import ScoringConfig
from zsd_core.models.scorers.base import TrainableScorer
from zsd_core.scoring import check_method

__all__ = ["TrainableScorer", "build_scorer"]


def build_scorer(config: ScoringConfig, rpn_background: nn.Parameter | None) -> TrainableScorer:
    """The training half of the method that ``config.method`` names.

    Args:
        config: of scoring.
        rpn_background: a_0 where the RPN learns it.

    Raises:
        ConfigError: no such method.
    """
    module = importlib.import_module(f"zsd_core.models.scorers.{check_method(config.method)}")
    scorer: TrainableScorer = module.make(config, rpn_background)
    return scorer
