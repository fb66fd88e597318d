"""Every artifact of a bundle on every backend that runs here, against one truth.

A variant is a backend with a precision. The truth is PyTorch where the checkpoint is at hand, else
the float32 networks in ONNX Runtime. What a variant may lose is stated in ``TOLERANCES``.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from export.checks.agreement import (
    accuracy_lines,
    agreement,
    agreement_lines,
    number,
    points,
    stage_errors,
    traces,
)
from export.checks.differences import MAPS
from export.checks.images import NamedImage
from export.checks.labels import Labels, bundle_predictor
from export.checks.traces import Trace
from runtime.backends import open_backend
from runtime.backends.trt_package import EXTRAS
from runtime.bundle import Bundle
from zsd_core.errors import DeviceError, MissingPackageError
from zsd_core.learning import metrics
from zsd_core.learning.data.splits import Split
from zsd_core.learning.evaluation import Predict, checkpoint_predictor
from zsd_core.stages import Networks

__all__ = [
    "TOLERANCES",
    "Tolerance",
    "Truth",
    "compare_variants",
    "failures",
    "markdown",
    "variants_of",
    "variants_table",
]

NUMBER = "mAP@0.5 area"


@dataclass(frozen=True, slots=True, kw_only=True)
class Tolerance:
    """From where on a variant is not the model any more.

    Attributes:
        noise: of any stage, its root mean square as a share of the signal's.
        matched: smallest share of the best detections that must be found again.
        loss: largest loss of unseen mAP@0.5 on human labels, points.
    """

    noise: float
    matched: float
    loss: float


TOLERANCES = {
    "float32": Tolerance(noise=1e-4, matched=0.99, loss=0.1),
    "fp16": Tolerance(noise=0.02, matched=0.9, loss=0.5),
    "int8": Tolerance(noise=0.25, matched=0.7, loss=1.0),
}


@dataclass(frozen=True, slots=True)
class Truth:
    """Reference that variants must agree with.

    Attributes:
        name: for people.
        networks: that compute it.
        predictor: the whole detector, given a split.
    """

    name: str
    networks: Networks
    predictor: Callable[[Split], tuple[Predict, tuple[str, ...]]]

    @classmethod
    def of(cls, bundle: Bundle, checkpoint: Path | None, threads: int | None) -> Truth:
        """PyTorch on a checkpoint, or ONNX Runtime on the bundle's float32 networks."""
        if checkpoint is None:
            networks = open_backend("onnxruntime", bundle, threads)
            return cls(
                networks.description,
                networks,
                lambda split: bundle_predictor(
                    bundle, split, backend="onnxruntime", threads=threads
                )[:2],
            )
        import torch

        from export.graphs.split import split_conv5
        from zsd_core.learning.checkpoint import load_checkpoint
        from zsd_core.learning.models import TorchNetworks

        model = load_checkpoint(checkpoint).model
        cut = split_conv5(model)  # stages can be compared where both have the same maps
        same = cut and cut.config.regions.maps == bundle.model_config.regions.maps
        return cls(
            f"PyTorch {torch.__version__}",
            TorchNetworks(cut if cut and same else model),
            lambda split: checkpoint_predictor(checkpoint, split)[:2],
        )


def variants_of(
    bundle: Bundle, backends: Sequence[str], precisions: Sequence[str] | None = None
) -> Iterator[tuple[str, str]]:
    """Backend and precision of what a bundle holds, networks and engines."""
    for backend in backends:
        made = ["float32", *bundle.manifest.get("precisions", {})]
        if backend in EXTRAS:
            built = {e["precision"] for e in bundle.engines if e["package"] == backend}
            made = sorted(built) or ["float32"]  # with none, opening it says how to build one
        yield from ((backend, precision) for precision in precisions or made)


def compare_variants(
    bundle: Bundle,
    images: Sequence[NamedImage],
    truth: Truth,
    variants: Sequence[tuple[str, str]],
    *,
    labels: Labels | None = None,
    threads: int | None = None,
    required: Collection[str] = (),
) -> dict[str, Any]:
    """Compare variants with the truth, stage by stage and end to end; JSON values.

    Args:
        bundle: whose networks.
        images: to compare on, at score threshold 0.
        truth: what they must agree with.
        variants: backend and precision of each.
        labels: to measure mAP on too.
        threads: of the backends.
        required: backends that must run; others without their device are listed as not run.
    """
    exact = traces(bundle, truth.networks, images)
    known = None
    if labels is not None:
        assert labels.split is not None, "the truth is asked for the classes of a split"
        known = labels.matches(*truth.predictor(labels.split))
    rows: list[dict[str, Any]] = []
    for backend, precision in variants:
        row: dict[str, Any] = {"backend": backend, "precision": precision}
        rows.append(row)
        try:
            networks = open_backend(backend, bundle, threads, precision=precision)
        except (DeviceError, MissingPackageError) as error:
            if backend in required:
                raise
            row["not_run"] = str(error)
            continue
        got: list[Trace] = traces(bundle, networks, images)
        pairs = list(zip(exact, got, strict=True))
        row |= {
            "description": networks.description,
            "stages": stage_errors(networks, pairs),
            "end_to_end": agreement(bundle, pairs, images),
        }
        networks.close()
        if labels and known:
            predict, names, _ = bundle_predictor(
                bundle, labels.split, backend=backend, threads=threads, precision=precision
            )
            row["accuracy"] = {
                task: metrics.compare(found, known[task], samples=labels.samples)[NUMBER]
                for task, found in labels.matches(predict, names).items()
            }
        row["tolerance"] = asdict(TOLERANCES[precision])
        row["failures"] = failures(row, TOLERANCES[precision])
    return {
        "truth": truth.name,
        "variants": rows,
        "passed": not any(row.get("failures") for row in rows),
    }


def failures(row: Mapping[str, Any], tolerance: Tolerance) -> list[str]:
    """Parts of a variant beyond the tolerance, in words."""
    found = [
        f"noise of {stage} {number(entry['noise']):.2%} > {tolerance.noise:.2%}"
        for stage, entry in row["stages"].items()
        if number(entry["noise"]) > tolerance.noise
    ]
    whole = row["end_to_end"]
    if not whole["expected"]:
        found.append("nothing was detected, so nothing was compared")
    elif whole["matched"] < tolerance.matched * whole["expected"]:
        found.append(
            f"{whole['matched']} of {whole['expected']} best detections matched, "
            f"< {tolerance.matched:.0%}"
        )
    loss = -row["accuracy"]["zsd"]["unseen"]["difference"] if "accuracy" in row else 0.0
    if loss > tolerance.loss:
        found.append(f"unseen mAP@0.5 lost {loss:.2f} > {tolerance.loss:.2f}")
    return found


def variants_table(report: Mapping[str, Any]) -> str:
    """The report for people: every stage of every variant."""
    lines = []
    for row in report["variants"]:
        if "not_run" in row:
            lines.append(f"{row['backend']} {row['precision']}: not run: {row['not_run']}")
            continue
        verdict = "DIFFERS" if row["failures"] else "agrees"
        lines.append(f"{row['description']} against {report['truth']}: {verdict}")
        lines += agreement_lines(row)
        for task, groups in row.get("accuracy", {}).items():
            lines += accuracy_lines(task, groups)
        lines += [f"! {failure}" for failure in row["failures"]]
    return "\n".join(lines)


def markdown(report: Mapping[str, Any]) -> str:
    """The report as a table for a README, a row per variant."""
    measured = any("accuracy" in row for row in report["variants"])
    header = [
        "backend",
        "precision",
        "noise: features",
        "objectness",
        "embeddings",
        "boxes",
        "best detections found",
        "class flips",
    ]
    header += ["ZSD mAP@0.5", "seen mAP@0.5"] if measured else []
    lines = [_line(header), _line(["---", "---", *["---:"] * (len(header) - 2)])]
    for row in report["variants"]:
        cells = [row["backend"], row["precision"]]
        if "not_run" in row:
            lines.append(_line([*cells, "not run", *[""] * (len(header) - 3)]))
            continue
        stages, whole = row["stages"], row["end_to_end"]
        noise = {name: number(stage["noise"]) for name, stage in stages.items()}
        shown = [max(noise[name] for name in MAPS if name in noise)]
        shown += [noise[name] for name in ("objectness", "embeddings", "box_deltas")]
        cells += [f"{100 * value:.2g} %" for value in shown]
        cells += [f"{whole['matched']} of {whole['expected']}", str(whole["class_flips"])]
        if measured:
            accuracy = row["accuracy"]
            cells += [points(accuracy["zsd"]["unseen"]), points(accuracy["gzsd"]["seen"])]
        lines.append(_line(cells))
    return "\n".join([*lines, "", f"Against {report['truth']}."])


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"
