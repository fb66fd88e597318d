r"""Compile trunk and head of a bundle with TensorRT and enter the engines in its manifest.

    python -m export.engine bundle/ --target sm86 sm89 sm120 --precision fp16 \
        --batch 1:4:16 --size 320:640

TensorRT-RTX compiles for any of its targets and needs no GPU; TensorRT (``--package tensorrt``)
compiles for the GPU of the machine it runs on. Shapes are min:opt:max or min:max; sizes are those
of the network input, of both edges. A warning of TensorRT is an error unless ``--allow-warning``
names it, and so is an engine in another precision than was asked for. Builds are kept in a cache
under the content they depend on.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import sys
from collections.abc import Callable, Collection, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from export.fp16 import add_fp16
from export.graphs.inspect import STAGES
from export.writing.bundle_writer import amend_bundle
from export.writing.tensorrt_plans import EngineError, Plan, Profile, build_plan
from export.writing.working_copy import working_copy
from runtime.backends.cuda_driver import Device
from runtime.backends.trt_package import EXTRAS, Package, open_package
from runtime.bundle import PRECISIONS, Bundle, open_bundle
from runtime.cache_files import cache_folder, write_whole
from zsd_core.commands import Steps, command, new_parser
from zsd_core.config import ModelConfig
from zsd_core.errors import ConfigError, did_you_mean, require

__all__ = [
    "Shapes",
    "build_engines",
    "check_targets",
    "main",
    "parse",
    "parse_range",
    "profiles",
]

CACHE_FORMAT = 2  # rises when a cached plan would not be what this version builds


@dataclass(frozen=True, slots=True, kw_only=True)
class Shapes:
    """Input shapes of an engine: each a (min, opt, max) or (min, max); None is all the model may.

    Attributes:
        batch: images together.
        size: edges of the network input, in pixels.
        regions: of the head, over the whole batch.
    """

    batch: tuple[int, ...] | None = None
    size: tuple[int, ...] | None = None
    regions: tuple[int, ...] | None = None


def build_engines(
    path: Path,
    *,
    targets: Sequence[str],
    precision: str = "fp16",
    package: str = "tensorrt_rtx",
    shapes: Shapes | None = None,
    allowed: Collection[str] = (),
    cache: Path | None = None,
    progress: bool = True,
) -> list[dict[str, Any]]:
    """Build both engines for every target and write them into the bundle.

    Args:
        path: of the bundle; an older engine of the same stage, precision, target and version is
            replaced.
        targets: such as "sm86"; empty takes the GPU of this machine.
        precision: float32, fp16 (made if the bundle lacks it) or int8.
        package: "tensorrt_rtx" or "tensorrt".
        shapes: to build for.
        allowed: names of warnings that are no errors.
        cache: where builds are kept; None keeps none.
        progress: print steps on standard error.

    Returns:
        The entries of the manifest that were written.

    Raises:
        ConfigError: a target, range or precision that cannot be.
        EngineError: TensorRT does not build what was asked for; the bundle is as it was.
    """
    opened = open_package(package)
    chosen, gpu = check_targets(opened, targets)
    if cache is not None:
        _prepare(cache)
    bundle = open_bundle(path)
    if precision == "fp16" and "fp16" not in bundle.manifest.get("precisions", {}):
        add_fp16(path)
        bundle = open_bundle(path)
    ranges = profiles(bundle.model_config, bundle, shapes or Shapes())
    step = Steps(len(chosen) * len(STAGES)) if progress else None
    made: list[tuple[dict[str, Any], bytes]] = []
    for target in chosen:
        for stage in STAGES:
            with step(f"{stage}, {precision}, {target}") if step else nullcontext():
                job = _Job(opened, stage, precision, target, gpu, ranges[stage])
                made.append(_build(job, bundle, allowed, cache))
    files = {entry["file"]: data for entry, data in made}
    # Read again: another build may have entered its engines meanwhile.
    kept = [entry for entry in open_bundle(path).engines if entry["file"] not in files]
    entries = [entry for entry, _ in made]
    amend_bundle(path, files, engines=[*kept, *entries])
    return entries


def check_targets(package: Package, targets: Sequence[str]) -> tuple[tuple[str, ...], str]:
    """The targets, checked, and the name of the GPU that the engines will be bound to, if any.

    Raises:
        ConfigError: the package does not build for a target.
        DeviceError: the GPU of this machine decides and the machine has no GPU.
    """
    known, gpu = package.targets, ""
    hint = "For a Jetson or a data-centre GPU, run it there with --package tensorrt."
    if not (package.ahead_of_time and targets):
        here = Device(0, EXTRAS[package.name])
        here.close()
        targets = targets or [here.capability]
        if not package.ahead_of_time:
            known, gpu = (here.capability,), here.name
            hint = "It builds for the GPU it runs on, so run it there."
    for target in targets:
        if target not in known:
            raise ConfigError(
                f"{package} builds for {', '.join(known)}, not for {target!r}"
                f"{did_you_mean(target, known) or '.'} {hint}"
            )
    return tuple(dict.fromkeys(targets)), gpu


def profiles(config: ModelConfig, bundle: Bundle, shapes: Shapes) -> dict[str, Profile]:
    """Optimisation profiles of both stages.

    Raises:
        ConfigError: a range is empty, falls, or an edge is no multiple of the padding; or sizes
            are given and the trunk takes one only.
    """
    (image,) = bundle.stage("trunk")["inputs"]
    batch = _range("batch", shapes.batch or (1, 1, 8), 1)
    most = config.regions.look or config.proposals.post_nms_top
    regions = _range("regions", shapes.regions or (1, batch[1] * most, batch[2] * most), 1)
    keys = ("min", "opt", "max")
    pixels = _sizes(config, shapes, image["shape"][2:])
    trunk = {k: [n, 3, *hw] for k, n, hw in zip(keys, batch, pixels, strict=True)}
    return {
        "trunk": {image["name"]: trunk},
        "head": {
            value["name"]: {k: [r, *value["shape"][1:]] for k, r in zip(keys, regions, strict=True)}
            for value in bundle.stage("head")["inputs"]
        },
    }


def _sizes(
    config: ModelConfig, shapes: Shapes, declared: Sequence[int | str]
) -> tuple[list[int], ...]:
    """Height and width of the trunk's input: least, typical and largest."""
    if fixed := [edge for edge in declared if isinstance(edge, int)]:
        if shapes.size is not None:
            raise ConfigError(
                f"--size is given, but this trunk takes {' x '.join(map(str, fixed))} only; leave "
                "it out."
            )
        return fixed, fixed, fixed
    preprocess, unit = config.preprocess, config.preprocess.pad_multiple
    typical = preprocess.padded(*preprocess.resized(480, 640))
    longest = preprocess.padded(preprocess.longer_edge, preprocess.longer_edge)[0]
    low, *middle, high = _range("size", shapes.size or (unit, longest), unit, fill=False)
    edges = [min(max(edge, low), high) for edge in typical] if not middle else [middle[0]] * 2
    return [low, low], edges, [high, high]


def _range(name: str, values: tuple[int, ...], unit: int, fill: bool = True) -> list[int]:
    """(min, max) or (min, opt, max), checked; ``fill`` repeats max for a missing opt."""
    ordered = list(values) == sorted(values) and len(values) in (2, 3) and values[0] >= 1
    if not ordered or any(value % unit for value in values):
        whole = f" in multiples of {unit}" if unit > 1 else ""
        raise ConfigError(
            f"--{name} is {':'.join(map(str, values))}, must be min:opt:max or min:max, rising "
            f"from at least 1{whole}."
        )
    if fill and len(values) == 2:
        return [values[0], values[1], values[1]]
    return list(values)


@dataclass(frozen=True, slots=True)
class _Job:
    """One engine to build; ``gpu`` is the name of the one that an engine is bound to, or empty."""

    package: Package
    stage: str
    precision: str
    target: str
    gpu: str
    profile: Profile

    def key(self, network_file: Path) -> str:
        """Everything the plan depends on, as one hash; weights are part of the network."""
        onnx = require("onnx", "export")
        digest = hashlib.sha256(onnx.load(network_file).SerializeToString(deterministic=True))
        package = self.package
        facts = [
            CACHE_FORMAT,
            package.name,
            package.version,
            self.precision,
            self.target,
            self.gpu,
            self.profile,
        ]
        digest.update(json.dumps(facts, sort_keys=True).encode())
        return digest.hexdigest()

    def timings(self, cache: Path) -> Path:
        """File of measurements of the GPU."""
        gpu = re.sub(r"[^A-Za-z0-9]+", "-", self.gpu)
        return cache / f"{self.package.name}-{self.package.version}-{self.target}-{gpu}.timings"


def _build(
    job: _Job, bundle: Bundle, allowed: Collection[str], cache: Path | None
) -> tuple[dict[str, Any], bytes]:
    """An engine's manifest entry and plan, from the cache if it was built before."""
    package, stage, precision, target = job.package, job.stage, job.precision, job.target
    network_file = bundle.network(stage, precision, "tensorrt")
    key = job.key(network_file)
    plan = _cached(cache, key, allowed)
    if plan is None:
        plan = build_plan(
            package,
            network_file,
            # A precision may leave a stage as it was exported.
            precision="float32" if network_file == bundle.network(stage) else precision,
            target=target,
            profile=job.profile,
            allowed=allowed,
            progress=_phases() if sys.stderr.isatty() else None,
            timings=job.timings(cache) if cache else None,
        )
        _keep(cache, key, plan)
    entry = {
        "file": f"engines/{stage}.{precision}.{target}.{package.name}-{package.version}.plan",
        "stage": stage,
        "precision": precision,
        "package": package.name,
        "version": package.version,
        "target": target,
        **({"gpu": job.gpu} if job.gpu else {}),
        "profile": job.profile,
        "layers": plan.layers,
        "tensors": plan.tensors,
        "allowed_warnings": plan.warnings,
        "network": network_file.name,
        "key": key,
    }
    return entry, plan.data


def _prepare(cache: Path) -> None:
    """Make the cache's folder, before anything takes minutes."""
    try:
        cache.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise EngineError(
            f"builds cannot be kept in {cache} ({error.strerror}). Name another folder with "
            "--cache, or keep none with --no-cache."
        ) from error


def _user_cache() -> Path:
    """Folder where builds are kept unless another is named."""
    try:
        return cache_folder("engines")
    except ConfigError as error:
        raise ConfigError(
            f"{error} Or name a folder with --cache, or keep no builds with --no-cache."
        ) from None


def _cached(cache: Path | None, key: str, allowed: Collection[str]) -> Plan | None:
    """A plan from the cache, if it is whole and its warnings are allowed now too."""
    if cache is None:
        return None
    try:
        facts = json.loads((cache / f"{key}.json").read_text(encoding="utf-8"))
        data = (cache / f"{key}.plan").read_bytes()
    except (OSError, ValueError):
        return None
    whole = hashlib.sha256(data).hexdigest() == facts.pop("sha256", None)
    return Plan(data=data, **facts) if whole and set(facts["warnings"]) <= set(allowed) else None


def _keep(cache: Path | None, key: str, plan: Plan) -> None:
    if cache is None:
        return
    facts = {
        "layers": plan.layers,
        "tensors": plan.tensors,
        "warnings": plan.warnings,
        "sha256": hashlib.sha256(plan.data).hexdigest(),
    }
    write_whole(cache / f"{key}.plan", plan.data)
    write_whole(cache / f"{key}.json", json.dumps(facts).encode())


def parse_range(text: str) -> tuple[int, ...]:
    """Read "1:4:16"; one number is all three.

    Raises:
        argparse.ArgumentTypeError: the text cannot be read so.
    """
    try:
        values = tuple(int(part) for part in text.split(":"))
    except ValueError:
        values = ()
    if not 1 <= len(values) <= 3:
        raise argparse.ArgumentTypeError(f"{text!r} is not min:opt:max, min:max or one number")
    return values * 3 if len(values) == 1 else values


def _phases() -> Callable[[str], None]:
    """Show TensorRT's phase behind the step on a terminal: the newest over the one before."""

    def tell(phase: str) -> None:
        print(f"\x1b7\x1b[K{phase}\x1b8", end="", file=sys.stderr, flush=True)

    return tell


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = new_parser("export.engine", __doc__)
    add = parser.add_argument
    add("bundle", type=Path, nargs="?", help="changed in place (default: a copy of the shipped)")
    add("--target", nargs="+", default=[], metavar="SM", help="sm75 ... sm121 (this GPU)")
    add("--precision", choices=PRECISIONS, default="fp16", help="of the networks (fp16)")
    add("--package", choices=tuple(EXTRAS), default="tensorrt_rtx", help="(tensorrt_rtx)")
    add("--batch", type=parse_range, metavar="RANGE", help="images together (1:1:8)")
    add("--size", type=parse_range, metavar="RANGE", help="edges of the input (all it may have)")
    add("--regions", type=parse_range, metavar="RANGE", help="of the head (what the batch gives)")
    add("--allow-warning", nargs="+", default=[], metavar="NAME", help="as the error names it")
    add("--cache", type=Path, metavar="DIR", help="of builds (engines in the user's cache)")
    add("--no-cache", action="store_true", help="build again, and keep nothing")
    return parser.parse_args(argv)


@command
def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; 0 on success, 1 with a sentence on stderr."""
    args = parse(argv)
    cache = None if args.no_cache else args.cache or _user_cache()
    path = working_copy(args.bundle)
    entries = build_engines(
        path,
        targets=args.target,
        precision=args.precision,
        package=args.package,
        shapes=Shapes(batch=args.batch, size=args.size, regions=args.regions),
        allowed=args.allow_warning,
        cache=cache,
    )
    sizes = open_bundle(path).manifest["files"]
    for entry in entries:
        layers = ", ".join(f"{count} {name}" for name, count in sorted(entry["layers"].items()))
        print(f"{path}/{entry['file']}  {sizes[entry['file']]['bytes'] / 1e6:.1f} MB, {layers}")
        for name, text in entry["allowed_warnings"].items():
            print(f"  allowed warning {name}: {text}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
