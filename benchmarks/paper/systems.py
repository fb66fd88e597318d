"""The systems of the paper's comparison, each as options over one trained detector.

Every system scores the same regions of the same trunk. Where a paper has another detector (YOLO,
RetinaNet, a cascade), its scoring idea runs here on two stages; ``System.note`` says so.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

__all__ = ["OWN", "SYSTEMS", "System"]


@dataclass(frozen=True, slots=True)
class System:
    """One row of the comparison.

    Attributes:
        name: of its runs.
        title: in tables.
        options: ``section.field`` of the experiment to value, over the checkpoint's.
        tried: options that the bench tries on seen classes that play unseen ones, each with its
            values; the first value of each is the default.
        words: names with photographs and no boxes are classes of the training too.
        vectors: key of ``--vectors``; "" takes the checkpoint's class vectors.
        like: the system whose chosen options it takes; "" has its own chosen.
        steps: of its training; None takes the bench's.
        note: the difference from the original, for a footnote.
    """

    name: str
    title: str
    options: Mapping[str, Any] = field(default_factory=dict)
    tried: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)
    words: bool = False
    vectors: str = ""
    like: str = ""
    steps: int | None = None
    note: str = ""


def _scored_by(method: str, learned: str = "") -> dict[str, Any]:
    return {"model.scoring.method": method, "model.scoring.learned": learned}


OWN = "contrastzsd"
RATES = {"training.learning_rate": (0.0005, 0.002)}  # the recipe's, and a faster one
BACKGROUND = "model.scoring.cosine_background"
SYSTEMS = (
    System(
        "conse",
        "ConSE-ZSD",
        _scored_by("conse"),
        {"model.scoring.conse_top": (10, 48)} | RATES,
        note="a linear classifier of the seen classes and background over p_v",
    ),
    System(
        "sb",
        "SB",
        _scored_by("cosine", "sb"),
        {"loss.sb_margin": (1.0, 0.3), BACKGROUND: (False, True)} | RATES,
        note="proposals of our network in the place of Edge Boxes",
    ),
    System(
        "dses",
        "DSES",
        _scored_by("cosine", "sb"),
        words=True,
        like="sb",
        note="SB with the names of photographs without boxes, in the place of Open Images' and "
        "Visual Genome's",
    ),
    System(
        "san",
        "SAN",
        _scored_by("cosine", "san"),
        {"loss.san_balance": (0.8, 0.5), BACKGROUND: (False, True)} | RATES,
        note="super-classes from the class vectors, not by hand",
    ),
    System(
        "hre",
        "HRE",
        _scored_by("hre"),
        {"model.scoring.conse_top": (10, 48), "loss.hre_margin": (1.0, 0.3)} | RATES,
        note="its two embeddings on two stages in the place of YOLO",
    ),
    System(
        "td",
        "TD",
        _scored_by("td") | {"model.scoring.center": False},
        RATES,
        vectors="glosses",
        note="WordNet's glosses as descriptions; word vectors of a sentence encoder, no recurrent "
        "network",
    ),
    System(
        "pl",
        "PL",
        _scored_by("pl"),
        {"loss.pl_steepness": (5.0, 20.0)} | RATES,
        note="on two stages in the place of RetinaNet; its vocabulary is the seen classes",
    ),
    System(
        "blc",
        "BLC",
        _scored_by("blc"),
        RATES,
        note="its stages share one region: no box moves between them",
    ),
    System(OWN, "ContrastZSD", {}, {"model.scoring.similarity_temperature": (0.05, 1.0)} | RATES),
    System(
        "contrastzsd-ridge",
        "ContrastZSD from a ridge regression",
        {"training.warm_start": 3.0},
        steps=0,
        note="the recipe of coco48: heads in closed form, no step of training",
    ),
    System("without-rrcl", "ContrastZSD without RRCL", {"loss.contrast_weight": 0.0}, like=OWN),
    System("without-rccl-u", "ContrastZSD without RCCL_u", {"loss.unseen_weight": 0.0}, like=OWN),
)
