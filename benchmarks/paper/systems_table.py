"""The part of the report that compares every system of the paper on one detector.

It is written from what ``benchmarks.paper.bench --json`` measured.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.paper import published
from benchmarks.paper.causes_table import bundles_line, bundles_section, causes_section, leaks
from zsd_core.errors import DataError
from zsd_core.learning.data.splits import load_split, split_names

__all__ = ["systems_section"]

AP, RECALL = "mAP@0.5 voc11", "Recall@100 IoU 0.5"
COLUMNS = {  # title: task, number and group
    "ZSD mAP": ("zsd", AP, "unseen"),
    "Recall@100": ("zsd", RECALL, "unseen"),
    "GZSD S": ("gzsd", AP, "seen"),
    "U": ("gzsd", AP, "unseen"),
    "HM": ("gzsd", AP, "hm"),
}
BESIDE = ("ZSD mAP", "HM")  # columns whose distance from ContrastZSD is shown
HEAD = """## Every system of the paper on one detector: {split}

**Shown:** all systems with one trunk, one set of proposals, one box regression, one set of
training regions, one evaluator, {seeds} and {steps} steps. The recipe is `coco48`'s, which is
small{recipe}; its {images} test photographs have human boxes ({boxes} of unseen classes) and were
used for nothing else. **Not shown:** the systems of the papers, which have other detectors and
hundreds of times the data; the paper's numbers stand beside as a reminder only.

Numbers are percent, mAP by VOC's 11 points, with 95 % intervals by a bootstrap over {over}
({samples} samples). "Less" columns are differences from ContrastZSD in the same samples, in
bold where the interval leaves out 0. Every system's scores are multiplied by objectness squared,
and those of its seen classes by one factor. This factor and the options below the table were chosen
on seen classes that played unseen ones, in photographs that trained nothing, never on the {unseen}
unseen classes. ContrastZSD alone has the factor `seen_evidence`, and one of its rows alone does not
start at random. `python -m benchmarks.paper.bench`
made it all ([how](reproduce.md#every-system-of-the-paper)).{protocol}"""
BESIDE_SEEN = (
    " **Not the split's protocol in one thing:** it looks for unseen classes on photographs that "
    "show no seen object; here on all that show an unseen one."
)


def systems_section(paths: Sequence[Path]) -> str:
    """The sections, as Markdown: the first split, what only its detector has, the other splits.

    Args:
        paths: of the comparisons, one a split; what belongs to the first lies beside it.

    Raises:
        DataError: a file is no comparison of ``benchmarks.paper.bench``.
    """
    parts, splits = list[list[str]](), list[str]()
    for path in paths:
        try:
            result = json.loads(path.read_text(encoding="utf-8"))
            show = bundles_line if splits else bundles_section
            parts.append([*_parts(result), show(result.get("bundles"))])
            splits.append(result["split"])
        except (OSError, ValueError, KeyError, TypeError, IndexError) as error:
            raise DataError(
                f"{path} is no comparison ({error!r}); python -m benchmarks.paper.bench --json "
                "writes it."
            ) from error
    first = [*parts[0], *_others(splits), causes_section(paths[0].parent)]
    rest = [part for own in parts[1:] for part in own]
    return "\n\n".join(part for part in [*first, *rest] if part)


def _others(shown: Sequence[str]) -> list[str]:
    """Why the detector of the first split gives no row of a split that is not shown."""
    found = {other: leaks(shown[0], other) for other in split_names() if other not in shown}
    said = [f"of `{other}`, {', '.join(names)}" for other, names in found.items() if names]
    if not said:
        return []
    return [
        "This detector cannot be used for the splits that are not shown: its proposal network has "
        f"learned unseen classes of theirs: {'; '.join(said)}. What they take is in "
        "[reproduce](reproduce.md#6515-and-vocs-164)."
    ]


def _parts(result: Mapping[str, Any]) -> list[str]:
    conditions, rows = result["conditions"], result["systems"]
    seeds = conditions["seeds"]
    head = HEAD.format(
        split=result["split"],
        seeds=f"{len(seeds)} seed{'s' if len(seeds) > 1 else ''}",
        steps=conditions["steps"],
        over="photographs and seeds" if len(seeds) > 1 else "photographs alone, for want of seeds",
        samples=conditions["samples"],
        images=result["tests"]["zsd"]["images"],
        boxes=result["tests"]["zsd"]["boxes"],
        unseen=len(rows[0]["classes"]["zsd"]),
        recipe=_recipe(result.get("training")),
        protocol=BESIDE_SEEN if _beside_seen(result) else "",
    )
    paper = published.zsd_map(result["split"])
    header = ["system", "paper's ZSD mAP"]
    for title in COLUMNS:
        header += [title, "less"] if title in BESIDE else [title]
    table = [header, ["---", *("---:" for _ in header[1:])]]
    for row in rows:
        theirs = paper.get(row["title"])
        cells = [row["title"], "-" if theirs is None else f"{theirs:.1f}"]
        for title, of in COLUMNS.items():
            key = "|".join(of)
            cells.append(_number(row["values"][key]["mean"], row["values"][key]["interval"]))
            if title in BESIDE:
                cells.append(_difference(row["against"].get(key)))
        table.append(cells)
    notes = [
        "Few steps favour what learns fast: a system whose last losses (of the first seed) are",
        "high may gain from more (`--steps`), up to where it learns the seen classes by heart.",
        "",
        "What differs from the original, and the options taken; where several were tried, the ZSD",
        "mAP (area under the curve) that they had on seen classes that played unseen ones:",
        "",
        *(_note(row, result["chosen"].get(row["name"], [])) for row in rows),
    ]
    parts = [head, _lines(table), "\n".join(notes)]
    if result.get("outside"):
        parts.append(_outside(result["outside"]))
    return parts


def _beside_seen(result: Mapping[str, Any]) -> bool:
    """Whether ZSD was tested on photographs that the published split leaves out."""
    if result["split"] not in split_names():
        return False
    published_rule = load_split(result["split"]).zsd_images
    return bool(result.get("zsd_images", published_rule) != published_rule)


def _recipe(training: Mapping[str, Any] | None) -> str:
    """How long the proposal network was trained; older files do not say it."""
    if training is None or training["photographs"] is None:
        return ""
    tuned = training.get("trunk_passes")
    beside = f", then {tuned} that train the backbone too" if tuned else ""
    return f": {training['photographs']} photographs in {training['passes']} passes{beside}"


def _lines(table: Sequence[Sequence[str]]) -> str:
    return "\n".join("| " + " | ".join(row) + " |" for row in table)


def _number(value: float, interval: Sequence[float]) -> str:
    return f"{value:.1f} [{interval[0]:.1f}, {interval[1]:.1f}]"


def _difference(found: Mapping[str, Any] | None) -> str:
    if found is None:
        return ""
    low, high = found["interval"]
    text = f"{found['difference']:+.1f} [{low:+.1f}, {high:+.1f}]"
    return f"**{text}**" if low > 0 or high < 0 else text


def _note(row: Mapping[str, Any], tried: Sequence[Mapping[str, Any]]) -> str:
    fixed = ("model.scoring.method", "model.scoring.learned")
    options = [f"`{key}={value}`" for key, value in row["options"].items() if key not in fixed]
    outcomes = [
        f"{' '.join(f'{k}={v}' for k, v in one['options'].items()) or 'default'} {one['zsd']:.1f}"
        for one in tried
    ]
    what = f"{row['note']}; " if row["note"] else ""
    losses = ", ".join(f"{name} {value:.2g}" for name, value in row["losses"].items())
    what = f"{what}last losses {losses}; " if losses else what
    said = f" (tried: {', '.join(outcomes)})" if len(outcomes) > 1 else ""
    return f"- {row['title']}: {what}{', '.join(options)}{said}"


def _outside(judged: Mapping[str, Any]) -> str:
    tasks, system = judged["tasks"], judged["conditions"]["system"]
    rows = [["evaluator", *(f"{t.upper()} {n}" for t in tasks for n in ("mAP", "recall"))]]
    rows.append(["---", *("---:" for _ in rows[0][1:])])
    for judge in ("ours", "pycocotools", "torchmetrics"):
        cells = [judge]
        for task in tasks.values():
            cells += [
                f"{task[judge][n]:.2f}" if n in task[judge] else "-" for n in ("mAP", "recall")
            ]
        rows.append(cells)
    return (
        f"The detections of one run ({system}, seed {judged['conditions']['seed']}) by other "
        "evaluators, at IoU 0.5, AP by COCO's 101 points:\n\n" + _lines(rows)
    )
