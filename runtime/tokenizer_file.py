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
Growth = list[int]  # (256,): how many bytes each byte of a text may have become after the last step


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
        growth = [1] * 256
        for step in _last_first(tokenizer.get(stage)):
            growth = _before(step, growth)
            if max(growth) > MOST:
                raise BundleError(
                    f"{where} may make a text more than {MOST} times as long in its {stage}, which "
                    "may fill the memory; do not use this bundle."
                )


def _last_first(stage: Any) -> Iterator[dict[str, Any]]:
    """Steps of a stage from the last to the first, those of sequences within sequences too."""
    level = [stage]
    while level:
        step = level.pop()
        if isinstance(step, dict):
            if step.get("type") != "Sequence":
                yield step
            for key in ("normalizers", "pretokenizers"):
                if isinstance(parts := step.get(key), list):
                    level += parts


def _before(step: dict[str, Any], growth: Growth) -> Growth:
    """What the bytes before a step may become, from what those after it may become.

    By bytes, because steps multiply only where one writes what a later one replaces: "!" to " ! "
    and then "?" to " ? " makes three bytes of one, not nine.
    """
    kind, pattern, content = step.get("type"), step.get("pattern"), step.get("content")
    if kind != "Replace" or not isinstance(content, str):
        factor = FACTORS.get(kind, 1) if isinstance(kind, str) else 1
        return [factor * max(growth)] * 256  # it may make any letter of any other
    text = pattern.get("String") if isinstance(pattern, dict) else None
    written = sum(growth[byte] for byte in _utf8(content))
    if not isinstance(text, str) or not text:
        return [own + written for own in growth]  # it may find nothing, between any two letters
    found = _utf8(text)
    share = math.ceil(written / len(found))
    return [max(own, share) if byte in found else own for byte, own in enumerate(growth)]


def _utf8(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")
