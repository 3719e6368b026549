"""Metrics with bootstrap intervals, and tests between two models."""

import numpy as np
import pandas as pd
import pytest
from scipy.stats import norm, spearmanr, ttest_1samp

from pcclip.errors import PcclipError
from pcclip.stats import intervals, metrics, rank_measures


def pair_items(correct, first, second) -> pd.DataFrame:
    return pd.DataFrame({"first": first, "second": second, "correct": correct})


def singles(correct) -> pd.DataFrame:
    """Items that have an image of their own each."""
    return pair_items(np.array(correct, dtype=bool), np.arange(len(correct)), np.arange(len(correct)))


def scored(score, reference) -> pd.DataFrame:
    return pd.DataFrame({"score": np.array(score, dtype=float), "reference": np.array(reference, dtype=float)})


# accuracy


def test_accuracy_of_four_items():
    estimate = metrics.accuracy(pair_items([True, True, False, True], list("abca"), list("bcdd")), 200, 0)
    assert estimate.value == 0.75
    assert estimate.n == 4
    assert len(estimate.draws) == 200
    low, high = estimate.interval
    assert 0 <= low < 0.75 < high <= 1


@pytest.mark.parametrize("single", [False, True])
def test_the_interval_holds_the_truth_of_a_random_scorer(single):
    inside, widths = 0, []
    for seed in range(60):
        rng = np.random.default_rng(seed)
        first = rng.integers(0, 40, 150)
        second = first if single else (first + rng.integers(1, 40, 150)) % 40
        low, high = metrics.accuracy(pair_items(rng.random(150) < 0.5, first, second), 200, seed).interval
        inside += low <= 0.5 <= high
        widths.append(high - low)
    assert inside >= 51
    assert 0.1 < np.mean(widths) < 0.4


def test_an_image_in_every_pair_widens_the_interval():
    rng = np.random.default_rng(0)
    correct = np.repeat(rng.random(20) < 0.5, 20)  # every image decides all of its pairs
    first, other = np.repeat(np.arange(20), 20), np.tile(np.arange(20, 40), 20)
    clustered = metrics.accuracy(pair_items(correct, first, other), 400, 0)
    independent = metrics.accuracy(pair_items(correct, np.arange(400), np.arange(400)), 400, 0)
    assert np.std(clustered.draws) > 3 * np.std(independent.draws)


def test_mean_of_values():
    estimate = metrics.mean(np.array([0.2, -0.4, 0.5]), np.array(list("abc")), np.array(list("bca")), 200, 0)
    assert estimate.value == pytest.approx(0.1)
    assert -0.4 <= estimate.interval[0] < 0.1 < estimate.interval[1] <= 0.5


@pytest.mark.parametrize("measure", [metrics.accuracy, rank_measures.spearman, rank_measures.pairwise_accuracy])
def test_the_seed_decides_the_draws(measure):
    rng = np.random.default_rng(0)
    items = pd.concat(
        [
            scored(rng.normal(size=30), rng.normal(size=30)),
            pair_items(rng.random(30) < 0.6, np.arange(30), np.arange(30)),
        ],
        axis=1,
    )
    first, again, other = (measure(items, 100, seed).draws for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


# rank measures


def test_spearman_equals_scipy_with_ties():
    rng = np.random.default_rng(0)
    for high in (3, 10, 1000):
        score, reference = rng.integers(0, high, (2, 40))
        estimate = rank_measures.spearman(scored(score, reference), 200, 0)
        assert estimate.value == pytest.approx(spearmanr(score, reference).statistic)
        assert estimate.interval[0] < estimate.value < estimate.interval[1]
        assert estimate.n == 40


def brute_pairwise(score, reference):
    points = []
    for i in range(len(score)):
        for j in range(i):
            if reference[i] != reference[j]:
                right = (score[i] > score[j]) == (reference[i] > reference[j])
                points.append(0.5 if score[i] == score[j] else float(right))
    return np.mean(points)


@pytest.mark.parametrize(
    ("score", "reference", "expected"),
    [
        ([1, 2, 3], [1, 2, 3], 1.0),
        ([3, 2, 1], [1, 2, 3], 0.0),
        ([5, 5, 5], [1, 2, 3], 0.5),
        ([1, 2, 2], [1, 2, 3], 5 / 6),
        ([9, 1, 2], [7, 7, 8], 0.5),
    ],
)
def test_pairwise_accuracy_by_hand(score, reference, expected):
    assert rank_measures.pairwise_accuracy(scored(score, reference), 100, 0).value == pytest.approx(expected)


@pytest.mark.parametrize(
    ("score", "reference", "expected"),
    [
        ([1, 2, 3], [1, 2, 4], 1.0),  # 1:2 and 2:4 differ by the factor itself
        ([3, 2, 1], [1, 2, 4], 0.0),
        ([1, 2, 0], [1, 2, 3.99], 0.5),  # 1:2 is right, 1:3.99 wrong, and 2:3.99 too close to count
        ([1, 1, 0], [1, 2, 3.99], 0.25),  # a tie counts half
        ([2, 1, 3], [2, 3.9, 8], 1.0),  # the wrong one is too close
        ([5, 4, 3], [0.25, 0.125, 0.5], 1 / 3),
    ],
)
def test_clear_pairwise_accuracy_by_hand(score, reference, expected):
    found = rank_measures.clear_pairwise_accuracy(scored(score, reference), 100, 0)
    assert found.value == pytest.approx(expected)
    assert found.n == 3


def test_clear_pairwise_accuracy_equals_a_loop(rng):
    items = scored(rng.integers(0, 30, 30), np.exp(rng.normal(size=30)))
    points = [
        (np.sign(a.score - b.score) * np.sign(a.reference - b.reference) + 1) / 2
        for a in items.itertuples()
        for b in items.itertuples()
        if max(a.reference, b.reference) >= 2 * min(a.reference, b.reference)
    ]
    found = rank_measures.clear_pairwise_accuracy(items, 200, 0)
    assert 0 < len(points) < 30 * 29
    assert found.value == pytest.approx(np.mean(points))
    assert found.interval[0] < found.value < found.interval[1]
    drawn = np.random.default_rng(0).multinomial(30, np.full(30, 1 / 30), 200)
    copies = items.loc[np.repeat(np.arange(30), drawn[0])]
    assert found.draws[0] == pytest.approx(rank_measures.clear_pairwise_accuracy(copies, 100, 0).value)


@pytest.mark.parametrize("reference", [[0, 1, 2], [-1, 1, 5], [-4, -2, -1], [1, 1.5, 1.9]])
def test_no_clear_pairs(reference):
    """Factors say nothing of what may be zero or less; and there may be none."""
    found = rank_measures.clear_pairwise_accuracy(scored([1, 2, 3], reference), 100, 0)
    assert found.n == 0
    assert np.isnan([found.value, *found.draws]).all()
    assert len(found.draws) == 100


@pytest.mark.parametrize(("measure", "chance"), [(rank_measures.spearman, 0.0), (rank_measures.pairwise_accuracy, 0.5)])
def test_classes_are_drawn_whole(measure, chance):
    """A score that knows classes, and nothing of their values: 10 classes are behind the interval, not 200 images."""
    inside = 0
    for seed in range(40):
        rng = np.random.default_rng(seed)
        classes, score = np.repeat(np.arange(10), 20), rng.normal(size=10)
        items = scored(score[classes] + 0.3 * rng.normal(size=200), rng.permutation(10)[classes])
        low, high = measure(items.assign(first=classes, second=classes), 100, seed).interval
        inside += low <= chance <= high
    assert inside >= 34


@pytest.mark.parametrize("measure", [rank_measures.spearman, rank_measures.pairwise_accuracy])
def test_draws_by_class_are_the_measure_of_resampled_classes(measure, rng):
    names = np.repeat(["a", "b", "c", "d"], [3, 6, 9, 12])
    items = scored(*rng.integers(0, 12, (2, 30))).assign(first=names, second=names)
    estimate = measure(items, 30, 3)
    assert estimate.value == measure(items.assign(first=range(30), second=range(30)), 30, 3).value
    assert (estimate.n, len(estimate.draws)) == (30, 30)
    counts = next(intervals.resamples(4, 30, 3)).astype(int)
    part = items.iloc[np.repeat(np.arange(30), counts[0][pd.factorize(names)[0]])].reset_index(drop=True)
    assert estimate.draws[0] == pytest.approx(measure(part.drop(columns="first"), 1, 0).value)


# the worst group

THREE = {0: [True, False, True, False], 1: [True, True, True], 2: [False, False, True, False]}


def graded(right: dict[int, list[bool]]) -> pd.DataFrame:
    """Items of classes, each with what is right and wrong of it."""
    rows = [(reference, correct) for reference, values in right.items() for correct in values]
    items = pd.DataFrame(rows, columns=["reference", "correct"])
    return items.assign(first=items.index, second=items.index, score=0.0)


def test_the_worst_of_three_groups():
    estimate = metrics.worst_group_accuracy(graded(THREE), 300, 0)
    assert (estimate.value, estimate.n, len(estimate.draws)) == (0.25, 11, 300)
    assert estimate.interval[0] <= 0.25 <= estimate.interval[1]


def test_the_worst_of_many_chance_groups_is_below_chance(rng):
    """As the docstring warns: noise alone makes a worst group."""
    items = graded({k: list(rng.random(20) < 0.5) for k in range(50)})
    assert metrics.worst_group_accuracy(items, 100, 0).interval[1] < 0.4


def test_the_worst_group_of_two_models_is_paired(rng):
    items = graded({k: list(rng.random(30) < 0.6) for k in range(3)})
    own = metrics.worst_group_accuracy(items, 100, 4)
    same = metrics.worst_group_accuracy(items, 100, 4) - own
    assert (same.value, *same.interval) == (0, 0, 0)
    assert (metrics.worst_group_accuracy(items.assign(correct=True), 100, 4) - own).interval[0] > 0


def test_large_groups_are_resampled_in_parts(rng, monkeypatch):
    items = graded({0: list(rng.random(400) < 0.5), 1: [True] * 3})
    monkeypatch.setattr(intervals, "CELLS", 3000)
    estimate = metrics.worst_group_accuracy(items, 200, 0)
    assert len(estimate.draws) == 200
    assert estimate.draws.std() == pytest.approx(0.025, rel=0.25)


@pytest.mark.parametrize("items", [graded({}), graded(THREE).assign(reference=[np.nan] + [0.0] * 10)])
def test_every_item_needs_a_group(items):
    with pytest.raises(PcclipError, match="give every item a group"):
        metrics.worst_group_accuracy(items, 10, 0)


# paired differences


@pytest.mark.parametrize("measure", [metrics.accuracy, rank_measures.spearman, rank_measures.pairwise_accuracy])
def test_a_model_does_not_differ_from_itself(measure):
    rng = np.random.default_rng(1)
    items = pd.concat(
        [
            scored(rng.normal(size=15), rng.integers(0, 4, 15)),
            pair_items(rng.random(15) < 0.5, np.arange(15), np.roll(np.arange(15), 1)),
        ],
        axis=1,
    )
    change = measure(items, 200, 0) - measure(items, 200, 0)
    assert (change.value, *change.interval) == (0, 0, 0)


def test_pairing_narrows_the_difference():
    rng = np.random.default_rng(0)
    before = rng.random(200) < 0.5
    after = before | (np.arange(200) % 10 == 0)
    estimates = [
        metrics.accuracy(pair_items(correct, np.arange(200), np.arange(200)), 400, 0) for correct in (after, before)
    ]
    change = estimates[0] - estimates[1]
    value, low, high = change.value, *change.interval
    assert value == pytest.approx(after.mean() - before.mean())
    assert 0 < low < value < high
    assert high - low < 0.7 * np.diff(estimates[0].interval)[0]


def test_a_difference_needs_the_same_draws():
    items = singles([1, 0, 1, 1])
    with pytest.raises(PcclipError, match="these are 4 and 4 items, 100 and 200 draws"):
        metrics.accuracy(items, 100, 0) - metrics.accuracy(items, 200, 0)


# resamples


def naive_accuracy(items, draws, seed):
    """Draw by draw and item by item, as the definition says."""
    images = sorted({*items["first"], *items["second"]})
    counts = np.random.default_rng(seed).multinomial(len(images), np.full(len(images), 1 / len(images)), draws)
    for row in counts:
        count, right, total = dict(zip(images, row, strict=True)), 0, 0
        for one, two, correct in zip(items["first"], items["second"], items.correct, strict=True):
            weight = count[one] if one == two else count[one] * count[two]
            right, total = right + weight * correct, total + weight
        yield right / total if total else np.nan


@pytest.mark.parametrize("kind", ["single", "pairs", "mixed", "repeated"])
def test_accuracy_equals_a_loop_over_draws_and_items(kind, rng):
    first, second = rng.integers(0, 9, (2, 14)) if kind != "single" else np.tile(rng.permutation(14), (2, 1))
    if kind == "mixed":
        second[:7] = first[:7]
    if kind == "repeated":
        second = first
    items = pair_items(
        rng.random(14) < 0.6, np.array(list("abcdefghijklmn"))[first], np.array(list("abcdefghijklmn"))[second]
    )
    np.testing.assert_array_equal(metrics.accuracy(items, 60, 3).draws, list(naive_accuracy(items, 60, 3)))


def test_rank_measures_equal_a_loop_over_draws(rng):
    items = scored(rng.integers(0, 9, 20), rng.integers(0, 9, 20))
    counts = np.random.default_rng(3).multinomial(20, np.full(20, 1 / 20), 50)
    drawn = [items.loc[np.repeat(np.arange(20), count)] for count in counts]  # an image and its copy are a tied pair
    np.testing.assert_allclose(
        rank_measures.spearman(items, 50, 3).draws,
        [spearmanr(part.score, part.reference).statistic for part in drawn],
    )
    np.testing.assert_allclose(
        rank_measures.pairwise_accuracy(items, 50, 3).draws,
        [brute_pairwise(part.score.to_numpy(), part.reference.to_numpy()) for part in drawn],
    )


@pytest.mark.parametrize("measure", [metrics.accuracy, rank_measures.spearman, rank_measures.pairwise_accuracy])
def test_working_in_pieces_changes_no_draw(measure, monkeypatch, rng):
    items = pd.concat(
        [
            scored(rng.normal(size=30), rng.integers(0, 9, 30)),
            pair_items(rng.random(30) < 0.6, rng.integers(0, 20, 30), rng.integers(0, 20, 30)),
        ],
        axis=1,
    )
    whole = measure(items, 100, 1)
    monkeypatch.setattr(intervals, "CELLS", 7 * 30)
    pieces = measure(items, 100, 1)
    np.testing.assert_array_equal(whole.draws, pieces.draws)
    assert whole.value == pieces.value


def test_resamples_draw_as_many_images_as_there_are():
    for n in (5, 2001):  # a multinomial's, and counted indices
        counts = np.concatenate(list(intervals.resamples(n, 400, 0)))
        assert counts.shape == (400, n)
        assert (counts.sum(axis=1) == n).all()
        assert counts[:, 0].mean() == pytest.approx(1, abs=0.2)
        assert counts[:, 0].var() == pytest.approx(1 - 1 / n, abs=0.3)


def test_many_images_have_the_binomial_interval(rng):
    correct = rng.random(3000) < 0.7
    low, high = metrics.accuracy(singles(correct), 1000, 0).interval
    error = np.sqrt(correct.mean() * (1 - correct.mean()) / 3000)
    assert [low, high] == pytest.approx(correct.mean() + 1.96 * error * np.array([-1, 1]), abs=0.15 * error * 1.96)


def test_models_see_the_same_resamples_of_many_images(rng):
    before = rng.random(3000) < 0.5
    after = before.copy()
    after[:30] = True
    change = metrics.accuracy(singles(after), 500, 0) - metrics.accuracy(singles(before), 500, 0)
    value, low, high = change.value, *change.interval
    gained = (after & ~before).sum() / 3000
    assert value == pytest.approx(gained)
    assert 0 < low < gained < high < 0.02, "unpaired draws would differ by 0.035"


def test_mean_score():
    items = scored([0.5, 1.5, 4.0], [0, 0, 0]).assign(first=list("abc"), second=list("bca"))
    assert metrics.mean_score(items, 100, 0).value == 2


# tests


def test_mcnemar_by_hand():
    a, b = singles([1, 1, 1, 1, 1, 1, 0, 1, 0]), singles([0, 0, 0, 0, 0, 0, 1, 1, 0])
    assert metrics.mcnemar(a, b) == pytest.approx(2 * (1 + 7) / 2**7)  # P(X <= 1) of 7 coins, both tails
    assert metrics.mcnemar(b, a) == pytest.approx(0.125)
    assert metrics.mcnemar(a.iloc[:5], b.iloc[:5]) == pytest.approx(2 / 2**5)
    assert metrics.mcnemar(a, a) == 1, "models that never differ"


def test_mcnemar_refuses_other_images():
    with pytest.raises(PcclipError, match="not scored on the same items in the same order"):
        metrics.mcnemar(singles([1, 0]), singles([1, 0]).iloc[::-1])
    with pytest.raises(PcclipError, match="not scored on the same items"):
        metrics.mcnemar(singles([1, 0]), singles([1, 0, 1]))


@pytest.mark.parametrize(
    ("given", "adjusted"),
    [
        ([0.01, 0.04, 0.03, 0.005], [0.03, 0.06, 0.06, 0.02]),  # 4 x .005, 3 x .01, 2 x .03, and never less than before
        ([0.01, 0.02, 0.03], [0.03, 0.04, 0.04]),
        ([0.5, 0.9], [1.0, 1.0]),
        ([0.02], [0.02]),
        ([], []),
        ([0.04, np.nan, 0.01], [0.04, np.nan, 0.02]),
    ],
)
def test_holm_by_hand(given, adjusted):
    np.testing.assert_allclose(metrics.holm(given), adjusted)


@pytest.mark.parametrize(
    ("draws", "expected"),
    [
        ([1] * 9, 2 / 10),  # none at or below 0
        ([-1] + [1] * 8, 4 / 10),
        ([1] + [-1] * 8, 4 / 10),
        ([0, 0] + [1] * 7, 6 / 10),  # a tie is on both sides
        ([0] * 9, 1),
        ([np.nan] * 2 + [1] * 7, 2 / 8),
    ],
)
def test_bootstrap_p_value_by_hand(draws, expected):
    assert metrics.p_value(intervals.Estimate(0.0, np.array(draws, dtype=float), 4)) == pytest.approx(expected)


def test_a_p_value_far_from_zero_is_not_held_up_by_the_number_of_draws():
    draws = np.random.default_rng(0).normal(5, 1, 999)
    far = metrics.p_value(intervals.Estimate(5.0, draws, 4))
    assert far == pytest.approx(2 * norm.sf(draws.mean() / draws.std(ddof=1)))
    assert metrics.holm([far] * 100).max() < 0.05 < 100 * 2 / 1000


def test_the_p_value_of_a_jackknifed_mean_is_a_t_test(rng):
    values = rng.normal(0.5, 1, 20)
    estimate = intervals.jackknife(lambda rows: float(values[rows].mean()), np.arange(20)[:, None], 0)
    assert metrics.p_value(estimate) == pytest.approx(ttest_1samp(values, 0).pvalue)


def test_p_values_of_no_difference_are_uniform():
    found = {"mcnemar": [], "bootstrap": []}
    for seed in range(200):
        a, b = (singles(row) for row in np.random.default_rng(seed).random((2, 80)) < 0.6)
        found["mcnemar"].append(metrics.mcnemar(a, b))
        found["bootstrap"].append(metrics.p_value(metrics.accuracy(a, 100, seed) - metrics.accuracy(b, 100, seed)))
    assert 0.01 <= np.mean(np.array(found["bootstrap"]) < 0.1) <= 0.17
    assert 0.01 <= np.mean(np.array(found["mcnemar"]) < 0.1) <= 0.13, "an exact test is never too sure of itself"
    assert np.median(found["bootstrap"]) == pytest.approx(0.5, abs=0.15)


# seeds


def test_t_interval_by_hand():
    half = 4.302653 * 0.1 / np.sqrt(3)  # Student's t with 2 degrees of freedom, from a table
    assert metrics.t_interval([0.5, 0.6, 0.7]) == pytest.approx((0.6 - half, 0.6 + half))
    assert np.isnan(metrics.t_interval([0.5])).all()
    assert np.isnan(metrics.t_interval([0.1 + 0.2, 0.3])).all(), "no spread is no certainty"


# two models compared


def predictions_of(**models) -> pd.DataFrame:
    """Predictions of a task with images of their own ('zero_shot', two sets), of pairs and of a ranking."""
    found = []
    for model, shift in models.items():
        rng = np.random.default_rng(0)
        for task, dataset, n in (
            ("zero_shot", "easy", 200),
            ("zero_shot", "hard", 30),
            ("difference_order", "pairs", 60),
            ("ranking", "by size", 25),
        ):
            images = np.arange(n)
            right = rng.random(n) < 0.5 + 0.5 * shift if task != "ranking" else [None] * n
            found.append(
                pd.DataFrame(
                    {
                        "task": task,
                        "dataset": dataset,
                        "model": model,
                        "item": images,
                        "first": images,
                        "second": (images + 1) % n if task == "difference_order" else images,
                        "correct": right,
                        "score": rng.normal(size=n) + shift * images,
                        "reference": images.astype(float),
                    }
                )
            )
    return pd.concat(found, ignore_index=True).astype({"correct": "boolean"})


def test_compare_has_a_row_for_each_task_dataset_and_metric():
    predictions = predictions_of(base=0.0, finetuned=0.5, other=0.2)
    found = metrics.compare(predictions, "finetuned", "base", 200, 0)
    assert list(zip(found.task, found.dataset, found.metric, strict=True)) == [
        ("zero_shot", "easy", "accuracy"),
        ("zero_shot", "hard", "accuracy"),
        ("difference_order", "pairs", "accuracy"),
        ("ranking", "by size", "spearman"),
        ("ranking", "by size", "pairwise_accuracy"),
    ]
    assert set(found.after) == {"finetuned"}
    assert set(found.before) == {"base"}
    assert list(found.test) == ["mcnemar", "mcnemar", "bootstrap", "bootstrap", "bootstrap"]
    easy = found.iloc[0]
    new, old = (
        predictions[(predictions.dataset == "easy") & (predictions.model == name)] for name in ("finetuned", "base")
    )
    assert easy.difference == pytest.approx(new.correct.mean() - old.correct.mean())
    assert easy.ci_low < easy.difference < easy.ci_high
    assert easy.p_mcnemar == metrics.mcnemar(new, old)
    np.testing.assert_allclose(found.p_holm[:2], metrics.holm(list(found.p_mcnemar[:2])))
    assert (found.p_holm[:2] > found.p_mcnemar[:2]).any()
    assert list(found.p_holm[2:]) == list(found.p_bootstrap[2:]), "alone in their families"
    assert found.p_mcnemar[3:].isna().all()
    back = metrics.compare(predictions, "base", "finetuned", 200, 0)
    np.testing.assert_allclose(back.difference, -found.difference)
    np.testing.assert_allclose(back.p_holm, found.p_holm)


def test_an_image_in_two_items_makes_it_a_matter_of_the_bootstrap():
    predictions = predictions_of(base=0.0, finetuned=0.5)
    predictions.loc[predictions["first"] == 1, ["first", "second"]] = 0
    found = metrics.compare(predictions, "finetuned", "base", 100, 0)
    assert set(found.test) == {"bootstrap"}
    assert found.p_mcnemar[:3].notna().all()


def test_protocols_stand_in_one_table_and_so_are_one_family():
    one = predictions_of(base=0.0, finetuned=0.3)
    both = pd.concat([one.assign(protocol="as_released"), one.assign(protocol="corrected")])
    plain, found = (metrics.compare(table, "finetuned", "base", 100, 0) for table in (one, both))
    assert list(found.protocol.unique()) == ["as_released", "corrected"]
    assert len(found) == 2 * len(plain)
    pairs = found[found.task == "difference_order"]
    np.testing.assert_allclose(pairs.p_holm, metrics.holm([*plain.p_bootstrap[plain.task == "difference_order"]] * 2))


# units of draw


def test_a_concept_is_drawn_with_all_its_photos():
    """Two concepts, by hand: a has two right photos, b a wrong one; resamples are aa, ab, ba and bb."""
    photos = singles([True, True, False]).assign(first_unit=list("aab"), second_unit=list("aab"))
    estimate = metrics.accuracy(metrics.in_units(photos), 4000, 0)
    value, count = np.unique(estimate.draws.round(9), return_counts=True)
    assert list(value) == pytest.approx([0, 2 / 3, 1])
    assert count / 4000 == pytest.approx([1 / 4, 1 / 2, 1 / 4], abs=0.03)
    assert (estimate.value, estimate.n, estimate.interval) == (pytest.approx(2 / 3), 3, (0, 1))


def test_a_pair_counts_as_often_as_both_its_concepts_were_drawn():
    units = {"first_unit": ["a", "a", "a"], "second_unit": ["b", "c", "a"]}  # the third pair is of two photos of a
    pairs = pair_items([True, False, True], [0, 1, 0], [2, 3, 1]).assign(**units)
    right = [a * b + a for a, b, _ in next(intervals.resamples(3, 50, 1))]
    total = [a * b + a * c + a for a, b, c in next(intervals.resamples(3, 50, 1))]
    by_hand = np.divide(right, total, out=np.full(50, np.nan), where=np.array(total) > 0)
    np.testing.assert_allclose(metrics.accuracy(metrics.in_units(pairs), 50, 1).draws, by_hand)
    members, values = pairs[["first_unit", "second_unit"]].to_numpy(dtype=str), {"": pairs.correct.to_numpy(float)}
    np.testing.assert_allclose(intervals.bootstrap_means(values, members, 50, 1)[""].draws, by_hand)


def test_photos_that_share_a_concept_make_it_a_matter_of_the_bootstrap():
    predictions = predictions_of(base=0.0, finetuned=0.5)
    own = predictions.assign(first_unit=predictions["first"], second_unit=predictions["second"])
    shared = own.assign(first_unit=own["first"] // 2, second_unit=own["second"] // 2)
    by_image, by_unit = (metrics.compare(table, "finetuned", "base", 200, 0) for table in (own, shared))
    assert list(by_image.test[:2]) == ["mcnemar", "mcnemar"]
    assert set(by_unit.test) == {"bootstrap"}
    np.testing.assert_array_equal(by_image.difference, by_unit.difference)
    assert (by_image.detectable > 0).all()


def test_compare_refuses_what_cannot_be_paired():
    predictions = predictions_of(base=0.0, finetuned=0.3)
    with pytest.raises(PcclipError, match="no predictions of the model 'tuned'; there are: base, finetuned"):
        metrics.compare(predictions, "tuned", "base", 100, 0)
    moved = predictions.copy()
    moved.loc[(moved.model == "base") & (moved.dataset == "hard"), "first"] += 1
    with pytest.raises(PcclipError, match="zero_shot, hard: the two models were not scored on the same items"):
        metrics.compare(moved, "finetuned", "base", 100, 0)


def test_a_task_that_one_model_lacks_is_no_comparison():
    predictions = predictions_of(base=0.0, finetuned=0.3)
    part = predictions[(predictions.model == "base") | (predictions.task == "zero_shot")]
    assert set(metrics.compare(part, "finetuned", "base", 100, 0).task) == {"zero_shot"}
    assert list(metrics.compare(part[part.model == "base"], "base", "base", 100, 0).p_holm) == [1] * 5
