"""The latency benchmark measures what it says, on a tiny bundle."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import cv2
import pytest

from benchmarks import latency, latency_table
from runtime.bundle import open_bundle
from zsd_core.errors import ConfigError, DeviceError
from zsd_core.stages import STAGES

ROOT = Path(__file__).parents[2]


@pytest.fixture
def photo_path(photo, tmp_path):
    path = tmp_path / "photo.png"
    assert cv2.imwrite(str(path), photo)
    return path


@pytest.fixture
def case(bundle_path):
    return latency_table.Case(bundle=str(bundle_path), classes=4, threads=1)


@pytest.fixture
def row(case, photo):
    return latency.measure(case, photo, calls=3, warmup=1)


def test_every_stage_is_measured_and_fits_into_the_call(row):
    assert set(row["stages"]) == {*STAGES, "whole call"}
    medians = {name: cuts["p50_ms"] for name, cuts in row["stages"].items()}
    assert 0 < max(medians[name] for name in STAGES) < medians["whole call"]
    assert row["images_per_s"] == pytest.approx(1e3 / medians["whole call"])
    assert row["calls"] == 3 and row["open_ms"] > 0 and row["first_ms"] > 0


def test_a_batch_is_one_call(case, photo):
    row = latency.measure(dataclasses.replace(case, batch=3), photo, calls=2, warmup=0)
    whole = row["stages"]["whole call"]["p50_ms"]
    assert row["images_per_s"] == pytest.approx(3e3 / whole)
    assert sum(row["stages"][name]["p50_ms"] for name in STAGES) < 1.5 * whole


def test_time_limit_ends_a_case_after_five_calls(case, photo):
    assert latency.measure(case, photo, calls=50, warmup=0, seconds=0)["calls"] == 5


def test_size_and_proposals_reach_the_model(case, photo):
    changed = dataclasses.replace(case, size=32, proposals=2)
    row = latency.measure(changed, photo, calls=2, warmup=0)
    assert (row["size"], row["proposals"]) == (32, 2)
    assert row["detections"] <= 2 * 5  # two regions, five classes


def test_class_names_come_from_table_then_vocabulary(bundle_path):
    bundle = open_bundle(bundle_path)
    names = latency.class_names(bundle, 7)
    assert names[:5] == [*bundle.unseen, *bundle.seen]
    assert len({name.casefold() for name in names}) == 7
    with pytest.raises(ConfigError, match=r"knows \d+ names, 999 are wanted"):
        latency.class_names(bundle, 999)


def test_comparison_pairs_equal_configurations(row):
    slower = json.loads(json.dumps(row))
    for cuts in slower["stages"].values():
        cuts["p50_ms"] *= 2
    printed = latency_table.compare([row], [slower])
    assert "| whole call |" in printed and "| 2.00 |" in printed
    with pytest.raises(ConfigError, match="no configuration"):
        latency_table.compare([row], [{**row, "classes": 5}])


def test_the_command_measures_and_writes_rows(bundle_path, photo_path, tmp_path):
    arguments = [
        str(photo_path),
        "--bundle",
        str(bundle_path),
        "--classes",
        "4",
        "--calls",
        "2",
        "--warmup",
        "0",
        "--backend",
        "onnxruntime",
        "--threads",
        "1",
    ]
    table = tmp_path / "rows.json"
    command = [sys.executable, "-m", "benchmarks.latency", *arguments]
    done = subprocess.run(
        [*command, "--json", str(table)], capture_output=True, text=True, cwd=ROOT
    )
    assert done.returncode == 0, done.stderr
    assert "p99 ms" in done.stdout and "kernels: " in done.stdout and "cores" in done.stdout
    (row,) = json.loads(table.read_text())
    assert row["classes"] == 4 and row["backend"] == "onnxruntime"


def die(*_):
    os._exit(3)  # as the kernel does where memory is short


def test_a_case_that_dies_is_named_and_not_waited_for(case, photo, monkeypatch):
    monkeypatch.setattr(latency, "measure", die)
    args = latency.parse(["--calls", "2"])
    with pytest.raises(DeviceError, match=r"the process of Case\(bundle=.* died"):
        list(latency._measured([case], photo, args, "cases"))


def test_errors_are_sentences(tmp_path, capsys):
    assert latency.main(["--bundle", str(tmp_path / "none")]) == 1
    assert capsys.readouterr().err.startswith("error: ")
    for wrong, message in (
        (["--calls", "0"], "--calls must be"),
        (["--batch", "0"], "must be at least 1"),
        (["--seconds", "nan"], "--seconds not negative"),
        (["--precision", "int7"], "invalid choice: 'int7'"),
    ):
        with pytest.raises(SystemExit):
            latency.main(wrong)
        assert message in capsys.readouterr().err
    assert latency.main(["--json", str(tmp_path)]) == 1
    assert "it is a folder; name another file" in capsys.readouterr().err


@pytest.mark.parametrize("text", ["{", "{}", '{"a": 1}', '[{"a": 1}]', "3"])
def test_a_file_of_something_else_cannot_be_compared_with(tmp_path, capsys, monkeypatch, text):
    monkeypatch.setattr(latency, "_measured", lambda *_: pytest.fail("measured first"))
    (tmp_path / "old.json").write_text(text)
    assert latency.main(["--against", str(tmp_path / "old.json")]) == 1
    assert "old.json is not what --json of this command wrote" in capsys.readouterr().err


def test_what_was_measured_before_an_error_is_kept(
    bundle_path, photo_path, row, tmp_path, capsys, monkeypatch
):
    def measured(*_):
        yield row
        raise DeviceError("the second case died.")

    monkeypatch.setattr(latency, "_measured", measured)
    words = [str(photo_path), "--bundle", str(bundle_path), "--json", str(tmp_path / "rows.json")]
    assert latency.main(words) == 1
    printed = capsys.readouterr()
    assert "error: the second case died." in printed.err and "p99 ms" in printed.out
    assert latency_table.read_rows(tmp_path / "rows.json") == [row]
