"""Turn the logs of ``benchmarks.paper.experiments`` into a page in the paper's layout.

    python -m benchmarks.paper.experiments_page docs/logs.zip --output docs/experiments.md

Tables 1 to 6 with the paper's numbers beside ours, figures 3 to 6 and the seen-unseen curve.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.paper import figures, published
from benchmarks.paper.logs import Logs, Pick, by_class, calibrated, metric, reading
from zsd_core.commands import command, new_parser
from zsd_core.errors import DataError
from zsd_core.files import prepare_files
from zsd_core.learning.data.splits import load_split

__all__ = ["experiments_page", "main", "parse"]

AP, RECALL = "mAP@0.5 voc11", "Recall@100 IoU 0.5"
GROUPS = ("seen", "unseen", "hm")
SWEEPS = {  # of figure 3: the runs' name, their option, and the ablation that is the point 0
    "λ": ("lambda", "unseen_weight", "without-rccl-u"),
    "β": ("beta", "contrast_weight", "without-rrcl"),
}
METHODS = {"ConSE-ZSD, ours": "conse", "ContrastZSD, ours": "contrastzsd"}
VARIANTS = {
    "without RRCL": "without-rrcl",
    "without RCCL_u": "without-rccl-u",
    "ContrastZSD": "contrastzsd",
}
OTHERS = {
    "the recipe": "contrastzsd",
    "temperature of S 0.03": "temperature-0.03",
    "temperature of S 0.3": "temperature-0.3",
    "temperature of S 1": "temperature-1",
    "ReLU ends g_s": "relu",
    "GloVe vectors": "vectors-glove",
    "word2vec vectors": "vectors-word2vec",
    "MiniLM vectors": "vectors-minilm",
}
TITLES = {  # of the readings of eq. 14, by their name in the logs
    "eq. 14 with what seen classes say": "with `seen_evidence`, as in all rows above",
    "eq. 14 without it": "without `seen_evidence`",
}
Rows = list[list[str]]
EXPERIMENTS = "benchmarks.paper.experiments"
HEAD = """# Small experiments: sweeps and pictures

For everyone who asks what one option of the method does: the weights of the losses, S, the class
vectors. [The report](report.md) compares all systems, on many more photographs. Written by
`python -m benchmarks.paper.experiments_page` from {count} logs; do not edit. What is measured is in
[training](training.md#4-evaluate), how to run it with the paper's data in
[reproduce](reproduce.md).

**Not comparable with the paper's numbers, and why.** The paper: ResNet-101 trained end to end,
images of 600 px, human boxes of PASCAL VOC and COCO, thousands of test photographs. Ours: a small
backbone frozen whole, small images, machine-made training boxes, and few test photographs. Within a
split all rows share the trunk, the proposals and the box regression of one checkpoint; p_v and the
scoring are trained anew for {steps} steps on kept features. The backbone's ImageNet weights have
seen several unseen classes, as the paper's have. What can be compared is one row of ours with
another.

**How to read the tables.** ZSD: unseen classes only, on photographs that show one. GZSD: all
classes; S, U and HM are seen classes, unseen classes and the harmonic mean of the two. mAP is at
IoU 0.5 by VOC's 11 points, as in the paper; at most 100 detections of a photograph count. All
numbers are percent, ours as mean ± standard deviation over the seeds that the last column names.
The log of a seed is `SPLIT/RUN-seedN.json` in [{place}]({place}). Few photographs show many of the
classes, so a difference about as large as the deviations says nothing.

**What "ContrastZSD, ours" is.** The method with the options of the checkpoint, those of the
recipe `configs/mobilenetv2_coco_48_17.yaml`, and VOC's attributes for VOC's classes. It is not
calibrated unless a row says so. Its scores are eq. 14 times two factors
that the paper does not have. One is objectness to the power of 5, which ConSE-ZSD gets too. The
other is what a region's seen classes say of the unseen ones (`seen_evidence`), which ConSE-ZSD does
not get. The tables of other options show every set without it.

| set | test | photographs | boxes |
| --- | --- | ---: | ---: |
{tests}

Commands, as the logs recorded them, but for `--part`. `last.pt` is the checkpoint of the split;
file names are those of the machine they ran on, and what they hold is in
[reproduce](reproduce.md#in-small).

```sh
{commands}
```"""
TAIL = """## Read next

- [The report](report.md): every system of the paper on one bench.
- [Reproduce the paper's experiments](reproduce.md): the commands, and what came out in small.
- [What is proved, and what is not](verification.md): every claim and its check."""


def experiments_page(source: Path, output: Path) -> str:
    """The text of the page; pictures are written beside ``output``, under ``images/``.

    Args:
        source: folder of logs, one folder a split, or a zip of it.
        output: place of the page, which its links start from.

    Raises:
        ConfigError: ``output`` cannot be written.
        DataError: there is no log, or a file is not a log.
    """
    prepare_files(output)
    folder = zipfile.Path(source) if zipfile.is_zipfile(source) else source
    found = {
        path.name: Logs(path.name, path.iterdir()) for path in folder.iterdir() if path.is_dir()
    }
    splits = {name: found[name] for name in sorted(found) if found[name].runs}
    if not splits:
        raise DataError(f"{source} holds no logs; benchmarks.paper.experiments writes them.")
    home, pictures = output.parent, output.parent / "images"
    parts = [_head(splits, Path(os.path.relpath(source, home)).as_posix())]
    empty = Logs("nothing")
    parts.append(_table1(splits.get("voc_16_4", empty), home))
    parts.append(_table2(splits.get("voc_16_4", empty), home))
    coco = ("coco_48_17", "coco_65_15")
    for table in (_table3, _table4, _table5):
        parts += [table(splits.get(name, empty), name, home) for name in coco]
    for name, logs in splits.items():
        parts.append(_table6(logs, home))
        parts.append(_options(logs, home))
        if not logs.note:
            parts.append(_figures(name, logs, pictures, home))
    return "\n\n".join(part for part in [*parts, TAIL] if part) + "\n"


def _head(splits: Mapping[str, Logs], place: str) -> str:
    every = [(logs, log) for logs in splits.values() for runs in logs.runs.values() for log in runs]
    steps = sorted({log["steps"] for _, log in every})
    commands, tests = [], []
    for name, logs in splits.items():
        own = [log for runs in logs.runs.values() for log in runs]
        # what two processes shared is one command
        called = {re.sub(r" --part \S+", "", log["command"]) for log in own}
        # older logs hold the name that the command had before it moved
        called = {text.replace(" benchmarks.experiments ", f" {EXPERIMENTS} ") for text in called}
        commands += [f"# {name}", *sorted(called)]
        measured: dict[str, Any] = next((x["results"] for x in own if "results" in x), {})
        for task, result in measured.items():
            tests.append(f"| `{name}` | {task} | {result['images']} | {result['boxes']} |")
    return HEAD.format(
        count=len(every),
        place=place,
        steps=" / ".join(map(str, steps)),
        tests="\n".join(tests),
        commands="\n".join(commands),
    )


def _rows(
    paper: Mapping[str, Sequence[float | None]],
    logs: Logs,
    home: Path,
    picks: Sequence[Pick],
    ours: Mapping[str, str],
) -> Rows:
    rows = [
        [name, *("-" if v is None else f"{v:.1f}" for v in values), "paper"]
        for name, values in paper.items()
    ]
    for name, run in ours.items():
        rows.append([f"**{name}**", *(logs.cell(run, p) for p in picks), logs.link(run, home)])
    return rows


def _table(title: str, note: str, header: Sequence[str], rows: Rows) -> str:
    lines = [f"## {title}", "", *([note, ""] if note else [])]
    lines.append("| " + " | ".join(header) + " |")
    lines.append("| --- " + "| ---: " * (len(header) - 2) + "| --- |")
    lines += ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join(lines)


def _table1(logs: Logs, home: Path) -> str:
    picks = [
        metric("seen", AP, "seen"),
        metric("zsd", AP, "unseen"),
        *(metric("gzsd", AP, group) for group in GROUPS),
    ]
    return _table(
        "Table 1: VOC 16/4, mAP",
        "Ours: VOC's classes on COCO photographs, with aPY's attributes.",
        ["model", "Seen", "ZSD", "S", "U", "HM", "source"],
        _rows(published.VOC, logs, home, picks, METHODS),
    )


def _table2(logs: Logs, home: Path) -> str:
    names = load_split("voc_16_4").unseen
    picks = [*(by_class("zsd", name, 2) for name in names), metric("zsd", AP, "unseen")]
    return _table(
        "Table 2: VOC 16/4, AP of the unseen classes",
        "",
        ["model", *names, "mean", "source"],
        _rows(published.VOC_BY_CLASS, logs, home, picks, METHODS),
    )


def _table3(logs: Logs, split: str, home: Path) -> str:
    picks = [metric("zsd", f"Recall@100 IoU {t}", "unseen") for t in (0.4, 0.5, 0.6)]
    return _table(
        f"Table 3: {split}, ZSD",
        "",
        ["model", "Recall@100 IoU 0.4", "0.5", "0.6", "mAP", "source"],
        _rows(
            published.COCO_ZSD[split], logs, home, [*picks, metric("zsd", AP, "unseen")], METHODS
        ),
    )


def _table4(logs: Logs, split: str, home: Path) -> str:
    picks = [metric("gzsd", number, group) for number in (RECALL, AP) for group in GROUPS]
    rows = _rows(published.COCO_GZSD[split], logs, home, picks, METHODS)
    for name, run in METHODS.items():
        fitted = [log["calibrated"] for log in logs.runs.get(run, []) if "calibrated" in log]
        if fitted:
            title = (
                f"{name}, calibrated: seen x {fitted[0]['seen_scale']:.3g}, temperature "
                f"{fitted[0]['similarity_temperature']:g}"
            )
            cells = [logs.cell(run, calibrated(n, g)) for n in (RECALL, AP) for g in GROUPS]
            rows.append([title, *cells, logs.link(run, home)])
    return _table(
        f"Table 4: {split}, GZSD",
        "",
        ["model", "Recall S", "U", "HM", "mAP S", "U", "HM", "source"],
        rows,
    )


def _table5(logs: Logs, split: str, home: Path) -> str:
    names, paper = published.RECALL_BY_CLASS[split]
    rows = []
    for name, values in zip(names, zip(*paper.values(), strict=True), strict=True):
        ours = [logs.cell(run, by_class("gzsd", name, 3)) for run in METHODS.values()]
        boxes = logs.values("contrastzsd", by_class("gzsd", name, 0))
        rows.append(
            [name, *(f"{v:.1f}" for v in values), *ours, f"{boxes[0]:.0f}" if boxes else "0"]
        )
    means = [f"{published.RECALL_MEAN[split][name]:.1f}" for name in paper]
    ours = [logs.cell(run, metric("gzsd", RECALL, "unseen")) for run in METHODS.values()]
    rows.append(["mean", *means, *ours, ""])
    links = ", ".join(f"{name} {logs.link(run, home)}" for name, run in METHODS.items())
    return _table(
        f"Table 5: {split}, Recall@100 of the unseen classes in GZSD",
        f"Logs: {links}.",
        ["class", *(f"{name}, paper" for name in paper), *METHODS, "boxes here"],
        rows,
    )


def _table6(logs: Logs, home: Path) -> str:
    picks = [metric("zsd", AP, "unseen"), *(metric("gzsd", AP, group) for group in GROUPS)]
    paper = {f"{name}, paper on VOC": values for name, values in published.ABLATIONS.items()}
    baseline = {"ConSE-ZSD": METHODS["ConSE-ZSD, ours"]}
    ours = {f"{name}, ours": run for name, run in (baseline | VARIANTS).items()}
    return _table(
        f"Table 6: ablations, mAP; ours on {logs.split}",
        logs.note,
        ["variant", "ZSD", "S", "U", "HM", "source"],
        _rows(paper, logs, home, picks, ours),
    )


def _options(logs: Logs, home: Path) -> str:
    picks = [
        metric("zsd", AP, "unseen"),
        *(metric("gzsd", AP, group) for group in GROUPS),
        metric("zsd", RECALL, "unseen"),
    ]
    rows = _rows({}, logs, home, picks, {k: v for k, v in OTHERS.items() if v in logs.runs})
    readings: dict[str, Any] = next(
        (log["readings"] for log in logs.runs.get("contrastzsd", []) if "readings" in log), {}
    )
    for name in readings:
        cells = [
            logs.cell("contrastzsd", reading(name, task, number, group))
            for task, number, group in (
                ("zsd", AP, "unseen"),
                *(("gzsd", AP, group) for group in GROUPS),
                ("zsd", RECALL, "unseen"),
            )
        ]
        rows.append([TITLES.get(name, name), *cells, logs.link("contrastzsd", home)])
    return _table(
        f"Other options on {logs.split}, mAP and ZSD recall",
        "",
        ["option", "ZSD", "S", "U", "HM", "ZSD Recall@100", "source"],
        rows,
    )


def _figures(split: str, logs: Logs, pictures: Path, home: Path) -> str:
    unseen = load_split(split).unseen
    lines: list[str] = []

    def show(title: str, name: str, runs: Iterable[str]) -> None:
        links = ", ".join(f"{run} {logs.link(run, home)}" for run in runs if run in logs.runs)
        file = pictures / name
        lines.extend(
            [
                f"## {title}",
                "",
                f"![{title}]({Path(os.path.relpath(file, home)).as_posix()})",
                "",
                f"Logs: {links}.",
                "",
            ]
        )

    points = {title: logs.points(*names) for title, names in SWEEPS.items()}
    sweep = {
        title: {
            value: {
                "ZSD": logs.values(run, metric("zsd", AP, "unseen")),
                "GZSD HM": logs.values(run, metric("gzsd", AP, "hm")),
            }
            for value, run in runs.items()
        }
        for title, runs in points.items()
    }
    drawn = [sum(bool(n["ZSD"]) for n in values.values()) for values in sweep.values()]
    if min(drawn) < 3:  # two are the ablation and the checkpoint's own, which table 6 holds
        lines.extend([f"## Figure 3: sweeps on {split}", "", "Not run.", ""])
    else:
        figures.sweeps(sweep, pictures / f"sweeps-{split}.png")
        runs = dict.fromkeys(run for part in points.values() for run in part.values())
        show(f"Figure 3: sweeps on {split}", f"sweeps-{split}.png", runs)
    first = {
        title: next((log for log in logs.runs.get(run, []) if log["seed"] == 0), {})
        for title, run in METHODS.items()
    }
    with_maps = {t: log["regions"] for t, log in first.items() if log.get("regions")}
    if with_maps:
        figures.region_maps(with_maps, unseen, pictures / f"regions-{split}.png")
        show(
            f"Figure 4: regions of {split} by t-SNE of v, seed 0",
            f"regions-{split}.png",
            METHODS.values(),
        )
    with_boxes = {t: log["detections"] for t, log in first.items() if log.get("detections")}
    if with_boxes:
        figures.detections(with_boxes, unseen, pictures / f"detections-{split}.jpg")
        show(
            f"Figures 5 and 6: the six best boxes, classes of {split}, seed 0 (seen red, unseen "
            "green)",
            f"detections-{split}.jpg",
            METHODS.values(),
        )
    curves = {title: log["curve"] for title, log in first.items() if log.get("curve")}
    if curves:
        figures.seen_unseen(curves, pictures / f"curve-{split}.png")
        show(
            f"Seen against unseen on {split}, seed 0, by area; the dot is the factor 1",
            f"curve-{split}.png",
            METHODS.values(),
        )
    return "\n".join(lines).rstrip()


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = new_parser("benchmarks.paper.experiments_page", __doc__)
    add = parser.add_argument
    add("logs", type=Path, help="folder of benchmarks.paper.experiments, or a zip")
    add("--output", type=Path, required=True, help="such as docs/experiments.md")
    return parser.parse_args(argv)


@command
def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; 0 on success, 1 with a sentence on stderr."""
    args = parse(argv)
    if not (args.logs.is_dir() or zipfile.is_zipfile(args.logs)):
        place = "a folder of benchmarks.paper.experiments"
        raise DataError(f"{args.logs} is neither {place} nor a zip of one.")
    args.output.write_text(experiments_page(args.logs, args.output), encoding="utf-8")
    print(args.output)
    return 0


if __name__ == "__main__":
    sys.exit(main())
