r"""Compare names with examples: how well a class is found by its name alone and from k examples.

    python -m export.evaluate_examples bundle/ --annotations raccoon.json --images photographs/ \
        --name raccoon --json result.json --markdown docs/examples.md
    python -m export.evaluate_examples bundle/ --pictures labels.json --held-out names.txt

Photographs with boxes of one class: AP at IoU 0.5 of that class, looked for among the bundle's
seen classes. Pictures that have one name each (labels.json is a list of {"file": ..., "name": ...},
files lie beside it) and a list of held-out names: every picture is ranked by the best score of the
name, and the average precision of that ranking is taken.

Examples are drawn at random, several times. The photographs they come from are left out of the test
of their draw, and the name alone is judged on the photographs that are left, too.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from export.checks.examples import boxed, pictures
from export.evaluate import names_of
from export.writing.markdown import fill_slot, find_slot
from runtime import default_bundle
from runtime.bundle import open_bundle
from zsd_core.commands import command, new_parser
from zsd_core.errors import DataError
from zsd_core.files import parse_json, prepare_files
from zsd_core.learning.data.read import read_dataset
from zsd_core.options import check_option

__all__ = ["main", "markdown", "parse", "read_pictures"]

SLOT = "examples"


def read_pictures(path: Path) -> tuple[list[Path], list[str]]:
    """Pictures and the name of each.

    Raises:
        DataError: the file cannot be read, or is not as the module says.
    """
    try:
        entries = parse_json(path.read_bytes(), str(path))
        pairs = [(path.parent / entry["file"], str(entry["name"])) for entry in entries]
    except (OSError, KeyError, TypeError) as error:
        raise DataError(
            f"{path} must be a JSON list of objects with 'file' and 'name': {error!r}."
        ) from error
    return [file for file, _ in pairs], [name for _, name in pairs]


def markdown(result: Mapping[str, Any]) -> str:
    """The result as a table: a row for every test and number of examples."""
    lines = [
        "| test | examples | name alone | from examples | draws |",
        "| --- | ---: | ---: | ---: | ---: |",
    ]
    for key in ("boxed", "pictures"):
        if key not in result:
            continue
        part = result[key]
        what = (
            f"{part['name']}, {part['boxes']} boxes in {part['photographs']} photographs, among "
            f"{part['classes']} classes: AP@0.5"
            if key == "boxed"
            else f"{part['names']} held-out names, {part['pictures']} pictures: average precision"
        )
        for entry in part["draws"]:
            lines.append(
                f"| {what} | {entry['examples']} | {entry['name alone, same photographs']:.1f} | "
                f"{entry['mean']:.1f} ± {entry['deviation']:.1f} | {len(entry['of each draw'])} |"
            )
    return "\n".join(lines)


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = new_parser("export.evaluate_examples", __doc__)
    add = parser.add_argument
    add("bundle", type=Path, nargs="?", help="directory or zip (default: the one that ships)")
    add("--annotations", nargs="+", default=[], help="COCO JSON files of one class, or VOC sets")
    add("--images", nargs="+", default=[], help="image folder of each, or one for all")
    add("--format", choices=("coco", "voc"), default="coco")
    add("--name", help="of the class in the annotations")
    add("--pictures", type=Path, metavar="FILE", help="list of files and names, JSON")
    add("--held-out", metavar="FILE", help="names to look for in the pictures, one a line, .txt")
    add("--others", type=int, metavar="N", help="most pictures of other names (all)")
    add("--counts", type=int, nargs="+", help="numbers of examples (1 3 10; of pictures 1 3 9)")
    add("--repeats", type=int, default=5, help="draws of each number (%(default)s)")
    add("--seed", type=int, default=0, help="of the draws")
    add("--json", type=Path, help="also write the result to this file")
    add("--markdown", type=Path, metavar="FILE", help="fill its <!-- numbers: SLOT -->")
    add("--slot", default=SLOT, help=f"of --markdown ({SLOT})")
    add("--backend", default="auto", help="of the runtime (auto)")
    add("--threads", type=int, help="of the backend (all that the process may use)")
    args = parser.parse_args(argv)
    if bool(args.annotations) != bool(args.name) or bool(args.pictures) != bool(args.held_out):
        parser.error("--annotations needs --name, and --pictures needs --held-out")
    if not args.annotations and not args.pictures:
        parser.error("nothing to measure: give --annotations, or --pictures")
    return args


@command
def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; 0 on success, 1 with a sentence on stderr."""
    args = parse(argv)
    prepare_files(args.json)
    for where, value in [
        ("--repeats", args.repeats),
        *(("--counts", n) for n in args.counts or ()),
    ]:
        check_option(value >= 1, where, value, "must be at least 1")
    for where, value in (("--seed", args.seed), ("--others", args.others or 0)):
        check_option(value >= 0, where, value, "must not be negative")
    held_out = names_of([args.held_out]) if args.held_out else []
    if args.markdown:
        find_slot(args.markdown, args.slot)
    bundle = open_bundle(args.bundle or default_bundle())
    shared: dict[str, Any] = {"repeats": args.repeats, "seed": args.seed}
    shared |= {"backend": args.backend, "threads": args.threads}
    shared |= {"counts": args.counts} if args.counts else {}
    result: dict[str, Any] = {
        "bundle": bundle.name,
        "draws": f"{args.repeats} of each number of examples, seed {args.seed}",
    }
    if args.annotations:
        dataset = read_dataset(args.format, args.annotations, args.images)
        result["boxed"] = boxed(bundle, dataset, args.name, **shared)
    if args.pictures:
        files, labels = read_pictures(args.pictures)
        result["pictures"] = pictures(bundle, files, labels, held_out, others=args.others, **shared)
    if args.json:
        args.json.write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n", "utf-8")
    if args.markdown:
        fill_slot(args.markdown, args.slot, markdown(result))
    print(markdown(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())
