"""Quantise the networks of a bundle to int8 with ONNX Runtime, calibrated on real images.

    python -m export.quantize bundle/ --calibration photographs/

Backends want int8 written differently (``export.int8.flavours``), so each family has its own file,
named in the manifest; ``--flavour`` writes one of them alone. Weights that stay as they are lie in
the bundle once. The others are signed, symmetric, one scale per channel. Before rounding, channels
are equalised (``export.int8.equalize``); biases take back the mean error of the rounding
(``export.int8.rounding``). The last layers of the box deltas and of the objectness stay float32,
and so do

* every layer that alone, in int8, would disturb an output of its network by more than
  ``--sensitive`` of the output's size (in MobileNetV2 the first few);
* where all others together would by more than ``--noise``, the cheapest run of consecutive layers
  without which they do not (``export.int8.sensitivity``; in MobileNetV2 the last bottlenecks);
* those beside them for which int8 is not worth the change of type (``export.int8.boundaries``).

A trunk that chooses regions, as detectors with queries do, stays float32 whole unless ``--stages``
names it: what lies behind the choice must, and the rest saves little and costs boxes (``open``: 1.1
times as fast in ONNX Runtime for 1.3 points of mAP@0.5).

The embeddings are never rounded: rounding would cut off what no calibration image shows. Prints
what int8 costs (``export.tradeoff``) on every family installed here.
"""

from __future__ import annotations

import argparse
import logging
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from export.checks.images import NamedImage, folder_images, photographs
from export.graphs.inspect import (
    ACTIVATIONS,
    COMPUTE,
    STAGES,
    Feed,
    behind_choices,
    compute_types,
    final_layers,
    front_of_choices,
    multiply_adds,
    name_nodes,
    weighted_layers,
)
from export.int8.boundaries import CROSSING, costly_crossings
from export.int8.calibration import Reader, calibration_inputs
from export.int8.equalize import equalize
from export.int8.flavours import FLAVOURS, Flavour
from export.int8.rounding import correct_biases
from export.int8.sensitivity import SENSITIVE, NoiseProbe, cheapest_run
from export.tradeoff import tradeoff, tradeoff_table
from export.writing.working_copy import add_networks, record_tradeoff, working_copy
from runtime.backends import installed_backends
from runtime.bundle import open_bundle
from zsd_core import kernels
from zsd_core.commands import Steps, command, new_parser
from zsd_core.errors import ConfigError, require

if TYPE_CHECKING:
    import onnx

__all__ = ["add_int8", "main", "parse"]

NOISE = 0.1  # of all int8 layers of a network together, as a share of its worst output


def add_int8(
    path: Path,
    images: Sequence[NamedImage],
    *,
    stages: Sequence[str] | None = None,
    flavours: Sequence[str] = tuple(FLAVOURS),
    regions: int = 300,
    full_range: bool = False,
    keep: Sequence[str] = (),
    sensitive: float = SENSITIVE,
    noise: float = NOISE,
    crossing: float = CROSSING,
) -> dict[str, Any]:
    """Add int8 networks to a bundle.

    Args:
        path: of the bundle.
        images: to calibrate on; what the camera will see.
        stages: to quantise; the others stay float32. None: all but a trunk that chooses regions.
        flavours: ways of writing int8; the families of backends of the others get no networks.
        regions: most regions of an image that the head is calibrated on.
        full_range: 8-bit weights on CPUs too; x86 without VNNI will refuse to run them.
        keep: names of further nodes that stay float32.
        sensitive: largest noise that one layer in int8 may make, as a share of the signal; above
            it the layer stays float32. 0 asks no layer.
        noise: largest noise that all layers in int8 together may make; above it a run of layers
            stays float32. 0 keeps none for that.
        crossing: what one number's change of type costs, in multiply-adds; cheap layers beside
            float32 ones stay float32 too. 0 keeps none for that.

    Returns:
        The entry of the manifest, ``precisions.int8``.

    Raises:
        ConfigError: no network has a node to keep, or a stage has no layer that may be int8.
    """
    onnx = require("onnx", "export")
    bundle = open_bundle(path)
    models = {stage: name_nodes(onnx.load(bundle.network(stage))) for stage in STAGES}
    known = {node.name for model in models.values() for node in model.graph.node}
    if unknown := [name for name in keep if name not in known]:
        raise ConfigError(f"no network has a node {unknown[0]!r}; names are in the ONNX file.")
    if stages is None:
        stages = [stage for stage in STAGES if stage == "head" or not behind_choices(models[stage])]
    inputs = calibration_inputs(bundle, images, regions)
    chosen = {name: FLAVOURS[name] for name in flavours}
    families = [family for flavour in chosen.values() for family in flavour.families]
    files: dict[str, Any] = {}
    single: dict[str, dict[str, list[str]]] = {}
    for stage, model in models.items():
        told = {n.name for n in model.graph.node if n.op_type in (*COMPUTE, *ACTIVATIONS)}
        if stage not in stages:
            for family in families:
                single.setdefault(family, {})[stage] = [
                    n.name for n in model.graph.node if n.op_type in COMPUTE
                ]
            continue
        samples = inputs[stage]
        equalize(model, samples)
        kept = [*final_layers(model), *(n.name for n in model.graph.node if n.name in keep)]
        kept += [name for name in _never(model) if name not in kept]
        levels = FLAVOURS["asymmetric"].levels(full_range)
        kept += _noisy_layers(front_of_choices(model), samples, kept, levels, sensitive, noise)
        operators = FLAVOURS["asymmetric"].operators
        kept += costly_crossings(model, samples[0], kept, operators, crossing)
        if not weighted_layers(model, kept):
            raise ConfigError(f"{stage}: no layer would become int8; keep fewer nodes.")
        for name, flavour in chosen.items():
            own = [*kept, *_rounding_outputs(model, flavour, kept)]
            files[_file(stage, name)] = _quantize(model, flavour, samples, own, full_range)
            for family in flavour.families:
                single.setdefault(family, {})[stage] = [n for n in own if n in told]
    entry = {
        "networks": {
            family: {
                stage: _file(stage, name) if stage in stages else bundle.stage(stage)["file"]
                for stage in STAGES
            }
            for name, flavour in chosen.items()
            for family in flavour.families
        },
        "method": f"ONNX Runtime {require('onnxruntime', 'cpu').__version__} static quantisation, "
        "minmax, int8 weights per channel, equalised channels, corrected biases",
        "weight_levels": {
            family: flavour.levels(full_range)
            for flavour in chosen.values()
            for family in flavour.families
        },
        "calibration": {
            "images": [image.name for image in images],
            "regions": sum(len(next(iter(feed.values()))) for feed in inputs["head"]),
        },
        "float32": single,
    }
    add_networks(path, "int8", entry, files)
    return entry


def _never(model: onnx.ModelProto) -> list[str]:
    """Layers that stay float32 whatever their noise.

    Products of two activations; sums with a constant, which is no residual and which TensorRT's
    parser refuses in int8 where it is a scalar; and all that lies behind a choice.
    """
    weighted, behind = set(weighted_layers(model)), set(behind_choices(model))
    constants = {tensor.name for tensor in model.graph.initializer}
    constants |= {name for n in model.graph.node if n.op_type == "Constant" for name in n.output}
    return [
        node.name
        for node in model.graph.node
        if node.name in behind
        or (node.op_type in COMPUTE and node.name not in weighted)
        or (node.op_type == "Add" and constants.intersection(node.input))
    ]


def _rounding_outputs(model: onnx.ModelProto, flavour: Flavour, kept: Sequence[str]) -> list[str]:
    """The embeddings' last layer, if in int8 it would round them and another layer is left.

    Rounded, the embeddings of what no calibration image shows would be cut off.
    """
    if flavour.exact:
        return []
    found = [name for name in final_layers(model, ("embeddings",)) if name not in kept]
    return found if weighted_layers(model, [*kept, *found]) else []


def _noisy_layers(
    model: onnx.ModelProto,
    samples: Sequence[Feed],
    kept: Sequence[str],
    levels: int,
    sensitive: float,
    noise: float,
) -> list[str]:
    """The layers to spare: each that is too noisy alone, and a run if all others together are."""
    layers = weighted_layers(model, kept)
    if not layers or not (sensitive or noise):
        return []
    probe = NoiseProbe(model, samples, layers, levels)
    found = [layer for layer in layers if sensitive and probe([layer]) > sensitive]
    if noise:
        left = [layer for layer in layers if layer not in found]
        found += cheapest_run(probe, left, multiply_adds(model, samples[0]), noise)
    return found


def _file(stage: str, flavour: str) -> str:
    return f"{stage}.int8.{flavour}.onnx"


def _quantize(
    model: onnx.ModelProto,
    flavour: Flavour,
    inputs: Sequence[Feed],
    kept: Sequence[str],
    full_range: bool,
) -> onnx.ModelProto:
    """The library's work: the network with its ranges measured and its Q/DQ nodes set."""
    onnx, tools = require("onnx", "export"), require("onnxruntime.quantization", "cpu")
    levels = flavour.levels(full_range)
    corrected = onnx.ModelProto.FromString(model.SerializeToString())
    correct_biases(corrected, inputs, weighted_layers(model, kept), levels)
    with tempfile.TemporaryDirectory(prefix="contrastzsd-") as work, _quiet():
        source, target = Path(work) / "float32.onnx", Path(work) / "int8.onnx"
        onnx.save(corrected, source)
        tools.quantize_static(
            str(source),
            str(target),
            Reader(inputs),
            quant_format=tools.QuantFormat.QDQ,
            per_channel=True,
            reduce_range=levels < 127,
            activation_type=tools.QuantType.QInt8 if flavour.symmetric else tools.QuantType.QUInt8,
            weight_type=tools.QuantType.QInt8,
            op_types_to_quantize=list(flavour.operators),
            nodes_to_exclude=list(kept),
            calibrate_method=tools.CalibrationMethod.MinMax,
            extra_options={
                "ActivationSymmetric": flavour.symmetric,
                "WeightSymmetric": True,
                "QuantizeBias": not flavour.symmetric,
                "OpTypesToExcludeOutputQuantization": list(flavour.exact),
            },
        )
        quantised = onnx.load(target)
    if not compute_types(quantised).get("int8"):
        raise ConfigError(f"{model.graph.name}: no layer became int8; keep fewer nodes.")
    return quantised  # type: ignore[no-any-return]


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence the advice to fold batch norm first; a bundle's networks have none."""
    logger = logging.getLogger()
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = new_parser("export.quantize", __doc__)
    add = parser.add_argument
    add("bundle", type=Path, nargs="?", help="changed in place (default: a copy of the shipped)")
    add("--calibration", type=Path, metavar="DIR", help="images (default: packaged photographs)")
    add(
        "--full-range",
        action="store_true",
        help="8-bit weights on CPUs too: more exact; x86 needs VNNI for it",
    )
    add(
        "--stages",
        nargs="+",
        choices=STAGES,
        help="to quantise (all but a trunk that chooses regions)",
    )
    add(
        "--flavour",
        nargs="+",
        choices=list(FLAVOURS),
        default=list(FLAVOURS),
        help="ways of writing int8: asymmetric for CPUs, symmetric for TensorRT (both)",
    )
    add("--keep", nargs="+", default=[], metavar="NODE", help="stay float32 too")
    add(
        "--sensitive",
        type=float,
        default=SENSITIVE,
        metavar="X",
        help="layers that alone make more noise stay float32; 0: none (%(default)s)",
    )
    add(
        "--noise",
        type=float,
        default=NOISE,
        metavar="X",
        help="most that all layers together make; 0: any (%(default)s)",
    )
    add("--calls", type=int, default=0, metavar="N", help="measure the time of N calls (0: none)")
    args = parser.parse_args(argv)
    if not all(number >= 0 for number in (args.calls, args.sensitive, args.noise)):  # nan is not
        parser.error("--calls, --sensitive and --noise must not be negative")
    return args


@command
def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; 0 on success, 1 with a sentence on stderr."""
    args, step = parse(argv), Steps(3)
    with step("read calibration images"):
        require("onnx", "export")  # before anything takes time
        if args.full_range and not kernels.sums_int8_exactly():
            raise ConfigError(
                "--full-range: this CPU has no VNNI, so what it makes could not be run here; "
                "leave it out, or quantise on a machine that has it."
            )
        path = working_copy(args.bundle)
        images = folder_images(args.calibration) if args.calibration else photographs()
    with step(f"calibrate on {len(images)} images and quantise"):
        entry = add_int8(
            path,
            images,
            stages=args.stages,
            flavours=args.flavour,
            full_range=args.full_range,
            keep=args.keep,
            sensitive=args.sensitive,
            noise=args.noise,
        )
    measured = {"onnxruntime", "openvino"} & set(entry["networks"])
    present = [backend for backend in installed_backends() if backend in measured]
    with step("measure the loss" if present else "skip the loss: TensorRT's form runs on GPUs"):
        if present:
            report = tradeoff(path, "int8", images=images, backends=present, calls=args.calls)
            record_tradeoff(path, "int8", report)
            print(tradeoff_table(report))
    use = f"use it: Detector({str(path)!r}, precision='int8')" if present else "see export.engine"
    print(f"{path}: int8 added, for {', '.join(entry['networks'])}; {use}")
    if not args.full_range and kernels.sums_int8_exactly():
        print("This CPU can take --full-range; where every device can, it is more exact.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
