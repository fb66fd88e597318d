"""RoIAlign and its gradient."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from zsd_core.errors import expect_shapes
from zsd_core.kernels._load import check, check_batch_indices, compiled, floats, integers

__all__ = ["roi_align", "roi_align_backward"]

_FIX = "Pass the image index as batch_indices, not as column 0 of rois."


def roi_align(
    features: ArrayLike,
    rois: ArrayLike,
    batch_indices: ArrayLike,
    *,
    output_size: tuple[int, int],
    spatial_scale: float,
    sampling_ratio: int = 2,
    bin_step: int = 1,
) -> NDArray[np.float32]:
    """Pool a fixed-size patch of the feature map for every region.

    Each bin is the mean of bilinear samples at real-valued positions; nothing is rounded. Same
    meaning as ONNX ``RoiAlign`` (opset 16+) with ``mode="avg"`` and
    ``coordinate_transformation_mode="half_pixel"``.

    Args:
        features: ``(B, C, H, W)``.
        rois: ``(R, 4)`` ``x1 y1 x2 y2`` in pixels of the network input.
        batch_indices: ``(R,)``, the image of each region, in ``[0, B)``.
        output_size: ``(PH, PW)`` bins.
        spatial_scale: feature cells per pixel, ``1 / stride``; stride 16 is 0.0625.
        sampling_ratio: samples per bin side; 0 takes ``ceil(box side / bins)`` per box, at most
            four times the map's side.
        bin_step: of either axis every so many-th bin is computed, from the first: what a layer of
            that stride reads.

    Returns:
        ``(R, C, ceil(PH / bin_step), ceil(PW / bin_step))``. A sample more than one cell outside
        the map, or NaN, counts as 0.

    Raises:
        ShapeError: an argument does not have the shape above.

    References:
        He et al., "Mask R-CNN", arXiv:1703.06870; ONNX Operators.md, RoiAlign.
    """
    features, rois, batch_indices = floats(features), floats(rois), integers(batch_indices)
    sizes = expect_shapes(
        "roi_align",
        _FIX,
        features=(features, "B C H W"),
        rois=(rois, "R 4"),
        batch_indices=(batch_indices, "R"),
    )
    check_batch_indices("roi_align", batch_indices, sizes["B"])
    _check_map("roi_align", sizes["H"], sizes["W"])
    check(
        min(output_size) > 0, "roi_align", f"output_size is {tuple(output_size)}, must be positive."
    )
    check(bin_step > 0, "roi_align", f"bin_step is {bin_step}, must be positive.")
    result: NDArray[np.float32] = compiled().roi_align(
        features,
        rois,
        batch_indices,
        tuple(output_size),
        float(spatial_scale),
        int(sampling_ratio),
        int(bin_step),
    )
    return result


def roi_align_backward(
    gradient: ArrayLike,
    rois: ArrayLike,
    batch_indices: ArrayLike,
    features_shape: tuple[int, int, int, int],
    *,
    spatial_scale: float,
    sampling_ratio: int = 2,
) -> NDArray[np.float32]:
    """Gradient of ``roi_align`` by its features; the sum over regions has a fixed order.

    Args:
        gradient: ``(R, C, PH, PW)``, of the result.
        rois: as in ``roi_align``; boxes get no gradient.
        batch_indices: as in ``roi_align``.
        features_shape: ``(B, C, H, W)``.
        spatial_scale: as in ``roi_align``.
        sampling_ratio: as in ``roi_align``.

    Returns:
        ``(B, C, H, W)``.
    """
    gradient, rois, batch_indices = floats(gradient), floats(rois), integers(batch_indices)
    batch, channels, height, width = features_shape
    _check_map("roi_align_backward", height, width)
    expect_shapes(
        "roi_align_backward",
        _FIX,
        rois=(rois, "R 4"),
        batch_indices=(batch_indices, "R"),
        gradient=(gradient, f"R {channels} PH PW"),
    )
    check_batch_indices("roi_align_backward", batch_indices, batch)
    result: NDArray[np.float32] = compiled().roi_align_backward(
        gradient,
        rois,
        batch_indices,
        tuple(features_shape),
        float(spatial_scale),
        int(sampling_ratio),
    )
    return result


def _check_map(where: str, height: int, width: int) -> None:
    check(
        height > 0 and width > 0,
        where,
        f"features are {height} x {width} cells, must be at least 1 x 1; is the image too small?",
    )
