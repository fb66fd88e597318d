"""Names of visible things: nouns of WordNet, chosen by kind and by how often they are written.

WordNet (Princeton) sorts its nouns into lexicographer files and says which word is a kind of which.
That gives the rule of what can stand in a photograph, :data:`KINDS`, and what should not be offered
as a label: kinds of :data:`NEVER`, words whose first sense WordNet marks or describes as offensive,
or whose visible sense is rarer than an offensive one, and :data:`BLOCKED`. People are offered by
work, sport and age, never by ethnicity, religion, health, character or crime. ``everyday.txt``,
beside this file, adds household words that WordNet files elsewhere or lacks.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from zsd_core.errors import DataError

__all__ = ["BLOCKED", "KINDS", "NEVER", "WordNet", "choose_nouns", "everyday_names"]

# Lexicographer file: the words whose kinds count; () counts the whole file.
KINDS: dict[int, tuple[str, ...]] = {
    5: (),  # animal
    6: (),  # artifact
    8: ("external_body_part",),
    13: (),  # food
    17: (),  # natural object
    18: (  # person
        *("worker", "entertainer", "athlete", "serviceman", "traveler", "musician", "juvenile"),
        *("health_professional", "professional", "educator"),
    ),
    20: (),  # plant
}
# Kinds that no photograph shows, or that nobody should be labelled by.
NEVER = (
    *("drug", "microorganism", "elementary_particle"),
    *("sex_organ", "bosom", "buttocks", "body_waste", "contraceptive", "instrument_of_torture"),
    *("prostitute", "slave", "bad_person", "criminal", "unwelcome_person", "unskilled_person"),
    *("sensualist", "nonworker", "person_of_color", "homosexual"),
)
_OFFENSIVE_DOMAINS = ("disparagement", "ethnic_slur", "obscenity")
_OFFENSIVE_GLOSS = re.compile(
    r"offensive|derogat|disparag|vulgar|obscen|\bslur|pejorativ|contempt|insult|taboo|sexual|"
    r"\bslang\b|erotic|prostitut|genital|excret|racist|\bcoitus|masturbat|ethnic",
)
# Words that WordNet does not mark in every sense, but that nobody wants to read beside a box; and
# "family", "genus" ..., groups that only a botanist sees.
BLOCKED = frozenset(
    """arse ass bitch booby boob breast bum cock concubine coon cripple dick drug dwarf eskimo fag
    faggot gypsy heroin hooker hun hussy jew jock kaffir midget mongrel naked necking negro nude
    oriental pansy peon pussy queer rape savage scab slave slit squaw stool tit torture vibrator
    waif wilding class family genus order""".split()
) | {"indian agent", "working girl"}
_VISIBLE_NAME = re.compile(r"[a-z' -]{3,}")  # no digits, no abbreviations with dots


@dataclass(frozen=True, slots=True)
class _Synset:
    file: int
    words: tuple[str, ...]
    kinds_of: tuple[str, ...]  # what it is a kind of
    domains: tuple[str, ...]
    instance: bool  # a proper name: London
    gloss: str


@dataclass(frozen=True, slots=True)
class WordNet:
    """The nouns of a WordNet folder.

    Attributes:
        synsets: by their offset in ``data.noun``.
        senses: synsets of each word, most frequent first.
        uses: how often a word was met in each lexicographer file of WordNet's tagged texts.
        below: the synsets that are a kind of each synset, one step down.
    """

    synsets: dict[str, _Synset]
    senses: dict[str, tuple[str, ...]]
    uses: dict[str, Counter[int]]
    below: dict[str, list[str]]

    @classmethod
    def read(cls, folder: str | Path) -> WordNet:
        """Read ``data.noun``, ``index.noun`` and ``cntlist.rev``.

        Raises:
            DataError: a file is missing or not WordNet's.
        """
        folder = Path(folder)
        try:
            synsets = dict(map(_synset, _lines(folder / "data.noun")))
            senses = {}
            for line in _lines(folder / "index.noun"):
                word, _, count, *rest = line.split()
                senses[word] = tuple(rest[-int(count) :])
            uses: dict[str, Counter[int]] = defaultdict(Counter)
            for line in _lines(folder / "cntlist.rev"):
                key, _, number = line.split()
                word, kind, file = re.split("[%:]", key)[:3]
                if kind == "1":  # nouns
                    uses[word][int(file)] += int(number)
        except (OSError, ValueError, IndexError) as error:
            raise DataError(
                f"{folder} is not a WordNet folder ({error}); apt-get install wordnet-base puts "
                "one at /usr/share/wordnet."
            ) from error
        below = defaultdict[str, list[str]](list)
        for offset, synset in synsets.items():
            for parent in synset.kinds_of:
                below[parent].append(offset)
        return cls(synsets, senses, dict(uses), dict(below))

    def kinds(self, word: str) -> set[str]:
        """Every synset that is a kind of any noun sense of ``word``, or such a sense itself."""
        found, todo = set[str](), list(self.senses.get(word, ()))
        while todo:
            offset = todo.pop()
            if offset not in found:
                found.add(offset)
                todo.extend(self.below.get(offset, ()))
        return found


def _lines(path: Path) -> Iterable[str]:
    with path.open(encoding="utf-8") as file:
        yield from (line for line in file if not line.startswith("  "))  # the licence is indented


def _synset(line: str) -> tuple[str, _Synset]:
    data, _, gloss = line.partition(" | ")
    offset, file, _, count, *rest = data.split()
    words = rest[: 2 * int(count, 16) : 2]
    pointers = rest[2 * int(count, 16) + 1 :]
    links = list(zip(pointers[::4], pointers[1::4], pointers[2::4], strict=False))
    return offset, _Synset(
        int(file),
        tuple(words),
        tuple(target for kind, target, part in links if kind == "@" and part == "n"),
        tuple(target for kind, target, part in links if kind == ";u" and part == "n"),
        any(kind == "@i" for kind, *_ in links),
        gloss.partition('; "')[0].strip(),
    )


def everyday_names() -> list[str]:
    """Household words, in alphabetical order: the project's own list."""
    text = Path(__file__).with_name("everyday.txt").read_text(encoding="utf-8")
    return [name.strip() for name in text.replace("\n", " ").split(",")]


def choose_nouns(
    wordnet: WordNet, frequency: Callable[[str], float], count: int, *, always: Iterable[str] = ()
) -> list[str]:
    """Choose names of visible things, those most often written first.

    A word counts if its first sense is of :data:`KINDS`, or a tenth of its tagged uses are. The
    frequency of a phrase is estimated from its words, far too high, and so is lowered by 2.

    Args:
        wordnet: the nouns.
        frequency: of a word or phrase in English, logarithmic (Zipf scale).
        count: of names to choose, ``always`` and everyday names included; never fewer than those.
        always: names that must be there, before all others; :func:`everyday_names` come next.

    Raises:
        DataError: WordNet has fewer such nouns.
    """
    chosen = dict.fromkeys([*always, *everyday_names()])
    shown, offensive = _shown(wordnet), _offensive(wordnet)
    scored = []
    for word in wordnet.senses:
        name = word.replace("_", " ")
        if not _VISIBLE_NAME.fullmatch(name) or BLOCKED & {name, *re.split("[ -]", name)}:
            continue
        if _acceptable(wordnet, word, shown, offensive):
            scored.append((frequency(name) - 2 * (" " in name or "-" in name), name))
    scored.sort(key=lambda pair: (-pair[0], pair[1]))
    for _, name in scored:
        if len(chosen) >= count:
            break
        chosen.setdefault(name)
    if len(chosen) < count:
        raise DataError(f"WordNet holds {len(chosen)} names of visible things, not {count}.")
    return list(chosen)


def _shown(wordnet: WordNet) -> set[str]:
    """Synsets of :data:`KINDS` but not of :data:`NEVER` (wine is a drug, but food); no names."""
    food = 13
    never = {
        offset
        for offset in set().union(*map(wordnet.kinds, NEVER))
        if wordnet.synsets[offset].file != food
    }
    wanted = {
        file: set().union(*map(wordnet.kinds, roots)) if roots else set(wordnet.synsets)
        for file, roots in KINDS.items()
    }
    return {
        offset
        for offset, synset in wordnet.synsets.items()
        if offset in wanted.get(synset.file, ()) and offset not in never and not synset.instance
    }


def _offensive(wordnet: WordNet) -> set[str]:
    domains = {offset for word in _OFFENSIVE_DOMAINS for offset in wordnet.senses.get(word, ())}
    return {
        offset
        for offset, synset in wordnet.synsets.items()
        if domains & set(synset.domains) or _OFFENSIVE_GLOSS.search(synset.gloss)
    }


def _acceptable(wordnet: WordNet, word: str, shown: set[str], offensive: set[str]) -> bool:
    first, *others = wordnet.senses[word]
    if first in offensive:
        return False
    if first in shown:
        return True
    uses = wordnet.uses.get(word, Counter())
    files = {wordnet.synsets[offset].file for offset in others if offset in shown}
    seen = sum(uses[file] for file in files)
    return bool(files) and not offensive & set(others) and 10 * seen >= max(1, sum(uses.values()))
