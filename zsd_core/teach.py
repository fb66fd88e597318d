"""Teach names to a second look, from an image classifier and photographs of one name each.

    python -m zsd_core.teach --classifier efficientnet-lite0.pth --pictures labels.json \
        --output look.safetensors

labels.json is a list of {"file": ..., "name": ...}; files lie beside it. Only photographs whose
name is one of the classifier's 1,000 ImageNet names are used. The result is a part of a bundle:
``python -m export.given`` puts it behind any detector.

--sentences is a table of names and sentences about them, one a line with a tab between, such as
"a photo of a lynx, a kind of wildcat, cat: short-tailed wildcats with tufted ears". A sentence
tells more than a name. Names without one are put into --template.
"""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from zsd_core import kernels
from zsd_core.commands import Progress, Steps, command, new_parser
from zsd_core.config import ScoringConfig
from zsd_core.errors import DataError, require
from zsd_core.files import parse_json, prepare_files, read_text
from zsd_core.semantics import fold_name
from zsd_core.text import TEMPLATE, encode_names, fill_template

if TYPE_CHECKING:
    from zsd_core.learning.models.look import Look

__all__ = [
    "imagenet_names",
    "look_config",
    "main",
    "parse",
    "photograph_features",
    "read_labels",
    "read_sentences",
]

BATCH = 16


def look_config(width: int) -> ScoringConfig:
    """Options of a scorer behind a second look that keeps ``width`` features."""
    return ScoringConfig(
        method="prototypes",
        vector_dim=384,
        joint_dim=width,
        center=True,
        objectness_power=0.5,
        kernel_weight=3.0,
        kernel_width=0.4,
        evidence=0.2,
        contest=1.0,
        contest_margin=4.0,
        rivalry=0.5,
    )


def read_labels(path: Path, known: Sequence[str]) -> tuple[list[Path], NDArray[np.intp]]:
    """Photographs whose name a classifier knows, and which of its names it is.

    Raises:
        DataError: the file cannot be read, or is not as the module says.
    """
    try:
        entries = parse_json(path.read_bytes(), str(path))
        pairs = [(path.parent / entry["file"], fold_name(entry["name"])) for entry in entries]
    except (OSError, KeyError, TypeError) as error:
        raise DataError(
            f"{path} must be a JSON list of objects with 'file' and 'name': {error!r}."
        ) from error
    places = {fold_name(name): index for index, name in enumerate(known)}
    chosen = [(file, places[name]) for file, name in pairs if name in places]
    return [file for file, _ in chosen], np.array([place for _, place in chosen], np.intp)


def read_sentences(path: Path) -> dict[str, str]:
    """Sentences by folded name.

    Raises:
        DataError: the file cannot be read, or a line has no tab.
    """
    lines = read_text(path, "sentences").splitlines()
    pairs = [line.partition("\t") for line in lines if line.strip() and line[0] != "#"]
    for name, tab, _ in pairs:
        if not tab:
            raise DataError(f"sentences {path}: the line {name!r} has no tab behind a name.")
    return {fold_name(name): sentence.strip() for name, _, sentence in pairs}


def photograph_features(look: Look, files: Sequence[Path], size: int) -> NDArray[np.float32]:
    """Pooled features ``(n, 1280)`` of whole photographs, stretched to a square of ``size``."""
    import torch

    from zsd_core.learning.data.photographs import read_photograph

    parts = []
    with Progress("photographs", len(files)) as progress, torch.no_grad():
        for start in range(0, len(files), BATCH):
            chunk = files[start : start + BATCH]
            squares = [
                kernels.preprocess(
                    read_photograph(file),
                    size=(size, size),
                    padded=(size, size),
                    mean=(0, 0, 0),
                    std=(1, 1, 1),
                )
                for file in chunk
            ]
            parts.append(look.features(torch.from_numpy(np.stack(squares))).numpy())
            progress.advance(len(chunk))
    return np.concatenate(parts) if parts else np.zeros((0, 0), np.float32)


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = new_parser("zsd_core.teach", __doc__)
    add = parser.add_argument
    add("--classifier", type=Path, required=True, metavar="FILE", help="EfficientNet-Lite0's .pth")
    add("--pictures", type=Path, required=True, metavar="FILE", help="list of files and names")
    add("--output", type=Path, required=True, metavar="FILE", help="look to write, .safetensors")
    add("--size", type=int, default=160, metavar="PIXELS", help="of a region (%(default)s)")
    add("--features", type=int, default=512, metavar="N", help="features kept (%(default)s)")
    add("--sentences", type=Path, metavar="FILE", help="names and sentences about them")
    add("--template", default=TEMPLATE, help="sentence around a name (%(default)r)")
    return parser.parse_args(argv)


@command
def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; 0 on success, 1 with a sentence on stderr."""
    args, step = parse(argv), Steps(4)
    require("torch", "train")
    from zsd_core.learning.models.look import Look, load_classifier
    from zsd_core.learning.teaching import Taught, save_look, teach

    prepare_files(args.output)
    names = imagenet_names()
    scoring = look_config(args.features)
    with step("load classifier"):
        look = Look(len(names), args.features, scoring.vector_dim).eval()
        load_classifier(look, args.classifier)
    with step(f"encode {len(names)} names"):
        told = read_sentences(args.sentences) if args.sentences else {}
        sentences = [told.get(fold_name(n)) or fill_template(args.template, n) for n in names]
        vectors = encode_names(sentences, template="{}")
    with step("look at photographs"):
        files, labels = read_labels(args.pictures, names)
        features = photograph_features(look, files, args.size)
    with step("teach"):
        tensors = teach(look, names, vectors, features, labels, scoring)
        info: dict[str, Any] = {
            "encoder": "all-MiniLM-L6-v2",
            "template": args.template,
            "names with a sentence of their own": sum(fold_name(n) in told for n in names),
            "classifier": args.classifier.name,
            "photographs": len(files),
            "size": args.size,
            "scoring": dataclasses.asdict(scoring),
        }
        save_look(args.output, Taught(look, tensors, tuple(names), info))
    print(
        f"{args.output}  {len(names)} names, {len(files)} photographs; slope and bias of names "
        f"{tensors['name_scale'].round(2).tolist()}, of examples "
        f"{tensors['example_scale'].round(2).tolist()}"
    )
    return 0


def imagenet_names() -> tuple[str, ...]:
    """Names of ImageNet's 1,000 classes, by torchvision, in the order of a classifier's outputs."""
    models = require("torchvision.models", "train")
    return tuple(models.EfficientNet_B0_Weights.IMAGENET1K_V1.meta["categories"])


if __name__ == "__main__":
    raise SystemExit(main())
