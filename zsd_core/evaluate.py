r"""Evaluate a checkpoint: zero-shot (ZSD) and generalised zero-shot (GZSD) detection.

    python -m zsd_core.evaluate --checkpoint runs/first/last.pt \
        --annotations instances_val2014.json --images val2014 --split coco_48_17 --json result.json

Prints Recall@100 and mAP@0.5 with bootstrap intervals, and under which conditions: thresholds, caps
and protocol stand beside the numbers. ``--limits`` says what keeps them down: how far the detector
would come with human boxes in the place of its regions, or with the right class of each region.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from zsd_core.commands import command, new_parser
from zsd_core.errors import ConfigError
from zsd_core.files import prepare_files

__all__ = ["add_arguments", "main"]

NOT_OF_LIMITS = ("tasks", "score_threshold", "nms_threshold", "separate", "samples", "seed")


def add_arguments(
    parser: argparse.ArgumentParser,
    *,
    split_required: bool = True,
    tasks: Sequence[str] = ("zsd", "gzsd", "seen"),
) -> None:
    """Add the options that every evaluation has, whatever it evaluates."""
    from zsd_core.learning.data.subsets import SUBSETS

    add = parser.add_argument
    add("--annotations", nargs="+", required=True, help="COCO JSON files, or VOC image sets")
    add("--images", nargs="+", required=True, help="image folder of each, or one for all")
    add("--format", choices=("coco", "voc"), default="coco")
    add(
        "--subset",
        choices=SUBSETS,
        default="",
        help="only these photographs, drawn by a hash of their ids (all)",
    )
    add(
        "--split",
        required=split_required,
        help="coco_48_17, coco_65_15, voc_16_4, or a JSON/YAML file",
    )
    add("--tasks", nargs="+", choices=tasks, default=["zsd", "gzsd"])
    add("--score-threshold", type=float, default=0.0, help="detections must score higher (0)")
    add("--nms-threshold", type=float, help="per class; default: the model's")
    add("--limit", type=int, default=100, help="detections kept per image (100)")
    add("--separate", action="store_true", help="keep LIMIT seen and LIMIT unseen ones in GZSD")
    add("--samples", type=int, default=1000, help="bootstrap samples over images (1000; 0: none)")
    add("--seed", type=int, default=0, help="of the bootstrap")
    add("--json", type=Path, help="also write everything to this file")


@command
def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; see the module's first lines."""
    parser = new_parser("zsd_core.evaluate", __doc__)
    parser.add_argument("--checkpoint", type=Path, required=True)
    add_arguments(parser)
    parser.add_argument(
        "--limits",
        action="store_true",
        help="measure what regions alone and recognition alone allow in ZSD, and nothing else",
    )
    args = parser.parse_args(argv)
    unused = [n for n in NOT_OF_LIMITS if args.limits and getattr(args, n) != parser.get_default(n)]
    if unused:
        names = ", ".join(f"--{name.replace('_', '-')}" for name in unused)
        raise ConfigError(f"--limits does not use {names}; leave that out.")
    from zsd_core.learning.data.read import read_dataset
    from zsd_core.learning.data.splits import load_split
    from zsd_core.learning.evaluation import checkpoint_predictor, evaluate, render
    from zsd_core.learning.limits import measure_limits, render_limits

    prepare_files(args.json)
    split = load_split(args.split)
    if args.limits:
        dataset = read_dataset(args.format, args.annotations, args.images, args.subset)
        found = measure_limits(args.checkpoint, dataset, split, limit=args.limit)
        if args.json:
            args.json.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
        print(render_limits(found))
        return 0
    predict, classes, conditions = checkpoint_predictor(
        args.checkpoint,
        split,
        score_threshold=args.score_threshold,
        nms_threshold=args.nms_threshold,
        limit=args.limit,
    )
    result = evaluate(
        predict,
        classes,
        read_dataset(args.format, args.annotations, args.images, args.subset),
        split,
        tasks=args.tasks,
        limit=args.limit,
        separate=args.separate,
        samples=args.samples,
        seed=args.seed,
        conditions=conditions,
    )
    if args.json:
        args.json.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    print(render(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())
