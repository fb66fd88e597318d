"""Parts of the report around its tables: tests, options, other evaluators, detectors, causes."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.paper.systems_table import Results, markdown, split_title
from zsd_core.errors import DataError
from zsd_core.learning.data.splits import load_split, split_names

__all__ = [
    "bundles_part",
    "causes_part",
    "leaks",
    "options_part",
    "outside_part",
    "tests_part",
]

BESIDE_SEEN = """**{split} is tested on other photographs than its protocol asks for.** The protocol
looks for unseen classes on photographs that show no seen object. Here every photograph with an
unseen object is one of the test."""
CAUSES_HEAD = """Seen classes that played unseen ones, on {photographs}; {what}. The detector's
regions and, with the same trained scoring, human boxes in their place; percent, mAP as area under
the curve, one number for each draw of these classes. Below ContrastZSD and ConSE-ZSD, a row without
a rate changes one thing of ContrastZSD's. `python -m benchmarks.paper.causes` made it
([how](reproduce.md#every-system-of-the-paper))."""
BUNDLES_HEAD = """`--bundles` writes a bundle of every system. On a few photographs, with score
threshold 0: detections of `Detector`; how many of them PyTorch and `detector.onnx` find too; the
largest difference of a score; and detections of a class that was added while the detector ran, by a
vector and under a name that the bundle does not know (the fewest and the most of any system). Taken
out and added again, a class gives the same detections, bit for bit. `agreement.json` beside the
bundles has every system's numbers."""
OPTIONS_HEAD = """Behind "tried" stands every value with its ZSD mAP (area under the curve) on seen
classes that played unseen ones. Few steps favour what learns fast: a system whose last
losses (of the first seed) are high may gain from more (`--steps`), up to where it learns the seen
classes by heart."""
FIXED = ("model.scoring.method", "model.scoring.learned")  # they are the system


def tests_part(results: Results) -> str:
    """What trained and tested, a row for each split; and where a protocol was not followed."""
    table = [["split", "detector trained on", "passes", "test photographs", "unseen boxes", "all"]]
    for split, result in results.items():
        training, tests = result["training"], result["tests"]
        passes = f"{training['passes']} + {training['trunk_passes']} with the backbone"
        table.append(
            [
                split_title(split),
                _count(training["photographs"], "photographs"),
                passes if training["trunk_passes"] else str(training["passes"]),
                *(str(n) for n in (tests["zsd"]["images"], tests["zsd"]["boxes"])),
                str(tests["gzsd"]["boxes"]),
            ]
        )
    parts = [markdown(table, 2)]
    for split, result in results.items():
        rule = load_split(split).zsd_images if split in split_names() else None
        if rule and result.get("zsd_images", rule) != rule:
            parts.append(BESIDE_SEEN.format(split=split_title(split)))
    return "\n\n".join(parts)


def _count(value: int | None, what: str) -> str:
    return "-" if value is None else f"{value} {what}"


def options_part(results: Results) -> str:
    """How every system differs from its original; and its options on every split."""
    notes = {
        row["title"]: row["note"]
        for result in results.values()
        for row in result["systems"]
        if row["note"]
    }
    listed = "\n".join(f"- {title}: {note}" for title, note in notes.items())
    parts = ["How each system differs from its original:", listed, OPTIONS_HEAD]
    for split, result in results.items():
        lines = [_options(row, result["chosen"].get(row["name"], [])) for row in result["systems"]]
        parts.append(f"### {split_title(split)}\n\n" + "\n".join(lines))
    return "\n\n".join(parts)


def _options(row: Mapping[str, Any], tried: Sequence[Mapping[str, Any]]) -> str:
    options = [f"`{key}={value}`" for key, value in row["options"].items() if key not in FIXED]
    outcomes = [
        f"{' '.join(f'{k}={v}' for k, v in one['options'].items()) or 'default'} {one['zsd']:.1f}"
        for one in tried
    ]
    losses = ", ".join(f"{name} {value:.2g}" for name, value in row["losses"].items())
    what = f"last losses {losses}; " if losses else ""
    said = f" (tried: {', '.join(outcomes)})" if len(outcomes) > 1 else ""
    return f"- {row['title']}: {what}{', '.join(options)}{said}"


def outside_part(results: Results) -> str:
    """Mean AP and recall of one run of each split by three evaluators; "" where none was asked."""
    tasks = ("zsd", "gzsd")
    numbers = [(task, number) for task in tasks for number in ("mAP", "recall")]
    table = [["split and run", "evaluator", *(f"{t.upper()} {n}" for t, n in numbers)]]
    for split, result in results.items():
        if not (judged := result.get("outside")):
            continue
        run = f"{judged['conditions']['system']}, seed {judged['conditions']['seed']}"
        for judge in ("ours", "pycocotools", "torchmetrics"):
            found = [judged["tasks"][task][judge].get(number) for task, number in numbers]
            cells = ["-" if value is None else f"{value:.2f}" for value in found]
            table.append([f"{split_title(split)}, {run}", judge, *cells])
    return markdown(table, 2) if len(table) > 1 else ""


def bundles_part(results: Results) -> str:
    """What the detectors of all systems were compared for; "" where none was written."""
    table = [["split", "bundles", "photographs", "detections"]]
    others = ("PyTorch", "detector.onnx")
    table[0] += [*(f"in {name}" for name in others), "largest difference", "of an added class"]
    for split, result in results.items():
        if not (made := result.get("bundles")):
            continue
        rows = made["rows"]
        added = [row["added"] for row in rows]
        largest = max(row[name]["largest"] for row in rows for name in others)
        counts = [len(rows), made["images"], sum(row["detections"] for row in rows)]
        counts += [sum(row[name]["matched"] for row in rows) for name in others]
        cells = [*map(str, counts), f"{largest:.0e}", f"{min(added)} to {max(added)}"]
        table.append([split_title(split), *cells])
    return f"{BUNDLES_HEAD}\n\n{markdown(table)}" if len(table) > 1 else ""


def causes_part(path: Path | None) -> str:
    """The table of ``benchmarks.paper.causes``; "" without it."""
    if path is None:
        return ""
    try:
        result = json.loads(path.read_text(encoding="utf-8"))
        head = CAUSES_HEAD.format(photographs=result["photographs"], what=result["what"])
        return f"{head}\n\n{_causes(result['rows'])}"
    except (OSError, ValueError, KeyError, TypeError, IndexError) as error:
        raise DataError(
            f"{path} is no table of causes ({error!r}); python -m benchmarks.paper.causes --json "
            "writes it."
        ) from error


def _causes(rows: Sequence[Mapping[str, Any]]) -> str:
    table = [["changed", "steps", "last losses", "mAP", "Recall@100", "human boxes: mAP", "recall"]]
    for row in rows:
        numbers = [
            " / ".join(f"{draw[where][number]:.1f}" for draw in row["draws"])
            for where in ("regions", "human boxes")
            for number in ("mAP", "recall")
        ]
        losses = row["draws"][0]["losses"]
        said = ", ".join(f"{name} {value:.2g}" for name, value in losses.items()) or "-"
        table.append([row["title"], str(row["steps"]), said, *numbers])
    return markdown(table)


def leaks(trained: str, other: str) -> tuple[str, ...]:
    """Unseen classes of a split that a detector of another one has learned, by their own names.

    Nothing where one of the two is no published split.
    """
    if not {trained, other} <= set(split_names()):
        return ()
    split, seen = load_split(other), load_split(trained).spellings()
    known = set(load_split(trained).seen)
    return tuple(name for name in split.unseen if seen.get(name) in known)
