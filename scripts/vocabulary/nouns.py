"""Names of visible things: nouns of WordNet, chosen by kind and by how often they are written.

WordNet (Princeton) sorts its nouns into lexicographer files and says which word is a kind of which.
That gives the rule of what can stand in a photograph, :data:`KINDS`, and what should not be offered
as a label: kinds of :data:`NEVER`, words whose first sense WordNet marks or describes as offensive,
or whose visible sense is rarer than an offensive one, and :data:`BLOCKED`. People are offered by
work, sport and age, never by ethnicity, religion, health, character or crime. Of plants and animals
only common names are taken, never families, genera and orders, which nobody says.

``lists/``, beside this file, adds names that must be there: household words that WordNet files
elsewhere or lacks, and the classes of ImageNet and Caltech-101.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from zsd_core.errors import DataError
from zsd_core.semantics import fold_name

__all__ = [
    "ALIVE",
    "BLOCKED",
    "FEW",
    "KINDS",
    "MADE",
    "NEVER",
    "WordNet",
    "choose_nouns",
    "listed_names",
    "ordinary_words",
    "synonyms",
]

LISTS = Path(__file__).with_name("lists")

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
    "taxonomic_group",
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
MADE, ALIVE = 6, (5, 13, 20)  # artifacts; animals, food and plants
FEW = 5  # tagged uses
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
        lemmas: words of every part of speech, and their irregular forms; no proper names.
    """

    synsets: dict[str, _Synset]
    senses: dict[str, tuple[str, ...]]
    uses: dict[str, Counter[int]]
    below: dict[str, list[str]]
    lemmas: frozenset[str]

    @classmethod
    def read(cls, folder: str | Path) -> WordNet:
        """Read ``data.noun``, ``cntlist.rev``, and the ``index`` and ``exc`` files.

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
            lemmas = {word for word in senses if not all(synsets[s].instance for s in senses[word])}
            for part in ("verb", "adj", "adv"):
                lemmas.update(line.split()[0] for line in _lines(folder / f"index.{part}"))
            for part in ("noun", "verb", "adj", "adv"):
                lemmas.update(line.split()[0] for line in _lines(folder / f"{part}.exc"))
        except (OSError, ValueError, IndexError) as error:
            raise DataError(
                f"{folder} is not a WordNet folder ({error}); apt-get install wordnet-base puts "
                "one at /usr/share/wordnet."
            ) from error
        below = defaultdict[str, list[str]](list)
        for offset, synset in synsets.items():
            for parent in synset.kinds_of:
                below[parent].append(offset)
        return cls(synsets, senses, dict(uses), dict(below), frozenset(lemmas))

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


def listed_names(name: str) -> list[str]:
    """Names of ``lists/NAME.txt``, one a line."""
    text = (LISTS / f"{name}.txt").read_text(encoding="utf-8")
    return [line.strip() for line in text.splitlines() if line.strip()]


def synonyms(wordnet: WordNet, names: Iterable[str]) -> list[str]:
    """Other common names of the same things: "cougar" for "puma", but no "Felis concolor"."""
    shown = _shown(wordnet)
    found = dict[str, None]()
    for name in names:
        for offset in wordnet.senses.get(name.lower().replace(" ", "_"), ()):
            if offset in shown:
                words = wordnet.synsets[offset].words
                found.update((word.replace("_", " "), None) for word in words)
                break  # the first sense that can be seen
    return [name for name in found if _is_plain(name)]


def ordinary_words(wordnet: WordNet, frequency: Callable[[str], float], least: float) -> list[str]:
    """Single words of every kind, those written often enough, in alphabetical order.

    Args:
        wordnet: the words; proper names are left out.
        frequency: of a word in English, logarithmic (Zipf scale).
        least: frequency that a word must have.
    """
    words = {word for word in wordnet.lemmas if word.isascii() and word.isalpha()}
    return sorted(word for word in words if len(word) > 2 and frequency(word) >= least)


def choose_nouns(
    wordnet: WordNet, frequency: Callable[[str], float], count: int, *, always: Iterable[str] = ()
) -> list[str]:
    """Choose names of visible things, those most often written first.

    A word counts if its first sense is of :data:`KINDS`, or a tenth of its tagged uses are. Where
    fewer than :data:`FEW` uses are tagged, the order of senses says little (the first "whale" is a
    person, the first "lynx" a program): one of the first three may be a living thing or food, or
    one of the first two a made one; the frequency is lowered by 1 then, as it is of all senses. The
    frequency of a phrase is estimated from its words, far too high, and so is lowered by 2.

    Args:
        wordnet: the nouns.
        frequency: of a word or phrase in English, logarithmic (Zipf scale).
        count: of names to choose, ``always`` included; never fewer than those.
        always: names that must be there, before all others.

    Raises:
        DataError: WordNet has fewer such nouns.
    """
    chosen = {fold_name(name): name for name in always}
    shown, offensive = _shown(wordnet), _offensive(wordnet)
    scored = []
    for word in wordnet.senses:
        name = word.replace("_", " ")
        if not _is_plain(name):
            continue
        certain = _acceptable(wordnet, word, shown, offensive)
        if certain or _possible(wordnet, word, shown, offensive):
            estimated = " " in name or "-" in name
            scored.append((frequency(name) - 2 * estimated - (not certain), name))
    scored.sort(key=lambda pair: (-pair[0], pair[1]))
    for _, name in scored:
        if len(chosen) >= count:
            break
        chosen.setdefault(name, name)
    if len(chosen) < count:
        raise DataError(f"WordNet holds {len(chosen)} names of visible things, not {count}.")
    return list(chosen.values())


def _is_plain(name: str) -> bool:
    return bool(_VISIBLE_NAME.fullmatch(name)) and not BLOCKED & {name, *re.split("[ -]", name)}


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


def _possible(wordnet: WordNet, word: str, shown: set[str], offensive: set[str]) -> bool:
    senses = wordnet.senses[word][:3]
    if offensive & set(senses) or sum(wordnet.uses.get(word, Counter()).values()) >= FEW:
        return False
    return any(
        offset in shown and (place < 2 or wordnet.synsets[offset].file in ALIVE)
        for place, offset in enumerate(senses)
        if wordnet.synsets[offset].file in (*ALIVE, MADE)
    )
