"""Verify a bundle on this machine: ``detector.onnx`` against the runtime, on any images.

    python -m export.verify bundle/ --images photographs/ --json report.json

Needs no checkpoint. Every stage of ``detector.onnx`` in plain ONNX Runtime is compared with the
runtime's pipeline, then the detections of the file itself with those of ``runtime.Detector``, with
the score threshold lowered to 0. Prints a table; exits with 1 beyond the limits.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from export.compare import class_table, compare_stages, compare_with_detector
from export.parity import Limits, table
from export.stages import NamedImage, folder_images, sample_images
from runtime import Detector
from runtime.backends import open_backend
from runtime.bundle import open_bundle
from zsd_core.errors import ZsdError
from zsd_core.progress import Steps

__all__ = ["main", "parse", "verify"]


def verify(
    path: Path | None,
    images: Sequence[NamedImage],
    *,
    backend: str = "onnxruntime",
    limits: Limits | None = None,
    step: Steps | None = None,
) -> dict[str, Any]:
    """Compare ``detector.onnx`` with the runtime; the report as JSON values.

    Args:
        path: of the bundle; None takes the one that ships.
        images: to compare on.
        backend: of the runtime.
        limits: where agreement ends.
        step: progress, three steps.

    Raises:
        BundleError: the bundle is damaged or holds no ``detector.onnx``.
    """
    limits, step = limits or Limits(), step or Steps(3)
    with step("open and check the bundle"):
        bundle = open_bundle(path)
        bundle.file("detector.onnx")
        networks = open_backend(backend, bundle)
    with step(f"compare every stage on {len(images)} images"):
        report = compare_stages(
            bundle, *class_table(bundle), images, limits,
            truth=(f"the runtime on {networks.name}", networks),
            packages=("numpy", "onnx", "onnxruntime"),
        )  # fmt: skip
        networks.close()
    with (
        step("compare with Detector, end to end"),
        Detector(bundle, backend=backend, score_threshold=0.0) as detector,
    ):
        whole = compare_with_detector(detector, images, limits)
    report["bundle"] = bundle.name
    report["comparisons"].append(whole.report())
    report["passed"] = report["passed"] and whole.passed
    return report


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
    add("--backend", default="onnxruntime", help="of the runtime (onnxruntime)")
    add("--json", type=Path, metavar="FILE", help="write the report here too")
    for name, text in (
        ("relative", "largest difference as a share of a tensor's largest value"),
        ("pixels", "largest difference of a box edge"),
        ("matched", "smallest share of boxes with a partner"),
    ):
        value = getattr(default, name)
        add(f"--{name}", type=float, default=value, metavar="X", help=f"{text} ({value})")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line: 0 where everything agrees, else 1."""
    args = parse(argv)
    try:
        limits = Limits(relative=args.relative, pixels=args.pixels, matched=args.matched)
        images = folder_images(args.images) if args.images else sample_images()
        report = verify(args.bundle, images, backend=args.backend, limits=limits)
        if args.json:
            text = json.dumps(report, indent=1, ensure_ascii=False) + "\n"
            args.json.write_text(text, encoding="utf-8")
    except (ZsdError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(table(report))
    print("agrees" if report["passed"] else "DIFFERS: see the rows marked '!'")
    return 0 if report["passed"] else 1


if __name__ == "__main__":
    sys.exit(main())
