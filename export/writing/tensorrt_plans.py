"""Compile one network into a TensorRT plan and read back what was compiled.

The network is strongly typed: TensorRT computes in the types of the ONNX file or not at all. The
types of its layers are read back before building and compared with the file's.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from export.graphs.inspect import compute_types
from runtime.backends.trt_package import Message, Package, warning_name
from runtime.cache_files import write_whole
from zsd_core.errors import ZsdError, require

__all__ = [
    "WANTED",
    "EngineError",
    "Plan",
    "Profile",
    "build_plan",
    "layer_types",
]

Profile = Mapping[str, Mapping[str, list[int]]]  # input name to "min", "opt" and "max" shapes
TYPES = {"FLOAT": "float32", "HALF": "float16", "INT8": "int8", "BF16": "bfloat16"}
WANTED = {"float32": "float32", "fp16": "float16", "int8": "int8"}


class EngineError(ZsdError, RuntimeError):
    """An engine cannot be built, or is not what was asked for."""


@dataclass(frozen=True, slots=True, eq=False)
class Plan:
    """A compiled network.

    Attributes:
        data: the plan, as TensorRT reads it.
        layers: how many computing layers work in each type.
        tensors: name, mode and dtype of inputs and outputs.
        warnings: the warnings that were allowed, by name.
    """

    data: bytes
    layers: dict[str, int]
    tensors: list[dict[str, str]]
    warnings: dict[str, str]


def build_plan(
    package: Package,
    network_file: Path,
    *,
    precision: str,
    target: str,
    profile: Profile,
    allowed: Collection[str] = (),
    timings: Path | None = None,
    progress: Callable[[str], None] | None = None,
) -> Plan:
    """Compile an ONNX file for one target.

    Args:
        package: to compile with.
        network_file: whose types decide the engine's.
        precision: that was asked for, to be checked.
        target: such as "sm86".
        profile: shapes to optimise for, per input.
        allowed: names of warnings that are no errors.
        timings: file of TensorRT's timing cache.
        progress: is told the phase TensorRT is in.

    Raises:
        EngineError: TensorRT cannot build it, warned, or would compute in another precision.
    """
    trt, where = package.trt, f"{network_file.name} for {target} by {package}"
    with package.messages() as messages:
        builder = trt.Builder(package.logger)
        network = builder.create_network(package.network_flags())
        parser = trt.OnnxParser(network, package.logger)
        if not parser.parse_from_file(str(network_file)):
            errors = [parser.get_error(i) for i in range(parser.num_errors)]
            raise EngineError(
                f"{where}: the parser refuses it: "
                + "; ".join(f"{e.node_operator()} {e.node_name()}: {e.desc()}" for e in errors)
            )
        layers = layer_types(package, network)
        _check_types(where, network_file, precision, layers)
        config = builder.create_builder_config()
        package.configure(config, target)
        if timings is not None:
            package.load_timings(config, timings.read_bytes() if timings.is_file() else b"")
        if progress is not None:
            config.progress_monitor = _monitor(package, progress)
        shapes = builder.create_optimization_profile()
        for name, ranges in profile.items():
            shapes.set_shape(name, *(tuple(ranges[key]) for key in ("min", "opt", "max")))
        config.add_optimization_profile(shapes)
        plan = builder.build_serialized_network(network, config)
        if timings is not None and (measured := package.timings(config)):
            write_whole(timings, measured)  # whatever is said of the engine below
        _check_messages(where, messages, allowed, built=plan is not None)
    tensors = [network.get_input(i) for i in range(network.num_inputs)]
    modes = ["input"] * len(tensors)
    tensors += [network.get_output(i) for i in range(network.num_outputs)]
    modes += ["output"] * (len(tensors) - len(modes))
    return Plan(
        data=bytes(plan),
        layers=layers,
        tensors=[
            {"name": tensor.name, "mode": mode, "dtype": _type_name(tensor.dtype)}
            for tensor, mode in zip(tensors, modes, strict=True)
        ],
        warnings={warning_name(m.text): m.text for m in messages},
    )


def layer_types(package: Package, network: Any) -> dict[str, int]:
    """Number of convolutions and matrix products of a parsed network in each type.

    One is int8 where its data and weights come straight out of a dequantisation of int8: that is
    the pattern which TensorRT fuses.
    """
    kinds = package.trt.LayerType
    found = [network.get_layer(i) for i in range(network.num_layers)]
    made = {layer.get_output(k).name: layer for layer in found for k in range(layer.num_outputs)}
    count: Counter[str] = Counter()
    for layer in found:
        if layer.type not in (kinds.CONVOLUTION, kinds.DECONVOLUTION, kinds.MATRIX_MULTIPLY):
            continue
        inputs = [layer.get_input(k) for k in range(layer.num_inputs)]
        sources = [made.get(tensor.name) for tensor in inputs[:2] if tensor is not None]
        dequantised = [
            source.get_input(0).dtype.name
            for source in sources
            if source is not None and source.type == kinds.DEQUANTIZE
        ]
        if dequantised == ["INT8", "INT8"]:
            count["int8"] += 1
        else:
            count[_type_name(inputs[0].dtype)] += 1
    return dict(count)


def _check_types(where: str, network_file: Path, precision: str, built: Mapping[str, int]) -> None:
    onnx = require("onnx", "export")
    expected = compute_types(onnx.load(network_file))
    if dict(built) != expected:
        raise EngineError(
            f"{where}: the file's layers are {_words(expected)}, the network's {_words(built)}; "
            "the parser changed the precision. Please report this."
        )
    wanted = WANTED[precision]
    if not built.get(wanted):
        raise EngineError(
            f"{where}: {precision} was asked for, but the layers are {_words(built)}. Make the "
            f"networks again: python -m export.{'quantize' if precision == 'int8' else 'fp16'}"
        )


def _check_messages(
    where: str, messages: list[Message], allowed: Collection[str], *, built: bool
) -> None:
    bad = [m for m in messages if m.severity != "WARNING" or warning_name(m.text) not in allowed]
    if built and not bad:
        return
    lines = [f"  {m.severity.lower()} {warning_name(m.text)}: {m.text}" for m in bad or messages]
    fix = ""
    if built and all(m.severity == "WARNING" for m in bad):
        names = " ".join(dict.fromkeys(warning_name(m.text) for m in bad))
        fix = f"\nIf you have judged it harmless: --allow-warning {names}"
    raise EngineError("\n".join([f"{where}: TensorRT says", *lines]) + fix)


def _type_name(dtype: Any) -> str:
    return TYPES.get(dtype.name) or str(dtype.name).lower()


def _words(types: Mapping[str, int]) -> str:
    return ", ".join(f"{n} {name}" for name, n in sorted(types.items())) or "none"


def _monitor(package: Package, tell: Callable[[str], None]) -> Any:
    base = package.trt.IProgressMonitor

    class Monitor(base):  # type: ignore[misc,valid-type]
        """Passes on the phases of a build, at most ten a second."""

        def __init__(self) -> None:
            base.__init__(self)
            self._phases: list[tuple[str, int]] = []
            self._told = 0.0

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            self._phases.append((phase_name, num_steps))

        def step_complete(self, phase_name: str, step: int) -> bool:
            now = time.monotonic()
            if now - self._told > 0.1:
                self._told = now
                total = next((n for name, n in self._phases if name == phase_name), 0)
                tell(f"{phase_name} {step + 1}/{total}")
            return True  # go on

        def phase_finish(self, phase_name: str) -> None:
            self._phases = [p for p in self._phases if p[0] != phase_name]

    return Monitor()
