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

    def fix_background(self, seen_vectors: Tensor) -> None:
        """Set a_0 to the mean of the seen vectors ``(Ks, E)``, where the config says so."""
        if self.config.background == "mean":
            cast(Tensor, self.background).copy_(seen_vectors.mean(dim=0))

    def background_vector(self) -> Tensor:
        """a_0, ``(E,)``, as scoring uses it."""
        vector = cast(Tensor, self.background)
        return F.normalize(vector, dim=0) if self.config.background_unit else vector

    def prototypes(self, vectors: Tensor) -> Tensor:
        """p_s of the background and of class vectors ``(K, E)``: ``(1 + K, D)``."""
        return self.project_semantic(torch.cat([self.background_vector()[None], vectors]))

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
