r"""Make a bundle's scores probabilities, on labelled photographs that trained nothing.

    python -m export.calibrate bundle/ --annotations instances.json --images photographs/ \
        --subset validation
    python -m export.calibrate bundle/ --annotations instances.json --images photographs/ \
        --split coco_48_17 --output calibrated/

Finds the categories of the annotations in the photographs, sees which detections are right (IoU
0.5, as in COCO), and fits three numbers for each role: the most likely beta calibration. It is
monotone, so no detection of a class changes places with another. The score threshold with the best
F1 becomes the bundle's default. Both are written into the bundle: its manifest, its model card and
``detector.onnx``, which is compared with ``Detector`` before anything is changed.

With ``--split`` only photographs without an unseen object take part, and only seen classes are
looked for: no box of an unseen class is read. A role that the photographs show nothing of takes the
other's numbers; ``--roles`` fits the roles it names and leaves the other one as it is.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from export.checks.differences import Limits
from export.checks.evaluation import by_name_alone, everything_in, renamed, seen_of
from export.checks.images import NamedImage
from export.checks.labels import bundle_predictor
from export.checks.parity import compare_with_detector, compared_classes
from export.evaluate import names_of
from export.graphs.errors import ExportError
from export.graphs.recalibrate import recalibrated
from export.writing.bundle_writer import amend_bundle
from export.writing.card import renewed_card
from export.writing.replacing import check_replaceable
from runtime import Detector
from runtime.bundle import Bundle, open_bundle
from zsd_core.calibration import CalibrationConfig
from zsd_core.commands import command, new_parser
from zsd_core.files import prepare_files
from zsd_core.learning.calibration import Fit, fit
from zsd_core.learning.data.dataset import Dataset
from zsd_core.learning.data.photographs import read_image
from zsd_core.learning.data.protocol import test_set
from zsd_core.learning.data.read import read_dataset
from zsd_core.learning.data.splits import Split, load_split
from zsd_core.learning.data.subsets import SUBSETS
from zsd_core.learning.evaluation import predictions_of
from zsd_core.learning.matching import match
from zsd_core.options import check_option

__all__ = ["calibrate", "fit_bundle", "main", "parse"]

COMPARED = 3  # photographs on which detector.onnx must find what Detector finds
DETECTOR = "detector.onnx"


def fit_bundle(
    bundle: Bundle,
    dataset: Dataset,
    split: Split | None = None,
    *,
    also: Sequence[str] = (),
    roles: Sequence[str] = (),
    as_unseen: bool = False,
    limit: int = 100,
    **options: Any,
) -> Fit:
    """Fit the calibration of a bundle on photographs, without changing it.

    Args:
        bundle: whose scores.
        dataset: human-labelled photographs that trained nothing.
        split: restricts the photographs to those without an unseen object, and the names to the
            seen ones.
        also: names to look for besides the categories; what is found of them is wrong.
        roles: fit these only.
        as_unseen: look for the categories as if no box had taught them, by their names alone.
        limit: detections of a photograph that count.
        **options: of ``export.checks.labels.bundle_predictor``.

    Raises:
        DataError: as ``everything_in``, ``test_set`` and ``zsd_core.learning.calibration.fit``.
    """
    if split is None:
        test = everything_in(dataset, also)
        seen: Sequence[str] = seen_of(bundle, test.categories)
    else:
        test, seen = test_set(dataset, split, "seen"), split.seen
    classes: Sequence[str] | Mapping[str, Any] = test.categories
    if as_unseen:
        classes = by_name_alone(bundle, test.categories)
        test, seen = renamed(test, dict(zip(test.categories, classes, strict=True))), ()
    before = bundle.model_config.calibration
    raw = open_bundle(bundle.path)  # a second one, whose scores are left as they are
    raw.model_config = _with_calibration(bundle, CalibrationConfig())
    predict, names, _ = bundle_predictor(raw, split, limit=limit, classes=classes, **options)
    predictions = predictions_of(predict, names, test, ["gzsd"], "the annotations")
    matches = match(test.images, predictions, test.categories, seen, thresholds=(0.5,), limit=limit)
    return fit(matches, before, tuple(roles))


def calibrate(
    path: Path,
    found: Fit,
    images: Sequence[NamedImage],
    *,
    output: Path | None = None,
    unseen_only: bool = False,
    details: Mapping[str, Any] | None = None,
) -> Path:
    """Write a calibration and the default threshold into a bundle, in one step.

    Args:
        path: of the bundle, a directory or zip.
        found: of ``fit_bundle``.
        images: on which ``detector.onnx`` must agree with ``Detector``.
        output: write a copy here, and leave the bundle as it is.
        unseen_only: the threshold is for unseen classes; the one for seen classes stays.
        details: JSON values about the data, beside the fit's own in the manifest's ``scores``.

    Returns:
        Where the calibrated bundle lies.

    Raises:
        BundleError: the bundle cannot be opened or rewritten; it is unchanged then.
        ExportError: ``detector.onnx`` would not agree; the bundle is unchanged then.
    """
    bundle = open_bundle(path)
    model = _with_calibration(bundle, found.calibration)
    role = "unseen_threshold" if unseen_only else "score_threshold"
    detection = dataclasses.replace(model.detection, **{role: found.threshold})
    model = dataclasses.replace(model, detection=detection)
    changes = {
        "model": dataclasses.asdict(model),
        "scores": {**dict(found.report), **(details or {})},
    }
    files: dict[str, Path | bytes] = {}
    if DETECTOR in bundle.manifest["files"]:
        files[DETECTOR] = recalibrated(bundle.file(DETECTOR), found.calibration)
    files["MODEL_CARD.md"] = renewed_card(bundle, **changes)
    if DETECTOR in files:
        with tempfile.TemporaryDirectory(prefix="contrastzsd-") as folder:
            draft = Path(folder) / "draft"
            _check(amend_bundle(path, files, output=draft, **changes), images)
    return amend_bundle(path, files, output=output, **changes)


def _check(draft: Path, images: Sequence[NamedImage]) -> None:
    names = compared_classes(open_bundle(draft))[1].names
    with Detector(draft, backend="onnxruntime", classes=names, score_threshold=0.0) as detector:
        report = compare_with_detector(detector, images, Limits())
    if not report.passed:
        raise ExportError(
            "calibrate: detector.onnx with the calibration does not find what Detector finds, so "
            "nothing was written. Does 'python -m export.verify' pass on this bundle as it is?"
        )


def _with_calibration(bundle: Bundle, calibration: CalibrationConfig) -> Any:
    return dataclasses.replace(bundle.model_config, calibration=calibration)


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = new_parser("export.calibrate", __doc__)
    add = parser.add_argument
    add("bundle", type=Path, help="directory or zip; it is changed unless --output is given")
    add("--annotations", nargs="+", required=True, help="COCO JSON files, or VOC image sets")
    add("--images", nargs="+", required=True, help="image folder of each, or one for all")
    add("--format", choices=("coco", "voc"), default="coco")
    add("--subset", choices=SUBSETS, default="", help="only these photographs, by a hash (all)")
    add("--split", help="keep its protocol: coco_48_17, ..., or a JSON/YAML file")
    add("--also", nargs="+", default=[], metavar="NAME", help="names to look for besides, or .txt")
    add("--roles", nargs="+", choices=("seen", "unseen"), default=[], help="fit these only")
    add(
        "--as-unseen",
        action="store_true",
        help="look for the categories by their names alone, to fit what no box taught",
    )
    add(
        "--score-threshold",
        type=float,
        help="the default to store (where F1 is best); with --roles unseen for unseen classes",
    )
    add("--output", type=Path, help="write a calibrated copy here, and leave the bundle as it is")
    add("--json", type=Path, help="also write the fit to this file")
    add("--limit", type=int, default=100, help="detections of a photograph that count (100)")
    add("--backend", default="auto", help="of the runtime (auto)")
    add("--precision", default="float32", help="of the networks (float32)")
    add("--threads", type=int, help="of the backend (all that the process may use)")
    return parser.parse_args(argv)


@command
def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; 0 on success, 1 with a sentence on stderr."""
    args = parse(argv)
    prepare_files(args.json)
    given = args.score_threshold
    check_option(given is None or 0 <= given < 1, "--score-threshold", given, "must lie in [0, 1)")
    check_option(args.limit >= 1, "--limit", args.limit, "must be at least 1")
    if args.output is None:
        check_replaceable(args.bundle)
    dataset = read_dataset(args.format, args.annotations, args.images, args.subset)
    found = fit_bundle(
        open_bundle(args.bundle),
        dataset,
        load_split(args.split) if args.split else None,
        also=names_of(args.also),
        roles=args.roles,
        as_unseen=args.as_unseen,
        limit=args.limit,
        backend=args.backend,
        precision=args.precision,
        threads=args.threads,
    )
    if given is not None:
        found = dataclasses.replace(found, threshold=given)
    compared = [NamedImage(i.path.name, read_image(i)) for i in dataset.images[:COMPARED]]
    details = {"data": [Path(name).name for name in args.annotations], "subset": args.subset}
    target = calibrate(
        args.bundle,
        found,
        compared,
        output=args.output,
        unseen_only=args.roles == ["unseen"],
        details=details,
    )
    if args.json:
        text = json.dumps({**found.report, **details}, indent=1) + "\n"
        args.json.write_text(text, encoding="utf-8")
    print(_summary(found))
    print(target)
    return 0


def _summary(found: Fit) -> str:
    report = found.report
    lines = [f"{report['photographs']} photographs, {report['boxes']} boxes"]
    for role, entry in report["roles"].items():
        a, b, c = entry["curve"]
        lines.append(
            f"{role}: 1 / (1 + exp(-({a:g} ln s - {b:g} ln(1 - s) + {c:g}))), "
            + (
                f"from {entry['right']} right of {entry['detections']} detections"
                if entry["fitted"]
                else "not fitted here"
            )
        )
    errors = report["expected calibration error, percent"]
    known = [
        f"{errors[name]:.1f} {name}"
        for name in ("before", "after", "held out")
        if errors.get(name) is not None
    ]
    lines.append(f"expected calibration error: {', '.join(known)} (percent)")
    lines.append(
        f"default score threshold {found.threshold:g}; F1 {report['F1, percent']:.1f} at "
        f"{report['score threshold']:g}"
    )
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
