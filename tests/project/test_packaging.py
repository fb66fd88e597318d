"""The wheel of `pip wheel .` installs in a clean environment and detects there without torch."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import venv
import zipfile
from pathlib import Path, PurePosixPath

import pytest

ROOT = Path(__file__).parents[2]
tomllib = pytest.importorskip("tomllib" if sys.version_info >= (3, 11) else "tomli")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
NOT_SOURCE = ("__pycache__", "*.so")

DETECT = """
import importlib.util, json, sys
assert importlib.util.find_spec("torch") is None, "torch is installed: this proves nothing"
from runtime import Detector
detections = Detector(score_threshold=0.0)(sys.argv[1])
print(json.dumps({"count": len(detections), "boxes": detections.boxes.tolist()}))
"""


def run(*command: object, cwd: Path) -> str:
    result = subprocess.run([str(c) for c in command], cwd=cwd, capture_output=True, text=True)
    assert result.returncode == 0, f"{command}\n{result.stdout[-3000:]}\n{result.stderr[-3000:]}"
    return result.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from what .dockerignore lets into an image: nothing else is needed."""
    folder = tmp_path_factory.mktemp("packaging")
    (folder / "source").mkdir()
    for line in (ROOT / ".dockerignore").read_text("utf-8").splitlines():
        if line.startswith("!"):
            path, target = ROOT / line[1:], folder / "source" / line[1:]
            if path.is_dir():
                shutil.copytree(path, target, ignore=shutil.ignore_patterns(*NOT_SOURCE))
            else:
                shutil.copyfile(path, target)
    command = (sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", folder)
    run(*command, ".", cwd=folder / "source")
    (path,) = folder.glob("contrastzsd-*.whl")
    return path


@pytest.mark.slow
def test_the_wheel_holds_what_it_needs_and_nothing_else(wheel):
    assert wheel.stat().st_size <= 60_000_000
    names = {PurePosixPath(name) for name in zipfile.ZipFile(wheel).namelist()}
    tops = {name.parts[0] for name in names}
    info = {top for top in tops if top.endswith(".dist-info")}
    assert tops - info == {"contrastzsd", "export", "runtime", "zsd_core"}
    assert len([n for n in names if n.match("zsd_core/_compiled*.so")]) == 1
    assert not {n for n in names if n.suffix in {".h", ".cpp", ".cu", ".pyc"}}

    sources = {
        path.relative_to(ROOT).as_posix()
        for pattern in (
            "*/**/*.py",
            "*/*.py",
            "runtime/bundles/open/*",
            "runtime/serve/page/*",
            "zsd_core/learning/data/splits/*.json",
            "*/py.typed",  # without it, type checkers take what is installed as untyped
        )
        for path in ROOT.glob(pattern)
        if path.parts[len(ROOT.parts)] in tops
        and path.is_file()
        and "__pycache__" not in path.parts
    }
    assert any(s.endswith("manifest.json") for s in sources), "no bundle to ship"
    assert sources <= {str(n) for n in names}


@pytest.mark.slow
def test_a_clean_environment_detects_in_a_photograph_without_torch(wheel, tmp_path):
    skimage_data = pytest.importorskip("skimage.data")
    cv2 = pytest.importorskip("cv2")
    photograph = tmp_path / "cat.png"
    assert cv2.imwrite(str(photograph), skimage_data.chelsea()[:, :, ::-1])
    venv.create(tmp_path / "venv", with_pip=True)
    python = tmp_path / "venv" / "bin" / "python"
    run(
        python,
        "-m",
        "pip",
        "install",
        "--quiet",
        f"contrastzsd[cpu] @ {wheel.as_uri()}",
        cwd=tmp_path,
    )

    result = json.loads(run(python, "-W", "error", "-c", DETECT, photograph, cwd=tmp_path))

    assert result["count"] == len(result["boxes"]) > 0
    height, width = skimage_data.chelsea().shape[:2]
    for x1, y1, x2, y2 in result["boxes"]:
        assert 0 <= x1 < x2 <= width and 0 <= y1 < y2 <= height


@pytest.mark.slow
def test_beside_another_runtime_folder_the_error_names_it_and_the_cure(wheel, tmp_path):
    """A user's own ``runtime/`` hides ours: the error comes before anything else is imported."""
    venv.create(tmp_path / "venv", with_pip=True)
    python, decoy = tmp_path / "venv" / "bin" / "python", tmp_path / "work" / "runtime"
    run(python, "-m", "pip", "install", "--quiet", "--no-deps", wheel, cwd=tmp_path)
    decoy.mkdir(parents=True)
    (decoy / "__init__.py").touch()
    for arguments in (("-c", "from contrastzsd import Detector"), ("-m", "contrastzsd", "detect")):
        result = subprocess.run(
            [python, *arguments], cwd=decoy.parent, capture_output=True, text=True
        )
        assert result.returncode == 1
        last = result.stderr.strip().splitlines()[-1]
        assert f"Python finds {decoy} under the name 'runtime'" in last
        assert f"Rename {decoy}, or take {decoy.parent} out of Python's path" in last
    console = tmp_path / "venv" / "bin" / "contrastzsd"  # it has no current folder in its path
    assert "detect" in run(console, cwd=decoy.parent)


def test_the_base_install_is_what_a_device_needs():
    names = {re.split(r"[^\w-]", line)[0] for line in PROJECT["dependencies"]}
    assert names == {"numpy", "opencv-python-headless", "safetensors", "tokenizers"}


def test_every_dependency_has_a_lower_bound_and_no_pin():
    groups = [PROJECT["dependencies"], *PROJECT["optional-dependencies"].values()]
    only = r"(; (sys_platform == 'linux'|python_version >= '[\d.]+'))?"
    form = r"[\w-]+(\[[\w,]+\])?>=[\d.]+(,<[\d.]+)?" + only
    for line in (line for group in groups for line in group):
        assert re.fullmatch(form, line), line


def test_errors_about_missing_packages_name_extras_that_exist():
    used = {
        extra
        for package in ("zsd_core", "runtime", "export", "benchmarks")
        for path in (ROOT / package).rglob("*.py")
        for extra in re.findall(r'require\(\s*"[\w.]+",\s*"([\w-]+)"', path.read_text("utf-8"))
    }
    assert used and used <= set(PROJECT["optional-dependencies"])


def test_what_benchmarks_need_comes_without_torch():
    names = {re.split(r"[^\w-]", line)[0] for line in PROJECT["optional-dependencies"]["report"]}
    assert {"matplotlib", "tqdm"} <= names and not names & {"torch", "torchvision"}
