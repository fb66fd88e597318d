"""Files for people outside: workflows, issue forms, the citation; they say what is so."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
yaml = pytest.importorskip("yaml")
tomllib = pytest.importorskip("tomllib" if sys.version_info >= (3, 11) else "tomli")
SETTINGS = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
PROJECT = SETTINGS["project"]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
SCHEMAS = {
    "github-workflows": [str(path.relative_to(ROOT)) for path in WORKFLOWS],
    "github-issue-config": [".github/ISSUE_TEMPLATE/config.yml"],
    "github-issue-forms": [
        f".github/ISSUE_TEMPLATE/{name}.yml" for name in ("bug", "feature", "gpu")
    ],
    "dependabot": [".github/dependabot.yml"],
    "citation-file-format": ["CITATION.cff"],
    "compose-spec": ["deploy/docker/compose.yaml"],
}


def checker() -> str | None:
    """The program ``check-jsonschema`` of this environment; it brings the schemas."""
    return shutil.which("check-jsonschema", path=str(Path(sys.executable).parent))


@pytest.mark.skipif(checker() is None, reason="check-jsonschema is not installed")
@pytest.mark.parametrize("schema", SCHEMAS)
def test_a_file_has_the_form_its_readers_expect(schema):
    files = SCHEMAS[schema]
    assert files
    said = subprocess.run(
        [str(checker()), "--builtin-schema", f"vendor.{schema}", *files],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert said.returncode == 0, said.stdout + said.stderr


def test_every_issue_form_is_checked():
    forms = {path.name for path in (ROOT / ".github" / "ISSUE_TEMPLATE").iterdir()}
    assert forms == {
        Path(f).name for s in ("config", "forms") for f in SCHEMAS[f"github-issue-{s}"]
    }


def test_the_citation_is_that_of_this_version():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text("utf-8"))
    assert str(citation["version"]) == PROJECT["version"]
    assert citation["license"] == PROJECT["license"]
    (paper,) = citation["references"]
    assert paper["doi"] == "10.1109/TPAMI.2021.3140070" and len(paper["authors"]) == 6


def test_workflows_try_the_pythons_that_are_named():
    named = re.findall(r"Python :: (3\.\d+)", " ".join(PROJECT["classifiers"]))
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "test.yml").read_text("utf-8"))
    matrix = workflow["jobs"]["test"]["strategy"]["matrix"]
    assert matrix["python"] == named
    assert [(m["python"], m["machine"]) for m in matrix["include"]] == [
        ("3.11", "ubuntu-24.04-arm")
    ]
    wheels = [build.removesuffix("-*") for build in SETTINGS["tool"]["cibuildwheel"]["build"]]
    assert wheels == [f"cp{version.replace('.', '')}" for version in named]
    assert PROJECT["requires-python"] == f">={named[0]}"


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_actions_of_others_are_pinned_by_commit(path):
    """A tag can be moved to other code; the comment says which version the commit is."""
    for action in re.findall(r"uses: (.*)", path.read_text("utf-8")):
        assert action.startswith("./") or re.fullmatch(
            r"[\w-]+/[\w-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+\b.*", action
        ), action


def test_workflows_run_the_scripts_that_people_run():
    for path in WORKFLOWS:
        for line in re.findall(r"^\s*- run: (.*)$", path.read_text("utf-8"), re.MULTILINE):
            program = ROOT / line.split()[0]
            assert program.is_file() and program.parent.name in (".ci", "scripts"), line


def test_extras_of_workflows_exist():
    text = (ROOT / ".github" / "workflows" / "test.yml").read_text("utf-8")
    (extras,) = re.findall(r"extras: ([\w,-]+)", text)
    assert set(extras.split(",")) <= set(PROJECT["optional-dependencies"])


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_no_workflow_publishes(path):
    text = path.read_text("utf-8").lower()
    assert not re.search(r"pypi-publish|twine|id-token|gh release|contents: write|secrets\.", text)
    assert "permissions:\n  contents: read" in text
