"""Checkpoints come back whole, or not at all."""

from __future__ import annotations

import dataclasses
import zipfile

import numpy as np
import pytest
import torch

from zsd_core.config import BackboneConfig, ModelConfig, ProposalConfig, ScoringConfig
from zsd_core.errors import ConfigError, DataError
from zsd_core.learning.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from zsd_core.learning.experiment import Config
from zsd_core.learning.models import ContrastZSD


@pytest.fixture(scope="module")
def checkpoint():
    torch.manual_seed(0)
    model = ModelConfig(
        backbone=BackboneConfig(name="resnet18", frozen="all"),
        proposals=ProposalConfig(channels=8, objectness="background"),
        scoring=ScoringConfig(
            vector_dim=6, joint_dim=8, hidden_dim=8, contrast_dim=8, background="rpn"
        ),
    )
    return Checkpoint(
        config=Config(model=model),
        model=ContrastZSD(model),
        seen=("a", "b"),
        unseen=("c",),
        vectors=np.eye(3, 6, dtype=np.float32),
        training={"seconds": 1.5},
        state={"position": {"phase": 0}},
    )


def test_what_is_saved_is_loaded(checkpoint, tmp_path):
    save_checkpoint(checkpoint, tmp_path / "deep" / "last.pt")
    loaded = load_checkpoint(tmp_path / "deep" / "last.pt")
    assert loaded.config == checkpoint.config
    assert (loaded.seen, loaded.unseen) == (("a", "b"), ("c",))
    assert (loaded.training, loaded.state) == (checkpoint.training, checkpoint.state)
    np.testing.assert_array_equal(loaded.vectors, checkpoint.vectors)
    expected = checkpoint.model.state_dict()
    assert all(torch.equal(v, expected[k]) for k, v in loaded.model.state_dict().items())
    assert not loaded.model.training
    assert [p.name for p in (tmp_path / "deep").iterdir()] == ["last.pt"]


@pytest.mark.parametrize("method", ["contrastzsd", "conse", "hre"])
def test_loading_draws_no_random_numbers(checkpoint, tmp_path, method):
    scoring = dataclasses.replace(checkpoint.config.model.scoring, method=method)
    model = dataclasses.replace(checkpoint.config.model, scoring=scoring)
    network = ContrastZSD(model)
    network.scorer.read_classes(*torch.from_numpy(checkpoint.vectors).split([2, 1]))
    made = dataclasses.replace(checkpoint, config=Config(model=model), model=network)
    save_checkpoint(made, tmp_path / "last.pt")
    before = torch.get_rng_state()
    load_checkpoint(tmp_path / "last.pt")
    assert torch.equal(torch.get_rng_state(), before)


def test_a_damaged_foreign_missing_or_newer_file_is_named(checkpoint, tmp_path):
    path = tmp_path / "last.pt"
    with pytest.raises(DataError, match="cannot read checkpoint"):
        load_checkpoint(path)
    save_checkpoint(checkpoint, path)
    path.write_bytes(path.read_bytes()[:-500])
    with pytest.raises(DataError, match="is not a checkpoint of this project"):
        load_checkpoint(path)
    torch.save({"model": {}}, path)
    with pytest.raises(DataError, match="is not a checkpoint of this project"):
        load_checkpoint(path)
    path.write_text('{"seed": 0}')
    with pytest.raises(DataError, match=r"or is damaged; train writes last\.pt\.$"):
        load_checkpoint(path)  # not torch's own advice, to load what it distrusts
    torch.save({"format": 99}, path)
    with pytest.raises(DataError, match="format 99, this version reads up to 1"):
        load_checkpoint(path)


def other(path, **values):
    """The file again, some of its values replaced."""
    torch.save({**torch.load(path, weights_only=True), **values}, path)
    return path


@pytest.mark.parametrize(
    "vectors",
    [
        torch.empty(3, 6, device="meta"),
        torch.eye(3, 6).to_sparse(),
        torch.eye(3, 6).to(torch.complex64),
        torch.eye(3, 6).bool(),
        torch.eye(3, 6).double(),
        torch.full((3, 6), torch.nan),
    ],
    ids=["meta", "sparse", "complex", "bool", "double", "NaN"],
)
def test_vectors_are_plain_numbers(checkpoint, tmp_path, vectors):
    save_checkpoint(checkpoint, path := tmp_path / "last.pt")
    with pytest.raises(
        DataError, match=r"damaged: ('vectors' is no|its class vectors)|or is damaged"
    ):
        load_checkpoint(other(path, vectors=vectors))


def test_vectors_that_gradients_were_asked_for_are_read(checkpoint, tmp_path):
    save_checkpoint(checkpoint, path := tmp_path / "last.pt")
    loaded = load_checkpoint(other(path, vectors=torch.eye(3, 6).requires_grad_()))
    np.testing.assert_array_equal(loaded.vectors, checkpoint.vectors)


def _other_weights(state):
    name = next(name for name in state if name.endswith("weight"))
    value = state[name]
    return {
        "meta": ({name: value.to("meta")}, "is no tensor of plain numbers"),
        "sparse": ({name: value.to_sparse()}, "is no tensor of plain numbers|or is damaged"),
        "complex": ({name: value.to(torch.complex64)}, "complex64, must be of shape .*float32"),
        "bool": ({name: value.bool()}, "bool, must be of shape .*float32"),
        "text": ({name: "x"}, "is no tensor of plain numbers"),
        "number as name": ({3: torch.zeros(1)}, "the model has no weights 3"),
        "one more": ({"x" * 9000: torch.zeros(1)}, r"the model has no weights 'x+"),
    }


KINDS = ["meta", "sparse", "complex", "bool", "text", "number as name", "one more"]


@pytest.mark.parametrize("kind", KINDS)
def test_weights_are_those_of_the_model(checkpoint, tmp_path, kind):
    save_checkpoint(checkpoint, path := tmp_path / "last.pt")
    state = torch.load(path, weights_only=True)["model"]
    changed, message = _other_weights(state)[kind]
    with pytest.raises(DataError, match=message) as error:
        load_checkpoint(other(path, model={**state, **changed}))
    assert len(str(error.value)) < 600


def test_one_number_does_not_stand_for_gigabytes(checkpoint, tmp_path):
    save_checkpoint(checkpoint, path := tmp_path / "last.pt")
    state = torch.load(path, weights_only=True)["model"]
    state = {name: value.flatten()[:1].sum().expand(value.shape) for name, value in state.items()}
    with pytest.raises(DataError, match=r"it has \d+ bytes, and its tensors \d+"):
        load_checkpoint(other(path, model=state))


def test_packed_records_are_not_unpacked(checkpoint, tmp_path):
    save_checkpoint(checkpoint, path := tmp_path / "last.pt")
    with zipfile.ZipFile(path) as source:
        records = {info.filename: source.read(info) for info in source.infolist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as target:
        for name, data in records.items():
            target.writestr(name, data)
    with pytest.raises(DataError, match="is packed in it"):
        load_checkpoint(path)


def test_a_class_is_there_once(checkpoint, tmp_path):
    save_checkpoint(checkpoint, path := tmp_path / "last.pt")
    with pytest.raises(DataError, match="two of its classes have one name"):
        load_checkpoint(other(path, seen=["A", "b"], unseen=["a"]))


def test_a_failed_write_leaves_the_older_file(checkpoint, tmp_path, monkeypatch):
    path = tmp_path / "last.pt"
    save_checkpoint(checkpoint, path)
    before = path.read_bytes()
    for error in (OSError(28, "No space left"), RuntimeError("unexpected pos 660224 vs 660112")):

        def fails(values, partial, error=error):
            partial.write_bytes(b"a part")
            raise error

        monkeypatch.setattr(torch, "save", fails)
        with pytest.raises(ConfigError, match=r"last\.pt cannot be written \(.*make room"):
            save_checkpoint(checkpoint, path)
        assert path.read_bytes() == before
        assert list(tmp_path.iterdir()) == [path]
