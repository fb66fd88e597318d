"""A tokenizer's file, checked for steps that would make a text longer without an end."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from zsd_core.errors import BundleError
from zsd_core.files import parse_json

__all__ = ["check_tokenizer"]

# How many times as long a text may become by the steps of a stage. Those of known tokenizers make
# it six times as long at most: a space is three bytes in SentencePiece, a byte two in GPT-2.
MOST = 64
FACTORS = {"ByteLevel": 2, "Precompiled": 4}


def check_tokenizer(where: str, data: bytes) -> None:
    """Refuse steps before the tokens that may make a text many times as long.

    Ten that put ten letters in the place of one make 10^10 of a single letter, which ends the
    process.

    Args:
        where: the file, for messages.
        data: its bytes.

    Raises:
        BundleError: it has such steps, or is no JSON; the library checks everything else.
    """
    tokenizer = parse_json(data, where, BundleError)
    for stage in ("normalizer", "pre_tokenizer") if isinstance(tokenizer, dict) else ():
        longer = 1
        for step in _steps(tokenizer.get(stage)):
            longer *= _factor(step)
            if longer > MOST:
                raise BundleError(
                    f"{where} may make a text more than {MOST} times as long in its {stage}, which "
                    "may fill the memory; do not use this bundle."
                )


def _steps(first: Any) -> Iterator[dict[str, Any]]:
    """Steps of a stage, those of sequences within sequences too."""
    level = [first]
    while level:
        step = level.pop()
        if isinstance(step, dict):
            yield step
            for key in ("normalizers", "pretokenizers"):
                if isinstance(parts := step.get(key), list):
                    level += parts


def _factor(step: dict[str, Any]) -> int:
    """How many times as long, in bytes, a step may make a text; 1 if it does not."""
    kind, pattern, content = step.get("type"), step.get("pattern"), step.get("content")
    if kind != "Replace" or not isinstance(content, str):
        return FACTORS.get(kind, 1) if isinstance(kind, str) else 1
    text = pattern.get("String") if isinstance(pattern, dict) else None
    length = len(_utf8(content))
    if isinstance(text, str) and text:
        return max(1, math.ceil(length / len(_utf8(text))))
    return 1 + length  # a pattern may find nothing, between any two letters


def _utf8(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")
