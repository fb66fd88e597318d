"""A folder of the tracked files that the proof needs, small enough to be brought along.

Left out are tests that are not helpers, pages, the text encoder and the int8 network of the bundle
``open`` and most words of both vocabularies, which the manifests of the copies then do not list:
classes of the proof are names of the vocabulary. Bundles travel as zips; ``unpack`` is for where
they arrive.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import numpy as np

from benchmarks.gpu.build import ROOT
from runtime.archive import MANIFEST, sha256
from runtime.manifest import VOCABULARY
from zsd_core.errors import ConfigError

__all__ = ["LARGEST", "pack", "unpack"]

LARGEST = 64 << 20  # bytes
KEPT = (
    *("benchmarks/", "cmake/", "configs/", "contrastzsd/", "csrc/", "docs/gpu.md", "export/"),
    *("runtime/", "scripts/", "tests/helpers/", "zsd_core/", "CMakeLists.txt", "pyproject.toml"),
    *("LICENSE", "README.md"),
)
BUNDLES = "runtime/bundles/"
LEFT_OUT = ("text_encoder.onnx", "tokenizer.json", "head.int8.asymmetric.onnx")
WORDS = 2000  # of a vocabulary, that stay


def pack(target: Path) -> int:
    """Copy the files into a new folder; its bytes.

    Raises:
        ConfigError: the folder is there already, this is no checkout, or the copy is too large.
    """
    if target.exists():
        raise ConfigError(f"{target} is there already; name a new folder.")
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True)
    if listed.returncode != 0:
        raise ConfigError(f"{ROOT} is no checkout of git: {listed.stderr.strip()}")
    for name in listed.stdout.splitlines():
        encodes = name.startswith(BUNDLES) and name.endswith(LEFT_OUT)
        if name.startswith(KEPT) and not encodes:
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, target / name)
    for manifest in list(target.glob(f"{BUNDLES}*/{MANIFEST}")):
        _shorten(manifest)
        shutil.make_archive(str(manifest.parent), "zip", manifest.parent)
        shutil.rmtree(manifest.parent)
    size = sum(path.stat().st_size for path in target.rglob("*") if path.is_file())
    if size > LARGEST:
        raise ConfigError(f"{target} has {size / 2**20:.1f} MiB, must have 64 at most.")
    return size


def unpack(root: Path = ROOT) -> None:
    """Put folders in the place of bundles that were packed; one whose folder is there stays."""
    for archive in (root / BUNDLES).glob("*.zip"):
        folder = archive.with_suffix("")
        if not folder.exists():
            partial = folder.with_name(f".{folder.name}.partial")
            shutil.unpack_archive(archive, partial)
            partial.rename(folder)
            archive.unlink()


def _shorten(manifest: Path) -> None:
    """Make a bundle one without a text encoder and int8, of few words."""
    from safetensors.numpy import load_file, save_file

    content, words = json.loads(manifest.read_text(encoding="utf-8")), manifest.parent / VOCABULARY
    content.pop("text", None)
    content.pop("precisions", None)
    for file in LEFT_OUT:
        content["files"].pop(file, None)
    tensors = load_file(words)
    names = tensors["names"].tobytes().split(b"\n")[:WORDS]
    tensors["names"] = np.frombuffer(b"\n".join(names), np.uint8)
    content["vocabulary"]["count"] = len(names)
    for name in ("vectors", "scales"):
        tensors[name] = np.ascontiguousarray(tensors[name][:WORDS])
    save_file(tensors, words)
    content["files"][VOCABULARY] |= {"bytes": words.stat().st_size, "sha256": sha256(words)}
    manifest.write_text(json.dumps(content, indent=1), encoding="utf-8")
