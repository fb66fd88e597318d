r"""Evaluate a bundle through the runtime: everyday names, zero-shot (ZSD) and generalised (GZSD).

    python -m export.evaluate bundle/ --annotations instances.json --images photographs/ \
        --subset test --json result.json --markdown results.md
    python -m export.evaluate bundle/ --annotations instances_val2014.json --images val2014 \
        --split coco_48_17 --write-metrics "COCO val2014"

What is measured is what a device runs: ``runtime.Detector`` on a backend. Task "all" asks for every
category of the annotations in every photograph, whatever the bundle knows of them; "zsd" and "gzsd"
are the protocols of ``zsd_core.evaluate`` and need ``--split``. ``zsd_core.learning.metrics`` and
``zsd_core.learning.scorecard`` define the numbers. ``--write-metrics NAME`` records the result in
the bundle's manifest and model card, with protocol, thresholds and intervals.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from export.checks.evaluation import evaluate_bundle
from export.checks.labels import TASKS
from export.writing.bundle_writer import amend_bundle
from export.writing.card import renewed_card
from export.writing.markdown import fill_slot, find_slot
from export.writing.replacing import check_replaceable
from export.writing.results import markdown, render
from runtime import default_bundle
from runtime.bundle import open_bundle
from zsd_core.commands import command, new_parser
from zsd_core.errors import ConfigError
from zsd_core.evaluate import add_arguments
from zsd_core.files import prepare_files, read_lines
from zsd_core.learning.data.read import read_dataset
from zsd_core.learning.data.splits import load_split

__all__ = ["main", "names_of", "parse", "write_metrics"]

SLOT = "evaluate"


def write_metrics(path: Path, name: str, result: dict[str, Any]) -> None:
    """Record a result in a bundle: in its manifest under ``name``, and in its model card.

    Raises:
        BundleError: the bundle cannot be opened or rewritten; it is unchanged then.
    """
    bundle = open_bundle(path)
    metrics = {**bundle.manifest.get("metrics", {}), name: result}
    card = renewed_card(bundle, metrics=metrics)
    amend_bundle(path, {"MODEL_CARD.md": card}, metrics=metrics)


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = new_parser("export.evaluate", __doc__)
    parser.add_argument(
        "bundle",
        type=Path,
        nargs="?",
        default=None,
        help="directory or zip (default: the one that ships)",
    )
    add_arguments(parser, split_required=False, tasks=("all", "zsd", "gzsd", "seen"))
    parser.set_defaults(tasks=None)
    parser.add_argument(
        "--also",
        nargs="+",
        default=[],
        metavar="NAME",
        help="ask for these names too in task 'all'; a .txt file is a list",
    )
    parser.add_argument("--per-class", action="store_true", help="print a table of the classes")
    parser.add_argument(
        "--markdown", type=Path, metavar="FILE", help="fill its <!-- numbers: SLOT --> with a table"
    )
    parser.add_argument("--slot", default=SLOT, help=f"of --markdown ({SLOT})")
    parser.add_argument("--backend", default="auto", help="of the runtime (auto)")
    parser.add_argument("--precision", default="float32", help="of the networks (float32)")
    parser.add_argument("--threads", type=int, help="of the backend (all that the process may use)")
    parser.add_argument(
        "--write-metrics", metavar="NAME", help="record the result in the bundle under this name"
    )
    args = parser.parse_args(argv)
    if args.write_metrics is not None and args.bundle is None:
        parser.error("--write-metrics needs the bundle named: the one that ships is not changed")
    return args


@command
def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; 0 on success, 1 with a sentence on stderr."""
    args = parse(argv)
    prepare_files(args.json)
    if args.markdown:
        find_slot(args.markdown, args.slot)
    path = args.bundle or default_bundle()
    if args.write_metrics is not None:
        check_replaceable(path)
    split = load_split(args.split) if args.split else None
    result = evaluate_bundle(
        open_bundle(path),
        read_dataset(args.format, args.annotations, args.images, args.subset),
        split,
        tasks=args.tasks or (TASKS if split else ("all",)),
        also=names_of(args.also),
        limit=args.limit,
        separate=args.separate,
        samples=args.samples,
        seed=args.seed,
        score_threshold=args.score_threshold,
        nms_threshold=args.nms_threshold,
        backend=args.backend,
        threads=args.threads,
        precision=args.precision,
    )
    if args.subset:
        result["conditions"]["photographs"] = f"subset {args.subset!r} by the hash of their ids"
    if args.json:
        text = json.dumps(result, indent=1, ensure_ascii=False) + "\n"
        args.json.write_text(text, encoding="utf-8")
    if args.markdown:
        fill_slot(args.markdown, args.slot, markdown(result))
    if args.write_metrics:
        write_metrics(path, args.write_metrics, result)
    print(render(result, per_class=args.per_class))
    return 0


def names_of(words: Sequence[str]) -> list[str]:
    """Names of a command line: those given, and the lines of a .txt file but for its comments.

    Raises:
        ConfigError: a file cannot be read.
    """
    names: list[str] = []
    for word in words:
        if not word.endswith(".txt"):
            names.append(word)
            continue
        names += read_lines(Path(word), "names", ConfigError)
    return names


if __name__ == "__main__":
    sys.exit(main())
