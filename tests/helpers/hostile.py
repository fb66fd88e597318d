"""Bundles that a stranger changed, and users whom a system does not know."""

from __future__ import annotations

import hashlib
import json
import pwd
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import tiny
from safetensors.numpy import load, save

NETWORKS = {"trunk": tiny.trunk_model, "head": tiny.head_model}


def put(
    path: Path, name: str, data: bytes, edit: Callable[[dict[str, Any]], None] = lambda m: None
) -> None:
    """Write a file into a bundle, and its hash into the manifest, which ``edit`` may change."""
    (path / name).parent.mkdir(exist_ok=True)
    (path / name).write_bytes(data)
    manifest = json.loads((path / "manifest.json").read_text())
    manifest["files"][name] = {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}
    edit(manifest)
    (path / "manifest.json").write_text(json.dumps(manifest))


def not_finite(
    stage: str,
    name: str,
    value: str,
    networks: Mapping[str, Callable[[], onnx.ModelProto]] = NETWORKS,
) -> bytes:
    """A network with an output that is "up" (infinity), "down" or "none" (NaN).

    Its weights are finite, as they must be, and what they give is not.
    """
    model = networks[stage]()
    for node in model.graph.node:
        node.output[:] = [f"finite {name}" if output == name else output for output in node.output]
    model.graph.initializer.append(
        onnx.numpy_helper.from_array(np.array([3e38], np.float32), "huge")
    )
    make = onnx.helper.make_node
    model.graph.node.extend(
        [
            make("Add", ["huge", "huge"], ["up"]),
            make("Neg", ["up"], ["down"]),
            make("Add", ["up", "down"], ["none"]),
            make("Add", [f"finite {name}", value], [name]),
        ]
    )
    return bytes(model.SerializeToString())


def with_huge_scores(scorer: bytes) -> bytes:
    """The tensors of a scorer whose seen classes get no number: infinities meet."""
    arrays = load(scorer)
    hidden = arrays["score_seen.bias1"].size
    arrays["score_seen.bias1"] = np.full(hidden, 3e38, np.float32)
    arrays["score_seen.weight2"] = np.resize(np.array([3e38, -3e38], np.float32), hidden)
    return bytes(save(arrays))


def within(field: int, data: bytes) -> bytes:
    """A message of protobuf that holds another one in a field."""
    size, length = len(data), b""
    while size > 127:
        length, size = length + bytes([size & 127 | 128]), size >> 7
    return bytes([field << 3 | 2]) + length + bytes([size]) + data


def behind_tensorflow(network: bytes) -> bytes:
    """A network behind a graph of TensorFlow, whose only field is none that ONNX has."""
    kind = within(1, b"dtype") + within(2, b"\x30\x01")  # float32
    return within(1, within(1, b"x") + within(2, b"Placeholder") + within(5, kind)) + network


def leave_home(monkeypatch: pytest.MonkeyPatch) -> None:
    """Be a user without HOME and without an entry in the list of users."""

    def nobody(number: int) -> None:
        raise KeyError(f"getpwuid(): uid not found: {number}")

    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.setattr(pwd, "getpwuid", nobody)
