"""Intervals over photographs and seeds, and differences between systems."""

import numpy as np
import pytest

from benchmarks.paper.paired import compared, over_seeds, summary


def test_drawn_seeds_are_the_same_for_two_systems():
    drawn = np.random.default_rng(0).normal(size=(3, 400))
    assert (over_seeds(drawn + 1) - over_seeds(drawn) == pytest.approx(1)) is True
    alone = over_seeds(drawn[:1])
    np.testing.assert_array_equal(alone, drawn[0])


def test_both_photographs_and_seeds_widen_the_interval():
    rng = np.random.default_rng(0)
    photographs = np.repeat(rng.normal(10, 1, (1, 4000)), 4, axis=0)
    seeds = np.repeat([[8.0], [9.0], [11.0], [12.0]], 4000, axis=1)
    of_photographs = summary([10] * 4, photographs)
    of_seeds = summary([8, 9, 11, 12], seeds)
    both = summary([8, 9, 11, 12], photographs + seeds - 10)
    widths = [np.diff(one["interval"])[0] for one in (of_photographs, of_seeds, both)]
    assert widths[0] == pytest.approx(2 * 1.96, abs=0.2)
    assert widths[1] == pytest.approx(2 * 1.96 * np.sqrt(2.5 / 4), abs=0.4)
    assert widths[2] == pytest.approx(np.hypot(*widths[:2]), abs=0.4)
    assert of_seeds["mean"] == 10 and of_seeds["deviation"] == pytest.approx(1.826)


def test_a_difference_is_paired():
    rng = np.random.default_rng(0)
    shared = rng.normal(10, 3, (2, 1000))  # photographs that are hard for both
    found = compared([11, 11], shared + 1 + rng.normal(0, 0.1, (2, 1000)), [10, 10], shared)
    assert found["difference"] == 1 and found["above"] == 1
    assert 0.7 < found["interval"][0] < 1 < found["interval"][1] < 1.3
