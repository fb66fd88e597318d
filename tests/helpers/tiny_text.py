"""A text encoder of the real shape, a few kilobytes small, with random weights."""

from __future__ import annotations

import json
from functools import lru_cache
from pathlib import Path
from string import ascii_lowercase

import numpy as np
import tiny
from numpy.typing import NDArray

from export.graphs.text_encoder import BertShape, text_encoder_graph
from export.writing.bundle_writer import amend_bundle

WORDS = ("a", "photo", "of", "dent", "red", "pallet", "chip", "blue")
TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", *WORDS, ".", "-")
WIDTH, HEADS, INNER, LONGEST = tiny.VECTOR, 2, 12, 24
SHAPE = BertShape(heads=HEADS)
TEMPLATE = "a photo of a {}."


def tokens() -> tuple[str, ...]:
    letters = set(ascii_lowercase) - set(TOKENS)
    return (*TOKENS, *sorted(letters), *(f"##{letter}" for letter in ascii_lowercase))


def weights(layers: int = 2) -> dict[str, NDArray[np.float32]]:
    """Weights by their names in a BERT."""
    draw = tiny.random(11).normal
    count = len(tokens())
    shapes = {
        "embeddings.word_embeddings.weight": (count, WIDTH),
        "embeddings.position_embeddings.weight": (LONGEST, WIDTH),
        "embeddings.token_type_embeddings.weight": (2, WIDTH),
    }
    norms = ["embeddings.LayerNorm"]
    for layer in range(layers):
        name = f"encoder.layer.{layer}."
        parts = [
            *(f"attention.self.{part}" for part in ("query", "key", "value")),
            "attention.output.dense",
        ]
        shapes |= {f"{name}{part}.weight": (WIDTH, WIDTH) for part in parts}
        shapes[f"{name}intermediate.dense.weight"] = (INNER, WIDTH)
        shapes[f"{name}output.dense.weight"] = (WIDTH, INNER)
        norms += [f"{name}attention.output.LayerNorm", f"{name}output.LayerNorm"]
    found = {name: draw(size=shape) / np.sqrt(shape[-1]) for name, shape in shapes.items()}
    for name, shape in shapes.items():
        if name.startswith("encoder"):
            found[name.replace(".weight", ".bias")] = draw(size=shape[0]) / 10
    for name in norms:
        found[f"{name}.weight"] = 1 + draw(size=WIDTH) / 10
        found[f"{name}.bias"] = draw(size=WIDTH) / 10
    return {name: value.astype(np.float32) for name, value in found.items()}


@lru_cache(maxsize=1)
def network() -> bytes:
    return bytes(text_encoder_graph(weights(), SHAPE).SerializeToString())


def tokenizer() -> bytes:
    """A tokenizer of BERT's kind: words, and letters for what is none of them."""
    table = {token: place for place, token in enumerate(tokens())}
    special = {
        token: {"id": token, "ids": [table[token]], "tokens": [token]}
        for token in ("[CLS]", "[SEP]")
    }
    content = {
        "version": "1.0",
        "truncation": None,
        # As the real one has it: the runtime must switch it off.
        "padding": {
            "strategy": {"Fixed": 64},
            "direction": "Right",
            "pad_to_multiple_of": None,
            "pad_id": 0,
            "pad_type_id": 0,
            "pad_token": "[PAD]",
        },
        "added_tokens": [],
        "normalizer": {
            "type": "BertNormalizer",
            "clean_text": True,
            "handle_chinese_chars": True,
            "strip_accents": None,
            "lowercase": True,
        },
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [
                {"SpecialToken": {"id": "[CLS]", "type_id": 0}},
                {"Sequence": {"id": "A", "type_id": 0}},
                {"SpecialToken": {"id": "[SEP]", "type_id": 0}},
            ],
            "pair": [
                {"Sequence": {"id": "A", "type_id": 0}},
                {"Sequence": {"id": "B", "type_id": 1}},
            ],
            "special_tokens": special,
        },
        "decoder": None,
        "model": {
            "type": "WordPiece",
            "unk_token": "[UNK]",
            "continuing_subword_prefix": "##",
            "max_input_chars_per_word": 100,
            "vocab": table,
        },
    }
    return json.dumps(content).encode()


def entry(**changes: object) -> dict[str, object]:
    """Entry of the manifest for the encoder."""
    facts: dict[str, object] = {
        "network": "text_encoder.onnx",
        "tokenizer": "tokenizer.json",
        "encoder": "tiny",
        "template": TEMPLATE,
        "width": WIDTH,
        "max_tokens": LONGEST,
        "padding": 0,
    }
    return facts | changes


def with_text(path: Path, **changes: object) -> Path:
    """Add the encoder to a tiny bundle."""
    files: dict[str, Path | bytes] = {
        "text_encoder.onnx": network(),
        "tokenizer.json": tokenizer(),
    }
    return amend_bundle(path, files, text=entry(**changes))


def encode_in_float64(texts: list[str], ids: list[list[int]]) -> NDArray[np.float64]:
    """Meaning of the network, from the int8 weights, one text at a time."""
    return np.stack([_bert(np.array(row)) for _, row in zip(texts, ids, strict=True)])


def _bert(ids: NDArray[np.int64]) -> NDArray[np.float64]:
    from math import erf

    from zsd_core.semantics import quantize_rows

    given = {name: value.astype(np.float64) for name, value in weights().items()}
    for name, value in weights().items():
        small = value.ndim == 2 and "LayerNorm" not in name and "position" not in name
        if small and "token_type" not in name:
            rows, scales = quantize_rows(value)
            given[name] = rows.astype(np.float64) * scales[:, None]

    def linear(value: NDArray[np.float64], name: str) -> NDArray[np.float64]:
        return value @ given[f"{name}.weight"].T + given[f"{name}.bias"]

    def norm(value: NDArray[np.float64], name: str) -> NDArray[np.float64]:
        value = value - value.mean(-1, keepdims=True)
        value = value / np.sqrt((value**2).mean(-1, keepdims=True) + SHAPE.epsilon)
        return value * given[f"{name}.weight"] + given[f"{name}.bias"]

    hidden = (
        given["embeddings.word_embeddings.weight"][ids]
        + given["embeddings.position_embeddings.weight"][: len(ids)]
        + given["embeddings.token_type_embeddings.weight"][0]
    )
    hidden = norm(hidden, "embeddings.LayerNorm")
    gelu = np.vectorize(lambda x: x * (1 + erf(x / np.sqrt(2))) / 2)
    for layer in range(2):
        name = f"encoder.layer.{layer}."
        query, key, value = (
            linear(hidden, f"{name}attention.self.{part}")
            .reshape(len(ids), HEADS, -1)
            .transpose(1, 0, 2)
            for part in ("query", "key", "value")
        )
        scores = query @ key.transpose(0, 2, 1) / np.sqrt(WIDTH / HEADS)
        scores = np.exp(scores - scores.max(-1, keepdims=True))
        mixed = scores / scores.sum(-1, keepdims=True) @ value
        mixed = mixed.transpose(1, 0, 2).reshape(len(ids), WIDTH)
        hidden = norm(
            hidden + linear(mixed, f"{name}attention.output.dense"),
            f"{name}attention.output.LayerNorm",
        )
        inner = gelu(linear(hidden, f"{name}intermediate.dense"))
        hidden = norm(hidden + linear(inner, f"{name}output.dense"), f"{name}output.LayerNorm")
    mean = hidden.mean(0)
    return np.asarray(mean / np.linalg.norm(mean))
