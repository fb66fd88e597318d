r"""Verify a bundle on this machine: every artifact on every backend that runs here.

    python -m export.verify bundle/ --images photographs/ --json report.json
    python -m export.verify bundle/ --checkpoint last.pt --annotations instances.json \
        --labelled photographs/ --split coco_48_17 --record --markdown README.md

First ``detector.onnx``, every stage of it, against the runtime's pipeline, and the file itself
against ``runtime.Detector``, with the score threshold lowered to 0. Then trunk and head in each
precision that the bundle holds, on each installed backend, against PyTorch (``--checkpoint``) or
ONNX Runtime in float32: the error of every stage, detections found again, class flips, and with
human labels the difference in mAP. The tolerances are ``export.variants.TOLERANCES``. Prints
tables; exits with 1 beyond a tolerance.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from export.compare import class_table, compare_stages, compare_with_detector
from export.evaluate import Labels
from export.parity import Limits, table
from export.stages import NamedImage, folder_images, sample_images
from export.tradeoff import photographs
from export.variants import (
    Truth,
    compare_variants,
    markdown,
    variants_of,
    variants_table,
)
from runtime import Detector
from runtime.backends import installed_backends, open_backend
from runtime.backends.trt_package import EXTRAS
from runtime.bundle import PRECISIONS, amend_bundle, open_bundle
from zsd_core.errors import ConfigError, ZsdError
from zsd_core.files import prepare_files
from zsd_core.progress import Steps

__all__ = ["fill_slot", "find_slot", "main", "parse", "verify"]

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
            bundle, *class_table(bundle), images, limits,
            truth=(f"the runtime on {networks.name}", networks),
            packages=("numpy", "onnx", "onnxruntime"),
        )  # fmt: skip
        networks.close()
    with (
        step("compare with Detector, end to end"),
        Detector(bundle, backend=backend, score_threshold=0.0, threads=threads) as detector,
    ):
        whole = compare_with_detector(detector, images, limits)
    report["bundle"] = bundle.name
    report["comparisons"].append(whole.report())
    report["passed"] = report["passed"] and whole.passed
    return report


def fill_slot(path: Path, name: str, text: str) -> None:
    """Put measured numbers between ``<!-- numbers: NAME -->`` and ``<!-- /numbers -->``.

    Raises:
        ConfigError: the file cannot be read, or has no such place.
    """
    before, after = find_slot(path, name)
    path.write_text(f"{before}{text}\n{after}", encoding="utf-8")


def find_slot(path: Path, name: str) -> tuple[str, str]:
    """What stands before and after the numbers, marks included; see :func:`fill_slot`."""
    try:
        page = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} cannot be filled with numbers: {error}") from error
    begin, end = f"<!-- numbers: {name} -->\n", "<!-- /numbers -->"
    before, found, rest = page.partition(begin)
    _, closed, after = rest.partition(end)
    if not (found and closed):
        raise ConfigError(f"{path} has no line {begin.strip()!r} with {end!r} behind it.")
    return before + begin, end + after


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    default = Limits()
    parser = argparse.ArgumentParser(
        prog="python -m export.verify",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("bundle", type=Path, nargs="?", help="directory or zip (default: the one that ships)")
    add("--images", type=Path, metavar="DIR", help="a folder; default: packaged photographs")
    add("--backend", nargs="+", help="of the runtime (every one installed that needs no engine)")
    add("--engine", nargs="+", default=[], choices=tuple(EXTRAS), help="run engines of these too")
    add("--precision", nargs="+", choices=PRECISIONS, help="(all that the bundle holds)")
    add("--checkpoint", type=Path, metavar="FILE", help="PyTorch on it is the truth")
    add("--annotations", nargs="+", help="COCO JSON files, or VOC image sets: measure mAP too")
    add("--labelled", nargs="+", metavar="DIR", help="image folder of each")
    add("--format", choices=("coco", "voc"), default="coco")
    add("--split", help="coco_48_17, coco_65_15, voc_16_4, or a JSON/YAML file")
    add("--samples", type=int, default=1000, help="of the bootstrap over images (1000)")
    add("--threads", type=int, metavar="N", help="of the backends (all cores)")
    add("--json", type=Path, metavar="FILE", help="write the report here too")
    add("--record", action="store_true", help="write the report into the bundle, verify.json")
    add("--markdown", type=Path, metavar="FILE",
        help=f"fill its <!-- numbers: {SLOT} --> with the table of variants")  # fmt: skip
    for name, text in (
        ("relative", "detector.onnx: largest difference as a share of a tensor's largest value"),
        ("pixels", "detector.onnx: largest difference of a box edge"),
        ("matched", "detector.onnx: smallest share of boxes with a partner"),
    ):
        value = getattr(default, name)
        add(f"--{name}", type=float, default=value, metavar="X", help=f"{text} ({value})")
    args = parser.parse_args(argv)
    if len({bool(given) for given in (args.annotations, args.labelled, args.split)}) > 1:
        parser.error("--annotations, --labelled and --split are given together: they measure mAP")
    if args.samples < 1:
        parser.error("--samples must be at least 1")
    if args.record and args.bundle is None:
        parser.error("--record needs the bundle named: the one that ships is not changed")
    return args


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line: 0 where everything agrees, else 1."""
    args, step = parse(argv), Steps(4)
    try:
        prepare_files(args.json)
        if args.markdown:
            find_slot(args.markdown, SLOT)
        report = _run(args, step)
        text = json.dumps(report, indent=1, ensure_ascii=False) + "\n"
        if args.json:
            args.json.write_text(text, encoding="utf-8")
        if args.record:
            amend_bundle(args.bundle, {"verify.json": text.encode()})
        if args.markdown:
            fill_slot(args.markdown, SLOT, markdown(report["networks"]))
    except (ZsdError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(table(report))
    print(variants_table(report["networks"]))
    print("agrees" if report["passed"] else "DIFFERS: see the rows marked '!'")
    return 0 if report["passed"] else 1


def _run(args: argparse.Namespace, step: Steps) -> dict[str, Any]:
    """Both parts of the report."""
    images = folder_images(args.images) if args.images else sample_images()
    backends: list[str] = args.backend or [b for b in installed_backends() if b not in EXTRAS]
    limits = Limits(relative=args.relative, pixels=args.pixels, matched=args.matched)
    bundle, labels = open_bundle(args.bundle), None
    if args.annotations:
        labels = Labels.read(
            bundle, args.annotations, args.labelled, args.split, args.format, args.samples
        )
    truth = Truth.of(bundle, args.checkpoint, args.threads)
    report = verify(
        args.bundle, images, backend=backends[0], limits=limits, threads=args.threads, step=step
    )
    held = [e["package"] for e in bundle.engines]
    candidates = dict.fromkeys([*backends, *args.engine, *([] if args.backend else held)])
    variants = [*variants_of(bundle, [*candidates], args.precision)]
    with step(f"compare {len(variants)} variants of the networks"):
        report["networks"] = compare_variants(
            bundle, images if args.images else photographs(), truth, variants, labels=labels,
            threads=args.threads, required=[*backends, *args.engine],
        )  # fmt: skip
    report["passed"] = report["passed"] and report["networks"]["passed"]
    return report


if __name__ == "__main__":
    sys.exit(main())
