"""The CPU kernels against PyTorch, torchvision and OpenCV, and against the machine's own GEMM.

    python -m benchmarks.operators --json operators.json
    python -m benchmarks.operators --static    what is known of the CUDA kernels with no GPU

Ours and the reference are called in turn, so that both see the same machine; medians, wall clock.
"GEMM" is the best of torch, oneDNN and ONNX Runtime multiplying as many float32 numbers, measured
in the same run on 96 classes' worth and scaled; eager PyTorch is scaled likewise beyond 96 classes.
Memory is the peak of the resident set during packing and the first call, less the result.
"""

from __future__ import annotations

import argparse
import ctypes
import functools
import json
import os
import platform
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zsd_core import kernels
from zsd_core.config import ProposalConfig
from zsd_core.errors import ZsdError, require

__all__ = ["Bench", "Row", "main", "measure", "table"]

Floats = NDArray[np.float32]
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One line of the table: times in milliseconds, memory in megabytes."""

    operator: str
    variant: str
    ms: float
    reference: str
    reference_ms: float
    classes: int | None = None
    gflops: float | None = None
    share_of_ceiling: float | None = None
    extra_mb: float | None = None
    max_difference: float | None = None
    top1_agreement: float | None = None

    def record(self) -> dict[str, Any]:
        """The row as JSON holds it, with ``ratio`` = ms / reference_ms."""
        return {**asdict(self), "ratio": self.ms / self.reference_ms}


class Bench:
    """Times calls and knows how often."""

    def __init__(self, calls: int) -> None:
        self.calls = calls

    def pair(self, ours: Callable[[], Any], theirs: Callable[[], Any]) -> tuple[float, float]:
        """Median milliseconds of both, called in turn after one warm-up each."""
        samples: tuple[list[float], list[float]] = ([], [])
        for call in range(self.calls + 1):
            for function, times in zip((ours, theirs), samples, strict=True):
                start = time.perf_counter()
                function()
                if call:
                    times.append(1e3 * (time.perf_counter() - start))
        return median(samples[0]), median(samples[1])

    def one(self, function: Callable[[], Any]) -> float:
        """Median milliseconds."""
        return self.pair(function, lambda: None)[0]


def _extra_mb(function: Callable[[], NDArray[Any] | list[NDArray[Any]]]) -> float | None:
    """Peak resident memory of a call beyond what was there and its result; Linux only."""
    if sys.platform != "linux":
        return None
    ctypes.CDLL(None).malloc_trim(0)
    before = _resident("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # restarts VmHWM
    result = function()
    size = sum(a.nbytes for a in (result if isinstance(result, list) else [result]))
    return max(0.0, _resident("VmHWM") - before - size / 1e6)


def _resident(field: str) -> float:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1]) * 1024 / 1e6
    raise ZsdError(f"/proc/self/status has no {field}.")


def _softmax(logits: Floats) -> Floats:
    """Over the last axis."""
    weights = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(weights / weights.sum(axis=1, keepdims=True))


def _mlp_arrays(regions: int, classes: int, joint: int, hidden: int, zeros: float) -> list[Floats]:
    """Random regions, prototypes (dense, or with a share of exact zeros) and layers."""
    rng = np.random.default_rng(0)
    prototypes = rng.random((classes, joint), np.float32) + np.float32(0.1)
    prototypes[rng.random(prototypes.shape) < zeros] = 0
    bound = joint**-0.5, hidden**-0.5  # torch.nn.Linear's initialisation
    shapes = ((hidden, joint), (hidden,), (hidden,), (1,))
    layers = [
        rng.uniform(-bound[i // 2], bound[i // 2], shape).astype(np.float32)
        for i, shape in enumerate(shapes)
    ]
    return [rng.random((regions, joint), np.float32), prototypes, *layers]


def _gemm_ms(bench: Bench, rows: int, joint: int, hidden: int) -> tuple[str, float]:
    """The fastest multiplication of (rows, D) by (D, M), by whom, and its milliseconds."""
    torch, onnxruntime = require("torch", "train"), require("onnxruntime", "cpu")
    onnx = require("onnx", "export")
    from torch.utils import mkldnn

    left, right = torch.rand(rows, joint), torch.rand(hidden, joint)
    linear = torch.nn.Linear(joint, hidden, bias=False).eval()
    blocked, packed = left.to_mkldnn(), mkldnn.to_mkldnn(linear)
    helper, kind = onnx.helper, onnx.TensorProto.FLOAT
    weight = onnx.numpy_helper.from_array(right.T.contiguous().numpy(), "w")
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])], "gemm",
        [helper.make_tensor_value_info("x", kind, [rows, joint])],
        [helper.make_tensor_value_info("y", kind, [rows, hidden])], [weight],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = kernels.get_threads()
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    candidates: dict[str, Callable[[], Any]] = {
        "torch": lambda: left @ right.T,
        "oneDNN": lambda: packed(blocked),
        "ONNX Runtime": lambda: session.run(None, {"x": left.numpy()}),
    }
    with torch.inference_mode():
        times = {name: bench.one(function) for name, function in candidates.items()}
    for name, value in times.items():
        print(f"GEMM {name}: {2e-6 * rows * joint * hidden / value:.0f} GFLOP/s")
    best = min(times, key=lambda name: times[name])
    return best, times[best]


def _product_mlp_rows(
    bench: Bench, regions: int, joint: int, hidden: int, counts: Sequence[int]
) -> list[Row]:
    """Every variant of ``product_mlp`` for one model and some numbers of classes."""
    torch = require("torch", "train")
    base, rows = counts[0], []
    _, gemm = _gemm_ms(bench, regions * base, joint, hidden)
    arrays = _mlp_arrays(regions, base, joint, hidden, 0.0)
    tensors = [torch.from_numpy(a) for a in arrays]

    def eager() -> Floats:
        with torch.inference_mode():
            products = tensors[0][:, None] * tensors[1]
            inner = torch.relu(products @ tensors[2].T + tensors[3])
            scores: Floats = (inner @ tensors[4] + tensors[5]).numpy()
            return scores

    exact80 = 0.0
    for classes in counts:
        for variant, zeros, precision, shortlist in (
            ("float32 dense", 0.0, "float32", None),
            ("float32 half zero", 0.5, "float32", None),
            ("int8 dense", 0.0, "int8", None),
            ("float32 shortlist 128", 0.0, "float32", 128),
        ):
            if shortlist and classes <= 2 * shortlist:
                continue
            data = _mlp_arrays(regions, classes, joint, hidden, zeros)
            packed: list[kernels.PackedMlp] = []

            def first(
                data: list[Floats] = data, packed: list[kernels.PackedMlp] = packed,
                precision: Any = precision, shortlist: int | None = shortlist,
            ) -> list[Floats]:  # fmt: skip
                packed.append(kernels.PackedMlp(*data[2:], precision=precision))
                return kernels.product_mlps(data[0], data[1], [(packed[0], 0)], shortlist=shortlist)

            memory = _extra_mb(first)

            def ours(data: list[Floats] = data, packed: Any = packed, s: Any = shortlist) -> Floats:
                return kernels.product_mlps(data[0], data[1], [(packed[0], 0)], shortlist=s)[0]

            scale = classes / base
            if shortlist:
                few = data[1][:80]
                ms, exact80 = bench.pair(
                    ours,
                    lambda d=data, p=packed, f=few: p[0](d[0], f),  # type: ignore[misc]
                )
                name, reference = "ours, 80 classes exact", exact80
            elif precision == "int8":
                ms, other = bench.pair(ours, eager)
                name, reference = "PyTorch eager float32", other * scale
            else:
                ms, name, reference = bench.one(ours), "GEMM float32", gemm * scale
            exact, scores = kernels.product_mlp(*data), ours()
            flops = 2e-6 * regions * classes * joint * hidden
            rows.append(Row(
                operator="product_mlp", variant=variant, classes=classes, ms=ms, reference=name,
                reference_ms=reference, gflops=flops / ms, share_of_ceiling=gemm * scale / ms,
                extra_mb=memory,
                max_difference=float(np.abs(_softmax(scores) - _softmax(exact)).max()),
                top1_agreement=float((scores.argmax(axis=1) == exact.argmax(axis=1)).mean()),
            ))  # fmt: skip
    return rows


def _roi_align_rows(bench: Bench) -> list[Row]:
    """Forward and backward at the paper's size and the shipped model's."""
    torch, torchvision = require("torch", "train"), require("torchvision", "train")
    rng, rows = np.random.default_rng(0), []
    for channels, height, width, count, bins in ((1024, 38, 50, 300, 14), (96, 24, 36, 100, 7)):
        shape = (1, channels, height, width)
        features = rng.random(shape, np.float32)
        corners = rng.random((count, 2)) * (width * 12, height * 12)
        boxes = np.concatenate([corners, corners + 20 + rng.random((count, 2)) * 250], axis=1)
        rois, indices = boxes.astype(np.float32), np.zeros(count, np.int32)
        gradient = rng.random((count, channels, bins, bins), np.float32)
        columns = torch.from_numpy(np.pad(rois, ((0, 0), (1, 0))))
        forward = functools.partial(
            kernels.roi_align, features, rois, indices, output_size=(bins, bins),
            spatial_scale=1 / 16,
        )  # fmt: skip
        backward = functools.partial(
            kernels.roi_align_backward, gradient, rois, indices, shape, spatial_scale=1 / 16
        )
        forward_theirs = functools.partial(
            torchvision.ops.roi_align, torch.from_numpy(features), columns, (bins, bins), 1 / 16,
            2, aligned=True,
        )  # fmt: skip
        backward_theirs = functools.partial(
            torch.ops.torchvision._roi_align_backward, torch.from_numpy(gradient), columns, 1 / 16,
            bins, bins, *shape, 2, True,
        )  # fmt: skip
        for name, ours, theirs in (
            ("forward", forward, forward_theirs),
            ("backward", backward, backward_theirs),
        ):
            ms, other = bench.pair(ours, theirs)
            rows.append(Row(
                operator="roi_align", variant=f"{name} {count} x {channels} x {bins} x {bins}",
                ms=ms, reference="torchvision", reference_ms=other,
                max_difference=float(np.abs(ours() - theirs().numpy()).max()),
            ))  # fmt: skip
    return rows


def _box_rows(bench: Bench) -> list[Row]:
    """``propose`` and ``detect`` against the same steps with torchvision's operators."""
    torch, torchvision = require("torch", "train"), require("torchvision", "train")
    from torchvision.models.detection._utils import BoxCoder

    rng, rows, ops = np.random.default_rng(0), [], torchvision.ops
    height, width, count, before, after = 38, 50, 9, 6000, 300
    anchors = ProposalConfig().anchors()
    logits = rng.standard_normal((1, count, height, width)).astype(np.float32)
    deltas = (rng.standard_normal((1, 4 * count, height, width)) * 0.3).astype(np.float32)
    size = (height * 16, width * 16)
    y, x = np.meshgrid(np.arange(height) * 16, np.arange(width) * 16, indexing="ij")
    grid = torch.from_numpy(
        (np.stack([x, y, x, y], -1)[:, :, None] + anchors).reshape(-1, 4).astype(np.float32)
    )

    def propose_theirs() -> Any:
        flat = torch.from_numpy(logits)[0].permute(1, 2, 0).reshape(-1)
        offsets = torch.from_numpy(deltas)[0].view(count, 4, height, width).permute(2, 3, 0, 1)
        best, index = flat.topk(before)
        boxes = BoxCoder((1.0, 1.0, 1.0, 1.0)).decode_single(
            offsets.reshape(-1, 4)[index], grid[index]
        )
        boxes = ops.clip_boxes_to_image(boxes, size)
        kept = ops.remove_small_boxes(boxes, 1.0)
        boxes = boxes[kept]
        return boxes[ops.nms(boxes, best[kept], 0.7)[:after]]

    def propose_ours() -> Any:
        return kernels.propose(
            logits, deltas, anchors, np.array([size], np.float32), stride=16, pre_nms_top=before,
            post_nms_top=after, nms_threshold=0.7, min_size=1.0,
        )[0]  # fmt: skip

    ms, other = bench.pair(propose_ours, propose_theirs)
    rows.append(Row(
        operator="propose", variant=f"{before} to {after}", ms=ms, reference="torchvision",
        reference_ms=other,
        max_difference=float(np.abs(propose_ours() - propose_theirs().numpy()).max()),
    ))  # fmt: skip
    for classes in (95, 1202):
        scores = (rng.random((300, classes)) ** 8).astype(np.float32) * np.float32(0.4)
        corners = rng.random((300, 2)) * 500
        rois = np.concatenate([corners, corners + 10 + rng.random((300, 2)) * 200], axis=1)
        rois = rois.astype(np.float32)
        offsets = rng.standard_normal((300, 4)).astype(np.float32)

        def detect_theirs(s: Floats = scores, r: Floats = rois, o: Floats = offsets) -> Any:
            boxes = BoxCoder((10.0, 10.0, 5.0, 5.0)).decode_single(
                torch.from_numpy(o), torch.from_numpy(r)
            )
            boxes = ops.clip_boxes_to_image(boxes, (600, 800))
            values = torch.from_numpy(s)
            regions, columns = torch.nonzero(values > 0.05, as_tuple=True)
            kept = ops.remove_small_boxes(boxes[regions], 1.0)
            regions, columns = regions[kept], columns[kept]
            best = values[regions, columns]
            return best[ops.batched_nms(boxes[regions], best, columns, 0.5)[:100]]

        def detect_ours(s: Floats = scores, r: Floats = rois, o: Floats = offsets) -> Any:
            return kernels.detect(
                s, o, r, np.zeros(300, np.int32), np.array([[600, 800]], np.float32),
                np.full(s.shape[1], 0.05, np.float32), nms_threshold=0.5, max_detections=100,
                min_size=1.0,
            )[1]  # fmt: skip

        ms, other = bench.pair(detect_ours, detect_theirs)
        rows.append(Row(
            operator="detect", variant="300 regions", classes=classes, ms=ms,
            reference="torchvision", reference_ms=other,
            max_difference=float(np.abs(detect_ours() - detect_theirs().numpy()).max()),
        ))  # fmt: skip
    return rows


def _preprocess_rows(bench: Bench) -> list[Row]:
    """Against OpenCV's bilinear resize and normalisation in numpy."""
    cv2, rows = require("cv2", "cpu"), []
    cv2.setNumThreads(kernels.get_threads())
    mean, std = np.asarray(MEAN, np.float32), np.asarray(STD, np.float32)
    for shape, size, padded in (
        ((480, 640), (600, 800), (608, 800)),
        ((1080, 1920), (360, 640), (384, 640)),
        ((427, 640), (384, 576), (384, 576)),
    ):
        image = np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)

        def theirs(image: Any = image, size: Any = size, padded: Any = padded) -> Any:
            resized = cv2.resize(image, size[::-1], interpolation=cv2.INTER_LINEAR)
            output = np.zeros((3, *padded), np.float32)
            normal = (resized.astype(np.float32) / 255 - mean) / std
            output[:, : size[0], : size[1]] = normal.transpose(2, 0, 1)
            return output

        def ours(image: Any = image, size: Any = size, padded: Any = padded) -> Any:
            return kernels.preprocess(image, size=size, padded=padded, mean=MEAN, std=STD)

        ms, other = bench.pair(ours, theirs)
        variant = f"{shape[1]} x {shape[0]} to {size[1]} x {size[0]}"
        rows.append(Row(
            operator="preprocess", variant=variant, ms=ms, reference="OpenCV + numpy",
            reference_ms=other,
        ))  # fmt: skip
    return rows


def measure(bench: Bench, classes: Sequence[int] = (96, 1203)) -> list[Row]:
    """Every row of the table."""
    rows = _product_mlp_rows(bench, 300, 2048, 1024, classes)
    rows += [
        Row(**{**asdict(row), "operator": "product_mlp, shipped model"})
        for row in _product_mlp_rows(bench, 100, 512, 256, (66,))
    ]
    return rows + _roi_align_rows(bench) + _box_rows(bench) + _preprocess_rows(bench)


def table(rows: Sequence[Row]) -> str:
    """The rows in Markdown."""
    lines = [
        "| operator | variant | classes | ms | reference | reference ms | ratio | GFLOP/s "
        "| of ceiling | extra MB | max difference | top-1 |",
        "| --- | --- | ---: | ---: | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for row in rows:
        cells = (
            row.operator, row.variant, row.classes or "", f"{row.ms:.2f}", row.reference,
            f"{row.reference_ms:.2f}", f"{row.ms / row.reference_ms:.3f}",
            _text(row.gflops, ".0f"), _text(row.share_of_ceiling, ".0%"),
            _text(row.extra_mb, ".1f"), _text(row.max_difference, ".1e"),
            _text(row.top1_agreement, ".1%"),
        )  # fmt: skip
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    return "\n".join(lines)


def _text(value: float | None, form: str) -> str:
    return "" if value is None else format(value, form)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmark; see the module."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--json", type=Path, help="write the rows as a JSON list to this file")
    parser.add_argument("--calls", type=int, default=7, help="timed calls of each (default 7)")
    parser.add_argument("--threads", type=int, help="threads of all (default: one per core)")
    parser.add_argument("--static", action="store_true", help="print what is known of CUDA instead")
    args = parser.parse_args(argv)
    try:
        if args.static:
            from benchmarks import static

            return static.main([])
        if args.threads:
            kernels.set_threads(args.threads)
        torch = require("torch", "train")
        torch.set_num_threads(kernels.get_threads())
        print(
            f"{platform.processor() or platform.machine()}, {kernels.build_info()}, torch "
            f"{torch.__version__}, load {os.getloadavg()[0]:.1f}, medians of {args.calls} calls"
        )
        rows = measure(Bench(args.calls))
        print(table(rows))
        if args.json:
            args.json.write_text(json.dumps([row.record() for row in rows], indent=1) + "\n")
    except ZsdError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
