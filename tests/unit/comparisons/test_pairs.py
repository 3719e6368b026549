"""Which images are compared: every property that choose_pairs promises."""

import random
from collections import Counter

import numpy as np
import pandas as pd
import pytest

from pcclip.comparisons.pairs import choose_pairs
from pcclip.errors import PcclipError

SAMPLINGS = ["all", "random", "balanced"]


def distinct(n: int) -> pd.Series:
    return pd.Series([f"caption {i}" for i in range(n)])


def spread(rows, n: int) -> int:
    """How much more often the most frequent row occurs than the least frequent one."""
    counts = np.bincount(rows, minlength=n)
    return int(counts.max() - counts.min())


@pytest.mark.parametrize("count", [1, 7, 30, None, 1000])
@pytest.mark.parametrize("sampling", SAMPLINGS)
def test_groups_differ_and_no_pair_comes_twice(sampling, count):
    groups = pd.Series(list("aaabbccddeeffghh"))
    pairs = choose_pairs(groups, count, sampling, seed=3)
    assert all(groups[i] != groups[j] for i, j in pairs)
    assert len({frozenset(pair) for pair in pairs.tolist()}) == len(pairs)
    possible = sum(a != b for i, a in enumerate(groups) for b in groups[:i])
    assert len(pairs) == min(possible, count or possible)


@pytest.mark.parametrize("sampling", ["random", "balanced"])
def test_the_seed_decides(sampling):
    first, again, other = (choose_pairs(distinct(40), 60, sampling, seed).tolist() for seed in (1, 1, 2))
    assert first == again
    assert first != other


def test_all_goes_in_order_of_rows():
    assert choose_pairs(distinct(3), None, "all", 0).tolist() == [[0, 1], [0, 2], [1, 2]]


@pytest.mark.parametrize("n", [5, 6, 9, 24, 25])
def test_balanced_uses_every_image_once_on_each_side(n):
    for seed in range(10):
        pairs = choose_pairs(distinct(n), n, "balanced", seed)
        assert sorted(pairs[:, 0]) == sorted(pairs[:, 1]) == list(range(n)), seed


@pytest.mark.parametrize("n", [7, 8])
def test_balanced_differs_by_one_at_most_for_any_count(n):
    for seed in range(10):
        for count in range(1, n * (n - 1) // 2 + 1):
            pairs = choose_pairs(distinct(n), count, "balanced", seed)
            assert spread(pairs[:, 0], n) <= 1, (seed, count)
            assert spread(pairs[:, 1], n) <= 1, (seed, count)


@pytest.mark.parametrize("sampling", SAMPLINGS)
@pytest.mark.parametrize("groups", [[], ["a"], ["a", "a", "a"]])
def test_fewer_than_two_groups_is_an_error(groups, sampling):
    with pytest.raises(PcclipError, match="two different"):
        choose_pairs(pd.Series(groups, dtype=str), 3, sampling, 0)


def test_random_is_uniform_over_ordered_pairs():
    found = Counter(tuple(choose_pairs(distinct(4), 1, "random", seed)[0].tolist()) for seed in range(1200))
    assert len(found) == 12
    assert min(found.values()) > 60  # 100 expected
    assert max(found.values()) < 145


class Counted(random.Random):
    """Counts its draws, of which there may be `limit`."""

    calls, limit = 0, np.inf

    def randrange(self, *arguments):
        self.calls += 1
        assert self.calls <= self.limit, "more draws than it would take to list every pair"
        return super().randrange(*arguments)


@pytest.fixture
def counted(monkeypatch):
    draw = Counted(0)
    monkeypatch.setattr("pcclip.comparisons.pairs.python_stream", lambda name, seed: draw)
    return draw


def test_random_never_lists_all_pairs_of_many_images(counted, monkeypatch):
    monkeypatch.setattr(np.random, "default_rng", None)  # what would list them
    pairs = choose_pairs(pd.Series(np.arange(200_000)), 1000, "random", 0)
    assert len(pairs) == 1000
    assert counted.calls < 1100


def test_random_gives_up_early_when_groups_leave_fewer_pairs_than_asked(counted):
    n = 100
    counted.limit = 4 * n * (n - 1)
    pairs = choose_pairs(pd.Series(["same"] * (n - 1) + ["other"]), 500, "random", 0)
    assert len(pairs) == n - 1
