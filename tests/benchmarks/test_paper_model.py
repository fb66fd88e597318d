"""The paper-sized model of the benchmarks: PyTorch eager finds what the runtime finds."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from small_paper import SMALL

from benchmarks.paper import model as paper
from export.checks.images import sample_images
from runtime import Detector
from runtime.bundle import open_bundle
from zsd_core import pipeline
from zsd_core.config import BackboneConfig
from zsd_core.learning.models import TorchNetworks
from zsd_core.scoring import scorer_for
from zsd_core.semantics import unit_rows


@pytest.fixture(scope="module")
def model():
    made = paper.paper_model(SMALL)
    with torch.no_grad():  # scores that differ between regions
        made.trunk.rpn.semantic.weight.normal_(0, 0.3)
        made.head.regressor.weight.normal_(0, 0.05)
    return made


def test_eager_finds_what_the_pipeline_finds(model):
    vectors = unit_rows(np.random.default_rng(1).normal(size=(9, 12)).astype(np.float32))
    scorer = scorer_for(SMALL.scoring, model.scorer_tensors())
    classes = scorer.class_set(list("abcdef"), vectors[:6], list("xyz"), vectors[6:])
    eager = paper.EagerDetector(model, vectors[:6], vectors[6:])
    thresholds = np.full(9, SMALL.detection.score_threshold, np.float32)
    for image in (sample.pixels for sample in sample_images()[:3]):
        (ours,) = pipeline.HostPipeline(TorchNetworks(model), SMALL, scorer).run(
            classes, [image], thresholds
        )
        boxes, scores, columns = (found.numpy() for found in eager(image))
        height, width = SMALL.preprocess.resized(*image.shape[:2])
        scale = np.array([image.shape[1] / width, image.shape[0] / height] * 2, np.float32)
        assert len(ours.boxes) == len(scores) > 20
        np.testing.assert_allclose(ours.scores, scores, rtol=1e-3, atol=1e-6)
        apart = np.abs(ours.boxes[:, None] - boxes * scale).max(
            axis=2
        )  # equal scores change places
        apart[ours.columns[:, None] != columns] = np.inf
        assert (apart.min(axis=1) < 0.05).all() and (apart.min(axis=0) < 0.05).all()


@pytest.mark.slow
def test_the_command_writes_a_bundle_that_runs(tmp_path, monkeypatch, capsys):
    config = dataclasses.replace(SMALL, backbone=BackboneConfig(name="resnet18"))
    made = paper.paper_model(config)
    monkeypatch.setattr(paper, "paper_model", lambda: made)
    assert paper.main([str(tmp_path / "paper")]) == 0
    bundle = open_bundle(tmp_path / "paper")
    assert (len(bundle.seen), len(bundle.unseen), len(bundle.vocabulary)) == (65, 15, paper.WORDS)
    for precision in ("float32", "int8"):
        with Detector(bundle, precision=precision, threads=1, score_threshold=0) as detector:
            assert len(detector(sample_images()[0].pixels)) > 20
    with pytest.raises(SystemExit):
        paper.main([str(tmp_path / "paper")])
    assert "name a new directory" in capsys.readouterr().err


def test_the_paper_model_is_the_papers():
    config = paper.CONFIG
    assert config.preprocess.resized(480, 640) == (600, 800)
    assert (config.backbone.name, config.proposals.post_nms_top) == ("resnet101", 300)
    assert (config.scoring.joint_dim, config.scoring.hidden_dim) == (2048, 1024)
