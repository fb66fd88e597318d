"""Trainable parts of ContrastZSD that compare regions with classes: p_s, g_s, g_u, h_v, a_0."""

from __future__ import annotations

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zsd_core.config import ScoringConfig
from zsd_core.errors import ConfigError
from zsd_core.learning.experiment import LossConfig
from zsd_core.learning.losses import (
    contrastive_loss,
    seen_classification_loss,
    unseen_classification_loss,
)
from zsd_core.learning.models.head import Projection
from zsd_core.learning.models.scorers.base import TrainableScorer, learned_background
from zsd_core.learning.ops import product_mlp
from zsd_core.semantics import similarity

__all__ = ["ContrastScoring", "ProductMlp", "make"]


class ProductMlp(nn.Module):
    """g_s or g_u: D to M to 1 over the element-wise product of a region and a class (eq. 6)."""

    def __init__(self, joint_dim: int, hidden_dim: int) -> None:
        super().__init__()
        self.hidden = nn.Linear(joint_dim, hidden_dim)
        self.output = nn.Linear(hidden_dim, 1)

    def forward(self, regions: Tensor, prototypes: Tensor) -> Tensor:
        """``(R, D)`` and ``(K, D)`` to logits ``(R, K)``."""
        return product_mlp(
            regions,
            prototypes,
            self.hidden.weight,
            self.hidden.bias,
            self.output.weight[0],
            self.output.bias,
        )


class ContrastScoring(TrainableScorer):
    """The visual-semantic alignment subnet without p_v."""

    METHOD = "contrastzsd"

    similarity: Tensor  # S, (1 + Ks + U, U)

    def __init__(self, config: ScoringConfig, rpn_background: nn.Parameter | None) -> None:
        super().__init__(config)
        self.project_semantic = Projection(config.vector_dim, config.joint_dim)
        self.score_seen = ProductMlp(config.joint_dim, config.hidden_dim)
        self.score_unseen = ProductMlp(config.joint_dim, config.hidden_dim)
        self.contrast = nn.Linear(config.joint_dim, config.contrast_dim)
        if config.background == "mean":
            self.register_buffer("background", torch.zeros(config.vector_dim))
        else:
            self.background = learned_background(config, rpn_background)
        self.register_buffer("similarity", torch.zeros(1, 0), persistent=False)

    def read_classes(self, seen_vectors: Tensor, unseen_vectors: Tensor) -> None:
        """Take the class vectors, and with them S and a fixed a_0; see ``TrainableScorer``."""
        super().read_classes(seen_vectors, unseen_vectors)
        if self.config.background == "mean":
            cast(Tensor, self.background).copy_(seen_vectors.mean(dim=0))
        table = similarity(
            self.centered(seen_vectors).double().cpu().numpy(),
            self.centered(unseen_vectors).double().cpu().numpy(),
            self.config.similarity_temperature,
        )
        self.similarity = torch.from_numpy(table).float().to(seen_vectors.device)

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

    def losses(self, embeddings: Tensor, labels: Tensor, config: LossConfig) -> dict[str, Tensor]:
        """Eq. 8, 9 and 12, weighted as eq. 13 says; see ``TrainableScorer``."""
        seen, unseen = self.seen_vectors, self.unseen_vectors
        prototypes = self.prototypes(torch.cat([seen, unseen]))
        split = 1 + len(seen)
        losses = {
            "seen": seen_classification_loss(
                self.seen_logits(embeddings, prototypes[:split]),
                labels,
                reduction=config.reduction,
            )
        }
        if config.unseen_weight and len(unseen):
            losses["unseen"] = config.unseen_weight * unseen_classification_loss(
                self.unseen_logits(embeddings, prototypes[split:]),
                labels,
                self.similarity,
                background=config.unseen_background,
                reduction=config.reduction,
            )
        if config.contrast_weight:
            losses["contrast"] = config.contrast_weight * contrastive_loss(
                self.contrast_vectors(embeddings),
                labels,
                temperature=config.contrast_temperature,
                normalized=config.contrast_normalized,
                background=config.contrast_background,
                reduction=config.reduction,
            )
        return losses

    def check_alive(self, embeddings: Tensor) -> None:
        """Refuse to train a g_s whose final ReLU outputs nothing but zeros.

        It has one output neuron shared by all classes: where every logit is 0, so is every
        gradient, and the loss stays at the logarithm of the class count for ever.

        Raises:
            ConfigError: more than 99 % of the seen logits of ``(R, D)`` are exactly 0.
        """
        prototypes = self.prototypes(self.seen_vectors)
        dead = (self.seen_logits(embeddings, prototypes) == 0).float().mean().item()
        if dead > 0.99:
            raise ConfigError(
                f"{dead:.1%} of the seen logits are exactly 0 before training: g_s is dead and "
                "cannot learn. Set scoring.seen_activation to linear, or try another seed."
            )

    def named_tensors(self) -> dict[str, Tensor]:
        """See ``TrainableScorer``."""
        named: dict[str, Tensor] = {"background": self.background_vector()}
        semantic = self.project_semantic
        for index, linear in enumerate((semantic.linear1, semantic.linear2), start=1):
            named[f"project_semantic.weight{index}"] = linear.weight
            named[f"project_semantic.bias{index}"] = linear.bias
        for name, head in (("score_seen", self.score_seen), ("score_unseen", self.score_unseen)):
            named[f"{name}.weight1"], named[f"{name}.bias1"] = head.hidden.weight, head.hidden.bias
            named[f"{name}.weight2"] = head.output.weight[0]
            named[f"{name}.bias2"] = head.output.bias
        return named


make = ContrastScoring
