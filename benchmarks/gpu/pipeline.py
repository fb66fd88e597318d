"""Part "pipeline": a whole detector on the GPU, captured, against the CPU's.

The program is the one that ships (``runtime.backends.device_pipeline``); its two networks run in
PyTorch (``engine.py``), since no TensorRT is needed to prove the rest. The CPU's detector runs the
same networks in ONNX Runtime.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from statistics import median
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.gpu.build import ROOT
from benchmarks.gpu.engine import Place, TorchEngine
from benchmarks.gpu.report import Report
from benchmarks.measure import photograph
from export.checks.images import sample_images
from export.checks.parity import compared_classes
from export.gpu_check import SCORE, agreeing
from runtime import Detections, Detector
from runtime.backends.cuda_driver import Device
from runtime.backends.device_pipeline import DevicePipeline
from runtime.bundle import Bundle, open_bundle
from zsd_core.scoring import scorer_for
from zsd_core.semantics import fold_name

__all__ = [
    "BUNDLES",
    "CountingDevice",
    "OnDevice",
    "Tally",
    "TimedDevice",
    "changes",
    "compare_networks",
    "dry",
    "prove",
    "run",
    "time_frames",
]

BUNDLES = ("open", "coco48")
CAPACITY = 128  # unseen classes
FRAMES = 100  # timed
AGREE = 0.99  # of the detections, as in export.gpu_check
ROUNDING = 1e-3  # float32 through 700 operators; a wrong one is off by far more
Pixels = NDArray[np.uint8]


class CountingDevice(Device):
    """A device that counts the graphs it captures and launches."""

    captures = replays = 0

    def capture(self, stream: Any, enqueue: Callable[[], None]) -> Any:
        """See ``Device``."""
        self.captures += 1
        return super().capture(stream, enqueue)

    def replay(self, recording: Any, stream: Any) -> None:
        """See ``Device``."""
        self.replays += 1
        super().replay(recording, stream)


class TimedDevice(CountingDevice):
    """One that times launches of a graph too, by events on its stream."""

    def __init__(self, index: int, extra: str) -> None:
        super().__init__(index, extra)
        self.launches: list[tuple[Any, Any]] = []

    def replay(self, recording: Any, stream: Any) -> None:
        """See ``Device``."""
        import torch

        outer = torch.cuda.ExternalStream(int(stream))
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record(outer)
        super().replay(recording, stream)
        end.record(outer)
        self.launches.append((start, end))


class OnDevice:
    """A detector of a bundle whose pipeline stays on a device; use as a context manager.

    Args:
        bundle: whose networks.
        device: with the kernels.
        place: of the networks, on the same device.
        kernels: ``zsd_core.kernels.cuda.compiled_cuda()``, or a double of it.
        options: of ``Detector``.
    """

    def __init__(
        self, bundle: Bundle, device: Device, place: Place, kernels: ModuleType, **options: Any
    ) -> None:
        self.detector = Detector(bundle, backend="onnxruntime", **options)
        device.activate()
        config = bundle.model_config
        engines: dict[str, Any] = {s: TorchEngine(bundle, s, place) for s in ("trunk", "head")}
        scorer = scorer_for(config.scoring, bundle.scorer_tensors())
        self._pipeline = DevicePipeline(
            device, engines, kernels, config, scorer, len(bundle.seen), CAPACITY
        )
        # No backend of the runtime has PyTorch; everything else of the detector stays as it is.
        self.detector._pipeline = self._pipeline

    def __enter__(self) -> Detector:
        return self.detector

    def __exit__(self, *_: object) -> None:
        self._pipeline.close()
        self.detector.close()


def changes(bundle: Bundle) -> dict[str, Callable[[Detector], None]]:
    """Changes of classes and thresholds between two frames, by name."""
    taken = {fold_name(name) for name in (*bundle.seen, *bundle.unseen)}
    words = [word for word in bundle.vocabulary.names if fold_name(word) not in taken]
    return {
        "other classes": lambda d: d.set_classes([*bundle.seen[:5], *words[:3]]),
        "two classes added": lambda d: d.add_classes(words[3:5]),
        "one removed": lambda d: d.remove_classes([d.classes[0]]),
        "other thresholds": lambda d: d.set_thresholds(score_threshold=(SCORE, 2 * SCORE)),
        "many classes": lambda d: d.set_classes([*bundle.seen, *words[:100]]),
    }


def run(report: Report) -> None:
    """Both bundles on the GPU."""
    from benchmarks.gpu.engine import CudaPlace, exact_arithmetic
    from zsd_core.kernels.cuda import compiled_cuda

    exact_arithmetic()
    device, kernels = TimedDevice(0, "tensorrt"), compiled_cuda()
    pictures = {image.name: image.pixels for image in sample_images()}
    for name in BUNDLES:
        bundle = open_bundle(ROOT / "runtime" / "bundles" / name)
        place = CudaPlace()
        prove(report, bundle, device, place, kernels, pictures)
        with OnDevice(bundle, device, place, kernels, score_threshold=SCORE) as ours:
            time_frames(report, bundle.name, ours, device, photograph())
    device.close()


def prove(
    report: Report,
    bundle: Bundle,
    device: CountingDevice,
    place: Place,
    kernels: ModuleType,
    pictures: Mapping[str, Pixels],
) -> None:
    """Compare every image three times (as it is, captured, replayed), then after every change.

    The last image is the one that is searched again after the changes.
    """
    options: dict[str, Any] = {
        "classes": compared_classes(bundle)[1].names,  # some that a second look must find
        "score_threshold": SCORE,
    }
    exact = Detector(bundle, backend="onnxruntime", **options)
    with exact, OnDevice(bundle, device, place, kernels, **options) as ours:
        total, changed = Tally(), Tally()
        for frame in pictures.values():
            expected = exact(frame)
            for _ in range(3):
                total.add(ours(frame), expected)
        report.row(bundle=bundle.name, what="images, three times each", **total.row())
        _judge(report, bundle.name, total)
        captures, replays, steps = device.captures, device.replays, changes(bundle)
        for name, change in steps.items():
            change(ours), change(exact)
            before = changed.found
            changed.add(ours(frame), exact(frame))
            if changed.found == before:
                report.failure(f"{bundle.name}: after {name!r} there was nothing to compare.")
        report.row(
            bundle=bundle.name,
            what="after changes of classes and thresholds",
            **changed.row(),
            captures=device.captures - captures,
            launches=device.replays - replays,
        )
        _judge(report, bundle.name, changed)
        if (device.captures, device.replays) != (captures, replays + len(steps)):
            report.failure(f"{bundle.name}: a change of classes did not launch the same graph.")


def time_frames(
    report: Report, name: str, ours: Detector, device: TimedDevice, frame: Pixels
) -> None:
    """Milliseconds of a frame: of its graph by events, copies included, and of the whole call."""
    for _ in range(3):
        ours(frame)
    device.launches.clear()
    whole = [sum(ours(frame).times_ms.values()) for _ in range(FRAMES)]
    graph = [start.elapsed_time(end) for start, end in device.launches]
    report.row(
        bundle=name,
        what=f"median of {FRAMES} frames, {frame.shape[1]} x {frame.shape[0]}, "
        f"{len(ours.classes)} classes",
        graph_ms=median(graph),
        call_ms=median(whole),
    )


class Tally:
    """Detections of two detectors, and how many of them agree."""

    def __init__(self) -> None:
        self.found = self.agreed = 0
        self.score = self.box = 0.0

    def add(self, ours: Detections, exact: Detections) -> None:
        """Compare the detections of an image."""
        self.found += max(len(ours), len(exact))
        self.agreed += agreeing(ours, exact)
        if ours.class_names == exact.class_names and len(ours):  # else they are in another order
            self.score = max(self.score, float(np.abs(ours.scores - exact.scores).max()))
            self.box = max(self.box, float(np.abs(ours.boxes - exact.boxes).max()))

    def row(self) -> dict[str, Any]:
        """Values of a row."""
        return {
            "detections": self.found,
            "agree": self.agreed,
            "score_difference": self.score,
            "box_difference_px": self.box,
        }


def _judge(report: Report, name: str, tally: Tally) -> None:
    if not 0 < AGREE * tally.found <= tally.agreed:
        report.failure(f"{name}: {tally.agreed} of {tally.found} detections agree.")


def compare_networks(report: Report, folder: Path) -> None:
    """Run every network of the bundles in a folder in PyTorch and in ONNX Runtime, on a CPU."""
    import onnxruntime
    import torch

    from benchmarks.gpu.network import FixedNetwork

    random = np.random.default_rng(report.seed)
    for path in sorted(folder.glob("*/*.onnx")):
        if path.stem not in ("trunk", "head"):
            continue
        session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        shape = [n if isinstance(n, int) else 0 for n in session.get_inputs()[0].shape]
        shape = [2 if path.stem == "head" else 1, 3, *(side or 256 for side in shape[2:])]
        network = FixedNetwork(path, shape, "cpu")
        array = random.random(shape, np.float32)
        exact = session.run(network.outputs, {network.inputs[0]: array})
        with torch.no_grad():
            found = network(torch.from_numpy(array))
        if "logits" in network.outputs:  # near-equal queries may come in another order
            exact = [np.sort(array, axis=1) for array in exact]
            found = [array.sort(dim=1).values for array in found]
        error = max(
            float(np.abs(e - f.numpy()).max()) / max(1.0, float(np.abs(e).max()))
            for e, f in zip(exact, found, strict=True)
        )
        report.row(network=f"{path.parent.name}/{path.stem}", relative_error=error)
        if error > ROUNDING:
            report.failure(f"{path}: PyTorch is {error:.1e} from ONNX Runtime.")


def dry(report: Report) -> None:
    """The networks' conversion; the program itself runs on doubles in tests/benchmarks."""
    compare_networks(report, ROOT / "runtime" / "bundles")
