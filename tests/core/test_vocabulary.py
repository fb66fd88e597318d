from __future__ import annotations

import sys
import types

import numpy as np
import pytest
from safetensors import safe_open

from scripts.vocabulary import build
from scripts.vocabulary.build import choose_names, main, wordnet_licence, write_vocabulary
from scripts.vocabulary.nouns import WordNet, listed_names
from zsd_core.errors import DataError, MissingPackageError
from zsd_core.learning.vectors import load_vectors
from zsd_core.semantics import fold_name, quantize_rows, unit_rows


def unit(rows, width=384):
    return unit_rows(np.random.default_rng(rows).normal(size=(rows, width)).astype(np.float32))


def test_one_byte_a_number_keeps_the_direction():
    vectors = unit(50)
    rows, scales = quantize_rows(vectors)
    assert rows.dtype == np.int8 and scales.dtype == np.float32 and scales.shape == (50,)
    assert np.abs(rows).max(axis=1).tolist() == [127] * 50
    restored = unit_rows(rows * scales[:, None])
    assert (restored * vectors).sum(axis=1).min() > 0.9999
    assert quantize_rows(np.zeros((1, 3), np.float32))[0].tolist() == [[0, 0, 0]]


def test_file_is_read_back_by_name(tmp_path):
    path, vectors = tmp_path / "words.safetensors", unit(3)
    names = ["fire truck", "crème brûlée", "cat"]
    write_vocabulary(path, names, vectors, {"licence": "WordNet"})
    table = load_vectors(path, ["Cat", "fire_truck", "crème brûlée"])
    assert (table.vectors * vectors[[2, 0, 1]]).sum(axis=1).min() > 0.9999
    with safe_open(path, framework="numpy") as file:
        assert file.metadata() == {"licence": "WordNet"}
        assert {key: str(file.get_tensor(key).dtype) for key in file.keys()} == {
            "names": "uint8",
            "vectors": "int8",
            "scales": "float32",
            "ordinary": "uint8",
        }


@pytest.mark.parametrize("names", [["cat"], ["cat", "cat"], ["cat", "a\nb"], ["cat", " "]])
def test_malformed_names_are_refused(tmp_path, names):
    with pytest.raises(DataError, match="write_vocabulary"):
        write_vocabulary(tmp_path / "words.safetensors", names, unit(2), {})


@pytest.fixture
def tools(monkeypatch):
    frequencies = types.ModuleType("wordfreq")
    frequencies.zipf_frequency = lambda name, language: {"mule": 9.0}.get(name, 1.0)
    monkeypatch.setitem(sys.modules, "wordfreq", frequencies)
    monkeypatch.setattr(build, "encode_names", lambda names, **_: unit(len(names)))


def test_command_line_builds_a_file_that_carries_its_licences(tools, folder, capsys):
    output, names = folder / "out.safetensors", folder / "names.txt"
    arguments = ["--output", str(output), "--wordnet", str(folder), "--list", str(names)]
    always = choose_names(WordNet.read(folder), len, 0)
    count = len(always) + 1
    assert main([*arguments, "--count", str(count)]) == 0
    captured = capsys.readouterr()
    assert f"{count} names" in captured.out and f"[1/3] choose {count} names" in captured.err
    listed = names.read_text().splitlines()
    assert listed == sorted(listed) and len(set(listed)) == count
    assert {"mule", "zebra", "tvmonitor", *listed_names("everyday")[:5]} <= set(listed)
    with safe_open(output, framework="numpy") as file:
        facts = file.metadata()
    assert facts["licence text"] == wordnet_licence(folder)
    assert facts["encoder"] == "all-MiniLM-L6-v2" and facts["template"] == "a photo of a {}."
    assert "WordNet" in facts["licence"] and "wordfreq" in facts["tools"]


def test_all_listed_names_are_there_once(folder):
    names = choose_names(WordNet.read(folder), len, 0)
    folded = {fold_name(name) for name in names}
    assert len(folded) == len(names)
    for source in ("everyday", "imagenet", "caltech101"):
        assert not {fold_name(name) for name in listed_names(source)} - folded, source
    assert {"baby bottle", "great white shark", "traffic light", "yin yang symbol"} <= folded


def test_ordinary_words_are_written_with_the_cost_of_bytes(
    tools,
    folder,
    capsys,
    monkeypatch,
):
    output = folder / "out.safetensors"
    count = len(choose_names(WordNet.read(folder), len, 0))
    arguments = ["--output", str(output), "--wordnet", str(folder), "--count", str(count)]
    monkeypatch.setattr(build, "ORDINARY", 1.0)
    assert main(arguments) == 0
    with safe_open(output, framework="numpy") as file:
        words = file.get_tensor("ordinary").tobytes().decode().split()
    assert {"dent", "rusty", "slowly", "mice"} <= set(words)
    told = capsys.readouterr().out
    assert "least cosine between a vector and what is stored of it: 0.9999" in told


def test_a_bad_path_is_known_before_the_work(tools, folder, capsys, monkeypatch):
    monkeypatch.setattr(build, "encode_names", None)
    bad = folder / "data.noun/out.safetensors"
    assert main(["--output", str(bad), "--wordnet", str(folder)]) == 1
    assert f"error: cannot write {bad}" in capsys.readouterr().err


def test_licence_is_the_head_of_wordnets_own_file(folder):
    assert wordnet_licence(folder) == (
        "This software and database is being provided to you under this license."
    )


def test_errors_are_sentences(tools, folder, tmp_path, monkeypatch, capsys):
    output = ["--output", str(tmp_path / "out.safetensors")]
    assert main([*output, "--wordnet", str(tmp_path / "none")]) == 1
    assert "apt-get install wordnet-base" in capsys.readouterr().err
    monkeypatch.setitem(sys.modules, "wordfreq", None)
    assert main([*output, "--wordnet", str(folder)]) == 1
    assert "pip install wordfreq" in capsys.readouterr().err
    with pytest.raises(MissingPackageError):
        build.word_frequency()
