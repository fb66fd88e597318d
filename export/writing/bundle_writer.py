"""Write a bundle, or amend one, in one step: it is complete at its place, or nothing changed."""

from __future__ import annotations

import dataclasses
import datetime
import json
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from export.writing.replacing import replacing
from runtime.archive import MANIFEST, safe_name, sha256
from runtime.bundle import Bundle, open_bundle
from runtime.manifest import FORMAT, SCORER, VOCABULARY
from zsd_core.config import ModelConfig
from zsd_core.errors import BundleError
from zsd_core.semantics import quantize_rows

__all__ = ["amend_bundle", "write_bundle"]


def write_bundle(
    path: str | os.PathLike[str],
    *,
    name: str,
    model: ModelConfig,
    classes: Sequence[tuple[str, str]],
    class_vectors: NDArray[Any],
    scorer: Mapping[str, NDArray[Any]],
    stages: Mapping[str, Mapping[str, Any]],
    files: Mapping[str, Path | bytes],
    vocabulary: tuple[Sequence[str], NDArray[Any]] | None = None,
    vocabulary_info: Mapping[str, Any] | None = None,
    ordinary: Sequence[str] = (),
    overwrite: bool = False,
    **details: Any,
) -> Path:
    """Write a bundle in one step: it is complete at ``path``, or nothing is there.

    Args:
        path: directory to make, or a file ending in ``.zip``.
        name: of the bundle.
        model: configuration of the model.
        classes: (name, role) pairs, seen first.
        class_vectors: ``(Ks + U, E)``, in the order of ``classes``.
        scorer: tensors of the scoring method.
        stages: per stage ``file``, ``inputs`` and ``outputs`` (name, dtype, shape each).
        files: name in the bundle to a file to copy, or its bytes.
        vocabulary: names and vectors ``(V, E)``; stored as int8.
        vocabulary_info: encoder, template, source and licence of the vocabulary.
        ordinary: words of the language that are no names, each without a blank.
        overwrite: replace the bundle at ``path``.
        **details: further manifest entries: licence, generator, training, metrics, precisions,
            engines, created.

    Raises:
        BundleError: ``path`` exists, or holds more than a bundle, or cannot be written, or the
            parts do not agree.
    """
    target = Path(path)
    if target.exists() and not overwrite:
        raise BundleError(f"{target} exists; remove it, or ask to overwrite it.")
    words: dict[str, NDArray[Any]] = {"classes": np.ascontiguousarray(class_vectors, np.float32)}
    names: list[str] = []
    if vocabulary is not None:
        names = [" ".join(word.split()) for word in vocabulary[0]]
        if len(names) != len(vocabulary[1]) or not all(names):
            raise BundleError(
                f"write_bundle: {len(names)} vocabulary names for {len(vocabulary[1])} vectors; "
                "every vector needs a name that is not blank."
            )
    if names and vocabulary is not None:
        rows, scales = quantize_rows(vocabulary[1])
        packed = np.frombuffer("\n".join(names).encode(), np.uint8)
        words |= {"names": packed, "vectors": rows, "scales": scales}
    if ordinary:
        words["ordinary"] = np.frombuffer("\n".join(ordinary).encode(), np.uint8)
    manifest: dict[str, Any] = {
        "format": FORMAT,
        "name": name,
        "created": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "generator": "contrastzsd",
        "licence": "",
        "model": dataclasses.asdict(model),
        "classes": [{"name": n, "role": role} for n, role in classes],
        "background_index": 0,
        "stages": {stage: dict(entry) for stage, entry in stages.items()},
        "precisions": {},
        "engines": [],
        "vocabulary": {
            "file": VOCABULARY,
            "count": len(names),
            "dimension": int(words["classes"].shape[-1]),
            **(vocabulary_info or {}),
        },
        "training": {},
        "metrics": {},
        **details,
    }
    with replacing(target) as root:
        _fill(target, root, files)
        _save(root / SCORER, {k: np.ascontiguousarray(v) for k, v in scorer.items()})
        _save(root / VOCABULARY, words)
        _seal(target, root, manifest)
    return target


def amend_bundle(
    path: str | os.PathLike[str],
    files: Mapping[str, Path | bytes] | None = None,
    *,
    output: str | os.PathLike[str] | None = None,
    **details: Any,
) -> Path:
    """Add files to a bundle, or replace them, and set manifest entries; in one step, as writing is.

    A plan that no engine of the manifest names any more goes, and so does a network in another
    precision that no entry of ``precisions`` names.

    Args:
        path: directory or zip.
        files: name in the bundle to a file to copy, or its bytes.
        output: write the amended bundle here, and leave the one at ``path`` as it is.
        **details: manifest entries to set, such as metrics or engines.

    Raises:
        BundleError: the bundle cannot be opened or written, or would not be one afterwards; its
            folder or zip holds more than the manifest lists; or ``output`` exists.
    """
    bundle, target = open_bundle(path), Path(path if output is None else output)
    if output is not None and target.exists():
        raise BundleError(f"{target} exists; remove it, or name another place.")
    named = {engine["file"] for engine in details.get("engines", bundle.engines)}
    named |= _networks(details.get("precisions", bundle.manifest.get("precisions", {})))
    dropped = _networks(bundle.manifest.get("precisions", {})) - named
    dropped -= {bundle.stage(stage)["file"] for stage in bundle.manifest["stages"]}
    present: dict[str, Path | bytes] = {
        name: bundle.file(name)
        for name in bundle.manifest["files"]
        if name in named or not (name.startswith("engines/") or name in dropped)
    }
    with replacing(target) as root:
        _fill(target, root, {**present, **(files or {})})
        _seal(target, root, {**bundle.manifest, **details})
    return target


def _networks(precisions: Mapping[str, Any]) -> set[str]:
    """Files of networks that the manifest's ``precisions`` name."""
    families = [family for entry in precisions.values() for family in entry["networks"].values()]
    return {file for stages in families for file in stages.values()}


def _fill(target: Path, root: Path, files: Mapping[str, Path | bytes]) -> None:
    """Put files, or their bytes, below ``root``."""
    for name, source in files.items():
        place = root / safe_name(target, name)
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(source) if isinstance(source, bytes) else shutil.copyfile(source, place)


def _seal(target: Path, root: Path, manifest: dict[str, Any]) -> None:
    """Hash the files below ``root``, write the manifest beside them, and read it back."""
    manifest["files"] = {
        file.relative_to(root).as_posix(): {"sha256": sha256(file), "bytes": file.stat().st_size}
        for file in sorted(root.rglob("*"))
        if file.is_file()
    }
    text = json.dumps(manifest, indent=1, ensure_ascii=False) + "\n"
    (root / MANIFEST).write_text(text, encoding="utf-8")
    written = Bundle(target, root, text)  # what is read back must hold
    _ = written.class_vectors, written.vocabulary


def _save(path: Path, tensors: Mapping[str, NDArray[Any]]) -> None:
    from safetensors.numpy import save

    path.write_bytes(save(dict(tensors)))  # save_file would make it readable to its owner only
