"""The detector that ``open`` is made of, as its authors wrote it: its time and its accuracy.

DEIMv2-Femto is a closed-set detector, a file of the user's own; nothing is downloaded. It runs in
plain ONNX Runtime as its authors' sample does: the photograph is stretched to the input and divided
by 255; the boxes come back in pixels of the photograph. Its accuracy and that of the bundle that
ships are measured on the same photographs, with the same matching.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.peers_models import SHIPPED, Entry, Pixels
from export.checks.evaluation import everything_in
from export.checks.labels import bundle_predictor
from runtime.bundle import Bundle, default_bundle, open_bundle
from zsd_core.errors import BundleError, DataError, require
from zsd_core.learning import metrics
from zsd_core.learning.data.dataset import Dataset
from zsd_core.learning.evaluation import Predict, predictions_of
from zsd_core.learning.matching import match
from zsd_core.semantics import fold_name

__all__ = ["FEMTO", "Femto", "accuracies", "femto_group"]

FEMTO = "DEIMv2-Femto, closed set"
LIMIT = 100  # detections of an image


class Femto:
    """The detector in one session of ONNX Runtime.

    Args:
        path: of its ONNX file: ``images`` and ``orig_target_sizes`` to ``labels``, ``boxes`` and
            ``scores``.
        threads: of the session.

    Raises:
        BundleError: the file is no such detector.
    """

    def __init__(self, path: Path, threads: int) -> None:
        ort, self._cv2 = require("onnxruntime", "cpu"), require("cv2", "cpu")
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 3
        try:
            self._session = ort.InferenceSession(
                str(path), options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # onnxruntime's own exceptions share no base class
            raise BundleError(f"{path}: onnxruntime cannot load it: {error}") from error
        inputs = {value.name: value.shape for value in self._session.get_inputs()}
        if set(inputs) != {"images", "orig_target_sizes"}:
            raise BundleError(f"{path}: inputs are {', '.join(inputs)}; it is no DEIMv2 detector.")
        self._side = int(inputs["images"][-1])

    def __call__(self, image: Pixels) -> tuple[NDArray[np.int64], Any, Any]:
        """Labels, boxes in pixels and scores of one RGB image, its best 300 pairs."""
        height, width = image.shape[:2]
        small = self._cv2.resize(image, (self._side, self._side))
        tensor = np.ascontiguousarray(small.transpose(2, 0, 1)[None], np.float32) / np.float32(255)
        size = np.array([[width, height]], np.int64)
        outputs = ("labels", "boxes", "scores")
        found = self._session.run(outputs, {"images": tensor, "orig_target_sizes": size})
        labels, boxes, scores = (values[0] for values in found)
        return labels, boxes, scores


def femto_group(path: Path) -> Callable[[Sequence[Pixels], int, Path], Iterator[Entry]]:
    """A group of ``benchmarks.peers`` of this detector."""

    def group(images: Sequence[Pixels], threads: int, work: Path) -> Iterator[Entry]:
        detector, turn = Femto(path, threads), iter(range(2**62))
        yield Entry(
            model=FEMTO,
            backend="onnxruntime",
            precision="float32",
            task="detect",
            call=lambda: detector(images[next(turn) % len(images)]),
        )

    return group


def accuracies(
    path: Path, dataset: Dataset, threads: int, bundle: Bundle | None = None
) -> dict[str, float]:
    """mAP@0.5 in percent of the detector and of a bundle made of it, on the same photographs.

    Args:
        path: of the detector; its labels are positions among the bundle's seen classes.
        dataset: photographs; every category is a class of both.
        threads: of both.
        bundle: None: the one that ships.

    Raises:
        DataError: a category is none of the classes of the bundle, which has the detector's.
    """
    bundle, test = bundle or open_bundle(default_bundle()), everything_in(dataset)
    known = {fold_name(name) for name in bundle.seen}
    if unknown := [name for name in test.categories if fold_name(name) not in known]:
        raise DataError(f"{unknown[0]!r} is no class of {bundle.name}; take COCO's annotations.")
    femto = Femto(path, threads)

    def closed(image: Pixels, mode: str) -> Any:
        labels, boxes, scores = femto(image)
        best = np.argsort(-scores, kind="stable")[:LIMIT]
        return boxes[best], scores[best], np.asarray(labels[best], np.int64)

    ours, names, _ = bundle_predictor(
        bundle, None, classes=test.categories, limit=LIMIT, threads=threads
    )
    return {
        SHIPPED: _accuracy(ours, names, test),
        FEMTO: _accuracy(closed, bundle.seen, test),
    }


def _accuracy(predict: Predict, names: Sequence[str], test: Dataset) -> float:
    predictions = predictions_of(predict, names, test, ["gzsd"], "mAP@0.5")
    found = match(test.images, predictions, test.categories, test.categories, limit=LIMIT)
    values = metrics.report(found, samples=0)["values"]
    return float(values["mAP@0.5 area"]["seen"])
