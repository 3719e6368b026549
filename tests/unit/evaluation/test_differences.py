"""Verdicts, on vectors planted by hand; the three difference tasks are in test_class_differences.py."""

import pytest

from pcclip.evaluation.differences import verdict_items
from pcclip.stats.metrics import accuracy
from pcclip.stats.vectors import unit


@pytest.mark.parametrize("related", [True, False])
def test_verdicts_of_the_right_axis_are_all_right_and_of_an_unrelated_one_at_chance(rng, related):
    matrix = unit(rng.normal(size=(80, 8)))
    first, second = rng.permutation(80)[:40], rng.permutation(80)[:40]
    first, second = first[first != second], second[first != second]
    truth, other = unit(rng.normal(size=(2, 8)))
    axis = truth if related else other - (other @ truth) * truth
    verdicts = (matrix[first] - matrix[second]) @ truth > 0
    low, high = accuracy(verdict_items(axis, matrix, first, second, verdicts), 200, 0).interval
    assert (low, high) == (1, 1) if related else low <= 0.5 <= high
