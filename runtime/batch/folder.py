"""The folder of a run: what was asked, which shards are done, and files that are whole or absent.

run.json            what was asked: bundle, classes, thresholds, inputs; it must match to resume
inputs.jsonl        the images, one path (a JSON string) per line, in the order of their numbers
shards/00012.jsonl  rows of a finished shard
"""

from __future__ import annotations

import datetime
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import IO, Any

from runtime.batch.inputs import Listing
from zsd_core.errors import ConfigError
from zsd_core.folders import clear_parts, lock_folder, written_whole

__all__ = ["FORMAT", "RunFolder", "Shard", "shard_path", "written_aside"]

FORMAT = 1
RUN, INPUTS, SHARDS = "run.json", "inputs.jsonl", "shards"


@contextmanager
def written_aside(path: Path, *, binary: bool = False) -> Iterator[IO[Any]]:
    """Open a file that takes its name when it is complete and on disk, or never.

    Raises:
        ConfigError: the file cannot be written.
    """
    try:
        with (
            written_whole(path) as aside,
            aside.open("wb" if binary else "w", encoding=None if binary else "utf-8") as file,
        ):
            yield file
    except OSError as error:
        raise ConfigError(f"{path}: cannot be written: {error.strerror or error}.") from error


@dataclass(frozen=True, slots=True)
class Shard:
    """A part of the images that is searched and written as one.

    Attributes:
        number: of the shard, from 0.
        first: number of its first image, from 0.
        paths: of its images.
    """

    number: int
    first: int
    paths: tuple[str, ...]


class RunFolder:
    """The folder of one run, locked against other runs.

    Args:
        path: of the folder; made where it is not there.
        request: what decides the rows: settings by name, JSON values.
        listing: the images.
        shard_size: images per shard.

    Raises:
        ConfigError: the folder belongs to a run that was asked something else, is in use, or cannot
            be written.
    """

    def __init__(
        self, path: Path, request: Mapping[str, Any], listing: Listing, shard_size: int
    ) -> None:
        self.path, self._listing, self._size = path, listing, shard_size
        inputs = {"count": len(listing.paths), "sha256": listing.sha256}
        self.request = {"format": FORMAT, **request, "shard_size": shard_size, "inputs": inputs}
        try:
            (path / SHARDS).mkdir(parents=True, exist_ok=True)
            self._lock = lock_folder(path)
        except OSError as error:
            raise ConfigError(f"--output {path}: cannot be made: {error.strerror}.") from error
        try:
            self._begin()
        except BaseException:
            self.close()
            raise

    def _begin(self) -> None:
        for folder in (self.path, self.path / SHARDS):
            clear_parts(folder)
        if (self.path / RUN).exists():
            self._compare()
            return
        if any((self.path / SHARDS).iterdir()):
            raise ConfigError(
                f"{self.path} holds shards but no {RUN}; take another --output, or remove it."
            )
        with written_aside(self.path / INPUTS) as file:
            file.writelines(json.dumps(path) + "\n" for path in self._listing.paths)
        started = datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")
        with written_aside(self.path / RUN) as file:
            json.dump({**self.request, "started": started}, file, indent=1, ensure_ascii=False)
            file.write("\n")

    def _compare(self) -> None:
        """Refuse to go on with what was begun otherwise."""
        try:
            begun = json.loads((self.path / RUN).read_text(encoding="utf-8"))
            inputs = begun.pop("inputs")
        except (OSError, ValueError, KeyError, AttributeError) as error:
            raise ConfigError(
                f"{self.path / RUN} cannot be read ({error}); take another --output."
            ) from error
        asked = json.loads(json.dumps(self.request))  # tuples become lists, as in the file
        differences = [
            f"{name}: {_difference(begun.get(name), value)}"
            for name, value in asked.items()
            if name != "inputs" and begun.get(name) != value
        ]
        if inputs != asked["inputs"]:
            differences.append(f"inputs: {self._input_difference(inputs['count'])}")
        if differences:
            raise ConfigError(
                f"{self.path / RUN} belongs to a run that was asked something else; "
                f"{'; '.join(differences)}. Give the same command to go on with it, or another "
                "--output for a new run."
            )

    def _input_difference(self, count: int) -> str:
        """Both counts, and the first path that is another."""
        with (self.path / INPUTS).open(encoding="utf-8") as file:
            pairs = zip_longest((json.loads(line) for line in file), self._listing.paths)
            number, (old, new) = next(
                ((n, pair) for n, pair in enumerate(pairs) if pair[0] != pair[1]), (0, ("?", "?"))
            )
        return (
            f"the run has {count} images, the command names {len(self._listing.paths)}; "
            f"image {number} was {old!r} and is {new!r}"
        )

    def shards(self) -> Iterator[Shard]:
        """All shards in order."""
        for number, first in enumerate(range(0, len(self._listing.paths), self._size)):
            yield Shard(number, first, self._listing.paths[first : first + self._size])

    def missing(self) -> list[Shard]:
        """The shards that are still to be searched."""
        return [s for s in self.shards() if not shard_path(self.path, s.number).exists()]

    def rows(self) -> Iterator[list[dict[str, Any]]]:
        """Rows of every shard in order, a list for each.

        Raises:
            ConfigError: a shard is missing or damaged.
        """
        for shard in self.shards():
            path = shard_path(self.path, shard.number)
            try:
                rows = [json.loads(line) for line in path.read_bytes().splitlines()]
            except (OSError, ValueError) as error:
                raise ConfigError(
                    f"{path} cannot be read ({error}); remove it and run again."
                ) from error
            if len(rows) != len(shard.paths):
                raise ConfigError(
                    f"{path} holds {len(rows)} of {len(shard.paths)} rows; remove it and run again."
                )
            yield rows

    def close(self) -> None:
        """Let other runs use the folder."""
        self._lock.close()

    def __enter__(self) -> RunFolder:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def shard_path(folder: Path, number: int) -> Path:
    """File of a finished shard."""
    return folder / SHARDS / f"{number:05d}.jsonl"


def _difference(begun: Any, asked: Any) -> str:
    """Both sides of a setting; of lists, what only one has."""
    if isinstance(begun, list) and isinstance(asked, list):
        only = {
            "the run": [repr(x) for x in begun if x not in asked],
            "the command": [repr(x) for x in asked if x not in begun],
        }
        parts = [
            f"only {side} has {', '.join(names[:5])}"
            + (f" and {len(names) - 5} more" if len(names) > 5 else "")
            for side, names in only.items()
            if names
        ]
        return ", ".join(parts) or "the same in another order"
    return f"the run has {_shown(begun)}, the command {_shown(asked)}"


def _shown(value: Any) -> str:
    return "the bundle's own" if value is None else json.dumps(value, ensure_ascii=False)
