"""Teaching names to a second look: kernel regression, probabilities, and the file of it."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file

from zsd_core.config import ScoringConfig
from zsd_core.errors import DataError
from zsd_core.learning import teaching
from zsd_core.learning.models.look import Look, load_classifier
from zsd_core.learning.teaching import Taught, load_look, save_look, teach
from zsd_core.scoring.prototypes import PrototypeScorer
from zsd_core.semantics import unit_rows

NAMES, WIDTH, VECTOR = ("a", "b", "c", "d", "e", "f"), 7, 5
SCORING = ScoringConfig(method="prototypes", vector_dim=VECTOR, joint_dim=WIDTH, center=True)


@pytest.fixture(scope="module")
def made():
    """A look with random weights, vectors, and features of photographs around its classes."""
    torch.manual_seed(0)
    look = Look(len(NAMES), WIDTH, VECTOR).eval()
    rng = np.random.default_rng(0)
    vectors = unit_rows(rng.normal(size=(len(NAMES), VECTOR)).astype(np.float32) + 1)
    labels = rng.integers(0, len(NAMES), 60)
    weights = look.classifier.weight.detach().numpy()
    features = 3 * unit_rows(weights)[labels] + 0.05 * rng.normal(size=(60, weights.shape[1]))
    return look, vectors, features.astype(np.float32), labels


def taught(made, **options):
    look, vectors, features, labels = made
    return teach(look, NAMES, vectors, features, labels, SCORING, **options)


def targets(made):
    """Directions of the classifier's weights among the features that are kept, in float64."""
    look, _, features, _ = made
    unit = unit_rows(features)
    directions = np.linalg.svd(unit - unit.mean(0), full_matrices=False)[2][:WIDTH]
    rows = unit_rows(look.classifier.weight.detach().numpy().astype(np.float64))
    return unit_rows(rows @ directions.astype(np.float64).T)


def test_regression_without_a_ridge_puts_taught_names_where_the_classifier_has_them(
    made, monkeypatch
):
    monkeypatch.setattr(teaching, "RIDGE", 1e-9)
    tensors = taught(made)
    slope, bias = tensors["name_scale"]
    rows = PrototypeScorer(tensors, SCORING).prototypes_of(tensors["taught.vectors"])
    np.testing.assert_allclose(rows[:, :WIDTH] / slope, targets(made), atol=2e-3)
    np.testing.assert_allclose(
        rows[:, WIDTH:-1], slope * SCORING.evidence * tensors["taught.vectors"], rtol=1e-5
    )
    np.testing.assert_array_equal(rows[:, -1], np.float32(bias))


def test_the_ridge_is_that_of_the_normal_equations(made):
    tensors = taught(made)
    vectors = tensors["taught.vectors"].astype(np.float64)
    cosines = vectors @ vectors.T
    kernel = cosines + SCORING.kernel_weight * np.exp((cosines - 1) / SCORING.kernel_width)
    alphas = tensors["taught.weights"].astype(np.float64)
    np.testing.assert_allclose(kernel @ alphas + teaching.RIDGE * alphas, targets(made), atol=1e-4)


def test_right_names_are_more_probable_than_wrong_ones(made):
    look, _, features, labels = made
    tensors = taught(made)
    assert tensors["name_scale"][0] > 0
    assert tensors["example_scale"][0] > 0
    rows = PrototypeScorer(tensors, SCORING).prototypes_of(tensors["taught.vectors"])
    embedded = teaching._embed(look, features)
    logits = np.concatenate([embedded, np.ones((len(embedded), 1))], axis=1) @ rows.T
    assert (logits.argmax(axis=1) == labels).mean() > 0.9


def test_teaching_twice_gives_the_same(made):
    one, other = taught(made), taught(made)
    for name, array in one.items():
        np.testing.assert_array_equal(array, other[name], err_msg=name)
    another = taught(made, seed=1)
    assert not np.array_equal(one["name_scale"], another["name_scale"])
    np.testing.assert_array_equal(one["taught.weights"], another["taught.weights"])


def test_fewer_photographs_than_features_are_refused(made):
    look, vectors, features, labels = made
    with pytest.raises(DataError, match=r"7 photographs .* keeping 7 features takes more"):
        teach(look, NAMES, vectors, features[:7], labels[:7], SCORING)


def test_a_look_says_the_same_after_it_was_saved(made, tmp_path):
    look, tensors = made[0], taught(made)
    info = {"size": 32, "scoring": dataclasses.asdict(SCORING)}
    save_look(tmp_path / "look.safetensors", Taught(look, tensors, NAMES, info))
    again = load_look(tmp_path / "look.safetensors")
    assert again.names == NAMES
    assert again.info == info
    for name, array in tensors.items():
        np.testing.assert_array_equal(array, again.tensors[name])
    regions = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        (embeddings, deltas), (others, _) = look(regions), again.look(regions)
    assert torch.equal(embeddings, others)
    assert embeddings.shape == (2, WIDTH + VECTOR + 1)
    assert not deltas.any()
    torch.testing.assert_close(embeddings[:, :WIDTH].norm(dim=1), torch.ones(2))
    assert (embeddings[:, -1] == 1).all()


def test_other_files_are_refused(tmp_path):
    (tmp_path / "text").write_text("no look")
    for path in (tmp_path / "text", tmp_path / "none"):
        with pytest.raises(DataError, match="cannot be read as a second look"):
            load_look(path)
    torch.save({"weight": torch.zeros(2)}, tmp_path / "other.pth")
    with pytest.raises(DataError, match="is not EfficientNet-Lite0 with its classifier"):
        load_classifier(Look(4, 4, 4), tmp_path / "other.pth")


@pytest.mark.parametrize(
    "data", [b"garbage", b"", b"\x80\x04cos\nsystem\n.", b"PK\x03\x04"], ids=str
)
def test_a_classifier_that_is_damaged_is_refused(tmp_path, data):
    (tmp_path / "x.pth").write_bytes(data)
    for name in ("x.pth", "none", "a\0b", "x" * 300):
        with pytest.raises(DataError, match=r"cannot be read as what torch\.save wrote.*package"):
            load_classifier(Look(4, 4, 4), tmp_path / name)


@pytest.mark.parametrize("state", [[1], {3: 1}, {"_fc.weight": 1}, None], ids=str)
def test_a_classifier_of_other_values_is_refused(tmp_path, state):
    torch.save(state, tmp_path / "x.pth")
    with pytest.raises(DataError, match="is not EfficientNet-Lite0 with its classifier"):
        load_classifier(Look(4, 4, 4), tmp_path / "x.pth")


def written(path, names, info, tensors):
    """A safetensors file of bytes, also of types and sizes that ``save_look`` never writes."""
    header, body = {"__metadata__": {"names": names, "info": info}}, b""
    for key, (kind, shape, data) in tensors.items():
        place = [len(body), len(body) + len(data)]
        header[key] = {"dtype": kind, "shape": shape, "data_offsets": place}
        body += data
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + body)
    return path


PROJECTION, VECTORS = "look.projection.weight", "look.vectors"


@pytest.mark.parametrize(
    ("names", "info", "tensors", "says"),
    [
        ("[]", "{}", {"look.a": ("BF16", [2], bytes(4))}, ""),
        ("[]", "{}", {PROJECTION: ("F32", [], bytes(4)), VECTORS: ("F32", [1], bytes(4))}, ""),
        ("3", "{}", {}, "names is 3, must be a list of texts"),
        ("[3]", "{}", {}, r"names is \[3\], must be a list of texts"),
        ("[]", "[]", {}, r"info is \[\], must be a mapping"),
        ("[" * 100_000, "{}", {}, ""),
        (
            '["a"]',
            "{}",
            {PROJECTION: ("F32", [10**12, 0], b""), VECTORS: ("F32", [0, 10**12], b"")},
            "must be",
        ),
        ("[]", "{}", {PROJECTION: ("F32", [0, 9], b""), VECTORS: ("F32", [0, 9], b"")}, "no names"),
    ],
    ids=["bf16", "0-d", "names 3", "names of 3", "info", "deep", "large", "none"],
)
def test_a_look_of_other_types_and_sizes_is_refused(tmp_path, names, info, tensors, says):
    path = written(tmp_path / "x.safetensors", names, info, tensors)
    with pytest.raises(DataError, match=f"cannot be read as a second look.*{says}"):
        load_look(path)


def test_a_look_with_one_other_tensor_is_refused(made, tmp_path):
    path = tmp_path / "x.safetensors"
    save_look(path, Taught(made[0], taught(made), NAMES, {"size": 32}))
    good = load_file(path)
    metadata = {"names": json.dumps(NAMES), "info": "{}"}
    name = "look.classifier.weight"
    for other in (good[name].astype(np.float16), good[name][:-1], good[name].astype(np.int32)):
        save_file(good | {name: other}, path, metadata)
        with pytest.raises(DataError, match=r"classifier\.weight is .*, must be torch\.float32"):
            load_look(path)
    save_file({k: v for k, v in good.items() if k != name}, path, metadata)
    with pytest.raises(DataError, match=r"classifier\.weight is missing, must be"):
        load_look(path)
    save_file(good | {"look.more": good[name]}, path, metadata)
    with pytest.raises(DataError, match=r"more is .*, must be missing"):
        load_look(path)
