"""The bundle: what ``export`` writes and ``runtime`` reads.

This module alone knows the format; ``archive`` moves its files. A bundle is a directory, or the
same zipped, of ``manifest.json`` and the files it lists with their SHA-256. One that is damaged,
incomplete or newer than this version is an error before anything runs.
"""

from __future__ import annotations

import dataclasses
import datetime
import json
import os
import shutil
import tempfile
import weakref
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from runtime.archive import MANIFEST, replacing, safe_name, sha256, unpack, verify
from runtime.vocabulary import Vocabulary
from zsd_core.config import ModelConfig, RegionConfig, from_mapping
from zsd_core.errors import BundleError, ZsdError
from zsd_core.semantics import fold_name, quantize_rows

__all__ = [
    "FORMAT",
    "PRECISIONS",
    "Bundle",
    "amend_bundle",
    "default_bundle",
    "open_bundle",
    "write_bundle",
]

FORMAT = 1
SCORER = "scorer.safetensors"
VOCABULARY = "vocabulary.safetensors"
DEFAULT = "contrastzsd-mobilenetv2-coco48"
ROLES = ("seen", "unseen")
PRECISIONS = ("float32", "fp16", "int8")  # of the two networks


def default_bundle() -> Path:
    """Where the bundle that ships with this package lies.

    Raises:
        BundleError: this installation has none.
    """
    path = Path(__file__).parent / "bundles" / DEFAULT
    if not (path / MANIFEST).is_file():
        raise BundleError(
            f"{path}: the bundle that ships with the package is not there. Install the package "
            "again, or name another bundle: Detector('bundle/')."
        )
    return path


class Bundle:
    """An opened, verified bundle.

    Args:
        path: as it was given, for messages.
        root: directory of its files (for a zip: where they were unpacked).
        manifest: parsed and checked.
        temporary: ``root`` is removed with this object.
    """

    def __init__(
        self, path: Path, root: Path, manifest: dict[str, Any], temporary: bool = False
    ) -> None:
        self.path, self.manifest, self._root = path, manifest, root
        self._verified: set[str] = set()
        try:
            self.model_config = from_mapping(ModelConfig, manifest["model"], "model")
        except ZsdError as error:
            raise BundleError(f"{path}/{MANIFEST}: {error}") from error
        if self.model_config.regions.pooling != "align":
            raise BundleError(
                f"{path}/{MANIFEST}: model.regions.pooling is "
                f"{self.model_config.regions.pooling!r}, and only 'align' can be run from a bundle."
            )
        _check_maps(f"{path}/{MANIFEST}", self.model_config.regions, manifest["stages"])
        names = [entry["name"] for entry in manifest["classes"]]
        count = sum(entry["role"] == "seen" for entry in manifest["classes"])  # they come first
        self.seen, self.unseen = tuple(names[:count]), tuple(names[count:])
        if temporary:
            weakref.finalize(self, shutil.rmtree, root, ignore_errors=True)

    @property
    def name(self) -> str:
        """What the bundle calls itself."""
        return str(self.manifest["name"])

    def __repr__(self) -> str:
        return f"Bundle({self.name!r}, {len(self.seen)} seen, {len(self.unseen)} unseen classes)"

    def file(self, name: str) -> Path:
        """Path of a listed file, its hash checked.

        Raises:
            BundleError: not listed, missing or damaged.
        """
        if name not in self.manifest["files"]:
            raise BundleError(
                f"{self.path}: {name} is not part of this bundle, which lists "
                f"{', '.join(self.manifest['files'])}."
            )
        path = self._root / name
        if name not in self._verified:
            verify(self.path, name, path, self.manifest["files"][name])
            self._verified.add(name)
        return path

    def stage(self, name: str) -> dict[str, Any]:
        """The manifest's entry of a stage: ``file``, ``inputs`` and ``outputs``.

        Raises:
            BundleError: the bundle has no such stage.
        """
        try:
            return dict(self.manifest["stages"][name])
        except KeyError:
            raise BundleError(
                f"{self.path}: no stage {name!r}, only {', '.join(self.manifest['stages'])}."
            ) from None

    def network(self, stage: str, precision: str = "float32", family: str = "onnxruntime") -> Path:
        """File of a network in a precision, in the form a family of backends wants.

        Args:
            stage: "trunk" or "head".
            precision: one of ``PRECISIONS``; "float32" is what was exported.
            family: "onnxruntime", "openvino" or "tensorrt"; they want int8 written differently.

        Raises:
            BundleError: the bundle has no such network; the message says how to make it.
        """
        if precision == "float32":
            return self.file(self.stage(stage)["file"])
        made = self.manifest.get("precisions", {})
        try:
            return self.file(made[precision]["networks"][family][stage])
        except (KeyError, TypeError):
            module = {"fp16": "precision", "int8": "quantize"}.get(precision)
            raise BundleError(
                f"{self.path}: no {stage} in {precision!r} for {family}, only "
                f"{', '.join(['float32', *made])}"
                + (f". Make it: python -m export.{module} {self.path}" if module else "")
            ) from None

    @property
    def engines(self) -> tuple[dict[str, Any], ...]:
        """The manifest's entries of compiled engines; ``file(entry["file"])`` is the plan."""
        return tuple(self.manifest.get("engines") or ())

    def scorer_tensors(self) -> dict[str, NDArray[Any]]:
        """The tensors of the scoring method."""
        return _tensors(self.path, SCORER, self.file(SCORER))

    @cached_property
    def _words(self) -> dict[str, NDArray[Any]]:
        return _tensors(self.path, VOCABULARY, self.file(VOCABULARY))

    @cached_property
    def class_vectors(self) -> NDArray[np.float32]:
        """``(Ks + U, E)`` unit vectors of the class table, seen first."""
        vectors, wanted = self._words.get("classes"), len(self.seen) + len(self.unseen)
        width = self.model_config.scoring.vector_dim
        if vectors is None or vectors.shape != (wanted, width):
            raise BundleError(
                f"{self.path}/{VOCABULARY}: tensor 'classes' has shape "
                f"{None if vectors is None else vectors.shape}, the manifest means "
                f"({wanted}, {width}). Export the bundle again."
            )
        return np.asarray(vectors, np.float32)

    @cached_property
    def vocabulary(self) -> Vocabulary:
        """The words that can become classes without a text encoder; may be empty."""
        width = self.model_config.scoring.vector_dim
        names = self._words.get("names", np.zeros(0, np.uint8)).tobytes()
        vectors = self._words.get("vectors", np.zeros((0, width), np.int8))
        scales = self._words.get("scales", np.zeros(0, np.float32))
        count = names.count(b"\n") + 1 if names else 0
        if vectors.shape != (count, width) or scales.shape != (count,):
            raise BundleError(
                f"{self.path}/{VOCABULARY}: {count} names, vectors {vectors.shape} and scales "
                f"{scales.shape} do not agree for width {width}. Export the bundle again."
            )
        return Vocabulary(names, vectors, scales)

    @property
    def vocabulary_info(self) -> dict[str, Any]:
        """Where the vocabulary's vectors come from: encoder, template, source, licence."""
        return dict(self.manifest.get("vocabulary") or {})


def open_bundle(path: str | os.PathLike[str] | Bundle | None = None) -> Bundle:
    """Open a bundle directory or zip and verify it; None opens the one that ships.

    Every listed file is hashed, those under ``engines/`` when they are asked for.

    Raises:
        BundleError: it is not there, not a bundle, damaged, incomplete or too new.
    """
    if isinstance(path, Bundle):
        return path
    given = default_bundle() if path is None else Path(path)
    if os.path.isdir(given):  # pathlib's raises where a name is too long or a folder closed
        return _open(given, given)
    if not os.path.isfile(given):
        raise BundleError(
            f"{given}: no such bundle; pass the directory or zip that export.onnx wrote."
        )
    root = Path(tempfile.mkdtemp(prefix="contrastzsd-"))
    try:
        unpack(given, root, _checked)
        return _open(given, root, temporary=True)
    except BaseException:
        shutil.rmtree(root, ignore_errors=True)
        raise


def _open(given: Path, root: Path, temporary: bool = False) -> Bundle:
    try:
        text = (root / MANIFEST).read_text(encoding="utf-8")
    except OSError as error:
        raise BundleError(
            f"{given}: {MANIFEST} cannot be read ({error.strerror}); is this a bundle, that is, "
            "what export.onnx wrote?"
        ) from error
    except UnicodeDecodeError as error:
        raise BundleError(f"{given}/{MANIFEST} is not text: {error}") from error
    bundle = Bundle(given, root, _checked(given, text), temporary)
    for name in bundle.manifest["files"]:
        if not name.startswith("engines/"):
            bundle.file(name)
    return bundle


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
        overwrite: replace what is at ``path``.
        **details: further manifest entries: licence, generator, training, metrics, precisions,
            engines, created.

    Raises:
        BundleError: ``path`` exists or cannot be written, or the parts do not agree.
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
    path: str | os.PathLike[str], files: Mapping[str, Path | bytes] | None = None, **details: Any
) -> Path:
    """Add files to a bundle, or replace them, and set manifest entries; in one step, as writing is.

    A plan that no engine of the manifest names any more goes.

    Args:
        path: directory or zip.
        files: name in the bundle to a file to copy, or its bytes.
        **details: manifest entries to set, such as metrics or engines.

    Raises:
        BundleError: the bundle cannot be opened or written, or would not be one afterwards.
    """
    bundle, target = open_bundle(path), Path(path)
    named = {engine["file"] for engine in details.get("engines", bundle.engines)}
    present: dict[str, Path | bytes] = {
        name: bundle.file(name) for name in bundle.manifest["files"]
        if name in named or not name.startswith("engines/")
    }  # fmt: skip
    with replacing(target) as root:
        _fill(target, root, {**present, **(files or {})})
        _seal(target, root, {**bundle.manifest, **details})
    return target


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
    written = Bundle(target, root, _checked(target, text))  # what is read back must hold
    _ = written.class_vectors, written.vocabulary


def _checked(path: Path, text: str) -> dict[str, Any]:
    """Parse a manifest and check all that this version relies on."""
    where = f"{path}/{MANIFEST}"
    try:
        manifest = json.loads(text)
    except json.JSONDecodeError as error:
        raise BundleError(f"{where} is not JSON: {error}. Copy or export it again.") from error
    if not isinstance(manifest, dict) or not isinstance(manifest.get("format"), int):
        raise BundleError(f"{where} has no integer 'format'; is this a bundle?")
    if manifest["format"] > FORMAT:
        raise BundleError(
            f"{where} has format {manifest['format']}, this version reads up to {FORMAT}. "
            "Upgrade: pip install -U contrastzsd"
        )
    kinds = {"name": str, "model": dict, "classes": list, "stages": dict, "files": dict}
    for key, kind in kinds.items():
        if not isinstance(manifest.get(key), kind):
            raise BundleError(f"{where}: {key!r} is missing or not a {kind.__name__}.")
    if manifest.get("background_index", 0) != 0:
        raise BundleError(f"{where}: background_index is {manifest['background_index']}, not 0.")
    for name, record in manifest["files"].items():
        safe_name(path, name)
        if not (
            isinstance(record, dict)
            and isinstance(record.get("sha256"), str)
            and isinstance(record.get("bytes"), int)
        ):
            raise BundleError(f"{where}: files[{name!r}] needs 'sha256' and 'bytes'.")
    for name in (SCORER, VOCABULARY):
        if name not in manifest["files"]:
            raise BundleError(f"{where}: {name} is not listed; export the bundle again.")
    _check_classes(where, manifest["classes"])
    for stage, entry in manifest["stages"].items():
        if not (isinstance(entry, dict) and entry.get("file") in tuple(manifest["files"])):
            raise BundleError(f"{where}: stage {stage!r} names no listed file.")
        for side in ("inputs", "outputs"):
            _check_values(f"{where}: stage {stage!r}, {side}", entry.get(side, []))
    return manifest


def _check_values(where: str, values: Any) -> None:
    """Inputs or outputs of a stage."""
    for value in values if isinstance(values, list) else [values]:
        if not (
            isinstance(value, dict)
            and isinstance(value.get("name"), str)
            and isinstance(value.get("shape"), list)
        ):
            raise BundleError(
                f"{where}: {value!r} must be an object with a name and a shape. Export the bundle "
                "again."
            )


def _check_maps(where: str, regions: RegionConfig, stages: Mapping[str, Any]) -> None:
    """The trunk must make the maps that ``regions`` names, and the head read their regions."""
    values = {
        "trunk": [value["name"] for value in stages.get("trunk", {}).get("outputs", ())],
        "head": [tuple(value["shape"][2:]) for value in stages.get("head", {}).get("inputs", ())],
    }
    wanted = {
        "trunk": [*(name for name, _ in regions.maps), "objectness", "deltas"],
        "head": [regions.bins(step) for _, step in regions.maps],
    }
    for stage, found in values.items():
        if stage in stages and found != wanted[stage]:
            what = "outputs are" if stage == "trunk" else "inputs have bins"
            raise BundleError(
                f"{where}: the {stage}'s {what} {found}, model.regions means {wanted[stage]}. "
                "Export the bundle again."
            )


def _check_classes(where: str, classes: list[Any]) -> None:
    roles, names = [], set()
    for index, entry in enumerate(classes):
        if not (
            isinstance(entry, dict)
            and isinstance(entry.get("name"), str)
            and entry.get("role") in ROLES
        ):
            raise BundleError(f"{where}: classes[{index}] is {entry!r}, needs a name and a role.")
        if fold_name(entry["name"]) in names:
            raise BundleError(f"{where}: class {entry['name']!r} is there twice.")
        names.add(fold_name(entry["name"]))
        roles.append(entry["role"])
    if roles != sorted(roles):
        raise BundleError(f"{where}: seen classes must come before unseen ones.")


def _tensors(bundle: Path, name: str, path: Path) -> dict[str, NDArray[Any]]:
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        return dict(load_file(path))
    except SafetensorError as error:
        raise BundleError(f"{bundle}: {name} is not a safetensors file: {error}") from error


def _save(path: Path, tensors: Mapping[str, NDArray[Any]]) -> None:
    from safetensors.numpy import save

    path.write_bytes(save(dict(tensors)))  # save_file would make it readable to its owner only
