"""Turn what ``benchmarks.paper.bench`` measured into the report.

    python -m benchmarks.paper.report docs/measurements/systems.json \
        docs/measurements/systems_65_15.json --causes docs/measurements/causes.json \
        --conclusions docs/measurements/conclusions.txt --output docs/report.md

Tables 1 to 6 with the paper's numbers beside ours. ``--conclusions`` is what a person says about
the numbers: Markdown with exactly two parts, ``## In short`` and ``## What separates``.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.paper.report_parts import (
    bundles_part,
    causes_part,
    leaks,
    options_part,
    outside_part,
    tests_part,
)
from benchmarks.paper.systems_table import in_short, paper_tables, split_title
from zsd_core.commands import command, new_parser
from zsd_core.errors import DataError
from zsd_core.files import prepare_files

__all__ = ["main", "parse", "read_conclusions", "read_results", "report"]

PARTS = ("In short", "What separates")  # of the file of conclusions
NEEDED = ("split", "conditions", "training", "tests", "chosen", "systems")
SETTINGS = ("seeds", "steps", "samples")  # of all comparisons, since the page says them once
HEAD = """# Every system of the paper on one bench

For researchers. Written by `python -m benchmarks.paper.report`; do not edit.

**Shown:** ContrastZSD and the systems that its paper compares with, as scoring methods of one
detector for each split: one trunk, one set of proposals, one box regression, one set of training
regions, one evaluator, {seeds} and {steps} steps of training (none in one row). Test photographs
have human boxes and were used for nothing else. **Not shown:** the systems of the papers, which
have detectors of their own and hundreds of times the data. The paper's numbers stand beside as a
reminder only; what can be compared is one row of ours with another. The recipe is that of
[`coco48`](coco48.md), which is small. ImageNet, which its backbone comes from, has several unseen
classes, as the paper's has.

**How to read.** ZSD: unseen classes only. GZSD: all classes; S, U and HM are seen classes, unseen
classes and their harmonic mean. Numbers are percent, mAP at IoU 0.5 by VOC's 11 points, at most 100
detections of a photograph, with 95 % intervals by a bootstrap over photographs and seeds ({samples}
samples). "Minus ContrastZSD" is the difference in the same samples, in bold where the interval
leaves out 0. "In the paper": the paper's numbers, in the order of the columns to the left, "-"
where it gives none.

**What was chosen, and on what.** Every system's scores are multiplied by objectness squared, and
those of its seen classes by one factor. This factor and the [options](#options) were chosen on seen
classes that played unseen ones, in photographs that trained nothing, never on the unseen classes.
ContrastZSD alone has the factor `seen_evidence`. One of its rows is not trained by steps: its heads
are a ridge regression, in closed form. `python -m benchmarks.paper.bench` made it all
([how](reproduce.md#every-system-of-the-paper))."""
TAIL = """## Read next

- [Sweeps and pictures](experiments.md): figures 3 to 6, one option at a time, few photographs.
- [Reproduce the paper's experiments](reproduce.md): this page's commands, and the paper's recipe.
- [What is proved, and what is not](verification.md): every claim and its check."""


def read_results(paths: Sequence[Path]) -> dict[str, dict[str, Any]]:
    """The comparisons by split, in the order given.

    Raises:
        DataError: a file is none of ``benchmarks.paper.bench``, or two are of one split, or have
            other settings.
    """
    results: dict[str, dict[str, Any]] = {}
    settings = set()
    for path in paths:
        try:
            result = json.loads(path.read_text(encoding="utf-8"))
            split = {key: result[key] for key in NEEDED}["split"]
            for row in result["systems"]:
                _ = row["values"], [one["AP"] for one in row["classes"]["zsd"].values()]
            settings.add(tuple(str(result["conditions"][key]) for key in SETTINGS))
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise DataError(
                f"{path} is no comparison ({error!r}); python -m benchmarks.paper.bench --json "
                "writes it."
            ) from error
        if split in results:
            raise DataError(f"{path} is a second comparison of {split}; give one for each split.")
        results[split] = result
    if len(settings) > 1:
        raise DataError("the comparisons differ in seeds, steps or samples of the bootstrap.")
    return results


def read_conclusions(path: Path | None) -> dict[str, str]:
    """What a person wrote, by part; without a file every part is empty.

    Raises:
        DataError: the file lacks a part, or has another.
    """
    if path is None:
        return dict.fromkeys(PARTS, "")
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read ({error}).") from error
    before, *sections = ("\n" + text).split("\n## ")
    pairs = [section.partition("\n")[::2] for section in sections]
    found = {title.strip(): body.strip() for title, body in pairs}
    if before.strip() or sorted(title.strip() for title, _ in pairs) != sorted(PARTS):
        parts = " and ".join(f"## {part}" for part in PARTS)
        raise DataError(f"{path} must have the parts {parts}, each once, and nothing else.")
    return found


def report(
    results: dict[str, dict[str, Any]], causes: Path | None, conclusions: dict[str, str]
) -> str:
    """The text of the page.

    Raises:
        DataError: a table of causes that is none.
    """
    shared = next(iter(results.values()))["conditions"]
    seeds = f"{len(shared['seeds'])} seed{'s' if len(shared['seeds']) > 1 else ''}"
    head = HEAD.format(seeds=seeds, steps=shared["steps"], samples=shared["samples"])
    sections = {
        "In short": [conclusions["In short"], in_short(results)],
        "Detectors and tests": [tests_part(results), _leaks(results)],
        "The tables of the paper": paper_tables(results),
        "What separates the methods": [conclusions["What separates"], causes_part(causes)],
        "Every system as a detector": [bundles_part(results)],
        "Other evaluators": [outside_part(results)],
        "Options": [options_part(results)],
    }
    parts = [head]
    for title, own in sections.items():
        if text := "\n\n".join(part for part in own if part):
            parts.append(f"## {title}\n\n{text}")
    return "\n\n".join([*parts, TAIL]) + "\n"


def _leaks(results: dict[str, dict[str, Any]]) -> str:
    """Why no detector serves two splits."""
    first, *others = results
    said = [
        f"{split_title(other)} {', '.join(names)}"
        for other in others
        if (names := leaks(first, other))
    ]
    if not said:
        return ""
    return (
        "Every split has a detector of its own, since the proposal network of "
        f"{split_title(first)} has learned unseen classes of the others: "
        f"of {'; of '.join(said)}."
    )


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = new_parser("benchmarks.paper.report", __doc__)
    add = parser.add_argument
    add("systems", type=Path, nargs="+", help="of benchmarks.paper.bench --json, one a split")
    add("--causes", type=Path, help="of benchmarks.paper.causes --json")
    add("--conclusions", type=Path, help="what a person says about the numbers, Markdown")
    add("--output", type=Path, required=True, help="such as docs/report.md")
    return parser.parse_args(argv)


@command
def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; 0 on success, 1 with a sentence on stderr."""
    args = parse(argv)
    prepare_files(args.output)
    results = read_results(args.systems)
    text = report(results, args.causes, read_conclusions(args.conclusions))
    args.output.write_text(text, encoding="utf-8")
    print(args.output)
    return 0


if __name__ == "__main__":
    sys.exit(main())
