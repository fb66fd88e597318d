"""A result of ``export.evaluate`` for people: text for a terminal, Markdown for a document."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from zsd_core.learning import metrics

__all__ = ["markdown", "render"]

Row = tuple[str, str, str, str]  # test, number, value, interval


def render(result: Mapping[str, Any], *, per_class: bool = False) -> str:
    """Conditions first, then for each test its protocol's numbers and the scorecard's."""
    lines = []
    if "split" in result:
        split = result["split"]
        lines.append(
            f"split {split['name']}: {split['seen']} seen, {split['unseen']} unseen classes"
        )
    lines += [f"{name}: {value}" for name, value in result["conditions"].items()]
    for task, report in result["tasks"].items():
        counts = ", ".join(f"{name} {count}" for name, count in report["counts"].items())
        lines += ["", f"== {task.upper()} ==", counts, metrics.table(report, per_class=per_class)]
        rows = [row[1:] for row in _rows(task, report)]
        width = max(len(name) for name, _, _ in rows)
        lines += ["", *(f"{name:{width}}  {value:>6}  {span}" for name, value, span in rows)]
    return "\n".join(lines)


def markdown(result: Mapping[str, Any]) -> str:
    """One table of the numbers that a user asks for first; conditions below it."""
    lines = ["| test | number | percent | interval |", "| --- | --- | ---: | --- |"]
    for task, report in result["tasks"].items():
        lines += ["| " + " | ".join(row) + " |" for row in _rows(task, report)]
    report = next(iter(result["tasks"].values()))
    scores, bootstrap = report["scores"], report["bootstrap"]
    notes = [
        *(f"{name}: {value}" for name, value in result["conditions"].items()),
        f"calibration error: detections above {scores['detections above']:g}, "
        f"{scores['bins of [0, 1]']} equal bins of [0, 1]",
        "average precision: exact area under the precision envelope",
    ]
    if bootstrap["samples"]:
        notes.append(
            f"intervals: {bootstrap['level']:.0%} of {bootstrap['samples']} bootstrap samples over "
            "images"
        )
    return "\n".join([*lines, "", f"{'; '.join(notes)}."])


def _rows(task: str, report: Mapping[str, Any]) -> Iterator[Row]:
    where = f"{task.upper()}, {report['images']} photographs"
    roles = report["values"]["mAP@0.5 area"]
    if "hm" in roles and task == "gzsd":
        for name, role in (("S", "seen"), ("U", "unseen"), ("HM", "hm")):
            spans = report["intervals"].get("mAP@0.5 area", {})
            yield _row(
                where, f"mAP@0.5 {name}", {"value": roles[role], "interval": spans.get(role)}
            )
    groups = report["groups"]
    apart = {f"taught by {name}": group for name, group in groups.items() if name != "all"}
    if sum(group["boxes"] > 0 for group in apart.values()) < 2:
        apart = {}  # one group is all of them
    for name, group in {"all": groups["all"], **apart, **report["sizes"]}.items():
        if group["boxes"]:
            what = f"{name}, {group['classes']} classes, {group['boxes']} boxes"
            for number, cell in group.items():
                if isinstance(cell, Mapping):
                    yield _row(where, f"{number} ({what})", cell)
    scores = report["scores"]
    yield _row(where, "expected calibration error", scores["expected calibration error"])
    above = f"{scores['score threshold']:g}"
    if "unseen score threshold" in scores:
        above += f" (unseen {scores['unseen score threshold']:g})"
    for name in ("F1", "precision", "recall"):
        yield _row(where, f"{name} above {above}", scores[name])


def _row(where: str, name: str, cell: Mapping[str, Any]) -> Row:
    value, span = cell["value"], cell.get("interval")
    return (
        where,
        name,
        "-" if value is None else f"{value:.1f}",
        f"{span[0]:.1f} to {span[1]:.1f}" if span else "",
    )
