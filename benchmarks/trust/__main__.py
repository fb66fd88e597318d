"""Try hostile input, faults and load, and count what is lost.

    python -m benchmarks.trust --short
    python -m benchmarks.trust --part manifest zip --seed 1
    python -m benchmarks.trust --json docs/measurements/trust.json --markdown docs/security.md

Every part has a budget, of inputs or minutes, and a seed; ``--short`` takes the budgets of
continuous integration. ``--json`` is written after every part, and a part that the file holds with
the same budget and seed is not run again (``--again`` does), so a run that was stopped goes on.
With ``--minutes``, a part that tries inputs one by one stops after that time, and the next call
goes on with its next input: the row counts what was tried so far. ``--markdown`` fills the table
of a page. The exit status is 1 if anything was lost.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.measure import conditions, write_rows
from benchmarks.trust.attempts import tried
from benchmarks.trust.table import all_parts, read_rows, row_of, table
from export.writing.markdown import fill_slot, find_slot
from zsd_core.commands import Progress, command, new_parser, print_error
from zsd_core.errors import ZsdError
from zsd_core.files import prepare_files

__all__ = ["main", "parse"]

SLOT = "trust"


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser, names = new_parser("benchmarks.trust", __doc__), sorted(all_parts())
    add = parser.add_argument
    add("--part", nargs="+", choices=names, metavar="NAME", help=f"of {', '.join(names)}")
    add("--short", action="store_true", help="the budgets of continuous integration")
    add("--budget", type=float, metavar="N", help="of every part that runs, in place of its own")
    add("--minutes", type=float, default=math.inf, metavar="N", help="most of a part in this call")
    add("--seed", type=int, default=0, metavar="N", help="of every random choice (%(default)s)")
    add("--again", action="store_true", help="run parts that --json holds already")
    add("--json", type=Path, metavar="FILE", help="read rows of earlier runs, add the new ones")
    add("--markdown", type=Path, metavar="FILE", help=f"fill the slot {SLOT!r} of this page")
    args = parser.parse_args(argv)
    if args.budget is not None and args.budget <= 0:
        parser.error("--budget must be above 0")
    if not args.minutes > 0:
        parser.error("--minutes must be above 0")
    return args


def _begun(
    row: dict[str, Any] | None, budget: str, args: argparse.Namespace
) -> dict[str, Any] | None:
    """The row of an earlier run that asked for the same, unless it is to run again."""
    same = row is not None and (row["budget"], row["seed"]) == (budget, args.seed)
    return row if same and not args.again else None


@command
def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; 0 if nothing was lost, else 1."""
    args, found = parse(argv), all_parts()
    prepare_files(args.json)
    if args.markdown:
        find_slot(args.markdown, SLOT)
    rows: dict[str, dict[str, Any]] = read_rows(args.json)
    for name in args.part or found:
        part = found[name]
        budget = args.budget or (part.short if args.short else part.full)
        total = int(budget * 60 if part.unit == "minutes" else budget)
        before = _begun(rows.get(name), f"{budget:g} {part.unit}", args)
        first = before["inputs"] if before else 0
        if before and (part.loader is None or first >= total):
            print(f"{name}: already in {args.json}", file=sys.stderr)
            continue
        started = time.perf_counter()
        with Progress(name, total - first) as progress:
            if part.loader is None:
                result = part.run(budget, args.seed, progress.advance)
            else:
                result = tried(
                    part.loader, total, args.seed, progress.advance, first, 60 * args.minutes
                )
        seconds = time.perf_counter() - started
        rows[name] = row_of(part, budget, args.seed, result, seconds, conditions(), before)
        for fault in rows[name]["faults"]:
            print_error(ZsdError(f"{name}: {fault}"))
        if args.json:
            write_rows(args.json, [rows[key] for key in found if key in rows])
    shown = [rows[key] for key in found if key in rows]
    print(table(shown))
    if args.markdown:
        fill_slot(args.markdown, SLOT, table(shown))
    return int(any(row["lost"] for row in shown))


if __name__ == "__main__":
    sys.exit(main())
