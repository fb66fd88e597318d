"""A sentence about every name, from WordNet: what it is a kind of, and its definition.

    python -m scripts.vocabulary.sentences --output imagenet_sentences.tsv

A sentence encoder knows few words well, and a definition holds words that it knows. The command
writes the sentences of ImageNet's names, by their synsets in ``lists/``, for ``zsd_core.teach``.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from scripts.vocabulary.nouns import KINDS, LISTS, WordNet
from zsd_core.commands import command, new_parser
from zsd_core.files import prepare_files
from zsd_core.text import fill_template

__all__ = ["describe", "imagenet_sentences", "main", "visible_sense"]

STEPS = 3  # kinds that are named, from the nearest on
_ASIDE = re.compile(r"\([^)]*\)")


def visible_sense(wordnet: WordNet, name: str) -> str | None:
    """The most frequent sense of a name that a photograph can show; None: WordNet has none."""
    senses = wordnet.senses.get(name.lower().replace(" ", "_"), ())
    shown = [sense for sense in senses if wordnet.synsets[sense].file in KINDS]
    return shown[0] if shown else None


def describe(wordnet: WordNet, name: str, sense: str) -> str:
    """A sentence about a name in one of its senses."""
    kinds, at = list[str](), sense
    while len(kinds) < STEPS and wordnet.synsets[at].kinds_of:
        at = wordnet.synsets[at].kinds_of[0]
        kinds.append(wordnet.synsets[at].words[0].replace("_", " "))
    definition = wordnet.synsets[sense].gloss.split('"')[0]
    definition = " ".join(_ASIDE.sub("", definition).split(";")[0].split())
    kind = f", a kind of {', '.join(kinds)}" if kinds else ""
    return f"{fill_template('a photo of a {}', name)}{kind}: {definition}."


def imagenet_sentences(wordnet: WordNet) -> dict[str, str]:
    """Sentences of ImageNet's names, each in the sense that its photographs show."""
    lines = (LISTS / "imagenet_synsets.txt").read_text(encoding="utf-8").splitlines()
    pairs = (line.split("\t") for line in lines if line and line[0] != "#")
    return {
        name: describe(wordnet, name, sense[1:])
        for name, sense in pairs
        if sense[1:] in wordnet.synsets
    }


@command
def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; see the module's first lines."""
    parser = new_parser("scripts.vocabulary.sentences", __doc__)
    parser.add_argument("--output", type=Path, required=True, help="table to write, .tsv")
    parser.add_argument("--wordnet", type=Path, default=Path("/usr/share/wordnet"))
    args = parser.parse_args(argv)
    prepare_files(args.output)
    sentences = imagenet_sentences(WordNet.read(args.wordnet))
    text = "".join(f"{name}\t{sentence}\n" for name, sentence in sentences.items())
    args.output.write_text(text, encoding="utf-8")
    print(f"{args.output}  {len(sentences)} sentences")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
