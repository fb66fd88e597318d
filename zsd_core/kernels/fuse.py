"""Eq. 14: what a region's seen and unseen scores say together about every class."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from zsd_core.errors import ConfigError, ShapeError, expect_shapes
from zsd_core.kernels._load import compiled, floats

__all__ = ["check_fusion", "fuse"]


def check_fusion(where: str, fusion: str) -> None:
    """Refuse what is no activation of o_s.

    Raises:
        ConfigError: ``fusion`` is not "softmax", "sigmoid" or "raw".
    """
    if fusion not in ("softmax", "sigmoid", "raw"):
        raise ConfigError(f"{where}: fusion is {fusion!r}, must be 'softmax', 'sigmoid' or 'raw'.")


def fuse(
    seen_logits: ArrayLike,
    unseen_probabilities: ArrayLike,
    seen_similarity: ArrayLike,
    *,
    fusion: Literal["softmax", "sigmoid", "raw"],
    seen_scale: float = 1.0,
    objectness: ArrayLike | None = None,
    objectness_power: float = 0.0,
    seen_evidence: bool = False,
) -> NDArray[np.float32]:
    """Multiply the activated o_s by o_u S', and drop the background.

    The activation runs over background, all seen classes and the current unseen ones; the
    background column is dropped after it. The factor of a seen class is the sum of
    ``o_u * seen_similarity`` over unseen classes, of an unseen class its own o_u, and 1 where
    there is no unseen class.

    Args:
        seen_logits: ``(R, 1 + Ks + U)`` o_s, columns background, seen, unseen.
        unseen_probabilities: ``(R, U)`` o_u, in [0, 1].
        seen_similarity: ``(Ks, U)``, the stored block of S.
        fusion: the activation of o_s.
        seen_scale: multiplies the scores of seen classes.
        objectness: ``(R,)`` in [0, 1]; needed when ``objectness_power`` is above 0.
        objectness_power: scores are multiplied by ``objectness ** objectness_power``.
        seen_evidence: scores of unseen classes are also multiplied by what the seen logits say of
            them: the softmax of those logits alone, times ``seen_similarity``.

    Returns:
        ``(R, Ks + U)`` scores, columns seen, unseen.

    Raises:
        ShapeError: an argument does not have the shape above, or objectness is missing.
        ConfigError: no such fusion.

    References:
        Paper eq. 14.
    """
    logits, probabilities = floats(seen_logits), floats(unseen_probabilities)
    similarity = floats(seen_similarity)
    sizes = expect_shapes(
        "fuse",
        "Columns are background, seen classes, unseen classes.",
        unseen_probabilities=(probabilities, "R U"),
        seen_similarity=(similarity, "Ks U"),
    )
    expect_shapes(
        "fuse",
        "Columns are background, seen classes, unseen classes.",
        seen_logits=(logits, f"{sizes['R']} {1 + sizes['Ks'] + sizes['U']}"),
    )
    check_fusion("fuse", fusion)
    if objectness_power > 0:
        if objectness is None:
            raise ShapeError(
                f"fuse: objectness_power is {objectness_power}, so objectness (R,) is needed."
            )
        objectness = floats(objectness)
        expect_shapes("fuse", "One per region.", objectness=(objectness, f"{sizes['R']}"))
    else:
        objectness = None
    result: NDArray[np.float32] = compiled().fuse(
        logits,
        probabilities,
        similarity,
        fusion,
        float(seen_scale),
        objectness,
        float(objectness_power),
        seen_evidence,
    )
    return result
