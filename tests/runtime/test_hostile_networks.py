"""Networks that a stranger lists in a bundle: under another name, with weights elsewhere."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
import tiny
import tiny_text
from hostile import NETWORKS, behind_tensorflow, not_finite, put, with_huge_scores

from runtime import Detector
from runtime.bundle import open_bundle
from runtime.text import TextEncoder
from zsd_core.errors import BundleError


def with_weights_outside(place):
    model = tiny.trunk_model()
    weight = model.graph.initializer[0]
    content = weight.raw_data
    weight.ClearField("raw_data")
    weight.data_location = onnx.TensorProto.EXTERNAL
    weight.external_data.add(key="location", value=place)
    return model.SerializeToString(), content


@pytest.mark.parametrize("name", ["trunk.net", "trunk.ort", "trunk.xml", "trunk", "other.ONNX"])
@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
def test_a_network_of_another_name_is_not_run(fresh_bundle_path, name, backend):
    """What its weights say would not be checked, nor where they lie."""
    model, content = with_weights_outside("weights.bin")
    (fresh_bundle_path / "weights.bin").write_bytes(content)  # that the manifest does not list
    put(fresh_bundle_path, name, model, lambda m: m["stages"]["trunk"].update(file=name))
    with pytest.raises(BundleError, match=rf"the network '{name}' must be an ONNX file"):
        Detector(open_bundle(fresh_bundle_path), backend=backend, threads=1)


def test_a_network_of_a_precision_has_its_name_checked_too(fresh_bundle_path):
    def edit(manifest):
        networks = {"trunk": "trunk.net", "head": "head.onnx"}
        manifest["precisions"] = {"fp16": {"networks": {"onnxruntime": networks}}}

    put(fresh_bundle_path, "trunk.net", tiny.trunk_model().SerializeToString(), edit)
    with pytest.raises(BundleError, match=r"the network 'trunk\.net' must be an ONNX file"):
        open_bundle(fresh_bundle_path).network("trunk", "fp16")
    assert open_bundle(fresh_bundle_path).network("head", "fp16").name == "head.onnx"


def test_a_text_encoder_has_its_name_checked_too(tmp_path):
    path = tiny_text.with_text(tiny.tiny_bundle(tmp_path / "b"))
    put(path, "text.net", tiny_text.network(), lambda m: m["text"].update(network="text.net"))
    with pytest.raises(BundleError, match=r"the network 'text\.net' must be an ONNX file"):
        TextEncoder(open_bundle(path), 1).encode(["dent"])


@pytest.mark.parametrize("mark", [" ", "\t", "\n", "\r", ">", "/"])
@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
def test_a_file_that_openvino_may_read_as_another_network_is_refused(
    fresh_bundle_path, backend, mark
):
    """A doubled field makes OpenVINO look for its own XML, with weights from trunk.bin."""
    model = tiny.trunk_model()
    model.doc_string = f"<?xml?><net{mark}version='11'></net>"
    put(fresh_bundle_path, "trunk.onnx", b"\x32\x01 " + model.SerializeToString())
    with pytest.raises(BundleError, match=r"trunk\.onnx .*a network in OpenVINO's form, too"):
        Detector(open_bundle(fresh_bundle_path), backend=backend, threads=1)


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
def test_a_file_that_is_a_network_of_tensorflow_too_is_read_as_onnx(
    fresh_bundle_path, photo, backend
):
    """OpenVINO chooses a reader by what a file holds, and our checks see what ONNX means by it."""
    options = {"backend": backend, "threads": 1, "score_threshold": 0}
    expected = Detector(open_bundle(fresh_bundle_path), **options)(photo)
    for stage, model in NETWORKS.items():
        put(fresh_bundle_path, f"{stage}.onnx", behind_tensorflow(model().SerializeToString()))
    found = Detector(open_bundle(fresh_bundle_path), **options)(photo)
    assert found == expected and len(found)


@pytest.mark.parametrize("package", ["onnxruntime", "openvino"])
def test_a_text_encoder_is_read_as_onnx_too(tmp_path, package):
    path = tiny_text.with_text(tiny.tiny_bundle(tmp_path / "b"))
    expected = TextEncoder(open_bundle(path), 1, package).encode(["dent"])
    put(path, "text_encoder.onnx", behind_tensorflow(tiny_text.network()))
    np.testing.assert_array_equal(
        TextEncoder(open_bundle(path), 1, package).encode(["dent"]), expected
    )


@pytest.mark.parametrize("package", ["onnxruntime", "openvino"])
def test_what_is_no_onnx_is_no_text_encoder(tmp_path, package):
    path = tiny_text.with_text(tiny.tiny_bundle(tmp_path / "b"))
    put(path, "text_encoder.onnx", behind_tensorflow(b""))
    with pytest.raises(BundleError, match=rf"{package} cannot load text_encoder\.onnx"):
        TextEncoder(open_bundle(path), 1, package).encode(["dent"])


def test_weights_that_opening_does_not_hash_are_verified_before_they_are_read(fresh_bundle_path):
    model, content = with_weights_outside("engines/weights.bin")
    put(fresh_bundle_path, "engines/weights.bin", content)
    put(fresh_bundle_path, "trunk.onnx", model)
    assert open_bundle(fresh_bundle_path).network("trunk").is_file()
    for weights in (b"", content[:-1], content[:-1] + bytes([content[-1] ^ 1])):
        (fresh_bundle_path / "engines/weights.bin").write_bytes(weights)
        with pytest.raises(BundleError, match=r"engines/weights\.bin is damaged"):
            open_bundle(fresh_bundle_path).network("trunk")
    (fresh_bundle_path / "engines/weights.bin").unlink()
    with pytest.raises(BundleError, match=r"engines/weights\.bin is missing"):
        open_bundle(fresh_bundle_path).network("trunk")


@pytest.mark.parametrize(
    "networks",
    [3, None, True, "onnxruntime", [1], {"onnxruntime": 3}, {"onnxruntime": {"trunk": [1]}}],
)
def test_a_precision_without_networks_is_not_there(fresh_bundle_path, networks):
    put(
        fresh_bundle_path,
        "extra.txt",
        b"",
        lambda m: m.update(precisions={"int8": {"networks": networks}}),
    )
    with pytest.raises(BundleError, match=r"precisions\['int8'\] names (no networks|\[1\], which)"):
        open_bundle(fresh_bundle_path)


def outputs_as(model, kind, names=()):
    """A network whose outputs are cast to another type of elements."""
    model = onnx.load_from_string(model)
    for output in model.graph.output:
        if names and output.name not in names:
            continue
        for node in model.graph.node:
            for values in (node.input, node.output):
                for index, name in enumerate(values):
                    if name == output.name:
                        values[index] = f"{name}_before"
        cast = onnx.helper.make_node("Cast", [f"{output.name}_before"], [output.name], to=kind)
        model.graph.node.append(cast)
        output.type.tensor_type.elem_type = kind
    return model.SerializeToString()


KINDS = ("STRING", "BOOL", "INT64", "DOUBLE", "FLOAT16")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("stage", "name"), [("trunk", "features"), ("trunk", "deltas"), ("head", "embeddings")]
)
@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
def test_outputs_of_other_elements_are_refused(fresh_bundle_path, backend, stage, name, kind):
    model = NETWORKS[stage]().SerializeToString()
    model = outputs_as(model, getattr(onnx.TensorProto, kind), [name])
    put(fresh_bundle_path, f"{stage}.onnx", model)
    # OpenVINO has no such cast to texts.
    says = rf"{stage}\.onnx" if kind == "STRING" else rf"{stage}\.onnx: '{name}' is .*, must be "
    with pytest.raises(BundleError, match=says):
        Detector(open_bundle(fresh_bundle_path), backend=backend, threads=1)


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
def test_an_output_that_the_network_has_not_is_named(fresh_bundle_path, backend):
    model = tiny.head_model()
    for values in [model.graph.output, *(node.output for node in model.graph.node)]:
        for index, value in enumerate(values):
            if value == "deltas":
                values[index] = "moved"
            elif getattr(value, "name", "") == "deltas":
                value.name = "moved"
    put(fresh_bundle_path, "head.onnx", model.SerializeToString())
    with pytest.raises(BundleError, match=r"head\.onnx has no 'deltas', only .*moved"):
        Detector(open_bundle(fresh_bundle_path), backend=backend, threads=1)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("package", ["onnxruntime", "openvino"])
def test_a_text_encoder_gives_float32(tmp_path, package, kind):
    path = tiny_text.with_text(tiny.tiny_bundle(tmp_path / "b"))
    put(path, "text_encoder.onnx", outputs_as(tiny_text.network(), getattr(onnx.TensorProto, kind)))
    says = "" if kind == "STRING" else ": it gives .*, must give "
    with pytest.raises(BundleError, match=rf"cannot load text_encoder\.onnx{says}"):
        TextEncoder(open_bundle(path), 1, package).encode(["dent"])


def changed_text(path, change):
    model = onnx.load_from_string(tiny_text.network())
    change(model.graph)
    put(path, "text_encoder.onnx", model.SerializeToString())


@pytest.mark.parametrize("package", ["onnxruntime", "openvino"])
def test_a_text_encoder_gives_vectors_of_unit_length(tmp_path, package):
    path = tiny_text.with_text(tiny.tiny_bundle(tmp_path / "b"))

    def swap(graph):
        last = next(node for node in graph.node if node.output[0] == "vectors")
        assert last.op_type == "Div"
        last.input.extend(list(last.input)[::-1])
        del last.input[:2]

    changed_text(path, swap)
    with pytest.raises(BundleError, match=r"vectors of lengths from .* must give 1\."):
        TextEncoder(open_bundle(path), 1, package).encode(["dent"])


def test_a_normalisation_whose_bias_is_named_empty_ends_no_process(tmp_path):
    """ONNX Runtime 1.32 ends it where it joins the node with a sum."""
    path = tiny_text.with_text(tiny.tiny_bundle(tmp_path / "b"))

    def empty(graph):
        nodes = [node for node in graph.node if node.op_type == "LayerNormalization"]
        assert nodes and {len(node.input) for node in nodes} == {3}
        for node in nodes:
            node.input[2] = ""

    changed_text(path, empty)
    with pytest.raises(BundleError, match="a LayerNormalization names an empty bias"):
        TextEncoder(open_bundle(path), 1).encode(["dent"])


@pytest.mark.parametrize("value", ["none", "up", "down"])
@pytest.mark.parametrize(
    ("stage", "name"),
    [("trunk", "objectness"), ("trunk", "deltas"), ("head", "embeddings"), ("head", "deltas")],
)
def test_a_network_that_gives_what_is_no_number_is_named(fresh_bundle_path, stage, name, value):
    """By NaN nothing would be found, and nothing would say why."""
    put(fresh_bundle_path, f"{stage}.onnx", not_finite(stage, name, value))
    detector = Detector(open_bundle(fresh_bundle_path), threads=1, score_threshold=0)
    with pytest.raises(BundleError, match=f"the {stage} gives numbers that are not finite"):
        detector(np.zeros((40, 60, 3), np.uint8))


def test_scores_that_are_no_numbers_are_an_error(fresh_bundle_path, photo):
    """Some of the seen classes would vanish, and nothing would say why."""
    scorer = with_huge_scores((fresh_bundle_path / "scorer.safetensors").read_bytes())
    put(fresh_bundle_path, "scorer.safetensors", scorer)
    detector = Detector(open_bundle(fresh_bundle_path), threads=1, score_threshold=0)
    with pytest.raises(BundleError, match="the scoring gives numbers that are not finite"):
        detector(photo)
