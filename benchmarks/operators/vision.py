"""The other operators against torchvision and OpenCV, at the paper's sizes and smaller ones."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.operators.table import Row
from benchmarks.operators.timing import Bench
from zsd_core import kernels
from zsd_core.config import ProposalConfig
from zsd_core.errors import require

__all__ = ["box_rows", "preprocess_rows", "roi_align_rows"]

Floats = NDArray[np.float32]
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def roi_align_rows(bench: Bench) -> list[Row]:
    """Forward and backward at the paper's size and the shipped model's."""
    torch, torchvision = require("torch", "train"), require("torchvision", "train")
    rng, rows = np.random.default_rng(0), []
    for channels, height, width, count, bins in ((1024, 38, 50, 300, 14), (96, 24, 36, 100, 7)):
        shape = (1, channels, height, width)
        features = rng.random(shape, np.float32)
        corners = rng.random((count, 2)) * (width * 12, height * 12)
        boxes = np.concatenate([corners, corners + 20 + rng.random((count, 2)) * 250], axis=1)
        rois, indices = boxes.astype(np.float32), np.zeros(count, np.int32)
        gradient = rng.random((count, channels, bins, bins), np.float32)
        columns = torch.from_numpy(np.pad(rois, ((0, 0), (1, 0))))
        forward = functools.partial(
            kernels.roi_align,
            features,
            rois,
            indices,
            output_size=(bins, bins),
            spatial_scale=1 / 16,
        )
        backward = functools.partial(
            kernels.roi_align_backward, gradient, rois, indices, shape, spatial_scale=1 / 16
        )
        forward_theirs = functools.partial(
            torchvision.ops.roi_align,
            torch.from_numpy(features),
            columns,
            (bins, bins),
            1 / 16,
            2,
            aligned=True,
        )
        backward_theirs = functools.partial(
            torch.ops.torchvision._roi_align_backward,
            torch.from_numpy(gradient),
            columns,
            1 / 16,
            bins,
            bins,
            *shape,
            2,
            True,
        )
        for name, ours, theirs in (
            ("forward", forward, forward_theirs),
            ("backward", backward, backward_theirs),
        ):
            ms, other = bench.pair(ours, theirs)
            rows.append(
                Row(
                    operator="roi_align",
                    variant=f"{name} {count} x {channels} x {bins} x {bins}",
                    ms=ms,
                    reference="torchvision",
                    reference_ms=other,
                    max_difference=float(np.abs(ours() - theirs().numpy()).max()),
                )
            )
    return rows


def box_rows(bench: Bench) -> list[Row]:
    """``propose`` and ``detect`` against the same steps with torchvision's operators."""
    torch, torchvision = require("torch", "train"), require("torchvision", "train")
    from torchvision.models.detection._utils import BoxCoder

    rng, rows, ops = np.random.default_rng(0), [], torchvision.ops
    height, width, count, before, after = 38, 50, 9, 6000, 300
    anchors = ProposalConfig().anchors()
    logits = rng.standard_normal((1, count, height, width)).astype(np.float32)
    deltas = (rng.standard_normal((1, 4 * count, height, width)) * 0.3).astype(np.float32)
    size = (height * 16, width * 16)
    y, x = np.meshgrid(np.arange(height) * 16, np.arange(width) * 16, indexing="ij")
    grid = torch.from_numpy(
        (np.stack([x, y, x, y], -1)[:, :, None] + anchors).reshape(-1, 4).astype(np.float32)
    )

    def propose_theirs() -> Any:
        flat = torch.from_numpy(logits)[0].permute(1, 2, 0).reshape(-1)
        offsets = torch.from_numpy(deltas)[0].view(count, 4, height, width).permute(2, 3, 0, 1)
        best, index = flat.topk(before)
        boxes = BoxCoder((1.0, 1.0, 1.0, 1.0)).decode_single(
            offsets.reshape(-1, 4)[index], grid[index]
        )
        boxes = ops.clip_boxes_to_image(boxes, size)
        kept = ops.remove_small_boxes(boxes, 1.0)
        boxes = boxes[kept]
        return boxes[ops.nms(boxes, best[kept], 0.7)[:after]]

    def propose_ours() -> Any:
        return kernels.propose(
            logits,
            deltas,
            anchors,
            np.array([size], np.float32),
            stride=16,
            pre_nms_top=before,
            post_nms_top=after,
            nms_threshold=0.7,
            min_size=1.0,
        )[0]

    ms, other = bench.pair(propose_ours, propose_theirs)
    rows.append(
        Row(
            operator="propose",
            variant=f"{before} to {after}",
            ms=ms,
            reference="torchvision",
            reference_ms=other,
            max_difference=float(np.abs(propose_ours() - propose_theirs().numpy()).max()),
        )
    )
    for classes in (95, 1202):
        scores = (rng.random((300, classes)) ** 8).astype(np.float32) * np.float32(0.4)
        corners = rng.random((300, 2)) * 500
        rois = np.concatenate([corners, corners + 10 + rng.random((300, 2)) * 200], axis=1)
        rois = rois.astype(np.float32)
        offsets = rng.standard_normal((300, 4)).astype(np.float32)

        def detect_theirs(s: Floats = scores, r: Floats = rois, o: Floats = offsets) -> Any:
            boxes = BoxCoder((10.0, 10.0, 5.0, 5.0)).decode_single(
                torch.from_numpy(o), torch.from_numpy(r)
            )
            boxes = ops.clip_boxes_to_image(boxes, (600, 800))
            values = torch.from_numpy(s)
            regions, columns = torch.nonzero(values > 0.05, as_tuple=True)
            kept = ops.remove_small_boxes(boxes[regions], 1.0)
            regions, columns = regions[kept], columns[kept]
            best = values[regions, columns]
            return best[ops.batched_nms(boxes[regions], best, columns, 0.5)[:100]]

        def detect_ours(s: Floats = scores, r: Floats = rois, o: Floats = offsets) -> Any:
            return kernels.detect(
                s,
                o,
                r,
                np.zeros(300, np.int32),
                np.array([[600, 800]], np.float32),
                np.full(s.shape[1], 0.05, np.float32),
                nms_threshold=0.5,
                max_detections=100,
                min_size=1.0,
            )[1]

        ms, other = bench.pair(detect_ours, detect_theirs)
        rows.append(
            Row(
                operator="detect",
                variant="300 regions",
                classes=classes,
                ms=ms,
                reference="torchvision",
                reference_ms=other,
                max_difference=float(np.abs(detect_ours() - detect_theirs().numpy()).max()),
            )
        )
    return rows


def preprocess_rows(bench: Bench) -> list[Row]:
    """Against OpenCV's bilinear resize and normalisation in numpy."""
    cv2, rows = require("cv2", "cpu"), []
    cv2.setNumThreads(kernels.get_threads())
    mean, std = np.asarray(MEAN, np.float32), np.asarray(STD, np.float32)
    for shape, size, padded in (
        ((480, 640), (600, 800), (608, 800)),
        ((1080, 1920), (360, 640), (384, 640)),
        ((427, 640), (384, 576), (384, 576)),
    ):
        image = np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)

        def theirs(image: Any = image, size: Any = size, padded: Any = padded) -> Any:
            resized = cv2.resize(image, size[::-1], interpolation=cv2.INTER_LINEAR)
            output = np.zeros((3, *padded), np.float32)
            normal = (resized.astype(np.float32) / 255 - mean) / std
            output[:, : size[0], : size[1]] = normal.transpose(2, 0, 1)
            return output

        def ours(image: Any = image, size: Any = size, padded: Any = padded) -> Any:
            return kernels.preprocess(image, size=size, padded=padded, mean=MEAN, std=STD)

        ms, other = bench.pair(ours, theirs)
        variant = f"{shape[1]} x {shape[0]} to {size[1]} x {size[0]}"
        rows.append(
            Row(
                operator="preprocess",
                variant=variant,
                ms=ms,
                reference="OpenCV + numpy",
                reference_ms=other,
            )
        )
    return rows
