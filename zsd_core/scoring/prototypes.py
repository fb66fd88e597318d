"""Prototypes: every class is one point in the space of an image classifier's features.

For a given detector with a second look. Seen classes have the detector's own scores. Any other
class is a row of numbers that the look's embedding is multiplied with:

- from a name: prototypes of the names that the classifier was taught, interpolated by the
  similarity of the names (kernel regression on their cosines), and what the classifier's own
  probabilities say through these similarities, the idea of S in section 3.1 of the paper;
- from examples: the mean of their embeddings.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zsd_core import kernels as compiled_kernels
from zsd_core.config import ScoringConfig
from zsd_core.kernels.offered import sigmoid
from zsd_core.scoring.base import VectorScorer, check_lengths
from zsd_core.scoring.classes import ClassRows, ClassSet, Needed
from zsd_core.semantics import row_lengths, unit_rows

__all__ = ["PrototypeScorer", "make"]

Floats = NDArray[np.float32]


class PrototypeScorer(VectorScorer):
    """Dot products with a row for each class, P = V + E + 1.

    The head's embedding of a region is ``[z, e, 1]``: z (V,) its features, of unit length, and e
    (E,) the class vectors of the names that the classifier was taught, weighted by their
    probability. A class is ``[p, evidence * a, bias]``, both ends scaled so that the product is a
    logit.

    Its tensors: ``background`` (E,), zeros; ``taught.vectors`` (T, E) of the taught names, centred
    and of unit length; ``taught.weights`` (T, V) of the kernel regression; ``name_scale`` and
    ``example_scale`` (2,), slope and bias of a class from a name or from examples.

    The contest of roles. The trunk knows its own classes only, so it calls a raccoon a bear, and
    is sure of it. The look knows both by their rows. Of a region that a look holds for, the
    trunk's score of a seen class s becomes

        score(s) / (1 + exp(contest (max_u l(u) - ln U - max(l(s), 0) - margin)))

    with the look's logits l and the U unseen classes u that were asked for: it must be likely that
    the region shows u, and likelier than that it shows s. The more classes are asked for, the
    likelier one of them is ahead by chance; ln U makes up for it. The other way round, a seen
    class that the look finds likely speaks against every unseen one, whose score becomes

        sigmoid(l(u) - rivalry max_s max(l(s), 0)) objectness ** power
    """

    PREPARED = False  # a row costs a tenth of a millisecond

    def __init__(
        self,
        tensors: Mapping[str, NDArray[Any]],
        config: ScoringConfig,
        kernels: ModuleType = compiled_kernels,
        precision: str = "float32",
    ) -> None:
        super().__init__(tensors, config, kernels, precision)
        packed = kernels.PackedLinear  # BLAS would sum a row another way beside other rows
        self._cosines = packed(self.tensors["taught.vectors"])
        self._visual = packed(np.ascontiguousarray(self.tensors["taught.weights"].T))
        self._packed: tuple[ClassSet, Any] | None = None  # swapped whole: any thread may

    @staticmethod
    def shapes() -> dict[str, str]:
        """See ``VectorScorer``."""
        return {
            "background": "E",
            "taught.vectors": "T E",
            "taught.weights": "T V",
            "name_scale": "2",
            "example_scale": "2",
        }

    @property
    def example_width(self) -> int | None:
        """V, width of a class vector that comes from examples."""
        return int(self.tensors["taught.weights"].shape[1])

    def background(self) -> Floats:
        """Zeros: the background says nothing about any class."""
        return self.tensors["background"]

    def prototypes_of(self, vectors: Floats) -> Floats:
        """Rows ``(K, P)`` of classes that have names."""
        config, (slope, bias) = self.config, self.tensors["name_scale"]
        cosines = self._cosines(vectors)  # (K, T)
        alike = cosines + config.kernel_weight * np.exp((cosines - 1) / config.kernel_width)
        visual = self._visual(alike)  # (K, V)
        lengths = row_lengths(visual.astype(np.float64))  # float32 may not hold them
        visual = np.float32(visual / (lengths + np.finfo(np.float32).tiny))
        ends = np.full((len(vectors), 1), bias, np.float32)
        return np.concatenate(
            [slope * visual, slope * np.float32(config.evidence) * vectors, ends], axis=1
        )

    def example_rows(self, classes: ClassSet, names: Sequence[str], vectors: Floats) -> ClassRows:
        """Compute what ``append`` needs of classes from examples.

        Args:
            classes: a class set, for its seen classes.
            names: of the classes.
            vectors: ``(n, V)``, the mean embedding of the examples of each.

        Raises:
            ClassError: a vector is zero or not finite.
        """
        check_lengths(names, vectors)
        slope, bias = self.tensors["example_scale"]
        width = self.background().size
        visual = vectors.shape[1]
        prototypes = np.zeros((len(vectors), visual + width + 1), np.float32)
        prototypes[:, :visual] = slope * unit_rows(vectors)
        prototypes[:, -1] = bias
        return ClassRows(prototypes, np.zeros((len(vectors), classes.seen_count), np.float32))

    def least_objectness(self, threshold: float) -> float:
        """See ``Scorer``: seen scores are at most objectness, unseen ones its power."""
        if threshold <= 0:
            return 0.0
        bound = min(threshold / max(1.0, self.config.seen_scale), 1.0)
        power = max(self.config.objectness_power, 0.0)
        return 0.999 * min(bound, bound ** (1 / power) if power > 0 else 0.0)  # float32 rounds

    def _packed_rows(self, classes: ClassSet) -> Any:
        """The rows of all classes, packed once for as long as the classes stay."""
        packed = self._packed
        if packed is None or packed[0] is not classes:
            packed = self._packed = (classes, self.kernels.PackedLinear(classes.prototypes[1:]))
        return packed[1]

    def _left(self, rivals: Floats, own: Floats, needed: Needed | None) -> Floats:
        """What unseen classes of logits ``(L, U)`` leave of seen ones, ``own`` ``(L, Ks)``."""
        if needed is not None:  # a hidden class takes part in nothing
            rivals = rivals[:, needed.thresholds[own.shape[1] :] < np.inf]
        best = rivals.max(axis=1, initial=-np.inf) - np.log(np.float32(max(rivals.shape[1], 1)))
        ahead = best[:, None] - own
        contest, margin = map(np.float32, (self.config.contest, self.config.contest_margin))
        return sigmoid(contest * (margin - ahead))

    def score(
        self,
        embeddings: Floats,
        objectness: Floats,
        classes: ClassSet,
        needed: Needed | None = None,
    ) -> Floats:
        """Scores ``(R, Ks + U)`` of ``[logits, look]`` ``(R, Ks + P)``; see ``Scorer``.

        A region that no look holds for has zeros for a look, and scores of 0 for unseen classes.
        """
        known = classes.seen_count
        looked = np.flatnonzero(embeddings[:, known:][:, -1:])
        scores = np.zeros((len(embeddings), len(classes.names)), np.float32)
        scores[:, :known] = sigmoid(embeddings[:, :known])
        if len(looked) and classes.unseen_count:
            logits = self._packed_rows(classes)(embeddings[looked, known:])  # (L, Ks + U)
            likely = objectness[looked, None] ** np.float32(self.config.objectness_power)
            own = np.maximum(logits[:, :known], 0)  # what the look says of the seen classes
            rival = np.float32(self.config.rivalry) * own.max(axis=1, keepdims=True, initial=0)
            scores[looked, known:] = sigmoid(logits[:, known:] - rival) * likely
            if self.config.contest > 0:
                scores[looked, :known] *= self._left(logits[:, known:], own, needed)
        scores[:, :known] *= np.float32(self.config.seen_scale)
        return scores


make = PrototypeScorer
