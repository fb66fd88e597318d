"""Models of ``benchmarks.peers``: our detectors and the peers, each made as its users make it.

Nothing is downloaded and no peer's package is imported before its group is made.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import count, cycle
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from runtime.backends import installed_backends
from runtime.bundle import Bundle, default_bundle, open_bundle
from runtime.detector import Detector
from zsd_core.errors import require
from zsd_core.scoring import scorer_for
from zsd_core.semantics import fold_name

__all__ = [
    "DINO",
    "EAGER",
    "GROUPS",
    "OWL",
    "PAPER",
    "SHIPPED",
    "YOLO_WORLD",
    "Entry",
    "Pixels",
    "ours",
    "photographs",
]

Pixels = NDArray[np.uint8]
CLASSES = 80
SHIPPED, PAPER = "contrastzsd shipped", "contrastzsd paper (ResNet-101)"
EAGER = "same paper model in PyTorch"
YOLO_WORLD, OWL, DINO = "YOLO-World-S v2", "OWLv2 base", "Grounding DINO tiny"
# Tokens of the 80 names of COCO: CLIP pads each to 77 and OWLv2 to 16; BERT reads one caption
# "person . bicycle . ... toothbrush ." of about so many.
CLIP_TOKENS, OWL_TOKENS, BERT_TOKENS = 77, 16, 195


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """Something to time.

    Attributes:
        model: its name in the table.
        backend: what runs it.
        precision: of its networks.
        task: "detect" (one image to boxes) or "set_classes" (80 new names).
        call: once.
        share: of the calls asked for; slow ones take fewer.
    """

    model: str
    backend: str
    precision: str
    task: str
    call: Callable[[], Any]
    share: float = 1.0

    @property
    def name(self) -> str:
        """Model, backend, precision and task."""
        return f"{self.model}, {self.backend}, {self.precision}, {self.task}"


def photographs() -> list[Pixels]:
    """Three packaged photographs, each brought to 640 x 480."""
    cv2, data = require("cv2", "cpu"), require("skimage.data", "demo")
    pictures = (data.coffee(), data.chelsea(), data.astronaut())
    return [np.ascontiguousarray(cv2.resize(picture, (640, 480))) for picture in pictures]


def _shipped(images: Sequence[Pixels], threads: int, work: Path) -> Iterator[Entry]:
    from export.checks import images as packaged
    from export.quantize import add_int8

    bundle = Path(shutil.copytree(default_bundle(), work / "shipped"))
    if "int8" not in open_bundle(bundle).manifest.get("precisions", {}):
        add_int8(bundle, packaged.photographs())  # as python -m export.quantize does
    yield from ours(SHIPPED, open_bundle(bundle), images, threads, 1.0)


def ours(
    model: str, bundle: Bundle, images: Sequence[Pixels], threads: int, share: float
) -> Iterator[Entry]:
    """A bundle of ours on every backend, in every precision that it holds."""
    table = {fold_name(name) for name in (*bundle.seen, *bundle.unseen)}
    words = [name for name in bundle.vocabulary.names if fold_name(name) not in table]
    method = scorer_for(bundle.model_config.scoring, bundle.scorer_tensors())
    for backend in (b for b in installed_backends() if not b.startswith("tensorrt")):
        for precision in ("float32", *bundle.manifest.get("precisions", {})):
            if precision == "fp16":
                continue  # no CPU computes in it
            detector = Detector(
                bundle,
                backend=backend,
                precision=precision,
                threads=threads,
                scoring_precision=precision if precision in method.PRECISIONS else "float32",
            )
            detect = _over(images, detector)
            yield Entry(
                model=model,
                backend=backend,
                precision=precision,
                task="detect",
                call=detect,
                share=share,
            )
    other, turn = Detector(bundle, threads=threads), count()
    other.prepare_vocabulary()  # every word, before any is asked for

    def set_classes() -> None:  # other names every time
        start = next(turn) * CLASSES % (len(words) - CLASSES)
        other.set_classes(words[start : start + CLASSES])

    yield Entry(
        model=model, backend="numpy", precision="float32", task="set_classes", call=set_classes
    )


def _over(images: Sequence[Pixels], function: Callable[[Pixels], Any]) -> Callable[[], Any]:
    """A call with the next of the images."""
    turn = cycle(images)
    return lambda: function(next(turn))


def _paper(images: Sequence[Pixels], threads: int, work: Path) -> Iterator[Entry]:
    from benchmarks.paper.model import (
        EagerDetector,
        add_paper_int8,
        paper_model,
        write_paper_bundle,
    )

    model = paper_model()
    bundle = write_paper_bundle(work / "paper", model)
    add_paper_int8(work / "paper")
    eager = EagerDetector(
        model, bundle.class_vectors[: len(bundle.seen)], bundle.class_vectors[len(bundle.seen) :]
    )
    yield Entry(
        model=EAGER,
        backend="torch",
        precision="float32",
        task="detect",
        call=_over(images, eager),
        share=0.2,
    )
    yield from ours(PAPER, open_bundle(work / "paper"), images, threads, 0.2)


def _torchvision(images: Sequence[Pixels], threads: int, work: Path) -> Iterator[Entry]:
    torch, detection = require("torch", "train"), require("torchvision.models.detection", "train")
    for model, name, share in (
        ("Faster R-CNN R50-FPN", "fasterrcnn_resnet50_fpn", 0.25),
        ("Faster R-CNN MobileNetV3-320", "fasterrcnn_mobilenet_v3_large_320_fpn", 1.0),
    ):
        network = getattr(detection, name)(weights=None, weights_backbone=None).eval()

        def detect(image: Pixels, network: Any = network) -> Any:
            with torch.inference_mode():
                tensor = torch.from_numpy(image).permute(2, 0, 1).float() / 255
                return network([tensor])

        yield Entry(
            model=model,
            backend="torch",
            precision="float32",
            task="detect",
            call=_over(images, detect),
            share=share,
        )


def _yolo(images: Sequence[Pixels], threads: int, work: Path) -> Iterator[Entry]:
    os.environ.setdefault("YOLO_AUTOINSTALL", "false")  # it would change this environment
    os.environ.setdefault("YOLO_OFFLINE", "true")
    os.environ.setdefault("YOLO_CONFIG_DIR", str(work))
    torch, ultralytics = require("torch", "train"), require("ultralytics", "peers")
    torch.set_num_threads(threads)  # importing it may change that
    frames = [np.ascontiguousarray(image[:, :, ::-1]) for image in images]  # it expects BGR
    for model, file, make in (
        ("YOLOv8n", "yolov8n.yaml", ultralytics.YOLO),
        (YOLO_WORLD, "yolov8s-worldv2.yaml", ultralytics.YOLOWorld),
    ):
        network = make(file)
        yield Entry(
            model=model,
            backend="torch",
            precision="float32",
            task="detect",
            call=_over(frames, partial(_predict, network)),
            share=0.6,
        )
        _predict(network, frames[0])
        network.model.pt_path = str(work / f"{model}.pt")  # where the export goes
        exported = ultralytics.YOLO(
            network.export(format="onnx", imgsz=640, simplify=False, device="cpu", verbose=False),
            task="detect",
        )
        yield Entry(
            model=model,
            backend="onnxruntime",
            precision="float32",
            task="detect",
            call=_over(frames, partial(_predict, exported)),
            share=0.6,
        )
    transformers = require("transformers", "peers")
    encoder = transformers.CLIPTextModelWithProjection(transformers.CLIPTextConfig()).eval()
    tokens = torch.randint(1, 40000, (CLASSES, CLIP_TOKENS))
    yield _text_entry(YOLO_WORLD, lambda: encoder(input_ids=tokens), 0.15)


def _predict(network: Any, image: Pixels) -> Any:
    return network.predict(image, imgsz=640, device="cpu", verbose=False)


def _text_entry(model: str, call: Callable[[], Any], share: float) -> Entry:
    torch = require("torch", "train")

    def encode() -> Any:
        with torch.inference_mode():
            return call()

    return Entry(
        model=model,
        backend="torch",
        precision="float32",
        task="set_classes",
        call=encode,
        share=share,
    )


def _owl(images: Sequence[Pixels], threads: int, work: Path) -> Iterator[Entry]:
    """google/owlv2-base-patch16: 960 x 960, patches of 16; its queries are encoded before."""
    torch, package = require("torch", "train"), require("transformers", "peers")
    vision = {"image_size": 960, "patch_size": 16}
    model = package.Owlv2ForObjectDetection(package.Owlv2Config(vision_config=vision)).eval()
    processor = package.Owlv2ImageProcessor()
    tokens = torch.randint(1, 40000, (CLASSES, OWL_TOKENS))
    text = model.owlv2.get_text_features

    def embed() -> Any:
        found = text(input_ids=tokens, attention_mask=torch.ones_like(tokens))
        return getattr(found, "pooler_output", found)

    with torch.inference_mode():
        queries = embed()[None]

    def detect(image: Pixels) -> Any:
        with torch.inference_mode():
            pixels = processor(images=image, return_tensors="pt")["pixel_values"]
            features = model.image_embedder(pixel_values=pixels)[0]
            flat = features.reshape(1, -1, features.shape[-1])
            logits = model.class_predictor(flat, queries)[0]
            boxes = model.box_predictor(flat, features)
            scores, labels = logits.sigmoid().max(dim=-1)
            kept = scores > 0.99  # random weights would give thousands
            return boxes[kept], scores[kept], labels[kept]

    yield Entry(
        model=OWL,
        backend="torch",
        precision="float32",
        task="detect",
        call=_over(images, detect),
        share=0.08,
    )
    yield _text_entry(OWL, embed, 0.3)


def _dino(images: Sequence[Pixels], threads: int, work: Path) -> Iterator[Entry]:
    """IDEA-Research/grounding-dino-tiny: Swin-T; BERT reads the caption with every image."""
    torch, package = require("torch", "train"), require("transformers", "peers")
    model = package.GroundingDinoForObjectDetection(package.GroundingDinoConfig()).eval()
    processor = package.GroundingDinoImageProcessor()
    tokens = torch.full((1, BERT_TOKENS), 1012)  # "."
    tokens[0, ::2] = torch.arange(2000, 2000 + len(tokens[0, ::2]))
    tokens[0, 0], tokens[0, -1] = 101, 102  # [CLS], [SEP]
    mask = torch.ones_like(tokens)

    def detect(image: Pixels) -> Any:
        with torch.inference_mode():
            pixels = processor(images=image, return_tensors="pt")
            found = model(
                pixel_values=pixels["pixel_values"],
                pixel_mask=pixels["pixel_mask"],
                input_ids=tokens,
                attention_mask=mask,
                token_type_ids=torch.zeros_like(tokens),
            )
            scores = found.logits.sigmoid().amax(dim=-1)
            kept = scores > 0.99
            return found.pred_boxes[kept], scores[kept]

    yield Entry(
        model=DINO,
        backend="torch",
        precision="float32",
        task="detect",
        call=_over(images, detect),
        share=0.1,
    )
    bert = model.model.text_backbone
    yield _text_entry(DINO, lambda: bert(input_ids=tokens, attention_mask=mask), 0.3)


GROUPS: dict[str, Callable[[Sequence[Pixels], int, Path], Iterator[Entry]]] = {
    "shipped": _shipped,
    "yolo": _yolo,
    "torchvision": _torchvision,
    "owl": _owl,
    "dino": _dino,
    "paper": _paper,
}
