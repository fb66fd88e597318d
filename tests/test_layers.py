"""Data flows one way: who may import whom, read from the source and proved by importing."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = ("zsd_core", "runtime", "export", "benchmarks")
TORCH = {"torch", "torchvision"}

# The half of zsd_core that runs on a device. Everything else there may use torch.
DEVICE_HALF = {"zsd_core"} | {
    f"zsd_core.{name}"
    for name in (
        "_compiled",
        "_compiled_cuda",
        "config",
        "errors",
        "kernels",
        "pipeline",
        "progress",
        "scoring",
        "semantics",
        "text",
    )
}
# package: what of this project it may import, beside itself.
LAYERS = {
    "zsd_core": (),
    "runtime": tuple(DEVICE_HALF - {"zsd_core"}),
    "export": ("zsd_core", "runtime"),
    "benchmarks": ("zsd_core", "runtime", "export"),
}
# What `import runtime` may load at once; everything else waits until it is used.
FREE = ("numpy.typing", "safetensors")


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


SOURCES = {module_name(path): path for p in PACKAGES for path in (ROOT / p).rglob("*.py")}


def is_under(module: str, package: str) -> bool:
    return module == package or module.startswith(package + ".")


def on_device(module: str) -> bool:
    """Whether a module must work without torch."""
    if module == "zsd_core" or is_under(module, "runtime"):
        return True
    return any(is_under(module, part) for part in DEVICE_HALF - {"zsd_core"})


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
    package = module.partition(".")[0]
    for target, line in imports(module):
        top = target.partition(".")[0]
        where = f"{module}:{line} imports {target}"
        if top in PACKAGES and top != package:
            allowed = any(is_under(target, part) for part in LAYERS[package])
            if not allowed:
                yield f"{where}, which {package}/ may not"
        if top == "tests":
            yield f"{where}, and tests are nobody's library"
        if on_device(module) and top in TORCH:
            yield f"{where}, but must work where torch is not installed"
        if on_device(module) and top == "zsd_core" and not on_device(target):
            yield f"{where}, which uses torch"


@pytest.mark.parametrize("module", sorted(SOURCES))
def test_a_module_imports_only_what_its_layer_may(module):
    assert list(violations(module)) == []


def test_the_check_sees_what_it_is_for(tmp_path, monkeypatch):
    """The rules above fail on code that breaks them, wherever the import hides."""
    source = tmp_path / "bad.py"
    monkeypatch.setitem(SOURCES, "runtime.bad", source)
    for line in (
        "import torch",
        "def f():\n    from torchvision import ops",
        "def f():\n    require('torch', 'train')",
        "import export.onnx",
        "from zsd_core import models",
        "from zsd_core.losses import rrcl",
        "import tests.conftest",
    ):
        source.write_text(line)
        assert len(list(violations("runtime.bad"))) >= 1, line
    source.write_text("from zsd_core import errors, kernels\nimport numpy")
    assert list(violations("runtime.bad")) == []


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
    modules = sorted(m for m in SOURCES if on_device(m) and not m.endswith("__main__"))
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
