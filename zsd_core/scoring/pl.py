"""PL: regions projected to the vector space, and class vectors bent by a learned metric.

A class scores by the sigmoid of the dot product of the projected region with tanh(a M), a its
vector: every class is asked for on its own, as in RetinaNet.

References:
    Rahman et al., "Improved Visual-Semantic Alignment for Zero-Shot Object Detection", AAAI 2020
    (polarity loss, arXiv:1811.08982), the section on the vocabulary metric: p = sigmoid(tanh(W M D)
    f), with word vectors W, a learned M and a vocabulary D.

Readings. M D is one matrix at run time, ``bend``; training keeps the two apart. The background has
no vector: it is a region that no class fits.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zsd_core import kernels as compiled_kernels
from zsd_core.config import ScoringConfig
from zsd_core.kernels.offered import sigmoid
from zsd_core.scoring.base import VectorScorer
from zsd_core.scoring.classes import ClassSet, Needed

__all__ = ["PlScorer", "make"]

Floats = NDArray[np.float32]


class PlScorer(VectorScorer):
    """Sigmoids of projected regions with bent class vectors, P = E.

    Its tensors: ``background`` (E,), zeros; ``bend`` (E, E), what rows of class vectors are
    multiplied with; ``project.weight`` (E, D) and ``project.bias`` (E,); ``bias`` (1,), the logit
    of a class that a region says nothing of.
    """

    def __init__(
        self,
        tensors: Mapping[str, NDArray[Any]],
        config: ScoringConfig,
        kernels: ModuleType = compiled_kernels,
        precision: str = "float32",
    ) -> None:
        super().__init__(tensors, config, kernels, precision)
        # BLAS would sum a row another way beside other rows.
        self._bend = kernels.PackedLinear(np.ascontiguousarray(self.tensors["bend"].T))

    @staticmethod
    def shapes() -> dict[str, str]:
        """See ``VectorScorer``."""
        return {
            "background": "E",
            "bend": "E E",
            "project.weight": "E D",
            "project.bias": "E",
            "bias": "1",
        }

    def background(self) -> Floats:
        """Zeros."""
        return self.tensors["background"]

    def prototypes_of(self, vectors: Floats) -> Floats:
        """tanh(a M D)."""
        return np.asarray(np.tanh(self._bend(vectors)), np.float32)

    def score(
        self,
        embeddings: Floats,
        objectness: Floats,
        classes: ClassSet,
        needed: Needed | None = None,
    ) -> Floats:
        """Scores ``(R, Ks + U)``; see ``Scorer``."""
        projected = embeddings @ self.tensors["project.weight"].T + self.tensors["project.bias"]
        logits = projected @ classes.prototypes[1:].T + self.tensors["bias"]
        scores = sigmoid(np.asarray(logits, np.float32))
        return self.weighed(scores, objectness, classes)


make = PlScorer
