r"""Verify a bundle on this machine: every artifact on every backend that runs here.

    python -m export.verify bundle/ --compare-on photographs/ --json report.json
    python -m export.verify bundle/ --checkpoint last.pt --annotations instances.json \
        --images photographs/ --split coco_48_17 --record --markdown docs/precision.md

First ``detector.onnx``, every stage of it, against the runtime's pipeline, and the file itself
against ``runtime.Detector``, with the score threshold lowered to 0. Then trunk and head in each
precision that the bundle holds, on each installed backend, against PyTorch (``--checkpoint``) or
ONNX Runtime in float32: the error of every stage, detections found again, class flips, and with
human labels the difference in mAP. The tolerances are ``export.checks.variants.TOLERANCES``. Prints
tables; exits with 1 beyond a tolerance.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from export.checks.differences import Limits, table
from export.checks.images import NamedImage, folder_images, photographs, sample_images
from export.checks.labels import Labels
from export.checks.parity import compare_stages, compare_with_detector, compared_classes
from export.checks.variants import Truth, compare_variants, markdown, variants_of, variants_table
from export.writing.bundle_writer import amend_bundle
from export.writing.markdown import fill_slot, find_slot
from export.writing.replacing import check_replaceable
from runtime import Detector
from runtime.backends import installed_backends, open_backend
from runtime.backends.trt_package import EXTRAS
from runtime.bundle import PRECISIONS, open_bundle
from zsd_core.commands import Steps, command, new_parser
from zsd_core.files import prepare_files

__all__ = ["main", "parse", "verify"]

SLOT = "parity"


def verify(
    path: Path | None,
    images: Sequence[NamedImage],
    *,
    backend: str = "onnxruntime",
    limits: Limits | None = None,
    threads: int | None = None,
    step: Steps | None = None,
) -> dict[str, Any]:
    """Compare ``detector.onnx`` with the runtime; the report as JSON values.

    Args:
        path: of the bundle; None takes the one that ships.
        images: to compare on.
        backend: of the runtime.
        limits: where agreement ends.
        threads: of the runtime's backend.
        step: progress, three steps.

    Raises:
        BundleError: the bundle is damaged or holds no ``detector.onnx``.
    """
    limits, step = limits or Limits(), step or Steps(3)
    with step("open and check the bundle"):
        bundle = open_bundle(path)
        bundle.file("detector.onnx")
        networks = open_backend(backend, bundle, threads)
    with step(f"compare every stage on {len(images)} images"):
        report = compare_stages(
            bundle,
            *compared_classes(bundle),
            images,
            limits,
            truth=(f"the runtime on {networks.name}", networks),
            packages=("numpy", "onnx", "onnxruntime"),
        )
        networks.close()
    with (
        step("compare with Detector, end to end"),
        Detector(
            bundle,
            backend=backend,
            classes=compared_classes(bundle)[1].names,
            score_threshold=0.0,
            threads=threads,
        ) as detector,
    ):
        whole = compare_with_detector(detector, images, limits)
    report["bundle"] = bundle.name
    report["comparisons"].append(whole.report())
    report["passed"] = report["passed"] and whole.passed
    return report


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = new_parser("export.verify", __doc__)
    add = parser.add_argument
    add("bundle", type=Path, nargs="?", help="directory or zip (default: the one that ships)")
    add("--compare-on", type=Path, metavar="DIR", help="images; default: packaged photographs")
    add("--backend", nargs="+", help="of the runtime (every one installed that needs no engine)")
    add("--engine", nargs="+", default=[], choices=tuple(EXTRAS), help="run engines of these too")
    add("--precision", nargs="+", choices=PRECISIONS, help="(all that the bundle holds)")
    add("--checkpoint", type=Path, metavar="FILE", help="PyTorch on it is the truth")
    add("--annotations", nargs="+", help="COCO JSON files, or VOC image sets: measure mAP too")
    add("--images", nargs="+", metavar="DIR", help="image folder of each")
    add("--format", choices=("coco", "voc"), default="coco")
    add("--split", help="coco_48_17, coco_65_15, voc_16_4, or a JSON/YAML file")
    add("--samples", type=int, default=1000, help="of the bootstrap over images (1000)")
    add("--threads", type=int, metavar="N", help="of the backends (all that the process may use)")
    add("--json", type=Path, metavar="FILE", help="write the report here too")
    add("--record", action="store_true", help="write the report into the bundle, verify.json")
    add(
        "--markdown",
        type=Path,
        metavar="FILE",
        help=f"fill its <!-- numbers: {SLOT} --> with the table of variants",
    )
    args = parser.parse_args(argv)
    if len({bool(given) for given in (args.annotations, args.images, args.split)}) > 1:
        parser.error("--annotations, --images and --split are given together: they measure mAP")
    if args.samples < 1:
        parser.error("--samples must be at least 1")
    if args.record and args.bundle is None:
        parser.error("--record needs the bundle named: the one that ships is not changed")
    return args


@command
def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line: 0 where everything agrees, else 1."""
    args, step = parse(argv), Steps(4)
    prepare_files(args.json)
    if args.markdown:
        find_slot(args.markdown, SLOT)
    if args.record:
        check_replaceable(args.bundle)
    report = _run(args, step)
    text = json.dumps(report, indent=1, ensure_ascii=False) + "\n"
    if args.json:
        args.json.write_text(text, encoding="utf-8")
    if args.record:
        amend_bundle(args.bundle, {"verify.json": text.encode()})
    if args.markdown:
        fill_slot(args.markdown, SLOT, markdown(report["networks"]))
    print(table(report))
    print(variants_table(report["networks"]))
    print("agrees" if report["passed"] else "DIFFERS: see the rows marked '!'")
    return 0 if report["passed"] else 1


def _run(args: argparse.Namespace, step: Steps) -> dict[str, Any]:
    """Both parts of the report."""
    images = folder_images(args.compare_on) if args.compare_on else sample_images()
    backends: list[str] = args.backend or [b for b in installed_backends() if b not in EXTRAS]
    bundle, labels = open_bundle(args.bundle), None
    if args.annotations:
        labels = Labels.read(
            bundle, args.annotations, args.images, args.split, args.format, args.samples
        )
    truth = Truth.of(bundle, args.checkpoint, args.threads)
    report = verify(args.bundle, images, backend=backends[0], threads=args.threads, step=step)
    held = [e["package"] for e in bundle.engines]
    candidates = dict.fromkeys([*backends, *args.engine, *([] if args.backend else held)])
    variants = [*variants_of(bundle, [*candidates], args.precision)]
    with step(f"compare {len(variants)} variants of the networks"):
        report["networks"] = compare_variants(
            bundle,
            images if args.compare_on else photographs(),
            truth,
            variants,
            labels=labels,
            threads=args.threads,
            required=[*backends, *args.engine],
        )
    report["passed"] = report["passed"] and report["networks"]["passed"]
    return report


if __name__ == "__main__":
    sys.exit(main())
