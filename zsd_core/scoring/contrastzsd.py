"""ContrastZSD: p_s, then g_s and g_u on element-wise products, fused by eq. 14 (section 3.2)."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zsd_core import kernels as compiled_kernels
from zsd_core.config import ScoringConfig
from zsd_core.scoring.base import VectorScorer
from zsd_core.scoring.classes import ClassSet, Needed
from zsd_core.semantics import similarity_of_cosines

__all__ = ["ContrastScorer", "make"]

Floats = NDArray[np.float32]
LAYERS = ("weight1", "bias1", "weight2", "bias2")
MANY = 128  # unseen classes from which on asking g_u apart, and for fewer regions, costs less
SHAPES = {
    "project_semantic": ("D E", "D", "D D", "D"),
    "score_seen": ("M D", "M", "M", "1"),
    "score_unseen": ("M D", "M", "M", "1"),
}


class ContrastScorer(VectorScorer):
    """The paper's method; prototypes are p_s of the class vectors, P = D.

    Its tensors: ``background`` (E,); ``project_semantic.``, ``score_seen.`` and ``score_unseen.``
    each with ``weight1``, ``bias1``, ``weight2``, ``bias2``.
    """

    PRECISIONS = ("float32", "int8")

    def __init__(
        self,
        tensors: Mapping[str, NDArray[Any]],
        config: ScoringConfig,
        kernels: ModuleType = compiled_kernels,
        precision: str = "float32",
    ) -> None:
        super().__init__(tensors, config, kernels, precision)
        packing = {} if precision == "float32" else {"precision": precision}
        weight1, bias1, weight2, bias2 = self._mlp("project_semantic")
        self._project = [
            (kernels.PackedLinear(weight1), bias1),
            (kernels.PackedLinear(weight2), bias2),
        ]
        self._seen_mlp = kernels.PackedMlp(*self._mlp("score_seen"), **packing)
        self._unseen_mlp = kernels.PackedMlp(*self._mlp("score_unseen"), **packing)

    @staticmethod
    def shapes() -> dict[str, str]:
        """See ``VectorScorer``."""
        return {"background": "E"} | {
            f"{path}.{layer}": shape
            for path, formulas in SHAPES.items()
            for layer, shape in zip(LAYERS, formulas, strict=True)
        }

    def background(self) -> Floats:
        """a_0, final: already of unit length if the configuration says so."""
        return self.tensors["background"]

    def prototypes_of(self, vectors: Floats) -> Floats:
        """p_s (eq. 3): two linear layers, each followed by ReLU."""
        rows = vectors
        for linear, bias in self._project:
            rows = linear(rows)
            rows += bias
            np.maximum(rows, 0, out=rows)
        return rows

    def similarity_of(self, cosines: Floats) -> Floats:
        """The seen rows of S (section 3.1)."""
        rows = similarity_of_cosines(cosines, self.config.similarity_temperature)
        return np.asarray(rows, np.float32)

    def score(
        self,
        embeddings: Floats,
        objectness: Floats,
        classes: ClassSet,
        needed: Needed | None = None,
    ) -> Floats:
        """Scores ``(R, Ks + U)``; see ``Scorer``.

        With ``needed`` and many classes, g_u sees only regions in which eq. 14 with o_u = 1 passes
        a threshold: it rises with o_u, in floating point too.

        References:
            Paper eq. 6 and 14. g_s sees background, seen and unseen prototypes; g_u the unseen.
        """
        config, kernels = self.config, self.kernels
        fuse = partial(
            kernels.fuse,
            seen_similarity=classes.seen_similarity,
            fusion=config.fusion,
            seen_scale=config.seen_scale,
            objectness=objectness,
            objectness_power=config.objectness_power,
            seen_evidence=config.seen_evidence,
        )
        scorers = (self._seen_mlp, 0), (self._unseen_mlp, 1 + classes.seen_count)
        scores: Floats
        if needed is None or classes.unseen_count < MANY or not self._bounded(needed.lowest):
            logits, unseen = kernels.product_mlps(embeddings, classes.prototypes, scorers)
            scores = fuse(self._activated(logits), _sigmoid(unseen))
            return scores
        (logits,) = kernels.product_mlps(embeddings, classes.prototypes, scorers[:1])
        logits = self._activated(logits)
        probabilities = np.ones((len(logits), classes.unseen_count), np.float32)
        rows = needed.regions(fuse(logits, probabilities))
        (unseen,) = kernels.product_mlps(embeddings[rows], classes.prototypes, scorers[1:])
        probabilities[:] = 0
        probabilities[rows] = _sigmoid(unseen)
        scores = fuse(logits, probabilities)
        return scores

    def least_objectness(self, threshold: float) -> float:
        """See ``Scorer``: activations and factors of eq. 14 are at most 1, but for a raw o_s."""
        config = self.config
        if not self._bounded(threshold) or config.objectness_power <= 0:
            return 0.0
        bound = threshold / max(1.0, config.seen_scale)
        return 0.999 * float(min(bound, 1.0) ** (1 / config.objectness_power))  # float32 rounds

    def _bounded(self, threshold: float) -> bool:
        """Whether an upper bound of eq. 14 can rule out a score above the threshold."""
        return self.config.fusion != "raw" and threshold > 0

    def _activated(self, logits: Floats) -> Floats:
        return np.maximum(logits, 0) if self.config.seen_activation == "relu" else logits

    def _mlp(self, path: str) -> tuple[Floats, ...]:
        return tuple(self.tensors[f"{path}.{layer}"] for layer in LAYERS)


make = ContrastScorer


def _sigmoid(logits: Floats) -> Floats:
    result, rest = np.minimum(logits, 0), np.abs(logits)
    np.negative(rest, out=rest)  # in place: with many classes, new memory costs more than sums
    for powers in (result, rest):  # never overflow, and keep tiny probabilities
        np.exp(powers, out=powers)
    rest += 1
    result /= rest
    return result
