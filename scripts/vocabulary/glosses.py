"""The words that describe every name, by WordNet, as class vectors for the scoring method "td".

    python -m scripts.vocabulary.glosses --split coco_48_17 --output glosses.npz

A name's words are its own, then those of its definition, without the ones that say nothing. Each
has a vector of its own, from a sentence encoder (extra: text), less the mean of all words here; the
class vector is those of the first ``--words`` words, one behind the other, and zeros for what is
missing. Train with ``data.vectors=glosses.npz`` and a ``model.scoring.vector_dim`` of ``--words``
times 384. ``--names`` adds names that a detector is to know besides the split's.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from scripts.vocabulary.nouns import WordNet
from scripts.vocabulary.sentences import visible_sense
from zsd_core.commands import command, new_parser
from zsd_core.errors import DataError
from zsd_core.files import prepare_files
from zsd_core.learning.data.splits import load_split
from zsd_core.text import encode_names

__all__ = ["description", "main", "rows_of"]

_ASIDE = re.compile(r"\([^)]*\)")
_WORD = re.compile(r"[a-z]+")
_EMPTY = frozenset(
    """a an and any are as at be been being by can etc for from has have having if in into is it its
    made more of off on one or other out over some such that the their them these they this to
    typically up used using usually usual various very what when where which while who whose with
    without you""".split()
)


def description(wordnet: WordNet, name: str, count: int) -> list[str]:
    """The first ``count`` words that describe a name; its own where WordNet does not know it.

    A name of several words that is unknown as a whole is what its last word is: a kind of ball.
    """
    own = _WORD.findall(name.lower())
    tried = (name, own[-1], own[-1].removesuffix("s"))
    sense = next(filter(None, (visible_sense(wordnet, one) for one in tried)), None)
    gloss = _ASIDE.sub("", wordnet.synsets[sense].gloss) if sense else ""
    told = [word for word in _WORD.findall(gloss.lower()) if word not in _EMPTY]
    return list(dict.fromkeys([*own, *told]))[:count]


def rows_of(descriptions: Sequence[Sequence[str]], count: int) -> NDArray[np.float32]:
    """Class vectors ``(K, count * W)`` of descriptions of at most ``count`` words."""
    words = sorted({word for one in descriptions for word in one})
    vectors = encode_names(words, template="{}")
    vectors = vectors - vectors.mean(axis=0)
    place = {word: index for index, word in enumerate(words)}
    rows = np.zeros((len(descriptions), count, vectors.shape[1]), np.float32)
    for row, one in zip(rows, descriptions, strict=True):
        row[: len(one)] = vectors[[place[word] for word in one]]
    return rows.reshape(len(descriptions), -1)


@command
def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; see the module's first lines."""
    parser = new_parser("scripts.vocabulary.glosses", __doc__)
    parser.add_argument("--split", required=True, help="whose classes are described")
    parser.add_argument("--names", type=Path, help="further names, one a line")
    parser.add_argument("--words", type=int, default=8, help="of a description (8)")
    parser.add_argument("--output", type=Path, required=True, help="table to write, .npz")
    parser.add_argument("--wordnet", type=Path, default=Path("/usr/share/wordnet"))
    args = parser.parse_args(argv)
    if args.words < 1 or args.output.suffix != ".npz":
        parser.error("--words must be at least 1, and --output end in .npz")
    prepare_files(args.output)
    names = list(load_split(args.split).classes)
    if args.names:
        try:
            names += args.names.read_text(encoding="utf-8").split("\n")
        except (OSError, UnicodeDecodeError) as error:
            raise DataError(f"cannot read the names of {args.names}: {error}.") from error
    names = list(dict.fromkeys(name.strip() for name in names if name.strip()))
    wordnet = WordNet.read(args.wordnet)
    described = [description(wordnet, name, args.words) for name in names]
    np.savez(args.output, names=np.array(names), vectors=rows_of(described, args.words))
    print(f"{args.output}  {len(names)} names of up to {args.words} words")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
