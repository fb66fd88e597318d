"""The objective: which losses, over which regions, and that gradients reach every part."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from zsd_core.config import (
    BackboneConfig,
    ModelConfig,
    PreprocessConfig,
    ProposalConfig,
    RegionConfig,
    ScoringConfig,
)
from zsd_core.errors import ConfigError
from zsd_core.learning.experiment import Config, LossConfig, TrainingConfig
from zsd_core.learning.models import ContrastZSD
from zsd_core.learning.objective import Objective, Target
from zsd_core.learning.targets import encode
from zsd_core.semantics import similarity


def objective(loss=None, proposals=None, scoring=None, seed=0):
    torch.manual_seed(seed)
    model = ModelConfig(
        preprocess=PreprocessConfig(shorter_edge=64, longer_edge=96),
        backbone=BackboneConfig(name="resnet18", frozen="none"),
        proposals=ProposalConfig(channels=16, anchor_sizes=(16.0, 32.0, 64.0), **(proposals or {})),
        regions=RegionConfig(output_size=(4, 4)),
        scoring=ScoringConfig(
            vector_dim=6, joint_dim=16, hidden_dim=8, contrast_dim=8, **(scoring or {})
        ),
    )
    config = Config(
        model=model, loss=loss or LossConfig(), training=TrainingConfig(regions=16, foreground=0.5)
    )
    vectors = torch.nn.functional.normalize(torch.randn(5, 6), dim=1)
    return Objective(ContrastZSD(model), config, vectors[:3], vectors[3:])


def target(boxes, labels, ignored=(), size=(64, 96)):
    return Target(
        torch.tensor(boxes, dtype=torch.float32).view(-1, 4),
        torch.tensor(labels, dtype=torch.long),
        torch.tensor(ignored, dtype=torch.float32).view(-1, 4),
        size,
    )


TARGETS = [target([[8, 8, 40, 40], [50, 10, 90, 60]], [1, 3]), target([], [])]


@pytest.mark.parametrize("quality", ["classification", "background", "iou"])
def test_every_part_that_learns_gets_a_finite_gradient(quality):
    own = objective(proposals={"objectness": quality})
    losses = own(torch.randn(2, 3, 64, 96), TARGETS)
    assert set(losses) == {"rpn_objectness", "rpn_box", "box", "seen", "unseen", "contrast"}
    sum(losses.values()).backward()
    silent = [
        name
        for name, p in own.named_parameters()
        if p.requires_grad and (p.grad is None or not torch.isfinite(p.grad).all())
    ]
    assert silent == []
    moved = {name for name, p in own.named_parameters() if p.grad is not None and p.grad.any()}
    for part in (
        "trunk.backbone.stages.stage4",
        "trunk.rpn.deltas",
        "head.region_stage",
        "head.project_visual",
        "head.regressor",
        "scorer.project_semantic",
        "scorer.score_seen",
        "scorer.score_unseen",
        "scorer.contrast",
        "scorer.background",
    ):
        assert any(f"model.{part}" in name for name in moved), part


def test_weights_of_eq_13_scale_their_terms_and_zero_removes_them():
    f, labels, offsets = torch.randn(9, 512), torch.arange(9) % 4, torch.randn(9, 4)
    bins = f[:, :0]
    plain = objective(LossConfig(unseen_weight=1, contrast_weight=1)).head_losses(
        f, bins, labels, offsets
    )
    scaled = objective(LossConfig(unseen_weight=0.2, contrast_weight=0.5)).head_losses(
        f, bins, labels, offsets
    )
    torch.testing.assert_close(scaled["unseen"], 0.2 * plain["unseen"])
    torch.testing.assert_close(scaled["contrast"], 0.5 * plain["contrast"])
    torch.testing.assert_close(scaled["seen"], plain["seen"])
    ablated = objective(LossConfig(unseen_weight=0, contrast_weight=0))
    assert set(ablated.head_losses(f, bins, labels, offsets)) == {"box", "seen"}


def test_s_is_the_one_definition():
    own = objective(scoring={"similarity_temperature": 0.3})
    scorer = own.model.scorer
    expected = similarity(scorer.seen_vectors.numpy(), scorer.unseen_vectors.numpy(), 0.3)
    np.testing.assert_allclose(scorer.similarity.numpy(), expected, rtol=1e-6)


def test_a_fixed_background_is_the_mean_of_the_seen_vectors_at_unit_length():
    own = objective(scoring={"background": "mean"})
    mean = own.model.scorer.seen_vectors.mean(dim=0)
    torch.testing.assert_close(own.model.scorer.background_vector(), mean / mean.norm())
    assert "model.scorer.background" not in dict(own.named_parameters())


def test_an_anchor_learns_the_offsets_of_its_object():
    own = objective()
    anchor = own._anchor_grid(4, 6)[9 * (6 * 1 + 2) + 4]  # row 1, column 2, ratio 1, size 32
    assert anchor.tolist() == [16, 0, 48, 32]
    box = anchor + torch.tensor([2.0, 4, 4, 6])
    logits, deltas = torch.zeros(1, 9, 4, 6), torch.zeros(1, 36, 4, 6)
    deltas[0, 16:20, 1, 2] = encode(anchor[None], box[None], (1, 1, 1, 1))[0]
    perfect = own.rpn_losses(logits, deltas, [target(box[None].tolist(), [1])])["rpn_box"]
    blank = own.rpn_losses(logits, 0 * deltas, [target(box[None].tolist(), [1])])["rpn_box"]
    assert perfect < blank


def test_regions_hold_the_true_boxes_with_their_labels_and_offsets():
    own = objective()
    logits = torch.zeros(2, 9, 4, 6)
    regions = own.sample_regions(logits, torch.zeros(2, 36, 4, 6), TARGETS)
    assert regions.batch_indices.dtype == torch.int32
    assert (regions.labels[regions.batch_indices == 1] == 0).all()
    objects = regions.labels > 0
    assert set(regions.labels[objects].tolist()) == {1, 3}
    assert (regions.offsets[~objects] == 0).all()
    owners = {1: TARGETS[0].boxes[:1], 3: TARGETS[0].boxes[1:]}
    for box, label, offset in zip(
        regions.boxes[objects], regions.labels[objects], regions.offsets[objects], strict=True
    ):
        torch.testing.assert_close(encode(box[None], owners[int(label)])[0], offset)


def test_weak_boxes_are_not_background():
    own = objective()
    weak = [[50.0, 10, 90, 60]]
    regions = own.sample_regions(
        torch.zeros(1, 9, 4, 6),
        torch.zeros(1, 36, 4, 6),
        [target([[8, 8, 40, 40]], [1], ignored=weak)],
    )
    from torchvision.ops import box_iou

    background = regions.boxes[regions.labels == 0]
    assert len(background)
    assert box_iou(background, torch.tensor(weak)).max() < 0.5


def test_padding_is_not_background():
    own = objective()
    inside = own._inside(own._anchor_grid(4, 6), (33, 50))
    assert inside.view(4, 6, 9).all(dim=2).nonzero().tolist() == [
        [y, x] for y in range(3) for x in range(4)
    ]


def test_a_dead_g_s_is_refused():
    own = objective(scoring={"seen_activation": "relu"})
    f = torch.rand(9, 512)
    with torch.no_grad():
        own.model.scorer.score_seen.output.bias.fill_(9)
        own.check_alive(f)
        own.model.scorer.score_seen.output.bias.fill_(-9)
    with pytest.raises(ConfigError, match=r"100.0% of the seen logits are exactly 0"):
        own.check_alive(f)
