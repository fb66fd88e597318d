"""Evaluate any detector under the protocols of zero-shot and generalised zero-shot detection.

``evaluate`` takes any function from an image to detections. Conditions (thresholds, caps, protocol)
stand beside the numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zsd_core.commands import Progress
from zsd_core.config import ModelConfig
from zsd_core.errors import DataError
from zsd_core.learning import metrics
from zsd_core.learning.data.dataset import Dataset
from zsd_core.learning.data.photographs import read_image
from zsd_core.learning.data.protocol import Task, test_set
from zsd_core.learning.data.splits import Split
from zsd_core.learning.matching import Matches, Prediction, check_limit, match
from zsd_core.options import check_option
from zsd_core.semantics import fold_name

__all__ = [
    "Predict",
    "check_split",
    "checkpoint_predictor",
    "conditions_of",
    "evaluate",
    "predictions_of",
    "render",
    "run_task",
]

# An image (H, W, 3) uint8 RGB and the mode to boxes in its pixels, scores, columns into the classes
# that stand beside the function.
Predict = Callable[[NDArray[np.uint8], Task], Prediction]


def evaluate(
    predict: Predict,
    classes: Sequence[str],
    dataset: Dataset,
    split: Split,
    *,
    tasks: Sequence[Task] = ("zsd", "gzsd"),
    limit: int = 100,
    separate: bool = False,
    samples: int = 1000,
    seed: int = 0,
    conditions: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Test a detector under the zero-shot protocols.

    Args:
        predict: the detector. Called with mode "zsd" it must return unseen classes only; with
            "gzsd" all.
        classes: the names of its columns; must hold every class of ``split``.
        dataset: human-labelled photographs.
        split: what is seen and unseen.
        tasks: of "zsd", "gzsd" and "seen".
        limit: detections kept per image.
        separate: keep ``limit`` seen and ``limit`` unseen ones (modes "seen" and "zsd" are asked
            for in turn) instead of ``limit`` in all; matters for "gzsd" only.
        samples: of the bootstrap.
        seed: of the bootstrap.
        conditions: thresholds and whatever else the numbers depend on, printed beside them.

    Returns:
        JSON values: the conditions, and per task the counts and
        :func:`zsd_core.learning.metrics.report`.

    Raises:
        ConfigError: a limit below 1, or negative samples or seed.
        DataError: as :func:`run_task`.
    """
    check_limit(limit)
    for name, value in (("samples", samples), ("seed", seed)):
        check_option(value >= 0, name, value, "must not be negative")
    return {
        "split": {"name": split.name, "seen": len(split.seen), "unseen": len(split.unseen)},
        "conditions": {
            "detections per image": f"{limit} + {limit} (seen + unseen)" if separate else limit,
            "matching": "COCO; crowd and difficult boxes ignored",
            "zsd images": split.zsd_images,
            **(conditions or {}),
        },
        "tasks": {
            task: {
                "counts": dict(test_set(dataset, split, task).counts),
                **metrics.report(
                    run_task(
                        predict, classes, dataset, split, task, limit=limit, separate=separate
                    ),
                    samples=samples,
                    seed=seed,
                ),
            }
            for task in tasks
        },
    }


def run_task(
    predict: Predict,
    classes: Sequence[str],
    dataset: Dataset,
    split: Split,
    task: Task,
    *,
    limit: int = 100,
    separate: bool = False,
) -> Matches:
    """Run the detector on one test and match what it finds; see :func:`evaluate`.

    Raises:
        DataError: ``classes`` lacks one of the split, or the detector returned a class that the
            task does not ask for.
    """
    test = test_set(dataset, split, task)
    separate = separate and task == "gzsd"
    modes: tuple[Task, ...] = ("seen", "zsd") if separate else (task,)
    predictions = predictions_of(predict, classes, test, modes, f"split {split.name}")
    return match(
        test.images, predictions, test.categories, split.seen, limit=limit, separate=separate
    )


def predictions_of(
    predict: Predict, classes: Sequence[str], test: Dataset, modes: Sequence[Task], where: str
) -> list[Prediction]:
    """Find the categories of a test in each of its photographs.

    Args:
        predict: see :func:`evaluate`.
        classes: likewise.
        test: photographs; its categories are what may be found.
        modes: what the detector is asked for, in turn.
        where: the classes come from, for messages.

    Returns:
        Boxes, scores and columns of each photograph; columns are positions in the categories.

    Raises:
        DataError: as :func:`run_task`.
    """
    missing = [name for name in test.categories if name not in classes]
    if missing:
        raise DataError(
            f"evaluate: the detector has no class {missing[0]!r} of {where} "
            f"({len(missing)} are missing); it knows {len(classes)} classes."
        )
    place = {name: column for column, name in enumerate(test.categories)}
    columns_of = np.array([place.get(name, -1) for name in classes], dtype=np.int64)
    predictions: list[Prediction] = []
    with Progress(f"evaluate {' and '.join(modes)}", len(test)) as progress:
        for record in test.images:
            image = read_image(record)
            parts = [predict(image, mode) for mode in modes]
            boxes = np.concatenate([np.asarray(part[0]).reshape(-1, 4) for part in parts])
            scores, raw = (np.concatenate([part[i] for part in parts]) for i in (1, 2))
            columns = columns_of[raw.astype(np.int64)]
            if (columns < 0).any():
                other = classes[int(raw[columns < 0][0])]
                raise DataError(
                    f"evaluate: in {modes[0]!r} the detector returned {other!r}, which {where} "
                    "does not ask for there; is the mode passed on?"
                )
            predictions.append((boxes, scores, columns))
            progress.advance()
    return predictions


def render(result: Mapping[str, Any]) -> str:
    """A result as text: conditions first, then a table per task."""
    split = result["split"]
    lines = [f"split {split['name']}: {split['seen']} seen, {split['unseen']} unseen classes"]
    lines += [f"{name}: {value}" for name, value in result["conditions"].items()]
    for task, report in result["tasks"].items():
        counts = ", ".join(f"{name} {count}" for name, count in report["counts"].items())
        lines += ["", f"== {task.upper()} ==", counts, metrics.table(report)]
    return "\n".join(lines)


def checkpoint_predictor(
    path: str | Path,
    split: Split,
    *,
    score_threshold: float = 0.0,
    nms_threshold: float | None = None,
    limit: int = 100,
) -> tuple[Predict, tuple[str, ...], dict[str, Any]]:
    """The detector in a checkpoint, run by the pipeline that the runtime runs.

    Args:
        path: of the checkpoint.
        split: none of whose unseen classes the checkpoint may have been trained on.
        score_threshold: detections must score higher.
        nms_threshold: None takes the configuration's.
        limit: most detections of an image.

    Returns:
        The function, its classes, and the conditions to print beside the numbers.

    Raises:
        ConfigError: a threshold is not valid.
        DataError: the checkpoint cannot be read, or was trained on a class that ``split`` calls
            unseen: no zero-shot test.
    """
    from zsd_core.learning.checkpoint import load_checkpoint
    from zsd_core.learning.models import TorchNetworks, kernels_for
    from zsd_core.pipeline import HostPipeline
    from zsd_core.scoring import scorer_for

    check_option(
        0 <= score_threshold < np.inf, "score_threshold", score_threshold, "must be 0 or more"
    )
    check_option(
        nms_threshold is None or 0 <= nms_threshold <= 1,
        "nms_threshold",
        nms_threshold,
        "must lie in [0, 1]",
    )
    checkpoint = load_checkpoint(path)
    check_split(path, checkpoint.seen, split)
    model, config, seen = checkpoint.model, checkpoint.config.model, len(checkpoint.seen)
    scorer = scorer_for(config.scoring, model.scorer_tensors())
    class_set = scorer.class_set(
        checkpoint.seen, checkpoint.vectors[:seen], checkpoint.unseen, checkpoint.vectors[seen:]
    )
    is_seen = np.arange(len(class_set.names)) < seen
    hidden = {"zsd": is_seen, "seen": ~is_seen, "gzsd": np.zeros_like(is_seen)}

    pipeline = HostPipeline(
        TorchNetworks(model), config, scorer, kernels=kernels_for(config.regions)
    )

    def predict(image: NDArray[np.uint8], mode: Task) -> Prediction:
        thresholds = np.where(hidden[mode], np.inf, score_threshold).astype(np.float32)
        (result,) = pipeline.run(
            class_set, [image], thresholds, nms_threshold=nms_threshold, max_detections=limit
        )
        return result.boxes, result.scores, result.columns

    conditions = conditions_of(Path(path).name, config, score_threshold, nms_threshold)
    return predict, class_set.names, conditions


def check_split(where: str | Path, seen: Sequence[str], split: Split) -> None:
    """Refuse to call a test zero-shot whose unseen classes were trained on.

    Raises:
        DataError: one of ``seen``, the classes of the training, is unseen in the split.
    """
    spellings = split.spellings()
    trained = {spellings.get(fold_name(name)) for name in seen}
    leaked = [name for name in split.unseen if name in trained]
    if leaked:
        raise DataError(
            f"{where}: {leaked[0]!r} is unseen in split {split.name} but was trained on here "
            f"({len(leaked)} such classes); evaluate with the split of the training."
        )


def conditions_of(
    detector: str, config: ModelConfig, score_threshold: float, nms_threshold: float | None
) -> dict[str, Any]:
    """Conditions of a detector's numbers beside the data; None is the configuration's."""
    return {
        "detector": detector,
        "score threshold": score_threshold,
        "NMS threshold (per class)": (
            config.detection.nms_threshold if nms_threshold is None else nms_threshold
        ),
        "proposals per image": config.proposals.post_nms_top,
        "image size": f"shorter edge {config.preprocess.shorter_edge}, longer at most "
        f"{config.preprocess.longer_edge}; one scale, no flip",
        "seen scale": config.scoring.seen_scale,
        "similarity temperature": config.scoring.similarity_temperature,
    }
