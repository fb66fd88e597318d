r"""Evaluate a bundle through the runtime: zero-shot (ZSD) and generalised (GZSD) detection.

    python -m export.evaluate bundle/ --annotations instances_val2014.json --images val2014 \
        --split coco_48_17 --write-metrics "COCO val2014"

What is measured is what a device runs: ``runtime.Detector`` on a backend, by the metrics and
protocols of ``zsd_core.evaluate``. ``--write-metrics NAME`` records the result in the bundle's
manifest and model card, with protocol, thresholds and intervals.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from export.card import model_card
from runtime import Detector, default_bundle
from runtime.bundle import Bundle, amend_bundle, open_bundle
from zsd_core.data.dataset import Dataset
from zsd_core.data.protocol import Task
from zsd_core.data.read import read_dataset
from zsd_core.data.splits import Split, load_split
from zsd_core.errors import ZsdError
from zsd_core.evaluate import (
    Predict,
    add_arguments,
    check_split,
    conditions_of,
    evaluate,
    render,
    run_task,
)
from zsd_core.files import prepare_files
from zsd_core.matching import Matches, Prediction

__all__ = ["Labels", "bundle_predictor", "main", "parse", "write_metrics"]

TASKS: tuple[Task, ...] = ("zsd", "gzsd")


@dataclass(frozen=True, slots=True, kw_only=True)
class Labels:
    """Human labels to compare detectors on.

    Attributes:
        dataset: photographs and their boxes.
        split: what is seen and unseen.
        samples: of the paired bootstrap.
    """

    dataset: Dataset
    split: Split
    samples: int = 1000

    @classmethod
    def read(
        cls, bundle: Bundle, annotations: Sequence[str], images: Sequence[str], split: str,
        data_format: Literal["coco", "voc"] = "coco", samples: int = 1000,
    ) -> Labels:  # fmt: skip
        """Read COCO JSON files, or VOC image sets, for a bundle.

        Raises:
            DataError: they cannot be read, or the bundle was trained on what is unseen there.
        """
        classes = load_split(split)
        check_split(bundle.path, bundle.seen, classes)
        dataset = read_dataset(data_format, annotations, images)
        return cls(dataset=dataset, split=classes, samples=samples)

    def matches(self, predict: Predict, names: Sequence[str]) -> dict[Task, Matches]:
        """Run a detector on both tasks."""
        return {task: run_task(predict, names, self.dataset, self.split, task) for task in TASKS}


def bundle_predictor(
    bundle: Bundle,
    split: Split,
    *,
    backend: str = "auto",
    score_threshold: float = 0.0,
    nms_threshold: float | None = None,
    limit: int = 100,
    threads: int | None = None,
    precision: str = "float32",
) -> tuple[Predict, tuple[str, ...], dict[str, Any]]:
    """The detector in a bundle as ``zsd_core.evaluate`` wants it.

    Args:
        bundle: whose detector.
        split: what must be seen and unseen in the bundle too.
        backend: of the runtime.
        score_threshold: detections must score higher.
        nms_threshold: None takes the bundle's.
        limit: most detections of an image.
        threads: of the backend.
        precision: of the networks.

    Returns:
        The function, its classes, and the conditions to print beside the numbers.

    Raises:
        DataError: the bundle was trained on a class that the split calls unseen: no zero-shot test.
    """
    check_split(bundle.path, bundle.seen, split)
    detector = Detector(
        bundle, backend=backend, score_threshold=score_threshold, nms_threshold=nms_threshold,
        max_detections=limit, threads=threads, precision=precision,
    )  # fmt: skip
    names = detector.classes

    def predict(image: NDArray[np.uint8], mode: Task) -> Prediction:
        if detector.mode != mode:
            detector.set_classes(None, mode=mode)
        found = detector(image)
        columns = [names.index(name) for name in found.class_names]
        return found.boxes, found.scores, np.asarray(columns, np.int64)

    conditions = conditions_of(
        detector.description, bundle.model_config, score_threshold, nms_threshold
    )
    return predict, names, conditions


def write_metrics(path: Path, name: str, result: dict[str, Any]) -> None:
    """Record a result in a bundle: in its manifest under ``name``, and in its model card.

    Raises:
        BundleError: the bundle cannot be opened or rewritten; it is unchanged then.
    """
    bundle = open_bundle(path)
    metrics = {**bundle.manifest.get("metrics", {}), name: result}
    manifest = {**bundle.manifest, "metrics": metrics}
    parity = None
    if "parity.json" in manifest["files"]:
        parity = json.loads(bundle.file("parity.json").read_text(encoding="utf-8"))
    card = model_card(manifest, parity).encode()
    amend_bundle(path, {"MODEL_CARD.md": card}, metrics=metrics)


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m export.evaluate", description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("bundle", type=Path, nargs="?", default=None,
                        help="directory or zip (default: the one that ships)")  # fmt: skip
    add_arguments(parser)
    parser.add_argument("--backend", default="auto", help="of the runtime (auto)")
    parser.add_argument("--precision", default="float32", help="of the networks (float32)")
    parser.add_argument("--threads", type=int, help="of the backend (all cores)")
    parser.add_argument("--write-metrics", metavar="NAME",
                        help="record the result in the bundle under this name")  # fmt: skip
    args = parser.parse_args(argv)
    if args.write_metrics is not None and args.bundle is None:
        parser.error("--write-metrics needs the bundle named: the one that ships is not changed")
    return args


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; 0 on success, 1 with a sentence on stderr."""
    args = parse(argv)
    try:
        prepare_files(args.json)
        path = args.bundle or default_bundle()
        split = load_split(args.split)
        predict, classes, conditions = bundle_predictor(
            open_bundle(path), split, backend=args.backend, score_threshold=args.score_threshold,
            nms_threshold=args.nms_threshold, limit=args.limit, threads=args.threads,
            precision=args.precision,
        )  # fmt: skip
        result = evaluate(
            predict, classes, read_dataset(args.format, args.annotations, args.images), split,
            tasks=args.tasks, limit=args.limit, separate=args.separate, samples=args.samples,
            seed=args.seed, conditions=conditions,
        )  # fmt: skip
        if args.json:
            text = json.dumps(result, indent=1, ensure_ascii=False) + "\n"
            args.json.write_text(text, encoding="utf-8")
        if args.write_metrics:
            write_metrics(path, args.write_metrics, result)
    except (ZsdError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(render(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())
