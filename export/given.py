"""Give a detector that you already run new classes: make a bundle of it and a second look.

    python -m export.given --detector d-fine.onnx --names coco.txt --look open --output bundle/

The detector is any ONNX file that ends as D-FINE, RT-DETR, RF-DETR or DEIM do: boxes and a logit of
every region and class, with a sigmoid behind it. It stays as it is, frozen. Its own classes keep
its own scores; any other class is told by the second look, a small image classifier that sees the
best regions again. The look is a file of zsd_core.teach, or a bundle that has one.

The bundle is compared with the detector it was made from, and written only if both agree.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from export.checks.differences import Limits, table
from export.checks.images import NamedImage, folder_images, sample_images
from export.checks.parity import compare_stages, compared_classes
from export.graphs.compose import compose_detector
from export.graphs.errors import ExportError
from export.graphs.given import BOX_FORMATS, Cut, find_cut, given_trunk
from export.graphs.trace import check_plain, trace_look
from export.graphs.weights import WEIGHTS, save_graphs
from export.onnx import check_output, describe_graph, generator
from export.writing.bundle_writer import write_bundle
from export.writing.card import model_card
from export.writing.words import Words, read_words
from runtime.backends import open_backend
from runtime.bundle import open_bundle
from zsd_core.commands import Steps, command, new_parser
from zsd_core.config import (
    DetectionConfig,
    ModelConfig,
    PreprocessConfig,
    ProposalConfig,
    RegionConfig,
    ScoringConfig,
)
from zsd_core.errors import DataError, require
from zsd_core.files import read_lines, read_text
from zsd_core.options import from_mapping

if TYPE_CHECKING:
    from zsd_core.learning.teaching import Taught

__all__ = ["export_given", "given_config", "main", "parse", "read_names"]

ALLOWED = frozenset({"TopK"})  # DETR-like detectors choose their queries so; every backend has it


def given_config(
    size: int, regions: int, taught: Taught, *, look: int, score_threshold: float
) -> ModelConfig:
    """Options of the detector: everything that its parts leave open.

    Args:
        size: pixels of the square that images are stretched to.
        regions: Q, offered for every image.
        taught: the second look.
        look: regions of an image that are looked at again.
        score_threshold: default of both roles.
    """
    pixels = int(taught.info["size"])
    return ModelConfig(
        preprocess=PreprocessConfig(square=size, pad_multiple=1, mean=(0, 0, 0), std=(1, 1, 1)),
        proposals=ProposalConfig(source="queries", pre_nms_top=regions, post_nms_top=regions),
        regions=RegionConfig(
            maps=(("image", 1),),
            stride=1,
            output_size=(pixels, pixels),
            sampling_ratio=0,
            look=look,
        ),
        scoring=from_mapping(ScoringConfig, taught.info["scoring"], "scoring"),
        detection=DetectionConfig(nms_threshold=0.7, score_threshold=score_threshold),
    )


def export_given(
    detector: Path,
    names: Sequence[str],
    taught: Taught,
    output: Path,
    *,
    images: Sequence[NamedImage],
    cut: Cut | None = None,
    vectors: NDArray[np.float32],
    vocabulary: Words | None = None,
    look: int = 4,
    score_threshold: float = 0.3,
    overwrite: bool = False,
    limits: Limits | None = None,
    step: Steps | None = None,
    **details: Any,
) -> dict[str, Any]:
    """Write the bundle of a given detector; see the module.

    Args:
        detector: the ONNX file.
        names: of its classes, in the order of its logits.
        taught: the second look.
        output: directory or ``.zip`` to write.
        images: to compare on.
        cut: where to cut; None looks for it.
        vectors: ``(Ks, E)`` of the names, from the look's encoder.
        vocabulary: words for the device.
        look: regions of an image that are looked at again.
        score_threshold: default of both roles.
        overwrite: replace what is at ``output``.
        limits: where agreement ends.
        step: progress.
        **details: further manifest entries: name, licence, notes.

    Returns:
        The content of ``parity.json``.

    Raises:
        ExportError: the detector cannot be cut, or the bundle disagrees with it. Nothing has been
            written then.
    """
    step = step or Steps(4)
    with step("cut detector"):
        cut = cut or find_cut(detector)
        trunk = given_trunk(detector, cut)
        size, regions = _sizes(detector, trunk, len(names))
        config = given_config(size, regions, taught, look=look, score_threshold=score_threshold)
    with step("trace second look"):
        head = trace_look(taught.look, int(taught.info["size"]))
    check_plain("trunk", trunk, allowed=ALLOWED)
    check_plain("head", head)
    scorer = {name: np.asarray(array, np.float32) for name, array in taught.tensors.items()}
    with tempfile.TemporaryDirectory(prefix="contrastzsd-") as temporary:
        work = Path(temporary)
        with step("compose"):
            whole = compose_detector(trunk=trunk, head=head, scorer_tensors=scorer, config=config)
            graphs = {"trunk": trunk, "head": head, "detector": whole}
            save_graphs(graphs, scorer, work)
            files: dict[str, Path | bytes] = {f"{n}.onnx": work / f"{n}.onnx" for n in graphs}
            files[WEIGHTS] = work / WEIGHTS
            parts: dict[str, Any] = {
                "name": output.resolve().name.removesuffix(".zip"),
                "model": config,
                "classes": [(name, "seen") for name in names],
                "class_vectors": vectors,
                "scorer": scorer,
                "stages": {name: describe_graph(name, graph) for name, graph in graphs.items()},
                "generator": generator(),
                "training": {
                    "detector": detector.name,
                    "cut": dataclasses.asdict(cut),
                    "look": {k: v for k, v in taught.info.items() if k != "scoring"},
                },
                "taught": {"boxes": list(names), "pictures": list(taught.names)},
                **details,
            }
            if vocabulary is not None:
                parts["vocabulary"] = (vocabulary.names, vocabulary.vectors)
                parts["vocabulary_info"] = vocabulary.info
                parts["ordinary"] = vocabulary.ordinary
            draft = open_bundle(write_bundle(work / "draft", files=files, **parts))
        with step(f"compare on {len(images)} images"):
            report = _compare(draft, detector, cut, taught, images, limits or Limits())
        if not report["passed"]:
            raise ExportError(
                f"the bundle disagrees with {detector}; nothing was written.\n{table(report)}"
            )
        text = json.dumps(report, indent=1, ensure_ascii=False) + "\n"
        files |= {
            "parity.json": text.encode(),
            "MODEL_CARD.md": model_card(draft.manifest, report).encode(),
        }
        parts["created"] = draft.manifest["created"]  # as the card says
        write_bundle(output, files=files, overwrite=overwrite, **parts)
    return report


def _sizes(detector: Path, trunk: Any, classes: int) -> tuple[int, int]:
    """Side of the square input, and number of regions."""
    _, _, height, width = trunk.graph.inputs[0].shape
    _, regions, known = trunk.graph.outputs[1].shape
    if height != width or not isinstance(height, int):
        raise ExportError(
            f"{detector}: its input is {height} x {width}; a fixed square is needed. Export it "
            "with a fixed input size."
        )
    if not isinstance(regions, int) or known != classes:
        raise ExportError(
            f"{detector}: its logits have the shape (N, {regions}, {known}), and {classes} names "
            "were given; name every class once, in the order of the logits."
        )
    return height, regions


class _Given:
    """The detector as it was given and the look as it was taught, as networks of the pipeline."""

    def __init__(self, detector: Path, cut: Cut, taught: Taught) -> None:
        onnx, ort = require("onnx", "export"), require("onnxruntime", "cpu")
        model = onnx.load(detector)
        wanted = [onnx.ValueInfoProto(name=name) for name in (cut.boxes, cut.logits)]
        model.graph.output.extend(wanted)
        self._session = ort.InferenceSession(
            model.SerializeToString(), providers=["CPUExecutionProvider"]
        )
        self._cut, self._look = cut, taught.look
        self._others = [value for value in self._session.get_inputs() if value.name != cut.image]

    def trunk(self, images: NDArray[np.float32]) -> tuple[NDArray[np.float32], ...]:
        """Boxes and logits of the whole graph."""
        feeds = {self._cut.image: images}
        for value in self._others:  # sizes of the photographs: boxes in front of them do not change
            axes = [len(images), *(n if isinstance(n, int) else 2 for n in value.shape[1:])]
            feeds[value.name] = np.ones(axes, value.type[7:-1].replace("float", "float32"))
        boxes, logits = self._session.run([self._cut.boxes, self._cut.logits], feeds)
        if self._cut.box_format == "cxcywh":
            half = boxes[..., 2:] * np.float32(0.5)
            boxes = np.concatenate([boxes[..., :2] - half, boxes[..., :2] + half], axis=2)
        return boxes, logits

    def head(
        self, *regions: NDArray[np.float32]
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Run the second look in PyTorch."""
        import torch

        with torch.no_grad():
            embeddings, deltas = self._look(torch.from_numpy(regions[0]))
        return embeddings.numpy(), deltas.numpy()


def _compare(
    bundle: Any,
    detector: Path,
    cut: Cut,
    taught: Taught,
    images: Sequence[NamedImage],
    limits: Limits,
) -> dict[str, Any]:
    scorer, classes = compared_classes(bundle)
    backend = open_backend("onnxruntime", bundle)
    return compare_stages(
        bundle,
        scorer,
        classes,
        images,
        limits,
        truth=(f"{detector.name} and PyTorch's look", _Given(detector, cut, taught)),
        networks=("trunk.onnx and head.onnx", backend),
        packages=("torch", "onnx", "onnxscript", "onnxruntime", "numpy"),
    )


def read_names(path: Path) -> list[str]:
    """Names of a file, one a line; blank lines and lines that begin with "#" are skipped.

    Raises:
        DataError: the file cannot be read, or a name is there twice.
    """
    names = read_lines(path, "names")
    for index, name in enumerate(names):
        if name in names[:index]:
            raise DataError(f"names {path}: {name!r} is there twice.")
    return names


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = new_parser("export.given", __doc__)
    add = parser.add_argument
    add("--detector", type=Path, required=True, metavar="FILE", help="ONNX file of the detector")
    add("--names", type=Path, required=True, metavar="FILE", help="its classes, one a line")
    add("--look", type=Path, required=True, metavar="FILE", help="what zsd_core.teach wrote")
    add("--output", type=Path, required=True, help="bundle to write: a directory or a .zip")
    add("--boxes", metavar="TENSOR", help="where its boxes are (default: looked for)")
    add("--logits", metavar="TENSOR", help="where its logits are (default: looked for)")
    add("--box-format", choices=BOX_FORMATS, help="of the boxes (default: seen from a run)")
    add("--regions", type=int, default=4, metavar="N", help="looked at again (%(default)s)")
    add("--score-threshold", type=float, default=0.3, metavar="P", help="default (%(default)s)")
    add("--name", help="what the bundle calls itself (default: the name of --output)")
    add("--licence", default="", help="of the weights, an SPDX expression")
    add("--notes", type=Path, metavar="FILE", help="Markdown for the model card")
    add("--vocabulary", type=Path, metavar="FILE", help="words for the device, as export.onnx has")
    add("--vocabulary-source", default="", metavar="TEXT", help="where the names come from")
    add("--vocabulary-licence", default="", metavar="TEXT", help="licence of the names")
    add("--images", type=Path, metavar="DIR", help="compare on these instead of the packaged ones")
    add("--overwrite", action="store_true", help="replace what is at --output")
    return parser.parse_args(argv)


@command
def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; 0 on success, 1 with a sentence on stderr."""
    args, step = parse(argv), Steps(5)
    for package in ("onnxscript", "onnx", "torch"):
        require(package, "export")
    from zsd_core.learning.teaching import load_look
    from zsd_core.text import encode_names

    check_output(args.output, args.overwrite)
    with step("load look and words"):
        taught = load_look(args.look)
        names = read_names(args.names)
        template = str(taught.info["template"])
        made: Mapping[str, Any] = {
            "vectors": {"kind": "minilm", "encoder": taught.info["encoder"], "template": template}
        }
        vectors = encode_names(names, template=template)
        words = args.vocabulary and read_words(
            args.vocabulary,
            made,
            vectors.shape[1],
            source=args.vocabulary_source,
            licence=args.vocabulary_licence,
        )
        images = folder_images(args.images) if args.images else sample_images()
        cut = find_cut(
            args.detector, boxes=args.boxes, logits=args.logits, box_format=args.box_format
        )
    report = export_given(
        args.detector,
        names,
        taught,
        args.output,
        images=images,
        cut=cut,
        vectors=vectors,
        vocabulary=words,
        look=args.regions,
        score_threshold=args.score_threshold,
        overwrite=args.overwrite,
        step=step,
        name=args.name or args.output.resolve().name.removesuffix(".zip"),
        licence=args.licence,
        notes=read_text(args.notes, "notes") if args.notes else "",
    )
    print(table(report))
    print(f"cut at {cut.boxes} ({cut.box_format}) and {cut.logits}")
    print(args.output)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
