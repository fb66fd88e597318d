r"""Cost and gain of a precision, against the float32 of the same bundle.

    python -m export.tradeoff bundle/ --precision int8 --backend onnxruntime openvino
    python -m export.tradeoff bundle/ --precision int8 --calls 200 --threads 2 \
        --annotations instances.json --images images --split coco_48_17
    python -m export.tradeoff bundle/ --precision fp16 int8 --annotations instances.json \
        --images images --subset validation --markdown docs/precision.md --slot open-precisions

Per stage: the largest difference, and the error as a share of the signal, each stage fed with what
float32 feeds it. End to end: how many of the best detections agree and, with float32's as the
truth, mAP@0.5 of seen and unseen classes apart (100 is no loss). With annotations: the difference
in real mAP by paired bootstrap, by the protocol of ``--split`` or, without one, of all categories,
and of the same categories by their names alone where the model looks a second time. With
``--markdown``: all of it as a table. With ``--calls``: the median time of both networks, in turns,
so that a busy machine hits both alike.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from export.checks.agreement import (
    LIMITS,
    accuracy,
    accuracy_lines,
    agreement,
    agreement_lines,
    number,
    points,
    stage_errors,
    traces,
)
from export.checks.differences import conditions
from export.checks.images import NamedImage, folder_images, photographs
from export.checks.labels import Labels
from export.checks.traces import Trace, head_inputs
from export.graphs.inspect import STAGES
from export.writing.markdown import fill_slot, find_slot
from runtime.backends import open_backend
from runtime.bundle import PRECISIONS, open_bundle
from zsd_core.commands import command, new_parser
from zsd_core.errors import require
from zsd_core.files import prepare_files
from zsd_core.learning.data.subsets import SUBSETS
from zsd_core.stages import Networks

__all__ = [
    "main",
    "markdown",
    "median_times",
    "networks_size",
    "parse",
    "tradeoff",
    "tradeoff_table",
]

SLOT = "precisions"


def tradeoff(
    path: Path,
    precision: str,
    *,
    images: Path | Sequence[NamedImage] | None = None,
    backends: Sequence[str] = ("onnxruntime",),
    against: str | None = None,
    threads: int | None = None,
    calls: int = 0,
) -> dict[str, Any]:
    """Compare a precision with float32 on each backend; JSON values.

    Args:
        path: of the bundle.
        precision: one of ``PRECISIONS``.
        images: a folder, or images; None takes the packaged photographs.
        backends: to run the precision on.
        against: backend of float32; None takes the same one.
        threads: of the backends.
        calls: measured calls of each network; 0 measures no time.
    """
    bundle = open_bundle(path)
    if images is None:
        images = photographs()
    elif isinstance(images, Path):
        images = folder_images(images)
    parts = []
    for name in backends:
        exact = open_backend(against or name, bundle, threads)
        rounded = open_backend(name, bundle, threads, precision=precision)
        pairs = list(
            zip(traces(bundle, exact, images), traces(bundle, rounded, images), strict=True)
        )
        part = {
            "backend": rounded.description,
            "family": name,
            "against": exact.description,
            "stages": stage_errors(rounded, pairs),
            "end_to_end": agreement(bundle, pairs, images),
        }
        if calls:
            part["median_ms"] = median_times(exact, rounded, pairs[0][0], calls)
        parts.append(part)
        exact.close()
        rounded.close()
    return {
        "precision": precision,
        "backends": parts,
        "conditions": conditions(
            [(image.name, image.pixels.shape) for image in images],
            LIMITS,
            # Versions of TensorRT stand in the description of its backend.
            ["numpy", *(name for name in backends if name in ("onnxruntime", "openvino"))],
            threads=threads,
            calls=calls,
        ),
    }


def median_times(
    exact: Networks, rounded: Networks, sample: Trace, calls: int
) -> dict[str, dict[str, float]]:
    """Median milliseconds of trunk and head, float32 and rounded in turns."""
    inputs = {"trunk": [sample["images"]], "head": list(head_inputs(sample).values())}
    result: dict[str, dict[str, float]] = {}
    for stage, arrays in inputs.items():
        if not arrays:
            continue
        runs = {"float32": getattr(exact, stage), "rounded": getattr(rounded, stage)}
        taken: dict[str, list[float]] = {name: [] for name in runs}
        for call in range(calls + 3):
            for name, function in runs.items():
                start = time.perf_counter()
                function(*arrays)
                if call >= 3:  # the first ones allocate
                    taken[name].append(1e3 * (time.perf_counter() - start))
        result[stage] = {name: statistics.median(values) for name, values in taken.items()}
    return result


def tradeoff_table(report: Mapping[str, Any]) -> str:
    """A report for people."""
    lines = []
    for part in report["backends"]:
        lines.append(f"{part['backend']} against {part['against']}")
        lines += agreement_lines(part)
        if truth := part["end_to_end"].get("map_of_float32"):
            values = ", ".join(f"{k} {v:.1f}" for k, v in truth.items() if v)
            lines.append(f"  mAP@0.5 with float32's detections as truth: {values}")
        for stage, times in part.get("median_ms", {}).items():
            ratio = times["float32"] / times["rounded"]
            lines.append(
                f"  {stage}: {times['rounded']:.2f} ms, float32 {times['float32']:.2f} ms, "
                f"{ratio:.2f} times as fast"
            )
        for task, numbers in part.get("accuracy", {}).items():
            lines += accuracy_lines(task, numbers["mAP@0.5 area"])
    return "\n".join(lines)


def markdown(path: Path, reports: Sequence[Mapping[str, Any]]) -> str:
    """Reports of several precisions as one table.

    Args:
        path: of the bundle, for the sizes of its networks.
        reports: of :func:`tradeoff`; with "accuracy" where labels were given.
    """
    rows: list[list[str]] = []
    heads = ["precision", "backend", "networks, MB", "noise of the worst output", "detections kept"]
    tasks = dict.fromkeys(
        f"{task} {group}"
        for report in reports
        for part in report["backends"]
        for task, numbers in part.get("accuracy", {}).items()
        for group in numbers["mAP@0.5 area"]
        if numbers["mAP@0.5 area"][group]["difference"] is not None
    )
    for report in reports:
        for part in report["backends"]:
            whole = part["end_to_end"]
            worst = max(number(row["noise"]) for row in part["stages"].values())
            row = [
                report["precision"],
                part["backend"].split(",")[0],
                f"{networks_size(path, report['precision'], part['family']) / 1e6:.1f}",
                f"{100 * worst:.2g} %",
                f"{whole['matched']} of {whole['expected']}",
            ]
            for name in tasks:
                task, group = name.rsplit(" ", 1)
                row.append(points(part["accuracy"][task]["mAP@0.5 area"][group]))
            rows.append(row)
    heads += [f"mAP@0.5, {name}" for name in tasks]
    rules = ["---", "---", *(["---:"] * (len(heads) - 2))]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (heads, rules, *rows))


def networks_size(path: Path, precision: str, backend: str) -> int:
    """Bytes of trunk and head in a precision, with the weights that lie in files of their own."""
    bundle, onnx = open_bundle(path), require("onnx", "export")
    total, parts = 0, dict[Path, set[range]]()  # both networks, and two tensors, may share bytes
    for stage in STAGES:
        file = bundle.network(stage, precision, backend)
        total += file.stat().st_size
        for tensor in onnx.load(file, load_external_data=False).graph.initializer:
            if tensor.external_data:
                entry = {item.key: item.value for item in tensor.external_data}
                start = int(entry.get("offset", 0))
                read = range(start, start + int(entry["length"]))
                parts.setdefault(file.parent / entry["location"], set()).add(read)
    for ranges in parts.values():
        end = 0
        for read in sorted(ranges, key=lambda part: (part.start, part.stop)):
            total += max(0, read.stop - max(end, read.start))
            end = max(end, read.stop)
    return total


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = new_parser("export.tradeoff", __doc__)
    add = parser.add_argument
    add("bundle", type=Path, help="that holds the precision")
    add("--precision", required=True, nargs="+", choices=PRECISIONS, help="one or more")
    add("--backend", nargs="+", default=["onnxruntime"], help="one or more (onnxruntime)")
    add("--compare-on", type=Path, metavar="DIR", help="images; default: packaged photographs")
    add("--threads", type=int, metavar="N", help="of the backends (all that the process may use)")
    add("--calls", type=int, default=0, metavar="N", help="measure the time of N calls (0: none)")
    add("--annotations", nargs="+", help="COCO JSON files, or VOC image sets: measure mAP")
    add("--images", nargs="+", help="image folder of each")
    add("--format", choices=("coco", "voc"), default="coco")
    add("--split", help="coco_48_17, ..., or a JSON/YAML file; without: all categories are asked")
    add("--subset", choices=SUBSETS, default="", help="only these photographs, by a hash (all)")
    add("--samples", type=int, default=1000, help="bootstrap samples over images (1000)")
    add("--json", type=Path, metavar="FILE", help="write everything here too")
    add(
        "--markdown", type=Path, metavar="FILE", help="fill its <!-- numbers: SLOT --> with a table"
    )
    add("--slot", default=SLOT, help=f"of --markdown ({SLOT})")
    args = parser.parse_args(argv)
    if bool(args.annotations) != bool(args.images):
        parser.error("--annotations and --images are given together: they measure mAP")
    if (args.split or args.subset) and not args.annotations:
        parser.error("--split and --subset need --annotations and --images")
    if args.calls < 0 or args.samples < 1:
        parser.error("--calls must not be negative, --samples at least 1")
    return args


@command
def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; 0 on success, 1 with a sentence on stderr."""
    args = parse(argv)
    prepare_files(args.json)
    if args.markdown:
        find_slot(args.markdown, args.slot)
    labels = None
    if args.annotations:
        labels = Labels.read(
            open_bundle(args.bundle),
            args.annotations,
            args.images,
            args.split,
            args.format,
            args.samples,
            args.subset,
        )
    reports = []
    for precision in args.precision:
        report = tradeoff(
            args.bundle,
            precision,
            images=args.compare_on,
            backends=args.backend,
            threads=args.threads,
            calls=args.calls,
        )
        for part, name in zip(report["backends"], args.backend, strict=True):
            if labels is not None:
                part["accuracy"] = accuracy(
                    args.bundle, precision, labels, backend=name, threads=args.threads
                )
        reports.append(report)
        print("\n".join([f"{precision}:"] * (len(args.precision) > 1) + [tradeoff_table(report)]))
    if args.json:
        whole = reports[0] if len(reports) == 1 else reports
        text = json.dumps(whole, indent=1, ensure_ascii=False) + "\n"
        args.json.write_text(text, encoding="utf-8")
    if args.markdown:
        fill_slot(args.markdown, args.slot, markdown(args.bundle, reports))
    return 0


if __name__ == "__main__":
    sys.exit(main())
