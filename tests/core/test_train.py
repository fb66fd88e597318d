"""Training on shapes: it learns, resumes, repeats itself, and finds what it never saw."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import shapes
import torch

from zsd_core.learning.checkpoint import load_checkpoint
from zsd_core.learning.experiment import load_config
from zsd_core.learning.training import run as run_module
from zsd_core.train import main

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> dict[str, Path]:
    """Training images of seen shapes, the split, the vectors and the configuration file."""
    folder = tmp_path_factory.mktemp("shapes")
    return {"config": shapes.write_config(folder, images=24)}


def run(data, output, *arguments):
    return main([str(data["config"]), "--output", str(output), *arguments])


def weights(path):
    return load_checkpoint(path).model.state_dict()


def test_an_interrupted_run_goes_on_as_if_nothing_had_happened(data, tmp_path, monkeypatch):
    short = ["training.epochs=2", "training.batch_size=8", "training.regions=8"]
    assert run(data, tmp_path / "whole", *short) == 0
    keep = run_module.save_checkpoint

    def keep_once(checkpoint, path):
        keep(checkpoint, path)
        raise KeyboardInterrupt

    monkeypatch.setattr(run_module, "save_checkpoint", keep_once)
    assert run(data, tmp_path / "part", *short) == 130
    monkeypatch.setattr(run_module, "save_checkpoint", keep)
    assert load_checkpoint(tmp_path / "part/last.pt").state["position"]["epoch"] == 1
    assert run(data, tmp_path / "part", *short) == 1  # would overwrite
    assert run(data, tmp_path / "part", *short, "--resume") == 0
    expected = weights(tmp_path / "whole/last.pt")
    for name, tensor in weights(tmp_path / "part/last.pt").items():
        torch.testing.assert_close(tensor, expected[name], msg=name)


def test_a_quota_limits_the_threads_of_training(data, tmp_path, monkeypatch):
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    monkeypatch.setattr(run_module.kernels, "thread_limit", lambda: 1)
    try:
        assert run(data, tmp_path / "run", "--max-steps", "1", "training.epochs=1") == 0
        assert torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(before)


def test_a_run_leaves_logs_and_provenance(data, tmp_path):
    assert run(data, tmp_path / "run", "--max-steps", "2") == 0
    lines = [json.loads(line) for line in (tmp_path / "run/losses.jsonl").read_text().splitlines()]
    assert {line["tag"] for line in lines} == {
        "loss/rpn_objectness",
        "loss/rpn_box",
        "loss/box",
        "loss/seen",
        "loss/unseen",
        "loss/contrast",
        "rate",
    }
    assert list((tmp_path / "run").glob("events.out.tfevents.*"))
    checkpoint = load_checkpoint(tmp_path / "run/last.pt")
    assert checkpoint.seen == shapes.SEEN
    assert checkpoint.unseen == shapes.UNSEEN
    assert checkpoint.training["counts"]["images"] == 24
    expected = np.stack([shapes.vector(name) for name in shapes.SEEN + shapes.UNSEEN])
    np.testing.assert_allclose(checkpoint.vectors, expected, atol=1e-7)


@pytest.mark.parametrize(
    ("override", "tags"),
    [
        ("loss.unseen_weight=0", {"contrast"}),
        ("loss.contrast_weight=0", {"unseen"}),
        ("loss.reduction=sum", {"contrast", "unseen"}),
        ("model.regions.pooling=pool", {"contrast", "unseen"}),
        ("model.proposals.objectness=iou", {"contrast", "unseen"}),
        ("model.scoring.background=mean", {"contrast", "unseen"}),
        ("training.amp=false", {"contrast", "unseen"}),
        ("model.regions={conv5: map, stride: 32, output_size: [2, 2]}", {"contrast", "unseen"}),
        ("model.regions={conv5: map, output_size: [2, 2], box_hidden: 8}", {"contrast", "unseen"}),
    ],
)
def test_every_option_trains(data, tmp_path, override, tags):
    assert run(data, tmp_path, override, "training.learning_rate=1e-5", "--max-steps", "2") == 0
    lines = [json.loads(line) for line in (tmp_path / "losses.jsonl").read_text().splitlines()]
    assert {line["tag"].removeprefix("loss/") for line in lines} & {"contrast", "unseen"} == tags


def test_the_background_vector_can_live_in_the_rpn(data, tmp_path):
    options = ["model.proposals.objectness=background", "model.scoring.background=rpn"]
    assert run(data, tmp_path, *options, "--max-steps", "2") == 0
    model = load_checkpoint(tmp_path / "last.pt").model
    assert model.scorer.background is model.trunk.rpn.background


def test_cached_training_needs_a_frozen_backbone_and_then_works(data, tmp_path, capsys):
    cached = [
        "training.cache=regions",
        "training.epochs=1",
        "training.head_epochs=1",
        "training.balance=0.5",
        "training.dropout=0.2",
    ]
    assert run(data, tmp_path / "a", *cached) == 1
    assert "set training.cache to none" in capsys.readouterr().err.lower()
    cached.append("model.backbone.frozen=all")
    assert run(data, tmp_path / "b", *cached) == 0
    before = weights(tmp_path / "b/last.pt")
    position = load_checkpoint(tmp_path / "b/last.pt").state["position"]
    assert position["phase"] == 2
    assert run(data, tmp_path / "b", *cached, "--resume") == 0
    for name, tensor in weights(tmp_path / "b/last.pt").items():
        assert torch.equal(tensor, before[name]), name  # finished: nothing left to do


def test_a_dead_g_s_is_refused(data, tmp_path, capsys):
    config = load_config(data["config"], ["model.scoring.seen_activation=relu"])
    assert config.model.scoring.seen_activation == "relu"
    outcomes = set()
    for seed in range(12):
        code = run(
            data,
            tmp_path / str(seed),
            "model.scoring.seen_activation=relu",
            f"training.seed={seed}",
            "--max-steps",
            "1",
        )
        outcomes.add(code)
        if code:
            assert "g_s is dead" in capsys.readouterr().err
        if outcomes == {0, 1}:
            return
    pytest.fail(f"of 12 seeds, all ended with {outcomes}")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["data.vectors="], "data.vectors is None, must be of type str"),
        (["data.vectors=''"], "data.vectors is empty"),
        (["data.annotations=[]"], "data.annotations is empty"),
        (["data.images=[]"], "data.images is empty"),
        (["--max-steps", "-1"], "max_steps is -1, must not be negative"),
        (["--resume"], "cannot read checkpoint"),
    ],
)
def test_what_cannot_train_is_a_sentence(data, tmp_path, capsys, arguments, says):
    assert run(data, tmp_path / "run", *arguments) == 1
    assert says in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_a_backbone_of_random_weights_is_visible(data, tmp_path, capsys):
    frozen = "model.backbone.frozen=bottom"
    assert run(data, tmp_path / "run", frozen, "--max-steps", "1") == 0
    assert "random weights, and its bottom stays so" in capsys.readouterr().err
    assert run(data, tmp_path / "run", frozen, "--resume") == 0
    assert "random weights" not in capsys.readouterr().err


def test_a_folder_that_cannot_be_made_or_a_missing_gpu_is_a_sentence(
    data, tmp_path, monkeypatch, capsys
):
    (tmp_path / "file").touch()
    assert run(data, tmp_path / "file/run") == 1
    assert "cannot write into" in capsys.readouterr().err
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert run(data, tmp_path / "run", "--device", "cuda") == 1
    assert "no CUDA GPU" in capsys.readouterr().err


@pytest.mark.slow
def test_two_processes_train_one_model(data, tmp_path):
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--nproc_per_node=2",
        "--standalone",
        "--local-addr=127.0.0.1",
        "-m",
        "zsd_core.train",
        str(data["config"]),
        "--output",
        str(tmp_path),
        "--max-steps",
        "2",
        "--device",
        "cpu",
    ]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    assert load_checkpoint(tmp_path / "last.pt").state["position"]["step"] == 2
