"""A tokenizer's file, checked for steps that would make a text longer without an end."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

from zsd_core.errors import BundleError
from zsd_core.files import parse_json

__all__ = ["check_tokenizer"]

# Steps that may make a text longer, and more so by each step of their kind.
GROWING = ("ByteLevel", "Precompiled", "Replace")


def check_tokenizer(where: str, data: bytes) -> None:
    """Refuse steps before the tokens that may make a text many times as long.

    Ten that put ten letters in the place of one make 10^10 of a single letter, which ends the
    process. A text may be replaced by one that is no longer, any number of times. Once each, a
    pattern may be replaced by one letter (CLIP's white space), bytes by letters (GPT-2), and
    letters by a table (SentencePiece).

    Args:
        where: the file, for messages.
        data: its bytes.

    Raises:
        BundleError: it has such steps, or is no JSON; the library checks everything else.
    """
    tokenizer = parse_json(data, where, BundleError)
    if not isinstance(tokenizer, dict):
        return
    for stage in ("normalizer", "pre_tokenizer"):
        steps = [step for step in _steps(tokenizer.get(stage)) if step.get("type") in GROWING]
        replacing = [step for step in steps if step["type"] == "Replace"]
        counts = Counter(step["type"] for step in steps if not _is_text(step))
        if any(map(_lengthens, replacing)) or any(count > 1 for count in counts.values()):
            raise BundleError(
                f"{where} makes texts longer in its {stage}, again and again, which may fill the "
                "memory; do not use this bundle."
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


def _is_text(step: dict[str, Any]) -> bool:
    """Whether a step replaces a text, and not whatever a pattern finds."""
    pattern = step.get("pattern")
    return isinstance(pattern, dict) and isinstance(pattern.get("String"), str)


def _lengthens(step: dict[str, Any]) -> bool:
    """Whether a ``Replace`` puts more letters into a place than it finds there."""
    content = step.get("content")
    most = len(_utf8(step["pattern"]["String"])) if _is_text(step) else 1
    return isinstance(content, str) and len(_utf8(content)) > most


def _utf8(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")
