"""Choose the bundle that a command changes, and enter networks in another precision."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from export.graphs.inspect import STAGES
from export.graphs.weights import share_weights
from export.writing.bundle_writer import amend_bundle
from export.writing.replacing import check_replaceable
from runtime.bundle import default_bundle, open_bundle
from zsd_core.errors import BundleError

if TYPE_CHECKING:
    import onnx

__all__ = ["add_networks", "record_tradeoff", "working_copy"]


def working_copy(path: Path | None) -> Path:
    """The bundle to change: the one that is named, or a copy of the one that ships.

    The copy lies in the current directory under the name of the bundle; one that is there already
    is used, so that commands can follow each other.

    Raises:
        BundleError: there is no such bundle, it cannot be replaced or holds more than a bundle,
            or what lies at the copy's place is not a bundle.
    """
    if path is not None:
        open_bundle(path)
        check_replaceable(path)
        folder = path.resolve().parent
        if not os.access(folder, os.W_OK):
            raise BundleError(
                f"{path} cannot be changed: a bundle is replaced whole, and there is no permission "
                f"to write in {folder}. Copy it elsewhere and name the copy."
            )
        return path
    source = default_bundle()
    target = Path(source.name)
    if not target.exists():
        partial = target.with_name(f".{target.name}.partial")
        shutil.rmtree(partial, ignore_errors=True)
        shutil.copytree(source, partial)
        partial.rename(target)
    open_bundle(target)
    check_replaceable(target)
    return target


def add_networks(
    path: Path, precision: str, entry: Mapping[str, Any], files: Mapping[str, onnx.ModelProto]
) -> None:
    """Enter networks in a bundle's manifest; older ones of that precision are replaced.

    Weights that the bundle has already are not written again. Engines that were compiled from the
    older networks leave the manifest with them.

    Args:
        path: of the bundle.
        precision: "fp16" or "int8".
        entry: ``networks`` (family to stage to file) and how they were made.
        files: the networks, by name in the bundle, with their weights; changed in place.
    """
    bundle = open_bundle(path)
    manifest = bundle.manifest
    for model in files.values():
        share_weights(model, [bundle.network(stage) for stage in STAGES])
    amend_bundle(
        path,
        {name: model.SerializeToString() for name, model in files.items()},
        precisions={**manifest.get("precisions", {}), precision: dict(entry)},
        engines=[e for e in manifest.get("engines", []) if e["precision"] != precision],
    )


def record_tradeoff(path: Path, precision: str, report: Mapping[str, Any]) -> None:
    """Write what a precision costs into the manifest, beside how it was made."""
    made = open_bundle(path).manifest["precisions"]
    entry = {**made[precision], "tradeoff": dict(report)}
    amend_bundle(path, precisions={**made, precision: entry})
