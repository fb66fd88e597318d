"""The score of every (region, class) pair, without the tensors of all pairs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from zsd_core.errors import ConfigError, ShapeError, expect_shapes
from zsd_core.kernels._load import check, compiled, floats

__all__ = ["PackedMlp", "product_mlp", "product_mlps"]

_FIX = "D and M come from the bundle; project class vectors to D first."


class PackedMlp:
    """One scorer's two layers as the kernel reads them: packed once, asked for every frame.

    Args:
        weight1: ``(M, D)``.
        bias1: ``(M,)``.
        weight2: ``(M,)``.
        bias2: ``(1,)``.
        precision: "float32", or "int8": products are rounded to 7 bits with one scale per
            (region, class), ``weight1`` to 8 with one per hidden unit; sums are exact. Only
            ``weight1``'s share along one direction, which would make the errors add up, stays in
            float. Regions and prototypes must not be negative, as outputs of ReLUs are not.
    """

    def __init__(
        self,
        weight1: ArrayLike,
        bias1: ArrayLike,
        weight2: ArrayLike,
        bias2: ArrayLike,
        *,
        precision: Literal["float32", "int8"] = "float32",
    ) -> None:
        arrays = [floats(a) for a in (weight1, bias1, weight2, bias2)]
        expect_shapes(
            "PackedMlp",
            _FIX,
            weight1=(arrays[0], "M D"),
            bias1=(arrays[1], "M"),
            weight2=(arrays[2], "M"),
            bias2=(arrays[3], "1"),
        )
        if precision not in ("float32", "int8"):
            raise ConfigError(
                f"PackedMlp: precision is {precision!r}, must be 'float32' or 'int8'."
            )
        self.precision: Literal["float32", "int8"] = precision
        self.joint = int(arrays[0].shape[1])
        self._weights = arrays
        self.handle: Any = compiled().PackedMlp(*arrays, precision == "int8")

    def __call__(self, regions: ArrayLike, prototypes: ArrayLike) -> NDArray[np.float32]:
        """Logits ``(R, K)`` of regions ``(R, D)`` and prototypes ``(K, D)``."""
        return product_mlps(regions, prototypes, [(self, 0)])[0]

    def estimate(self, regions: ArrayLike, prototypes: ArrayLike) -> NDArray[np.float32]:
        """Cheap logits ``(R, K)``: linear in the prototype, exact at the mean prototype.

        A hidden unit counts as active where it is for the mean of ``prototypes``. Costs about
        three classes' share of the exact scores, however many classes there are.
        """
        rows, classes = floats(regions), floats(prototypes)
        weight1, bias1, weight2, bias2 = self._weights
        centre = classes.mean(axis=0) if len(classes) else np.zeros(self.joint, np.float32)
        active = ((rows * centre) @ weight1.T + bias1 > 0) * weight2  # (R, M)
        slopes = rows * (active @ weight1)  # (R, D)
        return np.asarray(slopes @ classes.T + (active @ bias1 + bias2)[:, None], np.float32)


def product_mlp(
    regions: ArrayLike,
    prototypes: ArrayLike,
    weight1: ArrayLike,
    bias1: ArrayLike,
    weight2: ArrayLike,
    bias2: ArrayLike,
) -> NDArray[np.float32]:
    """Score every (region, class) pair: element-wise product, then a two-layer MLP (eq. 6).

    ``weight2 . relu(weight1 (region * prototype) + bias1) + bias2``; the last layer is linear.
    Neither the products (R, K, D) nor the hidden layer (R, K, M) ever exists. Entries of a
    prototype that are exactly 0 cost nothing: their products are taken as 0, even of a region
    entry that is not finite. ``PackedMlp`` keeps the packed weights between calls.

    Args:
        regions: ``(R, D)`` region embeddings, p_v.
        prototypes: ``(K, D)`` projected class vectors, p_s.
        weight1: ``(M, D)``.
        bias1: ``(M,)``.
        weight2: ``(M,)``.
        bias2: ``(1,)``.

    Returns:
        ``(R, K)`` logits.

    Raises:
        ShapeError: an argument does not have the shape above.
    """
    rows, classes = floats(regions), floats(prototypes)
    arrays = [floats(a) for a in (weight1, bias1, weight2, bias2)]
    expect_shapes(
        "product_mlp",
        _FIX,
        regions=(rows, "R D"),
        prototypes=(classes, "K D"),
        weight1=(arrays[0], "M D"),
        bias1=(arrays[1], "M"),
        weight2=(arrays[2], "M"),
        bias2=(arrays[3], "1"),
    )
    return PackedMlp(*arrays)(rows, classes)


def product_mlps(
    regions: ArrayLike,
    prototypes: ArrayLike,
    scorers: Sequence[tuple[PackedMlp, int]],
    *,
    shortlist: int | None = None,
) -> list[NDArray[np.float32]]:
    """Several scorers in one pass over the regions, such as g_s and g_u.

    Args:
        regions: ``(R, D)``.
        prototypes: ``(K, D)``, columns background, seen, unseen.
        scorers: each with the first class it scores; g_s from 0, g_u from ``1 + Ks``. All of one
            precision.
        shortlist: for large vocabularies: score exactly only this many classes per region, those
            with the best estimates (the first scorer's, plus the logarithm of the sigmoid of the
            others'); the rest keep their estimates. ``None`` scores every pair exactly.

    Returns:
        Per scorer ``(R, K - first class)`` logits, as ``product_mlp`` gives them.

    Raises:
        ShapeError: a shape does not agree, or int8 meets a negative entry.
        ConfigError: scorers differ in precision.
    """
    rows, classes = floats(regions), floats(prototypes)
    if not scorers:
        return []
    check(
        shortlist is None or shortlist >= 0,
        "product_mlps",
        f"shortlist is {shortlist}, must not be negative.",
    )
    for scorer, first in scorers:
        sizes = expect_shapes(
            "product_mlps",
            _FIX,
            regions=(rows, f"R {scorer.joint}"),
            prototypes=(classes, f"K {scorer.joint}"),
        )
        check(
            0 <= first <= sizes["K"],
            "product_mlps",
            f"first class is {first}, must lie in [0, {sizes['K']}].",
        )
    if len({scorer.precision for scorer, _ in scorers}) > 1:
        raise ConfigError("product_mlps: scorers differ in precision, pack them alike.")
    if scorers[0][0].precision == "int8":
        for name, array in (("regions", rows), ("prototypes", classes)):
            if (array < 0).any():
                raise ShapeError(
                    f"product_mlps: {name} has a negative entry, int8 needs outputs of ReLUs; use "
                    "precision='float32'."
                )
    wanted, results = None, []
    if shortlist is not None and shortlist < len(classes):
        results = [scorer.estimate(rows, classes[first:]) for scorer, first in scorers]
        wanted = _best(results, [first for _, first in scorers], shortlist)
    scores: list[NDArray[np.float32]] = compiled().product_mlp(
        rows,
        classes,
        [scorer.handle for scorer, _ in scorers],
        [first for _, first in scorers],
        wanted,
        results,
    )
    return scores


def _best(
    estimates: list[NDArray[np.float32]], first_classes: list[int], count: int
) -> NDArray[np.bool_]:
    """Mask ``(R, K)`` of every region's ``count`` best classes."""
    start, rows = first_classes[0], len(estimates[0])
    rank = np.full((rows, start + estimates[0].shape[1]), -np.inf, np.float32)
    rank[:, start:] = np.nan_to_num(estimates[0])
    for estimate, first in zip(estimates[1:], first_classes[1:], strict=True):
        rank[:, first:] -= np.logaddexp(0, -np.nan_to_num(estimate))
    mask = np.zeros(rank.shape, bool)
    if count > 0:
        best = np.argpartition(-rank, count - 1, axis=1)[:, :count]
        np.put_along_axis(mask, best, True, axis=1)
    return mask
