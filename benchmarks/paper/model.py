"""The paper-sized model with random weights: as a bundle of ours, and in PyTorch eager.

    python -m benchmarks.paper.model paper/    # writes the bundle, with int8 networks
    python -m export.layer_times paper/  # says which layers take the time

Random weights take the same time as trained ones, and say nothing about accuracy. Batch norm is
set so that activations keep their size through 101 layers, and the scores of anchors differ enough
that NMS leaves the 300 regions a trained model has.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor
from torchvision import ops

from benchmarks.measure import photograph
from export.checks.images import NamedImage
from export.graphs.split import split_conv5
from export.graphs.trace import trace_head, trace_trunk
from export.graphs.weights import WEIGHTS, save_graphs
from export.onnx import describe_graph
from export.writing.bundle_writer import write_bundle
from runtime.bundle import Bundle, open_bundle
from zsd_core import kernels
from zsd_core.commands import command, new_parser
from zsd_core.config import ModelConfig, ProposalConfig, ScoringConfig
from zsd_core.learning.data.splits import load_split
from zsd_core.learning.models import ContrastZSD
from zsd_core.learning.targets import BOX_WEIGHTS, RPN_WEIGHTS
from zsd_core.semantics import unit_rows

__all__ = [
    "CONFIG",
    "EagerDetector",
    "add_paper_int8",
    "keep_scale",
    "main",
    "paper_model",
    "write_paper_bundle",
]

Floats = NDArray[np.float32]
WORDS = 1203  # names of the vocabulary besides the 80 classes
# configs/paper.yaml: what section 4.1 says; everything else is the default.
CONFIG = ModelConfig(
    proposals=ProposalConfig(objectness="background"),
    scoring=ScoringConfig(joint_dim=2048, hidden_dim=1024, background="rpn"),
)


def paper_model(config: ModelConfig = CONFIG) -> ContrastZSD:
    """The model in evaluation mode, with random weights."""
    torch.manual_seed(0)
    model = ContrastZSD(config).eval()
    keep_scale(model)
    return model


def keep_scale(model: ContrastZSD) -> None:
    """Set the frozen batch norm of random weights so that activations keep their size."""
    with torch.no_grad():
        for part in (model.trunk, model.head):
            for name, buffer in part.named_buffers():
                if name.endswith("bn3.weight"):  # a block adds little to its shortcut
                    buffer.fill_(0.2)
                elif name.endswith("running_var"):  # of a sum over inputs, He's initialisation
                    buffer.fill_(2.0)
        model.trunk.rpn.deltas.weight.normal_(0, 1e-3)


def write_paper_bundle(path: Path, model: ContrastZSD) -> Bundle:
    """Write trunk and head as the exporter writes them, 65 seen and 15 unseen classes, and words.

    There is no ``detector.onnx`` and no parity report: this bundle is for timing alone.
    """
    split = load_split("coco_65_15")
    names = (*split.seen, *split.unseen)
    words = tuple(f"word {i}" for i in range(WORDS))
    rng, width = np.random.default_rng(0), model.config.scoring.vector_dim
    vectors = unit_rows(rng.normal(size=(len(names) + WORDS, width)).astype(np.float32))
    exported = split_conv5(model) or model
    graphs = {"trunk": trace_trunk(exported), "head": trace_head(exported)}
    work = path.with_name(path.name + ".parts")
    work.mkdir(parents=True)
    save_graphs(graphs, model.scorer_tensors(), work)
    files: dict[str, Path | bytes] = {
        name: work / name for name in (*(f"{stage}.onnx" for stage in graphs), WEIGHTS)
    }
    written = write_bundle(
        path,
        name="contrastzsd-resnet101-random",
        model=exported.config,
        files=files,
        classes=[(n, "seen") for n in split.seen] + [(n, "unseen") for n in split.unseen],
        class_vectors=vectors[: len(names)],
        scorer=model.scorer_tensors(),
        stages={name: describe_graph(name, graph) for name, graph in graphs.items()},
        vocabulary=(words, vectors[len(names) :]),
        vocabulary_info={"encoder": "random"},
    )
    return open_bundle(written)


def add_paper_int8(path: Path) -> None:
    """Add int8 networks to the bundle.

    Accuracy means nothing here, so one packaged photograph calibrates and no layer is spared.
    """
    from export.quantize import add_int8

    add_int8(
        path, [NamedImage("calibration", photograph())], regions=8, sensitive=0, noise=0, crossing=0
    )


class EagerDetector:
    """Model as one would write it with PyTorch and torchvision alone.

    Preprocessing is the runtime's, so that both see the same numbers. All pairs of regions and
    classes are scored with broadcast products, as the equations are written.

    Args:
        model: in evaluation mode.
        seen: vectors ``(Ks, E)``.
        unseen: vectors ``(U, E)``.
    """

    def __init__(self, model: ContrastZSD, seen: Floats, unseen: Floats) -> None:
        self.model, self.config = model, model.config
        scorer: Any = model.scorer
        vectors = torch.from_numpy(np.concatenate([seen, unseen]))
        with torch.inference_mode():
            self.prototypes = scorer.prototypes(vectors)
            rows = scorer.centered(vectors)
            cosines = rows[: len(seen)] @ rows[len(seen) :].T
            self.similarity = F.softmax(cosines / self.config.scoring.similarity_temperature, dim=1)

    @torch.inference_mode()
    def __call__(self, image: NDArray[np.uint8]) -> tuple[Tensor, Tensor, Tensor]:
        """Boxes ``(n, 4)`` in pixels of the network input, scores and columns ``(n,)``."""
        config = self.config.preprocess
        size = config.resized(*image.shape[:2])
        pixels = kernels.preprocess(
            image, size=size, padded=config.padded(*size), mean=config.mean, std=config.std
        )
        features, objectness, deltas = self.model.trunk(torch.from_numpy(pixels[None]))
        rois, roi_scores = self._propose(objectness[0], deltas[0], size)
        regions = self.config.regions
        patches = ops.roi_align(
            features,
            [rois],
            regions.output_size,
            1 / regions.stride,
            regions.sampling_ratio,
            aligned=True,
        )
        embeddings, offsets = self.model.head(patches)
        return self._detect(self._score(embeddings, roi_scores), offsets, rois, size)

    def _propose(
        self, objectness: Tensor, deltas: Tensor, size: tuple[int, int]
    ) -> tuple[Tensor, Tensor]:
        config = self.config.proposals
        anchors, (count, height, width) = torch.from_numpy(config.anchors()), objectness.shape
        y, x = (config.stride * torch.arange(n) for n in (height, width))
        shifts = torch.stack(torch.meshgrid(x, y, indexing="xy"), dim=-1).repeat(1, 1, 2)
        grid = (anchors + shifts[:, :, None]).reshape(-1, 4).float()
        offsets = deltas.view(count, 4, height, width).permute(2, 3, 0, 1).reshape(-1, 4)
        logits = objectness.permute(1, 2, 0).reshape(-1)
        logits, index = logits.topk(min(config.pre_nms_top, len(logits)))
        boxes = ops.clip_boxes_to_image(_decode(offsets[index], grid[index], RPN_WEIGHTS), size)
        large = ops.remove_small_boxes(boxes, config.min_size)
        kept = large[ops.nms(boxes[large], logits[large], config.nms_threshold)]
        kept = kept[: config.post_nms_top]
        return boxes[kept], logits[kept].sigmoid()

    def _score(self, embeddings: Tensor, objectness: Tensor) -> Tensor:
        config = self.config.scoring
        scorer: Any = self.model.scorer
        known = 1 + len(self.similarity)

        def logits(mlp: Any, prototypes: Tensor) -> Tensor:
            products = embeddings[:, None] * prototypes  # (R, K, D)
            scores: Tensor = mlp.output(F.relu(mlp.hidden(products)))[:, :, 0]
            return scores

        seen = logits(scorer.score_seen, self.prototypes)
        if config.seen_activation == "relu":
            seen = F.relu(seen)
        activations: dict[str, Callable[[Tensor], Tensor]] = {
            "softmax": lambda x: x.softmax(dim=1),
            "sigmoid": torch.sigmoid,
            "raw": lambda x: x,
        }
        seen = activations[config.fusion](seen)[:, 1:]
        unseen = logits(scorer.score_unseen, self.prototypes[known:]).sigmoid()
        factors = torch.cat([config.seen_scale * (unseen @ self.similarity.T), unseen], dim=1)
        return seen * factors * (objectness**config.objectness_power)[:, None]

    def _detect(
        self, scores: Tensor, offsets: Tensor, rois: Tensor, size: tuple[int, int]
    ) -> tuple[Tensor, Tensor, Tensor]:
        config = self.config.detection
        boxes = ops.clip_boxes_to_image(_decode(offsets, rois, BOX_WEIGHTS), size)
        regions, columns = torch.nonzero(scores > config.score_threshold, as_tuple=True)
        large = ops.remove_small_boxes(boxes[regions], config.min_size)
        regions, columns = regions[large], columns[large]
        found = scores[regions, columns]
        kept = ops.batched_nms(boxes[regions], found, columns, config.nms_threshold)
        kept = kept[: config.max_detections]
        return boxes[regions[kept]], found[kept], columns[kept]


def _decode(offsets: Tensor, boxes: Tensor, weights: Sequence[float]) -> Tensor:
    from torchvision.models.detection._utils import BoxCoder

    coder = BoxCoder(tuple(weights))
    decoded: Tensor = coder.decode_single(offsets, boxes)
    return decoded


@command
def main(argv: Sequence[str] | None = None) -> int:
    """Write the bundle; 0 on success, 1 with a sentence on stderr."""
    parser = new_parser("benchmarks.paper.model", __doc__)
    parser.add_argument("output", type=Path, help="a new directory")
    output: Path = parser.parse_args(argv).output
    if output.exists():
        parser.error(f"{output} exists; name a new directory.")
    with tempfile.TemporaryDirectory(prefix="contrastzsd-") as work:
        written = Path(work) / output.name
        write_paper_bundle(written, paper_model())
        add_paper_int8(written)
        shutil.copytree(written, output)
    print(output)
    return 0


if __name__ == "__main__":
    sys.exit(main())
