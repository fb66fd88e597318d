"""Public means listed: ``__all__`` of every module is sorted and is what the module defines."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MODULES = sorted(
    path
    for package in ("contrastzsd", "zsd_core", "runtime", "export", "benchmarks")
    for path in (ROOT / package).rglob("*.py")
)


def declared(tree: ast.Module) -> list[str] | None:
    """The strings of ``__all__``, or None without one."""
    for node in tree.body:
        targets = node.targets if isinstance(node, ast.Assign) else []
        if any(isinstance(t, ast.Name) and t.id == "__all__" for t in targets):
            return list(ast.literal_eval(node.value))
    return None


def bound(tree: ast.Module) -> tuple[set[str], set[str]]:
    """Names a module binds: public functions and classes of its own, and everything at all."""
    own: set[str] = set()
    every: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            every.update((a.asname or a.name).partition(".")[0] for a in node.names)
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef | ast.AsyncFunctionDef):
            every.add(node.name)
            if not node.name.startswith("_"):
                own.add(node.name)
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            every.update(n.id for t in targets for n in ast.walk(t) if isinstance(n, ast.Name))
    return own, every


def sort_key(name: str) -> tuple[int, str]:
    """CONSTANTS, then Classes, then functions: the order ruff's RUF022 keeps."""
    return (0 if name.isupper() else 1 if name[0].isupper() else 2), name


def problems(source: str, needs_list: bool = True) -> list[str]:
    """Return what is wrong; a private module (``_name.py``) or an empty package needs no list."""
    tree = ast.parse(source)
    names, (own, every) = declared(tree), bound(tree)
    if names is None:
        return [f"has no __all__ but defines {sorted(own)}"] if needs_list else []
    found = []
    if names != sorted(set(names), key=sort_key):
        found.append(f"__all__ is not sorted: {sorted(set(names), key=sort_key)}")
    resolves_lazily = "__getattr__" in every  # PEP 562; the import test below proves those
    if not resolves_lazily and (unknown := sorted(set(names) - every)):
        found.append(f"__all__ lists {unknown}, which it does not define")
    if private := [name for name in names if name.startswith("_")]:
        found.append(f"__all__ lists {private}, which are private")
    if missing := sorted(own - set(names)):
        found.append(f"__all__ lacks {missing}; list them or begin them with an underscore")
    return found


@pytest.mark.parametrize("path", MODULES, ids=lambda p: p.relative_to(ROOT).as_posix())
def test_all_lists_the_public_names_in_order(path):
    source = path.read_text(encoding="utf-8")
    is_empty_package = path.name == "__init__.py" and not bound(ast.parse(source))[0]
    is_private = path.name.startswith("_") and path.name != "__init__.py"
    assert problems(source, needs_list=not (is_empty_package or is_private)) == []


@pytest.mark.parametrize(
    ("source", "complaint"),
    [
        ("def f(): ...", "has no __all__"),
        ("__all__ = ['g', 'f']\ndef f(): ...\ndef g(): ...", "not sorted"),
        ("__all__ = ['f', 'h']\ndef f(): ...", "does not define"),
        ("__all__ = ['_f']\ndef _f(): ...", "private"),
        ("__all__ = ['f']\ndef f(): ...\nclass G: ...", "lacks"),
    ],
)
def test_the_check_sees_what_it_is_for(source, complaint):
    assert [p for p in problems(source) if complaint in p]


def test_lists_resolve_when_imported():
    """A lazily resolved name (PEP 562) exists: asked of the packages an edge device imports."""
    import runtime

    for name in runtime.__all__:
        assert getattr(runtime, name) is not None
    assert set(runtime.__all__) <= set(dir(runtime))
