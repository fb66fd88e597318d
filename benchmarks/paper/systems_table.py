"""The tables of the paper, each filled with every system of ``benchmarks.paper.bench``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.paper import published
from benchmarks.paper.systems import OWN

__all__ = ["Results", "in_short", "markdown", "paper_tables", "split_title"]

Results = Mapping[str, Mapping[str, Any]]  # by split, as the bench wrote them
Key = tuple[str, str, str]  # task, number and group, as the bench names a number
AP, RECALL = "mAP@0.5 voc11", "Recall@100 IoU 0.5"
SPLITS = {"coco_48_17": "COCO 48/17", "coco_65_15": "COCO 65/15", "voc_16_4": "VOC 16/4"}
ZSD: Key = ("zsd", AP, "unseen")
HM: Key = ("gzsd", AP, "hm")
GZSD: dict[str, Key] = {
    "S": ("gzsd", AP, "seen"),
    "U": ("gzsd", AP, "unseen"),
    "HM": HM,
}
GZSD_RECALL: dict[str, Key] = {title: (k[0], RECALL, k[2]) for title, k in GZSD.items()}
BY_CLASS = ("conse", "blc", OWN, "contrastzsd-ridge")  # columns of table 5
VARIANTS = {"without RRCL": "without-rrcl", "without RCCL_u": "without-rccl-u", "ContrastZSD": OWN}
VOC = (
    "The photographs are COCO's, with boxes of VOC's twenty classes alone; the class vectors are "
    "aPY's attributes. DSES is missing: its further names have no attributes. So is the paper's "
    "column Seen: photographs that show seen classes alone have trained the detector, or chosen "
    "options."
)
IOUS = (0.4, 0.5, 0.6)


def split_title(split: str) -> str:
    """A split's name in tables; one of your own keeps its name."""
    return SPLITS.get(split, split)


def markdown(table: Sequence[Sequence[str]], right: int = 1) -> str:
    """A table, whose columns from the ``right``-th on are right-aligned below their header."""
    rule = ["---"] * right + ["---:"] * (len(table[0]) - right)
    return "\n".join("| " + " | ".join(row) + " |" for row in (table[0], rule, *table[1:]))


def in_short(results: Results) -> str:
    """ZSD mAP and GZSD HM of every system on every split, and the distance from ContrastZSD."""
    titles = {row["name"]: row["title"] for result in results.values() for row in result["systems"]}
    parts = []
    for title, key in (("ZSD mAP", ZSD), ("GZSD HM of mAP", HM)):
        header = [title]
        for split in results:
            header += [split_title(split), "minus ContrastZSD"]
        table = [header]
        for name in titles:
            cells = [titles[name]]
            for result in results.values():
                row = _row(result, name)
                cells += [_number(row, key), _difference(row, key)]
            table.append(cells)
        parts.append(markdown(table))
    return "\n\n".join(parts)


def paper_tables(results: Results) -> list[str]:
    """Tables 1 to 6, those whose split was measured."""
    parts = []
    if voc := results.get("voc_16_4"):
        numbers = {"ZSD": ZSD} | GZSD
        paper = {name: values[1:] for name, values in published.VOC.items()}
        parts += [_table("Table 1: VOC 16/4, mAP", VOC, voc, numbers, paper), _table2(voc)]
    coco = {split: result for split, result in results.items() if split in published.COCO_ZSD}
    for split, result in coco.items():
        numbers = {f"Recall@100 IoU {t}": ("zsd", f"Recall@100 IoU {t}", "unseen") for t in IOUS}
        numbers["mAP"] = ZSD
        title = f"Table 3: {split_title(split)}, ZSD"
        parts.append(_table(title, "", result, numbers, published.COCO_ZSD[split]))
    for split, result in coco.items():
        numbers = {f"recall {title}": key for title, key in GZSD_RECALL.items()}
        numbers |= {f"mAP {title}": key for title, key in GZSD.items()}
        title = f"Table 4: {split_title(split)}, GZSD"
        parts.append(_table(title, "", result, numbers, published.COCO_GZSD[split]))
    parts += [_table5(split, result) for split, result in coco.items()]
    parts.append(_table6(results))
    return parts


def _table(
    title: str,
    note: str,
    result: Mapping[str, Any],
    numbers: Mapping[str, Key],
    paper: Mapping[str, Sequence[float | None]],
) -> str:
    table = [["system", *numbers, "in the paper"]]
    for row in result["systems"]:
        cells = [_number(row, key) for key in numbers.values()]
        table.append([row["title"], *cells, _theirs(paper.get(row["title"]))])
    return "\n\n".join(part for part in (f"### {title}", note, markdown(table)) if part)


def _table2(result: Mapping[str, Any]) -> str:
    names = list(result["systems"][0]["classes"]["zsd"])
    table = [["system", *names, "mean", "in the paper"]]
    for row in result["systems"]:
        cells = [_of_class(row["classes"]["zsd"][name], "AP") for name in names]
        mean = _number(row, ("zsd", "mAP@0.5 area", "unseen"))
        theirs = _theirs(published.VOC_BY_CLASS.get(row["title"]))
        table.append([row["title"], *cells, mean, theirs])
    note = f"AP as the area under the curve. {_of_classes(result)}"
    return f"### Table 2: VOC 16/4, AP of the unseen classes in ZSD\n\n{note}\n\n{markdown(table)}"


def _table5(split: str, result: Mapping[str, Any]) -> str:
    names, paper = published.RECALL_BY_CLASS[split]
    rows = [row for name in BY_CLASS if (row := _row(result, name))]
    table = [
        ["class", *(f"{name}, paper" for name in paper), *(row["title"] for row in rows), "boxes"]
    ]
    for name, values in zip(names, zip(*paper.values(), strict=True), strict=True):
        found = [row["classes"]["gzsd"].get(name) for row in rows]
        cells = [_of_class(one, "recall") if one else "-" for one in found]
        boxes = next((f"{one['boxes']:.0f}" for one in found if one), "0")
        table.append([name, *(f"{v:.1f}" for v in values), *cells, boxes])
    means = [f"{published.RECALL_MEAN[split][name]:.1f}" for name in paper]
    ours = [_number(row, ("gzsd", RECALL, "unseen")) for row in rows]
    table.append(["mean", *means, *ours, ""])
    title = f"Table 5: {split_title(split)}, Recall@100 of the unseen classes in GZSD"
    return f"### {title}\n\n{_of_classes(result)}\n\n{markdown(table)}"


def _table6(results: Results) -> str:
    numbers = {"ZSD": ZSD} | GZSD
    table = [["variant", "split", *numbers, "in the paper"]]
    for split, result in results.items():
        paper = published.ABLATIONS if split == "voc_16_4" else {}
        for title, name in VARIANTS.items():
            if row := _row(result, name):
                cells = [_number(row, key) for key in numbers.values()]
                table.append([title, split_title(split), *cells, _theirs(paper.get(title))])
    return f"### Table 6: ablations, mAP\n\n{markdown(table, 2)}"


def _row(result: Mapping[str, Any], name: str) -> Mapping[str, Any] | None:
    return next((row for row in result["systems"] if row["name"] == name), None)


def _theirs(values: Sequence[float | None] | None) -> str:
    if values is None:
        return "-"
    return " / ".join("-" if value is None else f"{value:.1f}" for value in values)


def _of_classes(result: Mapping[str, Any]) -> str:
    """What a cell of one class is."""
    some = next(iter(result["systems"][0]["classes"]["zsd"].values()))
    if some["AP"][1] is None:
        return "A class has the number of the first seed alone."
    return "A class has the mean ± standard deviation over the seeds."


def _of_class(found: Mapping[str, Any], number: str) -> str:
    mean, spread = found[number]
    return f"{mean:.1f}" if spread is None else f"{mean:.1f} ± {spread:.1f}"


def _number(row: Mapping[str, Any] | None, key: Key) -> str:
    if row is None:
        return "-"
    found = row["values"]["|".join(key)]
    low, high = found["interval"]
    return f"{found['mean']:.1f} [{low:.1f}, {high:.1f}]"


def _difference(row: Mapping[str, Any] | None, key: Key) -> str:
    found = row["against"].get("|".join(key)) if row else None
    if found is None:
        return ""
    low, high = found["interval"]
    difference, least, most = (round(n, 1) + 0.0 for n in (found["difference"], low, high))
    text = f"{difference:+.1f} [{least:+.1f}, {most:+.1f}]"
    return f"**{text}**" if low > 0 or high < 0 else text
