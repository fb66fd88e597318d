"""From a checkpoint to a bundle: plain networks, weights once, parity or nothing."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import nn
from torchvision.ops import FrozenBatchNorm2d

from export import onnx as export_onnx
from export.checks.differences import Limits
from export.checks.images import NamedImage
from export.graphs.compose import new_builder, sealed
from export.graphs.errors import ExportError
from export.graphs.fold import fold_batch_norm
from export.graphs.trace import check_exportable, check_plain, trace_head, trace_trunk
from runtime import Detector
from runtime.bundle import open_bundle
from zsd_core.config import (
    BackboneConfig,
    DetectionConfig,
    ModelConfig,
    PreprocessConfig,
    ProposalConfig,
    RegionConfig,
    ScoringConfig,
)
from zsd_core.errors import BundleError, ConfigError
from zsd_core.learning.checkpoint import Checkpoint, save_checkpoint
from zsd_core.learning.experiment import Config
from zsd_core.learning.models import ContrastZSD

SEEN, UNSEEN = ("person", "truck", "chair"), ("cat", "cup")
# What the two networks of a MobileNetV2 or ResNet may hold: every backend has these.
PLAIN = {"Add", "Clip", "Conv", "Gemm", "MaxPool", "ReduceMean", "Relu", "Resize"}


def random_model(config: ModelConfig) -> ContrastZSD:
    """Random weights whose detections differ in score and place, unlike those of a fresh model."""
    torch.manual_seed(0)
    model = ContrastZSD(config).eval()
    with torch.no_grad():
        for name, buffer in (*model.trunk.named_buffers(), *model.head.named_buffers()):
            if name.endswith("running_var"):
                buffer.uniform_(0.3, 1.2)
            elif name.endswith("weight"):
                buffer.uniform_(0.8, 1.6)
            else:
                buffer.normal_(0, 0.2)
        model.trunk.rpn.objectness.weight.normal_(0, 0.2)
        model.trunk.rpn.deltas.weight.normal_(0, 0.2)
        model.head.regressor.weight.normal_(0, 0.1)
        for projection in (model.head.project_visual, model.scorer.project_semantic):
            projection.linear1.weight.mul_(6)
            projection.linear2.weight.mul_(6)
        for path in (model.scorer.score_seen, model.scorer.score_unseen):
            path.hidden.weight.normal_()
            path.output.weight.normal_()
    return model


def small(backbone: str, **proposals: object) -> ModelConfig:
    limits = {"pre_nms_top": 200, "post_nms_top": 30, "anchor_sizes": (24.0, 48.0, 80.0)}
    return ModelConfig(
        preprocess=PreprocessConfig(shorter_edge=96, longer_edge=160),
        backbone=BackboneConfig(name=backbone, weights="/somewhere/private.pt"),
        proposals=ProposalConfig(channels=16, **(limits | proposals)),
        regions=RegionConfig(output_size=(4, 4)),
        scoring=ScoringConfig(vector_dim=8, joint_dim=24, hidden_dim=16, contrast_dim=8),
        detection=DetectionConfig(max_detections=50),
    )


@pytest.fixture(scope="module")
def checkpoint():
    config = small("mobilenet_v2", levels=(8, 16))
    unloaded = dataclasses.replace(config, backbone=BackboneConfig(name="mobilenet_v2"))
    vectors = np.random.default_rng(0).normal(size=(5, 8))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return Checkpoint(
        config=Config(model=config),
        model=random_model(unloaded),
        seen=SEEN,
        unseen=UNSEEN,
        vectors=vectors.astype(np.float32),
        training={"split": "mine", "vectors": {"kind": "csv"}},
    )


@pytest.fixture(scope="module")
def images():
    from skimage import data

    chelsea = data.chelsea()
    return [
        NamedImage("chelsea", chelsea),
        NamedImage("mirrored", np.ascontiguousarray(chelsea[:, ::-1])),
        NamedImage("coffee, portrait", np.ascontiguousarray(data.coffee()[:, :200])),
    ]


@pytest.fixture(scope="module")
def traced(checkpoint):
    """Both networks, traced once for all tests of this file."""
    return trace_trunk(checkpoint.model), trace_head(checkpoint.model)


@pytest.fixture(scope="module")
def exported(checkpoint, images, traced, tmp_path_factory):
    patch = pytest.MonkeyPatch()
    patch.setattr(export_onnx, "trace_trunk", lambda model: traced[0])
    patch.setattr(export_onnx, "trace_head", lambda model: traced[1])
    path = tmp_path_factory.mktemp("exported") / "bundle"
    report = export_onnx.export_bundle(
        checkpoint, path, images=images, name="mine", licence="CC0-1.0", notes="Made up."
    )
    yield path, report, patch
    patch.undo()


def test_export_agrees_with_pytorch_in_every_stage(exported, images):
    path, report, _ = exported
    assert report["passed"] and json.loads((path / "parity.json").read_text()) == report
    artifacts = [comparison["artifact"] for comparison in report["comparisons"]]
    assert artifacts == ["trunk.onnx and head.onnx", "detector.onnx", "detector.onnx on batches"]
    for comparison in report["comparisons"][:2]:
        rows = {row["stage"]: row for row in comparison["stages"]}
        assert {
            "trunk: features",
            "regions: rois",
            "head: embeddings",
            "scores: class_scores",
            "detections",
        } <= set(rows)
        assert rows["detections"]["matched"] >= 20 * len(images)
    assert min(report["conditions"]["detections"].values()) >= 20
    assert report["conditions"]["packages"]["torch"] == torch.__version__.split("+")[0]


def test_a_detector_opens_what_was_exported(exported, images):
    path, _, _ = exported
    with Detector(path, backend="onnxruntime", score_threshold=0.0, threads=1) as detector:
        assert detector.classes == SEEN + UNSEEN
        assert len(detector(images[0].pixels)) >= 20


def test_networks_hold_plain_operators_only(exported):
    for name in ("trunk", "head"):
        model = onnx.load(exported[0] / f"{name}.onnx", load_external_data=False)
        assert {node.op_type for node in model.graph.node} <= PLAIN
        assert {node.domain for node in model.graph.node} <= {""} and not model.functions
        assert [(o.domain, o.version) for o in model.opset_import] == [("", 20)]


def test_the_detector_graph_holds_standard_operators_only(exported):
    onnx.checker.check_model(exported[0] / "detector.onnx", full_check=True)
    model = onnx.load(exported[0] / "detector.onnx", load_external_data=False)
    assert {node.domain for node in model.graph.node} == {""} and not model.functions
    assert {"RoiAlign", "NonMaxSuppression", "TopK"} <= {n.op_type for n in model.graph.node}
    names = [value.name for value in model.graph.input]
    assert names == ["images", "image_sizes", "prototypes", "similarity", "score_threshold"]


def test_no_weight_is_stored_twice(exported, checkpoint):
    path = exported[0]
    files = {file.name: file.stat().st_size for file in path.iterdir()}
    deployed = (checkpoint.model.trunk, checkpoint.model.head)
    count = sum(p.numel() for network in deployed for p in network.parameters())
    assert files["weights.bin"] <= 4 * count * 1.01
    graphs = sum(files[f"{name}.onnx"] for name in ("trunk", "head", "detector"))
    assert graphs < 0.05 * files["weights.bin"]
    used = {
        entry.value
        for tensor in onnx.load(path / "detector.onnx", load_external_data=False).graph.initializer
        for entry in tensor.external_data
        if entry.key == "location"
    }
    assert used == {"weights.bin", "scorer.safetensors"}


def test_the_manifest_describes_the_stages_and_names_no_path_of_this_machine(exported):
    path = exported[0]
    bundle = open_bundle(path)
    assert bundle.stage("trunk")["inputs"] == [
        {"name": "images", "dtype": "float32", "shape": ["N", 3, "H", "W"]}
    ]
    outputs = {entry["name"]: entry for entry in bundle.stage("detector")["outputs"]}
    assert outputs["columns"]["dtype"] == "int64" and outputs["boxes"]["shape"] == ["n", 4]
    assert bundle.manifest["licence"] == "CC0-1.0"
    assert bundle.manifest["training"]["backbone weights"] == "private.pt"
    assert bundle.manifest["created"] in bundle.file("MODEL_CARD.md").read_text()
    for file in path.iterdir():
        if file.name != "weights.bin":
            content = file.read_bytes()
            assert b"/somewhere" not in content and b"site-packages" not in content, file.name


def test_beyond_the_limits_nothing_is_written(exported, checkpoint, images, tmp_path):
    target = tmp_path / "bundle"
    with pytest.raises(ExportError, match="disagree with PyTorch; nothing was written"):
        export_onnx.export_bundle(
            checkpoint, target, images=images[:1], limits=Limits(relative=1e-12)
        )
    assert not list(tmp_path.iterdir())


def test_an_existing_bundle_is_kept(exported, checkpoint, images):
    with pytest.raises(BundleError, match="exists; remove it, or pass --overwrite"):
        export_onnx.export_bundle(checkpoint, exported[0], images=images)
    assert open_bundle(exported[0]).name == "mine"


def test_what_is_no_bundle_is_never_overwritten(checkpoint, images, tmp_path):
    """A mistyped --output must not cost a folder of work."""
    (tmp_path / "work").mkdir()
    for name in ("work/thesis.tex", "notes.txt"):
        (tmp_path / name).write_text("years")
    for name, said in {"work": "thesis.tex", "notes.txt": "is no bundle that can be read"}.items():
        with pytest.raises(BundleError, match=said):
            export_onnx.export_bundle(checkpoint, tmp_path / name, images=images, overwrite=True)
    assert (tmp_path / "work/thesis.tex").read_text() == "years"


def test_a_bundle_may_be_overwritten_and_so_may_an_empty_folder(exported, tmp_path):
    (tmp_path / "empty").mkdir()
    export_onnx.check_output(tmp_path / "empty", True)
    export_onnx.check_output(exported[0], True)
    export_onnx.check_output(tmp_path / "new.zip", False)
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="its folder cannot be made"):
        export_onnx.check_output(tmp_path / "file/bundle", False)


@pytest.mark.parametrize("name", ["coco.v2", "coco.v2.zip"])
def test_a_bundle_is_called_after_its_place(name):
    assert export_onnx._name(Path(name)) == "coco.v2"


def test_an_output_that_exists_is_said_before_anything_is_read(tmp_path, capsys):
    (tmp_path / "there").mkdir()
    arguments = ["--checkpoint", str(tmp_path / "none.pt"), "--output", str(tmp_path / "there")]
    assert export_onnx.main(arguments) == 1
    assert "there exists; remove it" in capsys.readouterr().err


def test_the_command_line_writes_a_zip_with_a_vocabulary(
    exported, checkpoint, images, tmp_path, capsys
):
    import cv2

    save_checkpoint(checkpoint, tmp_path / "last.pt")
    (tmp_path / "images").mkdir()
    cv2.imwrite(str(tmp_path / "images" / "chelsea.png"), images[0].pixels[:, :, ::-1])
    np.savez(tmp_path / "words.npz", names=["zebra", "Zebra", "fork"], vectors=np.eye(3, 8))
    arguments = [
        "--checkpoint",
        tmp_path / "last.pt",
        "--output",
        tmp_path / "out.zip",
        "--compare-on",
        tmp_path / "images",
        "--vocabulary",
        tmp_path / "words.npz",
        "--vocabulary-licence",
        "CC0-1.0",
    ]
    assert export_onnx.main([str(argument) for argument in arguments]) == 0
    printed = capsys.readouterr()
    assert "[5/5] write" in printed.err and "agrees" in printed.out
    bundle = open_bundle(tmp_path / "out.zip")
    assert bundle.vocabulary.names == ("zebra", "fork")
    assert bundle.manifest["vocabulary"]["licence"] == "CC0-1.0"


@pytest.mark.parametrize(
    ("option", "text"),
    [
        ("--checkpoint=nowhere.pt", "cannot read checkpoint nowhere.pt"),
        ("--vocabulary=nowhere.txt", "no vocabulary at nowhere.txt"),
        ("--metrics=nowhere.json", "metrics nowhere.json cannot be read"),
        ("--notes=nowhere.md", "cannot read notes nowhere.md"),
    ],
)
def test_a_missing_file_is_a_sentence(option, text, checkpoint, tmp_path, capsys):
    save_checkpoint(checkpoint, tmp_path / "last.pt")
    arguments = ["--checkpoint", str(tmp_path / "last.pt"), "--output", str(tmp_path / "bundle")]
    assert export_onnx.main([*arguments, option]) == 1
    assert f"error: {text}" in capsys.readouterr().err
    assert not (tmp_path / "bundle").exists()


def test_anchors_scored_by_the_background_vector_export_as_weights():
    """Wide enough that the exporter's own folding leaves the product to run time."""
    config = ModelConfig(
        backbone=BackboneConfig(name="mobilenet_v2"),
        proposals=ProposalConfig(objectness="background"),
        scoring=ScoringConfig(joint_dim=16, hidden_dim=8, background="rpn"),
    )
    trunk = trace_trunk(ContrastZSD(config).eval())
    check_plain("trunk", trunk)
    assert {node.op_type for node in trunk.graph} <= PLAIN


def test_a_resnet_is_traced_into_plain_operators_too():
    config = dataclasses.replace(small("resnet18"), backbone=BackboneConfig(name="resnet18"))
    model = random_model(config)
    trunk = trace_trunk(model)
    assert {node.op_type for node in trunk.graph} <= PLAIN


class Norms(nn.Module):
    def __init__(self, norm: type[nn.Module]) -> None:
        super().__init__()
        self.first, self.norm1 = nn.Conv2d(3, 4, 3, bias=False), norm(4)
        self.second, self.norm2 = nn.Conv2d(4, 4, 1, groups=2), norm(4)

    def forward(self, x):
        return self.norm2(self.second(torch.relu(self.norm1(self.first(x)))))


@pytest.mark.parametrize("norm", [nn.BatchNorm2d, FrozenBatchNorm2d])
def test_folding_batch_norm_changes_nothing_but_the_graph(norm):
    torch.manual_seed(0)
    network, x = Norms(norm).eval(), torch.randn(2, 3, 6, 6)
    for module in (network.norm1, network.norm2):
        module.running_mean.normal_()
        module.running_var.uniform_(0.5, 2)
        module.weight.data.normal_()
    folded = fold_batch_norm(network, x)
    assert not any(isinstance(module, norm) for module in folded.modules())
    assert isinstance(network.norm1, norm)  # the model itself is left as it was
    torch.testing.assert_close(folded(x), network(x), rtol=1e-5, atol=1e-5)


def test_a_batch_norm_without_its_convolution_is_an_error():
    with pytest.raises(ExportError, match="does not follow a convolution"):
        fold_batch_norm(nn.Sequential(nn.ReLU(), nn.BatchNorm2d(3)), torch.zeros(1, 3, 4, 4))


def test_a_network_that_depends_on_values_is_refused():
    builder = new_builder("bad")
    x = builder.input("x", 1, ["N"])
    builder.graph.outputs.append(builder.op.NonZero(x))
    with pytest.raises(ExportError, match=r"trunk\.onnx holds NonZero"):
        check_plain("trunk", sealed(builder))


def test_roi_pooling_cannot_be_exported():
    pooled = dataclasses.replace(small("resnet18"), regions=RegionConfig(pooling="pool"))
    with pytest.raises(ExportError, match="a bundle knows 'align' only"):
        check_exportable(pooled)
