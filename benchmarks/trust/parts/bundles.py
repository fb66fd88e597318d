"""Hostile bundles: every file whose bytes a stranger may have written, hashes included."""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from benchmarks.trust.attempts import WrongResultError, loader_part
from benchmarks.trust.graphs import EDGES
from benchmarks.trust.mutate import mutated_bytes, mutated_json, written_json
from benchmarks.trust.small import helper
from benchmarks.trust.table import Attempt
from runtime.archive import MANIFEST
from runtime.bundle import Bundle, open_bundle
from runtime.classes import ClassTable
from runtime.detections import Detections
from runtime.detector import Detector
from runtime.manifest import SCORER, VOCABULARY
from runtime.text import TextEncoder
from zsd_core.scoring import Needed, scorer_for

__all__ = [
    "PARTS",
    "Files",
    "damage",
    "manifest",
    "other_tensors",
    "run_bundle",
    "score_bundle",
    "tensors",
    "tokenizer",
]

ABSURD = 1e15  # weights beyond it may give NaN, which passes no threshold
FLOATS = {"F16": "<f2", "F32": "<f4", "F64": "<f8"}  # types of safetensors
IMAGE = np.random.default_rng(0).integers(0, 256, (64, 80, 3), np.uint8)


def manifest(folder: Path) -> Attempt:
    """Manifests with other values, names and structure; one that is taken must also run."""
    path = helper("tiny").tiny_bundle(folder / "bundle")
    good = json.loads((path / MANIFEST).read_text(encoding="utf-8"))

    def attempt(rng: random.Random) -> None:
        (path / MANIFEST).write_bytes(written_json(mutated_json(good, rng), rng))
        bundle = open_bundle(path)
        _ = bundle.class_vectors, bundle.vocabulary.rows, bundle.scorer_tensors(), bundle.engines
        if rng.random() < 0.3:
            run_bundle(bundle)

    return attempt


class Files:
    """Files of a bundle that are replaced, with their hashes: an attacker writes both.

    Args:
        path: folder of the bundle.
        names: files that may be replaced.
    """

    def __init__(self, path: Path, *names: str) -> None:
        self.path, self.good = path, {name: (path / name).read_bytes() for name in names}
        self._manifest = json.loads((path / MANIFEST).read_text(encoding="utf-8"))

    @contextmanager
    def replaced(self, name: str, data: bytes) -> Iterator[Path]:
        """Replace a file for as long as the context lasts; gives the bundle."""
        records = self._manifest["files"]
        records[name] = {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}
        (self.path / name).write_bytes(data)
        (self.path / MANIFEST).write_text(json.dumps(self._manifest), encoding="utf-8")
        try:
            yield self.path
        finally:  # the next one may replace another file
            good = self.good[name]
            records[name] = {"sha256": hashlib.sha256(good).hexdigest(), "bytes": len(good)}
            (self.path / name).write_bytes(good)


def damage(folder: Path) -> Attempt:
    """Files, alone and in a zip, whose bytes changed while the hashes stayed: to be refused."""
    path = helper("tiny").tiny_bundle(folder / "bundle")
    contents = {p: p.read_bytes() for p in sorted(path.iterdir()) if p.name != MANIFEST}
    zipped = helper("tiny").tiny_bundle(folder / "bundle.zip")
    whole = zipped.read_bytes()

    def attempt(rng: random.Random) -> None:
        if rng.random() < 0.15:  # of a zip, some bytes do not count: times, comments
            zipped.write_bytes(mutated_bytes(whole, rng))
            bundle = open_bundle(zipped)
            if any((bundle.root / p.name).read_bytes() != data for p, data in contents.items()):
                raise WrongResultError("a file of a changed zip is another one")
            return
        file = rng.choice(list(contents))
        changed = mutated_bytes(contents[file], rng)
        file.write_bytes(changed)
        try:
            open_bundle(path)
            if changed != contents[file]:
                raise WrongResultError(f"a changed {file.name} is taken")
        finally:
            file.write_bytes(contents[file])

    return attempt


def tensors(folder: Path) -> Attempt:
    """Weights and vectors: headers that lie, other shapes and types, NaN, infinity, huge values."""
    path = helper("tiny").tiny_bundle(folder / "bundle")
    files = Files(path, SCORER, VOCABULARY)

    def attempt(rng: random.Random) -> None:
        name = rng.choice(list(files.good))
        data = other_tensors(files.good[name], rng)
        sound = _numbers(data)
        with files.replaced(name, data):
            score_bundle(open_bundle(path), rng, absurd=not sound <= ABSURD)
        if not np.isfinite(sound):
            raise WrongResultError(f"{name} is taken with a number that is not finite")

    return attempt


def _numbers(data: bytes) -> float:
    """The largest number of a safetensors file by magnitude, by a reading of our own."""
    size = int.from_bytes(data[:8], "little")
    try:
        header = json.loads(data[8 : 8 + size])
        entries = [entry for name, entry in header.items() if name != "__metadata__"]
        arrays = [
            np.frombuffer(data[8 + size :][slice(*entry["data_offsets"])], FLOATS[entry["dtype"]])
            for entry in entries
            if entry["dtype"] in FLOATS
        ]
        with np.errstate(all="ignore"):
            return max(
                (float(np.abs(a.astype(np.float32)).max()) for a in arrays if a.size), default=0
            )
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return 0.0  # no such file: to be refused, or to be judged by what it gives


def other_tensors(data: bytes, rng: random.Random) -> bytes:
    """A safetensors file that lies in its header, is damaged, or holds other values."""
    kind = rng.random()
    if kind < 0.35:
        return _other_header(data, rng)
    return mutated_bytes(data, rng) if kind < 0.55 else _other_values(data, rng)


def _other_header(data: bytes, rng: random.Random) -> bytes:
    size = int.from_bytes(data[:8], "little")
    header = written_json(mutated_json(json.loads(data[8 : 8 + size]), rng), rng)
    length = len(header) if rng.random() < 0.9 else rng.choice((0, 2**31, 2**63, len(data)))
    return length.to_bytes(8, "little") + header + data[8 + size :]


def _other_values(data: bytes, rng: random.Random) -> bytes:
    from safetensors.numpy import load, save

    arrays = load(data)
    name = rng.choice(sorted(arrays))
    array = np.array(arrays[name])
    kind = rng.randrange(5)
    if kind == 0 and array.size and array.dtype.kind == "f":
        array.flat[rng.randrange(array.size)] = rng.choice(EDGES)
    elif kind == 1 and array.dtype.kind == "f":
        array[...] = rng.choice(EDGES)
    elif kind == 2:
        array = array.reshape(array.shape[::-1] if rng.random() < 0.5 else (1, *array.shape))
    elif kind == 3:
        array = array[: rng.randrange(len(array) + 1)]
    else:
        array = array.astype(rng.choice(["float16", "float64", "int64", "uint8", "bool"]))
    arrays[name] = np.ascontiguousarray(array)
    return bytes(save(arrays))


def score_bundle(bundle: Bundle, rng: random.Random, absurd: bool = False) -> None:
    """Make classes of a bundle and score regions: refused, or numbers in [0, 1].

    Args:
        bundle: the bundle.
        rng: of the regions.
        absurd: its weights are so large that a score may be NaN, which passes no threshold.
    """
    config = bundle.model_config.scoring
    with np.errstate(all="ignore"):
        scorer = scorer_for(config, bundle.scorer_tensors())
        table = ClassTable(bundle, scorer)
        active = table.activate([*bundle.seen, *bundle.unseen, "zebra", "teapot"], "gzsd", 1)
        if not np.isfinite(active.class_set.prototypes).all():
            raise WrongResultError("a class has a prototype that is not finite")
        table.prepare()
        regions = np.random.default_rng(rng.randrange(9)).normal(size=(5, config.joint_dim))
        floors = np.full(len(active.names), 0.01, np.float32)
        scores = scorer.score(
            regions.astype(np.float32),
            np.full(5, 0.5, np.float32),
            active.class_set,
            Needed(floors, np.zeros(5, np.int32)),
        )
    if not ((scores >= 0) & (scores <= 1) | absurd & np.isnan(scores)).all():
        raise WrongResultError(f"scores between {scores.min()} and {scores.max()}")


def run_bundle(bundle: Bundle, backend: str = "onnxruntime") -> Detections:
    """Search an image: refused, or boxes and scores that are numbers in their range."""
    config = bundle.model_config
    most = 1.0 if config.calibration.seen else max(1.0, config.scoring.seen_scale)
    with np.errstate(all="ignore"):
        with Detector(bundle, backend=backend, threads=1, score_threshold=0.0) as detector:
            found = detector(IMAGE)
    if not np.isfinite(found.boxes).all():
        raise WrongResultError("a box is not finite")
    if not ((found.scores >= 0) & (found.scores <= most)).all():
        raise WrongResultError(f"a score is not in [0, {most:g}]")
    return found


def tokenizer(folder: Path) -> Attempt:
    """Tokenizers: other values, names and structure; one that is taken must encode a phrase."""
    tiny, text = helper("tiny"), helper("tiny_text")
    path = text.with_text(tiny.tiny_bundle(folder / "bundle"))
    files = Files(path, "tokenizer.json")
    good = json.loads(files.good["tokenizer.json"])

    def attempt(rng: random.Random) -> None:
        data = written_json(mutated_json(good, rng), rng)
        with files.replaced("tokenizer.json", data):
            encoder = TextEncoder(open_bundle(path), 1, "onnxruntime")
            vectors = encoder.encode(["dented red pallet"])
        if vectors.shape != (1, tiny.VECTOR) or abs(np.linalg.norm(vectors) - 1) > 1e-3:
            raise WrongResultError("a phrase has no vector of unit length")

    return attempt


PARTS = (
    loader_part(
        manifest, "manifest", "other values, names and structure of the manifest", 1_000_000, 400
    ),
    loader_part(damage, "damage", "bytes of every file, hashes as they were", 1_000_000, 400),
    loader_part(
        tensors,
        "tensors",
        "safetensors: headers, shapes, types, values that are not finite",
        1_000_000,
        400,
    ),
    loader_part(
        tokenizer,
        "tokenizer",
        "other values, names and structure of the tokenizer",
        1_000_000,
        250,
    ),
)
