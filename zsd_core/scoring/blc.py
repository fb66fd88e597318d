"""BLC: a cascade of projections to the vector space, with a learned background.

Every stage projects the region anew and adds what the stage before found. A stage's probabilities
are the softmax of its dot products with the background and every class; a class scores by their
mean over the stages.

References:
    Zheng et al., "Background Learnable Cascade for Zero-Shot Object Detection", ACCV 2020,
    arXiv:2010.04502: the cascade of semantic heads, the semantic information flow between them, and
    the background vector that the proposal network learns.

Readings. The paper's stages pool the region again after moving its box; here the boxes, and so the
regions, are the same in every stage, as all systems of the comparison share them. The flow is a
linear layer over the ReLU of the stage before: without it the cascade would be one linear layer.
The softmax is over background, seen and all current unseen classes, so that scores of a class fall
a little when another one comes.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from zsd_core.scoring.base import VectorScorer, softmax
from zsd_core.scoring.classes import ClassSet, Needed

__all__ = ["BlcScorer", "make"]

Floats = NDArray[np.float32]


class BlcScorer(VectorScorer):
    """A cascade of T stages; prototypes are the class vectors, P = E.

    Its tensors: ``background`` (E,), learned; ``visual.weight`` (T, E, D), ``visual.bias`` (T, E)
    and ``flow.weight`` (T, E, E), whose first matrix nothing reads.
    """

    @staticmethod
    def shapes() -> dict[str, str]:
        """See ``VectorScorer``."""
        return {
            "background": "E",
            "visual.weight": "T E D",
            "visual.bias": "T E",
            "flow.weight": "T E E",
        }

    def background(self) -> Floats:
        """a_0."""
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
        stages = self.config.blc_stages
        total = np.zeros((len(embeddings), 1 + len(classes.names)), np.float32)
        found: Floats | None = None
        for weight, bias, flow in zip(
            *(self.tensors[name] for name in ("visual.weight", "visual.bias", "flow.weight")),
            strict=True,
        ):
            projected = embeddings @ weight.T + bias
            found = projected if found is None else projected + np.maximum(found, 0) @ flow.T
            total += softmax(found @ classes.prototypes.T)
        return self.weighed(total[:, 1:] / np.float32(stages), objectness, classes)


make = BlcScorer
