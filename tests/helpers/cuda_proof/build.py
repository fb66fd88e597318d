"""Builds of the CUDA sources for the proofs: the shim module by g++, the real module by nvcc.

Everything lands in ``build/cuda_proof``, named by the hash of what it was made from, so a second
session compiles nothing.
"""

from __future__ import annotations

import fcntl
import functools
import hashlib
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

from benchmarks import static

ROOT = Path(__file__).resolve().parents[3]
SOURCES = ROOT / "csrc"
KERNELS = SOURCES / "kernels"
SHIM = Path(__file__).resolve().parent
CACHE = ROOT / "build" / "cuda_proof"
MODULE = "_compiled_cuda"
BINDINGS = ("cuda_bindings", "cuda_given_bindings")

Replacement = tuple[str, str, str]  # file below csrc, text that occurs there once, its replacement


def operators() -> list[str]:
    """Names of the CUDA translation units, ``product_mlp`` and so on."""
    return sorted(path.stem for path in KERNELS.glob("cuda/*.cu"))


def _hash(paths: list[Path], *words: str) -> str:
    digest = hashlib.sha256("\0".join(words).encode())
    for path in paths:
        digest.update(path.name.encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:16]


def _headers() -> list[Path]:
    return sorted(
        path for suffix in ("*.h", "cuda/*.h", "cuda/*.cuh") for path in KERNELS.glob(suffix)
    )


def _make(target: Path, command: list[str]) -> Path:
    """Run ``command`` with ``-o`` a temporary name, then move it into place at once."""
    if not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent) as folder:
            made = Path(folder) / target.name
            done = subprocess.run([*command, "-o", str(made)], capture_output=True, text=True)
            assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout}{done.stderr}"
            made.rename(target)
    return target


def _flags() -> list[str]:
    import pybind11

    return [
        os.environ.get("CXX", "g++"),
        "-std=c++17",
        "-fPIC",
        "-fno-gnu-unique",
        "-DZSD_CUDA_SHIM",
        "-Wall",
        "-Wno-unknown-pragmas",
        f"-I{SHIM}",
        f"-I{SOURCES}",
        f"-I{pybind11.get_include()}",
        f"-I{sysconfig.get_path('include')}",
    ]


def shim_module(*, sanitize: bool = False, mutation: Replacement | None = None) -> Path:
    """The module, bindings and all, with fibers in place of a GPU; ``mutation`` plants one bug."""
    flags = _flags()
    checks = ["-fsanitize=address", "-fno-omit-frame-pointer", "-g1"] if sanitize else []
    with tempfile.TemporaryDirectory() as folder:
        kernels, mutated = KERNELS, ""
        if mutation:
            mutated, old, new = mutation
            kernels = Path(folder) / "kernels"
            shutil.copytree(KERNELS, kernels)
            source = Path(folder) / mutated
            assert source.read_text().count(old) == 1, f"{old!r} must occur once in {mutated}"
            source.write_text(source.read_text().replace(old, new))
        shared = [*_headers(), SOURCES / "device_array.h", SHIM / "shim.h"]
        objects = []
        sources = {name: kernels / "cuda" / f"{name}.cu" for name in operators()}
        sources |= {name: SOURCES / f"{name}.cpp" for name in BINDINGS}
        sources["shim"] = SHIM / "shim.cpp"
        for name, source in sources.items():
            changed = bool(mutation) and source.suffix == ".cu" and _includes(name, mutated)
            extra = ["-O0", "-w"] if name in BINDINGS else ["-O1", *checks]
            planted = mutation if changed and mutation else ()
            key = _hash([source, *shared], *flags, *extra, *planted)
            command = [*flags, *extra, "-x", "c++", "-c", str(source)]
            objects.append(_make(CACHE / f"{name}-{key}.o", command))
        target = CACHE / _hash([], *map(str, objects), *checks) / f"{MODULE}.so"
        link = [flags[0], *checks, "-shared", *map(str, objects), "-ldl"]
        return _make(target, link)


def _includes(operator: str, header: str) -> bool:
    """Whether the translation unit reads ``header``, so that others need no second compilation."""
    files = {path.name: path for path in [*_headers(), *KERNELS.glob("cuda/*.cu")]}
    seen, queue = set(), [f"{operator}.cu"]
    while queue:
        name = queue.pop()
        if name in seen or name not in files:
            continue
        seen.add(name)
        queue += re.findall(r'#include "(?:\.\./)?([\w.]+)"', files[name].read_text())
    return Path(header).name in seen


def load(path: Path):
    """Import a built module from where it lies; a process can hold one build, by its name."""
    if str(ROOT) not in sys.path:
        sys.path.insert(0, str(ROOT))  # the bindings raise zsd_core.errors
    spec = importlib.util.spec_from_file_location(MODULE, path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@functools.cache
def nvcc() -> str | None:
    """The CUDA compiler, from CUDACXX or the PATH."""
    return shutil.which(os.environ.get("CUDACXX", "nvcc"))


@functools.cache
def cuda_module() -> Path:
    """The real module for every architecture, built by the project's own CMake files."""
    folder = CACHE / "module"
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "build.ninja").exists():
            _run(
                [
                    "cmake",
                    "-S",
                    str(ROOT),
                    "-B",
                    str(folder),
                    "-G",
                    "Ninja",
                    "-DZSD_CUDA=ON",
                    f"-DPython_EXECUTABLE={sys.executable}",
                ]
            )
        _run(["cmake", "--build", str(folder), "--target", MODULE, "--parallel", "2"])
    (module,) = folder.glob(f"{MODULE}*.so")
    return module


def _run(command: list[str], cwd: Path | None = None) -> str:
    done = subprocess.run(command, capture_output=True, text=True, cwd=cwd)
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout}{done.stderr}"
    return done.stdout


@functools.cache
def extracted() -> Path:
    """The folder with every architecture's PTX and machine code, taken out of the built module."""
    module = cuda_module()
    folder = CACHE / f"extracted-{_hash([module])}"
    if not folder.exists():
        with tempfile.TemporaryDirectory(dir=CACHE) as made:
            for what in ("-xptx", "-xelf"):
                _run([static.tool("cuobjdump"), what, "all", str(module)], cwd=Path(made))
            shutil.copytree(made, folder, dirs_exist_ok=True)
    return folder


def ptx(architecture: int) -> str:
    """The PTX of all kernels for one architecture."""
    files = sorted(extracted().glob(f"*.sm_{architecture}.ptx"))
    assert len(files) == len(operators()), f"PTX for sm_{architecture}: {files}"
    return "\n".join(path.read_text() for path in files)
