r"""What a precision costs and what it gains, against the float32 of the same bundle.

    python -m export.tradeoff bundle/ --precision int8 --backend onnxruntime openvino
    python -m export.tradeoff bundle/ --precision int8 --calls 200 --threads 2 \
        --annotations instances.json --images images --split coco_48_17

Per stage: the largest difference, and the error as a share of the signal, each stage fed with what
float32 feeds it. End to end: how many of the best detections agree and, with float32's as the
truth, mAP@0.5 of seen and unseen classes apart (100 is no loss). With annotations: the difference
in real mAP by paired bootstrap. With ``--calls``: the median time of both networks, in turns, so
that a busy machine hits both alike.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from export.compare import class_table
from export.evaluate import Labels, bundle_predictor
from export.parity import IMAGE_STAGES, Comparison, Limits, conditions, finite
from export.stages import (
    NamedImage,
    Trace,
    folder_images,
    head_inputs,
    inputs_of,
    pipeline_trace,
    sample_images,
)  # fmt: skip
from runtime.backends import open_backend
from runtime.bundle import PRECISIONS, Bundle, open_bundle
from zsd_core import metrics
from zsd_core.data.dataset import ImageRecord
from zsd_core.errors import ZsdError
from zsd_core.files import prepare_files
from zsd_core.matching import match
from zsd_core.pipeline import Networks

__all__ = [
    "accuracy", "accuracy_lines", "agreement", "agreement_lines", "as_truth", "main",
    "median_times", "number", "parse", "photographs", "points", "stage_errors", "traces",
    "tradeoff", "tradeoff_table",
]  # fmt: skip

# Partners of detections: less strict than a port's parity, since rounding moves boxes.
MADE_UP = ("blocks", "noise", "grey", "1 x 1")  # of the sample images: no photographs
BEST = 10  # detections of an image that float32 is taken at its word for
LIMITS = Limits(relative=0.1, pixels=16, matched=0.5, overlap=0.5)


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
            [(image.name, image.pixels.shape) for image in images], LIMITS, _packages(backends),
            threads=threads, calls=calls,
        ),
    }  # fmt: skip


def stage_errors(
    rounded: Networks, pairs: Sequence[tuple[Trace, Trace]]
) -> dict[str, dict[str, float | None]]:
    """Per output ``largest`` and ``mean`` difference, and ``noise``: its RMS over the signal's.

    The head of both gets the patches of float32, so that errors do not add up. What is not finite,
    as where float16 overflows, is None.
    """
    sums: dict[str, NDArray[np.float64]] = {}  # largest, error, both squares, count
    for expected, got in pairs:
        found = {name: got[name] for name in IMAGE_STAGES if name in got}
        if patches := head_inputs(expected):
            outputs = rounded.head(*patches.values())
            found |= zip(("embeddings", "box_deltas"), outputs, strict=True)
        for name, values in found.items():
            truth = expected[name].astype(np.float64)
            with np.errstate(invalid="ignore"):  # of two infinities
                apart = np.abs(truth - values)
            worst = float(apart.max(initial=0))
            own = sums.setdefault(name, np.zeros(5))
            own[0] = np.maximum(own[0], worst)  # NaN stays
            own[1:] += apart.sum(), (apart**2).sum(), (truth**2).sum(), apart.size
    return {
        name: {
            "largest": finite(float(s[0])),
            "mean": finite(float(s[1] / max(s[4], 1))),
            "noise": finite(float(np.sqrt(s[2] / max(s[3], 1e-30)))),
        }
        for name, s in sums.items()
    }


def agreement(
    bundle: Bundle, pairs: Sequence[tuple[Trace, Trace]], images: Sequence[NamedImage]
) -> dict[str, Any]:
    """How the best detections of an image agree, and mAP@0.5 with float32's best as the truth.

    Scores of eq. 14 differ much between models, so the best ten are taken and no threshold.
    """
    config, names = bundle.model_config, (*bundle.seen, *bundle.unseen)
    comparison = Comparison("", "", LIMITS, config)
    records, predictions = [], []
    for image, (expected, got) in zip(images, pairs, strict=True):
        kept = _best(expected, BEST)
        comparison.add_detections(kept, _best(got, BEST))
        predictions.append((got["boxes"], got["scores"], got["columns"]))
        records.append(as_truth(image, kept, names))
    (row,) = (r for r in comparison.rows() if r["stage"].startswith("detections"))
    result: dict[str, Any] = {
        key: row[key] for key in ("expected", "got", "matched", "class_flips", "box_mean")
    }
    if row["expected"]:
        report = metrics.report(match(records, predictions, names, bundle.seen), samples=0)
        result["map_of_float32"] = report["values"]["mAP@0.5 area"]
    return result


def accuracy(
    path: Path, precision: str, labels: Labels, *, backend: str = "onnxruntime",
    threads: int | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Difference in mAP and recall on human labels, in points, by paired bootstrap.

    Returns:
        Per task ("zsd", "gzsd") what :func:`zsd_core.metrics.compare` gives: a negative difference
        is a loss, seen and unseen classes apart.
    """
    bundle = open_bundle(path)
    rounded, exact = (
        labels.matches(*bundle_predictor(
            bundle, labels.split, backend=backend, threads=threads, precision=name
        )[:2])
        for name in (precision, "float32")
    )  # fmt: skip
    return {
        task: metrics.compare(rounded[task], exact[task], samples=labels.samples)
        for task in exact
    }  # fmt: skip


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


def agreement_lines(part: Mapping[str, Any]) -> list[str]:
    """The error of every stage and the detections found again, of one backend."""
    whole = part["end_to_end"]
    return [
        f"  {'stage':<16} {'largest':>9} {'mean':>9} {'noise':>10}",
        *(
            f"  {name:<16} {number(row['largest']):>9.2e} {number(row['mean']):>9.2e} "
            f"{100 * number(row['noise']):>8.2g} %"
            for name, row in part["stages"].items()
        ),
        f"  best detections: {whole['matched']} of {whole['expected']} matched, "
        f"{whole['class_flips']} class flips",
    ]


def number(value: float | None) -> float:
    """What ``finite`` made None is infinite again, and so beyond every limit."""
    return math.inf if value is None else value


def accuracy_lines(task: str, groups: Mapping[str, Any]) -> list[str]:
    """The difference in mAP of every group of classes."""
    return [f"  {task} {group}: {points(entry)} mAP@0.5" for group, entry in groups.items()]


def points(entry: Mapping[str, Any]) -> str:
    """A difference with its interval."""
    low, high = entry["interval"]
    return f"{entry['difference']:+.2f} [{low:+.2f}, {high:+.2f}]"


def traces(bundle: Bundle, networks: Networks, images: Sequence[NamedImage]) -> list[Trace]:
    """What every stage gives for each image, at score threshold 0; ``images`` is the input."""
    scorer, classes = class_table(bundle)
    config, thresholds = bundle.model_config, np.zeros(len(classes.names), np.float32)
    found = []
    for image in images:
        trace = pipeline_trace(networks, scorer, classes, config, [image.pixels], thresholds)
        found.append(trace | {"images": inputs_of(config, [image.pixels])["images"]})
    return found


def photographs() -> list[NamedImage]:
    """The packaged photographs: real ones only."""
    return [image for image in sample_images() if image.name not in MADE_UP]


def _packages(backends: Sequence[str]) -> list[str]:
    """Distributions whose versions are recorded; TensorRT's are in the backend's description."""
    return ["numpy", *(name for name in backends if name in ("onnxruntime", "openvino"))]


def _best(trace: Trace, count: int) -> Trace:
    """The first detections of one image; they are sorted."""
    return {n: trace[n][:count] for n in ("boxes", "scores", "columns", "batch_indices")}


def as_truth(image: NamedImage, trace: Trace, names: Sequence[str]) -> ImageRecord:
    """Detections as if they were labels."""
    count = len(trace["boxes"])
    never = np.zeros(count, bool)
    return ImageRecord(
        path=Path(image.name), id=image.name, width=image.pixels.shape[1],
        height=image.pixels.shape[0], boxes=trace["boxes"],
        labels=tuple(names[c] for c in trace["columns"]), scores=np.ones(count, np.float32),
        crowd=never, difficult=never, ignore=never,
    )  # fmt: skip


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m export.tradeoff", description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    add = parser.add_argument
    add("bundle", type=Path, help="that holds the precision")
    add("--precision", required=True, choices=PRECISIONS)
    add("--backend", nargs="+", default=["onnxruntime"], help="one or more (onnxruntime)")
    add("--against", metavar="BACKEND", help="of float32 (the same one)")
    add("--compare-on", type=Path, metavar="DIR", help="images; default: packaged photographs")
    add("--threads", type=int, metavar="N", help="of the backends (all cores)")
    add("--calls", type=int, default=0, metavar="N", help="measure the time of N calls (0: none)")
    add("--annotations", nargs="+", help="COCO JSON files, or VOC image sets: measure mAP")
    add("--images", nargs="+", help="image folder of each")
    add("--format", choices=("coco", "voc"), default="coco")
    add("--split", help="coco_48_17, coco_65_15, voc_16_4, or a JSON/YAML file")
    add("--samples", type=int, default=1000, help="bootstrap samples over images (1000)")
    add("--json", type=Path, metavar="FILE", help="write everything here too")
    args = parser.parse_args(argv)
    if len({bool(given) for given in (args.annotations, args.images, args.split)}) > 1:
        parser.error("--annotations, --images and --split are given together: they measure mAP")
    if args.calls < 0 or args.samples < 1:
        parser.error("--calls must not be negative, --samples at least 1")
    return args


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; 0 on success, 1 with a sentence on stderr."""
    args = parse(argv)
    try:
        prepare_files(args.json)
        labels = None
        if args.annotations:
            labels = Labels.read(
                open_bundle(args.bundle), args.annotations, args.images, args.split, args.format,
                args.samples,
            )  # fmt: skip
        report = tradeoff(
            args.bundle, args.precision, images=args.compare_on, backends=args.backend,
            against=args.against,
            threads=args.threads, calls=args.calls,
        )  # fmt: skip
        for part, name in zip(report["backends"], args.backend, strict=True):
            if labels is not None:
                part["accuracy"] = accuracy(
                    args.bundle, args.precision, labels, backend=name, threads=args.threads
                )
        if args.json:
            text = json.dumps(report, indent=1, ensure_ascii=False) + "\n"
            args.json.write_text(text, encoding="utf-8")
    except (ZsdError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(tradeoff_table(report))
    return 0


if __name__ == "__main__":
    sys.exit(main())
