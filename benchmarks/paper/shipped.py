"""A shipped bundle as the bench needs it: a checkpoint, and the regions that its heads learn from.

    python -m benchmarks.paper.shipped runtime/bundles/coco48 --config configs/coco48.yaml \
        --output runs/shipped 'data.annotations=[train.json,machine.json]' 'data.images=[…]'

The networks of a bundle hold their weights under the names that PyTorch gives them, so nothing is
trained: ``last.pt`` has the bundle's trunk, region stage and box regression, and a scoring method
that is random, since the bench trains its own. ``regions.pt`` holds what cached training would
keep of the photographs, at a quarter of its time: ONNX Runtime runs the networks, in float32.

It goes on where it was stopped. ``--part 1/2`` and ``--part 2/2`` share the photographs between two
processes; the call that finds all of them described writes ``regions.pt``.
"""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.paper.experiments import part_of
from runtime.bundle import Bundle, open_bundle
from zsd_core.commands import Progress, command, new_parser
from zsd_core.errors import DataError, require
from zsd_core.files import prepare_files
from zsd_core.learning.checkpoint import Checkpoint, save_checkpoint, save_whole
from zsd_core.learning.data.read import read_training_set
from zsd_core.learning.data.splits import load_split
from zsd_core.learning.experiment import Config, TrainingConfig, load_config
from zsd_core.learning.models import ContrastZSD
from zsd_core.learning.objective import Objective, Target
from zsd_core.learning.training.batches import TrainingImages
from zsd_core.learning.training.cached import CachedProposals, CachedRegions
from zsd_core.learning.training.position import Position

__all__ = ["checkpoint_of", "keep_regions", "main"]

CHUNK = 50  # photographs of a file
Row = tuple[Tensor, Tensor, Tensor, Tensor, int]
# What decides how its training photographs are shown, and what trained its trunk.
SCHEDULE = ("edges", "stretch", "flip", "human_repeats", "epochs", "trunk_epochs")
SECTIONS = ("preprocess", "proposals", "regions")  # of the model: what the weights depend on


def checkpoint_of(bundle: Bundle, config: Config) -> Checkpoint:
    """The detector of a bundle, at the beginning of the last phase of its training.

    Args:
        bundle: exported from a checkpoint of ``config``.
        config: the experiment.

    Raises:
        DataError: the bundle was made with other options, or lacks a weight.
    """
    first, given = (
        json.loads(json.dumps(dataclasses.asdict(c))) for c in (TrainingConfig(), config.training)
    )
    schedule = first | bundle.manifest["training"]["schedule"]  # older ones lack newer options
    pairs = {f"training.{name}": (given[name], schedule[name]) for name in SCHEDULE}
    for section in SECTIONS:
        own = getattr(config.model, section)
        pairs[f"model.{section}"] = own, getattr(bundle.model_config, section)
    for name, (ours, theirs) in pairs.items():
        if ours != theirs:
            raise DataError(
                f"{bundle.name}: {name} is {theirs}, but {ours} in the configuration; name the "
                "configuration that the bundle was trained with."
            )
    if config.model.regions.box_hidden or len(config.model.regions.maps) > 1:
        raise DataError(f"{bundle.name}: only regions of one map can be kept from a bundle.")
    torch.manual_seed(config.training.seed)
    backbone = dataclasses.replace(config.model.backbone, weights="")  # the bundle holds them
    model = ContrastZSD(dataclasses.replace(config.model, backbone=backbone))
    manifest = bundle.manifest["classes"]
    seen, unseen = (
        tuple(c["name"] for c in manifest if c["role"] == role) for role in ("seen", "unseen")
    )
    vectors = torch.from_numpy(bundle.class_vectors.copy())
    model.scorer.read_classes(vectors[: len(seen)], vectors[len(seen) :])
    found, state = _weights(bundle), model.state_dict()
    for name, value in state.items():
        if name.startswith("scorer."):
            continue
        if name not in found or found[name].shape != value.shape:
            raise DataError(
                f"{bundle.name} has no {name} of shape {tuple(value.shape)}: a network whose "
                "normalisation the export folds away cannot be taken back; train it."
            )
        state[name] = found[name]
    model.load_state_dict(state)
    return Checkpoint(
        config=config,
        model=model.eval(),
        seen=seen,
        unseen=unseen,
        vectors=vectors.numpy(),
        training={
            "seconds": 0.0,
            "bundle": bundle.name,
            "counts": bundle.manifest["training"].get("counts", {}),
        },
        state={"position": dataclasses.asdict(Position(phase=config.training.trunk_phases))},
    )


def _weights(bundle: Bundle) -> dict[str, torch.Tensor]:
    """Every weight of trunk and head by its name in the model."""
    require("onnx", "export")
    import onnx
    from onnx import numpy_helper

    found = {}
    for stage in ("trunk", "head"):
        graph = onnx.load(bundle.network(stage)).graph
        for tensor in graph.initializer:
            found[f"{stage}.{tensor.name}"] = numpy_helper.to_array(tensor)
    return {name: torch.from_numpy(array.copy()) for name, array in found.items()}


class _Networks:
    """The bundle's own trunk, and its head up to f, which is what p_v reads."""

    def __init__(self, bundle: Bundle, threads: int) -> None:
        onnx, ort = require("onnx", "export"), require("onnxruntime", "cpu")
        options = ort.SessionOptions()
        options.intra_op_num_threads, options.log_severity_level = threads, 3
        head = onnx.load(bundle.network("head"))
        (f,) = (
            node.input[0]
            for node in head.graph.node
            if "project_visual.linear1.weight" in node.input
        )
        del head.graph.output[:]
        head.graph.output.append(
            onnx.helper.make_tensor_value_info(f, onnx.TensorProto.FLOAT, None)
        )
        self._trunk, self._head = (
            ort.InferenceSession(made, options, providers=["CPUExecutionProvider"])
            for made in (str(bundle.network("trunk")), head.SerializeToString())
        )

    def trunk(self, image: Tensor) -> list[Tensor]:
        """Features, objectness and deltas of one image ``(3, H, W)``."""
        found = self._trunk.run(None, {"images": image[None].numpy()})
        return [torch.from_numpy(array) for array in found]

    def f(self, patches: Tensor) -> Tensor:
        """``(R, F)`` of region features."""
        name = self._head.get_inputs()[0].name
        return torch.from_numpy(self._head.run(None, {name: patches.numpy()})[0])


def keep_regions(
    checkpoint: Checkpoint, bundle: Bundle, folder: Path, part: tuple[int, int], threads: int
) -> bool:
    """Describe the training regions of a part of the photographs; write all once all are there.

    Args:
        checkpoint: of the bundle.
        bundle: whose networks propose and describe them.
        folder: of ``regions.pt``, and of a file for every ``CHUNK`` photographs until then.
        part: which of how many, from 1.
        threads: of ONNX Runtime.

    Returns:
        Whether ``regions.pt`` is there.
    """
    config = checkpoint.config
    split, training = load_split(config.data.split), config.training
    records = read_training_set(config.data, split).images
    images = TrainingImages(records, split.seen, config.model.preprocess, training)
    vectors = torch.from_numpy(checkpoint.vectors)
    seen = len(split.seen)
    objective = Objective(checkpoint.model, config, vectors[:seen], vectors[seen:])
    networks = _Networks(bundle, threads)
    versions = training.region_versions or training.versions
    starts = range(0, versions * len(images), CHUNK)
    files = [folder / f"regions-{start}.pt" for start in starts]
    mine = [pair for pair in zip(starts, files, strict=True)][part[0] - 1 :: part[1]]
    proposals = CachedProposals(objective, images, config, torch.device("cpu"), folder / "maps.pt")
    own = CachedRegions(proposals, folder / "regions.pt")._fingerprint()
    name = f"by ONNX Runtime, {bundle.name}, {own}"
    missing = [pair for pair in mine if _kept(pair[1], name) is None]
    with Progress("keep region features", len(missing) * CHUNK) as progress:
        for start, file in missing:
            columns: list[Row] = []
            for place in range(start, min(start + CHUNK, versions * len(images))):
                images.epoch, index = divmod(place, len(images))
                torch.manual_seed((training.seed << 32) + place)
                columns.append((*_regions(objective, networks, *images[index]), index))
                progress.advance()
            save_whole({"fingerprint": name, "columns": _joined(columns)}, file)
    parts = [kept for file in files if (kept := _kept(file, name)) is not None]
    if len(parts) < len(files):
        return False
    columns_of_all = tuple(torch.cat(column) for column in zip(*parts, strict=True))
    save_whole({"fingerprint": name, "columns": columns_of_all}, folder / "regions.pt")
    for file in files:
        file.unlink(missing_ok=True)  # another part may have joined them at the same time
    return True


def _kept(file: Path, fingerprint: str) -> tuple[Tensor, ...] | None:
    """The columns of a chunk, if it is there and of the same photographs, options and bundle."""
    if not file.exists():
        return None
    values = torch.load(file, weights_only=True)
    columns: tuple[Tensor, ...] | None = values["columns"]
    return columns if values["fingerprint"] == fingerprint else None


def _regions(
    objective: Objective, networks: _Networks, image: Tensor, target: Target
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The columns of one photograph, without its owner; see ``CachedRegions``."""
    features, objectness, deltas = networks.trunk(image)
    with torch.no_grad():
        regions = objective.sample_regions(objectness, deltas, [target])
        f = networks.f(objective.region_features(features, regions))
    return f.half(), f.new_zeros(len(f), 0).half(), regions.labels, regions.offsets


def _joined(rows: Sequence[Row]) -> tuple[Tensor, ...]:
    """The columns of several photographs, with the owner of each region."""
    f, bins, labels, offsets, indices = zip(*rows, strict=True)
    owners = [torch.full_like(own, index) for own, index in zip(labels, indices, strict=True)]
    return tuple(torch.cat(column) for column in (f, bins, labels, offsets, owners))


@command
def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; 0 on success, 1 with a sentence on stderr."""
    parser = new_parser("benchmarks.paper.shipped", __doc__)
    add = parser.add_argument
    add("bundle", type=Path, help="what export.onnx wrote")
    add("--config", type=Path, required=True, help="the YAML file it was trained with")
    add("--output", type=Path, required=True, help="folder of last.pt and regions.pt")
    add("--part", type=part_of, default=(1, 1), metavar="I/N", help="photographs I of N")
    add("--threads", type=int, default=1, help="of a network (1)")
    add("overrides", nargs="*", metavar="section.field=value", help="of that training")
    args = parser.parse_intermixed_args(argv)
    torch.set_num_threads(args.threads)
    bundle = open_bundle(args.bundle)
    checkpoint = checkpoint_of(bundle, load_config(args.config, args.overrides))
    path = args.output / "last.pt"
    prepare_files(path)
    if args.part[0] == 1:  # two processes must not write one file
        save_checkpoint(checkpoint, path)
    whole = keep_regions(checkpoint, bundle, args.output, args.part, args.threads)
    print(path if whole else f"{args.output}: photographs of another part are still to come")
    return 0


if __name__ == "__main__":
    sys.exit(main())
