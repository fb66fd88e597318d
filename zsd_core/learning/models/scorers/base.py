"""The training half of a scoring method."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from zsd_core.config import ScoringConfig
from zsd_core.learning.experiment import LossConfig

__all__ = ["TrainableScorer", "learned_background"]


def learned_background(config: ScoringConfig, rpn_background: nn.Parameter | None) -> nn.Parameter:
    """a_0 ``(E,)``: the RPN's where ``background`` is "rpn", else one of the scorer's own."""
    if config.background == "rpn":
        assert rpn_background is not None  # ModelConfig checks it
        return rpn_background
    return nn.Parameter(torch.randn(config.vector_dim) / config.vector_dim**0.5)


class TrainableScorer(nn.Module, ABC):
    """Comparison of regions with classes while training.

    In a network only then: at run time the file of ``zsd_core.scoring`` that ``METHOD`` names reads
    ``tensors()``.
    """

    METHOD: ClassVar[str]  # the scoring method that runs what this learns

    center: Tensor
    seen_vectors: Tensor
    unseen_vectors: Tensor

    def __init__(self, config: ScoringConfig) -> None:
        super().__init__()
        self.config = config
        self.register_buffer("center", torch.zeros(config.vector_dim))
        for name in ("seen_vectors", "unseen_vectors"):
            empty = torch.zeros(0, config.vector_dim)
            self.register_buffer(name, empty, persistent=False)

    def read_classes(self, seen_vectors: Tensor, unseen_vectors: Tensor) -> None:
        """Take the class vectors ``(Ks, E)`` and ``(U, E)`` of training.

        Comes before a state is loaded: what a method learns may depend on the number of classes.
        """
        self.seen_vectors, self.unseen_vectors = seen_vectors, unseen_vectors
        if self.config.center:
            self.center.copy_(seen_vectors.mean(dim=0))

    def centered(self, vectors: Tensor) -> Tensor:
        """Class vectors ``(K, E)`` as the method sees them."""
        if not self.config.center:
            return vectors
        return F.normalize(vectors - self.center, dim=1)

    @abstractmethod
    def losses(self, embeddings: Tensor, labels: Tensor, config: LossConfig) -> dict[str, Tensor]:
        """Weighted losses of embeddings ``(R, D)`` with labels ``(R,)``, 0 the background."""

    @abstractmethod
    def named_tensors(self) -> dict[str, Tensor]:
        """The tensors that scoring reads, without the centre."""

    def check_alive(self, embeddings: Tensor) -> None:
        """Raise if the method could not learn from where it stands; most always can."""

    def tensors(self) -> dict[str, NDArray[np.float32]]:
        """The arrays of ``scorer.safetensors``."""
        named = self.named_tensors()
        if self.config.center:
            named["center"] = self.center
        return {
            name: tensor.detach().cpu().float().contiguous().numpy()
            for name, tensor in named.items()
        }
