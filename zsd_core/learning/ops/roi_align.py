"""RoIAlign as a torch operator with a gradient: ``torch.ops.zsd.roi_align``."""

from __future__ import annotations

from typing import Any

import torch
import torchvision
from torch import Tensor

from zsd_core import kernels
from zsd_core.errors import expect_shapes

__all__ = ["roi_align"]


def roi_align(
    features: Tensor,
    rois: Tensor,
    batch_indices: Tensor,
    *,
    output_size: tuple[int, int],
    spatial_scale: float,
    sampling_ratio: int = 2,
) -> Tensor:
    """Pool a fixed-size patch of the feature map for every region.

    Same meaning as ``zsd_core.kernels.roi_align`` and ONNX ``RoiAlign`` (half pixel, average).
    Under autocast it runs in float32: a half cannot hold a pixel's coordinate.

    Args:
        features: ``(B, C, H, W)``; the only argument with a gradient.
        rois: ``(R, 4)`` ``x1 y1 x2 y2`` in pixels of the network input.
        batch_indices: ``(R,)`` integers, the image of each region, in ``[0, B)``.
        output_size: ``(PH, PW)`` bins.
        spatial_scale: feature cells per pixel, ``1 / stride``.
        sampling_ratio: samples per bin side; 0 takes ``ceil(box side / bins)`` per box.

    Returns:
        ``(R, C, PH, PW)`` in the dtype and device of ``features``.

    Raises:
        ShapeError: an argument does not have the shape above.
    """
    expect_shapes(
        "roi_align",
        "Pass the image index as batch_indices, not as column 0 of rois.",
        features=(features, "B C H W"),
        rois=(rois, "R 4"),
        batch_indices=(batch_indices, "R"),
    )
    result: Tensor = torch.ops.zsd.roi_align(
        features, rois, batch_indices, *output_size, spatial_scale, sampling_ratio
    )
    return result


@torch.library.custom_op("zsd::roi_align", mutates_args=())
def _roi_align(
    features: Tensor,
    rois: Tensor,
    batch_indices: Tensor,
    pooled_height: int,
    pooled_width: int,
    spatial_scale: float,
    sampling_ratio: int,
) -> Tensor:
    if _is_compiled(features):
        return torch.from_numpy(
            kernels.roi_align(
                features.numpy(),
                rois.numpy(),
                batch_indices.numpy(),
                output_size=(pooled_height, pooled_width),
                spatial_scale=spatial_scale,
                sampling_ratio=sampling_ratio,
            )
        )
    boxes = torch.cat([batch_indices[:, None].to(features), rois.to(features)], dim=1)
    pooled: Tensor = torchvision.ops.roi_align(
        features, boxes, (pooled_height, pooled_width), spatial_scale, sampling_ratio, aligned=True
    )
    return pooled


@_roi_align.register_fake
def _(
    features: Tensor, rois: Tensor, batch_indices: Tensor, height: int, width: int, *_: Any
) -> Tensor:
    return features.new_empty(rois.shape[0], features.shape[1], height, width)


@torch.library.custom_op("zsd::roi_align_backward", mutates_args=())
def _roi_align_backward(
    gradient: Tensor,
    rois: Tensor,
    batch_indices: Tensor,
    batch: int,
    channels: int,
    height: int,
    width: int,
    spatial_scale: float,
    sampling_ratio: int,
) -> Tensor:
    if _is_compiled(gradient):
        return torch.from_numpy(
            kernels.roi_align_backward(
                gradient.numpy(),
                rois.numpy(),
                batch_indices.numpy(),
                (batch, channels, height, width),
                spatial_scale=spatial_scale,
                sampling_ratio=sampling_ratio,
            )
        )
    boxes = torch.cat([batch_indices[:, None].to(gradient), rois.to(gradient)], dim=1)
    result: Tensor = torch.ops.torchvision._roi_align_backward(
        gradient,
        boxes,
        spatial_scale,
        gradient.shape[2],
        gradient.shape[3],
        batch,
        channels,
        height,
        width,
        sampling_ratio,
        True,
    )
    return result


@_roi_align_backward.register_fake
def _(
    gradient: Tensor,
    rois: Tensor,
    batch_indices: Tensor,
    batch: int,
    channels: int,
    height: int,
    width: int,
    *_: Any,
) -> Tensor:
    return gradient.new_empty(batch, channels, height, width)


def _is_compiled(tensor: Tensor) -> bool:
    return tensor.device.type == "cpu" and tensor.dtype == torch.float32


def _save(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    features, rois, batch_indices, _, _, ctx.spatial_scale, ctx.sampling_ratio = inputs
    ctx.shape = features.shape
    ctx.save_for_backward(rois, batch_indices)


def _differentiate(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
    rois, batch_indices = ctx.saved_tensors
    features = torch.ops.zsd.roi_align_backward(
        gradient.contiguous(),
        rois,
        batch_indices,
        *ctx.shape,
        ctx.spatial_scale,
        ctx.sampling_ratio,
    )
    return features, None, None, None, None, None, None


_roi_align.register_autograd(_differentiate, setup_context=_save)
_roi_align.register_autocast("cuda", torch.float32)
