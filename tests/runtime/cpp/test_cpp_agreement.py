"""Python and the C++ library take the same bundles: what only one of them refused, both do now."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load, save

from runtime.bundle import open_bundle
from zsd_core.errors import BundleError

pytestmark = pytest.mark.slow  # for the build

SCORER, VOCABULARY = "scorer.safetensors", "vocabulary.safetensors"


def model(part: str, **values: object):
    """A change of a part of the model."""
    return lambda manifest: manifest["model"][part].update(values)


def top(**values: object):
    """A change of the manifest's own fields."""
    return lambda manifest: manifest.update(values)


def stage(name: str, side: str, **values: object):
    """A change of the first input or output of a network."""
    return lambda manifest: manifest["stages"][name][side][0].update(values)


def int8(**networks: object):
    return top(precisions={"int8": {"networks": {"onnxruntime": networks}}})


MANIFESTS = {
    "engines that are no list": top(engines=3),
    "an engine that is none": top(engines=[3]),
    "metrics": top(metrics=3),
    "vocabulary": top(vocabulary=[]),
    "text": top(text=3),
    "a text network that is not listed": top(text={"network": "x", "tokenizer": "y"}),
    "precisions without networks": top(precisions={"int8": {}}),
    "precisions not listed": int8(trunk="nowhere"),
    "weight levels": top(precisions={"int8": {"networks": {}, "weight_levels": {"a": 0.5}}}),
    "background": top(background_index=False),
    "background of another type": top(background_index=0.0),
    "bytes beyond 64 bits": lambda m: m["files"].update(
        {"engines/a": {"sha256": "", "bytes": 2**63}}
    ),
    "taught": lambda m: m["classes"][0].update(taught="x"),
    "no shape": lambda m: m["stages"]["trunk"]["outputs"][0].pop("shape"),
    "outputs that are no list": lambda m: m["stages"]["trunk"].update(outputs={"name": "x"}),
    "a shape of flags": stage("trunk", "inputs", shape=[True, 3, "H", "W"]),
    "other bins": stage("head", "inputs", shape=["R", 6, 99, 99]),
    "no input": lambda m: m["stages"]["trunk"].update(inputs=[]),
    "two inputs": lambda m: m["stages"]["trunk"].update(inputs=2 * m["stages"]["trunk"]["inputs"]),
    "levels": model("proposals", levels=[]),
    "many sizes": model("proposals", anchor_sizes=[1.0] * 65),
    "many ratios": model("proposals", aspect_ratios=[1.0] * 65),
    "many maps": model("regions", maps=[["features", 1]] * 65),
    "merge": model("proposals", merge="x"),
    "levels that do not rise": model("proposals", merge="topdown", levels=[16, 16]),
    "depth": model("proposals", depth=10**9),
    "channels": model("proposals", channels=True),
    "backbone": model("backbone", name="x"),
    "a field of the backbone": model("backbone", moons=1),
    "a_0": model("scoring", background="x"),
    "a_0 that nothing learns": model("scoring", background="rpn"),
    "a_0 that is zero": model("scoring", background="mean", center=True),
    "width": model("scoring", hidden_dim=2**21),
    "a number as a text": model("detection", score_threshold="0.3"),
    "numbers as texts": model("preprocess", mean=["0.4", "0.4", "0.4"]),
    "shorter edge alone": lambda m: (
        m["model"]["preprocess"].pop("longer_edge"),
        m["model"]["preprocess"].update(shorter_edge=2000),
    ),
    "regions alone": lambda m: (
        m["model"]["proposals"].pop("pre_nms_top"),
        m["model"]["proposals"].update(post_nms_top=7000),
    ),
    "conv5 on every region of its own output": model("regions", stride=32),
    "boxes from another map": model("regions", stride=8, box_hidden=4),
    "the image behind a map": model("regions", maps=[["features", 1], ["image", 1]]),
    "a look of another method": model("regions", look=3),
    "99 levels": lambda m: m.update(metrics={"a": json.loads("[" * 99 + "]" * 99)}),
    "a number beyond float64": top(metrics={"a": 10**400}),
}


def both_refuse(probe, path: Path) -> None:
    """The library and Python, which reads the rest when it is asked for."""
    with pytest.raises(BundleError):
        bundle = open_bundle(path)
        _ = bundle.class_vectors, bundle.vocabulary.rows, bundle.scorer_tensors()
    with pytest.raises(probe.Refused) as refused:
        probe("open", bundle=str(path))
    assert refused.value.args[0] == "BundleError"


def written(path: Path, name: str, data: bytes) -> None:
    """Put other bytes into a file, and their hash into the manifest."""
    (path / name).write_bytes(data)
    manifest = json.loads((path / "manifest.json").read_text())
    manifest["files"][name] = {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}
    (path / "manifest.json").write_text(json.dumps(manifest))


@pytest.mark.parametrize("case", MANIFESTS)
def test_a_manifest(probe, fresh_bundle_path, case):
    file = fresh_bundle_path / "manifest.json"
    manifest = json.loads(file.read_text())
    MANIFESTS[case](manifest)
    file.write_text(json.dumps(manifest))
    both_refuse(probe, fresh_bundle_path)


@pytest.mark.parametrize("change", [lambda d: b"\xef\xbb\xbf" + d, lambda d: d + b"\0[]"])
def test_bytes_that_are_no_json(probe, fresh_bundle_path, change):
    file = fresh_bundle_path / "manifest.json"
    file.write_bytes(change(file.read_bytes()))
    both_refuse(probe, fresh_bundle_path)


ARRAYS = {
    "scales of two axes": (VOCABULARY, lambda a: a.update(scales=a["scales"][:, None])),
    "scales of float64": (VOCABULARY, lambda a: a.update(scales=a["scales"].astype(float))),
    "classes of float16": (VOCABULARY, lambda a: a.update(classes=a["classes"].astype("f2"))),
    "classes of integers": (VOCABULARY, lambda a: a.update(classes=a["classes"].astype("i8"))),
    "vectors of another shape": (VOCABULARY, lambda a: a.update(vectors=a["vectors"].reshape(-1))),
    "names of two axes": (VOCABULARY, lambda a: a.update(names=a["names"][None])),
    "names of int8": (VOCABULARY, lambda a: a.update(names=a["names"].astype("i1"))),
    "a number nobody reads": (VOCABULARY, lambda a: a.update(x=np.full(3, np.nan, np.float32))),
    "flags nobody reads": (VOCABULARY, lambda a: a.update(x=np.ones(3, bool))),
    "a scorer of float16": (SCORER, lambda a: a.update(background=a["background"].astype("f2"))),
    "integers nobody reads": (SCORER, lambda a: a.update(x=np.ones(3, np.int8))),
    "many axes": (SCORER, lambda a: a.update(x=np.ones((1,) * 9, np.float32))),
}


@pytest.mark.parametrize("case", ARRAYS)
def test_arrays(probe, fresh_bundle_path, case):
    name, change = ARRAYS[case]
    arrays = dict(load((fresh_bundle_path / name).read_bytes()))
    change(arrays)
    data = save({key: np.ascontiguousarray(array) for key, array in arrays.items()})
    written(fresh_bundle_path, name, data)
    both_refuse(probe, fresh_bundle_path)


END = {"dtype": "F32", "shape": [4]}  # of a tensor behind the others
HEADERS = {
    "shared bytes beside a hole": lambda h, n: [
        h.update({key: END | {"data_offsets": [n, n + 16]}}) for key in ("x", "y")
    ],
    "offsets of fractions": lambda h, n: h["background"].update(
        data_offsets=[float(i) for i in h["background"]["data_offsets"]]
    ),
    "a shape of fractions": lambda h, n: h["background"].update(shape=[8.0]),
    "metadata": lambda h, n: h.update(__metadata__=3),
}


@pytest.mark.parametrize("case", HEADERS)
def test_a_header(probe, fresh_bundle_path, case):
    data = (fresh_bundle_path / SCORER).read_bytes()
    size = int.from_bytes(data[:8], "little")
    header, body = json.loads(data[8 : 8 + size]), data[8 + size :]
    HEADERS[case](header, len(body))
    if case == "shared bytes beside a hole":
        body += bytes(32)
    text = json.dumps(header).encode()
    written(fresh_bundle_path, SCORER, len(text).to_bytes(8, "little") + text + body)
    both_refuse(probe, fresh_bundle_path)


def test_what_a_newer_version_may_add_is_taken(probe, fresh_bundle_path):
    file = fresh_bundle_path / "manifest.json"
    manifest = json.loads(file.read_text())
    manifest["classes"][0]["colour"] = "red"
    manifest["stages"]["trunk"]["moons"] = 3
    written(fresh_bundle_path, SCORER, (fresh_bundle_path / SCORER).read_bytes())
    file.write_text(json.dumps(manifest | {"moons": [1, 2.5, None]}))
    arrays = dict(load((fresh_bundle_path / VOCABULARY).read_bytes()))
    written(fresh_bundle_path, VOCABULARY, save(arrays | {"x": np.ones((2, 2), np.float32)}))
    assert open_bundle(fresh_bundle_path).vocabulary.rows
    assert probe("open", bundle=str(fresh_bundle_path))
