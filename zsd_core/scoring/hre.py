"""HRE: a region has two vectors, a combination of seen class vectors and a projection, added.

The first is ConSE's: seen probabilities weight the vectors of the ``conse_top`` most probable seen
classes. The second is a linear projection of the region. A class scores by the mean of its cosines
with the two.

References:
    Demirel et al., "Zero-Shot Object Detection by Hybrid Region Embedding", BMVC 2018,
    arXiv:1805.06157: the sections on convex combination of class embeddings and on region scoring
    by label embeddings, whose scores are added.

Readings. Seen and unseen classes are scored alike, by the sum. Half of it lies in [-1, 1]; below 0
it counts as 0. The paper's YOLO gives objectness; here the region must be an object, so the score
counts for as much as the classifier's foreground probability, as in ``conse``.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from zsd_core.scoring.classes import ClassSet, Needed
from zsd_core.scoring.conse import ConseScorer
from zsd_core.scoring.cosine import unit

__all__ = ["HreScorer", "make"]

Floats = NDArray[np.float32]


class HreScorer(ConseScorer):
    """The hybrid region embedding; prototypes are the class vectors, P = E.

    Its tensors: those of ``ConseScorer``, and ``project.weight`` (E, D), ``project.bias`` (E,).
    """

    @staticmethod
    def shapes() -> dict[str, str]:
        """See ``VectorScorer``."""
        return ConseScorer.shapes() | {"project.weight": "E D", "project.bias": "E"}

    def score(
        self,
        embeddings: Floats,
        objectness: Floats,
        classes: ClassSet,
        needed: Needed | None = None,
    ) -> Floats:
        """Scores ``(R, Ks + U)``; see ``Scorer``."""
        probabilities, kept = self.classified(embeddings)
        combined = unit(kept @ classes.prototypes[1 : 1 + classes.seen_count])
        projected = unit(
            embeddings @ self.tensors["project.weight"].T + self.tensors["project.bias"]
        )
        cosines = (combined + projected) @ classes.prototypes[1:].T  # (R, Ks + U)
        scores = np.maximum(cosines / 2, 0) * (1 - probabilities[:, :1])
        return self.weighed(scores, objectness, classes)


make = HreScorer
