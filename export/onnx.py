"""Export a checkpoint to a bundle, and prove that it computes what PyTorch computes.

    python -m export.onnx --checkpoint runs/first/last.pt --output bundle/ --vocabulary nouns.txt

Every stage of ``trunk.onnx``, ``head.onnx`` and ``detector.onnx`` is compared with PyTorch and the
kernels on fixed images (scikit-image's photographs unless ``--compare-on`` names a folder), with
the score threshold lowered to 0. Beyond the limits the command fails and writes nothing; otherwise
the numbers are in the bundle's ``parity.json``.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
import tempfile
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from export.checks.differences import Limits, table
from export.checks.images import NamedImage, folder_images, sample_images
from export.checks.parity import class_table, compare_stages
from export.graphs.compose import compose_detector
from export.graphs.errors import ExportError
from export.graphs.split import split_conv5
from export.graphs.trace import check_exportable, check_plain, trace_head, trace_trunk
from export.graphs.weights import WEIGHTS, save_graphs
from export.writing.bundle_writer import write_bundle
from export.writing.card import model_card
from export.writing.replacing import check_replaceable
from export.writing.words import Words, read_words
from runtime.backends import open_backend
from runtime.bundle import Bundle, open_bundle
from zsd_core.commands import Steps, command, new_parser
from zsd_core.config import ModelConfig
from zsd_core.errors import BundleError, DataError, require
from zsd_core.files import parse_json, prepare_files, read_text
from zsd_core.learning.checkpoint import Checkpoint, load_checkpoint
from zsd_core.learning.models import TorchNetworks

if TYPE_CHECKING:
    import onnx_ir as ir

__all__ = [
    "check_output",
    "compare_with_torch",
    "describe_graph",
    "export_bundle",
    "generator",
    "main",
    "parse",
]


def export_bundle(
    checkpoint: Checkpoint,
    output: Path,
    *,
    images: Sequence[NamedImage],
    vocabulary: Words | None = None,
    limits: Limits | None = None,
    overwrite: bool = False,
    whole_head: bool = False,
    step: Steps | None = None,
    **details: Any,
) -> dict[str, Any]:
    """Write the bundle of a checkpoint; see the module.

    Args:
        checkpoint: what to export.
        output: directory or ``.zip`` to write.
        images: to compare on.
        vocabulary: words for the device.
        limits: where agreement ends.
        overwrite: replace what is at ``output``.
        whole_head: keep all of conv5 in the head, see ``export.graphs.split``.
        step: progress.
        **details: further manifest entries: name, licence, notes, metrics.

    Returns:
        The content of ``parity.json``.

    Raises:
        ExportError: the model cannot be exported, or the bundle disagrees with PyTorch. Nothing
            has been written then.
    """
    step = step or Steps(4)
    check_exportable(checkpoint.config.model)
    check_output(output, overwrite)
    model, scorer = checkpoint.model, checkpoint.model.scorer_tensors()
    config = checkpoint.config.model
    split = None if whole_head else split_conv5(model)
    with step("trace trunk and head"):
        graphs = {"trunk": trace_trunk(model), "head": trace_head(model)}
        whole = dict(graphs)
        if split is not None:
            graphs = {"trunk": trace_trunk(split), "head": trace_head(split)}
        for name, network in (*whole.items(), *graphs.items()):
            check_plain(name, network)
    with tempfile.TemporaryDirectory(prefix="contrastzsd-") as temporary:
        work = Path(temporary)
        with step("compose detector"):
            # ONNX's RoiAlign leaves no bin out, so the one file keeps the head whole.
            graphs["detector"] = compose_detector(**whole, scorer_tensors=scorer, config=config)
            save_graphs(graphs, scorer, work)
            files: dict[str, Path | bytes] = {
                f"{name}.onnx": work / f"{name}.onnx" for name in graphs
            }
            files[WEIGHTS] = work / WEIGHTS
            parts: dict[str, Any] = {
                "name": _name(output),
                "model": _portable(split.config if split else config),
                "classes": [(name, "seen") for name in checkpoint.seen]
                + [(name, "unseen") for name in checkpoint.unseen],
                "class_vectors": checkpoint.vectors,
                "scorer": scorer,
                "stages": {name: describe_graph(name, graph) for name, graph in graphs.items()},
                "generator": generator(),
                "training": _provenance(checkpoint),
                **details,
            }
            if vocabulary is not None:
                parts["vocabulary"] = (vocabulary.names, vocabulary.vectors)
                parts["vocabulary_info"] = vocabulary.info
                parts["ordinary"] = vocabulary.ordinary
            draft = open_bundle(write_bundle(work / "draft", files=files, **parts))
        with step(f"compare with PyTorch on {len(images)} images"):
            report = compare_with_torch(checkpoint, draft, images, limits or Limits())
        if not report["passed"]:
            raise ExportError(
                f"the exported graphs disagree with PyTorch; nothing was written.\n{table(report)}"
            )
        with step("write"):
            text = json.dumps(report, indent=1, ensure_ascii=False) + "\n"
            files |= {
                "parity.json": text.encode(),
                "MODEL_CARD.md": model_card(draft.manifest, report).encode(),
            }
            parts["created"] = draft.manifest["created"]  # as the card says
            write_bundle(output, files=files, overwrite=overwrite, **parts)
    return report


def check_output(output: Path, overwrite: bool) -> None:
    """Make sure, before long work, that a bundle can be written.

    Raises:
        BundleError: a bundle is there and not to be overwritten, or something else, which never is.
        ConfigError: there is no permission to write there.
    """
    if output.exists():
        if not overwrite:
            raise BundleError(f"{output} exists; remove it, or pass --overwrite.")
        check_replaceable(output)
    prepare_files(None if output.is_dir() else output)


def compare_with_torch(
    checkpoint: Checkpoint, bundle: Bundle, images: Sequence[NamedImage], limits: Limits
) -> dict[str, Any]:
    """Compare every graph of a bundle with the checkpoint it was made from, as JSON values."""
    scorer, classes = class_table(bundle)
    return compare_stages(
        bundle,
        scorer,
        classes,
        images,
        limits,
        truth=("PyTorch and the kernels", TorchNetworks(checkpoint.model)),
        truth_config=checkpoint.config.model,
        networks=("trunk.onnx and head.onnx", open_backend("onnxruntime", bundle)),
        packages=("torch", "onnx", "onnxscript", "onnxruntime", "numpy"),
    )


def describe_graph(name: str, graph: ir.Model) -> dict[str, Any]:
    """The manifest's entry of a stage: its file, inputs and outputs."""

    def values(items: Sequence[ir.Value]) -> list[dict[str, Any]]:
        return [
            {
                "name": value.name,
                "dtype": str(value.dtype.numpy()) if value.dtype else "",
                "shape": [s if isinstance(s, int) else str(s) for s in value.shape or ()],
            }
            for value in items
        ]

    return {
        "file": f"{name}.onnx",
        "inputs": values(graph.graph.inputs),
        "outputs": values(graph.graph.outputs),
    }


def _name(output: Path) -> str:
    """Name of a bundle that nobody named; "model.v2" is no file with a suffix."""
    return output.resolve().name.removesuffix(".zip")


def _portable(config: ModelConfig) -> ModelConfig:
    """The configuration without this machine's path of the backbone's weights."""
    backbone = dataclasses.replace(config.backbone, weights="")
    return dataclasses.replace(config, backbone=backbone)


def _provenance(checkpoint: Checkpoint) -> dict[str, Any]:
    config = dataclasses.asdict(checkpoint.config)
    data = {
        k: v for k, v in config["data"].items() if k not in ("annotations", "images", "vectors")
    }
    return {
        **checkpoint.training,
        "backbone weights": Path(checkpoint.config.model.backbone.weights).name,
        "data": data,
        "loss": config["loss"],
        "schedule": config["training"],
    }


def generator() -> str:
    """Name and version of this package, for manifests."""
    try:
        return f"contrastzsd {metadata.version('contrastzsd')}"
    except metadata.PackageNotFoundError:  # run from a source tree
        return "contrastzsd"


def _read_metrics(path: Path | None) -> Mapping[str, Any]:
    if path is None:
        return {}
    try:
        metrics = parse_json(path.read_bytes(), f"metrics {path}")
    except OSError as error:
        raise DataError(f"metrics {path} cannot be read: {error}") from error
    if not isinstance(metrics, dict):
        raise DataError(f"metrics {path} must hold an object, as export.evaluate --json writes.")
    return metrics


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = new_parser("export.onnx", __doc__)
    add = parser.add_argument
    add("--checkpoint", type=Path, required=True, help="what zsd_core.train wrote")
    add("--output", type=Path, required=True, help="bundle to write: a directory or a .zip")
    add("--name", help="what the bundle calls itself (default: the name of --output)")
    add("--licence", default="", help="of the weights, an SPDX name")
    add("--notes", type=Path, metavar="FILE", help="Markdown for the model card: data, limits ...")
    add(
        "--vocabulary",
        type=Path,
        metavar="FILE",
        help="words for the device: names (.txt), or names and vectors (.npz, .safetensors)",
    )
    add("--vocabulary-source", default="", metavar="TEXT", help="where the names come from")
    add("--vocabulary-licence", default="", metavar="TEXT", help="licence of the names")
    add("--metrics", type=Path, metavar="FILE", help="what export.evaluate --json wrote")
    add(
        "--compare-on",
        type=Path,
        metavar="DIR",
        help="compare on these instead of the packaged ones",
    )
    add("--whole-head", action="store_true", help="no layer of a region head in the trunk")
    add("--overwrite", action="store_true", help="replace what is at --output")
    return parser.parse_args(argv)


@command
def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; 0 on success, 1 with a sentence on stderr."""
    args, step = parse(argv), Steps(5)
    for package in ("onnxscript", "onnx"):
        require(package, "export")
    check_output(args.output, args.overwrite)
    with step("load checkpoint and words"):
        checkpoint = load_checkpoint(args.checkpoint)
        images = folder_images(args.compare_on) if args.compare_on else sample_images()
        details = {
            "name": args.name or _name(args.output),
            "licence": args.licence,
            "metrics": _read_metrics(args.metrics),
            "notes": read_text(args.notes, "notes") if args.notes else "",
        }
        words = args.vocabulary and read_words(
            args.vocabulary,
            checkpoint.training,
            checkpoint.config.model.scoring.vector_dim,
            source=args.vocabulary_source,
            licence=args.vocabulary_licence,
        )
    report = export_bundle(
        checkpoint,
        args.output,
        images=images,
        vocabulary=words,
        overwrite=args.overwrite,
        whole_head=args.whole_head,
        step=step,
        **details,
    )
    print(table(report))
    print(args.output)
    return 0


if __name__ == "__main__":
    sys.exit(main())
