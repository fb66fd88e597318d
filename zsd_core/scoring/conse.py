"""ConSE-ZSD, the paper's baseline: an ordinary classifier of the seen classes, and word vectors.

A region's seen probabilities weight the vectors of the ``conse_top`` most probable seen classes;
the cosine of that sum with an unseen class's vector scores the class. The region must be an object
for any unseen class, so the cosine counts for as much as the classifier's foreground probability.

References:
    Norouzi et al., "Zero-Shot Learning by Convex Combination of Semantic Embeddings",
    arXiv:1312.5650; section 4.1 of the paper.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zsd_core.errors import BundleError
from zsd_core.scoring.base import VectorScorer, softmax
from zsd_core.scoring.classes import ClassSet, Needed
from zsd_core.semantics import row_lengths

__all__ = ["ConseScorer", "make"]

Floats = NDArray[np.float32]
TINY = float(np.finfo(np.float32).tiny)


class ConseScorer(VectorScorer):
    """Convex combination of semantic embeddings; prototypes are the class vectors, P = E.

    Its tensors: ``classifier.weight`` (1 + Ks, D), ``classifier.bias`` (1 + Ks,), background first;
    ``background`` (E,), zeros: the background says nothing about any class.
    """

    @staticmethod
    def shapes() -> dict[str, str]:
        """See ``VectorScorer``."""
        return {"background": "E", "classifier.weight": "K D", "classifier.bias": "K"}

    def background(self) -> Floats:
        """Zeros."""
        return self.tensors["background"]

    def prototypes_of(self, vectors: Floats) -> Floats:
        """The vectors as they are."""
        return vectors

    def class_set(
        self,
        seen_names: Sequence[str],
        seen_vectors: NDArray[Any],
        unseen_names: Sequence[str],
        unseen_vectors: NDArray[Any],
        version: int = 0,
    ) -> ClassSet:
        """Build a class set; see ``Scorer``.

        Raises:
            BundleError: not as many seen classes as the classifier knows.
        """
        known = len(self.tensors["classifier.bias"]) - 1
        if len(seen_names) != known:
            raise BundleError(
                f"ConseScorer: {len(seen_names)} seen classes for a classifier of {known}; its "
                "seen classes are those of training, all of them in stored order."
            )
        return super().class_set(seen_names, seen_vectors, unseen_names, unseen_vectors, version)

    def score(
        self,
        embeddings: Floats,
        objectness: Floats,
        classes: ClassSet,
        needed: Needed | None = None,
    ) -> Floats:
        """Scores ``(R, Ks + U)``; see ``Scorer``."""
        probabilities, kept = self.classified(embeddings)
        combined = kept @ classes.prototypes[1 : 1 + classes.seen_count]  # (R, E)
        lengths = row_lengths(combined)
        cosines = kept @ classes.seen_similarity / np.maximum(lengths, TINY)  # (R, U)
        unseen = np.maximum(cosines, 0) * (1 - probabilities[:, :1])
        scores = np.concatenate([probabilities[:, 1:], unseen], axis=1)
        return self.weighed(scores, objectness, classes)

    def classified(self, embeddings: Floats) -> tuple[Floats, Floats]:
        """Probabilities of embeddings ``(R, D)``.

        Returns:
            ``(R, 1 + Ks)``, background first; and ``(R, Ks)``, with all but the ``conse_top`` most
            probable seen classes at 0.
        """
        logits = embeddings @ self.tensors["classifier.weight"].T + self.tensors["classifier.bias"]
        probabilities = softmax(logits)  # (R, 1 + Ks)
        seen = probabilities[:, 1:]
        top = np.argsort(-seen, axis=1, kind="stable")[:, : self.config.conse_top]
        kept = np.zeros_like(seen)
        np.put_along_axis(kept, top, np.take_along_axis(seen, top, axis=1), axis=1)
        return probabilities, kept


make = ConseScorer
