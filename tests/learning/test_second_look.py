"""Training with a second look at regions: kept maps, a warm start, and resuming in either phase."""

from __future__ import annotations

import json

import pytest
import shapes
import torch

import zsd_core.learning.training.cached
import zsd_core.learning.training.run
from zsd_core.learning.checkpoint import load_checkpoint
from zsd_core.learning.models.efficientnet_lite import EfficientNetLite
from zsd_core.learning.training.cached import has_bfloat16
from zsd_core.train import main

OPTIONS = [
    "model.backbone.name=efficientnet_lite0",
    "model.backbone.frozen=all",
    "model.proposals={levels: [8, 16, 32], merge: topdown, stride: 8, channels: 8, depth: 1, "
    "anchor_sizes: [16, 32], aspect_ratios: [1], objectness: quality}",
    "model.regions={stride: 1, output_size: [32, 32], sampling_ratio: 1}",
    "model.scoring.joint_dim=64",
    "training.cache=regions",
    "training.keep_maps=true",
    "training.warm_start=1",
    "training.regions=4",
    "training.versions=2",
    "training.region_versions=1",
    "training.human_repeats=2",
    "training.epochs=2",
    "training.head_epochs=1",
    "training.bfloat16=true",
]


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    folder = tmp_path_factory.mktemp("shapes")
    torch.manual_seed(0)
    network = EfficientNetLite()
    for module in network.modules():
        if isinstance(module, torch.nn.Conv2d):
            torch.nn.init.kaiming_normal_(module.weight)
    torch.save(network.state_dict(), folder / "lite0.pth")
    return shapes.write_config(folder, images=6), folder / "lite0.pth"


def run(config, output, *arguments):
    path, pretrained = config
    options = [*OPTIONS, f"model.backbone.weights={pretrained}", *arguments]
    return main([str(path), *options, "--output", str(output)])


def weights(path):
    return load_checkpoint(path).model.state_dict()


def stop_after(monkeypatch, saves):
    """Let training stop as if killed after so many checkpoints."""
    keep, count = zsd_core.learning.training.run.save_checkpoint, iter(range(saves))

    def limited(checkpoint, path):
        keep(checkpoint, path)
        if path.name == "last.pt" and next(count) == saves - 1:
            raise KeyboardInterrupt

    monkeypatch.setattr(zsd_core.learning.training.run, "save_checkpoint", limited)


@pytest.mark.parametrize("saves", [1, 4])  # in the first phase, and in the second
def test_a_run_that_was_stopped_goes_on_as_if_it_had_not(config, tmp_path, monkeypatch, saves):
    assert run(config, tmp_path / "whole") == 0
    with monkeypatch.context() as patch:
        stop_after(patch, saves)
        assert run(config, tmp_path / "part") != 0
    assert run(config, tmp_path / "part", "--resume") == 0
    expected = weights(tmp_path / "whole/last.pt")
    for name, tensor in weights(tmp_path / "part/last.pt").items():
        torch.testing.assert_close(tensor, expected[name], msg=name)


def test_kept_maps_are_read_again_and_damaged_ones_are_an_error(
    config, tmp_path, capsys, monkeypatch
):
    output = tmp_path / "run"
    monkeypatch.setattr(zsd_core.learning.training.cached, "has_bfloat16", lambda: False)
    assert run(config, output, "--max-steps", "1") == 0
    assert "give training.bfloat16=false" in capsys.readouterr().err
    (output / "last.pt").unlink()
    assert run(config, output, "--max-steps", "1") == 0
    said = capsys.readouterr().err
    assert "kept maps" in said and "give training.bfloat16=false" in said
    assert isinstance(has_bfloat16(), bool)
    (output / "last.pt").unlink()
    monkeypatch.setattr(zsd_core.learning.training.cached, "PIXELS", "as OpenCV gives them")
    assert run(config, output, "--max-steps", "1") == 0
    assert "kept maps" not in capsys.readouterr().err
    (output / "last.pt").unlink()
    (output / "maps.pt").write_bytes(b"no maps")
    assert run(config, output, "--max-steps", "1") == 1
    assert "does not hold kept maps; delete it" in capsys.readouterr().err


def test_fewer_epochs_end_the_first_phase_where_it_stands(config, tmp_path, monkeypatch):
    output = tmp_path / "run"
    with monkeypatch.context() as patch:
        stop_after(patch, 1)
        assert run(config, output) != 0
    (output / "maps.pt").unlink()
    trained = weights(output / "last.pt")
    assert run(config, output, "--resume", "training.epochs=1") == 0
    assert not (output / "maps.pt").exists()  # nothing of the first phase was done again
    for name, tensor in weights(output / "last.pt").items():
        if name.startswith("trunk."):
            assert torch.equal(tensor, trained[name]), name


def test_without_epochs_the_heads_are_the_warm_start(config, tmp_path):
    assert run(config, tmp_path, "training.epochs=1", "training.head_epochs=0") == 0
    model = load_checkpoint(tmp_path / "last.pt").model
    assert (model.scorer.score_seen.output.weight != 0).sum() == 1
    tags = [
        json.loads(line)["tag"] for line in (tmp_path / "losses.jsonl").read_text().splitlines()
    ]
    assert set(tags) == {"loss/rpn_objectness", "loss/rpn_box", "rate"}
