"""From class vectors to class scores: the scoring methods a bundle may name.

numpy and the kernels only. A method is one file of this folder whose ``make(tensors, config,
kernels, precision)`` gives its ``VectorScorer``; its training half is the file of the same name in
``zsd_core/learning/models/scorers``, its graph that in ``export/graphs/scorers``.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Mapping
from types import ModuleType
from typing import Any

from numpy.typing import NDArray

from zsd_core import kernels as compiled_kernels
from zsd_core.config import ScoringConfig
from zsd_core.errors import ConfigError, did_you_mean
from zsd_core.scoring.base import Scorer, VectorScorer
from zsd_core.scoring.classes import ClassRows, ClassSet, Needed
from zsd_core.scoring.conse import ConseScorer
from zsd_core.scoring.contrastzsd import ContrastScorer
from zsd_core.scoring.cosine import CosineScorer

__all__ = [
    "ClassRows",
    "ClassSet",
    "ConseScorer",
    "ContrastScorer",
    "CosineScorer",
    "Needed",
    "Scorer",
    "VectorScorer",
    "check_method",
    "method_names",
    "scorer_for",
]


def method_names() -> tuple[str, ...]:
    """The scoring methods, one per file of this folder."""
    return tuple(
        sorted(m.name for m in pkgutil.iter_modules(__path__) if m.name not in ("base", "classes"))
    )


def check_method(name: str) -> str:
    """Return the name of a method.

    Raises:
        ConfigError: no such method.
    """
    if name not in method_names():
        raise ConfigError(
            f"ScoringConfig.method is {name!r}, this version knows "
            f"{', '.join(map(repr, method_names()))}{did_you_mean(name, method_names())}"
        )
    return name


def scorer_for(
    config: ScoringConfig,
    tensors: Mapping[str, NDArray[Any]],
    kernels: ModuleType = compiled_kernels,
    precision: str = "float32",
) -> VectorScorer:
    """The scorer that ``config.method`` names.

    Args:
        config: of the model.
        tensors: the arrays of ``scorer.safetensors``.
        kernels: the module of operators.
        precision: "float32", or "int8" where the method has it.

    Raises:
        ConfigError: no such method.
        BundleError: a tensor of the method is missing.
    """
    module = importlib.import_module(f"zsd_core.scoring.{check_method(config.method)}")
    scorer: VectorScorer = module.make(tensors, config, kernels, precision)
    return scorer
