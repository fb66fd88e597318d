"""Trainable part of ConSE-ZSD: a classifier of background and seen classes, no semantics."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from zsd_core.config import ScoringConfig
from zsd_core.errors import ConfigError
from zsd_core.learning.experiment import LossConfig
from zsd_core.learning.losses import seen_classification_loss
from zsd_core.learning.models.scorers.base import TrainableScorer

__all__ = ["ConseScoring", "make"]


class ConseScoring(TrainableScorer):
    """Faster R-CNN's classifier, one linear layer over p_v; word vectors come at run time.

    It exists once the number of classes is known, which is when ``read_classes`` is called.
    """

    METHOD = "conse"

    def __init__(self, config: ScoringConfig, rpn_background: nn.Parameter | None) -> None:
        super().__init__(config)
        self.classifier: nn.Linear | None = None

    def read_classes(self, seen_vectors: Tensor, unseen_vectors: Tensor) -> None:
        """Take the class vectors and make the classifier; see ``TrainableScorer``."""
        super().read_classes(seen_vectors, unseen_vectors)
        outputs = 1 + len(seen_vectors)
        if self.classifier is None or self.classifier.out_features != outputs:
            classifier = nn.Linear(self.config.joint_dim, outputs)
            self.classifier = classifier.to(seen_vectors.device)

    def losses(self, embeddings: Tensor, labels: Tensor, config: LossConfig) -> dict[str, Tensor]:
        """Cross entropy over background and seen classes; see ``TrainableScorer``."""
        logits = self._known()(embeddings)
        return {"seen": seen_classification_loss(logits, labels, reduction=config.reduction)}

    def named_tensors(self) -> dict[str, Tensor]:
        """See ``TrainableScorer``."""
        classifier = self._known()
        return {
            "background": torch.zeros_like(self.center),
            "classifier.weight": classifier.weight,
            "classifier.bias": classifier.bias,
        }

    def _known(self) -> nn.Linear:
        if self.classifier is None:
            raise ConfigError("ConSE's classifier has no size before read_classes() was called.")
        return self.classifier


make = ConseScoring
