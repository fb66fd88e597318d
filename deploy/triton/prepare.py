"""Make a model repository for Triton Inference Server from a bundle.

    python deploy/triton/prepare.py bundle/ models/
    docker run --rm -p 8000:8000 -v "$PWD/models:/models" \
        nvcr.io/nvidia/tritonserver:25.06-py3 tritonserver --model-repository=/models

The model is the whole detector in standard ONNX operators. Its classes are inputs, ``prototypes``
and ``similarity``: clients with different classes share one loaded model, and no class needs a
restart. ``client.py`` makes these inputs from names.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from runtime.bundle import Bundle, open_bundle
from zsd_core.commands import command, new_parser
from zsd_core.errors import BundleError

MODEL = "contrastzsd"
FILES = ("detector.onnx", "weights.bin", "scorer.safetensors")  # the graph, and where weights lie
TYPES = {"float32": "TYPE_FP32", "int64": "TYPE_INT64"}


def config(bundle: Bundle) -> str:
    """``config.pbtxt`` for the detector of a bundle, from its manifest.

    Sizes that the graph leaves open (images, classes, detections) are -1. ``max_batch_size`` is 0,
    since the first axis of most arrays is not the image: a batch is one request.
    """
    stage = bundle.stage("detector")
    parts = [
        f'name: "{MODEL}"',
        'backend: "onnxruntime"',
        'default_model_filename: "detector.onnx"',
        "max_batch_size: 0",
    ]
    for kind in ("inputs", "outputs"):
        entries = ",\n".join(
            f'  {{ name: "{value["name"]}", data_type: {TYPES[value["dtype"]]}, '
            f"dims: [ {', '.join(_size(axis) for axis in value['shape'])} ] }}"
            for value in stage[kind]
        )
        parts.append(f"{kind[:-1]} [\n{entries}\n]")
    return "\n".join(parts) + "\n"


def _size(axis: int | str) -> str:
    return str(axis) if isinstance(axis, int) else "-1"


def write(bundle: Bundle, repository: Path) -> Path:
    """Write ``contrastzsd/config.pbtxt`` and version 1 of the model; return the model's folder."""
    if "detector.onnx" not in bundle.manifest["files"]:
        raise BundleError(f"{bundle.path} holds no detector.onnx; export the bundle again.")
    folder = repository / MODEL
    (folder / "1").mkdir(parents=True, exist_ok=True)
    for name in FILES:
        if name in bundle.manifest["files"]:
            shutil.copyfile(bundle.file(name), folder / "1" / name)
    (folder / "config.pbtxt").write_text(config(bundle), encoding="utf-8")
    return folder


@command
def main(argv: Sequence[str] | None = None) -> int:
    """Write the repository; print the model's folder."""
    parser = new_parser("deploy.triton.prepare", __doc__)
    parser.add_argument("bundle", nargs="?", type=Path, help="default: the one that ships")
    parser.add_argument("repository", type=Path, help="folder of Triton's models")
    args = parser.parse_args(argv)
    print(write(open_bundle(args.bundle), args.repository))
    return 0


if __name__ == "__main__":
    sys.exit(main())
