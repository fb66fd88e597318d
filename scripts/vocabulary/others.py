"""Photographs of things that are none of the classes, and no kind of one.

    python -m scripts.vocabulary.others --labels labels.json --classes configs/coco_80.txt \
        --output words.json

``labels.json`` is a list of ``{"file": ..., "name": ...}``, with ``"wnid"`` where ImageNet gives
the sense. A name is left out if any of its senses, or that one, is a kind of any noun sense of a
class, or what a class is directly a kind of: a golden retriever is a dog. The rest, the first
photograph of each name, trains DSES (``benchmarks.paper.bench --words``).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from scripts.vocabulary.nouns import WordNet
from zsd_core.commands import command, new_parser
from zsd_core.errors import DataError
from zsd_core.files import prepare_files

__all__ = ["main", "others"]


def others(
    wordnet: WordNet, pictures: Iterable[Mapping[str, Any]], classes: Sequence[str]
) -> list[dict[str, str]]:
    """The first photograph of every name that is no class, no kind of one and no kind above one."""
    taken = set[str]()
    for name in classes:
        word = name.lower().replace(" ", "_")
        taken |= wordnet.kinds(word) | _above(wordnet, word)
    found: dict[str, dict[str, str]] = {}
    for picture in pictures:
        name, wnid = picture["name"].strip(), picture.get("wnid")
        senses = {wnid[1:]} if wnid else set(wordnet.senses.get(name.lower().replace(" ", "_"), ()))
        if senses and senses.isdisjoint(taken):
            found.setdefault(name, {"file": picture["file"], "name": name})
    return list(found.values())


def _above(wordnet: WordNet, word: str) -> set[str]:
    """What a word's senses are directly a kind of."""
    senses = wordnet.senses.get(word, ())
    return {parent for sense in senses for parent in wordnet.synsets[sense].kinds_of}


@command
def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; see the module's first lines."""
    parser = new_parser("scripts.vocabulary.others", __doc__)
    parser.add_argument("--labels", type=Path, required=True, help="photographs and their names")
    parser.add_argument("--classes", type=Path, required=True, help="names to keep off, one a line")
    parser.add_argument("--output", type=Path, required=True, help="list to write, .json")
    parser.add_argument("--wordnet", type=Path, default=Path("/usr/share/wordnet"))
    args = parser.parse_args(argv)
    prepare_files(args.output)
    try:
        pictures = json.loads(args.labels.read_text(encoding="utf-8"))
        classes = args.classes.read_text(encoding="utf-8").split("\n")
        left = others(WordNet.read(args.wordnet), pictures, [c.strip() for c in classes if c])
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"cannot read {args.labels} or {args.classes}: {error!r}.") from error
    args.output.write_text(json.dumps(left, indent=0) + "\n", encoding="utf-8")
    print(f"{args.output}  {len(left)} names, one photograph each")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
