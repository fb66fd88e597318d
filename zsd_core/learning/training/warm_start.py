"""Heads that start as the best linear map from regions to class vectors, in closed form.

With few classes and little time, ridge regression from a region's feature f to its class vector is
hard to beat, and takes seconds. ContrastZSD can express it exactly: p_v and p_s give the positive
and negative parts of both in a basis of the seen vectors, one hidden unit of g_s and g_u adds the
products of equal signs and subtracts those of opposite ones, which is the dot product. Background
has no vector: one more column of the regression says how much a region looks like it, and the
logit of a_0 rises with that. Everything else keeps its random start, with an output weight of 0,
and learns from there by eq. 13.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

import torch
from torch import Tensor, nn

from zsd_core.errors import ConfigError
from zsd_core.learning.models.head import Projection
from zsd_core.learning.models.scorers.contrastzsd import ContrastScoring, ProductMlp

__all__ = ["Ridge", "fit_ridge", "regress", "warm_start"]

LIFT = 8.0  # added before a ReLU so that it passes every dot product; those lie in about -3 to 3
TEMPERATURES = (0.05, 0.07, 0.1, 0.14, 0.2)
MARGINS = (0.15, 0.3, 0.45, 0.6, 0.8, 1.0)
RISES = (0.0, 0.5, 1.0, 1.5, 2.0)


@dataclass(frozen=True, slots=True)
class Ridge:
    """A linear map and how its dot products become probabilities.

    Attributes:
        basis: ``(B, E)`` orthonormal rows that span the seen vectors.
        weight: ``(F, B)`` from a feature to its class vector in that basis; objects have the length
            1 on average.
        bias: ``(B,)``.
        temperature: dot products are divided by it before the softmax.
        margin: the dot product that background counts as, where it is as likely as not.
        empty_weight: ``(F,)`` from a feature to how much less or more than that.
        empty_bias: a number.
    """

    basis: Tensor
    weight: Tensor
    bias: Tensor
    temperature: float
    margin: float
    empty_weight: Tensor
    empty_bias: float

    def background(self, features: Tensor) -> Tensor:
        """The dot product ``(R,)`` that background counts as in each region; not negative."""
        return (features @ self.empty_weight + self.empty_bias + self.margin).relu()


@torch.no_grad()
def fit_ridge(
    features: Tensor, labels: Tensor, weights: Tensor, seen: Tensor, strength: float
) -> Ridge:
    """Regress class vectors on features, zero on background, and how like background they are.

    Temperature, margin and by how much it rises with the last are those with the least eq. 8.

    Args:
        features: ``(R, F)``.
        labels: ``(R,)`` in ``[0, Ks]``, 0 is background.
        weights: ``(R,)`` of each region.
        seen: ``(Ks, E)`` unit rows, centred if the model centres.
        strength: of the ridge, in units of the features' mean variance.

    Raises:
        ConfigError: the features do not vary.
    """
    _, sizes, rows = torch.linalg.svd(seen, full_matrices=False)
    basis = rows[sizes > 1e-4 * sizes[0]]
    classes = seen @ basis.T  # (Ks, B)
    targets = torch.cat([classes.new_zeros(1, len(basis)), classes])[labels]
    empty = (labels == 0).to(targets)[:, None] - 0.5
    share = weights / weights.sum()
    weight, bias = regress(features, torch.cat([targets, empty], dim=1), share, strength)
    found = features @ weight + bias
    length = found[labels > 0, :-1].norm(dim=1).mean()
    dots = found[:, :-1] @ classes.T / length
    temperature, margin, rise = _scale(dots, found[:, -1], labels, share.float())
    return Ridge(
        basis,
        weight[:, :-1] / length,
        bias[:-1] / length,
        temperature,
        margin,
        rise * weight[:, -1],
        rise * bias[-1].item(),
    )


@torch.no_grad()
def regress(
    features: Tensor, targets: Tensor, weights: Tensor, strength: float
) -> tuple[Tensor, Tensor]:
    """Weighted ridge regression with a free bias.

    Args:
        features: ``(R, F)``.
        targets: ``(R, T)``.
        weights: ``(R,)``.
        strength: of the ridge, in units of the features' mean variance.

    Returns:
        Weight ``(F, T)`` and bias ``(T,)``.

    Raises:
        ConfigError: the features do not vary.
    """
    share = (weights / weights.sum()).float()[:, None]
    middle, average = (share * features).sum(dim=0), (share * targets).sum(dim=0)
    moved = features - middle
    shared = (share * moved).T @ moved  # (F, F)
    variance = shared.diagonal().mean()
    if not variance > 0:
        raise ConfigError(
            "training.warm_start: the features of all regions are alike. Give "
            "model.backbone.weights, or set training.warm_start to 0."
        )
    ridge = strength * variance * torch.eye(len(shared))
    weight = torch.linalg.solve(shared + ridge, (share * moved).T @ (targets - average))
    return weight, average - middle @ weight


def _scale(
    dots: Tensor, empty: Tensor, labels: Tensor, share: Tensor
) -> tuple[float, float, float]:
    """Temperature, margin and rise with the smallest cross entropy.

    Args:
        dots: ``(R, Ks)`` dot products.
        empty: ``(R,)`` how much like background a region is, 0 as likely as not.
        labels: ``(R,)``.
        share: ``(R,)``.
    """
    losses = {}
    for margin, rise in product(MARGINS, RISES):
        background = (margin + rise * empty).relu()
        logits = torch.cat([background[:, None], dots], dim=1)
        for temperature in TEMPERATURES:
            chances = (logits / temperature).log_softmax(dim=1)
            picked = chances.gather(1, labels[:, None])[:, 0]
            losses[temperature, margin, rise] = -(share * picked).sum().item()
    return min(losses, key=losses.__getitem__)


@torch.no_grad()
def warm_start(visual: Projection, scorer: nn.Module, ridge: Ridge) -> None:
    """Write a ridge regression into p_v, p_s, g_s, g_u and a_0.

    Args:
        visual: p_v.
        scorer: of ContrastZSD, with its classes read.
        ridge: of features and seen vectors of that scorer.

    Raises:
        ConfigError: another scoring method, a background that is not learned in the head, or a
            joint space too narrow for both signs of both.
    """
    if not isinstance(scorer, ContrastScoring) or scorer.config.background != "head":
        raise ConfigError(
            "training.warm_start needs model.scoring.method: contrastzsd and "
            f"model.scoring.background: head; got {scorer.config.method!r} and "  # type: ignore[union-attr]
            f"{scorer.config.background!r}. Set training.warm_start to 0."  # type: ignore[union-attr]
        )
    width, joint = len(ridge.basis), visual.linear2.out_features
    if joint <= 4 * width:
        raise ConfigError(
            f"training.warm_start needs model.scoring.joint_dim above {4 * width}, four times the "
            f"{width} directions of the seen vectors; got {joint}."
        )
    vector = scorer.background
    assert isinstance(vector, nn.Parameter)
    outside = vector - vector @ ridge.basis.T @ ridge.basis  # a_0: like no seen class
    vector.copy_(outside / outside.norm())

    def signs(projection: Projection, weight: Tensor, bias: Tensor | float, last: str) -> None:
        first, second = projection.linear1, projection.linear2
        for sign, rows in ((1, slice(0, width)), (-1, slice(width, 2 * width))):
            first.weight[rows], first.bias[rows] = sign * weight, sign * torch.as_tensor(bias)
        second.weight[: 4 * width + 1], second.bias[: 4 * width + 1] = 0, 0
        for block, part in enumerate(last):
            start = width * block
            column = 0 if part == "+" else width
            second.weight[start : start + width, column : column + width] = torch.eye(width)

    signs(visual, ridge.weight.T, ridge.bias, "+-+-")
    signs(scorer.project_semantic, ridge.basis, 0.0, "+--+")
    end, semantic = 4 * width, scorer.project_semantic
    visual.linear1.weight[2 * width] = ridge.empty_weight  # for classes, what only a_0 has
    visual.linear1.bias[2 * width] = ridge.empty_bias + ridge.margin
    visual.linear2.weight[end, 2 * width] = 1
    semantic.linear1.weight[2 * width], semantic.linear1.bias[2 * width] = 10 * vector, -9
    semantic.linear2.weight[end, 2 * width] = 1

    def dot(mlp: ProductMlp, background: float, offset: float) -> None:
        mlp.hidden.weight[0] = 0
        mlp.hidden.weight[0, : 2 * width], mlp.hidden.weight[0, 2 * width : end] = 1, -1
        mlp.hidden.weight[0, end], mlp.hidden.bias[0] = background, LIFT
        mlp.output.weight[:] = 0
        mlp.output.weight[0, 0] = 1 / ridge.temperature
        mlp.output.bias[:] = -(LIFT + offset) / ridge.temperature

    dot(scorer.score_seen, 1.0, 0.0)
    dot(scorer.score_unseen, 0.0, ridge.margin)
