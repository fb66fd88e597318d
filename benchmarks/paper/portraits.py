"""Contents of figures 4 to 6 for one trained model: a map of its regions, and its best boxes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from zsd_core.config import ModelConfig
from zsd_core.errors import require
from zsd_core.learning.data.dataset import Dataset
from zsd_core.learning.matching import box_iou
from zsd_core.learning.models import ContrastZSD, TorchNetworks
from zsd_core.pipeline import HostPipeline
from zsd_core.scoring import ClassSet, Scorer
from zsd_core.stages import Described, to_original

__all__ = ["detections", "region_map"]


@torch.inference_mode()
def region_map(
    model: ContrastZSD,
    test: Dataset,
    found: Sequence[Described],
    names: Sequence[str],
    most: int = 25,
) -> dict[str, Any]:
    """Regions of objects as points of a plane, by t-SNE of v (figure 4).

    A region is an object's if its IoU with it is at least 0.5.

    Args:
        model: whose p_v makes v.
        test: photographs and what they show.
        found: the regions of each.
        names: of the classes to show; those with fewer than 5 regions are left out.
        most: regions per class.
    """
    manifold = require("sklearn.manifold", "report")
    vectors, labels = [], []
    for image, one in zip(test.images, found, strict=True):
        if not len(one.rois):
            continue
        resized, (height, width) = one.image_sizes[0], one.originals[0]
        boxes = to_original(one.rois, (int(resized[0]), int(resized[1])), (height, width))
        overlap = np.where(image.ignore[None], 0, box_iou(boxes, image.boxes))
        for row in np.flatnonzero(overlap.max(axis=1, initial=0) >= 0.5):
            labels.append(image.labels[int(overlap[row].argmax())])
            vectors.append(one.embeddings[row])
    rng, kept = np.random.default_rng(0), []
    for name in names:
        own = np.flatnonzero([label == name for label in labels])
        if len(own) >= 5:
            kept += sorted(rng.permutation(own)[:most].tolist())
    if len(kept) < 10:
        return {"points": [], "labels": []}
    embedded = model.head.project_visual(torch.from_numpy(np.stack([vectors[i] for i in kept])))
    points = manifold.TSNE(
        perplexity=min(30, len(kept) // 4), init="pca", random_state=0
    ).fit_transform(embedded.numpy())
    span = np.abs(points).max()
    return {
        "points": np.round(points / span, 3).tolist(),
        "labels": [labels[i] for i in kept],
    }


def detections(
    model: ContrastZSD, config: ModelConfig, scorer: Scorer, classes: ClassSet, most: int = 6
) -> dict[str, Any]:
    """The best boxes in the photographs that ship with scikit-image (figures 5 and 6)."""
    from export.checks.images import sample_images

    pipeline, result = HostPipeline(TorchNetworks(model), config, scorer), {}
    thresholds = np.zeros(len(classes.names), np.float32)
    for image in sample_images():
        if image.name not in ("chelsea", "coffee", "astronaut", "rocket", "motorcycle"):
            continue
        (found,) = pipeline.run(classes, [image.pixels], thresholds, max_detections=most)
        result[image.name] = [
            [*np.round(box, 1).tolist(), round(float(score), 4), classes.names[column]]
            for box, score, column in zip(found.boxes, found.scores, found.columns, strict=True)
        ]
    return result
