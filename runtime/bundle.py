"""Open a bundle: what ``export.writing.bundle_writer`` writes.

A bundle is a directory, or the same zipped, of ``manifest.json`` and the files it lists with their
SHA-256. ``manifest`` checks the format, ``archive`` moves the files. A bundle that is damaged,
incomplete or newer than this version is an error before anything runs.
"""

from __future__ import annotations

import functools
import hashlib
import os
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from runtime.archive import MANIFEST, manifest_text
from runtime.manifest import SCORER, VOCABULARY, check_stages, parse_manifest
from runtime.onnx_file import SUFFIX
from runtime.side_by_side import side_by_side
from runtime.signature import verify_signature
from runtime.tensors import read_tensors
from runtime.unpacked import open_unpacked
from runtime.verified import VerifiedFiles
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
KEPT = 64 << 20  # most bytes of a file whose bytes wait, hashed, until they are parsed


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


class Bundle(VerifiedFiles):
    """An opened, verified bundle.

    The manifest is read once, and every file is what its hash there says whenever it is loaded.

    Args:
        path: as it was given, for messages.
        root: directory of its files (for a zip: where they were unpacked in the user's cache).
        text: of the manifest.

    Raises:
        BundleError: the manifest is not one that this version reads.
    """

    def __init__(self, path: Path, root: Path, text: str) -> None:
        self.manifest = manifest = parse_manifest(path, text)
        super().__init__(path, root, manifest["files"])
        self._digest = hashlib.sha256(text.encode()).hexdigest()
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
    def name(self) -> str:
        """Name of the bundle."""
        return str(self.manifest["name"])

    def __reduce__(self) -> tuple[Any, ...]:
        """Another process opens the bundle again, and refuses one that has changed."""
        return _reopened, (os.path.abspath(self.path), self.manifest)

    def __repr__(self) -> str:
        return f"Bundle({self.name!r}, {len(self.seen)} seen, {len(self.unseen)} unseen classes)"

    @property
    def hashes(self) -> dict[str, str]:
        """SHA-256 of every file of the bundle, the manifest that was read among them."""
        files = {name: str(record["sha256"]) for name, record in self.manifest["files"].items()}
        return {**files, MANIFEST: self._digest}

    def check_signature(self, public_key: str | os.PathLike[str]) -> None:
        """Check that the bundle, as it was opened and as it lies there, is what a key signed.

        Raises:
            BundleError: it is not signed, or was changed since.
            ConfigError: the key cannot be read.
            MissingPackageError: model-signing is not installed.
        """
        signed = verify_signature(self.path, self.root, public_key)
        if signed.get(MANIFEST) != self._digest:
            raise BundleError(
                f"{self.path}: its {MANIFEST} is another than when the bundle was opened, and only "
                f"the one there now is signed by {public_key}. Open the bundle again."
            )

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
        """File of a network, as ``network_name`` chooses it, checked as ``file`` does."""
        return self.file(self.network_name(stage, precision, family))

    def network_name(
        self, stage: str, precision: str = "float32", family: str = "onnxruntime"
    ) -> str:
        """Name of the file of a network in a precision, in the form a family of backends wants.

        Args:
            stage: "trunk" or "head".
            precision: one of ``PRECISIONS``; "float32" is what was exported.
            family: "onnxruntime", "openvino" or "tensorrt"; they want int8 written differently.

        Raises:
            BundleError: the bundle has no such network; the message says how to make it.
        """
        if precision == "float32":
            return self.onnx_name(self.stage(stage)["file"])
        made = self.manifest.get("precisions") or {}
        names = {held: _entry(_entry(made[held], "networks"), family).get(stage) for held in made}
        if isinstance(name := names.get(precision), str):
            return self.onnx_name(name)
        module = {"fp16": "fp16", "int8": "quantize"}.get(precision)
        held = ["float32", *(held for held, name in names.items() if isinstance(name, str))]
        raise BundleError(
            f"{self.path}: no {stage} in {precision!r} for {family}, only {', '.join(held)}"
            + (f". Make it: python -m export.{module} {self.path}" if module else "")
        )

    def onnx_name(self, name: str) -> str:
        """Return the name of a file that is to be run as a network.

        Raises:
            BundleError: it does not end in .onnx: only such networks are checked, and every
                library takes them for the same.
        """
        if not name.endswith(SUFFIX):
            raise BundleError(
                f"{self.path}: the network {shown(name)} must be an ONNX file whose name ends in "
                f"{SUFFIX}. Export the bundle again."
            )
        return name

    @property
    def engines(self) -> tuple[dict[str, Any], ...]:
        """The manifest's entries of compiled engines; ``file(entry["file"])`` is the plan."""
        return tuple(self.manifest.get("engines") or ())

    def scorer_tensors(self) -> dict[str, NDArray[Any]]:
        """The tensors of the scoring method."""
        return read_tensors(f"{self.path}: {SCORER}", self.read(SCORER), ("F32",))

    @cached_property
    def _words(self) -> dict[str, NDArray[Any]]:
        data = self.read(VOCABULARY)
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
    if not isinstance(path, Bundle):
        return _opened(path, require_signature)
    if require_signature is not None:
        try:
            path.check_signature(require_signature)
        except BundleError:
            if not path.path.is_file():
                raise
            _opened(path.path, require_signature)  # a zip, whose copy may have lost its signature
            path.check_signature(require_signature)
    return path


def _opened(
    path: str | os.PathLike[str] | None, key: str | os.PathLike[str] | None = None
) -> Bundle:
    given = default_bundle() if path is None else Path(path)
    if os.path.isdir(given):  # pathlib's raises where a name is too long or a folder closed
        return _open(given, given, key)
    if not os.path.isfile(given):
        raise BundleError(
            f"{given}: no such bundle; pass the directory or zip that export.onnx wrote."
        )
    opened = functools.partial(_open, given, key=key, engines=True)
    return open_unpacked(given, parse_manifest, opened)


def _reopened(path: str, manifest: dict[str, Any]) -> Bundle:
    bundle = open_bundle(path)
    if bundle.manifest != manifest:
        raise BundleError(
            f"{path}: the bundle is another than the one that was pickled or copied; open it anew."
        )
    return bundle


def _open(
    given: Path, root: Path, key: str | os.PathLike[str] | None, engines: bool = False
) -> Bundle:
    bundle = Bundle(given, root, manifest_text(given, root))
    files = bundle.manifest["files"]
    names = [name for name in files if engines or not name.startswith("engines/")]
    kept = [name for name in (SCORER, VOCABULARY) if files[name]["bytes"] <= KEPT]
    large = sum(files[name]["bytes"] for name in names) > LARGE
    side_by_side(
        lambda name: bundle.verify(name, keep=name in kept), names, HASHING if large else 1
    )
    if key is not None:
        bundle.check_signature(key)
    return bundle


def _entry(value: dict[str, Any], key: str) -> dict[str, Any]:
    """What a manifest has under a key; nothing where that is no object."""
    found = value.get(key)
    return found if isinstance(found, dict) else {}


def _about(array: NDArray[Any] | None) -> str:
    return "no values" if array is None else f"shape {array.shape} of {array.dtype}"
