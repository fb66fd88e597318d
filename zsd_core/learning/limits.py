"""Limits of a detector: what its regions alone allow, and what its recognition alone gives.

Two tests by the pipeline of every other test, each with one half of the detector replaced by the
truth: human boxes in the place of proposals, and the right class and fit in the place of scores.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zsd_core import stages
from zsd_core.commands import Progress
from zsd_core.config import ModelConfig
from zsd_core.learning import metrics
from zsd_core.learning.checkpoint import load_checkpoint
from zsd_core.learning.data.dataset import Dataset, ImageRecord
from zsd_core.learning.data.photographs import read_image
from zsd_core.learning.data.protocol import test_set
from zsd_core.learning.data.splits import Split
from zsd_core.learning.evaluation import check_split
from zsd_core.learning.matching import box_iou, check_limit
from zsd_core.learning.models import TorchNetworks, kernels_for
from zsd_core.learning.training.kept import class_set_of, matches_of
from zsd_core.scoring import Scorer

__all__ = ["COUNTS", "human_regions", "measure_limits", "render_limits"]

Floats = NDArray[np.float32]
COUNTS = (20, 100, 300)  # best regions of an image
FIT = 0.5  # IoU from which a region has an object


class _TrunkOnly(TorchNetworks):
    """Networks whose head says nothing, for proposals alone."""

    def head(self, *region_features: Floats) -> tuple[Floats, Floats]:
        """See ``zsd_core.stages.Networks``."""
        count = len(region_features[0])
        return np.zeros((count, 1), np.float32), np.zeros((count, 4), np.float32)


def measure_limits(
    path: Path, dataset: Dataset, split: Split, *, limit: int = 100
) -> dict[str, Any]:
    """Measure both limits in the zero-shot test of a split.

    Args:
        path: of a checkpoint.
        dataset: human-labelled photographs.
        split: none of whose unseen classes the checkpoint may have been trained on.
        limit: detections kept of an image.

    Returns:
        JSON values: mAP@0.5 and Recall@100 in percent, of "human boxes" with the detector's scores
        and of "right classes" on its ``post_nms_top`` regions; under "regions" the share of the
        unseen boxes that the best 20, 100 and 300 of an image hold, of any class (fewer where
        ``pre_nms_top`` is smaller); the counts.

    Raises:
        ConfigError: a limit below 1.
        DataError: the checkpoint cannot be read, or was trained on an unseen class.
    """
    check_limit(limit)
    checkpoint = load_checkpoint(path)
    check_split(str(path), checkpoint.seen, split)
    test = test_set(dataset, split, "zsd")
    model, names = checkpoint.config.model, checkpoint.seen + checkpoint.unseen
    scorer, classes = class_set_of(
        checkpoint.model, model, names, checkpoint.vectors, len(checkpoint.seen)
    )
    own = model.proposals  # NMS goes by falling score: its own regions are the first of more
    more = max(own.post_nms_top, min(own.pre_nms_top, max(COUNTS)))
    wide = dataclasses.replace(model, proposals=dataclasses.replace(own, post_nms_top=more))
    human, offered, scores, truths, held = [], [], [], [], []
    with Progress("limits", len(test)) as progress:
        for record in test.images:
            one = human_regions(TorchNetworks(checkpoint.model), model, record)
            human.append(one)
            scores.append(_scored(scorer, one, classes))
            found = stages.describe(
                _TrunkOnly(checkpoint.model),
                wide,
                [read_image(record)],
                kernels=kernels_for(model.regions),
            )
            held.append(_held(found, record, test.categories))
            best = _first(found, own.post_nms_top)
            offered.append(best)
            truths.append(_truth(best, record, names))
            progress.advance()

    def values(found: Sequence[stages.Described], given: Sequence[Floats]) -> dict[str, float]:
        matches = matches_of(test, found, given, names, split.seen, model, limit=limit)
        all_values = metrics.report(matches, samples=0)["values"]
        return {
            "mAP@0.5": all_values["mAP@0.5 area"]["unseen"],
            "Recall@100": all_values[f"Recall@{matches.cap} IoU 0.5"]["unseen"],
        }

    hits = np.concatenate(held)  # (boxes, COUNTS)
    return {
        "counts": dict(test.counts),
        "human boxes": values(human, scores),
        "right classes": values(offered, truths),
        "regions": {
            str(count): 100 * float(share)
            for count, share in zip(COUNTS, hits.mean(axis=0), strict=True)
        },
    }


def render_limits(result: dict[str, Any]) -> str:
    """The limits as text."""
    lines = [", ".join(f"{name} {count}" for name, count in result["counts"].items())]
    for name, what in (
        ("human boxes", "the detector's scores on human boxes"),
        ("right classes", "the right class of each of the detector's regions"),
    ):
        numbers = result[name]
        lines.append(
            f"{what}: mAP@0.5 {numbers['mAP@0.5']:.1f}, Recall@100 {numbers['Recall@100']:.1f}"
        )
    shares = ", ".join(f"{share:.1f} by {count}" for count, share in result["regions"].items())
    lines.append(f"unseen boxes found at IoU {FIT:g} by the best regions, whatever class: {shares}")
    return "\n".join(lines)


def human_regions(
    networks: stages.Networks, config: ModelConfig, record: ImageRecord
) -> stages.Described:
    """The human boxes of a photograph, described as if they were proposals, and not moved."""
    size = config.preprocess.resized(record.height, record.width)
    scale = np.array([size[1] / record.width, size[0] / record.height] * 2, np.float32)
    rois = np.ascontiguousarray(record.boxes * scale, np.float32)

    def propose(*_: object, **__: object) -> tuple[Floats, NDArray[np.int32], Floats]:
        return rois, np.zeros(len(rois), np.int32), np.ones(len(rois), np.float32)

    own = ModuleType("zsd_core.kernels, with human boxes")
    vars(own).update(vars(kernels_for(config.regions)))
    vars(own)["propose"] = propose
    found = stages.describe(networks, config, [read_image(record)], kernels=own)
    return dataclasses.replace(found, deltas=np.zeros_like(found.deltas))


def _scored(scorer: Scorer, one: stages.Described, classes: Any) -> Floats:
    if not len(one.rois):
        return np.zeros((0, len(classes.names)), np.float32)
    return scorer.score(one.embeddings, one.objectness, classes)


def _overlaps(found: stages.Described, boxes: NDArray[Any]) -> NDArray[np.float64]:
    """IoU ``(R, G)`` of regions with boxes in pixels of the photograph."""
    (height, width), resized = found.originals[0], found.image_sizes[0]
    moved = stages.to_original(found.rois, (int(resized[0]), int(resized[1])), (height, width))
    return box_iou(moved, boxes)


def _held(
    found: stages.Described, record: ImageRecord, categories: Sequence[str]
) -> NDArray[np.bool_]:
    """Whether the best regions hold each box of those classes, ``(G, len(COUNTS))``."""
    wanted = [
        label in categories and not ignored
        for label, ignored in zip(record.labels, record.ignore, strict=True)
    ]
    overlaps = _overlaps(found, record.boxes[wanted])
    return np.stack([(overlaps[:count] >= FIT).any(axis=0) for count in COUNTS], axis=1)


def _first(found: stages.Described, count: int) -> stages.Described:
    part = slice(count)
    return dataclasses.replace(
        found,
        rois=found.rois[part],
        batch_indices=found.batch_indices[part],
        objectness=found.objectness[part],
        embeddings=found.embeddings[part],
        deltas=found.deltas[part],
    )


def _truth(found: stages.Described, record: ImageRecord, names: Sequence[str]) -> Floats:
    """Scores ``(R, C)``: how well each region fits the best box of each class."""
    scores = np.zeros((len(found.rois), len(names)), np.float32)
    overlaps = _overlaps(found, record.boxes)
    for column, name in enumerate(names):
        own = [label == name for label in record.labels]
        if any(own):
            scores[:, column] = overlaps[:, own].max(axis=1)
    return scores
