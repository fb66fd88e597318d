"""SAN: a max-margin loss, and one that keeps the classes of a super-class together.

References:
    Rahman et al., "Zero-Shot Object Detection: Learning to Simultaneously Recognize and Localize
    Novel Concepts", ACCV 2018, arXiv:1803.06049, section "Training and Inference": the max-margin
    loss L_mm, the meta-class clustering loss L_mc and their weights lambda and 1 - lambda.

Readings. Scores of training are dot products of the projected region with class vectors of unit
length, those of detection cosines, as in the paper. The fixed background vector is the mean of the
seen vectors before they are centred: afterwards it would be zero. The paper gives ImageNet's
classes super-classes by hand; here the seen vectors form ``san_groups`` groups by average linkage,
so that any list of classes has some. Background has no super-class and no part in L_mc.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from zsd_core.learning.experiment import LossConfig
from zsd_core.learning.models.scorers.cosine import CosineScoring

__all__ = ["SanScoring", "groups_of", "make"]


class SanScoring(CosineScoring):
    """The projection of SAN; its background is the mean of the seen vectors."""

    def read_classes(self, seen_vectors: Tensor, unseen_vectors: Tensor) -> None:
        """Take the class vectors, and with them the background; see ``TrainableScorer``."""
        super().read_classes(seen_vectors, unseen_vectors)
        self.background.copy_(F.normalize(seen_vectors.mean(dim=0), dim=0))
        self._groups: dict[int, Tensor] = {}

    def losses(self, embeddings: Tensor, labels: Tensor, config: LossConfig) -> dict[str, Tensor]:
        """L_mm and L_mc, weighted; see ``TrainableScorer``."""
        scores = self.project(embeddings) @ self.known().T  # (R, 1 + Ks)
        right = scores.gather(1, labels[:, None])
        wrong = torch.ones_like(scores).scatter(1, labels[:, None], 0)
        lags = F.softplus(scores - right) * wrong
        margin = (lags.sum(dim=1) / wrong.sum(dim=1).clamp(min=1)).sum() / max(len(labels), 1)
        losses = {"margin": config.san_balance * margin}
        if config.san_balance < 1:
            clustering = self._clustering(scores[labels > 0, 1:], labels[labels > 0] - 1, config)
            losses["clustering"] = (1 - config.san_balance) * clustering
        return losses

    def _clustering(self, scores: Tensor, labels: Tensor, config: LossConfig) -> Tensor:
        """L_mc of objects with scores ``(R, Ks)``: every class outside the group below all in it.

        The mean of softplus(outside - inside) over all such pairs of a region.
        """
        groups = self._groups.get(config.san_groups)
        if groups is None:
            rows = F.normalize(self.centered(self.seen_vectors), dim=1)
            found = groups_of((rows @ rows.T).cpu().numpy(), config.san_groups)
            groups = self._groups[config.san_groups] = torch.from_numpy(found).to(labels.device)
        inside = groups[labels][:, None] == groups  # (R, Ks)
        pairs = inside[:, :, None] & ~inside[:, None]  # (R, Ks in, Ks out)
        lags = F.softplus(scores[:, None] - scores[:, :, None]) * pairs
        per_region = lags.sum(dim=(1, 2)) / pairs.sum(dim=(1, 2)).clamp(min=1)
        return per_region.sum() / max(len(labels), 1)


def groups_of(likeness: NDArray[np.float32], count: int) -> NDArray[np.int64]:
    """Group rows by average linkage: the two groups that are most alike become one, and so on.

    Args:
        likeness: ``(K, K)`` cosines.
        count: groups to stop at.

    Returns:
        ``(K,)`` number of each row's group, from 0 in the order of first rows.
    """
    groups = [[row] for row in range(len(likeness))]
    while len(groups) > count:
        pairs = [(a, b) for b in range(len(groups)) for a in range(b)]
        first, second = max(
            pairs, key=lambda ab: float(likeness[np.ix_(groups[ab[0]], groups[ab[1]])].mean())
        )
        groups[first] += groups.pop(second)
    result = np.empty(len(likeness), np.int64)
    for number, rows in enumerate(sorted(groups, key=min)):
        result[rows] = number
    return result


make = SanScoring
