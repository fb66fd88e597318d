"""Fit the scores of classes from examples, so that they are probabilities, as scores of names are.

    python -m export.calibrate_examples bundle/ --annotations instances.json --images photographs

Boxes of one part of the photographs, a few of every category, are the examples; what is found with
them in another part tells how sure a similarity is. Categories keep their names to themselves: a
class is known here by its examples alone. Run ``export.calibrate`` first: its curve of unseen
classes is what these scores go through too.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from export.checks.examples import SMALLEST
from export.writing.bundle_writer import amend_bundle
from export.writing.card import renewed_card
from export.writing.replacing import check_replaceable
from runtime.backends import Backend, open_backend
from runtime.bundle import Bundle, open_bundle
from runtime.examples import Example, with_examples
from runtime.manifest import SCORER
from zsd_core.calibration import IDENTITY
from zsd_core.commands import Progress, command, new_parser
from zsd_core.config import ModelConfig
from zsd_core.errors import ConfigError, DataError, require
from zsd_core.learning.data.dataset import Dataset
from zsd_core.learning.data.photographs import read_image
from zsd_core.learning.data.read import read_dataset
from zsd_core.learning.data.subsets import SUBSETS
from zsd_core.learning.matching import box_iou
from zsd_core.options import check_option
from zsd_core.scoring import scorer_for
from zsd_core.scoring.base import VectorScorer
from zsd_core.stages import describe, to_original

__all__ = ["choose_examples", "example_vectors", "fit_scale", "main", "outcomes", "parse"]

Floats = NDArray[np.float32]
LEAST = 1e-6


def choose_examples(dataset: Dataset, count: int, seed: int) -> dict[str, list[Example]]:
    """Boxes of every category that has enough large ones, drawn at random.

    Raises:
        DataError: no category has.
    """
    places: dict[str, list[tuple[int, int]]] = {}
    for index, image in enumerate(dataset.images):
        for row, (box, label) in enumerate(zip(image.boxes, image.labels, strict=True)):
            if min(box[2:] - box[:2]) >= SMALLEST and not image.ignore[row]:
                places.setdefault(label, []).append((index, row))
    rng, chosen = np.random.default_rng(seed), {}
    for label in sorted(places):
        if len(places[label]) >= count:
            drawn = rng.choice(len(places[label]), count, replace=False)
            pairs = [places[label][i] for i in drawn]
            chosen[label] = [
                Example(read_image(dataset.images[i]), dataset.images[i].boxes[row].tolist())
                for i, row in pairs
            ]
    if not chosen:
        raise DataError(
            f"calibrate_examples: no category has {count} boxes of at least {SMALLEST:g} pixels "
            f"in {len(dataset.images)} photographs; give more annotations, or a smaller --count."
        )
    return chosen


def outcomes(
    backend: Backend,
    config: ModelConfig,
    dataset: Dataset,
    classes: dict[str, Floats],
) -> tuple[NDArray[Any], NDArray[Any], NDArray[np.bool_]]:
    """Similarity, objectness and rightness of every region and class.

    A pair is right if the region is the most similar one that covers a box of the class by half.

    Args:
        backend: networks of the bundle.
        config: of the model.
        dataset: photographs and their boxes.
        classes: mean embedding ``(V,)`` of the examples of each class.
    """
    names = list(classes)
    rows = np.stack([classes[name] / np.linalg.norm(classes[name]) for name in names])
    width, parts = rows.shape[1], []
    with Progress("photographs", len(dataset.images)) as progress:
        for record in dataset.images:
            image = read_image(record)
            found = describe(backend, config, [image])
            looks = found.embeddings[:, -config.scoring.joint_dim - config.scoring.vector_dim - 1 :]
            looked = np.flatnonzero(looks[:, -1])
            similar = looks[looked][:, :width] @ rows.T  # (L, K)
            size = found.image_sizes[0]
            boxes = to_original(found.rois[looked], (int(size[0]), int(size[1])), image.shape[:2])
            right = np.zeros(similar.shape, bool)
            overlap = np.asarray(box_iou(boxes, record.boxes)).reshape(len(looked), -1)
            for column, label in enumerate(record.labels):
                if label in classes:
                    place = names.index(label)
                    fits = np.flatnonzero(overlap[:, column] >= 0.5)
                    if len(fits):
                        right[fits[similar[fits, place].argmax()], place] = True
            objectness = np.repeat(found.objectness[looked][:, None], len(names), axis=1)
            parts.append((similar.ravel(), objectness.ravel(), right.ravel()))
            progress.advance()
    similarity, objectness, hits = (np.concatenate(part) for part in zip(*parts, strict=True))
    return similarity, objectness, hits


def fit_scale(
    similarity: NDArray[Any],
    objectness: NDArray[Any],
    right: NDArray[np.bool_],
    power: float,
    curve: Sequence[float],
) -> Floats:
    """Slope and bias with which similarities become probabilities, by maximum likelihood.

    Args:
        similarity: ``(D,)`` cosines.
        objectness: ``(D,)``.
        right: ``(D,)``.
        power: of objectness in the score.
        curve: of unseen classes, what scores go through afterwards.

    Raises:
        DataError: nothing is right, or nothing wrong.
    """
    import torch

    if not right.any() or right.all():
        raise DataError("calibrate_examples: no detection is right, or none wrong; give more data.")
    cosines, likely = torch.from_numpy(similarity).double(), torch.from_numpy(objectness).double()
    truth = torch.from_numpy(right).double()
    a, b, c = curve
    line = torch.tensor([15.0, -8.0], dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([line], max_iter=300, line_search_fn="strong_wolfe")

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        scores = torch.sigmoid(line[0] * cosines + line[1]) * likely**power
        scores = scores.clamp(LEAST, 1 - LEAST)
        logits = a * scores.log() - b * (1 - scores).log() + c
        loss = torch.nn.functional.binary_cross_entropy_with_logits(logits, truth)
        loss.backward()
        return loss

    optimizer.step(closure)
    return line.detach().numpy().astype(np.float32)


def example_vectors(
    examples: dict[str, list[Example]], backend: Backend, config: ModelConfig, scorer: VectorScorer
) -> dict[str, Floats]:
    """Mean embedding of the examples of every class."""
    found: dict[str, Floats] = with_examples(examples, backend, config, scorer)
    return found


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = new_parser("export.calibrate_examples", __doc__)
    add = parser.add_argument
    add("bundle", type=Path, help="directory or zip; it is changed")
    add("--annotations", nargs="+", required=True, help="COCO JSON files, or VOC image sets")
    add("--images", nargs="+", required=True, help="image folder of each, or one for all")
    add("--format", choices=("coco", "voc"), default="coco")
    add("--from", dest="source", choices=SUBSETS, default="train", help="examples are of these")
    add("--subset", choices=SUBSETS, default="validation", help="and are looked for in these")
    add("--count", type=int, default=3, help="examples of a class (%(default)s)")
    add("--seed", type=int, default=0, help="of the draw")
    return parser.parse_args(argv)


@command
def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; 0 on success, 1 with a sentence on stderr."""
    args = parse(argv)
    check_option(args.count >= 1, "--count", args.count, "must be at least 1")
    check_option(args.seed >= 0, "--seed", args.seed, "must not be negative")
    require("torch", "export")
    bundle = open_bundle(args.bundle)
    check_replaceable(args.bundle)
    config, tensors = bundle.model_config, bundle.scorer_tensors()
    scorer = scorer_for(config.scoring, tensors)
    if scorer.example_width is None:
        raise ConfigError(f"{args.bundle}: its method cannot learn a class from examples.")
    backend = open_backend("onnxruntime", bundle)
    given = read_dataset(args.format, args.annotations, args.images, args.source)
    classes = example_vectors(
        choose_examples(given, args.count, args.seed), backend, config, scorer
    )
    dataset = read_dataset(args.format, args.annotations, args.images, args.subset)
    similarity, objectness, right = outcomes(backend, config, dataset, classes)
    curve = config.calibration.unseen or IDENTITY
    scale = fit_scale(similarity, objectness, right, config.scoring.objectness_power, curve)
    _write(args.bundle, bundle, tensors | {"example_scale": scale})
    print(
        f"{len(classes)} classes of {args.count} examples, {len(dataset.images)} photographs, "
        f"{int(right.sum())} right of {len(right)}: slope {scale[0]:.2f}, bias {scale[1]:.2f}"
    )
    return 0


def _write(path: Path, bundle: Bundle, tensors: dict[str, NDArray[Any]]) -> None:
    from safetensors.numpy import save

    files: dict[str, Path | bytes] = {
        SCORER: save({name: np.ascontiguousarray(array) for name, array in tensors.items()}),
        "MODEL_CARD.md": renewed_card(bundle),
    }
    amend_bundle(path, files)


if __name__ == "__main__":
    raise SystemExit(main())
