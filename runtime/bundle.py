"""Open a bundle: what ``export.writing.bundle_writer`` writes.

A bundle is a directory, or the same zipped, of ``manifest.json`` and the files it lists with their
SHA-256. ``manifest`` checks the format, ``archive`` moves the files. A bundle that is damaged,
incomplete or newer than this version is an error before anything runs.
"""

from __future__ import annotations

import os
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from runtime.archive import MANIFEST, manifest_text, verify
from runtime.manifest import SCORER, VOCABULARY, check_stages, parse_manifest
from runtime.onnx_file import check_network
from runtime.side_by_side import side_by_side
from runtime.signature import verify_signature
from runtime.tensors import read_tensors
from runtime.unpacked import open_unpacked
from runtime.vocabulary import Vocabulary
from zsd_core.config import ModelConfig
from zsd_core.errors import BundleError, ZsdError, did_you_mean
from zsd_core.files import shown
from zsd_core.options import from_mapping

__all__ = ["PRECISIONS", "Bundle", "bundled", "default_bundle", "open_bundle"]

DEFAULT = "open"
PRECISIONS = ("float32", "fp16", "int8")  # of the two networks
HASHING = 4  # threads that hash the files of a bundle of more than LARGE bytes
LARGE = 1 << 20  # below it, starting threads takes longer than hashing


def bundled(name: str) -> Path:
    """Folder of a bundle of this installation: "open", or "coco48" in the repository.

    Raises:
        BundleError: there is no such bundle here.
    """
    folder = Path(__file__).parent / "bundles"
    here = sorted(path.parent.name for path in folder.glob(f"*/{MANIFEST}"))
    if name not in here:
        raise BundleError(
            f"{folder} holds no bundle {name!r}, only {', '.join(map(repr, here)) or 'none'}"
            f"{did_you_mean(name, here) or '.'}"
        )
    return folder / name


def default_bundle() -> Path:
    """Folder of the bundle that ships with this package.

    Raises:
        BundleError: this installation has none.
    """
    try:
        return bundled(DEFAULT)
    except BundleError as error:
        raise BundleError(
            f"the bundle that ships with the package is not there: {error} Install the package "
            "again, or name another bundle: Detector('bundle/')."
        ) from error


class Bundle:
    """An opened, verified bundle.

    Args:
        path: as it was given, for messages.
        root: directory of its files (for a zip: where they were unpacked in the user's cache).
        manifest: parsed and checked.
    """

    def __init__(self, path: Path, root: Path, manifest: dict[str, Any]) -> None:
        self.path, self.manifest, self._root = path, manifest, root
        self._verified: set[str] = set()
        self._checked: set[str] = set()  # networks
        try:
            self.model_config = from_mapping(ModelConfig, manifest["model"], "model", strict=True)
        except ZsdError as error:
            raise BundleError(f"{path}/{MANIFEST}: {error}") from error
        if self.model_config.regions.pooling != "align":
            raise BundleError(
                f"{path}/{MANIFEST}: model.regions.pooling is "
                f"{self.model_config.regions.pooling!r}, and only 'align' can be run from a bundle."
            )
        look, method = self.model_config.regions.look, self.model_config.scoring.method
        if (look > 0) != (method == "prototypes"):
            raise BundleError(
                f"{path}/{MANIFEST}: model.regions.look is {look} and model.scoring.method is "
                f"{shown(method)}; a second look goes with 'prototypes', and they with it."
            )
        names = [entry["name"] for entry in manifest["classes"]]
        count = sum(entry["role"] == "seen" for entry in manifest["classes"])  # they come first
        self.seen, self.unseen = tuple(names[:count]), tuple(names[count:])
        check_stages(f"{path}/{MANIFEST}", self.model_config, count, manifest["stages"])

    @property
    def root(self) -> Path:
        """Directory of the files; of a zip, where they were unpacked."""
        return self._root

    @property
    def name(self) -> str:
        """Name of the bundle."""
        return str(self.manifest["name"])

    def __reduce__(self) -> tuple[Any, ...]:
        """Another process opens the bundle again, and refuses one that has changed."""
        return _reopened, (os.path.abspath(self.path), self.manifest)

    def __repr__(self) -> str:
        return f"Bundle({self.name!r}, {len(self.seen)} seen, {len(self.unseen)} unseen classes)"

    def file(self, name: str) -> Path:
        """Path of a listed file, its hash checked; a network's sizes and outside weights too.

        Raises:
            BundleError: not listed, missing or damaged, or a network that lies about its weights.
        """
        if name not in self.manifest["files"]:
            raise BundleError(
                f"{self.path}: {name} is not part of this bundle, which lists "
                f"{', '.join(self.manifest['files'])}."
            )
        path = self._verify(name)
        if name.endswith(".onnx") and name not in self._checked:
            for weights in check_network(self.path, name, path, self.manifest["files"]):
                self._verify(weights)
            self._checked.add(name)
        return path

    def forget(self) -> None:
        """Hash files again when they are next asked for: they may have changed since then."""
        self._verified.clear()
        self._checked.clear()

    def _verify(self, name: str) -> Path:
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
        made = self.manifest.get("precisions") or {}
        try:
            return self.file(made[precision]["networks"][family][stage])
        except (KeyError, TypeError):
            module = {"fp16": "fp16", "int8": "quantize"}.get(precision)
            held = ["float32", *(p for p in made if family in made[p].get("networks", {}))]
            raise BundleError(
                f"{self.path}: no {stage} in {precision!r} for {family}, only {', '.join(held)}"
                + (f". Make it: python -m export.{module} {self.path}" if module else "")
            ) from None

    @property
    def engines(self) -> tuple[dict[str, Any], ...]:
        """The manifest's entries of compiled engines; ``file(entry["file"])`` is the plan."""
        return tuple(self.manifest.get("engines") or ())

    def scorer_tensors(self) -> dict[str, NDArray[Any]]:
        """The tensors of the scoring method."""
        data = self.file(SCORER).read_bytes()
        return read_tensors(f"{self.path}: {SCORER}", data, ("F32",))

    @cached_property
    def _words(self) -> dict[str, NDArray[Any]]:
        data = self.file(VOCABULARY).read_bytes()
        return read_tensors(f"{self.path}: {VOCABULARY}", data, ("F32", "I8", "U8"))

    @cached_property
    def class_vectors(self) -> NDArray[np.float32]:
        """``(Ks + U, E)`` unit vectors of the class table, seen first."""
        vectors, wanted = self._words.get("classes"), len(self.seen) + len(self.unseen)
        width = self.model_config.scoring.vector_dim
        if vectors is None or vectors.shape != (wanted, width) or vectors.dtype != np.float32:
            raise BundleError(
                f"{self.path}/{VOCABULARY}: tensor 'classes' has {_about(vectors)}, the manifest "
                f"means ({wanted}, {width}) of float32. Export the bundle again."
            )
        return vectors

    @cached_property
    def vocabulary(self) -> Vocabulary:
        """The words that can become classes without a text encoder; may be empty."""
        width = self.model_config.scoring.vector_dim
        names = self._text("names")
        vectors = self._words.get("vectors", np.zeros((0, width), np.int8))
        scales = self._words.get("scales", np.zeros(0, np.float32))
        count = names.count(b"\n") + 1 if names else 0
        right = vectors.dtype == np.int8 and scales.dtype == np.float32
        if not right or vectors.shape != (count, width) or scales.shape != (count,):
            raise BundleError(
                f"{self.path}/{VOCABULARY}: {count} names, vectors of {_about(vectors)} and scales "
                f"of {_about(scales)} do not agree: must be ({count}, {width}) of int8 and "
                f"({count},) of float32. Export the bundle again."
            )
        return Vocabulary(names, vectors, scales, self._text("ordinary"))

    def _text(self, name: str) -> bytes:
        """UTF-8 text of the vocabulary, which is there to be read later."""
        array = self._words.get(name, np.zeros(0, np.uint8))
        if array.dtype != np.uint8 or array.ndim != 1:
            raise BundleError(
                f"{self.path}/{VOCABULARY}: {name} has {_about(array)}, must be one row of uint8. "
                "Export the bundle again."
            )
        text = array.tobytes()
        try:
            text.decode("utf-8")
        except UnicodeDecodeError as error:
            raise BundleError(f"{self.path}/{VOCABULARY}: {name} is not text: {error}") from error
        return text

    @property
    def vocabulary_info(self) -> dict[str, Any]:
        """Origin of the vocabulary's vectors: encoder, template, source, licence."""
        return dict(self.manifest.get("vocabulary") or {})

    @property
    def text_info(self) -> dict[str, Any]:
        """The text encoder: its network and tokenizer, template, licence; empty without one."""
        return dict(self.manifest.get("text") or {})


def open_bundle(
    path: str | os.PathLike[str] | Bundle | None = None,
    *,
    require_signature: str | os.PathLike[str] | None = None,
) -> Bundle:
    """Open a bundle directory or zip and verify it; None opens the one that ships.

    Every listed file is hashed, those under ``engines/`` when they are asked for. A zip is unpacked
    once into the user's cache (``$XDG_CACHE_HOME`` or ``~/.cache``), and hashed at every opening.

    Args:
        path: the bundle.
        require_signature: public key (PEM) by which it must be signed. Without it, hashes say that
            the bundle is whole, and nothing says who made it.

    Raises:
        BundleError: it is not there, not a bundle, damaged, incomplete or too new; there is no
            room for the files of a zip; or it must be signed, and is not, or by another key.
        ConfigError: the public key cannot be read.
        MissingPackageError: it must be signed, and model-signing is not installed.
    """
    bundle = path if isinstance(path, Bundle) else _opened(path)
    if require_signature is not None:
        verify_signature(bundle.path, bundle.root, require_signature)
    return bundle


def _opened(path: str | os.PathLike[str] | None) -> Bundle:
    given = default_bundle() if path is None else Path(path)
    if os.path.isdir(given):  # pathlib's raises where a name is too long or a folder closed
        return _open(given, given)
    if not os.path.isfile(given):
        raise BundleError(
            f"{given}: no such bundle; pass the directory or zip that export.onnx wrote."
        )
    return open_unpacked(given, parse_manifest, lambda root: _open(given, root, engines=True))


def _reopened(path: str, manifest: dict[str, Any]) -> Bundle:
    bundle = open_bundle(path)
    if bundle.manifest != manifest:
        raise BundleError(
            f"{path}: the bundle is another than the one that was pickled or copied; open it anew."
        )
    return bundle


def _open(given: Path, root: Path, engines: bool = False) -> Bundle:
    bundle = Bundle(given, root, parse_manifest(given, manifest_text(given, root)))
    files = bundle.manifest["files"]
    names = [name for name in files if engines or not name.startswith("engines/")]
    large = sum(files[name]["bytes"] for name in names) > LARGE
    side_by_side(bundle._verify, names, HASHING if large else 1)
    return bundle


def _about(array: NDArray[Any] | None) -> str:
    return "no values" if array is None else f"shape {array.shape} of {array.dtype}"
