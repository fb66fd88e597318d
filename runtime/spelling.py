"""Words that look misspelt, so that a slip of the keyboard does not silently become a class.

With a text encoder every phrase is a class, "zebar" too, only a bad one. The rule:

- a word is *ordinary* if it occurs in a name that the bundle knows, or if the encoder's tokenizer
  knows it whole, or if it is a regular form of such a word ("dented", "rustier", "pallets");
- a word *looks misspelt* if it is not ordinary, has 4 to 40 letters and nothing but letters,
  and one change (a letter missing, added, wrong, or two neighbours swapped) makes it a word of a
  known name; words of eight letters and more may need two;
- accents do not count: "café" is "cafe". Nobody types one by a slip, so a word with an accent may
  have one slip less before it looks misspelt: "crème" is no slip for "cree";
- a phrase is fine if none of its words looks misspelt.

A word that is neither ordinary nor near a word of a known name may be a slip too ("dentd" for
"dented") or a name that the bundle has never heard. Such a phrase is a class as it stands;
``likelier`` gives the ordinary word that is one change away, as a hint, or a trained class's word
that is two changes away ("bycicle").

A name may also say a trained class in other words: "horses", "a horse". Looked for as it stands, it
is another and weaker class, so ``trained_name`` gives the class, as a hint too.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from functools import lru_cache

from zsd_core.semantics import fold_name, plain_name

__all__ = ["Spelling", "edits_apart", "trained_name"]

SHORTEST, LONGEST = 4, 40  # letters of a word that is judged; guesses grow with their square
LONG = 8  # letters of a word that may have two slips
# Letters with the accents that stand as signs of their own, and an apostrophe between them.
_WORD = re.compile(r"(?:[^\W_][\u0300-\u036f]*)+(?:['\u2019](?:[^\W_][\u0300-\u036f]*)+)?")
# What is taken off a regular form, and what may stand there instead.
_ENDINGS = (
    "s",
    "es",
    "'s",
    "ed",
    "ing",
    "er",
    "ers",
    "est",
    "y",
    "ly",
    "ily",
    "ied",
    "ies",
    "ier",
    "iest",
    "ish",
    "less",
    "ful",
    "ness",
    "able",
    "like",
)
_RESTORED = ("", "e", "y")
_SHORT = re.compile(r"(\w{2,}e)(?:d|r|rs|st)")  # "tied": what these forms add to an e
_VOWELS = tuple("aeiou")
_LETTERS = "abcdefghijklmnopqrstuvwxyz"
_ARTICLE = re.compile(r"(?:an?|the|some) ")
# How plurals end, and what stands there in the singular.
_PLURALS = (
    ("ies", "y"),
    ("ves", "f"),
    ("ves", "fe"),
    ("es", ""),
    ("s", ""),
    ("people", "person"),
    ("mice", "mouse"),
    ("children", "child"),
    ("men", "man"),
    ("teeth", "tooth"),
)


class Spelling:
    """Finds words that look misspelt; see the module for the rule.

    Args:
        names: every name that is known.
        ordinary: further words that are right as they are, in lower case.
        trained: those of the names that boxes taught; of two words as near, theirs is the guess.
    """

    def __init__(
        self, names: Iterable[str], ordinary: Collection[str], trained: Iterable[str] = ()
    ) -> None:
        words = sorted({word for name in names for word in _WORD.findall(fold_name(name))})
        # By plain name, which costs half the time where all letters are plain; the first wins.
        self._words = {w if w.isascii() else plain_name(w): w for w in reversed(words)}
        self._ordinary = ordinary
        own = (word for name in trained for word in _WORD.findall(fold_name(name)))
        self._trained = frozenset(map(plain_name, own))
        self._by_length: dict[int, list[tuple[str, frozenset[str]]]] = defaultdict(list)
        for word in self._words:
            self._by_length[len(word)].append((word, frozenset(word)))
        self._nearest = lru_cache(maxsize=4096)(self._find)
        self._near = lru_cache(maxsize=4096)(self._guess)

    def correction(self, phrase: str) -> str | None:
        """The phrase with its misspelt words put right; None: no word looks misspelt."""
        return _put_right(phrase, self._nearest)

    def likelier(self, phrase: str) -> str | None:
        """The phrase with every word that nobody knows in its likeliest spelling.

        This is a hint about a phrase that is accepted as it stands: None where all of its words are
        ordinary, or like no ordinary word.
        """
        return _put_right(phrase, self._near)

    def _guess(self, word: str) -> str | None:
        """An ordinary word that is one change away from a word that is not ordinary."""
        if not self._slips(word):
            return None
        plain = plain_name(word)
        known = [other for other in _one_change(plain) if self._is_ordinary(other)]
        if not known and len(plain) > SHORTEST:
            alike = (other for other in self._trained if other[0] == plain[0])
            known = [other for other in alike if edits_apart(plain, other, 2) == 2]
        best = min(known, key=lambda other: self._rank(plain, other), default="")
        return self._words.get(best, best) or None

    def _rank(self, word: str, other: str) -> tuple[bool, bool, bool, bool, bool, int, str]:
        """Order of guesses: slips are rare at a word's ends, and seldom write another letter."""
        plain = other in self._words or other in self._ordinary
        wrong = len(word) == len(other) and sorted(word) != sorted(other)
        ends = word[0] != other[0], word[-1] != other[-1]
        return *ends, other not in self._trained, not plain, wrong, -len(other), other

    def _slips(self, word: str) -> int:
        """How many slips a word may have at most; 0: it is not judged, or ordinary."""
        plain = plain_name(word)
        letters_only = plain.replace("'", "").isalpha()
        judged = SHORTEST <= len(plain) <= LONGEST and letters_only
        if not judged or self._is_ordinary(plain) or self._is_ordinary(word):
            return 0
        return 1 + (len(plain) >= LONG) - (plain != word.replace("\u2019", "'"))

    def _find(self, word: str) -> str | None:
        """The nearest known word, if this one looks misspelt."""
        most = self._slips(word)
        if not most:
            return None
        plain = plain_name(word)
        letters, best = frozenset(plain), (most + 1, False, False, "")
        for length in range(len(plain) - most, len(plain) + most + 1):
            for other, own in self._by_length.get(length, ()):
                if len(letters ^ own) > 2 * most:  # an edit changes two letters of the set at most
                    continue
                apart = edits_apart(plain, other, most)
                if apart <= most:  # equals: a trained class, the same first letter, the alphabet
                    rank = other not in self._trained, plain[0] != other[0]
                    best = min(best, (apart, *rank, other))
        if not best[-1]:
            return None
        likelier = self._near(word)
        same_ends = likelier is not None and likelier[0] + likelier[-1] == plain[0] + plain[-1]
        return likelier if same_ends else self._words[best[-1]]  # "opened" for "opend", not "open"

    def _is_ordinary(self, word: str) -> bool:
        return any(form in self._words or form in self._ordinary for form in _stems(word))


def trained_name(name: str, trained: Mapping[str, str]) -> str | None:
    """The trained class that a name says in other words: in the plural, or with an article.

    Args:
        name: that is no trained class as it stands.
        trained: the names of the trained classes, by folded name.
    """
    folded = fold_name(name)
    bare = _ARTICLE.sub("", folded, count=1) if _ARTICLE.match(folded) else folded
    ends = ((end, one) for end, one in _PLURALS if bare.endswith(end))
    forms = [bare, *(bare[: len(bare) - len(end)] + one for end, one in ends)]
    return next((trained[form] for form in forms if form in trained and form != folded), None)


def _put_right(phrase: str, other: Callable[[str], str | None]) -> str | None:
    """The phrase with words replaced; None: ``other`` has nothing to put in place of any."""
    folded = fold_name(phrase)
    found = {word: other(word) for word in _WORD.findall(folded)}
    if not any(found.values()):
        return None
    return _WORD.sub(lambda match: found[match[0]] or match[0], folded)


def _stems(word: str) -> Iterator[str]:
    """The word, and what it may be a regular form of."""
    yield word
    if short := _SHORT.fullmatch(word):
        yield short[1]
    for ending in _ENDINGS:
        stem = word.removesuffix(ending)
        if len(stem) < len(word) and len(stem) >= 3 and not word.endswith("yy"):
            yield from (stem + restored for restored in _RESTORED)
            if stem[-1] == stem[-2] and stem[-3:-2] in _VOWELS:  # "chipped"
                yield stem[:-1]


def _one_change(word: str) -> set[str]:
    """All words with one letter missing, added or wrong, or two neighbours swapped."""
    parts = [(word[:at], word[at:]) for at in range(len(word) + 1)]
    missing = {a + b[1:] for a, b in parts if b}
    swapped = {a + b[1] + b[0] + b[2:] for a, b in parts if len(b) > 1}
    wrong = {a + letter + b[1:] for a, b in parts if b for letter in _LETTERS}
    added = {a + letter + b for a, b in parts for letter in _LETTERS}
    return (missing | swapped | wrong | added) - {word}


def edits_apart(first: str, second: str, most: int) -> int:
    """The changes between two words: letters missing, added, wrong, or two neighbours swapped.

    Counting stops where there are more than ``most``; the result is ``most + 1`` then.
    """
    if abs(len(first) - len(second)) > most:
        return most + 1
    before: list[int] = []
    row = list(range(len(second) + 1))
    for i, a in enumerate(first, 1):
        before, last, row = row, before, [i]
        for j, b in enumerate(second, 1):
            cost = min(row[j - 1] + 1, before[j] + 1, before[j - 1] + (a != b))
            if last and j > 1 and a == second[j - 2] and first[i - 2] == b:
                cost = min(cost, last[j - 2] + 1)
            row.append(cost)
        if min(row) > most:
            return most + 1
    return min(row[-1], most + 1)
