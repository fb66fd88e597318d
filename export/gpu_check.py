"""Prove the engines of a bundle on the GPU of this machine, and print a report to paste.

    python -m export.gpu_check --package tensorrt_rtx

For every bundle that is here, or the ones that are named, and for float32, fp16 and, where the
bundle holds it, int8: build for this GPU, compare with ONNX Runtime on the CPU stage by stage and
in detections, within the tolerances of ``export.verify``; run from several threads, read back the
types that TensorRT's engine inspector tells, and time it; and where the CUDA kernels are built, the
same detections with everything on the device. ``make gpu-check`` runs this. Its authors have not
run it on a GPU.
"""

from __future__ import annotations

import argparse
import json
import platform
import re
import shutil
import sys
import threading
import traceback
from collections import Counter
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from export.checks.images import sample_images
from export.checks.parity import compared_classes
from export.checks.traces import inputs_of
from export.checks.variants import TOLERANCES, failures
from export.engine import build_engines
from export.tradeoff import tradeoff, tradeoff_table
from export.writing.bundle_writer import amend_bundle
from export.writing.replacing import check_replaceable
from export.writing.tensorrt_plans import WANTED
from export.writing.working_copy import working_copy
from runtime.archive import MANIFEST
from runtime.backends.cuda_driver import Device
from runtime.backends.trt_backend import EngineBackend
from runtime.backends.trt_package import EXTRAS, open_package
from runtime.bundle import default_bundle, open_bundle
from runtime.detections import Detections
from runtime.detector import Detector
from zsd_core.commands import Steps, command, new_parser
from zsd_core.errors import MissingPackageError, ZsdError
from zsd_core.kernels.cuda import compiled_cuda
from zsd_core.stages import Networks

__all__ = [
    "agreeing",
    "check",
    "check_precision",
    "device_line",
    "fresh_copies",
    "inspected_types",
    "main",
    "parse",
    "threads_agree",
]

METHODS = ("contrastzsd", "prototypes")  # of scoring, that the device has
SCORE = 0.01  # low, so that there is much to compare
# What the engine inspector calls a type ("Half", "Row major linear FP16 format"); first fits first.
SAID = {
    "bfloat16": "bfloat16",
    "bf16": "bfloat16",
    "half": "float16",
    "fp16": "float16",
    "float": "float32",
    "fp32": "float32",
    "int8": "int8",
}
OPAQUE = ("Constant", "Myelin", "NoOp", "Reformat", "Shuffle")


def check(
    path: Path, package: str, output: Path, *, precisions: Sequence[str], calls: int
) -> tuple[list[str], bool]:
    """Check every precision; the lines of the report, and whether all is well.

    Args:
        path: of the bundle; engines are added to it.
        package: "tensorrt_rtx" or "tensorrt".
        output: folder for what TensorRT's inspector says of each engine.
        precisions: to check.
        calls: timed calls of each network.

    Raises:
        DeviceError: there is no GPU here.
        MissingPackageError: the package is not installed.
    """
    opened, device = open_package(package), Device(0, EXTRAS[package])
    lines = [
        f"- {opened}; {device.name}, {device.capability}; {platform.platform()}; "
        f"Python {platform.python_version()}",
        f"- bundle {open_bundle(path).name}",
    ]
    device.close()
    good, step = True, Steps(len(precisions))
    output.mkdir(parents=True, exist_ok=True)
    for precision in precisions:
        try:
            with step(precision):
                found, passed = check_precision(path, package, output, precision, calls)
        except Exception as error:  # nobody has run this before: whatever fails belongs in a report
            if not isinstance(error, ZsdError):
                traceback.print_exc()
            found, passed = [f"- {precision}: FAILED: {type(error).__name__}: {error}"], False
        lines += found
        good = good and passed
    return lines, good


def check_precision(
    path: Path, package: str, output: Path, precision: str, calls: int
) -> tuple[list[str], bool]:
    """Check one precision, as ``check`` does, and enter in the manifest what the inspector says."""
    entries = build_engines(path, targets=[], precision=precision, package=package)
    report = tradeoff(path, precision, backends=[package], against="onnxruntime", calls=calls)
    beyond = [
        failure for part in report["backends"] for failure in failures(part, TOLERANCES[precision])
    ]
    with closing(EngineBackend(package, open_bundle(path), precision)) as networks:
        if not threads_agree(networks, path):
            beyond.append("threads disturb each other")
        texts = {entry["stage"]: networks.inspect(entry["stage"]) for entry in entries}
    told = {stage: inspected_types(text) for stage, text in texts.items()}
    for stage, types in told.items():
        (output / f"{stage}.{precision}.json").write_text(texts[stage], encoding="utf-8")
        if types and not types.get(WANTED[precision]):
            beyond.append(f"no layer of the {stage} works in {WANTED[precision]}")
    files = {entry["file"] for entry in entries}
    amend_bundle(
        path,
        engines=[
            entry | {"inspected": told[entry["stage"]]} if entry["file"] in files else entry
            for entry in open_bundle(path).engines
        ],
    )
    whole, whole_agrees = device_line(path, package, precision, calls)
    (output / f"{precision}.json").write_text(json.dumps(report, indent=1), encoding="utf-8")
    lines = ["", tradeoff_table(report)]
    for stage, types in told.items():
        words = ", ".join(f"{n} {name}" for name, n in sorted(types.items())) or "none it tells"
        lines.append(f"  {stage}: layers by what they read, as the engine inspector says: {words}")
    lines += [whole, *(f"! {failure}" for failure in beyond)]
    return lines, whole_agrees and not beyond


def inspected_types(text: str) -> dict[str, int]:
    """Number of layers of an engine that read each type, from the inspector's JSON.

    Left out are layers that only move numbers, and those whose inside it does not show.
    """
    count: Counter[str] = Counter()
    for layer in json.loads(text).get("Layers", ()):
        if not isinstance(layer, dict) or layer.get("LayerType") in OPAQUE or not layer["Inputs"]:
            continue
        said = str(layer["Inputs"][0].get("Format/Datatype", "")).lower()
        if found := re.search("|".join(SAID), said):
            count[SAID[found[0]]] += 1
    return dict(count)


def device_line(path: Path, package: str, precision: str, calls: int) -> tuple[str, bool]:
    """Whether a detector that stays on the device finds what the one through the host finds.

    Every image is searched three times: as it is, captured and replayed. Boxes agree where their
    corners lie within a pixel and their scores within 0.01, for all but one in a hundred.

    Returns:
        A line for the report, and whether all is well; what cannot run there is no failure.
    """
    try:
        compiled_cuda()
    except MissingPackageError as error:
        return f"  on the device throughout: not checked. {error}", True
    bundle = open_bundle(path)
    method = bundle.model_config.scoring.method
    if method not in METHODS:
        return f"  on the device throughout: not checked, it has no {method!r}.", True
    found, agreed, times = 0, 0, dict[bool, float]()
    results: dict[bool, list[Detections]] = {}
    for whole in (False, True):
        with Detector(
            path,
            backend=package,
            precision=precision,
            classes=compared_classes(bundle)[1].names,  # some that a second look must find
            score_threshold=SCORE,
            backend_options={"on_device": whole},
        ) as detector:
            pictures = [image.pixels for image in sample_images()]
            results[whole] = [detector(p) for p in pictures for _ in range(3)]
            samples = [sum(detector(pictures[-1]).times_ms.values()) for _ in range(calls)]
            times[whole] = float(np.median(samples))
    for ours, exact in zip(results[True], results[False], strict=True):
        found += max(len(ours), len(exact))
        agreed += agreeing(ours, exact)
    good = 0 < 0.99 * found <= agreed
    return (
        f"  on the device throughout: {agreed} of {found} detections agree{'' if good else ': NO'};"
        f" {times[True]:.2f} ms an image, through the host {times[False]:.2f} ms"
    ), good


def agreeing(ours: Detections, exact: Detections) -> int:
    """Detections of ``exact`` that ``ours`` holds: the class, within a pixel and 0.01 of score."""
    count, names = 0, np.asarray(ours.class_names, object)
    for box, score, name in zip(exact.boxes, exact.scores, exact.class_names, strict=True):
        near = (np.abs(ours.boxes - box) <= 1).all(axis=1) & (abs(ours.scores - score) <= 0.01)
        count += any(names[near] == name)
    return count


def threads_agree(networks: Networks, path: Path, count: int = 4, calls: int = 10) -> bool:
    """Whether threads that share the networks get what each image gives alone.

    Of a given detector's trunk the highest logits are compared in order: another kernel may take
    near-equal queries in another order.
    """
    config = open_bundle(path).model_config
    image = sample_images()[0].pixels
    inputs = [
        inputs_of(config, [np.ascontiguousarray(np.roll(image, 16 * i, axis=1))])["images"]
        for i in range(count)
    ]

    def outcome(array: NDArray[np.float32]) -> NDArray[np.float32]:
        outputs = networks.trunk(array)
        if config.proposals.source == "queries":
            return np.sort(outputs[1].max(axis=2), axis=1)
        return outputs[0]

    alone = [outcome(array) for array in inputs]
    same = [False] * count

    def work(index: int) -> None:
        # TensorRT-RTX may take another kernel from some call on, which rounds differently.
        near = 0.01 * float(np.abs(alone[index]).max())
        same[index] = all(
            bool((np.abs(outcome(inputs[index]) - alone[index]) <= near).all())
            for _ in range(calls)
        )

    threads = [threading.Thread(target=work, args=(i,)) for i in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return all(same)


def fresh_copies(folder: Path) -> list[Path]:
    """Copies of the bundles of this installation; other bundles in the folder go.

    Raises:
        BundleError: it holds something else.
    """
    for path in folder.iterdir() if folder.is_dir() else ():
        check_replaceable(path)
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(default_bundle().parent, folder)
    return sorted(path.parent for path in folder.glob(f"*/{MANIFEST}"))


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = new_parser("export.gpu_check", __doc__)
    add = parser.add_argument
    add("bundle", type=Path, nargs="*", help="engines are added (default: copies of what is here)")
    add("--package", choices=tuple(EXTRAS), default="tensorrt_rtx", help="(tensorrt_rtx)")
    add("--calls", type=int, default=200, metavar="N", help="timed calls of each network (200)")
    add("--output", type=Path, default=Path("out/gpu-check"), metavar="DIR", help="(%(default)s)")
    return parser.parse_args(argv)


@command
def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line: 0 where every precision was proved, else 1."""
    args = parse(argv)
    lines, good = ["## GPU check"], True
    for path in map(working_copy, args.bundle or fresh_copies(args.output / "bundles")):
        held: dict[str, Any] = open_bundle(path).manifest.get("precisions", {})
        int8 = "tensorrt" in held.get("int8", {}).get("networks", {})
        precisions = ["float32", "fp16", *(["int8"] if int8 else [])]
        output = args.output / open_bundle(path).name
        found, passed = check(path, args.package, output, precisions=precisions, calls=args.calls)
        lines += found
        good = good and passed
    print("\n".join([*lines, "", "passed" if good else "FAILED"]))
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
