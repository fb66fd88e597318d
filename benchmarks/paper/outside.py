"""The same detections, scored by others' evaluators: pycocotools and torchmetrics.

Detections become COCO results, the truth COCO annotations; both evaluators then measure what
``zsd_core.learning.metrics`` measures as ``coco101`` at IoU 0.5, with at most 100 boxes of an
image.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Sequence
from typing import Any

import numpy as np

from zsd_core.errors import require
from zsd_core.learning.data.dataset import Dataset
from zsd_core.learning.matching import Prediction

__all__ = ["by_pycocotools", "by_torchmetrics", "coco_results"]


def coco_results(
    test: Dataset, predictions: Sequence[Prediction]
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Truth and detections as COCO's annotation and result formats.

    Args:
        test: photographs and truth; its categories are the columns of the predictions.
        predictions: of each photograph, in order.
    """
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    results: list[dict[str, Any]] = []
    for number, (record, (boxes, scores, columns)) in enumerate(
        zip(test.images, predictions, strict=True), start=1
    ):
        images.append({"id": number, "width": record.width, "height": record.height})
        for box, label, crowd, ignore in zip(
            record.boxes, record.labels, record.crowd, record.ignore, strict=True
        ):
            x, y, right, bottom = map(float, box)
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": number,
                    "category_id": 1 + test.categories.index(label),
                    "bbox": [x, y, right - x, bottom - y],
                    "area": (right - x) * (bottom - y),
                    "iscrowd": int(crowd),
                    "ignore": int(ignore),
                }
            )
        for box, score, column in zip(
            np.asarray(boxes, np.float64), np.asarray(scores), np.asarray(columns), strict=True
        ):
            x, y, right, bottom = map(float, box)
            results.append(
                {
                    "image_id": number,
                    "category_id": 1 + int(column),
                    "bbox": [x, y, right - x, bottom - y],
                    "score": float(score),
                }
            )
    categories = [{"id": i, "name": name} for i, name in enumerate(test.categories, start=1)]
    truth = {"images": images, "annotations": annotations, "categories": categories}
    return truth, results


def by_pycocotools(truth: dict[str, Any], results: list[dict[str, Any]]) -> dict[str, float]:
    """``mAP`` and ``recall`` at IoU 0.5, percent, means over classes with truth."""
    coco_module = require("pycocotools.coco", "train")
    evaluator = require("pycocotools.cocoeval", "train")
    with contextlib.redirect_stdout(io.StringIO()):
        coco = coco_module.COCO()
        coco.dataset = truth
        coco.createIndex()
        found = coco.loadRes(results)
        judge = evaluator.COCOeval(coco, found, "bbox")
        judge.params.iouThrs, judge.params.maxDets = np.array([0.5]), [100]
        judge.params.areaRng, judge.params.areaRngLbl = [[0, 1e10]], ["all"]
        judge.evaluate()
        judge.accumulate()
    precision = judge.eval["precision"][0, :, :, 0, 0]  # (101, C), -1 without truth
    recall = judge.eval["recall"][0, :, 0, 0]
    return {
        "mAP": 100 * float(precision[:, recall > -1].mean()),
        "recall": 100 * float(recall[recall > -1].mean()),
    }


def by_torchmetrics(truth: dict[str, Any], results: list[dict[str, Any]]) -> dict[str, float]:
    """``mAP`` at IoU 0.5, percent; torchmetrics asks pycocotools in its own way."""
    detection = require("torchmetrics.detection", "dev")
    import torch

    judge = detection.MeanAveragePrecision(box_format="xywh", iou_thresholds=[0.5])
    judge.warn_on_many_detections = False
    of_image: dict[int, tuple[list[Any], list[Any]]] = {i["id"]: ([], []) for i in truth["images"]}
    for kind, entries in enumerate((results, truth["annotations"])):
        for entry in entries:
            of_image[entry["image_id"]][kind].append(entry)
    for found, known in of_image.values():
        judge.update(
            [
                {
                    "boxes": torch.tensor([e["bbox"] for e in found]).reshape(-1, 4),
                    "scores": torch.tensor([e["score"] for e in found]),
                    "labels": torch.tensor([e["category_id"] for e in found], dtype=torch.long),
                }
            ],
            [
                {
                    "boxes": torch.tensor([e["bbox"] for e in known]).reshape(-1, 4),
                    "labels": torch.tensor([e["category_id"] for e in known], dtype=torch.long),
                    "iscrowd": torch.tensor([e["iscrowd"] for e in known], dtype=torch.long),
                }
            ],
        )
    return {"mAP": 100 * float(judge.compute()["map_50"])}
