"""Calibration: from seen classes alone, stored, and the same numbers as evaluation from images."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import shapes
import torch

from zsd_core.calibrate import main as calibrate_main
from zsd_core.errors import DataError
from zsd_core.learning import balance, metrics
from zsd_core.learning.calibration import CUTS, balanced_f1
from zsd_core.learning.checkpoint import load_checkpoint, save_checkpoint
from zsd_core.learning.data.coco import read_coco
from zsd_core.learning.data.dataset import image_record
from zsd_core.learning.data.protocol import test_set as make_test
from zsd_core.learning.data.protocol import training_set
from zsd_core.learning.data.splits import load_split
from zsd_core.learning.evaluation import checkpoint_predictor, evaluate
from zsd_core.learning.matching import match
from zsd_core.learning.models import ContrastZSD
from zsd_core.learning.training.kept import (
    class_set_of,
    describe_photographs,
    load_regions,
    matches_of,
    score_photographs,
    train_scoring,
)
from zsd_core.scoring import scorer_for
from zsd_core.train import main as train

CONFIG = """
model:
  preprocess: {shorter_edge: 64, longer_edge: 64}
  backbone: {name: resnet18, frozen: all}
  proposals:
    {channels: 16, anchor_sizes: [16, 32], pre_nms_top: 100, post_nms_top: 20, min_size: 4}
  regions: {output_size: [2, 2]}
  scoring:
    {vector_dim: 6, joint_dim: 16, hidden_dim: 8, contrast_dim: 8, similarity_temperature: 0.2}
training:
  {optimizer: adamw, learning_rate: 0.001, schedule: cosine, batch_size: 4, cache: regions,
   regions: 16, foreground: 0.5, workers: 0, epochs: 1, head_epochs: 1}
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A folder with data, split, a trained checkpoint and its kept regions."""
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("calibrate")
    config = shapes.write_config(folder, 40, CONFIG, shapes.CLASSES, size=64)
    assert train([str(config), "--output", str(folder), "--max-steps", "2"]) == 0
    return folder


@pytest.fixture
def parts(run, monkeypatch):
    """Arguments of ``fit``, with every class allowed to play unseen: there are few photographs."""
    monkeypatch.setattr(balance, "LEAST", 1)
    monkeypatch.setattr(balance, "MOST", 1.0)
    monkeypatch.setattr(balance, "SCALES", (0.25, 1.0, 4.0))
    monkeypatch.setattr(balance, "TEMPERATURES", (0.05, 1.0))
    checkpoint = load_checkpoint(run / "last.pt")
    split = load_split(run / "split.json")
    data = checkpoint.config.data
    training = training_set(read_coco(Path(data.annotations[0]), Path(data.images[0])), split)
    return checkpoint, load_regions(run / "regions.pt"), training, split


SHORT = {"photographs": 8, "steps": 3}


def test_the_command_stores_what_it_measured(run, parts, tmp_path, capsys):
    arguments = [
        "--checkpoint",
        run / "last.pt",
        "--output",
        tmp_path / "new.pt",
        "--json",
        tmp_path / "new.json",
        "--photographs",
        8,
        "--steps",
        3,
    ]
    assert calibrate_main([str(a) for a in arguments]) == 0
    result = json.loads((tmp_path / "new.json").read_text())
    new, old = load_checkpoint(tmp_path / "new.pt"), load_checkpoint(run / "last.pt")
    scoring = new.config.model.scoring
    assert scoring.seen_scale == result["seen_scale"] in (0.25, 1.0, 4.0)
    assert scoring.similarity_temperature == result["similarity_temperature"] in (0.05, 0.2, 1.0)
    assert new.config.model.detection.score_threshold == result["score_threshold"] > 0
    assert new.training["calibration"] == result
    for name, tensor in old.model.state_dict().items():
        assert torch.equal(new.model.state_dict()[name], tensor), name
    assert result["after"]["f1"] == max(point["f1"] for point in result["curve"])
    assert result["after"]["hm"] == max(tried["hm"] for tried in result["temperatures"].values())
    assert [point["seen_scale"] for point in result["curve"]] == [0.25, 1.0, 4.0]
    assert "HM" in capsys.readouterr().out


def test_heads_of_a_warm_start_need_no_step(run, parts, tmp_path, capsys):
    checkpoint, *_ = parts
    scoring = dataclasses.replace(checkpoint.config.model.scoring, joint_dim=64)
    base = dataclasses.replace(checkpoint.config.model, scoring=scoring)
    training = dataclasses.replace(checkpoint.config.training, warm_start=1.0)
    config = dataclasses.replace(checkpoint.config, model=base, training=training)
    model = ContrastZSD(base).eval()
    model.trunk.load_state_dict(checkpoint.model.trunk.state_dict())
    seen = len(checkpoint.seen)
    vectors = torch.from_numpy(checkpoint.vectors)
    model.scorer.read_classes(vectors[:seen], vectors[seen:])
    warm = tmp_path / "warm.pt"
    save_checkpoint(dataclasses.replace(checkpoint, config=config, model=model), warm)

    def command(path, *more):
        arguments = ["--checkpoint", path, "--regions", run / "regions.pt", "--photographs", 8]
        arguments += ["--output", tmp_path / "calibrated.pt"]
        return calibrate_main([str(a) for a in (*arguments, "--steps", 0, *more)])

    assert command(run / "last.pt") == 1  # its heads are not a warm start
    assert "steps is 0" in capsys.readouterr().err
    assert command(warm, "--json", tmp_path / "warm.json") == 0
    result = json.loads((tmp_path / "warm.json").read_text())
    assert result["options"]["steps"] == 0
    assert result["after"]["seen"] > 0  # heads that know the seen classes without a step


def test_the_f1_of_two_draws_is_that_of_one_threshold(parts, monkeypatch):
    checkpoint, kept, training, split = parts
    measured = []

    def spy(matches):
        measured.append(balanced_f1(matches))
        return measured[-1]

    monkeypatch.setattr(balance, "balanced_f1", spy)
    result = balance.fit(checkpoint, kept, training, split, **SHORT, draws=2)
    at = CUTS.index(result["score_threshold"])
    assert at > 0
    tries = np.reshape(measured, (2, -1, len(CUTS))).mean(axis=0)  # every temperature and factor
    assert np.isclose(100 * tries[:, at], result["after"]["f1"]).any()


def test_no_unseen_annotation_and_no_unseen_vector_enters_the_fit(parts):
    checkpoint, kept, training, split = parts
    expected = balance.fit(checkpoint, kept, training, split, **SHORT)
    drawn = expected["draws"][0]["pseudo-unseen"]
    assert drawn and set(drawn) <= set(split.seen)

    blind = checkpoint.vectors.copy()
    blind[len(split.seen) :] = np.nan
    again = balance.fit(
        dataclasses.replace(checkpoint, vectors=blind), kept, training, split, **SHORT
    )
    assert again == expected

    first = training.images[0]
    label = (split.unseen[0], *first.labels[1:])
    leaking = dataclasses.replace(
        training, images=(dataclasses.replace(first, labels=label), *training.images[1:])
    )
    with pytest.raises(DataError, match="leakage"):
        balance.fit(checkpoint, kept, leaking, split, **SHORT)
    labels = kept.labels.clone()
    labels[0] = len(split.seen) + 1
    with pytest.raises(DataError, match="only those may take part"):
        balance.fit(checkpoint, dataclasses.replace(kept, labels=labels), training, split, **SHORT)


def test_pseudo_unseen_photographs_do_not_train(parts, monkeypatch):
    checkpoint, kept, training, split = parts
    seen_rows = []

    def spy(base, config, vectors, features, labels, **options):
        seen_rows.append((features, labels))
        return train_scoring(base, config, vectors, features, labels, **options)

    monkeypatch.setattr(balance, "train_scoring", spy)
    result = balance.fit(checkpoint, kept, training, split, **SHORT)
    (features, labels), drawn = seen_rows[0], set(result["draws"][0]["pseudo-unseen"])
    assert 0 < len(features) < len(kept.features)
    assert int(labels.max()) <= len(split.seen) - len(drawn)
    owner = kept.photographs(training.images, checkpoint.config)
    clean = torch.tensor([drawn.isdisjoint(image.labels) for image in training.images])
    assert torch.equal(features, kept.features[clean[owner]])


def test_regions_of_other_photographs_are_refused(parts):
    checkpoint, kept, training, _ = parts
    with pytest.raises(DataError, match="kept regions are not"):
        kept.photographs([*training.images, training.images[0]], checkpoint.config)
    owner = kept.photographs(training.images, checkpoint.config)
    assert torch.equal(owner, kept.owners)  # every photograph is shown once
    with pytest.raises(DataError, match=r"is not there; training with training\.cache: regions"):
        load_regions(Path("/nowhere/regions.pt"))
    with pytest.raises(DataError, match="does not hold kept regions"):
        load_regions(Path(__file__))


def test_photographs_with_few_regions_are_known_too(run, tmp_path):
    """Hardly a region leaves such an NMS, and training asks for 100 of a photograph."""
    few = ["model.proposals.nms_threshold=0.01", "training.regions=100"]
    arguments = [str(run / "shapes.yaml"), "--output", str(tmp_path), "--max-steps", "2", *few]
    assert train(arguments) == 0
    checkpoint, kept = load_checkpoint(tmp_path / "last.pt"), load_regions(tmp_path / "regions.pt")
    data, training = checkpoint.config.data, checkpoint.config.training
    split = load_split(run / "split.json")
    photographs = training_set(read_coco(Path(data.annotations[0]), Path(data.images[0])), split)
    owner = kept.photographs(photographs.images, checkpoint.config)
    counts = torch.bincount(owner)
    assert 0 < counts.min() < training.regions * training.versions
    for index, image in enumerate(photographs.images):
        labels = set(kept.labels[owner == index].tolist()) - {0}
        assert labels <= {1 + split.seen.index(name) for name in image.labels}


def test_kept_regions_give_the_numbers_of_evaluation_from_images(run, parts):
    checkpoint, _, _, split = parts
    data = checkpoint.config.data
    everything = read_coco(Path(data.annotations[0]), Path(data.images[0]))
    predict, names, _ = checkpoint_predictor(run / "last.pt", split)
    expected = evaluate(predict, names, everything, split, samples=0)["tasks"]
    for task in ("zsd", "gzsd"):
        test = make_test(everything, split, task)
        found = describe_photographs(checkpoint.model, test)
        config = checkpoint.config.model
        scorer, classes = class_set_of(
            checkpoint.model, config, names, checkpoint.vectors, len(split.seen)
        )
        scores = score_photographs(checkpoint.model, scorer, classes, found)
        matches = matches_of(test, found, scores, names, split.seen, config)
        got = metrics.report(matches, samples=0)
        assert got["values"] == expected[task]["values"]
        assert any(entry["boxes"] for entry in got["classes"])


def test_a_factor_on_final_scores_is_seen_scale(parts):
    checkpoint = parts[0]
    config, vectors = checkpoint.config.model.scoring, checkpoint.vectors
    embeddings = np.random.default_rng(0).random((5, 16), np.float32)
    scores = {}
    for scale in (1.0, 0.25):
        scoring = dataclasses.replace(config, seen_scale=scale)
        scorer = scorer_for(scoring, checkpoint.model.scorer_tensors())
        names = checkpoint.seen + checkpoint.unseen
        classes = scorer.class_set(names[:7], vectors[:7], names[7:], vectors[7:])
        scores[scale] = scorer.score(embeddings, np.ones(5, np.float32), classes)
    seen = []
    balance.curve([scores[1.0]], 7, [0.25], lambda s: seen.extend(s) or _nothing())
    np.testing.assert_array_equal(seen[0], scores[0.25])


def _nothing():
    image = image_record(
        where="here",
        path=Path("a.png"),
        id=0,
        width=9,
        height=9,
        boxes=[[1, 1, 5, 5]],
        labels=["a"],
    )
    return match([image], [(np.zeros((0, 4)), [], [])], ["a", "b"], ["a"])


def test_training_scoring_leaves_the_base_alone_and_repeats_itself(parts):
    checkpoint, kept, _, split = parts
    before = {k: v.clone() for k, v in checkpoint.model.state_dict().items()}
    models = [
        train_scoring(
            checkpoint,
            checkpoint.config,
            checkpoint.vectors,
            kept.features,
            kept.labels,
            seen=len(split.seen),
            steps=4,
        )
        for _ in range(2)
    ]
    (first, losses), (second, again) = models
    assert losses == again and set(losses) == {"seen", "unseen", "contrast"}
    moved = 0
    for name, tensor in first.state_dict().items():
        assert torch.equal(tensor, second.state_dict()[name]), name
        assert torch.equal(before[name], checkpoint.model.state_dict()[name]), name
        if name.startswith(("trunk.", "head.region_stage", "head.regressor")):
            assert torch.equal(tensor, before[name]), name
        else:
            moved += not torch.equal(tensor, before[name])
    assert moved > 5


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--output", "new.pt", "--draws", "0"], "draws is 0, must be at least 1"),
        (["--output", "new.pt", "--steps", "0"], "steps is 0, must be at least 1"),
        (["--output", "new.pt", "--photographs", "0"], "photographs is 0, must be at least 1"),
        (["--output", "new.pt", "--seed", "-1"], "seed is -1, must not be negative"),
        (["--output", "."], "cannot write .: it is a folder"),
        (["--json", "new.json"], "give --output"),
        (["--method", "cones", "--json", "new.json"], "did you mean 'conse'"),
        (["--method", "conse"], "--method measures for another method"),
        (["--method", "conse", "--json", "new.json", "--output", "new.pt"], "and no --output"),
        (["--output", "new.pt"], "only 0 are in at least 10 and at most 10% of its "),
    ],
)
def test_what_cannot_be_done_is_a_sentence(run, tmp_path, monkeypatch, capsys, options, says):
    monkeypatch.chdir(tmp_path)
    assert calibrate_main(["--checkpoint", str(run / "last.pt"), *options]) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: ") and says in error
    assert not list(tmp_path.iterdir())
