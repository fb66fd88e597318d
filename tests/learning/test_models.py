"""The detector's modules: shapes, what is frozen, and equality of what is folded."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
import torchvision
from torchvision.ops import FrozenBatchNorm2d

from zsd_core.config import (
    BackboneConfig,
    ModelConfig,
    ProposalConfig,
    RegionConfig,
    ScoringConfig,
)
from zsd_core.errors import ConfigError, DataError
from zsd_core.learning.models import ContrastZSD, TorchNetworks
from zsd_core.learning.models.backbone import build_backbone
from zsd_core.scoring import ContrastScorer
from zsd_core.semantics import seen_similarity

SMALL = {"vector_dim": 6, "joint_dim": 16, "hidden_dim": 8, "contrast_dim": 8}


def config(name="resnet18", **proposals):
    proposals = {"channels": 16, "anchor_sizes": (16.0, 32.0, 64.0)} | proposals
    return ModelConfig(
        backbone=BackboneConfig(name=name),
        proposals=ProposalConfig(**proposals),
        regions=RegionConfig(output_size=(4, 4)),
        scoring=ScoringConfig(**SMALL),
    )


@pytest.mark.parametrize("name", ["resnet18", "resnet34", "resnet50", "resnet101", "mobilenet_v2"])
def test_every_backbone_has_the_documented_shapes(name):
    torch.manual_seed(0)
    model = ContrastZSD(config(name)).eval()
    with torch.no_grad():
        features, objectness, deltas = model.trunk(torch.randn(2, 3, 64, 96))
        patches = torch.randn(3, features.shape[1], 4, 4)
        embeddings, offsets = model.head(patches)
        none, _ = model.head(patches[:0])
    assert features.shape == (2, model.trunk.backbone.channels[16], 4, 6)
    assert objectness.shape == (2, 9, 4, 6)
    assert deltas.shape == (2, 36, 4, 6)
    assert embeddings.shape == (3, 16)
    assert (embeddings >= 0).all()
    assert offsets.shape == (3, 4)
    assert none.shape == (0, 16)


def test_networks_of_arrays_do_what_the_modules_do():
    torch.manual_seed(0)
    model = ContrastZSD(config()).train()
    networks = TorchNetworks(model)
    assert not model.training
    image, patches = torch.randn(1, 3, 64, 96), torch.randn(3, 256, 4, 4)
    with torch.no_grad():
        expected = (*model.trunk(image), *model.head(patches))
    found = (*networks.trunk(image.numpy()), *networks.head(patches.numpy()))
    for array, tensor in zip(found, expected, strict=True):
        np.testing.assert_array_equal(array, tensor.numpy())


@pytest.mark.parametrize("levels", [(16_000_000_000,), (8, 64)])
def test_a_map_that_the_backbone_does_not_have_is_named(levels):
    with pytest.raises(
        ConfigError, match=r"levels is \(.*\), but the backbone has maps of strides"
    ):
        ContrastZSD(config(levels=levels))
    other = dataclasses.replace(config(), regions=RegionConfig(stride=12))
    with pytest.raises(ConfigError, match=r"RegionConfig.stride is \(12,\), but .* 1, 2, 4, 8, 16"):
        ContrastZSD(other)


@pytest.mark.parametrize("levels", [(8,), (8, 16), (4, 8, 16)])
@pytest.mark.parametrize("stride", [8, 16])
def test_the_proposal_network_reads_any_levels(levels, stride):
    if stride not in levels:
        levels = (*levels, stride)
    model = ContrastZSD(config(levels=levels, stride=stride, depth=2))
    _, objectness, deltas = model.trunk(torch.randn(1, 3, 64, 96))
    assert objectness.shape == (1, 9, 64 // stride, 96 // stride)
    assert deltas.shape == (1, 36, 64 // stride, 96 // stride)


def test_the_backbone_is_torchvision_s_up_to_conv4():
    torch.manual_seed(0)
    backbone, stage, width = build_backbone(BackboneConfig(name="resnet18", frozen="none"))
    torch.manual_seed(0)
    network = torchvision.models.resnet18(norm_layer=FrozenBatchNorm2d)
    images = torch.randn(1, 3, 64, 64)
    x = network.maxpool(network.relu(network.bn1(network.conv1(images))))
    expected = network.layer3(network.layer2(network.layer1(x)))
    torch.testing.assert_close(backbone(images)[16], expected)
    torch.testing.assert_close(stage(expected), network.layer4(expected))
    assert width == 512


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v2"])
def test_folding_batch_norm_changes_nothing_but_speed(tmp_path, name):
    path = _weights(tmp_path, name)
    plain, plain_stage, _ = build_backbone(
        BackboneConfig(name=name, weights=str(path), frozen="none")
    )
    folded, folded_stage, _ = build_backbone(
        BackboneConfig(name=name, weights=str(path), frozen="all")
    )
    assert any(isinstance(m, FrozenBatchNorm2d) for m in plain.modules())
    assert not any(isinstance(m, FrozenBatchNorm2d) for m in folded.modules())
    images = torch.randn(1, 3, 64, 64)
    expected = plain(images)[16]
    torch.testing.assert_close(folded(images)[16], expected, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(folded_stage(expected), plain_stage(expected), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("frozen", "trained"), [("none", 4), ("bottom", 2), ("all", 0)])
def test_frozen_says_which_stages_learn(frozen, trained):
    backbone, stage, _ = build_backbone(BackboneConfig(name="resnet18", frozen=frozen))
    learning = [any(p.requires_grad for p in s.parameters()) for s in backbone.stages.values()]
    assert sum(learning) == trained
    assert any(p.requires_grad for p in stage.parameters()) == (frozen != "all")


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v2"])
def test_conv5_on_the_map_is_conv5_of_the_map(name):
    torch.manual_seed(0)
    own = config(name)
    model = ContrastZSD(
        dataclasses.replace(own, regions=RegionConfig(conv5="map", stride=32, output_size=(2, 2)))
    ).eval()
    torch.manual_seed(0)
    apart = ContrastZSD(own).eval()
    images = torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        features, objectness, _ = model.trunk(images)
        expected = apart.head.region_stage(apart.trunk.backbone(images)[16])
        embeddings, _ = model.head(features[:, :, :2, :2])
    torch.testing.assert_close(features, expected)
    assert features.shape[2:] == (2, 3)
    assert objectness.shape[2:] == (4, 6)
    assert embeddings.shape == (1, 16)


def test_conv5_s_map_needs_conv5_on_the_map():
    with pytest.raises(ConfigError, match="set conv5 to 'map'"):
        ModelConfig(regions=RegionConfig(stride=32))


@pytest.fixture(scope="module")
def precise():
    """A detector whose boxes come from the bins of the proposal network's hidden map."""
    torch.manual_seed(0)
    regions = RegionConfig(conv5="map", output_size=(2, 2), box_hidden=8)
    model = ContrastZSD(dataclasses.replace(config(), regions=regions)).eval()
    torch.nn.init.normal_(model.head.regressor[-1].weight)
    return model


def test_conv5_s_map_is_enlarged_and_the_hidden_map_follows_it(precise):
    image = torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        features, _, _ = precise.trunk(image)
        maps = precise.trunk.backbone(image)
        *_, hidden = precise.trunk.rpn(maps)
    assert features.shape == (1, precise.trunk.channels, 4, 6) == (1, 512 + 16, 4, 6)
    twice = maps[32].repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)
    torch.testing.assert_close(features[:, :512], twice, rtol=0, atol=0)
    torch.testing.assert_close(features[:, 512:], hidden, rtol=0, atol=0)


def test_boxes_come_from_where_things_are_and_embeddings_do_not(precise):
    patches = torch.randn(3, 528, 2, 2)
    turned, other = patches.clone(), patches.clone()
    turned[:, 512:] = turned[:, 512:].flip(3)  # the hidden map's bins, left and right swapped
    other[:, :512] += 1
    with torch.no_grad():
        (v, boxes), (same_v, moved), (other_v, same) = map(precise.head, (patches, turned, other))
    torch.testing.assert_close(same_v, v, rtol=0, atol=0)
    torch.testing.assert_close(same, boxes, rtol=0, atol=0)
    assert ((moved - boxes).abs() > 1e-3).any(dim=1).all()
    assert ((other_v - v).abs() > 1e-3).any(dim=1).all()


def test_boxes_of_the_hidden_map_need_regions_of_its_stride():
    with pytest.raises(ConfigError, match="make them equal"):
        dataclasses.replace(config(), regions=RegionConfig(conv5="map", stride=32, box_hidden=8))


def test_weights_that_do_not_fit_are_named(tmp_path):
    path = _weights(tmp_path, "resnet18")
    with pytest.raises(DataError, match=r"do not fit: missing \["):
        build_backbone(BackboneConfig(name="resnet50", weights=str(path)))
    for name in ("nothing", "x" * 300, "a\0b"):
        with pytest.raises(DataError, match="are not a file"):
            build_backbone(BackboneConfig(weights=str(tmp_path / name)))
    state = torch.load(path)
    kinds = {
        "are damaged": b"no pickle",
        "are not a state dict but list": [1],
        "are not a state dict: 3 is of type Tensor": {3: torch.zeros(1)},
        "are not a state dict: 'conv1.weight' is of type int": state | {"conv1.weight": 3},
        r"of another shape \['conv1.weight'\]": state | {"conv1.weight": torch.zeros(64, 4, 7, 7)},
    }
    for number, (says, value) in enumerate(kinds.items()):
        other = tmp_path / f"{number}.pt"
        other.write_bytes(value) if isinstance(value, bytes) else torch.save(value, other)
        with pytest.raises(DataError, match=says):
            build_backbone(BackboneConfig(name="resnet18", weights=str(other)))


def test_a_classifier_of_other_classes_does_not_matter(tmp_path):
    path = _weights(tmp_path, "resnet18")
    state = torch.load(path)
    places = state | {"fc.weight": torch.zeros(365, 512), "fc.bias": torch.zeros(365)}
    torch.save(places, tmp_path / "places.pt")
    backbone, _, _ = build_backbone(
        BackboneConfig(name="resnet18", weights=str(tmp_path / "places.pt"), frozen="none")
    )
    assert torch.equal(backbone.state_dict()["stages.stem.0.weight"], state["conv1.weight"])


def test_an_older_file_of_mobilenet_is_read_by_order(tmp_path):
    state = torchvision.models.mobilenet_v2().features.state_dict()
    older = {}
    for key, value in state.items():
        head, _, rest = key.partition(".conv.")
        flat = {"0.0.": "0.", "0.1.": "1.", "1.0.": "3.", "1.1.": "4.", "2.": "6.", "3.": "7."}
        if head == "1":
            flat = {"0.0.": "0.", "0.1.": "1.", "1.": "3.", "2.": "4."}
        for new, old in flat.items():
            if rest.startswith(new):
                rest = old + rest.removeprefix(new)
                break
        older[f"features.{head}.conv.{rest}" if rest else f"features.{key}"] = value
    assert set(older) != {f"features.{key}" for key in state}
    torch.save(older, tmp_path / "older.pt")
    torch.save(state, tmp_path / "newer.pt")
    images = torch.randn(1, 3, 64, 64)
    maps = [
        build_backbone(BackboneConfig(name="mobilenet_v2", weights=str(tmp_path / name)))[0](images)
        for name in ("older.pt", "newer.pt")
    ]
    torch.testing.assert_close(maps[0][16], maps[1][16])


def test_the_stride_can_sit_in_the_first_convolution():
    backbone, _, _ = build_backbone(BackboneConfig(name="resnet50", stride_in_1x1=True))
    block = backbone.stages["stage3"][0]
    assert (block.conv1.stride, block.conv2.stride) == ((2, 2), (1, 1))
    with pytest.raises(ConfigError, match="no 1 x 1 convolution"):
        build_backbone(BackboneConfig(name="resnet18", stride_in_1x1=True))


def test_a_learned_background_folds_into_the_objectness_convolution():
    torch.manual_seed(0)
    rpn = ContrastZSD(config(objectness="background")).trunk.rpn
    maps = {16: torch.randn(1, 256, 3, 4)}
    hidden = torch.relu(rpn.hidden[0](maps[16]))
    vectors = rpn.semantic(hidden).view(9, 6, 3, 4)
    contrast = rpn.foreground - rpn.background
    expected = torch.einsum("aehw,e->ahw", vectors, contrast)
    torch.testing.assert_close(rpn(maps)[0][0], expected)


@pytest.mark.parametrize("activation", ["linear", "relu"])
def test_the_exported_scorer_is_the_trained_one(activation):
    torch.manual_seed(0)
    scoring = ScoringConfig(**SMALL, seen_activation=activation, fusion="raw")
    model = ContrastZSD(
        ModelConfig(backbone=BackboneConfig(name="resnet18"), scoring=scoring)
    ).eval()
    rng = np.random.default_rng(0)
    vectors = rng.standard_normal((5, 6)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    embeddings = rng.random((4, 16), np.float32)
    scorer = ContrastScorer(model.scorer_tensors(), scoring)
    classes = scorer.class_set(["a", "b", "c"], vectors[:3], ["d", "e"], vectors[3:])
    with torch.no_grad():
        prototypes = model.scorer.prototypes(torch.from_numpy(vectors))
        seen = model.scorer.seen_logits(torch.from_numpy(embeddings), prototypes)
        unseen = model.scorer.unseen_logits(torch.from_numpy(embeddings), prototypes[4:]).sigmoid()
    np.testing.assert_allclose(classes.prototypes, prototypes.numpy(), rtol=1e-5, atol=1e-6)
    scores = scorer.score(embeddings, np.ones(4, np.float32), classes)
    expected = (unseen * seen[:, 4:]).numpy()
    np.testing.assert_allclose(scores[:, 3:], expected, rtol=1e-4, atol=1e-6)


def _weights(folder, name):
    """Weights with batch norms that do something."""
    network = getattr(torchvision.models, name)()
    generator = torch.Generator().manual_seed(0)
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            for tensor in (module.weight.data, module.running_var):
                tensor.copy_(0.5 + torch.rand(tensor.shape, generator=generator))
            for tensor in (module.bias.data, module.running_mean):
                tensor.copy_(0.1 * torch.randn(tensor.shape, generator=generator))
    torch.save(network.state_dict(), folder / f"{name}.pt")
    return folder / f"{name}.pt"


def test_centred_vectors_mean_the_same_in_training_and_at_run_time():
    torch.manual_seed(0)
    scoring = ScoringConfig(**SMALL, center=True)
    model = ContrastZSD(
        ModelConfig(backbone=BackboneConfig(name="resnet18"), scoring=scoring)
    ).eval()
    vectors = np.random.default_rng(0).random((5, 6), np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    model.scorer.read_classes(*torch.from_numpy(vectors).split([3, 2]))
    scorer = ContrastScorer(model.scorer_tensors(), scoring)
    classes = scorer.class_set(["a", "b", "c"], vectors[:3], ["d", "e"], vectors[3:])
    with torch.no_grad():
        expected = model.scorer.prototypes(torch.from_numpy(vectors)).numpy()
    np.testing.assert_allclose(classes.prototypes, expected, rtol=1e-5, atol=1e-6)
    centred = vectors - vectors[:3].mean(axis=0)
    np.testing.assert_allclose(
        classes.seen_similarity, seen_similarity(centred[:3], centred[3:], 1.0), rtol=1e-5
    )
