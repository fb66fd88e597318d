"""Everything that README and docs/ tell a reader to type runs here, on small data of its own.

``RULES`` is the one table of what runs and what does not. The first rule whose pattern matches a
command decides: it is ``Run``, with the words that stand for the reader's own data replaced, or
``Elsewhere``, where a test of its own runs the module, or ``Cannot``, with the reason.
"""

from __future__ import annotations

import importlib
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

import pytest
import tomllib
from documented import PAGES, ROOT, Item, items
from small_world import Service, small_world

from contrastzsd import cli


class Run(NamedTuple):
    """The command runs, with words replaced.

    Attributes:
        instead: words of the page, and those of the small world.
    """

    instead: Mapping[str, str] = MappingProxyType({})


class Elsewhere(NamedTuple):
    """A test of its own runs the same module or program.

    Attributes:
        test: its file.
        what: the text in that file by which it runs it.
        why: reason why it does not run here.
    """

    test: str
    what: str
    why: str


class Cannot(NamedTuple):
    """The command cannot run in a test."""

    why: str


CAMERA = {
    "rtsp://camera/stream": "gate.mp4",
    "rtsp://user:password@camera/1": "door.mp4",
    "rtsp://camera/1": "gate.mp4",
}
SMALL = {
    "--calibration photographs/": "--calibration photographs/ --sensitive 0 --noise 0 --calls 2",
    "--split coco_48_17": "--split split.json",
    "data/coco48/others_split.json": "split.json",
    "data/coco48/others.json --images val2017/": "instances.json --images ",
    "--calls 200": "--calls 2",
    " --subset validation": "",  # which takes 500 photographs
    "runtime/bundles/open": "given",
    "raccoon/instances.json": "examples/truth.json",
    "raccoon/images": "examples",
    "--name raccoon": "--name zebra",
    "pictures/labels.json": "examples/labels.json",
    "configs/held_out_names.txt": "examples/held_out.txt",
    "--others 500": "--others 1",
    "--counts 1 3 10": "--counts 1 2",
    "--counts 1 3 9": "--counts 1 2",
}
TRAINS = "needs the reader's data and hours; the test trains on pictures that it makes"
TIMES = "takes minutes and an idle machine; the test times a tiny bundle"
RULES: dict[str, Run | Elsewhere | Cannot] = {
    # ---------------------------------------------------------------- installing
    r".*deploy/triton/client\.py": Elsewhere(
        "tests/deploy/test_triton.py",
        "import client",
        "needs a server; the test has ONNX Runtime answer",
    ),
    r"(pip|\.venv/bin/pip) (install|uninstall)": Cannot(
        "changes the environment of the tests; the extras are compared with pyproject.toml below"
    ),
    r"(/usr/bin/)?python3 -m venv": Cannot("installs packages; test_packaging.py installs a wheel"),
    r"apt-get install": Cannot("changes the machine"),
    r"sudo ": Cannot("changes the machine; test_systemd.py reads the unit"),
    r"docker ": Cannot("there is no Docker here; test_docker.py carries out the steps"),
    r"make demo LOCKED=1|make (licences|sbom)": Elsewhere(
        "tests/project/test_supply_chain.py",
        "scripts/licences.py",
        "builds an environment, minutes; the test runs the script in its own",
    ),
    r"make demo": Elsewhere(
        "tests/runtime/test_demo.py", "main([", "builds an environment, minutes"
    ),
    r"make wheel": Elsewhere(
        "tests/project/test_packaging.py", '"pip", "wheel"', "builds with a compiler, minutes"
    ),
    # ---------------------------------------------------------------- NVIDIA GPUs
    r"make gpu-check|python -m export\.gpu_check": Elsewhere(
        "tests/export/test_gpu_check.py",
        "main([",
        "needs an NVIDIA GPU; the test has a double of it",
    ),
    r"python -m export\.engine": Elsewhere(
        "tests/export/test_engine.py",
        "main([",
        "needs TensorRT; the test has a double, or builds for real",
    ),
    r".*(--backend tensorrt|--engine tensorrt_rtx|-DZSD_CUDA=ON|compiled_cuda)": Cannot(
        "needs an NVIDIA GPU or nvcc"
    ),
    r"(?s).*backend=\"tensorrt_rtx\"": Cannot("needs an NVIDIA GPU"),
    r"scripts/gpu-proof": Elsewhere(
        "tests/benchmarks/test_gpu_proof.py",
        '"scripts/gpu-proof"',
        "needs an NVIDIA GPU; the test makes the dry run",
    ),
    # ---------------------------------------------------------------- C++
    r"cmake .*build/sanitized": Elsewhere(
        "tests/kernels/test_sanitizers.py", '"ZSD_SANITIZE": kind', "builds; the test does the same"
    ),
    r"cmake .*build/fuzz": Elsewhere(
        "tests/benchmarks/test_trust.py", "test_the_short_form_loses_nothing", "builds it by g++"
    ),
    r"cmake |-DOpenVINO_DIR|build/example/detect": Elsewhere(
        "tests/runtime/cpp/conftest.py",
        'run(cmake, "--install"',
        "builds for minutes; the test does the same steps",
    ),
    # ---------------------------------------------------------------- training and its export
    r"(torchrun .*)?.*-m zsd_core\.train": Elsewhere("tests/core/test_train.py", "main([", TRAINS),
    r"python -m zsd_core\.evaluate": Elsewhere("tests/core/test_evaluate.py", "main([", TRAINS),
    r"python -m zsd_core\.calibrate": Elsewhere(
        "tests/core/test_calibrate.py", "calibrate_main([", TRAINS
    ),
    r"python -m zsd_core\.teach": Cannot("needs the weights of a classifier, a download"),
    r"python -m export\.onnx": Elsewhere("tests/export/test_onnx.py", "export_onnx.main([", TRAINS),
    r"python -m export\.given": Elsewhere("tests/export/test_given.py", "export_given(", TRAINS),
    r"python -m export\.text": Elsewhere(
        "tests/export/test_text.py", "text.main(", "needs the weights of MiniLM, a download"
    ),
    r"python -m scripts\.vocabulary\.glosses": Elsewhere(
        "tests/core/test_glosses.py", "glosses.main(", "needs WordNet"
    ),
    r"python -m scripts\.vocabulary\.others": Elsewhere(
        "tests/core/test_others.py", "others.main(", "needs WordNet"
    ),
    r"python -m scripts\.vocabulary": Elsewhere(
        "tests/core/test_vocabulary.py",
        "main([",
        "needs WordNet and the weights of MiniLM, downloads",
    ),
    r"scripts/coco48-data": Elsewhere(
        "tests/project/test_coco48_data.py", "run(", "needs COCO's photographs; the test makes some"
    ),
    r"tensorboard": Cannot("a program of others that runs until it is stopped"),
    r"python -m (export|runtime)\.\w+ .*runs/": Cannot("needs a trained model of the reader"),
    r"python -m export\.calibrate(_examples)? open/": Elsewhere(
        "tests/export/test_calibrate.py",
        "command.main(",
        "needs COCO's photographs; the test has its own",
    ),
    r"python -m export\.false_finds": Elsewhere(
        "tests/export/test_false_finds.py",
        "command.main(",
        "needs photographs and a calibrated bundle of the reader's",
    ),
    # ---------------------------------------------------------------- trust
    r"python -m export\.sign|contrastzsd detect .*--require-signature": Elsewhere(
        "tests/runtime/test_signature.py", "sign.main([", "needs a bundle of the reader's own"
    ),
    r"python -m benchmarks\.trust\.guided": Elsewhere(
        "tests/benchmarks/test_trust_guided.py",
        "guided.main([",
        "atheris is in no extra; without it, the test runs the loaders",
    ),
    r"python -m benchmarks\.trust": Elsewhere(
        "tests/benchmarks/test_trust.py", "command.main([", "takes hours; the test runs short forms"
    ),
    # ---------------------------------------------------------------- the paper's comparisons
    r"python -m benchmarks\.paper\.bench": Elsewhere(
        "tests/benchmarks/test_bench.py", "bench.main(", "trains every system"
    ),
    r"python -m benchmarks\.paper\.report": Elsewhere(
        "tests/benchmarks/test_report.py", "main([*found", "the test writes the page anew"
    ),
    r"python -m benchmarks\.paper\.experiments_page": Elsewhere(
        "tests/benchmarks/test_experiments.py", "page.main(", "the test writes the page anew"
    ),
    r"python -m benchmarks\.paper\.causes": Elsewhere(
        "tests/benchmarks/test_bench.py", "causes.main(", "trains many systems"
    ),
    r"python -m benchmarks\.paper\.shipped": Elsewhere(
        "tests/benchmarks/test_bench.py", "shipped.main(", "minutes"
    ),
    r"python -m benchmarks\.paper\.|\(cd logs": Elsewhere(
        "tests/benchmarks/test_experiments.py",
        "experiments.main(",
        "hours; the test runs two variants of tiny models",
    ),
    r"(W|V7|SHORT)=": Run(),
    # ---------------------------------------------------------------- times
    r"python -m benchmarks\.speed": Elsewhere(
        "tests/benchmarks/test_speed.py", "speed.main(", TIMES
    ),
    r"python -m benchmarks\.curves": Elsewhere(
        "tests/benchmarks/test_curves.py", "curves.main(", TIMES
    ),
    r"python -m benchmarks\.expect": Elsewhere(
        "tests/benchmarks/test_expect.py", "expect.main(", "writes into a page of this project"
    ),
    r"python -m benchmarks\.latency": Elsewhere(
        "tests/benchmarks/test_latency.py", '"benchmarks.latency"', TIMES
    ),
    r"python -m benchmarks\.turns": Elsewhere(
        "tests/benchmarks/test_turns.py", "turns.main(", TIMES
    ),
    r"python -m benchmarks\.vocabulary": Elsewhere(
        "tests/benchmarks/test_vocabulary.py", "vocabulary.main(", TIMES
    ),
    r"python -m benchmarks\.peers": Elsewhere(
        "tests/benchmarks/test_peers.py", "peers.main([", TIMES
    ),
    r"python -m benchmarks\.operators": Elsewhere(
        "tests/benchmarks/test_operators.py", "operators.main([", TIMES
    ),
    # ---------------------------------------------------------------- other programs
    r".*--ray ": Elsewhere(
        "tests/runtime/test_batch_resume.py", '"--ray", "local"', "starts a cluster, half a minute"
    ),
    r"\.venv/bin/python examples/gstreamer": Elsewhere(
        "tests/examples/test_gstreamer.py",
        "gstreamer_probe",
        "needs Debian's Python; the test uses it",
    ),
    # ---------------------------------------------------------------- all the rest runs
    r"contrastzsd serve$": Run({"contrastzsd serve": "contrastzsd serve door.mp4 --loop"}),
    r"contrastzsd serve|python -m runtime\.serve": Run(
        {
            **CAMERA,
            "door.mp4 0 --loop": "gate.mp4 --loop",
            "--host 0.0.0.0": "--host localhost",
        }
    ),
    r"contrastzsd (detect|batch)|contrastzsd$|python -m runtime\.detect": Run(
        {**CAMERA, "val2017/": "photographs/"}
    ),
    r"python -m export\.(fp16|quantize|tradeoff|verify|calibrate|evaluate|evaluate_examples) ": Run(
        SMALL
    ),
    r"python examples/": Run({"examples/": f"{ROOT}/examples/"}),
    r"python deploy/triton/prepare\.py": Run(
        {"deploy/": f"{ROOT}/deploy/", "bundle/ ": f"{ROOT}/runtime/bundles/open "}
    ),
    r"curl -N ": Run({"curl -N": "curl -N --max-time 3"}),
    r"curl |export CONTRASTZSD_TOKEN|printf ": Run(),
    r"(?s).*(import|detector|Detector)": Run(CAMERA),  # Python
}
EVERY = [item for page in PAGES for item in items(page)]
SLOW = {
    "README.md",
    "batch.md",
    "deploy.md",
    "examples.md",
    "pipelines.md",
    "precision.md",
    "serve.md",
    "streams.md",
}


def rule(item: Item) -> str:
    """Pattern of the first rule that matches; none is an empty text."""
    return next((pattern for pattern in RULES if re.match(pattern, item.text)), "")


def test_every_command_has_a_rule_and_every_rule_a_command():
    assert len(EVERY) > 150
    assert [item for item in EVERY if not rule(item)] == []
    assert set(RULES) - {rule(item) for item in EVERY} == set()


@pytest.mark.parametrize(
    "pattern", [p for p, verdict in RULES.items() if isinstance(verdict, Elsewhere)]
)
def test_what_runs_elsewhere_is_run_there(pattern):
    """The test exists, and speaks of what runs."""
    verdict = RULES[pattern]
    assert verdict.what in (ROOT / verdict.test).read_text(encoding="utf-8"), verdict


def test_the_extras_that_are_installed_exist():
    with (ROOT / "pyproject.toml").open("rb") as file:
        project = tomllib.load(file)["project"]
    commands = [item.text for item in EVERY if "pip install" in item.text]
    extras = [e for text in commands for e in re.findall(r"(?:\.|contrastzsd)\[([\w,-]+)\]", text)]
    assert len(extras) > 8
    assert {name for e in extras for name in e.split(",")} <= set(project["optional-dependencies"])


@pytest.fixture
def world(tmp_path, monkeypatch):
    """A folder that holds what the pages speak of; commands run in it."""
    small_world(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    # Layers of a tiny network are so cheap that none would become int8.
    monkeypatch.setattr("export.quantize.costly_crossings", lambda *_: [])
    return tmp_path


@pytest.mark.parametrize(
    "page",
    [
        pytest.param(page, id=page.name, marks=[pytest.mark.slow] * (page.name in SLOW))
        for page in PAGES
        if any(isinstance(RULES.get(rule(item)), Run) for item in items(page))
    ],
)
def test_what_a_page_says_runs(page, world, monkeypatch):
    """In the order of the page: later commands and Python use what earlier ones made."""
    scope = names_of(page.name)
    with Service(world) as service:
        for item in items(page):
            verdict = RULES.get(rule(item))
            if not isinstance(verdict, Run):
                continue
            text = item.text
            for word, other in verdict.instead.items():
                text = text.replace(word, other)
            print("--", text)
            if item.kind == "python":
                exec(compile(text, page.name, "exec"), scope)
            elif re.match("contrastzsd serve|python -m runtime.serve", text):
                service.start(shlex.split(text))
            else:
                do(service.here(text), monkeypatch)


def names_of(page: str) -> dict[str, object]:
    """Names that the Python of a page takes for granted, since its text speaks of them."""
    import cv2
    import numpy as np

    from contrastzsd import Detector

    photo = cv2.imread("photo.jpg")[:, :, ::-1]
    given: dict[str, dict[str, object]] = {
        "examples.md": {"crop": photo, "photograph": photo, "vector": np.ones(384, np.float32)},
        "scores.md": {"detector": Detector(classes=["person", "forklift"])},
    }
    return given.get(page, {})


def do(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run one command, in this process where it is ours."""
    words = shlex.split(text)
    if words[0] == "contrastzsd":
        assert cli.main(words[1:]) == 0, text
    elif words[:2] == ["python", "-m"]:
        assert importlib.import_module(words[2]).main(words[3:]) == 0, text
    elif found := re.fullmatch(r"export (\w+)=(.*)", text):
        shown = subprocess.run(["bash", "-c", f"echo {found[2]}"], capture_output=True, text=True)
        assert shown.stdout.strip(), text
        monkeypatch.setenv(found[1], shown.stdout.strip())
    else:
        if shutil.which(words[0]) is None and "=" not in words[0]:
            pytest.skip(f"{words[0]} is not installed")
        result = subprocess.run(["bash", "-ec", text], capture_output=True, text=True, timeout=120)
        ends = (0, 28) if "--max-time" in text else (0,)  # 28: curl's "time is over"
        assert result.returncode in ends, f"{text}\n{result.stdout}\n{result.stderr}"
        if words[0] == "curl" and "-o" not in words:
            assert result.stdout, text
            assert not result.stdout.startswith('{"error"'), f"{text}\n{result.stdout}"
