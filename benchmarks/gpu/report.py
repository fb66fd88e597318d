"""Results of a part: one JSON file, written anew after every row, so that nothing is lost."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

__all__ = ["DRY", "Report", "agreed", "read_result", "write_json"]

DRY = "dry run, no GPU"


class Report:
    """The result of a part while it grows.

    Args:
        folder: of all results.
        part: name of the part; the file is named after it.
        seed: of the random inputs.
        gpu: name of the GPU; None in a dry run, whose lines and file all say so.
    """

    def __init__(self, folder: Path, part: str, seed: int, gpu: str | None) -> None:
        self.path, self.seed, self.gpu = folder / f"{part}.json", seed, gpu
        self._start = time.perf_counter()
        self.content: dict[str, Any] = {
            "part": part,
            "ran_on": gpu or DRY,
            "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "seed": seed,
            "finished": False,
            "agreed": False,
            "facts": {},
            "rows": [],
            "failures": [],
            "not_checked": [],
            "error": None,
        }
        self._save()

    @property
    def dry(self) -> bool:
        """Whether there is no GPU in this."""
        return self.gpu is None

    def say(self, line: str) -> None:
        """Print a line."""
        print(f"{DRY}: {line}" if self.dry else line, flush=True)

    def fact(self, **values: Any) -> None:
        """Note values that there are once."""
        self.content["facts"] |= values
        self._save()
        for name, value in values.items():
            self.say(f"  {name}: {str(value)[:150]}")

    def row(self, **values: Any) -> None:
        """Note a row of the part's table."""
        self.content["rows"].append(values)
        self._save()
        self.say("  " + "  ".join(f"{k} {_short(v)}" for k, v in values.items()))

    def failure(self, sentence: str) -> None:
        """Note what does not agree; the part goes on."""
        self.content["failures"].append(sentence)
        self._save()
        self.say(f"  FAILED: {sentence}")

    def not_checked(self, sentence: str) -> None:
        """Note what could not be tried, and why; the part then does not agree."""
        self.content["not_checked"].append(sentence)
        self._save()
        self.say(f"  NOT CHECKED: {sentence}")

    def end(self, error: str | None = None) -> bool:
        """Note the end, by an error or not; whether everything agreed."""
        good = not (error or self.content["failures"] or self.content["not_checked"])
        self.content |= {"finished": error is None, "agreed": good, "error": error}
        self._save()
        self.say(f"{self.content['part']}: {'agreed' if good else 'DID NOT AGREE'}")
        return good

    def _save(self) -> None:
        self.content["seconds"] = round(time.perf_counter() - self._start, 1)
        write_json(self.path, self.content)


def write_json(path: Path, content: Any) -> None:
    """Write a file whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    made = path.with_suffix(".part")
    made.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    os.replace(made, path)


def read_result(folder: Path, part: str) -> dict[str, Any] | None:
    """What a part wrote; None where there is nothing."""
    try:
        return dict(json.loads((folder / f"{part}.json").read_text(encoding="utf-8")))
    except FileNotFoundError:
        return None


def agreed(result: dict[str, Any] | None, *, dry: bool) -> bool:
    """Whether a part need not run again: all of it agreed, on a GPU, or in a dry run likewise."""
    return bool(result and result["agreed"]) and (result["ran_on"] == DRY) == dry  # type: ignore[index]


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
