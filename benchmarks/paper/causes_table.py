"""Parts of the report: what separates the methods, the detectors of all systems, other splits."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from zsd_core.errors import DataError
from zsd_core.learning.data.splits import load_split

__all__ = ["bundles_line", "bundles_section", "causes_section", "leaks"]

CAUSES = "causes.json"  # beside the comparison of systems
CONCLUSION = "causes.txt"  # the paragraph that a person wrote about the numbers
CAUSES_HEAD = """### What separates the methods

{conclusion}

Seen classes that played unseen ones, on {photographs}; {what}. The detector's regions and, with the
same trained scoring, human boxes in their place; percent, mAP as area under the curve, one number
for each draw of these classes. Below ContrastZSD and ConSE-ZSD, a row without a rate changes one
thing of ContrastZSD's. `python -m benchmarks.paper.causes` made it
([how](reproduce.md#every-system-of-the-paper))."""
BUNDLES_HEAD = """### Every system as a detector

`--bundles` writes a bundle of every system. On {images} photographs, with score
threshold 0: detections of `Detector`; how many of them PyTorch and `detector.onnx` find too, with
the largest difference of a score; and detections of a class that was added while the detector ran,
by a vector and under a name that the bundle does not know. Taken out and added again, a class gives
the same detections, bit for bit."""


def causes_section(folder: Path) -> str:
    """The table of ``benchmarks.paper.causes`` below ``CONCLUSION``; "" without it."""
    result = _read(folder / CAUSES)
    if result is None:
        return ""
    rows = result["rows"]
    table = [
        ["changed", "steps", "last losses", "mAP", "Recall@100", "human boxes: mAP", "recall"],
        ["---", "---:", "---", "---:", "---:", "---:", "---:"],
    ]
    for row in rows:
        numbers = [
            " / ".join(f"{draw[where][number]:.1f}" for draw in row["draws"])
            for where in ("regions", "human boxes")
            for number in ("mAP", "recall")
        ]
        losses = row["draws"][0]["losses"]
        said = ", ".join(f"{name} {value:.2g}" for name, value in losses.items()) or "-"
        table.append([row["title"], str(row["steps"]), said, *numbers])
    head = CAUSES_HEAD.format(
        conclusion=(folder / CONCLUSION).read_text(encoding="utf-8").strip(),
        photographs=result["photographs"],
        what=result["what"],
    )
    return f"{head}\n\n{_lines(table)}"


def bundles_section(result: Mapping[str, Any] | None) -> str:
    """The table of ``benchmarks.paper.bench --bundles``; "" where it was not asked for.

    Args:
        result: ``bundles`` of a comparison.
    """
    if result is None:
        return ""
    table = [
        ["system", "detections", "in PyTorch", "in `detector.onnx`", "of an added class"],
        ["---", "---:", "---:", "---:", "---:"],
    ]
    for row in result["rows"]:
        others = [
            f"{row[name]['matched']} (± {row[name]['largest']:.0e})"
            for name in ("PyTorch", "detector.onnx")
        ]
        table.append([row["title"], str(row["detections"]), *others, str(row["added"])])
    return f"{BUNDLES_HEAD.format(images=result['images'])}\n\n{_lines(table)}"


def bundles_line(result: Mapping[str, Any] | None) -> str:
    """The same in one sentence."""
    if result is None:
        return ""
    rows, others = result["rows"], ("PyTorch", "detector.onnx")
    matched = " and ".join(f"{sum(row[o]['matched'] for row in rows):,} in {o}" for o in others)
    return (
        f"As detectors (`--bundles`), on {result['images']} photographs: of "
        f"{sum(row['detections'] for row in rows):,} detections of `Detector` in {len(rows)} "
        f"bundles, {matched}, with scores that differ by at most "
        f"{max(row[o]['largest'] for row in rows for o in others):.0e}. A class can be added."
    )


def leaks(trained: str, other: str) -> tuple[str, ...]:
    """Unseen classes of a split that a detector of another one has learned, by their own names."""
    split, seen = load_split(other), load_split(trained).spellings()
    known = set(load_split(trained).seen)
    return tuple(name for name in split.unseen if seen.get(name) in known)


def _read(path: Path) -> Mapping[str, Any] | None:
    if not path.exists():
        return None
    try:
        result = json.loads(path.read_text(encoding="utf-8"))
        assert isinstance(result["rows"], list) and result["rows"]
    except (OSError, ValueError, KeyError, TypeError, AssertionError) as error:
        raise DataError(f"{path} is no table of benchmarks.paper ({error!r}).") from error
    return dict(result)


def _lines(table: Sequence[Sequence[str]]) -> str:
    return "\n".join("| " + " | ".join(row) + " |" for row in table)
