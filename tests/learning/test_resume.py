"""A run goes on from a checkpoint that is right, says what is wrong with others, and is alone."""

from __future__ import annotations

import copy
import dataclasses
import os
import shutil
from pathlib import Path

import pytest
import shapes
import torch

from zsd_core.errors import DataError
from zsd_core.folders import lock_folder
from zsd_core.learning.checkpoint import load_checkpoint, save_checkpoint
from zsd_core.learning.training.position import read_position, restore_optimizer
from zsd_core.learning.training.regions import link_regions
from zsd_core.train import main

SAVE = "zsd_core.learning.training.run.save_checkpoint"


class StoppedError(Exception):
    pass


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    """The configuration file beside its images, split and vectors."""
    folder = tmp_path_factory.mktemp("shapes")
    return shapes.write_config(folder, 8, shapes.SMALL, size=64)


def run(data, output, *arguments):
    return main([str(data), "--output", str(output), "training.epochs=2", *arguments])


def stopped(data, output, before, *arguments):
    """A run that is killed before it writes a checkpoint that ``before(path, position)`` names."""

    def killed(checkpoint, path):
        if before(path, checkpoint.state["position"]):
            raise StoppedError
        save_checkpoint(checkpoint, path)

    with pytest.MonkeyPatch.context() as patch, pytest.raises(StoppedError):
        patch.setattr(SAVE, killed)
        run(data, output, *arguments)


@pytest.fixture(scope="module")
def whole(data, tmp_path_factory):
    """The folder of a run that nothing stopped."""
    folder = tmp_path_factory.mktemp("whole")
    assert run(data, folder) == 0
    return folder


@pytest.fixture(scope="module")
def half(data, tmp_path_factory):
    """The folder of a run that stopped in its first phase, with the optimiser's state."""
    folder = tmp_path_factory.mktemp("half")
    stopped(data, folder, lambda path, position: position["epoch"] == 2)
    return folder


def weights(path):
    return load_checkpoint(path).model.state_dict()


def assert_same(one, other):
    ours, theirs = weights(one), weights(other)
    assert all(torch.equal(tensor, theirs[name]) for name, tensor in ours.items())


def test_a_run_that_stopped_ends_as_one_that_did_not(data, whole, half, tmp_path):
    shutil.copytree(half, tmp_path / "run")
    assert run(data, tmp_path / "run", "--resume") == 0
    for name in ("last.pt", "proposals.pt"):
        assert_same(tmp_path / "run" / name, whole / name)
    logs = [(folder / "losses.jsonl").read_text() for folder in (tmp_path / "run", whole)]
    assert logs[0] == logs[1]


def changed(**values):
    return lambda state: state["position"].update(values)


def of_optimizer(change):
    return lambda state: change(state["position"]["optimizer"])


def moment(name, value):
    return of_optimizer(lambda optimizer: optimizer["state"][0].update({name: value}))


DAMAGED = {
    "no position": (dict.clear, "does not say where its run stopped"),
    "position": (lambda state: state.update(position=[1]), "does not say where its run stopped"),
    "other name": (changed(phases=1), "its position has 'phases'"),
    "phase": (changed(phase="one"), "phase of its position is 'one', must be a whole number"),
    "large": (changed(step=10**20), "step of its position is 100000000000000000000"),
    "too large": (
        changed(step=-(10**5000)),
        "step of its position is a value of type int that is too large",
    ),
    "epoch": (changed(epoch=-1), "epoch of its position is -1"),
    "step": (changed(step=True), "step of its position is True"),
    "random list": (changed(random=[1]), "its random state is a list, must be a tensor"),
    "random type": (changed(random=torch.zeros(5056)), "random state is none of this version"),
    "random length": (changed(random=torch.zeros(3, dtype=torch.uint8)), "random state is none"),
    "optimiser": (changed(optimizer=3), "its optimiser's state is none"),
    "moments": (of_optimizer(lambda o: o.update(state=[])), "holds no values of parameters"),
    "groups": (of_optimizer(lambda o: o.update(param_groups={})), "no groups of parameters"),
    "numbers": (of_optimizer(lambda o: o["param_groups"][0].pop("params")), "do not number"),
    "parameters": (
        of_optimizer(lambda o: o["param_groups"][0]["params"].pop()),
        "it is of other parameters",
    ),
    "another parameter": (
        of_optimizer(lambda o: o["state"].update({99: o["state"][0]})),
        "parameter 99 is none of the",
    ),
    "of SGD": (
        of_optimizer(lambda o: o["state"].update({0: {"momentum_buffer": torch.zeros(1)}})),
        "parameter 0 has momentum_buffer",
    ),
    "shape": (moment("exp_avg", torch.zeros(1)), "exp_avg of parameter 0 is not finite or not of"),
    "kind": (moment("exp_avg", 1.0), "exp_avg of parameter 0 is no tensor of numbers"),
    "finite": (moment("step", torch.tensor(float("nan"))), "step of parameter 0 is not finite"),
    "negative": (moment("step", torch.tensor(-1.0)), "step of parameter 0 is negative"),
}


# Damage that shows only beside the optimiser of the phase that goes on.
LATE = ("parameters", "another parameter", "of SGD", "shape", "kind", "finite", "negative")


@pytest.mark.parametrize("name", [name for name in DAMAGED if name not in LATE])
def test_a_position_that_training_does_not_write_is_named(half, name):
    damage, sentence = DAMAGED[name]
    checkpoint = load_checkpoint(half / "last.pt")
    read_position(checkpoint, Path("last.pt"))
    damage(checkpoint.state)
    with pytest.raises(DataError, match=r"^last\.pt ") as caught:
        read_position(checkpoint, Path("last.pt"))
    assert sentence in str(caught.value)


@pytest.mark.parametrize("name", ["no position", *LATE])
def test_a_checkpoint_that_cannot_be_gone_on_from_is_named_with_the_cure(
    data, half, tmp_path, capsys, name
):
    damage, sentence = DAMAGED[name]
    checkpoint = load_checkpoint(half / "last.pt")
    damage(checkpoint.state)
    path = tmp_path / "last.pt"
    save_checkpoint(checkpoint, path)
    before = path.read_bytes()
    assert run(data, tmp_path, "--resume") == 1
    error = capsys.readouterr().err
    assert f"{path} " in error and sentence in error
    assert "take a whole copy of it, or train from the beginning into another --output" in error
    assert path.read_bytes() == before


@pytest.mark.parametrize("seconds", [None, "1", -1.0, float("nan"), float("inf")])
@pytest.mark.parametrize("start", ["--resume", "--from"])
def test_a_checkpoint_without_its_time_is_named(data, whole, tmp_path, capsys, seconds, start):
    checkpoint = load_checkpoint(whole / "proposals.pt")
    training = {**checkpoint.training, "seconds": seconds}
    path = tmp_path / "last.pt"
    save_checkpoint(dataclasses.replace(checkpoint, training=training), path)
    arguments = [start] if start == "--resume" else [start, str(path)]
    output = tmp_path if start == "--resume" else tmp_path / "new"
    assert run(data, output, *arguments) == 1
    assert (
        f"{path} is damaged: its run has trained for {seconds!r} seconds" in capsys.readouterr().err
    )


def test_proposals_of_a_checkpoint_without_a_position_are_refused(data, whole, tmp_path, capsys):
    path = tmp_path / "proposals.pt"
    checkpoint = load_checkpoint(whole / "proposals.pt")
    save_checkpoint(dataclasses.replace(checkpoint, state={}), path)
    assert run(data, tmp_path / "new", "--from", str(path)) == 1
    assert f"{path} does not say where its run stopped" in capsys.readouterr().err


@pytest.mark.parametrize("kind", [torch.optim.AdamW, torch.optim.SGD])
def test_an_optimiser_goes_on_with_its_moments_and_the_options_of_now(kind):
    def stepped(optimizer, parameter):
        parameter.grad = torch.full_like(parameter, 0.5)
        optimizer.step()

    more = {"momentum": 0.9} if kind is torch.optim.SGD else {}
    before, after = (torch.nn.Parameter(torch.ones(2, 3)) for _ in range(2))
    first = kind([before], lr=0.1, weight_decay=0.1, **more)
    stepped(first, before)
    after.data.copy_(before.data)
    second = kind([after], lr=0.1, weight_decay=0.0, **more)
    restore_optimizer(second, copy.deepcopy(first.state_dict()), "last.pt")
    assert second.param_groups[0]["weight_decay"] == 0
    first.param_groups[0]["weight_decay"] = 0.0
    stepped(first, before)
    stepped(second, after)
    assert torch.equal(before, after)
    other = kind([after, torch.nn.Parameter(torch.ones(1))], lr=0.1, **more)
    with pytest.raises(DataError, match=r"last\.pt is damaged.*of other parameters"):
        restore_optimizer(other, first.state_dict(), "last.pt")


def test_damaged_lines_of_the_log_are_left_out_and_told(data, whole, half, tmp_path, capsys):
    shutil.copytree(half, tmp_path / "run")
    path = tmp_path / "run/losses.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    damaged = (b"\0\0\0\0}\n", b"\xff\xfe}\n", b"[1]\n", b'{"step": "x"}\n', b"[" * 10_000 + b"\n")
    path.write_bytes(b"".join([lines[0], *damaged, *lines[1:], b'{"step": 1, "ta']))
    assert run(data, tmp_path / "run", "--resume") == 0
    assert f"{path}: 5 damaged lines are left out" in capsys.readouterr().err
    assert path.read_text() == (whole / "losses.jsonl").read_text()


def test_a_full_disk_leaves_the_log_as_it_was(data, half, tmp_path, monkeypatch, capsys):
    shutil.copytree(half, tmp_path / "run")
    path = tmp_path / "run/losses.jsonl"
    before = path.read_bytes()

    def full(file, content):
        file.touch()
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    assert run(data, tmp_path / "run", "--resume") == 1
    assert "losses.jsonl cannot be written (No space left on device)" in capsys.readouterr().err
    assert path.read_bytes() == before


@pytest.mark.parametrize("at", ["proposals.pt", "last.pt"])
def test_a_run_killed_between_the_two_checkpoints_of_a_phase_writes_both(data, whole, tmp_path, at):
    stopped(data, tmp_path, lambda path, position: position["phase"] == 1 and path.name == at)
    assert run(data, tmp_path, "--resume") == 0
    for name in ("last.pt", "proposals.pt"):
        assert_same(tmp_path / name, whole / name)


def test_a_folder_is_for_one_run_at_a_time(data, half, tmp_path, capsys):
    shutil.copytree(half, tmp_path / "run")
    before = (tmp_path / "run/last.pt").read_bytes()
    (tmp_path / "new").mkdir()
    for output, arguments in ((tmp_path / "run", ["--resume"]), (tmp_path / "new", [])):
        with lock_folder(output):
            assert run(data, output, *arguments) == 1
        assert f"{output} is in use by another run" in capsys.readouterr().err
    assert (tmp_path / "run/last.pt").read_bytes() == before
    assert [path.name for path in (tmp_path / "new").iterdir()] == [".lock"]
    (tmp_path / "run/.last.pt.1.part").touch()  # of a killed run
    assert run(data, tmp_path / "run", "--resume") == 0
    assert not list((tmp_path / "run").glob(".*.part"))


def test_a_run_that_came_and_went_meanwhile_is_not_overwritten(data, half, tmp_path, monkeypatch):
    """Between the first look at the folder and its lock."""

    def locked(folder):
        shutil.copy(half / "last.pt", folder / "last.pt")
        return lock_folder(folder)

    monkeypatch.setattr("zsd_core.learning.training.run.lock_folder", locked)
    assert run(data, tmp_path / "run") == 1
    assert (tmp_path / "run/last.pt").read_bytes() == (half / "last.pt").read_bytes()


def test_a_copy_of_kept_regions_that_is_cut_short_is_no_file(tmp_path, monkeypatch):
    source, target = tmp_path / "source.pt", tmp_path / "run/regions.pt"
    source.write_bytes(b"regions")

    def elsewhere(*_):
        raise OSError(18, "Invalid cross-device link")

    def cut(_, place):
        Path(place).write_bytes(b"reg")
        raise KeyboardInterrupt

    link_regions(source, target)
    assert os.path.samefile(source, target)
    monkeypatch.setattr(os, "link", elsewhere)
    target.write_bytes(b"others")
    source.write_bytes(b"regions")
    target.unlink()
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(shutil, "copyfile", cut)
        link_regions(source, target)
    assert list(target.parent.iterdir()) == []
    link_regions(source, target)
    assert target.read_bytes() == b"regions" and not os.path.samefile(source, target)


def test_a_checkpoint_is_on_disk_before_it_has_its_name(half, tmp_path, monkeypatch):
    checkpoint, order = load_checkpoint(half / "last.pt"), []
    sync, replace = os.fsync, Path.replace
    monkeypatch.setattr(os, "fsync", lambda d: (order.append("disk"), sync(d)))
    monkeypatch.setattr(Path, "replace", lambda a, b: (order.append("name"), replace(a, b)))
    save_checkpoint(checkpoint, tmp_path / "last.pt")
    assert order == ["disk", "name", "disk"]
