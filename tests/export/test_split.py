"""conv5's first convolutions on the map: the same result, other networks, and who refuses them."""

from __future__ import annotations

import dataclasses
import json
import shutil

import numpy as np
import pytest
import torch
from small_paper import SMALL
from torch import nn

from benchmarks.paper.model import paper_model
from export.checks.images import sample_images
from export.checks.variants import Truth, compare_variants, markdown
from export.graphs.split import split_conv5
from export.int8.calibration import calibration_inputs
from export.onnx import export_bundle
from export.quantize import add_int8
from runtime import Detector
from runtime.backends import installed_backends, open_backend
from runtime.bundle import open_bundle
from zsd_core import kernels
from zsd_core.config import BackboneConfig, RegionConfig
from zsd_core.errors import BundleError, ConfigError
from zsd_core.kernels import reference
from zsd_core.learning.checkpoint import Checkpoint, save_checkpoint
from zsd_core.learning.experiment import Config
from zsd_core.learning.models import ContrastZSD
from zsd_core.semantics import unit_rows


def model_of(*, output_size=(7, 7), **backbone):
    """The paper's model with a small input, its batch norms all different."""
    model = paper_model(
        dataclasses.replace(
            SMALL,
            backbone=BackboneConfig(**({"name": "resnet50"} | backbone)),
            regions=RegionConfig(output_size=output_size),
        )
    )
    torch.manual_seed(1)
    with torch.no_grad():
        for name, buffer in model.named_buffers():
            if name.endswith(("bias", "running_mean")):
                buffer.normal_(0, 0.3)
        model.trunk.rpn.semantic.weight.normal_(0, 0.3)
        model.head.regressor.weight.normal_(0, 0.05)
    return model


@pytest.fixture(scope="module")
def checkpoint():
    model = model_of()
    vectors = unit_rows(np.random.default_rng(1).normal(size=(5, 12)).astype(np.float32))
    return Checkpoint(
        config=Config(model=model.config),
        model=model,
        seen=("a", "b", "c"),
        unseen=("d", "e"),
        vectors=vectors,
    )


@pytest.fixture(scope="module")
def bundle(checkpoint, tmp_path_factory):
    path = tmp_path_factory.mktemp("split") / "bundle"
    export_bundle(checkpoint, path, images=sample_images()[:1])
    return open_bundle(path)


def regions_of(maps, config, rois, module):
    """Regions of every map that a head reads."""
    indices = np.zeros(len(rois), np.int32)
    return [
        torch.from_numpy(
            module.roi_align(
                features.numpy(),
                rois,
                indices,
                output_size=config.output_size,
                spatial_scale=1 / config.stride,
                sampling_ratio=config.sampling_ratio,
                bin_step=step,
            )
        )
        for features, (_, step) in zip(maps, config.maps, strict=True)
    ]


@pytest.mark.parametrize("caffe", [False, True], ids=["stride in 3 x 3", "stride in 1 x 1"])
def test_it_is_as_close_to_float64_as_the_model_itself(caffe):
    model = model_of(stride_in_1x1=caffe)
    split = split_conv5(model)
    assert split.config.regions.maps == (("reduced", 2 if caffe else 1), ("shortcut", 2))
    image = torch.randn(1, 3, 96, 160)
    # The last ones lie on the map's edges, outside it, and have no size.
    rois = np.array(
        [
            (10, 20, 90, 80),
            (0, 0, 160, 96),
            (120, 60, 160, 96),
            (-30, -30, 40, 30),
            (300, 300, 400, 400),
            (140, 80, 190, 130),
            (33, 33, 33, 33),
        ],
        np.float32,
    )

    def outputs(networks, module, dtype):
        networks = networks.to(dtype)
        with torch.inference_mode():
            *maps, objectness, deltas = networks.trunk(image.to(dtype))
            boxes = rois.astype(maps[0].numpy().dtype)
            patches = regions_of(maps, networks.config.regions, boxes, module)
            return [*networks.head(*patches), objectness, deltas]

    ours = outputs(split, kernels, torch.float32)
    plain = outputs(model, kernels, torch.float32)
    exact = outputs(model, reference, torch.float64)
    for own, single, double in zip(ours, plain, exact, strict=True):
        scale = float(double.abs().max())
        error, known = (float((x.double() - double).abs().max()) / scale for x in (own, single))
        assert error <= 2 * known + 1e-6, (error, known)


@pytest.mark.parametrize(
    "change",
    [
        {"backbone": BackboneConfig(name="resnet18")},  # its conv5 begins with a 3 x 3
        {"backbone": BackboneConfig(name="mobilenet_v2")},
        {"regions": RegionConfig(conv5="map", output_size=(3, 3))},
        {"regions": RegionConfig(box_hidden=8, output_size=(3, 3))},
        {"regions": RegionConfig(output_size=(1, 1))},  # fewer bins than the map has cells
    ],
    ids=str,
)
def test_other_models_stay_whole(change):
    assert split_conv5(paper_model(dataclasses.replace(SMALL, **change))) is None


def test_only_bundles_have_other_maps(checkpoint):
    with pytest.raises(ConfigError, match="only a bundle can have"):
        ContrastZSD(split_conv5(checkpoint.model).config)


def test_the_model_is_left_as_it_was(checkpoint):
    before = {name: value.clone() for name, value in checkpoint.model.state_dict().items()}
    split_conv5(checkpoint.model)
    after = checkpoint.model.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(value, after[name]) for name, value in before.items())
    assert not any(isinstance(m, nn.Identity) for m in checkpoint.model.head.region_stage.modules())


def test_the_bundle_says_it_and_shares_its_weights(bundle, checkpoint, tmp_path):
    assert bundle.manifest["model"]["regions"]["maps"] == [["reduced", 1], ["shortcut", 2]]
    assert [v["name"] for v in bundle.stage("trunk")["outputs"]] == [
        "reduced",
        "shortcut",
        "objectness",
        "deltas",
    ]
    inputs = {v["name"]: v["shape"] for v in bundle.stage("head")["inputs"]}
    assert inputs == {"region_reduced": ["R", 512, 7, 7], "region_shortcut": ["R", 2048, 4, 4]}
    export_bundle(checkpoint, tmp_path / "whole", images=sample_images()[:1], whole_head=True)
    whole = open_bundle(tmp_path / "whole")
    assert whole.model_config == checkpoint.config.model
    sizes = [b.manifest["files"]["weights.bin"]["bytes"] for b in (bundle, whole)]
    assert sizes[0] < 1.001 * sizes[1]
    parity = json.loads(bundle.file("parity.json").read_text())
    rows = {row["stage"] for row in parity["comparisons"][0]["stages"]}
    assert {"head: embeddings", "head: box_deltas", "trunk: objectness"} <= rows


@pytest.mark.parametrize("backend", [b for b in installed_backends() if "tensorrt" not in b])
def test_every_backend_finds_what_the_checkpoint_finds(backend, bundle, checkpoint, tmp_path):
    save_checkpoint(checkpoint, tmp_path / "model.pt")
    truth = Truth.of(bundle, tmp_path / "model.pt", 1)
    report = compare_variants(bundle, sample_images()[:2], truth, [(backend, "float32")], threads=1)
    assert report["passed"], report["variants"][0]["failures"]
    (row,) = report["variants"]
    assert {"reduced", "shortcut", "embeddings", "box_deltas"} <= set(row["stages"])
    assert backend in markdown(report)


def test_int8_networks_are_calibrated_on_both_maps(bundle, tmp_path):
    path = tmp_path / "copy"
    shutil.copytree(bundle.path, path)
    found = calibration_inputs(open_bundle(path), sample_images()[:1], regions=4)
    (feed,) = found["head"]
    assert list(feed) == ["region_reduced", "region_shortcut"]
    add_int8(path, sample_images()[:1], regions=4, sensitive=0, noise=0, crossing=0)
    exact, rounded = (
        open_backend("onnxruntime", open_bundle(path), 1, precision=p) for p in ("float32", "int8")
    )
    truth, got = (n.head(*feed.values())[0] for n in (exact, rounded))
    assert 0 < np.square(truth - got).mean() < 0.05 * np.square(truth).mean()
    with Detector(path, backend="onnxruntime", precision="int8", threads=1) as detector:
        detector(sample_images()[0].pixels)


@pytest.mark.parametrize(
    ("maps", "text"),
    [
        ([["features", 1]], r"trunk's outputs are \['reduced', 'shortcut', 'objectness'"),
        ([["reduced", 1], ["shortcut", 3]], r"head's inputs have bins .*\(7, 7\), \(3, 3\)"),
        ([["reduced", 0], ["shortcut", 2]], "steps between 1 and 4096"),
        ([], "needs 1 to 64 maps"),
    ],
)
def test_a_manifest_that_means_other_maps_is_refused(maps, text, bundle, tmp_path):
    path = tmp_path / "copy"
    shutil.copytree(bundle.path, path)
    manifest = json.loads((path / "manifest.json").read_text())
    manifest["model"]["regions"]["maps"] = maps
    (path / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(BundleError, match=text):
        open_bundle(path)
