"""Shares of a batch: in order, all of them, each on a thread, errors as they were raised."""

from __future__ import annotations

import threading

import numpy as np
import pytest

from runtime.backends.shares import Later, Shares
from zsd_core.errors import DeviceError


@pytest.mark.parametrize("count", [1, 2, 3, 8])
@pytest.mark.parametrize("rows", [1, 2, 7, 300])
def test_results_are_those_of_one_call(count, rows):
    calls = []

    def run(left, right):
        calls.append(len(left))
        return [left + right, left[:, :1]]

    shares = Shares(run, count)
    left = np.arange(rows * 3, dtype=np.float32).reshape(rows, 3)
    both, first = shares(left, 10 * left)
    shares.close()
    np.testing.assert_array_equal(both, 11 * left)
    np.testing.assert_array_equal(first, left[:, :1])
    assert len(calls) == min(count, rows)
    assert max(calls) - min(calls) <= 1 and sum(calls) == rows


@pytest.mark.parametrize(
    ("rows", "called"), [(1, ["alone"]), (2, ["alone"]), (3, 3 * ["shared"]), (7, 3 * ["shared"])]
)
def test_few_rows_have_a_function_of_their_own_that_is_made_when_it_is_needed(rows, called):
    calls, made = [], []

    def noting(name):
        def run(array):
            calls.append(name)
            return [array + 1]

        return run

    def make():
        made.append(1)
        return noting("alone")

    shares = Shares(noting("shared"), 3, Later(make))
    for _ in range(2):
        (result,) = shares(np.zeros((rows, 3), np.float32))
        assert result.tolist() == [[1, 1, 1]] * rows
    shares.close()
    assert calls == called * 2
    assert len(made) == (rows < 3)


def test_what_is_made_later_is_made_once_by_any_number_of_threads():
    made = []

    def make():
        made.append(1)
        return lambda array: [array]

    later = Later(make)
    shares = Shares(later, 4)
    shares(np.zeros((4, 1), np.float32))
    shares.close()
    assert made == [1]


def test_shares_run_at_the_same_time():
    together = threading.Barrier(3)

    def run(rows):
        together.wait(timeout=10)  # breaks where one share waits for another
        return [rows]

    shares = Shares(run, 3)
    (rows,) = shares(np.zeros((6, 1), np.float32))
    shares.close()
    assert len(rows) == 6


@pytest.mark.parametrize("bad", [0, 5])
def test_an_error_of_any_share_is_raised(bad):
    def run(rows):
        if bad in rows:
            raise ValueError(f"row {bad}")
        return [rows]

    shares = Shares(run, 2)
    with pytest.raises(ValueError, match=f"row {bad}"):
        shares(np.arange(6, dtype=np.float32)[:, None])
    (rows,) = shares(np.arange(10, 16, dtype=np.float32)[:, None])  # and the next call is well
    shares.close()
    assert rows[:, 0].tolist() == [10, 11, 12, 13, 14, 15]


@pytest.mark.parametrize("at", [0, 1])
def test_closing_in_the_middle_of_a_call_is_said(at, monkeypatch):
    """Another thread closes before the first share, or the second, is given out."""
    shares = Shares(lambda rows: [rows], 3)
    submit, given = shares._workers.submit, []

    def closing(*arguments):
        if len(given) == at:
            shares.close()
        given.append(submit(*arguments))
        return given[-1]

    monkeypatch.setattr(shares._workers, "submit", closing)
    with pytest.raises(DeviceError, match="networks are closed; open the detector again"):
        shares(np.zeros((3, 1), np.float32))
    assert len(given) == at


def test_another_error_of_giving_out_shares_is_not_a_closed_network(monkeypatch):
    def full(*_):
        raise RuntimeError("can't start new thread")

    shares = Shares(lambda rows: [rows], 2)
    monkeypatch.setattr(shares._workers, "submit", full)
    with pytest.raises(DeviceError, match=r"starts no more threads \(can't start new thread\)"):
        shares(np.zeros((2, 1), np.float32))
    shares.close()
