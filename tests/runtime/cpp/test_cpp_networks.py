"""C++ says what Python says of networks that a stranger listed, or that give no numbers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import tiny
from hostile import behind_tensorflow, not_finite, put, with_huge_scores, within
from safetensors.numpy import load, save

from runtime import Detector
from runtime.bundle import open_bundle
from zsd_core.errors import BundleError

pytestmark = pytest.mark.slow  # for the build


def both_say(probe, path: Path, backend: str, message: str, images: list[str], **options) -> None:
    """C++ refuses a bundle, or the images, in the words of Python."""
    with pytest.raises(BundleError, match=message) as expected:
        detector = Detector(open_bundle(path), backend=backend, threads=1, **options)
        detector(np.zeros((40, 60, 3), np.uint8))
    with pytest.raises(probe.Refused) as refused:
        probe("open", bundle=str(path), backend=backend, **options)
        probe("detect", images=images)
    assert refused.value.args == ("BundleError", str(expected.value))


@pytest.mark.parametrize("name", ["trunk.net", "trunk.xml", "trunk", "other.ONNX"])
def test_a_network_of_another_name_is_not_run(probe, backend, fresh_bundle_path, name):
    model = tiny.trunk_model().SerializeToString()
    put(fresh_bundle_path, name, model, lambda m: m["stages"]["trunk"].update(file=name))
    both_say(probe, fresh_bundle_path, backend, f"network '{name}' must be an ONNX file", [])


def test_a_file_that_openvino_may_read_as_another_network_is_refused(
    probe, backend, fresh_bundle_path
):
    model = tiny.trunk_model()
    model.doc_string = "<?xml?><net name='a' version='11'></net>"
    put(fresh_bundle_path, "trunk.onnx", b"\x32\x01 " + model.SerializeToString())
    both_say(probe, fresh_bundle_path, backend, "holds a network in OpenVINO's form, too", [])


def test_a_normalisation_whose_bias_is_named_empty_ends_no_process(
    probe, backend, fresh_bundle_path
):
    model = tiny.trunk_model()
    node = onnx.helper.make_node("LayerNormalization", ["image", "scale", ""], ["normal"])
    model.graph.node.append(node)
    put(fresh_bundle_path, "trunk.onnx", model.SerializeToString())
    both_say(probe, fresh_bundle_path, backend, "LayerNormalization names an empty bias", [])


def test_a_file_that_is_a_network_of_tensorflow_too_is_read_as_onnx(
    probe, backend, fresh_bundle_path, photo_path
):
    def found() -> object:
        probe("open", bundle=str(fresh_bundle_path), backend=backend, thresholds={"seen": 0})
        return probe("detect", images=[str(photo_path)])

    expected = found()
    network = tiny.trunk_model().SerializeToString()
    put(fresh_bundle_path, "trunk.onnx", behind_tensorflow(network))
    assert found() == expected and expected[0]["objects"]


def test_a_class_that_becomes_no_number_is_refused(probe, backend, fresh_bundle_path):
    """No score of it would pass a threshold, and nothing would say why."""
    arrays = load((fresh_bundle_path / "scorer.safetensors").read_bytes())
    for key in ("project_semantic.weight1", "project_semantic.weight2"):
        arrays[key] = np.full_like(arrays[key], 3e38)
    put(fresh_bundle_path, "scorer.safetensors", save(arrays))
    message = "a class becomes numbers that are not finite"
    with pytest.raises(BundleError, match=message):
        Detector(open_bundle(fresh_bundle_path), backend=backend, threads=1)
    with pytest.raises(probe.Refused, match=message) as refused:
        probe("open", bundle=str(fresh_bundle_path), backend=backend)
    assert refused.value.args[0] == "BundleError"


def test_scores_that_are_no_numbers_are_an_error(probe, backend, fresh_bundle_path, photo_path):
    scorer = with_huge_scores((fresh_bundle_path / "scorer.safetensors").read_bytes())
    put(fresh_bundle_path, "scorer.safetensors", scorer)
    message = "^the scoring gives numbers that are not finite"
    both_say(probe, fresh_bundle_path, backend, message, [str(photo_path)])


def test_a_network_of_a_precision_has_its_name_checked_too(probe, backend, fresh_bundle_path):
    def edit(manifest):
        networks = {backend: {"trunk": "trunk.net", "head": "head.onnx"}}
        manifest["precisions"] = {"int8": {"networks": networks}}

    put(fresh_bundle_path, "trunk.net", tiny.trunk_model().SerializeToString(), edit)
    message = "network 'trunk.net' must be an ONNX file"
    both_say(probe, fresh_bundle_path, backend, message, [], precision="int8")
    probe("open", bundle=str(fresh_bundle_path), backend=backend)


def outside(tensor: onnx.TensorProto, place: str) -> bytes:
    """Let a tensor have its weights in another file; return them."""
    content = tensor.raw_data
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=place)
    return content


@pytest.mark.parametrize(
    "place", ["weights.bin", "../weights.bin", "/etc/hostname", "a/../trunk.onnx", "", "a\nb"]
)
def test_weights_in_a_file_that_is_not_listed_are_not_read(
    probe, backend, fresh_bundle_path, place
):
    model = tiny.trunk_model()
    content = outside(model.graph.initializer[0], place)
    (fresh_bundle_path / "weights.bin").write_bytes(content)
    put(fresh_bundle_path, "trunk.onnx", model.SerializeToString())
    with pytest.raises(BundleError, match="which is no file of this bundle"):
        open_bundle(fresh_bundle_path).network("trunk")
    message = r"trunk\.onnx is not an ONNX file to be used: its weights lie in '.*', which is no f"
    with pytest.raises(probe.Refused, match=message):
        probe("open", bundle=str(fresh_bundle_path), backend=backend)


def with_tensor_in(kind: str, tensor: onnx.TensorProto) -> onnx.ModelProto:
    """A trunk with a tensor in one of the places that a file has for them."""
    model, make = tiny.trunk_model(), onnx.helper
    sparse = onnx.SparseTensorProto(values=tensor, indices=tensor, dims=[1])
    branch = make.make_graph([], "branch", [], [], [tensor])
    field, value = {
        "attribute": ("t", tensor),
        "list": ("tensors", [tensor]),
        "graph": ("g", branch),
        "graphs": ("graphs", [branch]),
        "sparse attribute": ("sparse_tensor", sparse),
        "sparse list": ("sparse_tensors", [sparse]),
    }.get(kind, ("", None))
    node = make.make_node("Constant", [], ["unused"])
    if field:
        node.attribute.append(make.make_attribute("value", value))
        model.graph.node.append(node)
    elif kind == "sparse":
        model.graph.sparse_initializer.append(sparse)
    elif kind == "training":
        model.training_info.add().algorithm.CopyFrom(branch)
    else:
        node.attribute.append(make.make_attribute("value", tensor))
        model.functions.add(name="f", domain="d").node.append(node)
    return model


@pytest.mark.parametrize(
    "kind",
    [
        *("attribute", "list", "graph", "graphs", "sparse attribute", "sparse list"),
        *("sparse", "training", "function"),
    ],
)
def test_weights_are_looked_for_wherever_a_tensor_may_be(probe, fresh_bundle_path, kind):
    tensor = onnx.numpy_helper.from_array(np.ones(1, np.float32), "w")
    outside(tensor, "weights.bin")
    put(fresh_bundle_path, "trunk.onnx", with_tensor_in(kind, tensor).SerializeToString())
    both_say(probe, fresh_bundle_path, "openvino", "weights lie in 'weights.bin', which is no", [])


@pytest.mark.parametrize(
    "place, name", [("./weights.bin", "weights.bin"), ("engines//w.bin", "engines/w.bin")]
)
def test_weights_in_a_listed_file_are_read_once_it_is_verified(
    probe, backend, fresh_bundle_path, photo_path, place, name
):
    probe("open", bundle=str(fresh_bundle_path), backend=backend, thresholds={"seen": 0})
    expected = probe("detect", images=[str(photo_path)])
    model = tiny.trunk_model()
    content = outside(model.graph.initializer[0], place)
    put(fresh_bundle_path, name, content)
    put(fresh_bundle_path, "trunk.onnx", model.SerializeToString())
    probe("open", bundle=str(fresh_bundle_path), backend=backend, thresholds={"seen": 0})
    assert probe("detect", images=[str(photo_path)]) == expected and expected[0]["objects"]
    (fresh_bundle_path / name).write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(probe.Refused, match=rf"{name} is damaged: its SHA-256 is"):
        probe("open", bundle=str(fresh_bundle_path), backend=backend)


@pytest.mark.parametrize(
    "data, why",
    [
        (b"\x3a\x7f", "a field is longer than the file"),
        (b"\x38\x01", "field 7 of .* has the wire type 0"),
        (b"\x3b", "its wire type 3 is none of ONNX's"),
        (b"\x3a" + b"\xff" * 10 + b"\1", "it ends within a number"),
        (b"\x3a\x80", "it ends within a number"),
        (b"\x02\x00", "a field has a number that protobuf does not know"),
        (b"\xba\x80\x80\x80\x80\x01\x00", "a field has a number that protobuf does not know"),
    ],
)
def test_bytes_that_are_no_network_are_refused(probe, fresh_bundle_path, data, why):
    put(fresh_bundle_path, "head.onnx", data)
    message = rf"head\.onnx is not an ONNX file to be used: {why}"
    with pytest.raises(BundleError, match=message):
        open_bundle(fresh_bundle_path).network("head")
    with pytest.raises(probe.Refused, match=message):
        probe("open", bundle=str(fresh_bundle_path))


def test_messages_nested_without_end_are_refused(probe, fresh_bundle_path):
    graph = b""
    for _ in range(4000):  # a graph in an attribute, that in a node, and that in a graph
        graph = within(1, within(5, within(6, graph)))
    put(fresh_bundle_path, "head.onnx", within(7, graph))
    message = "its messages are nested too deeply"
    with pytest.raises(BundleError, match=message):
        open_bundle(fresh_bundle_path).network("head")
    with pytest.raises(probe.Refused, match=message):
        probe("open", bundle=str(fresh_bundle_path))


@pytest.mark.parametrize("value", ["up", "down", "none"])
@pytest.mark.parametrize(
    "stage, name",
    [("trunk", "objectness"), ("trunk", "deltas"), ("head", "embeddings"), ("head", "deltas")],
)
def test_a_network_that_gives_what_is_no_number_is_named(
    probe, backend, fresh_bundle_path, photo_path, stage, name, value
):
    put(fresh_bundle_path, f"{stage}.onnx", not_finite(stage, name, value))
    message = f"^the {stage} gives numbers that are not finite"
    both_say(probe, fresh_bundle_path, backend, message, [str(photo_path)])
