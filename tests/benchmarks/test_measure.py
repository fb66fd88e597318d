"""Shared parts of the benchmarks: the code counts, times and reads what it says."""

from __future__ import annotations

import ctypes
import subprocess
import sys

import pytest

from benchmarks import measure


def test_percentiles_of_known_samples():
    assert measure.percentiles(range(1, 102)) == {"p50_ms": 51, "p90_ms": 91, "p99_ms": 100}


def test_interleaved_calls_alternate_and_slow_ones_are_spread():
    order, done = [], []
    functions = {name: lambda name=name: order.append(name) for name in "ab"}
    samples = measure.interleaved(functions, {"a": 6, "b": 2}, warmup=1, done=done.append)
    assert [len(values) for values in samples.values()] == [6, 2]
    assert order[:2] == ["a", "b"] and order == done
    first, last = (i for i, name in enumerate(order[2:]) if name == "b")
    assert last - first == 4  # three rounds of a between


def test_energy_sums_packages_and_survives_the_counters_end(tmp_path):
    assert measure.Energy(tmp_path).joules() is None
    for zone, start in (("intel-rapl:0", 900), ("intel-rapl:1", 0), ("intel-rapl:0:0", 5)):
        folder = tmp_path / zone
        folder.mkdir()
        (folder / "max_energy_range_uj").write_text("999\n")
        (folder / "energy_uj").write_text(f"{start}\n")
    energy = measure.Energy(tmp_path)
    (tmp_path / "intel-rapl:0" / "energy_uj").write_text("100\n")  # 200 on, past the end
    (tmp_path / "intel-rapl:1" / "energy_uj").write_text("300\n")
    (tmp_path / "intel-rapl:0:0" / "energy_uj").write_text("900\n")  # part of the first
    assert energy.joules() == pytest.approx(500e-6)


def test_markdown_aligns_numbers():
    assert measure.markdown(["name", ">ms"], [["a", "1"]]).splitlines() == [
        "| name | ms |",
        "| --- | ---: |",
        "| a | 1 |",
    ]


def test_photograph_is_one_size():
    assert measure.photograph().shape == (480, 640, 3)


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallopt"), reason="another C library")
def test_kept_memory_is_not_asked_for_again():
    code = """
import resource, numpy as np
from benchmarks.measure import keep_memory

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    np.ones(1 << 23)  # 64 MB: 16,384 pages
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

plain = [faults(), faults()]
assert keep_memory()
print(min(plain), [faults(), faults()][1])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    plain, kept = map(int, done.stdout.split())
    assert plain > 10 and kept * 10 < plain  # huge pages are fewer
