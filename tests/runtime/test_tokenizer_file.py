"""A tokenizer makes no text longer without an end."""

from __future__ import annotations

import json
from string import punctuation

import pytest
import tiny
import tiny_text
from hostile import put

from runtime.bundle import default_bundle, open_bundle
from runtime.text import TextEncoder
from runtime.tokenizer_file import check_tokenizer
from zsd_core.errors import BundleError, ClassError


def replace(pattern, content):
    return {"type": "Replace", "pattern": pattern, "content": content}


def sequence(*steps):
    return {"type": "Sequence", "normalizers": list(steps)}


BYTES = {"type": "ByteLevel"}
TABLE = {"type": "Precompiled", "precompiled_charsmap": ""}
SPACES = replace({"Regex": r"\s+"}, " ")


def check(normalizer, pre_tokenizer=None):
    content = {"normalizer": normalizer, "pre_tokenizer": pre_tokenizer}
    check_tokenizer("tokenizer.json", json.dumps(content).encode())


@pytest.mark.parametrize(
    "normalizer",
    [
        replace({"String": "e"}, "e" * 65),
        replace({"String": ""}, "e" * 64),
        replace({"Regex": "x*"}, "e" * 64),
        sequence(*[replace({"String": "é"}, "éé")] * 7),
        sequence(*[replace({"String": a}, b * 5) for a, b in ("ab", "bc", "cd")]),  # 125 times
        sequence(
            replace({"String": "a"}, "b" * 9), {"type": "NFC"}, replace({"String": "c"}, "d" * 9)
        ),
        sequence(*[SPACES, sequence(SPACES)] * 4),
        sequence(*[BYTES, {"type": "NFC"}] * 7),
        sequence(*[TABLE] * 4),
    ],
)
def test_steps_that_make_texts_longer_are_refused(normalizer):
    with pytest.raises(BundleError, match=r"may make a text more than 64 times .* its normalizer"):
        check(normalizer)


def test_steps_of_known_tokenizers_are_taken():
    check(None)
    check({"type": "BertNormalizer"}, {"type": "BertPreTokenizer"})
    clip = sequence({"type": "NFC"}, SPACES, {"type": "Lowercase"})
    check(clip, {"type": "Sequence", "pretokenizers": [{"type": "Split"}, BYTES]})
    check(sequence(TABLE, replace({"String": "  "}, " "), replace({"String": "``"}, '"')))
    check(replace({"String": " "}, "▁"))  # Gemma's, Llama's
    check(sequence(TABLE, replace({"Regex": " {2,}"}, "▁")))  # XLM-R's
    check(sequence(*[replace({"Regex": "[!#$]"}, "")] * 30, SPACES, {"type": "Strip"}))  # T5's
    apart = [replace({"String": mark}, f" {mark} ") for mark in punctuation]
    first = sequence(TABLE, replace({"Regex": " {2,}"}, "▁"))
    check(sequence(first, *apart, SPACES, {"type": "Strip"}))  # Model2Vec's
    check(sequence(*[replace({"String": a}, b * 5) for a, b in ("cd", "bc", "ab")]))  # never meet
    for strange in (3, [], "x", {"type": []}, sequence(3, None), {"normalizers": {}}):
        check(strange)  # the library says what is wrong with it


def test_bytes_as_letters_again_and_again_are_refused():
    with pytest.raises(BundleError, match="in its pre_tokenizer"):
        check(None, {"type": "Sequence", "pretokenizers": [BYTES] * 7})


def test_a_bundle_with_such_a_tokenizer_is_refused(tmp_path):
    path = tiny_text.with_text(tiny.tiny_bundle(tmp_path / "bundle"))
    content = json.loads((path / "tokenizer.json").read_text())
    content["normalizer"] = sequence(*[replace({"String": "e"}, "e" * 10)] * 30)
    put(path, "tokenizer.json", json.dumps(content).encode())
    with pytest.raises(BundleError, match="which may fill the memory; do not use this bundle"):
        TextEncoder(open_bundle(path), 1, "onnxruntime").encode(["red pallet"])


def test_the_shipped_one_is_taken():
    check_tokenizer("x", (default_bundle() / "tokenizer.json").read_bytes())


@pytest.mark.parametrize("phrase", ["\ud800", "red\0pallet", "a\u202eb"])
def test_a_phrase_that_is_no_name_is_named(tmp_path, phrase):
    path = tiny_text.with_text(tiny.tiny_bundle(tmp_path / "bundle"))
    with pytest.raises(ClassError, match=r"holds U\+"):
        TextEncoder(open_bundle(path), 1, "onnxruntime").encode([phrase])
