"""What compares regions with classes: p_s, g_s, g_u, h_v and the background vector a_0.

In a network only while training: at run time ``zsd_core.scoring`` reads ``tensors()``.
"""

from __future__ import annotations

from typing import cast

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from zsd_core.config import ScoringConfig
from zsd_core.models.head import Projection
from zsd_core.ops import product_mlp

__all__ = ["ProductMlp", "Scorer"]


class ProductMlp(nn.Module):
    """g_s or g_u: D to M to 1 over the element-wise product of a region and a class (eq. 6)."""

    def __init__(self, joint_dim: int, hidden_dim: int) -> None:
        super().__init__()
        self.hidden = nn.Linear(joint_dim, hidden_dim)
        self.output = nn.Linear(hidden_dim, 1)

    def forward(self, regions: Tensor, prototypes: Tensor) -> Tensor:
        """``(R, D)`` and ``(K, D)`` to logits ``(R, K)``."""
        return product_mlp(
            regions, prototypes, self.hidden.weight, self.hidden.bias, self.output.weight[0],
            self.output.bias,
        )  # fmt: skip


class Scorer(nn.Module):
    """The visual-semantic alignment subnet without p_v."""

    def __init__(self, config: ScoringConfig, rpn_background: nn.Parameter | None) -> None:
        super().__init__()
        self.config = config
        self.project_semantic = Projection(config.vector_dim, config.joint_dim)
        self.score_seen = ProductMlp(config.joint_dim, config.hidden_dim)
        self.score_unseen = ProductMlp(config.joint_dim, config.hidden_dim)
        self.contrast = nn.Linear(config.joint_dim, config.contrast_dim)
        if config.background == "rpn":
            assert rpn_background is not None  # ModelConfig checks it
            self.background = rpn_background
        elif config.background == "head":
            self.background = nn.Parameter(torch.randn(config.vector_dim) / config.vector_dim**0.5)
        else:
            self.register_buffer("background", torch.zeros(config.vector_dim))
        self.register_buffer("center", torch.zeros(config.vector_dim))

    def read_seen(self, seen_vectors: Tensor) -> None:
        """Set what depends on the seen vectors ``(Ks, E)``: the centre, or a fixed a_0."""
        mean = seen_vectors.mean(dim=0)
        if self.config.center:
            cast(Tensor, self.center).copy_(mean)
        if self.config.background == "mean":
            cast(Tensor, self.background).copy_(mean)

    def centered(self, vectors: Tensor) -> Tensor:
        """Class vectors ``(K, E)`` as p_s and S see them."""
        if not self.config.center:
            return vectors
        return F.normalize(vectors - cast(Tensor, self.center), dim=1)

    def background_vector(self) -> Tensor:
        """a_0, ``(E,)``, as scoring uses it."""
        vector = cast(Tensor, self.background)
        return F.normalize(vector, dim=0) if self.config.background_unit else vector

    def prototypes(self, vectors: Tensor) -> Tensor:
        """p_s of the background and of class vectors ``(K, E)``: ``(1 + K, D)``."""
        rows = torch.cat([self.background_vector()[None], self.centered(vectors)])
        return cast(Tensor, self.project_semantic(rows))

    def seen_logits(self, embeddings: Tensor, prototypes: Tensor) -> Tensor:
        """o_s of eq. 6 before any softmax: ``(R, D)``, ``(K, D)`` to ``(R, K)``."""
        logits = self.score_seen(embeddings, prototypes)
        return F.relu(logits) if self.config.seen_activation == "relu" else logits

    def unseen_logits(self, embeddings: Tensor, prototypes: Tensor) -> Tensor:
        """o_u of eq. 6 before its sigmoid: ``(R, D)``, ``(U, D)`` to ``(R, U)``."""
        return cast(Tensor, self.score_unseen(embeddings, prototypes))

    def contrast_vectors(self, embeddings: Tensor) -> Tensor:
        """Z of eq. 10: ``(R, D)`` to ``(R, contrast_dim)``."""
        return F.relu(self.contrast(embeddings))

    def tensors(self) -> dict[str, NDArray[np.float32]]:
        """The arrays of ``scorer.safetensors``, which ``zsd_core.scoring`` reads."""
        named: dict[str, Tensor] = {"background": self.background_vector()}
        if self.config.center:
            named["center"] = cast(Tensor, self.center)
        semantic = self.project_semantic
        for index, linear in enumerate((semantic.linear1, semantic.linear2), start=1):
            named[f"project_semantic.weight{index}"] = linear.weight
            named[f"project_semantic.bias{index}"] = linear.bias
        for name, head in (("score_seen", self.score_seen), ("score_unseen", self.score_unseen)):
            named[f"{name}.weight1"], named[f"{name}.bias1"] = head.hidden.weight, head.hidden.bias
            named[f"{name}.weight2"], named[f"{name}.bias2"] = (
                head.output.weight[0],
                head.output.bias,
            )
        return {
            name: tensor.detach().cpu().float().contiguous().numpy()
            for name, tensor in named.items()
        }
