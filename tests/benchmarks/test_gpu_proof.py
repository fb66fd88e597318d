"""``scripts/gpu-proof`` as far as a CPU goes: its parts, its files and its page."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.gpu import __main__ as proof
from benchmarks.gpu import page
from benchmarks.gpu.pack import LARGEST, LEFT_OUT, pack, unpack
from benchmarks.gpu.parts import PARTS, needed
from benchmarks.gpu.report import DRY, Report, read_result
from zsd_core.errors import ConfigError

ROOT = Path(__file__).parents[2]


def result(part: str, **changes) -> dict:
    """A made-up result of a part, of a GPU that does not exist."""
    content = {"part": part, "ran_on": "Made-up GPU", "seed": 5, "seconds": 3.0, "agreed": True}
    content |= {"finished": True, "facts": {}, "rows": [], "failures": [], "not_checked": []}
    return content | {"error": None} | changes


# ---------------------------------------------------------------- results and the page


def test_a_result_is_on_disk_after_every_row(tmp_path, capsys):
    report = Report(tmp_path, "speed", 7, None)
    report.row(kind="operator", ms=1.23456)
    written = read_result(tmp_path, "speed")
    assert written["rows"] == [{"kind": "operator", "ms": 1.23456}]
    assert not written["finished"] and not written["agreed"]
    assert report.end() and read_result(tmp_path, "speed")["agreed"]
    assert all(line.startswith(DRY) for line in capsys.readouterr().out.splitlines())


@pytest.mark.parametrize("trouble", ["failure", "not_checked"])
def test_whatever_is_wrong_or_missing_is_no_agreement(tmp_path, trouble):
    report = Report(tmp_path, "speed", 7, "a GPU")
    getattr(report, trouble)("a sentence")
    assert not report.end()
    assert read_result(tmp_path, "speed")[
        {"failure": "failures", "not_checked": "not_checked"}[trouble]
    ] == ["a sentence"]


def test_a_part_that_agreed_is_not_needed_again_but_a_dry_run_proves_nothing(tmp_path):
    Report(tmp_path, "speed", 7, None).end()
    assert not needed(tmp_path, "speed", dry=True, again=False)
    assert needed(tmp_path, "speed", dry=True, again=True)
    assert needed(tmp_path, "speed", dry=False, again=False)
    report = Report(tmp_path, "build", 7, "a GPU")
    report.end("Traceback")
    assert needed(tmp_path, "build", dry=False, again=False)
    assert needed(tmp_path, "machine", dry=False, again=False)


def test_the_page_shows_every_part_whatever_became_of_it():
    results = {
        "machine": result("machine", facts={"gpu": "Made-up GPU", "output": "long"}),
        "build": result("build", agreed=False, error="Traceback: no nvcc"),
        "sanitizer": result("sanitizer", agreed=False, not_checked=["Device | not supported"]),
        "speed": result(
            "speed", rows=[{"kind": "operator", "ms": 0.123456}, {"kind": "binary", "blocks": 2}]
        ),
    }
    text = page.sections(results)
    assert "Ran on: Made-up GPU." in text and DRY not in text
    assert "Traceback: no nvcc" in text and "**not everything agreed**" in text
    assert r"**not checked**: Device \| not supported" in text
    assert "| ms |\n| --- |\n| 0.1235 |" in text and "| blocks |\n| --- |\n| 2 |" in text
    assert text.count("**Not run.**") == len(PARTS) - len(results)
    assert "long" not in text


def test_the_page_of_a_dry_run_says_so_in_every_section():
    text = page.sections({part: result(part, ran_on=DRY, rows=[{"a": 1}]) for part in PARTS})
    assert text.count(f"{DRY}: all agreed") == len(PARTS) == text.count(f"| {DRY}: a |")
    assert "nothing below was measured or proved on a GPU" in text


def test_the_template_has_one_slot_and_no_number_of_a_gpu():
    template = (ROOT / "docs" / "gpu.md").read_text(encoding="utf-8")
    assert "here" in page.filled(template, "here").split("## What it found")[1]
    (slot,) = page.SLOT.findall(template)
    found = page.SLOT.search(template)[0]
    assert slot and "has not run" in found and not any(c.isdigit() for c in found)
    with pytest.raises(ValueError, match="0 slots"):
        page.filled("nothing", "here")


# ---------------------------------------------------------------- the command


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["nonsense"], "no part 'nonsense'"),
        (["--limit", "0"], "--limit must be above 0"),
        (["--seed", "-1"], "--seed not below"),
    ],
)
def test_arguments_are_checked(capsys, words, said):
    with pytest.raises(SystemExit):
        proof.parse(words)
    assert said in capsys.readouterr().err


def test_without_a_gpu_it_ends_with_a_sentence(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(proof, "has_gpu", lambda: False)
    assert proof.main(["--output", str(tmp_path / "out")]) == 2
    assert "no NVIDIA GPU" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_the_limits_of_the_parts_fit_the_whole():
    assert sum(part.seconds for part in PARTS.values()) <= proof.LIMIT
    assert len(PARTS) + 1 <= 8  # files, with the page


def test_parts_are_resumed_and_one_that_hangs_or_dies_stops_no_other(tmp_path, monkeypatch, capsys):
    begun = []

    def popen(words, **options):
        part = words[3]
        begun.append(part)
        script = {
            "machine": "import time; time.sleep(60)",
            "build": "import subprocess, sys, time; "
            "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)']); "
            f"open({str(tmp_path / 'child')!r}, 'w').write(str(child.pid)); "
            "raise SystemExit(9)",
            "kernels": f"open({str(tmp_path / 'kernels.json')!r}, 'w').write("
            f"{json.dumps(json.dumps(result('kernels', ran_on=DRY)))})",
        }[part]
        return real([sys.executable, "-c", script], start_new_session=options["start_new_session"])

    real = subprocess.Popen
    monkeypatch.setattr(proof.subprocess, "Popen", popen)
    monkeypatch.setattr(proof, "LEAST", 0.5)
    words = ["machine", "build", "kernels", "--dry-run", "--output", str(tmp_path)]
    args = proof.parse(words)
    proof.run_part(args, "machine", 3, 0.5)
    assert "stopped after" in read_result(tmp_path, "machine")["error"]
    assert proof.main([*words[1:]]) == 1
    assert read_result(tmp_path, "build")["error"] == "its process ended with status 9"
    child = Path("/proc", (tmp_path / "child").read_text())
    assert not child.exists() or "Z" in (child / "stat").read_text().rpartition(")")[2]
    assert read_result(tmp_path, "kernels")["agreed"]
    assert begun == ["machine", "build", "kernels"]
    assert proof.main(words[1:]) == 1
    assert begun == ["machine", "build", "kernels", "build"]  # kernels agreed
    text = (tmp_path / "gpu.md").read_text(encoding="utf-8")
    assert "status 9" in text and "stopped after" in text
    assert all(line.startswith(DRY) for line in capsys.readouterr().out.splitlines())


def test_an_error_of_a_part_is_in_its_result(tmp_path, monkeypatch):
    from benchmarks.gpu import machine

    def fails(report):
        raise RuntimeError("the cable is out")

    monkeypatch.setattr(machine, "dry", fails)
    words = ["machine", "--here", "--dry-run", "--output", str(tmp_path)]
    assert proof.main(words) == 1
    written = read_result(tmp_path, "machine")
    assert "the cable is out" in written["error"] and "Traceback" in written["error"]
    assert not written["finished"]


@pytest.mark.slow
def test_the_dry_run_is_green(tmp_path):
    command = ["scripts/gpu-proof", "--dry-run", "--seed", "0", "--output", str(tmp_path)]
    environment = os.environ | {"PYTHON": sys.executable}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert all(line.startswith(DRY) for line in done.stdout.splitlines())
    assert {path.name for path in tmp_path.iterdir()} == {*(f"{p}.json" for p in PARTS), "gpu.md"}
    assert "GPU" not in done.stdout.replace(DRY, "")
    assert all(read_result(tmp_path, part)["ran_on"] == DRY for part in PARTS)


def test_the_pack_fits_and_its_bundle_opens(tmp_path):
    from runtime.bundle import open_bundle

    size = pack(tmp_path / "carried")
    assert size <= LARGEST
    bundles = tmp_path / "carried/runtime/bundles"
    assert {path.suffix for path in bundles.iterdir()} == {".zip"}
    unpack(tmp_path / "carried")
    assert {path.name for path in bundles.iterdir()} == {"coco48", "open"}
    for path in bundles.iterdir():
        bundle = open_bundle(path)  # every file hashed
        assert not bundle.text_info and not set(LEFT_OUT) & set(bundle.manifest["files"])
        assert len(list(bundle.vocabulary.names)) == 2000
    assert os.access(tmp_path / "carried/scripts/gpu-proof", os.X_OK)
    with pytest.raises(ConfigError, match="is there already"):
        pack(tmp_path / "carried")
