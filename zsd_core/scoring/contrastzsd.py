"""ContrastZSD: p_s, then g_s and g_u on element-wise products, fused by eq. 14 (section 3.2)."""

from __future__ import annotations

from collections.abc import Mapping
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zsd_core import kernels as compiled_kernels
from zsd_core.config import ScoringConfig
from zsd_core.scoring.classes import ClassSet, VectorScorer
from zsd_core.semantics import similarity_of_cosines

__all__ = ["ContrastScorer", "make"]

Floats = NDArray[np.float32]
LAYERS = ("weight1", "bias1", "weight2", "bias2")
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
            (kernels.PackedLinear(weight1), bias1), (kernels.PackedLinear(weight2), bias2),
        ]  # fmt: skip
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

    def score(self, embeddings: Floats, objectness: Floats, classes: ClassSet) -> Floats:
        """Scores ``(R, Ks + U)``; see ``Scorer``.

        References:
            Paper eq. 6 and 14. g_s sees background, seen and unseen prototypes; g_u the unseen.
        """
        config = self.config
        logits, unseen = self.kernels.product_mlps(
            embeddings,
            classes.prototypes,
            [(self._seen_mlp, 0), (self._unseen_mlp, 1 + classes.seen_count)],
        )
        if config.seen_activation == "relu":
            logits = np.maximum(logits, 0)
        scores: Floats = self.kernels.fuse(
            logits,
            _sigmoid(unseen),
            classes.seen_similarity,
            fusion=config.fusion,
            seen_scale=config.seen_scale,
            objectness=objectness,
            objectness_power=config.objectness_power,
            seen_evidence=config.seen_evidence,
        )
        return scores

    def least_objectness(self, threshold: float) -> float:
        """See ``Scorer``: activations and factors of eq. 14 are at most 1, but for a raw o_s."""
        config = self.config
        if config.fusion == "raw" or config.objectness_power <= 0 or threshold <= 0:
            return 0.0
        bound = threshold / max(1.0, config.seen_scale)
        return 0.999 * float(min(bound, 1.0) ** (1 / config.objectness_power))  # float32 rounds

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
