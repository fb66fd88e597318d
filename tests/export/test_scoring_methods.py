"""Every scoring method from a checkpoint to a bundle: PyTorch, runtime and detector.onnx agree."""

import dataclasses
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import scoring_method as method
import tiny
import torch

from export.checks.images import NamedImage
from export.graphs import scorers
from export.graphs.scorers import graph_of
from export.onnx import export_bundle
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
from zsd_core.errors import ConfigError
from zsd_core.learning.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from zsd_core.learning.experiment import Config
from zsd_core.learning.models import ContrastZSD
from zsd_core.learning.models import scorers as halves
from zsd_core.scoring import method_names

SCORING = ScoringConfig(**method.SIZES, center=True)
CORE = Path(__file__).parents[1] / "core"
ELSEWHERE = {"contrastzsd", "prototypes"}  # test_onnx.py and test_given.py export these
METHODS = {
    "conse": {"method": "conse"},
    "san": {"method": "cosine", "learned": "san"},
    "hre": {"method": "hre"},
    "pl": {"method": "pl"},
    "blc": {"method": "blc"},
    "td": {"method": "td", "vector_dim": 16, "td_words": 4, "center": False},
}


@pytest.mark.slow
@pytest.mark.parametrize("name", METHODS)
def test_a_bundle_agrees_with_pytorch(name, tmp_path):
    from skimage import data

    scoring = dataclasses.replace(SCORING, **METHODS[name])
    torch.manual_seed(1)
    config = ModelConfig(
        preprocess=PreprocessConfig(shorter_edge=64, longer_edge=96),
        backbone=BackboneConfig(name="resnet18", frozen="all"),
        proposals=ProposalConfig(
            channels=8, pre_nms_top=200, post_nms_top=30, anchor_sizes=(24.0, 48.0)
        ),
        regions=RegionConfig(output_size=(2, 2)),
        scoring=scoring,
        detection=DetectionConfig(max_detections=50, score_threshold=0.0),
    )
    model = ContrastZSD(config).eval()
    vectors = tiny.unit_vectors(9, 5, scoring.vector_dim)
    model.scorer.read_classes(*torch.from_numpy(vectors).split([7, 2]))
    with torch.no_grad():
        model.trunk.rpn.objectness.weight.normal_(0, 0.2)
        model.trunk.rpn.deltas.weight.normal_(0, 0.2)
        for layer in (model.head.project_visual.linear1, model.head.project_visual.linear2):
            layer.weight.mul_(4)
    made = Checkpoint(
        config=Config(model=config),
        model=model,
        seen=tuple(method.NAMES),
        unseen=("lynx", "cup"),
        vectors=vectors,
    )
    save_checkpoint(made, tmp_path / "last.pt")
    checkpoint = load_checkpoint(tmp_path / "last.pt")
    for tensor, own in checkpoint.model.scorer_tensors().items():
        np.testing.assert_array_equal(own, model.scorer_tensors()[tensor])
    images = [NamedImage("chelsea", data.chelsea()), NamedImage("rocket", data.rocket())]
    report = export_bundle(checkpoint, tmp_path / "bundle", images=images)
    assert report["passed"]
    assert "detector.onnx" in {comparison["artifact"] for comparison in report["comparisons"]}
    bundle = open_bundle(tmp_path / "bundle")
    assert bundle.model_config.scoring.method == scoring.method


def test_every_method_is_exported_somewhere_and_has_a_graph_and_a_test_file():
    here = {values["method"] for values in METHODS.values()}
    assert here | ELSEWHERE == set(method_names())
    for name in method_names():
        assert graph_of(name).WEIGHTS
        assert name == "contrastzsd" or (CORE / f"test_{name}.py").exists(), name


def test_a_method_without_a_graph_or_a_training_half_says_what_to_write(monkeypatch):
    monkeypatch.setattr(scorers, "check_method", lambda name: name)
    with pytest.raises(
        ConfigError, match=r"'ale' has no graph; write export/graphs/scorers/ale.py"
    ):
        graph_of("ale")
    monkeypatch.setattr(halves, "check_method", lambda name: name)
    config = SimpleNamespace(method="ale", learned="")
    with pytest.raises(ConfigError, match=r"trained: 'blc',.*write zsd_core/.*/scorers/ale.py"):
        halves.build_scorer(config, None)
