"""Regions of photographs, described once and kept on disk, a file for each photograph.

An interrupted command goes on where it was, and several commands share what one of them made. The
folder's name holds everything that the regions depend on: the networks, their options, and the
photographs by name and size. ONNX Runtime runs the networks, in half of PyTorch's time.
"""

from __future__ import annotations

import copy
import dataclasses
import hashlib
import os
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import nn

from export.graphs.trace import trace_head, trace_trunk
from zsd_core import stages
from zsd_core.commands import Progress
from zsd_core.errors import DataError, require
from zsd_core.learning.data.dataset import Dataset, ImageRecord
from zsd_core.learning.data.photographs import read_image
from zsd_core.learning.models import ContrastZSD

__all__ = ["DescribingNetworks", "described"]

Floats = NDArray[np.float32]

ARRAYS = ("rois", "batch_indices", "objectness", "embeddings", "deltas", "image_sizes")


def described(
    model: ContrastZSD, photographs: Dataset, folder: Path, threads: int = 1
) -> list[stages.Described]:
    """Regions of every photograph with f as their embedding, for any scoring of this trunk.

    Args:
        model: whose trunk, region stage and box regressor describe them.
        photographs: read from disk only where no file has their regions.
        folder: of the files. f is kept in float16, as the regions of training are.
        threads: of ONNX Runtime.

    Raises:
        DataError: a file there is damaged.
    """
    place = folder / _fingerprint(model)
    place.mkdir(parents=True, exist_ok=True)
    files = [place / f"{_name(record)}.npz" for record in photographs.images]
    missing = [i for i, file in enumerate(files) if not file.exists()]
    if missing:
        networks = DescribingNetworks(model, threads)
        with Progress("describe photographs", len(missing)) as progress:
            for index in missing:
                image = read_image(photographs.images[index])
                _save(stages.describe(networks, model.config, [image]), files[index])
                progress.advance()
    return [_load(file) for file in files]


class DescribingNetworks:
    """Trunk and head in ONNX Runtime; the head's embeddings are f, what a region is before p_v."""

    def __init__(self, model: ContrastZSD, threads: int) -> None:
        ort = require("onnxruntime", "cpu")
        require("onnx_ir", "export")
        import onnx_ir as ir

        bare = copy.deepcopy(model)
        bare.head.project_visual = nn.Identity()  # type: ignore[assignment]
        options = ort.SessionOptions()
        options.intra_op_num_threads, options.log_severity_level = threads, 3
        self._trunk, self._head = (
            ort.InferenceSession(
                ir.to_proto(graph).SerializeToString(), options, providers=["CPUExecutionProvider"]
            )
            for graph in (trace_trunk(bare), trace_head(bare))
        )

    def trunk(self, images: Floats) -> tuple[Floats, ...]:
        """See ``zsd_core.stages.Networks``."""
        return tuple(self._trunk.run(None, {"images": images}))

    def head(self, *region_features: Floats) -> tuple[Any, ...]:
        """See ``zsd_core.stages.Networks``."""
        names = [one.name for one in self._head.get_inputs()]
        return tuple(self._head.run(None, dict(zip(names, region_features, strict=True))))


def _save(found: stages.Described, file: Path) -> None:
    arrays = {name: getattr(found, name) for name in ARRAYS}
    arrays["embeddings"] = arrays["embeddings"].astype(np.float16)
    partial = file.with_name(f"{file.stem}.{os.getpid()}.partial")
    with partial.open("wb") as stream:
        np.savez(stream, originals=np.asarray(found.originals), **arrays)
    os.replace(partial, file)


def _load(file: Path) -> stages.Described:
    try:
        with np.load(file) as arrays:
            values = {name: arrays[name] for name in ARRAYS}
            originals = [(int(h), int(w)) for h, w in arrays["originals"]]
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise DataError(f"{file} is damaged ({error}); delete it, and it is made anew.") from error
    values["embeddings"] = values["embeddings"].astype(np.float32)
    return stages.Described(originals=originals, **values)


def _name(record: ImageRecord) -> str:
    size = record.path.stat().st_size if record.path.exists() else 0
    text = f"{record.path.parent.name}/{record.path.name} {size}"
    return f"{record.path.stem}-{hashlib.sha256(text.encode()).hexdigest()[:12]}"


def _fingerprint(model: ContrastZSD) -> str:
    """Names everything about the model that its regions depend on."""
    digest = hashlib.sha256()
    for name, tensor in model.state_dict().items():
        if name.startswith(("trunk.", "head.region_stage.", "head.regressor.")):
            digest.update(name.encode() + tensor.detach().cpu().numpy().tobytes())
    config = model.config
    parts = (config.preprocess, config.proposals, config.regions)
    digest.update(repr([dataclasses.asdict(part) for part in parts]).encode())
    return digest.hexdigest()[:16]
