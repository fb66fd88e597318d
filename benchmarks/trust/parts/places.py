"""Names and places of a bundle's files: networks under any name or mark, weights in any file."""

from __future__ import annotations

import copy
import hashlib
import json
import os
import random
import shutil
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.trust.attempts import WrongResultError, loader_part
from benchmarks.trust.parts.bundles import run_bundle
from benchmarks.trust.small import helper
from benchmarks.trust.table import Attempt
from benchmarks.trust.wire import BYTES, VARINT, field
from runtime.archive import MANIFEST
from runtime.bundle import open_bundle
from runtime.detections import Detections
from zsd_core.errors import ZsdError

__all__ = ["PARTS", "places"]

NETWORKS = (
    *("trunk.onnx", "trunk.net", "trunk", "TRUNK.ONNX", "trunk.ort", "trunk.onnx.data", "a/t.onnx"),
    *("engines/trunk.onnx", "engines/trunk", "a/b/trunk.model"),
)
WEIGHTS = (
    *("engines/w.bin", "w.bin", "a/w.bin", "trunk.weights", "scorer.safetensors", "w.onnx"),
    *("../w.bin", "../../outside.bin", "link.bin", "a/../w.bin", "./w.bin"),
)
# Numbers as text that int() reads, and other readers do not.
OFFSETS = ("0", "0", "0", "00", "+0", " 0", "-0", "0x0", "0_0", "\u0660", "", "0.0", "9" * 400)
# Fields that ONNX does not have, and by which OpenVINO takes a file for another library's.
NODE = field(1, BYTES, b"x") + field(2, BYTES, b"Placeholder")
DTYPE = field(1, BYTES, b"dtype") + field(2, BYTES, b"\x30\x01")
OTHERS = (
    field(1, BYTES, NODE + field(5, BYTES, DTYPE)),  # TensorFlow
    field(100, BYTES, b"\0TFL3"),  # TensorFlow Lite: its mark at the fourth byte
    field(1, BYTES, field(1, VARINT, 0) + field(2, VARINT, 0)),  # Paddle
)
STATES = ("whole", "whole", "whole", "unlisted", "absent", "short", "changed", "a folder", "a link")


def places(folder: Path) -> Attempt:
    """A network of any name, its weights in a file of any name, listed and there, or not.

    What is listed, lies in the bundle and is whole must give what the good bundle gives, or be
    refused; all else must be refused, as must a weight that is no number. A network that begins
    like another library's goes to OpenVINO, which has readers of those, and must be read as ONNX.
    """
    around = folder / "around"  # no weights lie outside of it
    path = helper("tiny").tiny_bundle(around / "in" / "bundle")
    contents = {p.name: p.read_bytes() for p in path.iterdir()}
    manifest = json.loads(contents.pop(MANIFEST))
    expected, by_openvino = run_bundle(open_bundle(path)), run_bundle(open_bundle(path), "openvino")

    def attempt(rng: random.Random) -> None:
        _clean(path, around, contents)
        if rng.random() < 0.05:
            network = rng.choice(OTHERS) + contents["trunk.onnx"]
            _written(path, copy.deepcopy(manifest), {"trunk.onnx": network}, {}, "trunk.onnx")
            _check_same(path, by_openvino)
            return
        name = "trunk.onnx" if rng.random() < 0.5 else rng.choice(NETWORKS)
        place = rng.choice(WEIGHTS[:2] if rng.random() < 0.5 else WEIGHTS)
        network, weights, wrong = _apart(contents["trunk.onnx"], place, rng)
        whole = _written(path, copy.deepcopy(manifest), {name: network}, {}, name)
        state = "inside" if weights is None else rng.choice(STATES)
        if weights is not None:
            said = (path / name).parent / place  # where ONNX means it to be
            inside = os.path.relpath(os.path.normpath(said), path)
            # A file outside is there too, so that whoever opens it succeeds.
            target = said if inside.startswith("..") else path / inside
            if inside in contents:
                weights = contents[inside]
                state, wrong = "another file", False  # whose numbers are finite
            _put(target, weights, state, around)
            listed = not inside.startswith("..") and state != "unlisted"
            _written(path, whole, {}, {inside: weights} if listed else {}, name)
            wrong = wrong or not listed or state not in ("whole", "another file")
        found = run_bundle(open_bundle(path))
        if wrong:
            raise WrongResultError(f"taken: {name}, weights {place!r}, {state}")
        if state != "another file" and found != expected:
            raise WrongResultError(f"other detections: {name}, weights {place!r}, {state}")

    return attempt


def _check_same(path: Path, expected: Detections) -> None:
    """Refuse a bundle by which OpenVINO does not find what it should."""
    try:
        found = run_bundle(open_bundle(path), "openvino")
    except ZsdError as error:
        raise WrongResultError(f"not read as ONNX: {error}") from error
    if found != expected:
        raise WrongResultError("not read as ONNX: other detections")


def _clean(path: Path, around: Path, contents: dict[str, bytes]) -> None:
    """The good files, and no others."""
    for other in (*path.iterdir(), *path.parent.iterdir(), *around.iterdir()):
        if other in (path, path.parent):
            continue
        if other.is_dir() and not other.is_symlink():
            shutil.rmtree(other)
        elif other.parent != path or other.name not in contents:
            other.unlink()
    for name, data in contents.items():
        if not (path / name).is_file() or (path / name).is_symlink():
            (path / name).unlink(missing_ok=True)
            (path / name).write_bytes(data)


def _apart(good: bytes, place: str, rng: random.Random) -> tuple[bytes, bytes | None, bool]:
    """A network, the bytes of its weight that lies elsewhere, and whether it is to be refused."""
    import onnx

    model = onnx.load_from_string(good)
    weight = rng.choice(model.graph.initializer)
    broken = rng.random() < 0.2
    if broken:
        values = np.array(onnx.numpy_helper.to_array(weight))
        values.flat[rng.randrange(values.size)] = np.nan
        weight.raw_data = values.tobytes()
    if rng.random() < 0.2:
        return model.SerializeToString(), None, broken
    raw = weight.raw_data
    weight.ClearField("raw_data")
    weight.data_location = 1
    entries = {"location": place}
    if rng.random() < 0.5:
        entries["offset"] = rng.choice(OFFSETS)
    if rng.random() < 0.5:
        entries["length"] = rng.choice((str(len(raw)), str(len(raw)), "1_000_000", str(2**63)))
    for key in rng.sample(sorted(entries), len(entries)):
        weight.external_data.add(key=key, value=entries[key])
    return model.SerializeToString(), raw, broken


def _put(target: Path, data: bytes, state: str, around: Path) -> None:
    """Write a file of weights as the state says; its hash in the manifest is that of ``data``."""
    if state == "another file":
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    if state == "a folder":
        target.mkdir(exist_ok=True)
    elif state == "a link":
        outside = around / "linked.bin"
        outside.write_bytes(bytes(len(data)))
        target.symlink_to(outside)
    elif state != "absent":
        changed = {"short": data[:-1], "changed": bytes(len(data))}
        target.write_bytes(changed.get(state, data))


def _written(
    path: Path,
    manifest: dict[str, Any],
    networks: dict[str, bytes],
    listed: dict[str, bytes],
    name: str,
) -> dict[str, Any]:
    """Write networks and the manifest, which lists other files too."""
    for file, data in (networks | listed).items():
        record = {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}
        manifest["files"][file] = record
    for file, data in networks.items():
        (path / file).parent.mkdir(parents=True, exist_ok=True)
        (path / file).write_bytes(data)
    manifest["stages"]["trunk"]["file"] = name
    (path / MANIFEST).write_text(json.dumps(manifest), encoding="utf-8")
    return manifest


PARTS = (
    loader_part(
        places,
        "places",
        "networks under other names and marks; weights in files unlisted, short, outside, links",
        100_000,
        250,
    ),
)
