"""The frame of benchmarks.trust: parts are found, faults are counted, a stopped run goes on."""

from __future__ import annotations

import dataclasses
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest

from benchmarks.trust import __main__ as command
from benchmarks.trust import attempts, table
from benchmarks.trust.mutate import ODD, mutated_json
from benchmarks.trust.parts import classes, cpp, faults, images, service
from benchmarks.trust.table import Part, Result
from zsd_core.errors import BundleError, DeviceError

ROOT = Path(__file__).parents[2]


def part(run, **changes) -> Part:
    values = {"name": "fake", "tried": "x", "unit": "inputs", "full": 100, "short": 7, "run": run}
    return Part(**(values | changes))


def test_every_part_has_a_name_a_budget_and_a_short_form():
    for name, found in table.all_parts().items():
        assert name == found.name == name.lower()
        assert " " not in name
        assert 0 < found.short <= found.full


def test_an_input_leaves_nothing_to_the_next():
    value, before = {"a": [1, {"b": []}], "c": ""}, repr(ODD)
    for seed in range(2000):
        mutated_json(value, random.Random(seed), most=6)
    assert repr(ODD) == before
    assert value == {"a": [1, {"b": []}], "c": ""}


def test_a_stopped_run_goes_on_and_loss_is_the_exit_status(tmp_path, monkeypatch, capsys):
    calls = []

    def good(budget, seed, advance):
        calls.append((budget, seed))
        advance(int(budget))
        return Result(inputs=int(budget), load="2 threads")

    def bad(budget, seed, advance):
        faults = ["input 3: ValueError", "input 4: ValueError", "lost"]
        return Result(inputs=9, load="", faults=faults)

    parts = {"good": part(good, name="good"), "bad": part(bad, name="bad")}
    monkeypatch.setattr(command, "all_parts", lambda: parts)
    rows, page = tmp_path / "rows.json", tmp_path / "page.md"
    page.write_text("<!-- numbers: trust -->\n<!-- /numbers -->\n")
    options = ["--short", "--json", str(rows), "--markdown", str(page)]
    assert command.main([*options, "--part", "good"]) == 0
    assert command.main(options) == 1
    assert calls == [(7, 0)], "good is in the file and must not run again"
    assert command.main([*options, "--part", "good", "--seed", "2"]) == 1  # bad is still there
    assert command.main([*options, "--part", "good", "--again"]) == 1
    assert calls == [(7, 0), (7, 2), (7, 0)]
    written = {row["part"]: row for row in json.loads(rows.read_text())}
    assert written["bad"]["lost"] == 3
    assert written["bad"]["faults"] == ["lost", "input 3: ValueError"]
    assert "| `good` | x | 7 | 2 threads |" in page.read_text()
    assert "input 3: ValueError" in capsys.readouterr().err


def test_rows_that_are_none_are_refused(tmp_path, capsys):
    (tmp_path / "rows.json").write_text('{"a": 1}')
    assert command.main(["--json", str(tmp_path / "rows.json"), "--part", "manifest"]) == 1
    assert "holds no rows" in capsys.readouterr().err


# ---------------------------------------------------------------- inputs in a process of their own


def greedy(folder):
    """An input in ten takes a hundred megabytes."""

    def attempt(rng):
        if rng.random() < 0.1:
            bytearray(100_000_000)[::4096] = b"x" * 24415

    return attempt


def faulty(folder):
    """Inputs that go wrong in every way there is; the tenth of each twenty."""

    def attempt(rng):
        kind = rng.randrange(20)
        if kind == 0:
            raise BundleError("a sentence")
        if kind == 1:
            raise BundleError("")
        if kind == 2:
            raise KeyError("raw")
        if kind == 3:
            os._exit(7)
        if kind == 4:
            bytearray(8 << 30)

    return attempt


def raw(folder):
    def attempt(rng):
        raise KeyError(1)

    return attempt


def waiting(folder):
    return lambda rng: time.sleep(600 if rng.random() < 0.4 else 0)


def computing(folder):
    def attempt(rng):
        while rng.random() < 0.8:  # the input that comes before the first one is above
            rng.seed(1)  # 0.13

    return attempt


def test_every_way_to_go_wrong_is_a_fault():
    advanced = []
    result = attempts.tried(faulty, 60, 0, advanced.append)
    kinds = {fault.partition(": ")[2].split(":")[0].split(" at ")[0] for fault in result.faults}
    assert kinds == {
        "BundleError without a sentence",
        "KeyError",
        "MemoryError",
        "the process ended with 7",
    }
    assert (result.inputs, sum(advanced)) == (60, 60)
    assert attempts.tried(faulty, 60, 0, advanced.append).faults == result.faults


def test_the_peak_of_memory_is_the_child_s_and_names_its_input():
    ours = bytearray(400_000_000)
    ours[::4096] = b"x" * len(ours[::4096])  # pages that this process has, and no child
    first = next(i for i in range(100) if random.Random(f"0 {i}").random() < 0.1)
    result = attempts.tried(greedy, first + 5, 0, lambda count: None)
    assert result.peak_at == first
    assert 100 < result.peak_mb < 400


@pytest.mark.parametrize(("limit", "kind"), [("STUCK", waiting), ("HANG", computing)])
def test_a_hang_ends(monkeypatch, limit, kind):
    monkeypatch.setattr(attempts, limit, 0.5)
    result = attempts.tried(kind, 3, 0, lambda count: None)
    assert result.faults
    assert all("not done" in fault for fault in result.faults)


def test_no_process_stays_when_the_command_is_killed():
    command = [sys.executable, "-m", "benchmarks.trust", "--part", "damage", "--budget", "1e8"]
    with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.DEVNULL) as running:
        inputs, end = list[Path](), time.monotonic() + 60
        while not inputs:
            assert time.monotonic() < end and running.poll() is None
            time.sleep(0.1)
            listed = Path(f"/proc/{running.pid}/task/{running.pid}/children").read_text().split()
            inputs = [p for p in map(Path, listed) if b"spawn_main" in command_line(p)]
        running.kill()
    end = time.monotonic() + 60
    try:
        while any(command_line(p) for p in inputs):
            assert time.monotonic() < end
            time.sleep(0.1)
    finally:
        for process in inputs:
            with suppress(ProcessLookupError):
                os.kill(int(process.name), signal.SIGKILL)


def command_line(process: Path) -> bytes:
    try:
        return (Path("/proc") / process / "cmdline").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return b""


def test_a_part_stops_in_time_and_goes_on_where_it_was(tmp_path, monkeypatch):
    monkeypatch.setattr(command, "all_parts", lambda: {"raw": part(None, name="raw", loader=raw)})
    asked, rows = ["--json", str(tmp_path / "rows.json")], tmp_path / "rows.json"
    assert command.main([*asked, "--budget", "1000000000", "--minutes", "0.001"]) == 1
    (begun,) = json.loads(rows.read_text())
    assert 0 < begun["inputs"] == begun["lost"] < 1_000_000_000

    begun |= {"budget": f"{begun['inputs'] + 5} inputs", "peak_mb": 9e9}
    rows.write_text(json.dumps([begun]))
    assert command.main([*asked, "--budget", str(begun["inputs"] + 5)]) == 1
    (ended,) = json.loads(rows.read_text())
    assert ended["inputs"] == ended["lost"] == begun["inputs"] + 5
    (fault,) = ended["faults"]
    assert "KeyError at test_trust.py" in fault
    assert ended["seconds"] > begun["seconds"] and ended["peak_mb"] == 9e9


def named(name):
    return pytest.param(name, marks=pytest.mark.slow) if name == "cpp-bundle" else name


@pytest.mark.parametrize("name", [named(name) for name in sorted(table.all_parts())])
def test_the_short_form_loses_nothing(name):
    found = table.all_parts()[name]
    try:
        result = found.run(found.short, 0, lambda count: None)
    except DeviceError as error:
        if name != "cpp-bundle" or (shutil.which("g++") and shutil.which("cmake")):
            raise
        pytest.skip(str(error))
    assert not result.faults, result.faults[:20]
    assert result.inputs > 0


# ---------------------------------------------------------------- the parts see what they look for


def test_a_mixed_class_set_is_a_fault(monkeypatch):
    from runtime.classes import ActiveClasses

    right = ActiveClasses.detections

    def mixed(self, result):
        found = right(self, result)
        return dataclasses.replace(found, class_set_version=max(1, found.class_set_version - 1))

    good = classes.classes(20, 0, lambda count: None)
    monkeypatch.setattr(ActiveClasses, "detections", mixed)
    bad = classes.classes(100, 0, lambda count: None)
    assert not good.faults
    assert bad.faults


def test_what_one_reader_takes_and_the_other_refuses_is_a_fault(tmp_path):
    python = cpp.PythonReader(tmp_path / "bundle")
    good = cpp.good_bundle(tmp_path / "other")
    inputs = dict(enumerate(bytes([i]) + good[name] for i, name in enumerate(cpp.FILES)))
    inputs |= {3: b"\0{", 4: b"\1" + good[cpp.FILES[1]] + b"x", 5: b"\2"}
    right = {n: "taken" if n < 3 else "refused: x" for n in inputs}
    assert not list(cpp.disagreements(python, inputs, right))
    wrong = {n: "refused: x" if n < 3 else "taken" for n in inputs}
    assert len(list(cpp.disagreements(python, inputs, wrong))) == len(inputs)
    (fault,) = cpp.disagreements(lambda data: 1 / 0, inputs, {4: "taken"})
    assert fault.startswith("input 4: ") and "ZeroDivisionError" in fault


def test_an_error_of_another_library_and_a_wrong_picture_are_faults(tmp_path, monkeypatch):
    import zsd_core.pictures.decode

    attempt = images.images(tmp_path, quiet=False)
    monkeypatch.setattr(images, "UNCHANGED", 1.0)
    assert [attempts.refusal(attempt, random.Random(n)) for n in range(20)] == [None] * 20
    monkeypatch.setattr(zsd_core.pictures.decode, "jpeg_is_whole", lambda data: 1 / 0)
    monkeypatch.setattr(zsd_core.pictures.decode, "upright", lambda image, data: image[::-1].copy())
    said = " ".join(str(attempts.refusal(attempt, random.Random(n))) for n in range(60))
    assert "ZeroDivisionError" in said and "WrongResultError" in said


def test_a_size_that_a_header_hides_is_a_fault(tmp_path, monkeypatch):
    import zsd_core.pictures.decode

    monkeypatch.setattr(images, "HIDDEN", 1.0)
    monkeypatch.setattr(images, "UNCHANGED", 0.5)
    attempt = images.images(tmp_path, quiet=False)
    # Refusals are of our own errors; nothing else may come.
    assert not [n for n in range(200) if attempts.refusal(attempt, random.Random(n))]
    for name in ("picture_size", "largest_part"):
        monkeypatch.setattr(zsd_core.pictures.decode, name, lambda data: (10, 10))
    said = " ".join(str(attempts.refusal(attempt, random.Random(n))) for n in range(60))
    assert "WrongResultError" in said


@pytest.mark.parametrize(
    ("status", "text", "right"),
    [
        (1, "error: no room.", True),
        (0, "error: no room.", False),
        (1, "", False),
        (1, "Traceback (most recent call last):\nKeyError\nerror: x", False),
        (-9, "error: no room.", False),
    ],
)
def test_only_a_sentence_and_a_status_will_do(status, text, right):
    run = subprocess.CompletedProcess([], status, "", text)
    assert (faults._sentence(run) is None) == right


def test_an_answer_of_no_class_set_or_of_two_is_a_fault():
    expected = [[[{"class": "cat"}]], [[{"class": "cup"}]], [[{"class": "cat"}]]]
    server, found = service.Server(Path(), False, life=1), []

    def judge(name, version):
        said = {"detections": [{"class": name, "color": "red"}], "class_set_version": version}
        service._judge(server, 1, said, 0, expected, found)

    judge("cat", 2)
    judge("cup", 3)
    judge("cat", 2)
    assert not found
    judge("cup", 2)
    judge("zebra", 4)
    assert len(found) == 2
