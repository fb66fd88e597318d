"""Loaders as functions of bytes, for a fuzzer: one file, as a stranger would write it."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from benchmarks.trust.attempts import WrongResultError
from benchmarks.trust.parts.annotations import check_coco
from benchmarks.trust.parts.bundles import Files, run_bundle, score_bundle
from benchmarks.trust.small import helper
from runtime.archive import MANIFEST
from runtime.bundle import open_bundle
from runtime.manifest import SCORER, VOCABULARY
from runtime.text import TextEncoder

__all__ = ["LOADS", "Load"]

Load = Callable[[bytes], None]
Prepared = tuple[Load, Sequence[bytes]]  # the loader, and inputs to start from


def _manifest(folder: Path) -> Prepared:
    """A manifest, and the bundle that it makes, which must run."""
    path = helper("tiny").tiny_bundle(folder / "bundle")

    def load(data: bytes) -> None:
        (path / MANIFEST).write_bytes(data)
        bundle = open_bundle(path)
        _ = bundle.class_vectors, bundle.vocabulary.rows, bundle.scorer_tensors(), bundle.engines
        run_bundle(bundle)

    return load, [(path / MANIFEST).read_bytes()]


def _in_bundle(name: str) -> Callable[[Path], Prepared]:
    """A file of a bundle whose manifest has its hash."""

    def prepare(folder: Path) -> Prepared:
        tiny, text = helper("tiny"), helper("tiny_text")  # in this order
        path = text.with_text(tiny.tiny_bundle(folder / "bundle"))
        files = Files(path, name)

        def load(data: bytes) -> None:
            with files.replaced(name, data):
                bundle = open_bundle(path)
                if name.endswith(".onnx"):
                    run_bundle(bundle)
                elif name.endswith(".json"):
                    TextEncoder(bundle, 1, "onnxruntime").encode(["dented red pallet"])
                else:
                    score_bundle(bundle, random.Random(0))

        return load, [files.good[name]]

    return prepare


def _archive(folder: Path) -> Prepared:
    """A zip; what is unpacked by a hash of the good one must be the file of the good one."""
    path, zipped = folder / "bundle", folder / "bundle.zip"
    helper("tiny").tiny_bundle(path)
    helper("tiny").tiny_bundle(zipped)
    good = json.loads((path / MANIFEST).read_text(encoding="utf-8"))

    def load(data: bytes) -> None:
        zipped.write_bytes(data)
        bundle = open_bundle(zipped)
        for name in good["files"].keys() & bundle.manifest["files"].keys():
            if bundle.manifest["files"][name] == good["files"][name]:
                if (bundle.root / name).read_bytes() != (path / name).read_bytes():
                    raise WrongResultError(f"{name} is unpacked as another file")
        if outside := {p.name for p in folder.iterdir()} - {"bundle", "bundle.zip", "cache"}:
            raise WrongResultError(f"written outside: {sorted(outside)}")

    return load, [zipped.read_bytes()]


def _configuration(folder: Path) -> Prepared:
    """The YAML of an experiment."""
    from zsd_core.learning.experiment import load_config

    path = folder / "experiment.yaml"

    def load(data: bytes) -> None:
        path.write_bytes(data)
        load_config(path, [])

    return load, [b"training: {epochs: 3}\nmodel: {backbone: {name: resnet18}}\n"]


def _coco(folder: Path) -> Prepared:
    """Annotations in COCO's JSON."""
    from zsd_core.learning.data.coco import read_coco

    good = {
        "images": [{"id": 9, "file_name": "a.jpg", "width": 100, "height": 80}],
        "annotations": [{"id": 1, "image_id": 9, "category_id": 18, "bbox": [10, 20, 30, 40]}],
        "categories": [{"id": 18, "name": "dog"}],
    }
    path = folder / "coco.json"
    (folder / "a.jpg").touch()

    def load(data: bytes) -> None:
        path.write_bytes(data)
        dataset = read_coco(path, folder)
        check_coco(json.loads(data), dataset)

    return load, [json.dumps(good).encode()]


def _class_names(folder: Path) -> Prepared:
    """A file of class names."""
    import argparse

    from runtime.arguments import parse_classes

    path = folder / "classes.txt"

    def load(data: bytes) -> None:
        path.write_bytes(data)
        try:
            parse_classes(f"@{path}")
        except argparse.ArgumentTypeError as error:  # the command line prints it as it is
            if not str(error).strip():
                raise WrongResultError("an error without a sentence") from error

    return load, [b"cat\n# a comment\n'fire truck' # another\nzebra\n"]


def _vectors(suffix: str, good: bytes) -> Callable[[Path], Prepared]:
    """A file of class vectors in one format."""

    def prepare(folder: Path) -> Prepared:
        from zsd_core.learning.vectors import load_vectors

        path = folder / f"a.{suffix}"

        def load(data: bytes) -> None:
            path.write_bytes(data)
            found = load_vectors(path, ["cat", "dog"]).vectors
            if not np.allclose(np.linalg.norm(found, axis=1), 1, atol=1e-3):
                raise WrongResultError("a vector is not of unit length")

        return load, [good]

    return prepare


def _checkpoint(folder: Path) -> Prepared:
    """A checkpoint of PyTorch's, without weights: what is around them is what varies."""
    import torch

    from zsd_core.learning.checkpoint import load_checkpoint

    path = folder / "last.pt"
    torch.set_num_threads(1)
    values = {"format": 1, "config": {}, "model": {}, "seen": ["a"], "unseen": ["b"]}
    torch.save({**values, "vectors": torch.eye(2), "training": {}, "state": {}}, path)

    def load(data: bytes) -> None:
        path.write_bytes(data)
        load_checkpoint(path)

    return load, [path.read_bytes()]


LINES = b"cat 0.5 0.5 0.5 0.5\ndog 1 0 0 0\n"
LOADS: dict[str, Callable[[Path], Prepared]] = {
    "checkpoint": _checkpoint,
    "class-names": _class_names,
    "coco": _coco,
    "configuration": _configuration,
    "manifest": _manifest,
    "network": _in_bundle("trunk.onnx"),
    "scorer": _in_bundle(SCORER),
    "tokenizer": _in_bundle("tokenizer.json"),
    "vectors-csv": _vectors("csv", LINES.replace(b" ", b",")),
    "vectors-text": _vectors("txt", LINES),
    "vocabulary": _in_bundle(VOCABULARY),
    "zip": _archive,
}
