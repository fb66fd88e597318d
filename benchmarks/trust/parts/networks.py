"""Hostile networks, of the detector and of the text encoder, under any name and in any place."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.trust.attempts import WrongResultError, loader_part
from benchmarks.trust.graphs import Network, network
from benchmarks.trust.parts.bundles import Files, run_bundle
from benchmarks.trust.small import helper
from benchmarks.trust.table import Attempt
from runtime.bundle import Bundle, open_bundle
from runtime.text import TextEncoder

__all__ = ["PARTS", "judge", "networks", "text_networks"]

Numbers = NDArray[np.float32]
PHRASES = ["dented red pallet"]
NEAR = 2e-2  # of half precision, through a network and the boxes and scores behind it


def judge(made: Network, found: Numbers, expected: Numbers) -> None:
    """Raise unless a network that was taken is one to be taken, and gives what it should."""
    if made.wanted == "refused":
        raise WrongResultError(f"taken: {made.kind}")
    if made.wanted == "equal" and not np.array_equal(found, expected):
        raise WrongResultError(f"{made.kind}: other numbers than those of the same network")
    if made.wanted == "near" and (
        found.shape != expected.shape or not np.allclose(found, expected, NEAR, NEAR)
    ):
        raise WrongResultError(f"{made.kind}: other numbers than those of the same network")


def networks(folder: Path) -> Attempt:
    """Networks: bytes, fields, weights that are not finite, sizes that lie, other nodes."""
    path = helper("tiny").tiny_bundle(folder / "bundle")
    return _attempts(Files(path, "trunk.onnx", "head.onnx"), _detected)


def text_networks(folder: Path) -> Attempt:
    """The same of a text encoder."""
    tiny, text = helper("tiny"), helper("tiny_text")
    path = text.with_text(tiny.tiny_bundle(folder / "bundle"))
    return _attempts(Files(path, "text_encoder.onnx"), _encoded)


def _attempts(files: Files, use: Callable[[Bundle], Numbers]) -> Attempt:
    expected = use(open_bundle(files.path))

    def attempt(rng: random.Random) -> None:
        name = rng.choice(list(files.good))
        made = network(files.good[name], rng)
        with files.replaced(name, made.data):
            found = use(open_bundle(files.path))
        judge(made, found, expected)

    return attempt


def _detected(bundle: Bundle) -> Numbers:
    """Scores in their order: boxes of one score may change places."""
    return np.sort(run_bundle(bundle).scores)


def _encoded(bundle: Bundle) -> Numbers:
    found = TextEncoder(bundle, 1, "onnxruntime").encode(PHRASES)
    if abs(np.linalg.norm(found) - 1) > 1e-3:
        raise WrongResultError("a phrase has no vector of unit length")
    return found


PARTS = (
    loader_part(
        networks,
        "networks",
        "ONNX: bytes, wire format, weights, sizes, element types, files outside, other nodes",
        1_000_000,
        250,
    ),
    loader_part(
        text_networks, "text-networks", "the same of a text encoder's network", 100_000, 150
    ),
)
