"""Other people's detectors beside ours, and the paper's model beside the machine's own limit."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.operators.gemm import Gemm, gemms
from benchmarks.peers import rows_of as peer_rows
from benchmarks.peers import settle
from benchmarks.peers_given import FEMTO, accuracies, femto_group
from benchmarks.peers_models import GROUPS as PEERS
from benchmarks.peers_models import OWL, SHIPPED, YOLO_WORLD, ours, photographs
from benchmarks.speed.rows import Bar, Group, Row, Settings, in_turns
from export.checks.images import photographs as named_photographs
from export.graphs.inspect import STAGES, multiply_adds
from export.int8.calibration import calibration_inputs
from runtime.backends import open_backend
from runtime.bundle import default_bundle, open_bundle
from zsd_core import kernels
from zsd_core.errors import MissingPackageError, require
from zsd_core.learning.data.read import read_dataset

__all__ = ["GROUPS"]

RANDOM = "the peer has random weights: time only"
LIMIT = Gemm(rows=4096, joint=2048, hidden=2048)  # as large as a layer of the paper's head
CALLS = 3


def _peers(bars: Sequence[Bar], settings: Settings) -> list[Row]:
    """YOLO-World, OWLv2 and DEIMv2-Femto over ``open``, in turns in this process."""
    torch, images = require("torch", "train"), photographs()
    groups = {name: PEERS[name] for name in ("yolo", "owl")}
    if settings.femto is not None:
        groups["femto"] = femto_group(settings.femto)
    wanted, missing = {SHIPPED, YOLO_WORLD, OWL, FEMTO}, dict[str, str]()
    entries = list(ours(SHIPPED, open_bundle(default_bundle()), images, settings.threads, 1.0))
    entries = [entry for entry in entries if entry.task == "detect"]
    work = Path(tempfile.mkdtemp(prefix="contrastzsd-"))
    torch.set_num_threads(settings.threads)
    kernels.set_threads(settings.threads)
    try:
        for name, make in groups.items():
            try:
                entries += [
                    entry
                    for entry in make(images, settings.threads, work)
                    if (entry.model, entry.task) in {(model, "detect") for model in wanted}
                    and entry.precision == "float32"
                ]
            except MissingPackageError as error:
                missing[name] = str(error)
        rows = peer_rows(
            entries,
            settings.rounds,
            partial(settle, torch, settings.threads),
            partial(torch.set_num_threads, settings.threads),
        )
    finally:
        shutil.rmtree(work, ignore_errors=True)
    ours_on = {row.backend: row.p50_ms for row in rows if row.model == SHIPPED}
    found = []
    notes = {FEMTO: "name its file by --femto", YOLO_WORLD: missing.get("yolo", "")}
    for bar, model in zip(bars, (YOLO_WORLD, OWL, FEMTO), strict=True):
        theirs = [row.p50_ms for row in rows if row.model == model]
        if not theirs:
            note = notes.get(model) or missing.get("owl", "")
            found.append(Row(bar=bar, measured=None, note=note))
            continue
        medians = {f"open on {name}": ms for name, ms in ours_on.items()} | {model: min(theirs)}
        own, note = min(ours_on.values()), RANDOM
        if model == FEMTO:  # the same network, so in the same runtime
            own, note = ours_on["onnxruntime"], _accuracy_note(settings)
        found.append(Row(bar=bar, measured=min(theirs) / own, medians=medians, note=note))
    return found


def _accuracy_note(settings: Settings) -> str:
    if settings.annotations is None or settings.images is None or settings.femto is None:
        return "accuracy is measured with --annotations and --images"
    dataset = read_dataset(
        "coco", [str(settings.annotations)], [str(settings.images)], settings.subset or ""
    )
    values = accuracies(settings.femto, dataset, settings.threads)
    return (
        f"mAP@0.5 of the same {len(dataset)} photographs, all 80 names: open "
        f"{values[SHIPPED]:.1f} %, DEIMv2-Femto {values[FEMTO]:.1f} %"
    )


def _paper(bars: Sequence[Bar], settings: Settings) -> list[Row]:
    """GFLOP/s of the networks of the paper's model over the best matrix product's."""
    from benchmarks.paper.model import paper_model, write_paper_bundle

    onnx, torch = require("onnx", "export"), require("torch", "train")
    torch.set_num_threads(settings.threads)
    kernels.set_threads(settings.threads)
    work = Path(tempfile.mkdtemp(prefix="contrastzsd-"))
    try:
        write_paper_bundle(work / "paper", paper_model())
        bundle = open_bundle(work / "paper")
        inputs = calibration_inputs(bundle, named_photographs()[:1], 300)
        calls: dict[str, Callable[[], Any]] = dict(gemms(LIMIT))
        gflop = dict.fromkeys(calls, LIMIT.gflop)
        limits = list(calls)
        for name in ("onnxruntime", "openvino"):
            backend = open_backend(name, bundle, settings.threads)
            for stage in STAGES:
                feed = inputs[stage][0]
                network = onnx.load(bundle.network(stage))
                key = f"{stage}, {name}"
                gflop[key] = 2e-9 * sum(multiply_adds(network, feed).values())
                calls[key] = partial(getattr(backend, stage), *feed.values())
        medians = in_turns(calls, CALLS)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    rates = {f"{name}, GFLOP/s": 1e3 * gflop[name] / ms for name, ms in medians.items()}
    ceiling = max(rates[f"{name}, GFLOP/s"] for name in limits)
    found = []
    for bar, stage in zip(bars, STAGES, strict=True):
        best = max(rate for name, rate in rates.items() if name.startswith(stage))
        own = {n: rate for n, rate in rates.items() if n.startswith(stage)}
        shown = {"ceiling, GFLOP/s": ceiling, **own}
        found.append(Row(bar=bar, measured=best / ceiling, medians=shown))
    return found


GROUPS = [
    Group(
        name="peers",
        bars=[
            Bar(what="YOLO-World-S at 640, over `open`", asked=5, at_most=False),
            Bar(what="OWLv2 base, over `open`", asked=100, at_most=False),
            Bar(what="DEIMv2-Femto in plain ONNX Runtime, over `open`", asked=0.8, at_most=False),
        ],
        run=_peers,
    ),
    Group(
        name="paper",
        bars=[
            Bar(
                what=f"paper's model, {stage}: share of the ceiling of a matrix product",
                asked=0.95,
                at_most=False,
                unit="share",
            )
            for stage in STAGES
        ],
        run=_paper,
    ),
]
