"""A miniature WordNet of the real format."""

from __future__ import annotations

import pytest

ANIMAL, ARTIFACT, ACT, FOOD, PERSON, TALK = 5, 6, 4, 13, 18, 10
# offset: (lexicographer file, words, kinds of, instance of, usage domain, gloss)
SYNSETS = {
    "00000001": (ARTIFACT, "device", "", "", "", "a thing made"),
    "00000002": (ARTIFACT, "forklift", "00000001", "", "", "a small industrial vehicle"),
    "00000003": (ARTIFACT, "fire_truck fire_engine", "00000001", "", "", "carries firefighters"),
    "00000004": (ACT, "baseball", "", "", "", "a ball game"),
    "00000005": (ARTIFACT, "baseball", "00000001", "", "", "a ball"),
    "00000006": (ACT, "running", "", "", "", "the act of running"),
    "00000007": (ARTIFACT, "running", "", "", "", "never met in a text"),
    "00000008": (ARTIFACT, "Titanic", "", "00000001", "", "a ship of that name"),
    "00000009": (PERSON, "worker", "", "", "", "a person who works"),
    "00000010": (PERSON, "welder", "00000009", "", "", "joins metal"),
    "00000011": (PERSON, "lefty", "", "", "", "no kind of work"),
    "00000012": (TALK, "ethnic_slur", "", "", "", "an insult"),
    "00000013": (PERSON, "yob", "00000009", "", "00000012", "a name for a person"),
    "00000014": (PERSON, "oaf", "00000009", "", "", "an offensive term for a person"),
    "00000015": (ARTIFACT, "drug", "", "", "", "a substance"),
    "00000016": (ARTIFACT, "aspirin", "00000015", "", "", "against headache"),
    "00000017": (FOOD, "wine", "00000015", "", "", "fermented juice"),
    "00000018": (PERSON, "criminal", "", "", "", "breaks the law"),
    "00000019": (PERSON, "fence", "00000018 00000009", "", "", "sells stolen goods"),
    "00000020": (ANIMAL, "coon_cat", "", "", "", "a bushy tail"),
    "00000021": (ANIMAL, "mule", "", "", "", 'a beast; "stubborn as a mule"'),
    "00000022": (TALK, "taxonomic_group", "", "", "", "a group of beings"),
    "00000023": (ANIMAL, "Jynx genus_Jynx", "00000022", "", "", "wrynecks"),
    "00000024": (TALK, "lynx", "", "", "", "a program"),
    "00000025": (ANIMAL, "lynx catamount Lynx_lynx", "", "", "", "a cat"),
    "00000026": (TALK, "socket", "", "", "", "of a bone"),
    "00000027": (TALK, "socket", "", "", "", "a number"),
    "00000028": (ARTIFACT, "socket", "00000001", "", "", "of a wall"),
    "00000029": (TALK, "grin", "", "", "", "a smile"),
    "00000030": (ANIMAL, "grin", "", "", "", "never met in a text"),
}
TAGGED = [
    ("baseball%1:04:00::", 9),
    ("baseball%1:06:00::", 1),
    ("running%1:04:00::", 40),
    ("running%2:38:00::", 5),
    ("grin%1:10:00::", 5),
]
HEAD = "  1 This software and database is being provided to you\n  2 under this license.  \n"


@pytest.fixture
def folder(tmp_path):
    data, index = [], {}
    for offset, (file, words, kinds, instances, domains, gloss) in SYNSETS.items():
        words = words.split()
        links = [("@", k) for k in kinds.split()] + [("@i", k) for k in instances.split()]
        links += [(";u", k) for k in domains.split()]
        text = " ".join(f"{mark} {target} n 0000" for mark, target in links)
        head = f"{offset} {file:02d} n {len(words):02x} {' '.join(f'{w} 0' for w in words)}"
        data.append(f"{head} {len(links):03d} {text}".rstrip() + f" | {gloss}  \n")
        for word in words:
            index.setdefault(word.lower(), []).append(offset)
    (tmp_path / "data.noun").write_text(HEAD + "".join(data))
    (tmp_path / "index.noun").write_text(
        HEAD
        + "".join(
            f"{word} n {len(at)} 1 @ {len(at)} 0 {' '.join(at)}  \n" for word, at in index.items()
        )
    )
    others = {"verb": "dent", "adj": "rusty", "adv": "slowly"}
    for part, word in others.items():
        (tmp_path / f"index.{part}").write_text(f"{HEAD}{word} v 1 0 1 0 00000001  \n")
    for part in ("noun", "verb", "adj", "adv"):
        (tmp_path / f"{part}.exc").write_text("mice mouse\n" if part == "noun" else "")
    (tmp_path / "cntlist.rev").write_text("".join(f"{key} 1 {n}\n" for key, n in TAGGED))
    return tmp_path
