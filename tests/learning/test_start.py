"""Heads over the proposal network of another run: what one run would have made, or a refusal."""

from __future__ import annotations

import dataclasses
import json
import shutil
from operator import attrgetter
from pathlib import Path

import numpy as np
import pytest
import shapes
import torch

from zsd_core.learning.checkpoint import load_checkpoint, save_checkpoint
from zsd_core.learning.experiment import load_config
from zsd_core.learning.training.regions import read_regions
from zsd_core.learning.training.start import HEADS_ONLY
from zsd_core.train import main

ROOT = Path(__file__).parents[2]
CONFIG = """
model:
  preprocess: {shorter_edge: 64, longer_edge: 64}
  backbone: {name: mobilenet_v2, frozen: all}
  proposals:
    {channels: 16, anchor_sizes: [16, 32], pre_nms_top: 100, post_nms_top: 20, min_size: 4}
  regions: {output_size: [2, 2]}
  scoring:
    {vector_dim: 6, joint_dim: 16, hidden_dim: 8, contrast_dim: 8, similarity_temperature: 0.2}
training:
  {optimizer: adamw, learning_rate: 0.001, schedule: cosine, batch_size: 4, cache: regions,
   regions: 16, foreground: 0.5, workers: 0, epochs: 2, head_epochs: 1, versions: 1}
"""


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    """The configuration file beside its images, split and vectors."""
    folder = tmp_path_factory.mktemp("shapes")
    return shapes.write_config(folder, 8, CONFIG, size=64)


def run(data, output, *arguments):
    return main([str(data), "--output", str(output), *arguments])


def weights(path):
    return load_checkpoint(path).model.state_dict()


def assert_equal(one, other):
    assert one.keys() == other.keys()
    for name, tensor in one.items():
        assert torch.equal(tensor, other[name]), name


@pytest.fixture(scope="module")
def first(data, tmp_path_factory):
    """The folder of a run in two phases."""
    folder = tmp_path_factory.mktemp("first")
    assert run(data, folder) == 0
    return folder


HEADS = [
    "training.head_epochs=2",
    "training.dropout=0.3",
    "loss.contrast_weight=0",
    "training.balance=0.5",
    "model.scoring.joint_dim=24",
]
CONSE = ["model.scoring.method=conse", "model.proposals.post_nms_top=10", "training.dropout=0.3"]


@pytest.mark.parametrize(
    ("checkpoint", "options"),
    [("proposals.pt", HEADS), ("last.pt", CONSE)],
    ids=["other options", "another method"],
)
def test_heads_over_the_proposals_of_another_run_are_those_of_one_run(
    data, first, tmp_path, checkpoint, options, capsys
):
    assert run(data, tmp_path / "one", *options) == 0
    assert "kept regions:" not in capsys.readouterr().err
    source = first / checkpoint
    assert run(data, tmp_path / "two", *options, "--from", str(source)) == 0
    assert f"kept regions: {first / 'regions.pt'}" in capsys.readouterr().err
    one, two = (load_checkpoint(tmp_path / name / "last.pt") for name in ("one", "two"))
    assert one.config == two.config
    assert two.training["proposals"]["checkpoint"] == source.name  # no folder of this machine
    assert_equal(two.model.state_dict(), one.model.state_dict())
    before = weights(first / "last.pt")["head.project_visual.linear2.weight"]
    assert not torch.equal(two.model.head.project_visual.linear2.weight, before)  # trained anew
    ours, theirs = (read_regions(folder / "regions.pt") for folder in (tmp_path / "two", first))
    assert ours[0] == theirs[0]


def test_a_run_that_stopped_between_its_phases_goes_on(data, first, tmp_path):
    for name in ("proposals.pt", "regions.pt"):
        shutil.copy(first / name, tmp_path / name.replace("proposals", "last"))
    assert run(data, tmp_path, "--resume") == 0
    assert_equal(weights(tmp_path / "last.pt"), weights(first / "last.pt"))


def test_a_log_holds_every_step_once(data, first, tmp_path):
    """Steps between the last checkpoint and the interruption are made, and logged, again."""
    for name in ("proposals.pt", "regions.pt", "losses.jsonl"):
        shutil.copy(first / name, tmp_path / name.replace("proposals", "last"))
    with (tmp_path / "losses.jsonl").open("a") as lines:
        lines.write('{"step": 99, "tag": "loss/se')  # killed while it wrote
    assert run(data, tmp_path, "--resume") == 0
    logs = [(folder / "losses.jsonl").read_text() for folder in (tmp_path, first)]
    assert logs[0] == logs[1]


@pytest.mark.parametrize(
    ("option", "sentence"),
    [
        ("data.split={folder}/other.json", "other.json has other seen or unseen classes"),
        ("data.vectors={folder}/other.npz", "other.npz has other class vectors"),
        ("training.optimizer=sgd", "training.optimizer is 'sgd', but 'adamw' there"),
        ("training.cache=none", "training.cache is 'none', but 'regions' there"),
        ("model.scoring.joint_dim=24", "do not fit this model: model.scoring.joint_dim is 24, but"),
    ],
)
def test_a_run_does_not_go_on_with_other_classes_or_another_network(
    data, first, tmp_path, capsys, option, sentence
):
    split = json.loads((data.parent / "split.json").read_text())
    moved = {"seen": split["seen"][1:], "unseen": [*split["unseen"], split["seen"][0]]}
    (tmp_path / "other.json").write_text(json.dumps(moved))
    with np.load(data.parent / "vectors.npz") as arrays:
        np.savez(tmp_path / "other.npz", names=arrays["names"], vectors=arrays["vectors"][::-1])
    shutil.copy(first / "proposals.pt", tmp_path / "last.pt")
    before = (tmp_path / "last.pt").read_bytes()
    assert run(data, tmp_path, option.format(folder=tmp_path), "--resume") == 1
    assert sentence in capsys.readouterr().err
    assert (tmp_path / "last.pt").read_bytes() == before


def test_a_run_goes_on_with_other_options_and_says_which(data, first, tmp_path, capsys):
    shutil.copy(first / "proposals.pt", tmp_path / "last.pt")
    assert run(data, tmp_path, "training.head_epochs=2", "--resume") == 0
    assert "resume: training.head_epochs is 2, but 1 there" in capsys.readouterr().err


def test_a_run_at_its_end_takes_options_of_inference_and_no_others(data, first, tmp_path, capsys):
    shutil.copy(first / "last.pt", tmp_path / "last.pt")
    before = (tmp_path / "last.pt").read_bytes()
    for option in ("training.head_epochs=2", "loss.unseen_weight=0.5", "data.keep_score=0.5"):
        assert run(data, tmp_path, option, "--resume") == 1
        assert "that run has come to its end" in capsys.readouterr().err
        assert (tmp_path / "last.pt").read_bytes() == before
    assert run(data, tmp_path, "model.detection.score_threshold=0.3", "--resume") == 0
    assert "nothing is trained" in capsys.readouterr().err
    checkpoint = load_checkpoint(tmp_path / "last.pt")
    assert checkpoint.config.model.detection.score_threshold == 0.3
    assert_equal(checkpoint.model.state_dict(), weights(first / "last.pt"))


def test_other_kept_regions_are_made_anew_and_leave_those_of_the_other_run(
    data, first, tmp_path, capsys
):
    before = (first / "regions.pt").read_bytes()
    options = ["training.foreground=0.25"]
    assert run(data, tmp_path / "one", *options) == 0
    assert run(data, tmp_path / "two", *options, "--from", str(first / "proposals.pt")) == 0
    assert "regions.pt holds other regions" in capsys.readouterr().err
    assert_equal(weights(tmp_path / "two/last.pt"), weights(tmp_path / "one/last.pt"))
    assert (first / "regions.pt").read_bytes() == before


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        ("training.seed=1", "training.seed is 1, but 0 there"),
        ("training.epochs=3", "training.epochs is 3, but 2 there"),
        ("training.learning_rate=0.1", "training.learning_rate is 0.1, but 0.001 there"),
        ("model.proposals.channels=32", "model.proposals.channels is 32, but 16 there"),
        ("model.regions.conv5=map", "model.regions.conv5 is 'map', but 'region' there"),
        ("training.cache=none", "needs training.cache: regions; got 'none'"),
    ],
)
def test_an_option_that_the_proposals_were_trained_with_is_not_changed(
    data, first, tmp_path, override, sentence, capsys
):
    source = str(first / "proposals.pt")
    assert run(data, tmp_path / "new", override, "--from", source) == 1
    error = capsys.readouterr().err
    assert sentence in error and source in error
    assert not (tmp_path / "new").exists()


def test_proposals_of_other_classes_or_half_trained_are_refused(data, first, tmp_path, capsys):
    earlier = load_checkpoint(first / "proposals.pt")
    path = tmp_path / "edited.pt"
    for changes, sentence in (
        ({"seen": ("cat", *earlier.seen[1:])}, f"cat, {earlier.seen[0]}: seen in split"),
        ({"state": {"position": {"phase": 0, "epoch": 1}}}, "has trained for 1 of 2 epochs"),
    ):
        save_checkpoint(dataclasses.replace(earlier, **changes), path)
        assert run(data, tmp_path / "new", "--from", str(path)) == 1
        assert sentence in capsys.readouterr().err


def test_options_of_the_heads_are_options():
    config = load_config(ROOT / "configs/mobilenetv2_coco_48_17.yaml")
    for name in HEADS_ONLY:
        assert attrgetter(name)(config) is not None


TUNED = ["training.trunk_epochs=2", "training.trunk_rate=0.002"]


@pytest.fixture(scope="module")
def tuned(data, tmp_path_factory):
    """The folder of a run in three phases; the backbone changes in the second."""
    folder = tmp_path_factory.mktemp("tuned")
    assert run(data, folder, *TUNED) == 0
    return folder


def test_the_second_phase_changes_the_backbone_from_stride_8_on(tuned):
    before, after = weights(tuned / "proposals.pt"), weights(tuned / "trunk.pt")
    changed = {name for name, tensor in after.items() if not torch.equal(tensor, before[name])}
    assert {name.partition(".")[0] for name in changed} == {"trunk"}
    parts = {".".join(name.split(".")[:4]) for name in changed if "backbone" in name}
    assert parts == {"trunk.backbone.stages.stage3", "trunk.backbone.stages.stage4"}
    last = weights(tuned / "last.pt")  # the third phase takes it as it is
    assert_equal(*({k: v for k, v in w.items() if k[:6] == "trunk."} for w in (last, after)))
    rates = [
        json.loads(line)["value"]
        for line in (tuned / "losses.jsonl").read_text().splitlines()
        if json.loads(line)["tag"] == "rate"
    ]
    assert max(rates[4:8]) > max(rates[:4])  # four steps, then four at another rate


def test_a_run_that_stopped_in_its_second_phase_goes_on(data, tuned, tmp_path, monkeypatch):
    class Stop(Exception):
        pass

    saved = []

    def once(checkpoint, path):
        save_checkpoint(checkpoint, path)
        saved.append(checkpoint.state["position"])
        if (saved[-1]["phase"], saved[-1]["epoch"]) == (1, 1):
            raise Stop

    monkeypatch.setattr("zsd_core.learning.training.run.save_checkpoint", once)
    with pytest.raises(Stop):
        run(data, tmp_path, *TUNED)
    monkeypatch.undo()
    assert run(data, tmp_path, *TUNED, "--resume") == 0
    assert_equal(weights(tmp_path / "last.pt"), weights(tuned / "last.pt"))


def test_heads_are_trained_over_a_tuned_trunk_that_is_finished(data, tuned, tmp_path, capsys):
    for name in ("trunk.pt", "last.pt"):
        assert run(data, tmp_path / name, *TUNED, "--from", str(tuned / name)) == 0
        assert_equal(weights(tmp_path / name / "last.pt"), weights(tuned / "last.pt"))
    capsys.readouterr()
    assert run(data, tmp_path / "new", *TUNED, "--from", str(tuned / "proposals.pt")) == 1
    assert "has trained for 0 of 2 epochs in phase 2 of 2" in capsys.readouterr().err


def test_the_trunk_of_a_run_between_its_phases_may_be_tuned_and_no_later(
    data, first, tuned, tmp_path, capsys
):
    for name, folder in (("proposals.pt", "between"), ("last.pt", "end")):
        (tmp_path / folder).mkdir()
        shutil.copy(first / name, tmp_path / folder / "last.pt")
    assert run(data, tmp_path / "between", *TUNED, "--resume") == 0
    assert_equal(weights(tmp_path / "between/last.pt"), weights(tuned / "last.pt"))
    capsys.readouterr()
    assert run(data, tmp_path / "end", *TUNED, "--resume") == 1
    assert "training.trunk_epochs is 2, but 0 there" in capsys.readouterr().err
