r"""How often names are found where they are not, and the default threshold of added classes by it.

    python -m export.false_finds bundle/ --annotations instances.json --images photographs/ \
        --names forklift "dented red pallet" crane
    python -m export.false_finds bundle/ --annotations instances.json --images photographs/ \
        --names names.txt --share 0.02 --write

Looks for every name in every photograph, by the name alone, and counts the photographs that show it
falsely: those without a box of that name. What the annotations do not name counts as absent, so
names of things that they do not cover are found falsely too often. ``--write`` stores the lowest
threshold at which at most ``--share`` of the photographs, on average over the names, show a name
falsely. Calibrate first: thresholds are probabilities.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from export.evaluate import names_of
from export.writing.bundle_writer import amend_bundle
from export.writing.card import renewed_card
from export.writing.replacing import check_replaceable
from runtime import Detector
from runtime.bundle import Bundle, open_bundle
from zsd_core.commands import Progress, command, new_parser
from zsd_core.errors import ClassError, ConfigError, DataError
from zsd_core.learning.calibration import THRESHOLDS
from zsd_core.learning.data.dataset import Dataset
from zsd_core.learning.data.photographs import read_image
from zsd_core.learning.data.read import read_dataset
from zsd_core.learning.data.subsets import SUBSETS
from zsd_core.options import check_option
from zsd_core.semantics import fold_name

__all__ = ["best_scores", "lowest_threshold", "main", "parse", "shares"]

Floats = NDArray[np.float64]
SHOWN = (0.02, 0.03, 0.04, 0.05, 0.07, 0.1, 0.15, 0.2, 0.3)


def best_scores(detector: Detector, dataset: Dataset, names: Sequence[str]) -> Floats:
    """Best score ``(N, K)`` of each name in each photograph.

    It is NaN where the photograph has a box of the name, and 0 where the name is not found.

    Args:
        detector: whose classes and thresholds become others.
        dataset: photographs and their boxes.
        names: K, none of which is a seen class.

    Raises:
        ClassError: a name is a seen class, or cannot be looked for.
        DataError: there is no photograph.
    """
    if not len(dataset):
        raise DataError("false_finds: there is no photograph; are the images those of --subset?")
    detector.set_classes(list(names))
    if "seen" in detector.roles:
        seen = detector.classes[detector.roles.index("seen")]
        raise ClassError(f"{seen!r} is a class that boxes taught; leave it out of --names.")
    detector.set_thresholds(score_threshold=0.0, max_detections=max(100, 4 * len(names)))
    column = {name: place for place, name in enumerate(detector.classes)}
    found = np.zeros((len(dataset), len(names)))
    with Progress("look for names", len(dataset)) as progress:
        for row, record in zip(found, dataset.images, strict=True):
            for one in detector(read_image(record)):
                place = column[one.class_name]
                row[place] = max(row[place], one.score)
            there = {fold_name(label) for label in record.labels}
            row[[fold_name(name) in there for name in column]] = np.nan
            progress.advance()
    return found


def shares(found: Floats, threshold: float) -> Floats:
    """Share ``(K,)`` of the photographs without a name that show it above a threshold."""
    absent = ~np.isnan(found)
    falsely = (np.nan_to_num(found) > threshold) & absent
    return np.asarray(falsely.sum(axis=0) / np.maximum(absent.sum(axis=0), 1))


def lowest_threshold(found: Floats, share: float) -> float:
    """The lowest multiple of 0.01 at which at most a share of photographs shows a name falsely.

    Raises:
        DataError: there is none below 1.
    """
    for threshold in THRESHOLDS:
        if shares(found, threshold).mean() <= share:
            return float(threshold)
    raise DataError(f"false_finds: no threshold below 1 gives a share of {share:g}.")


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = new_parser("export.false_finds", __doc__)
    add = parser.add_argument
    add("bundle", type=Path, help="directory or zip")
    add("--annotations", nargs="+", required=True, help="COCO JSON files, or VOC image sets")
    add("--images", nargs="+", required=True, help="image folder of each, or one for all")
    add("--format", choices=("coco", "voc"), default="coco")
    add("--subset", choices=SUBSETS, default="", help="only these photographs, by a hash (all)")
    add("--names", nargs="+", required=True, metavar="NAME", help="to look for, or .txt")
    add("--share", type=float, default=0.02, help="of the photographs, for each name (0.02)")
    add("--write", action="store_true", help="store the threshold in the bundle, as the default")
    add("--output", type=Path, help="write a copy here instead, and leave the bundle as it is")
    add("--backend", default="auto", help="of the runtime (auto)")
    add("--threads", type=int, help="of the backend (all that the process may use)")
    return parser.parse_args(argv)


@command
def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; 0 on success, 1 with a sentence on stderr."""
    args = parse(argv)
    check_option(0 < args.share < 1, "--share", args.share, "must lie between 0 and 1")
    if args.write and args.output is None:
        check_replaceable(args.bundle)
    dataset = read_dataset(args.format, args.annotations, args.images, args.subset)
    names = names_of(args.names)
    bundle = open_bundle(args.bundle)
    if not bundle.manifest.get("scores"):
        raise ConfigError(
            f"{args.bundle}: its scores are no probabilities yet; run export.calibrate first."
        )
    with Detector(bundle, backend=args.backend, threads=args.threads) as detector:
        found = best_scores(detector, dataset, names)
    threshold = lowest_threshold(found, args.share)
    print(_summary(found, names, threshold))
    if args.write or args.output:
        facts = {
            "threshold": threshold,
            "share of photographs, percent": round(100 * float(shares(found, threshold).mean()), 2),
            "names": len(names),
            "photographs": len(dataset),
        }
        print(_write(bundle, threshold, facts, args.output))
    return 0


def _summary(found: Floats, names: Sequence[str], threshold: float) -> str:
    lines = [f"{len(names)} names in {len(found)} photographs; of 100 photographs, found falsely:"]
    for value in sorted({*SHOWN, threshold}):
        each = 100 * shares(found, value)
        mark = "  <- the threshold" if value == threshold else ""
        worst = names[int(each.argmax())]
        most = f"; most often {worst!r} ({each.max():.1f})" if each.max() else ""
        lines.append(f"above {value:.2f}: {each.mean():6.2f} of each name{most}{mark}")
    return "\n".join(lines)


def _write(bundle: Bundle, threshold: float, facts: dict[str, Any], output: Path | None) -> Path:
    model = bundle.model_config
    detection = dataclasses.replace(model.detection, unseen_threshold=threshold)
    changes = {
        "model": dataclasses.asdict(dataclasses.replace(model, detection=detection)),
        "scores": {**bundle.manifest["scores"], "false finds": facts},
    }
    card = renewed_card(bundle, **changes)
    return amend_bundle(bundle.path, {"MODEL_CARD.md": card}, output=output, **changes)


if __name__ == "__main__":
    sys.exit(main())
