"""EfficientNet-Lite0: shapes, strict weights, and a second look at crops of the image."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from zsd_core.config import (
    BackboneConfig,
    ModelConfig,
    PreprocessConfig,
    ProposalConfig,
    RegionConfig,
    ScoringConfig,
)
from zsd_core.errors import ConfigError, DataError
from zsd_core.learning.models import ContrastZSD
from zsd_core.learning.models.backbone import build_backbone
from zsd_core.learning.models.efficientnet_lite import EfficientNetLite, _Convolution

LITE = "efficientnet_lite0"


def model(**regions):
    return ContrastZSD(
        ModelConfig(
            preprocess=PreprocessConfig(shorter_edge=64, longer_edge=96),
            backbone=BackboneConfig(name=LITE, frozen="all"),
            proposals=ProposalConfig(
                levels=(8, 16, 32),
                merge="topdown",
                stride=8,
                channels=8,
                depth=2,
                anchor_sizes=(16.0, 32.0),
                aspect_ratios=(1.0,),
                objectness="quality",
            ),
            regions=RegionConfig(**({"stride": 1, "output_size": (64, 64)} | regions)),
            scoring=ScoringConfig(vector_dim=6, joint_dim=16, hidden_dim=8, contrast_dim=8),
        )
    ).eval()


@pytest.fixture
def weights(tmp_path):
    torch.manual_seed(1)
    network = EfficientNetLite()
    state = network.state_dict()
    for name, value in state.items():
        if name.endswith("running_var"):
            value.uniform_(0.5, 2)
        elif "_bn" in name:
            value.normal_(0.5, 0.2)
    state |= {"_fc.weight": torch.zeros(1000, 1280), "_fc.bias": torch.zeros(1000)}
    state["_bn0.num_batches_tracked"] = torch.tensor(1)
    path = tmp_path / "lite0.pth"
    torch.save(state, path)
    return path, state


def test_it_loads_a_published_file_strictly_and_folds_it(weights):
    path, state = weights
    whole = EfficientNetLite()
    whole.load_state_dict(state, strict=False)
    expected = torch.randn(2, 3, 64, 96)
    pixels = expected
    for stage in whole.stages():
        expected = stage(expected)
    _, frozen, width = build_backbone(
        BackboneConfig(name=LITE, weights=str(path), frozen="all"), look=True
    )
    with torch.no_grad():
        found = frozen(pixels)
    assert found.shape == (2, width, 2, 3)
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


def test_weights_of_another_network_are_refused(weights):
    path, state = weights
    del state["_blocks.0._depthwise_conv.weight"]
    torch.save(state, path)
    with pytest.raises(DataError, match="_depthwise_conv"):
        build_backbone(BackboneConfig(name=LITE, weights=str(path)))


@pytest.mark.parametrize("kernel", [3, 5])
def test_padding_is_tensorflows(kernel):
    convolution = _Convolution(1, 1, kernel, stride=2)
    x = torch.randn(1, 1, 8, 8)
    total = kernel - 2  # for an even size: (out - 1) * 2 + kernel - size
    padded = F.pad(x, (total // 2, total - total // 2) * 2)
    torch.testing.assert_close(convolution(x), F.conv2d(padded, convolution.weight, stride=2))


def test_a_second_look_cuts_regions_from_the_image():
    detector = model()
    images = torch.randn(2, 3, 64, 96)
    with torch.no_grad():
        features, objectness, deltas = detector.trunk(images)
        embeddings, offsets = detector.head(torch.randn(5, 3, 64, 64))
    assert torch.equal(features, images)
    assert (objectness.shape, deltas.shape) == ((2, 2, 8, 12), (2, 8, 8, 12))
    assert (embeddings.shape, offsets.shape) == ((5, 16), (5, 4))
    assert not any(p.requires_grad for p in detector.head.region_stage.parameters())


def test_scores_start_low_so_that_background_does_not_drown_objects():
    detector = model()
    with torch.no_grad():
        _, objectness, _ = detector.trunk(torch.randn(1, 3, 64, 64))
    np.testing.assert_allclose(objectness.sigmoid().mean().item(), 0.01, atol=0.01)


def test_a_second_look_needs_a_classifier_of_crops():
    with pytest.raises(ConfigError, match="efficientnet_lite0"):
        build_backbone(BackboneConfig(name="resnet18"), look=True)


def test_a_second_look_runs_on_regions_not_on_the_map():
    with pytest.raises(ConfigError, match="'region'"):
        model(conv5="map")


def test_going_top_down_needs_levels_that_rise_from_the_stride():
    with pytest.raises(ConfigError, match="must rise from stride"):
        ProposalConfig(levels=(16, 8), stride=8, merge="topdown")
