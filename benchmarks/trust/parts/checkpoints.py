"""Hostile files of PyTorch and of learning: checkpoints, second looks and their classifiers."""

from __future__ import annotations

import io
import json
import pickle
import random
import warnings
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.trust.attempts import WrongResultError, loader_part
from benchmarks.trust.mutate import LONG, mutated_bytes, mutated_json
from benchmarks.trust.parts.bundles import other_tensors
from benchmarks.trust.parts.files import Planted
from benchmarks.trust.table import Attempt

__all__ = ["PARTS", "checkpoint", "learned"]

RARE = 0.0005  # share of the inputs that take a second where they go off
DEEP = (100, 3000, 30_000)  # lists within each other


def checkpoint(folder: Path) -> Attempt:
    """Checkpoints: bytes, values, tensors of every kind, and pickles that would run a function."""
    import torch

    from zsd_core.config import BackboneConfig, ModelConfig, ProposalConfig, ScoringConfig
    from zsd_core.learning.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
    from zsd_core.learning.experiment import Config
    from zsd_core.learning.models import ContrastZSD

    model = ModelConfig(
        backbone=BackboneConfig(name="mobilenet_v2", frozen="none"),
        proposals=ProposalConfig(channels=8),
        scoring=ScoringConfig(vector_dim=6, joint_dim=8, hidden_dim=8, contrast_dim=8),
    )
    path, planted = folder / "last.pt", folder / "planted"
    save_checkpoint(
        Checkpoint(
            config=Config(model=model),
            model=ContrastZSD(model),
            seen=("a", "b"),
            unseen=("c",),
            vectors=np.eye(3, 6, dtype=np.float32),
        ),
        path,
    )
    torch.set_num_threads(1)  # threads that start once memory is limited would wait for ever
    load_checkpoint(path)  # the first takes seconds
    whole = torch.load(path, weights_only=True)
    small = {**whole, "model": {"trunk.x": torch.zeros(3)}}  # most inputs fail before the weights
    good = [_packed(small, zipped) for zipped in (True, True, True, True, False)]
    large = _deflated({**small, "training": {"x": torch.zeros(100 << 20)}})

    def other_values(rng: random.Random) -> Any:
        base = whole if rng.random() < 0.01 else small
        plain = {key: base[key] for key in ("format", "config", "seen", "unseen", "training")}
        changed = mutated_json(json.loads(json.dumps(plain)), rng)
        values = {**base, **changed} if isinstance(changed, dict) else changed
        if isinstance(values, dict) and rng.random() < 0.3:
            key = rng.choice(["model", "vectors", "state", "config", "seen"])
            odd: tuple[Any, ...] = (None, 3, "x", [], {}, torch.zeros(2))
            values[key] = rng.choice(odd)
        if isinstance(values, dict) and rng.random() < 0.2:
            values.pop(rng.choice(list(values)), None)
        return values

    def made(rng: random.Random) -> tuple[bytes, str]:
        """A file, and what it is if it must be refused."""
        kind = rng.random()
        if kind < 0.1:
            return pickle.dumps(
                {"format": 1, "model": Planted(planted)}, rng.randrange(6)
            ), "a pickle"
        if kind < 0.2:
            odd = {**small, rng.choice(list(small)): Planted(planted)}
            return _packed(odd, rng.random() < 0.5), "an object"
        if kind < 0.4:
            data = rng.choice(good)
            return (
                mutated_bytes(data, rng) if rng.random() < 0.7 else data
            ), "weights that are missing"
        base = whole if rng.random() < 0.01 else small  # megabytes, and kilobytes
        if kind < 0.6:
            name, tensor = _odd_tensor((3, 6), rng)
            return _packed({**base, "vectors": tensor}, True), f"vectors: {name}"
        if kind < 0.61:
            weights = dict(whole["model"])
            key = rng.choice([key for key, value in weights.items() if value.ndim])
            name, weights[key] = _odd_tensor(tuple(weights[key].shape), rng)
            data = _packed({**whole, "model": weights}, True)
            return data, "" if name == "expanded" else f"weights: {name}"
        if kind < 0.62:
            return _deep(small, rng), "weights that are missing"
        if kind < 0.62 + RARE:
            return large, "weights that are missing"
        return _packed(other_values(rng), rng.random() < 0.8), ""

    def attempt(rng: random.Random) -> None:
        data, wrong = made(rng)
        path.write_bytes(data)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = load_checkpoint(path)
        if planted.exists():
            raise WrongResultError("a pickle ran")
        if wrong or not np.isfinite(found.vectors).all():
            raise WrongResultError(f"a checkpoint is taken; {wrong}")

    return attempt


def _packed(values: Any, zipped: bool) -> bytes:
    import torch

    buffer = io.BytesIO()
    torch.save(values, buffer, _use_new_zipfile_serialization=zipped)
    return buffer.getvalue()


def _deflated(values: Any) -> bytes:
    """A checkpoint whose records are packed, as PyTorch does not write and yet reads."""
    source, buffer = zipfile.ZipFile(io.BytesIO(_packed(values, True))), io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for info in source.infolist():
            archive.writestr(info.filename, source.read(info))
    return buffer.getvalue()


def _odd_tensor(shape: tuple[int, ...], rng: random.Random) -> tuple[str, Any]:
    """A tensor of a shape that is not one of plain, finite numbers; and its kind."""
    import torch

    filled = torch.full(shape, 0.5)
    kinds: dict[str, Any] = {
        "meta": lambda: torch.empty(shape, device="meta"),
        "sparse": lambda: filled.to_sparse(),
        "expanded": lambda: torch.zeros(1).expand(shape),
        "NaN": lambda: filled * torch.nan,
        "infinity": lambda: filled * torch.inf,
        "complex": lambda: torch.full(shape, 1j),
        "quantised": lambda: torch.quantize_per_tensor(filled, 0.1, 0, torch.qint8),
        "text": lambda: "x",
        "bool": lambda: filled.bool(),
    }
    kind = rng.choice(sorted(kinds))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of kinds that PyTorch is about to give up
        return kind, kinds[kind]()


def _deep(values: dict[str, Any], rng: random.Random) -> bytes:
    """Lists within each other, by the machine code of pickles: Python cannot write so many."""
    marker, depth = "zzzz", rng.choice(DEEP)
    key = rng.choice(("config", "training", "state", "seen", "format"))
    held: Any = {"training": marker} if key == "config" else marker
    source = zipfile.ZipFile(io.BytesIO(_packed({**values, key: held}, True)))
    text = b"X\x04\x00\x00\x00zzzz"
    deep = b"]" * depth + b"a" * (depth - 1)
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for info in source.infolist():
            archive.writestr(info.filename, source.read(info).replace(text, deep, 1))
    return buffer.getvalue()


def learned(folder: Path) -> Attempt:
    """A second look, and the classifier it begins with; none of these files is whole."""
    import torch
    from safetensors.numpy import save

    from zsd_core.learning.models.look import Look, load_classifier
    from zsd_core.learning.teaching import load_look

    torch.set_num_threads(1)
    with torch.device("meta"):  # as a file says, without megabytes
        look = Look(1000, 4, 6)
    shapes = {"look.projection.weight": (4, 1280), "look.vectors": (2, 6), "scorer.x": (2,)}
    arrays = {name: np.full(shape, 0.5, np.float32) for name, shape in shapes.items()}
    metadata = {"names": json.dumps(["a", "b"]), "info": json.dumps({"a": 1})}
    good = save(arrays, metadata)
    file, weights = folder / "look.safetensors", folder / "weights.pt"
    state = {"_fc.weight": torch.zeros(2, 3), "_fc.bias": torch.zeros(2)}

    def attempt(rng: random.Random) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if rng.random() < 0.6:
                texts = {
                    key: json.dumps(mutated_json(json.loads(value), rng))
                    for key, value in metadata.items()
                }
                whole = good if rng.random() < 0.5 else save(arrays, texts)
                file.write_bytes(other_tensors(whole, rng) if rng.random() < 0.7 else whole)
                load_look(file)
            else:
                weights.write_bytes(_other_state(state, rng))
                load_classifier(look, weights)
        raise WrongResultError("weights are taken of which most are missing")

    return attempt


def _other_state(state: dict[str, Any], rng: random.Random) -> bytes:
    """A file of PyTorch's that is no such state."""
    key = rng.choice(sorted(state))
    odd: tuple[Any, ...] = ([1], {3: 1}, {key: 3}, {None: None}, 3, "x", LONG, {}, (), {key: {}})
    kind = rng.random()
    if kind < 0.4:
        return _packed(rng.choice(odd), True)
    if kind < 0.6:
        return _packed({**state, key: _odd_tensor((2,), rng)[1]}, True)
    if kind < 0.8:
        return mutated_bytes(_packed(state, rng.random() < 0.8), rng)
    return rng.choice((b"", b"garbage", b"\x80\x04cos\nsystem\n.", b"PK\x03\x04", b"\x80\x02}."))


PARTS = (
    loader_part(
        checkpoint,
        "checkpoint",
        "bytes, values, tensors of every kind, packed records, deep pickles, pickles that run",
        1_000_000,
        60,
    ),
    loader_part(
        learned, "learned", "second looks and weights of classifiers: bytes, values", 100_000, 150
    ),
)
