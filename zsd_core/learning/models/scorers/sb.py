"""SB, and DSES: regions projected so that the right class leads by a margin of cosine.

References:
    Bansal et al., "Zero-Shot Object Detection", ECCV 2018, arXiv:1804.04340. Eq. 1 is the
    projection, eq. 2 the cosine, eq. 3 the max-margin loss; "SB" is the section "Statically
    Assigned Background", "DSES" the section "Densely Sampled Embedding Space".

Readings. The projection reads p_v of a frozen feature, in the place of a fine-tuned
Inception-ResNet. Background regions take part in eq. 3 with their fixed vector, as the paper says.
The reconstruction loss of the paper is the mean square between p_v and what the transposed
projection makes of the region's vector; p_v is a constant in it, or it would learn to vanish. The
sum over wrong classes is a mean, so that the margin means the same with 48 classes and with 600.
DSES is the same with more names as classes: their regions and vectors come with the seen ones
(``benchmarks.paper.bench`` takes them from photographs that have one name and no boxes).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from zsd_core.learning.experiment import LossConfig
from zsd_core.learning.models.scorers.cosine import CosineScoring

__all__ = ["SbScoring", "make"]


class SbScoring(CosineScoring):
    """The projection of SB; its background is the first axis of the vector space."""

    def read_classes(self, seen_vectors: Tensor, unseen_vectors: Tensor) -> None:
        """Take the class vectors; the background is ``(1, 0, ..., 0)``; see ``TrainableScorer``."""
        super().read_classes(seen_vectors, unseen_vectors)
        self.background.zero_()[0] = 1

    def losses(self, embeddings: Tensor, labels: Tensor, config: LossConfig) -> dict[str, Tensor]:
        """Eq. 3 and the reconstruction; see ``TrainableScorer``."""
        projected = self.project(embeddings)
        cosines = F.normalize(projected, dim=1) @ self.known().T  # (R, 1 + Ks)
        right = cosines.gather(1, labels[:, None])
        wrong = torch.ones_like(cosines).scatter(1, labels[:, None], 0)
        lags = (config.sb_margin - right + cosines).relu() * wrong
        losses = {"margin": lags.sum() / wrong.sum().clamp(min=1)}
        if config.sb_reconstruction:
            back = (projected - self.project.bias) @ self.project.weight
            wanted = embeddings.detach()
            losses["reconstruction"] = config.sb_reconstruction * F.mse_loss(back, wanted)
        return losses


make = SbScoring
