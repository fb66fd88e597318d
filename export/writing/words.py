"""The words a bundle brings along: read with their vectors, or encoded from a list of names."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from runtime.archive import MANIFEST
from runtime.manifest import VOCABULARY
from zsd_core.errors import DataError
from zsd_core.files import parse_json, read_lines, read_npz
from zsd_core.learning.vectors import stored_names
from zsd_core.semantics import fold_name

__all__ = ["Words", "read_words"]

COUNTED = ("file", "count", "dimension")  # of a manifest's vocabulary; the rest is provenance


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Words:
    """Names and their vectors.

    Attributes:
        names: without repetition.
        vectors: ``(V, E)`` float32.
        info: encoder, template, source and licence, as the manifest records them.
        ordinary: words of the language that are no names, if the file holds any.
    """

    names: tuple[str, ...]
    vectors: NDArray[np.float32]
    info: Mapping[str, str] = field(default_factory=dict)
    ordinary: tuple[str, ...] = ()


def read_words(
    path: str | Path, training: Mapping[str, Any], width: int, *, source: str, licence: str
) -> Words:
    """Read a vocabulary.

    Args:
        path: ``*.safetensors`` as ``scripts.vocabulary`` writes it, or ``*.npz``, with "names",
            "vectors" and perhaps "scales" (row = vector * scale); or ``*.txt``, one name a line,
            encoded as the class vectors of the checkpoint were (all-MiniLM-L6-v2 only; lines that
            begin with "#" are skipped).
        training: provenance of the checkpoint; ``training["vectors"]`` says how its class vectors
            were made.
        width: E of the model.
        source: where the names come from, for the manifest; "" takes the file's own metadata, or,
            of the file of a bundle, what the bundle's manifest says.
        licence: of the names, likewise.

    Raises:
        DataError: unreadable, malformed, of another width, or not encodable here.
    """
    path = Path(path)
    made, ordinary = dict(training.get("vectors", {})), tuple[str, ...]()
    if not os.path.isfile(path):
        raise DataError(f"no vocabulary at {path}; give a .txt, .npz or .safetensors file.")
    if path.suffix == ".txt":
        names, vectors = _encoded(path, made)
        info = {key: str(made[key]) for key in ("encoder", "template") if key in made}
    elif path.suffix in (".npz", ".safetensors"):
        names, vectors, info, ordinary = _stored(path)
    else:
        raise DataError(f"vocabulary {path} must be a .txt, .npz or .safetensors file.")
    if vectors.shape != (len(names), width):
        raise DataError(
            f"vocabulary {path} has {len(names)} names and vectors of shape {vectors.shape}; this "
            f"model reads vectors of width {width}."
        )
    lengths = np.linalg.norm(vectors, axis=1)
    if not (usable := np.isfinite(lengths) & (lengths > 0)).all():
        raise DataError(
            f"vocabulary {path}: the vector of {names[int(usable.argmin())]!r} has no length, or "
            "holds what is no number."
        )
    first: dict[str, int] = {}
    for row, name in enumerate(names):  # of spellings that are one name, the first
        first.setdefault(fold_name(name), row)
    first.pop("", None)
    rows = list(first.values())
    info |= {key: text for key, text in (("source", source), ("licence", licence)) if text}
    chosen = tuple(names[row] for row in rows)
    return Words(names=chosen, vectors=vectors[rows], info=info, ordinary=ordinary)


def _encoded(path: Path, made: Mapping[str, Any]) -> tuple[list[str], NDArray[np.float32]]:
    from zsd_core.text import TEMPLATE, encode_names

    if made.get("kind") != "minilm":
        raise DataError(
            f"vocabulary {path} is a list of names, but the class vectors of this checkpoint are "
            f"of kind {made.get('kind', 'unknown')!r}, which cannot be computed here; give a .npz "
            "or .safetensors file with vectors of the same kind."
        )
    names = read_lines(path, "vocabulary")
    return names, encode_names(names, template=str(made.get("template", TEMPLATE)))


def _stored(
    path: Path,
) -> tuple[list[str], NDArray[np.float32], dict[str, str], tuple[str, ...]]:
    arrays: dict[str, NDArray[Any]]
    info: dict[str, str] = {}
    try:
        if path.suffix == ".npz":
            arrays = read_npz(path)
        else:
            from safetensors import safe_open

            with safe_open(path, "numpy") as file:
                arrays = {key: file.get_tensor(key) for key in file.keys()}
                info = dict(file.metadata() or _of_bundle(path))
        vectors = np.asarray(arrays["vectors"], np.float32)
        names = stored_names(path, arrays["names"])
        ordinary = arrays.get("ordinary", np.zeros(0, np.uint8)).tobytes().decode("utf-8").split()
        if "scales" in arrays:
            vectors = vectors * np.asarray(arrays["scales"], np.float32)[:, None]
    except KeyError as error:
        raise DataError(f"vocabulary {path} holds no {error}.") from error
    except Exception as error:  # safetensors, zip and numpy raise kinds of their own
        raise DataError(f"vocabulary {path} cannot be read: {error}") from error
    return names, vectors, info, tuple(ordinary)


def _of_bundle(path: Path) -> dict[str, str]:
    """What a bundle that the file belongs to says of its words: their licence goes with them."""
    manifest = path.with_name(MANIFEST)
    if path.name != VOCABULARY or not manifest.is_file():
        return {}
    said = parse_json(manifest.read_bytes(), str(manifest))["vocabulary"]
    return {key: str(text) for key, text in said.items() if key not in COUNTED}
