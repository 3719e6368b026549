"""Estimates: the bootstrap of means agrees with that of metrics, the jackknife with a formula."""

import numpy as np
import pytest
from scipy import stats

from pcclip.stats import metrics
from pcclip.stats.intervals import Estimate, bootstrap_means, jackknife


def test_pairs_are_drawn_as_the_evaluation_draws_them(rng):
    members, values = rng.integers(0, 30, (200, 2)), rng.normal(size=200)
    members = members[members[:, 0] != members[:, 1]]
    values = values[: len(members)]
    found = bootstrap_means({"mean": values}, members, 300, 7)["mean"]
    expected = metrics.mean(values, members[:, 0], members[:, 1], 300, 7)
    assert found.value == pytest.approx(expected.value)
    np.testing.assert_allclose(found.draws, expected.draws, atol=1e-12)
    assert found.interval == pytest.approx(expected.interval)


def test_single_images_and_names(rng):
    names = np.array([f"photo{k}" for k in range(40)])[:, None]
    values = rng.normal(size=40)
    found = bootstrap_means({"a": values, "b": 2 * values}, names, 2000, 0)
    half = (found["a"].interval[1] - found["a"].interval[0]) / 2
    assert half == pytest.approx(1.96 * values.std() / np.sqrt(40), rel=0.1)
    np.testing.assert_allclose(found["b"].draws, 2 * found["a"].draws)
    assert (found["b"] - found["a"] - found["a"]).interval == pytest.approx((0, 0), abs=1e-12)


def test_a_triple_counts_as_often_as_all_three_were_drawn():
    members = np.array([[0, 1, 2], [3, 4, 5]])
    found = bootstrap_means({"": np.array([0.0, 1.0])}, members, 500, 0)[""]
    drawn = found.draws[~np.isnan(found.draws)]
    assert found.value == 0.5
    assert {0.0, 1.0} <= set(drawn)
    assert np.isnan(found.draws).any(), "most resamples of six images hold neither triple"


def test_no_items():
    found = bootstrap_means({"x": np.array([])}, np.empty((0, 2)), 10, 0)["x"]
    assert np.isnan(found.value)
    assert found.n == 0
    assert np.isnan(found.interval).all()


def test_the_jackknife_of_a_mean_is_its_standard_error(rng):
    values = rng.normal(size=20)  # 20 groups of one
    found = jackknife(lambda rows: float(values[rows].mean()), np.arange(20)[:, None], 0)
    half = stats.t.ppf(0.975, 19) * values.std(ddof=1) / np.sqrt(20)
    assert found.value == pytest.approx(values.mean())
    assert found.interval == pytest.approx((values.mean() - half, values.mean() + half))


def test_a_constant_is_its_own_interval():
    found = jackknife(lambda rows: 3.0, np.arange(50)[:, None], 0)
    assert found.interval == (3.0, 3.0)
    assert (found - Estimate(1.0, np.ones(20), 50, True)).interval == pytest.approx((2, 2))


def test_a_pair_is_left_out_with_either_of_its_images():
    members, seen = np.array([[0, 1], [1, 2], [2, 3], [3, 0], [0, 2], [1, 3]]), []
    jackknife(lambda rows: float(seen.append(members[rows]) or 0), members, 0)
    groups = seen[:-1]
    assert all(len(np.unique(rows)) <= 3 for rows in groups), "one of four images is in none of the pairs"


def test_the_smallest_effect_that_is_found():
    bootstrap = Estimate(1.5, np.array([0.0, 1.0, 2.0, 3.0, np.nan]), 4)
    assert bootstrap.detectable == pytest.approx(2.8 * np.sqrt(5 / 3))
    assert np.isnan(Estimate(1.0, np.array([1.0]), 1).detectable)
    values = np.arange(20.0)
    mean = jackknife(lambda rows: float(values[rows].mean()), np.arange(20)[:, None], 0)
    assert mean.detectable == pytest.approx(2.8 * values.std(ddof=1) / np.sqrt(20))


def test_an_effect_of_that_size_is_found_in_four_of_five_samples():
    rng, n = np.random.default_rng(0), 100
    effect = Estimate(0.0, rng.normal(0, 1 / np.sqrt(n), 4000), n).detectable
    found = [stats.ttest_1samp(rng.normal(effect, 1, n), 0).pvalue < 0.05 for _ in range(400)]
    assert np.mean(found) == pytest.approx(0.8, abs=0.06)
