"""Measure every speed that this project asks of itself, and fill its table.

    python -m benchmarks.speed
    python -m benchmarks.speed --only classes batch --rounds 10
    python -m benchmarks.speed --json docs/measurements/speed.json --markdown docs/benchmarks.md

A row is what is asked, what was measured, and the medians it was made of; what is compared runs in
turns in one process, so that both sides see the same machine. ``--json`` is written after every
group, and a group that the file holds is not measured again (``--again`` does), so a run that was
stopped goes on. Run it on an idle machine. A bar that is missed does not change the exit status.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.measure import conditions, write_rows
from benchmarks.speed import frames, others, start
from benchmarks.speed.rows import README, Group, Settings, read_rows, readme_row, table
from export.writing.markdown import fill_slot, find_slot
from zsd_core import kernels
from zsd_core.commands import Steps, command, new_parser
from zsd_core.errors import ConfigError
from zsd_core.files import prepare_files

__all__ = ["main", "parse"]

SLOT = "speed"
GROUPS: dict[str, Group] = {
    group.name: group for group in (*frames.GROUPS, *start.GROUPS, *others.GROUPS)
}


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = new_parser("benchmarks.speed", __doc__)
    add = parser.add_argument
    add("--only", nargs="+", choices=tuple(GROUPS), metavar="GROUP", help=f"of {', '.join(GROUPS)}")
    add("--threads", type=int, metavar="N", help="of everything; default: one per core")
    add("--rounds", type=int, default=30, metavar="N", help="of a comparison (%(default)s)")
    add("--femto", type=Path, metavar="FILE", help="DEIMv2-Femto as its authors wrote it")
    add("--annotations", type=Path, metavar="FILE", help="of --images, for the peers' accuracy")
    add("--images", type=Path, metavar="DIR", help="photographs with people's boxes")
    add("--subset", metavar="NAME", help="of these photographs, such as 'test'")
    add("--again", action="store_true", help="measure groups that --json holds already")
    add("--json", type=Path, metavar="FILE", help="read rows of earlier runs, add the new ones")
    add("--markdown", type=Path, metavar="FILE", help=f"fill the slot {SLOT!r} of this page")
    add("--readme", type=Path, metavar="FILE", help="renew the line of times in its table")
    args = parser.parse_args(argv)
    if args.rounds < 3:
        parser.error("--rounds must be at least 3")
    if (args.annotations is None) != (args.images is None):
        parser.error("--annotations and --images belong together")
    return args


@command
def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; 0 on success, 1 with a sentence on stderr."""
    args = parse(argv)
    prepare_files(args.json)
    if args.markdown:
        find_slot(args.markdown, SLOT)
    rows: dict[str, list[dict[str, Any]]] = {}
    for row in read_rows(args.json):
        rows.setdefault(row["group"], []).append(row)
    names = [n for n in args.only or GROUPS if args.again or n not in rows]
    settings = Settings(
        threads=args.threads or kernels.usable_threads(),
        rounds=args.rounds,
        femto=args.femto,
        annotations=args.annotations,
        images=args.images,
        subset=args.subset,
    )
    step = Steps(len(names))
    for name in names:
        group, machine = GROUPS[name], f"{conditions()}; {settings.threads} threads"
        with step(name):
            found = group.run(group.bars, settings)
        rows[name] = [row.as_json(name, machine) for row in found]
        if args.json:
            write_rows(args.json, _ordered(rows))
    print(table(_ordered(rows)))
    if args.markdown:
        fill_slot(args.markdown, SLOT, table(_ordered(rows)))
    if args.readme:
        _renew(args.readme, readme_row(_ordered(rows)))
    return 0


def _renew(path: Path, row: str) -> None:
    """Put the row in the place of the one that begins alike."""
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    places = [place for place, line in enumerate(lines) if line.startswith(README)]
    if not row or len(places) != 1:
        raise ConfigError(f"{path} has {len(places)} lines {README!r}, or 'classes' was not run.")
    lines[places[0]] = row + "\n"
    path.write_text("".join(lines), encoding="utf-8")


def _ordered(rows: dict[str, list[dict[str, Any]]]) -> list[dict[str, Any]]:
    return [row for name in GROUPS if name in rows for row in rows[name]]


if __name__ == "__main__":
    sys.exit(main())
