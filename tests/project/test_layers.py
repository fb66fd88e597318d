"""Data flows one way: who may import whom, read from the source and proved by importing."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("contrastzsd", "zsd_core", "runtime", "export", "benchmarks")
TORCH = {"torch", "torchvision"}

# Folder: the folders of this project that its modules may import from, beside itself. The deepest
# folder that is listed counts. ``commands`` are files of zsd_core's root that run with ``-m``.
DEVICE_HALF = "zsd_core"
LAYERS = {
    "contrastzsd": ("runtime",),
    DEVICE_HALF: (),
    "zsd_core.learning": (DEVICE_HALF,),
    "commands": (DEVICE_HALF, "zsd_core.learning"),
    "runtime": (DEVICE_HALF,),
    "export.graphs": (DEVICE_HALF, "zsd_core.learning"),
    "export.checks": (DEVICE_HALF, "zsd_core.learning", "commands", "runtime", "export.graphs"),
    "export.writing": (DEVICE_HALF, "zsd_core.learning", "runtime", "export.graphs"),
    "export.int8": (DEVICE_HALF, "runtime", "export.graphs", "export.checks"),
    "export": (
        DEVICE_HALF,
        "zsd_core.learning",
        "commands",
        "runtime",
        "export.graphs",
        "export.checks",
        "export.int8",
        "export.writing",
    ),
    "benchmarks": (
        DEVICE_HALF,
        "zsd_core.learning",
        "commands",
        "runtime",
        "export",
        "export.graphs",
        "export.checks",
        "export.int8",
        "export.writing",
    ),
}
# Folders that work where torch is not installed.
WITHOUT_TORCH = (DEVICE_HALF, "runtime")
# What `import runtime` may load at once; everything else waits until it is used.
FREE = ("numpy.typing", "safetensors")


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


SOURCES = {module_name(path): path for p in PACKAGES for path in (ROOT / p).rglob("*.py")}


def is_under(module: str, package: str) -> bool:
    return module == package or module.startswith(package + ".")


def layer(module: str) -> str:
    """The folder that says what a module may import: the deepest one listed above it."""
    if module.count(".") == 1 and is_under(module, "zsd_core") and is_command(module):
        return "commands"
    folder = module
    while folder not in LAYERS:
        folder = folder.rpartition(".")[0]
    return folder


def is_command(module: str) -> bool:
    return module in SOURCES and "\nif __name__ ==" in SOURCES[module].read_text(encoding="utf-8")


def on_device(module: str) -> bool:
    """Whether a module must work without torch."""
    return layer(module) in WITHOUT_TORCH


def imports(module: str) -> Iterator[tuple[str, int]]:
    """Every module named by an import statement or by ``require``, at any depth of the code."""
    tree = ast.parse(SOURCES[module].read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}:{node.lineno} imports relatively; name the package"
            assert node.module is not None
            for alias in node.names:  # `from zsd_core import kernels` names a module too
                child = f"{node.module}.{alias.name}"
                yield (child if child in SOURCES else node.module), node.lineno
        elif isinstance(node, ast.Call) and getattr(
            node.func, "id", getattr(node.func, "attr", "")
        ) in ("require", "import_module"):
            name = node.args[0] if node.args else None
            if isinstance(name, ast.Constant) and isinstance(name.value, str):
                yield name.value, node.lineno


def violations(module: str) -> Iterator[str]:
    own = layer(module)
    for target, line in imports(module):
        top = target.partition(".")[0]
        where = f"{module}:{line} imports {target}"
        if top in PACKAGES and target != top:
            allowed = layer(target) in (own, *LAYERS[own]) or target in LAYERS[own]
            if not allowed:
                yield f"{where}, which {own} may not"
        if top == "tests":
            yield f"{where}, and tests are nobody's library"
        if on_device(module) and top in TORCH:
            yield f"{where}, but must work where torch is not installed"


def circle(arrows: Mapping[str, set[str]]) -> list[str]:
    """Modules that import each other, directly or not, in order; empty where there are none."""
    done: set[str] = set()

    def walk(module: str, path: list[str]) -> list[str]:
        if module in path:
            return path[path.index(module) :]
        if module in done:
            return []
        for target in sorted(arrows.get(module, ())):
            if found := walk(target, [*path, module]):
                return found
        done.add(module)
        return []

    return next((found for module in sorted(arrows) if (found := walk(module, []))), [])


@pytest.mark.parametrize("module", sorted(SOURCES))
def test_a_module_imports_only_what_its_layer_may(module):
    assert list(violations(module)) == []


@pytest.mark.parametrize(
    ("module", "line"),
    [
        ("runtime.bad", "import torch"),
        ("runtime.bad", "def f():\n    from torchvision import ops"),
        ("runtime.bad", "def f():\n    require('torch', 'train')"),
        ("runtime.bad", "import export.onnx"),
        ("runtime.bad", "from zsd_core import learning"),
        ("runtime.bad", "from zsd_core.learning.losses import rrcl"),
        ("runtime.bad", "from zsd_core import train"),
        ("runtime.bad", "import tests.conftest"),
        ("zsd_core.bad", "import torch"),
        ("zsd_core.bad", "from zsd_core.learning.models import Head"),
        ("zsd_core.learning.bad", "from zsd_core.train import read_vectors"),
        ("export.graphs.bad", "from export.checks.traces import Trace"),
        ("export.checks.bad", "from export.tradeoff import tradeoff"),
        ("export.int8.bad", "from export import quantize"),
    ],
)
def test_the_check_sees_what_it_is_for(tmp_path, monkeypatch, module, line):
    """The rules above fail on code that breaks them, wherever the import hides."""
    source = tmp_path / "bad.py"
    monkeypatch.setitem(SOURCES, module, source)
    source.write_text(line)
    assert len(list(violations(module))) >= 1
    source.write_text("from zsd_core import errors, kernels\nimport numpy")
    assert list(violations(module)) == []


@pytest.mark.parametrize("module", sorted(m for m in SOURCES if layer(m) == "commands"))
def test_a_command_imports_the_learning_half_only_when_it_runs(module):
    tree = ast.parse(SOURCES[module].read_text(encoding="utf-8"))
    at_once = [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
    late = re.compile(r"\b(learning|torch|torchvision)\b")
    assert not [ast.unparse(node) for node in at_once if late.search(ast.unparse(node))]


def test_no_modules_import_each_other():
    arrows = {m: {t for t, _ in imports(m) if t in SOURCES and t != m} for m in SOURCES}
    assert circle(arrows) == []
    arrows["zsd_core.errors"] = {"runtime"}
    assert "zsd_core.errors" in circle(arrows)


def run_python(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", code], cwd=ROOT, capture_output=True, text=True
    )


def test_importing_runtime_is_free():
    """Neither torch nor a backend nor OpenCV is loaded before it is used."""
    result = run_python(
        f"import sys, {', '.join(FREE)}; known = set(sys.modules); import runtime; "
        "new = {name.partition('.')[0] for name in set(sys.modules) - known}; "
        "print(*sorted(new - set(sys.stdlib_module_names)))"
    )
    assert result.returncode == 0, result.stderr
    assert set(result.stdout.split()) == {"zsd_core", "runtime"}


def test_the_device_half_works_where_torch_cannot_be_imported():
    modules = [m for m in SOURCES if on_device(m) or layer(m) == "commands"]
    modules = sorted(m for m in modules if not m.endswith("__main__"))
    assert "runtime" in modules and "zsd_core.config" in modules
    result = run_python(f"""
import importlib, sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {sorted(TORCH)!r}:
            raise ImportError(f"{{name}} is absent on this device")

sys.meta_path.insert(0, Absent())
for name in {modules!r}:
    importlib.import_module(name)
""")
    assert result.returncode == 0, result.stderr
