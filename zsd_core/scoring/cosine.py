"""Regions projected into the space of the class vectors; a class scores by its cosine.

SB, DSES and SAN, which the paper compares with, are this at run time and differ in what they
learn: ``zsd_core/learning/models/scorers/sb.py`` and ``san.py`` (DSES is SB with more classes).

References:
    Bansal et al., "Zero-Shot Object Detection", ECCV 2018, arXiv:1804.04340, eq. 1 and 2: the
    projection and the cosine.
    Rahman et al., "Zero-Shot Object Detection: Learning to Simultaneously Recognize and Localize
    Novel Concepts", ACCV 2018, arXiv:1803.06049, section "Prediction": cosines too, and a region
    is background if that is its largest.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from zsd_core.scoring.base import VectorScorer
from zsd_core.scoring.classes import ClassSet, Needed
from zsd_core.semantics import row_lengths

__all__ = ["CosineScorer", "make", "unit"]

Floats = NDArray[np.float32]
TINY = float(np.finfo(np.float32).tiny)


class CosineScorer(VectorScorer):
    """Cosines of projected regions with class vectors; prototypes are these vectors, P = E.

    A class whose cosine is negative scores 0. With ``cosine_background``, so does every class of a
    region that is nearer to the background than to any class.

    Its tensors: ``background`` (E,), of unit length; ``project.weight`` (E, D) and ``project.bias``
    (E,).
    """

    @staticmethod
    def shapes() -> dict[str, str]:
        """See ``VectorScorer``."""
        return {"background": "E", "project.weight": "E D", "project.bias": "E"}

    def background(self) -> Floats:
        """The vector that background regions are trained to point to."""
        return self.tensors["background"]

    def prototypes_of(self, vectors: Floats) -> Floats:
        """The vectors as they are."""
        return vectors

    def score(
        self,
        embeddings: Floats,
        objectness: Floats,
        classes: ClassSet,
        needed: Needed | None = None,
    ) -> Floats:
        """Scores ``(R, Ks + U)``; see ``Scorer``."""
        projected = unit(
            embeddings @ self.tensors["project.weight"].T + self.tensors["project.bias"]
        )
        cosines = projected @ classes.prototypes.T  # (R, 1 + Ks + U)
        scores = np.maximum(cosines[:, 1:], 0)
        if self.config.cosine_background:
            scores *= scores.max(axis=1, keepdims=True, initial=0) > cosines[:, :1]
        return self.weighed(scores, objectness, classes)


def unit(rows: Floats) -> Floats:
    """Rows ``(R, E)`` at unit length; a row of zeros stays."""
    lengths = row_lengths(rows)
    return np.asarray(rows / np.maximum(lengths, TINY), np.float32)


make = CosineScorer
