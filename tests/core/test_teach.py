"""``zsd_core.teach``: what it reads."""

from __future__ import annotations

import json

import pytest

from zsd_core.errors import DataError
from zsd_core.teach import look_config, read_labels, read_sentences


def test_photographs_of_names_that_are_known(tmp_path):
    entries = [
        {"file": "a.jpg", "name": "Fire_Truck"},
        {"file": "b.jpg", "name": "unheard of"},
        {"file": "c.jpg", "name": "lynx"},
    ]
    (tmp_path / "labels.json").write_text(json.dumps(entries))
    files, places = read_labels(tmp_path / "labels.json", ["lynx", "fire truck"])
    assert files == [tmp_path / "a.jpg", tmp_path / "c.jpg"]
    assert places.tolist() == [1, 0]
    files, places = read_labels(tmp_path / "labels.json", [])
    assert files == []
    assert places.shape == (0,)


@pytest.mark.parametrize("text", ["{", '{"file": 1}', '[{"file": "a"}]', "[1]"])
def test_another_list_is_refused(tmp_path, text):
    (tmp_path / "labels.json").write_text(text)
    with pytest.raises(
        DataError, match=r"(must be a JSON list of objects with 'file' and 'name'|is not JSON)"
    ):
        read_labels(tmp_path / "labels.json", ["lynx"])


def test_sentences_are_found_by_name(tmp_path):
    path = tmp_path / "sentences.tsv"
    path.write_text("# a comment\nFire_Truck\ta red truck\n\nlynx\ta cat with tufted ears\n")
    assert read_sentences(path) == {"fire truck": "a red truck", "lynx": "a cat with tufted ears"}
    path.write_text("lynx a cat\n")
    with pytest.raises(DataError, match="the line 'lynx a cat' has no tab"):
        read_sentences(path)
    path.write_text("\ufefflynx\ta cat\n")  # Windows marks its texts
    assert read_sentences(path) == {"lynx": "a cat"}
    with pytest.raises(DataError, match="cannot read sentences"):
        read_sentences(tmp_path / "none.tsv")


def test_the_options_are_those_of_prototypes():
    config = look_config(256)
    assert (config.method, config.joint_dim, config.center) == ("prototypes", 256, True)
