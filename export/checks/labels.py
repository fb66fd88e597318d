"""Human labels to measure a bundle on, and its detector as ``learning.evaluation`` wants it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from runtime import Detector
from runtime.bundle import Bundle
from zsd_core.errors import DataError
from zsd_core.learning.data.dataset import Dataset
from zsd_core.learning.data.protocol import Task
from zsd_core.learning.data.read import read_dataset
from zsd_core.learning.data.splits import Split, load_split
from zsd_core.learning.evaluation import Predict, check_split, conditions_of, run_task
from zsd_core.learning.matching import Matches, Prediction
from zsd_core.semantics import fold_name

__all__ = ["TASKS", "Labels", "asked_of", "bundle_predictor"]

TASKS: tuple[Task, ...] = ("zsd", "gzsd")


@dataclass(frozen=True, slots=True, kw_only=True)
class Labels:
    """Human labels to compare detectors on.

    Attributes:
        dataset: photographs and their boxes.
        split: what is seen and unseen; None: every category of the annotations is one test.
        samples: of the paired bootstrap.
        measured: what was found before, by bundle, precision and backend.
    """

    dataset: Dataset
    split: Split | None
    samples: int = 1000
    measured: dict[tuple[Any, ...], Mapping[str, Matches]] = field(default_factory=dict)

    @classmethod
    def read(
        cls,
        bundle: Bundle,
        annotations: Sequence[str],
        images: Sequence[str],
        split: str | None,
        data_format: Literal["coco", "voc"] = "coco",
        samples: int = 1000,
        subset: str = "",
    ) -> Labels:
        """Read COCO JSON files, or VOC image sets, for a bundle.

        ``subset`` takes only the photographs that a hash of their ids draws.

        Raises:
            DataError: they cannot be read, or the bundle was trained on what is unseen there.
        """
        classes = load_split(split) if split else None
        if classes is not None:
            check_split(bundle.path, bundle.seen, classes)
        dataset = read_dataset(data_format, annotations, images, subset)
        return cls(dataset=dataset, split=classes, samples=samples)

    def matches(self, predict: Predict, names: Sequence[str]) -> dict[Task, Matches]:
        """Run a detector on both tasks of the split."""
        assert self.split is not None, "a test without a split is evaluation.whole_tests"
        return {task: run_task(predict, names, self.dataset, self.split, task) for task in TASKS}


def asked_of(bundle: Bundle, split: Split) -> tuple[str, ...] | None:
    """Names to ask a bundle for in the tests of a split; None if its class table holds them all.

    The table of a bundle lists the classes of its own split. An unseen class of another split is
    only a name to it, for the vocabulary or the text encoder.

    Raises:
        DataError: a class that the split calls seen did not train the bundle.
    """
    if set(split.classes) <= set(bundle.seen + bundle.unseen):
        return None
    trained = {fold_name(name) for name in bundle.seen}
    untrained = [name for name in split.seen if fold_name(name) not in trained]
    if untrained:
        raise DataError(
            f"{bundle.path}: {untrained[0]!r} is seen in split {split.name} but was not trained on "
            f"here ({len(untrained)} such classes); give a split whose seen classes all trained "
            "this bundle."
        )
    return split.classes


def bundle_predictor(
    bundle: Bundle,
    split: Split | None,
    *,
    classes: Sequence[str] | Mapping[str, Any] | None = None,
    backend: str = "auto",
    score_threshold: float = 0.0,
    nms_threshold: float | None = None,
    limit: int = 100,
    threads: int | None = None,
    precision: str = "float32",
) -> tuple[Predict, tuple[str, ...], dict[str, Any]]:
    """The detector in a bundle as ``learning.evaluation`` wants it.

    Args:
        bundle: whose detector.
        split: what must be seen and unseen in the bundle too; None for a test that is not
            zero-shot.
        classes: names to look for, or {name: vector}; None takes the bundle's class table, or
            the classes of a split that the table lacks.
        backend: of the runtime.
        score_threshold: detections must score higher.
        nms_threshold: None takes the bundle's.
        limit: most detections of an image.
        threads: of the backend.
        precision: of the networks.

    Returns:
        The function, its classes, and the conditions to print beside the numbers.

    Raises:
        ClassError: a name is neither in the table nor in the vocabulary, and there is no text
            encoder, or it looks misspelt.
        DataError: the bundle was trained on a class that the split calls unseen (no zero-shot
            test), or was not on one that it calls seen.
    """
    if split is not None:
        check_split(bundle.path, bundle.seen, split)
        classes = asked_of(bundle, split) if classes is None else classes
    detector = Detector(
        bundle,
        backend=backend,
        classes=classes,
        score_threshold=score_threshold,
        nms_threshold=nms_threshold,
        max_detections=limit,
        threads=threads,
        precision=precision,
    )
    names = detector.classes if classes is None else tuple(classes)

    def predict(image: NDArray[np.uint8], mode: Task) -> Prediction:
        if detector.mode != mode:
            detector.set_classes(classes, mode=mode)
        found = detector(image)
        return found.boxes, found.scores, np.asarray(found.class_ids, np.int64)

    conditions = conditions_of(
        detector.description, bundle.model_config, score_threshold, nms_threshold
    )
    return predict, names, conditions
