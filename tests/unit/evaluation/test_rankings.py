"""Measures of a ranking against known answers, and how near a text axis comes to the supervised one."""

from itertools import permutations

import numpy as np
import pandas as pd
import pytest
from scipy.stats import kendalltau, mannwhitneyu, rankdata

from pcclip.evaluation import rankings
from pcclip.evaluation import stage as report
from pcclip.stats import intervals as bootstrap
from pcclip.stats import metrics as statistics
from pcclip.stats.rank_measures import TOP, auc, kendall, ndcg, positives, precision_at_k

FURTHER = [kendall, auc, ndcg, precision_at_k]


def scored(score, reference) -> pd.DataFrame:
    return pd.DataFrame({"score": np.array(score, dtype=float), "reference": np.array(reference, dtype=float)})


def drawn(rng, n: int, high: int) -> pd.DataFrame:
    """Scores and references from 0 to high - 1, with ties where n is larger."""
    return scored(*rng.integers(0, high, (2, n)))


# Kendall's tau-b


@pytest.mark.parametrize("high", [2, 3, 10, 1000])
def test_kendall_equals_scipy_with_ties(rng, high):
    items = drawn(rng, 40, high)
    found = kendall(items, 100, 0)
    assert found.value == pytest.approx(kendalltau(items.score, items.reference).statistic)
    assert found.interval[0] < found.value < found.interval[1]
    assert found.n == 40


@pytest.mark.parametrize(
    ("score", "reference", "expected"),
    [
        ([1, 2, 3], [1, 2, 3], 1.0),
        ([3, 2, 1], [1, 2, 3], -1.0),
        ([1, 2, 2], [1, 2, 3], 2 / np.sqrt(2 * 3)),  # two of three pairs are right, one is tied in score
        ([1, 3, 2, 4], [1, 2, 3, 4], 4 / 6),
    ],
)
def test_kendall_by_hand(score, reference, expected):
    assert kendall(scored(score, reference), 100, 0).value == pytest.approx(expected)


@pytest.mark.parametrize("items", [scored([5, 5, 5], [1, 2, 3]), scored([1, 2, 3], [5, 5, 5])])
def test_no_kendall_of_what_does_not_differ(items):
    assert np.isnan(kendall(items, 100, 0).value)


# AUC


def test_auc_equals_mann_whitneys_u(rng):
    for high in (3, 1000):
        score, positive = rng.integers(0, high, 50), rng.random(50) < 0.3
        u = mannwhitneyu(score[positive], score[~positive]).statistic
        assert auc(scored(score, positive), 100, 0).value == pytest.approx(u / (positive.sum() * (~positive).sum()))


@pytest.mark.parametrize(
    ("score", "expected"),
    [([1, 2, 3, 4], 1.0), ([4, 3, 2, 1], 0.0), ([1, 3, 2, 4], 0.75), ([5, 5, 5, 5], 0.5), ([1, 2, 2, 3], 0.875)],
)
def test_auc_by_hand(score, expected):
    found = auc(scored(score, [10, 20, 30, 40]), 100, 0)  # the median is 25
    assert found.value == pytest.approx(expected)
    assert found.n == 4


def test_auc_by_a_threshold_that_is_given():
    items = scored([4, 1, 2, 3], [10, 20, 30, 40])
    assert auc(items, 100, 0, threshold=15).value == 0.0
    assert auc(items, 100, 0, threshold=35).value == pytest.approx(2 / 3)
    assert auc(items, 100, 0, threshold=99).n == 0
    assert auc(items, 100, 0, threshold=0).n == 0


@pytest.mark.parametrize(
    ("reference", "expected"),
    [
        ([1, 2, 3, 4], [0, 0, 1, 1]),
        ([1, 2, 3], [0, 0, 1]),
        ([0, 0, 0, 1], [0, 0, 0, 1]),
        ([0, 1, 1, 1], [0, 1, 1, 1]),
        ([-1, 1], [0, 1]),
        ([7, 7, 7], [0, 0, 0]),
        ([1, 2, 3, 3], [0, 0, 1, 1]),
        ([1, 2, 3, 3, 3], [0, 0, 1, 1, 1]),
    ],
)
def test_positives(reference, expected):
    """Above the median; of two values the larger, however few have it; the largest where half or more have it."""
    assert list(positives(np.array(reference))) == expected


def test_the_head_of_a_list_whose_largest_value_is_common():
    reference = [1.0] * 6 + [2.0] * 6 + [3.0] * 18
    assert precision_at_k(scored(reference, reference), 50, 0).value == 1
    for threshold in (0, 3):
        assert precision_at_k(scored(reference, reference), 50, 0, threshold=threshold).n == 0


# NDCG and precision at k


def by_definition(items: pd.DataFrame, k: int) -> tuple[float, float]:
    """NDCG and precision by the mean over all orders of tied scores."""
    reference = items.reference.to_numpy()
    gain = np.array(
        [((reference < own).sum() + ((reference == own).sum() - 1) / 2) / (len(items) - 1) for own in reference]
    )
    discount = 1 / np.log2(np.arange(2, k + 2))
    found = []
    for order in permutations(range(len(items))):
        if (np.diff(items.score.to_numpy()[list(order)]) <= 0).all():
            head = list(order[:k])
            found.append(
                (
                    gain[head] @ discount / (np.sort(gain)[::-1][:k] @ discount),
                    (reference[head] > np.median(reference)).mean(),
                )
            )
    return tuple(np.mean(found, axis=0))


@pytest.mark.parametrize("high", [2, 4, 100])
def test_the_head_of_a_list_by_definition(rng, high):
    items = scored(rng.integers(0, high, 7), rng.permutation(7) // 1.5)
    expected = by_definition(items, 3)
    assert ndcg(items, 50, 0, k=3).value == pytest.approx(expected[0])
    assert precision_at_k(items, 50, 0, k=3).value == pytest.approx(expected[1])


def test_the_head_of_a_list_by_hand():
    items = scored([9, 8, 3, 2], [4, 1, 3, 2])  # gains 1, 0, 2/3, 1/3
    assert precision_at_k(items, 50, 0, k=2).value == 0.5
    assert ndcg(items, 50, 0, k=2).value == pytest.approx(1 / (1 + 2 / 3 / np.log2(3)))
    assert precision_at_k(items, 50, 0, k=1, threshold=3.5).value == 1.0
    assert precision_at_k(items, 50, 0, k=2, threshold=3.5).value == 0.5
    perfect = scored(items.reference, items.reference)
    assert [measure(perfect, 50, 0, k=2).value for measure in (ndcg, precision_at_k)] == [1, 1]


def test_the_gain_does_not_know_how_large_values_are(rng):
    items = drawn(rng, 30, 1000)
    assert ndcg(items, 50, 0).value == ndcg(items.assign(reference=np.exp(items.reference / 100)), 50, 0).value


@pytest.mark.parametrize("measure", [ndcg, precision_at_k])
def test_a_short_list_has_no_head(rng, measure):
    assert measure(drawn(rng, 2 * TOP - 1, 99), 50, 0).n == 0
    assert measure(drawn(rng, 2 * TOP, 99), 50, 0).n == 2 * TOP


# the bootstrap


@pytest.mark.parametrize("measure", FURTHER)
def test_draws_are_the_measure_of_resampled_images(measure, rng):
    items, whole = drawn(rng, 24, 12), None
    if measure in (kendall, auc):
        counts = np.random.default_rng(3).multinomial(24, np.full(24, 1 / 24), 20)
        rows = [np.repeat(np.arange(24), count) for count in counts]
    else:
        rows = np.random.default_rng(3).integers(0, 24, (20, 24))
    found = measure(items, 20, 3).draws
    threshold = np.median(items.reference)
    gain = (rankdata(items.reference) - 1) / 23
    for k, row in enumerate(rows):
        part = items.iloc[row]
        if measure is kendall:
            whole = kendalltau(part.score, part.reference).statistic
        elif measure is ndcg:  # the gains are those of the images, not of the draw
            order = np.argsort(-part.score.to_numpy(), kind="stable")
            tied = pd.Series(gain[row]).groupby(part.score.to_numpy()).transform("mean").to_numpy()[order][:TOP]
            discount = 1 / np.log2(np.arange(2, TOP + 2))
            whole = tied @ discount / (np.sort(gain[row])[::-1][:TOP] @ discount)
        else:
            whole = measure(part, 1, 0, threshold=threshold).value
        assert found[k] == pytest.approx(whole)


@pytest.mark.parametrize("measure", FURTHER)
def test_models_see_the_same_resamples(measure, rng, monkeypatch):
    items = drawn(rng, 30, 9)
    found = measure(items, 60, 1)
    assert statistics.paired_difference(found, measure(items, 60, 1)) == (0, 0, 0)
    assert (found.draws != measure(items, 60, 2).draws).any()
    monkeypatch.setattr(bootstrap, "CELLS", 7 * 30)
    np.testing.assert_allclose(found.draws, measure(items, 60, 1).draws, rtol=1e-12)


@pytest.mark.parametrize(("measure", "chance"), [(kendall, 0.0), (auc, 0.5), (precision_at_k, 0.5)])
def test_the_interval_holds_chance_for_a_random_score(measure, chance):
    inside = 0
    for seed in range(40):
        rng = np.random.default_rng(seed)
        low, high = measure(scored(rng.normal(size=40), rng.permutation(40)), 200, seed).interval
        inside += low <= chance <= high
    assert inside >= 34


@pytest.mark.parametrize(("measure", "chance"), [(statistics.spearman, 0.0), (statistics.pairwise_accuracy, 0.5)])
def test_classes_are_drawn_whole(measure, chance):
    """A score that knows classes, and nothing of their values: 10 classes are behind the interval, not 200 images."""
    inside = 0
    for seed in range(40):
        rng = np.random.default_rng(seed)
        of, score = np.repeat(np.arange(10), 20), rng.normal(size=10)
        items = scored(score[of] + 0.3 * rng.normal(size=200), rng.permutation(10)[of]).assign(first=of, second=of)
        low, high = measure(items, 100, seed).interval
        inside += low <= chance <= high
    assert inside >= 34


@pytest.mark.parametrize("measure", [*FURTHER, statistics.spearman, statistics.pairwise_accuracy])
def test_draws_by_class_are_the_measure_of_resampled_classes(measure, rng):
    names = np.repeat(["a", "b", "c", "d"], [3, 6, 9, 12])
    items = drawn(rng, 30, 12).assign(first=names, second=names)
    same = measure(items.assign(first=range(30), second=range(30)), 30, 3)
    found = measure(items, 30, 3)
    assert found.value == same.value
    assert (found.n, len(found.draws)) == (30, 30)
    counts = next(bootstrap.resamples(4, 30, 3)).astype(int)
    part = items.iloc[np.repeat(np.arange(30), counts[0][pd.factorize(names)[0]])].reset_index(drop=True)
    whole = {
        kendall: lambda: kendalltau(part.score, part.reference).statistic,
        auc: lambda: auc(part.drop(columns="first"), 1, 0, threshold=np.median(items.reference)).value,
    }
    if measure not in (ndcg, precision_at_k):  # whose gains and positives are those of all the images
        expected = whole[measure]() if measure in whole else measure(part.drop(columns="first"), 1, 0).value
        assert found.draws[0] == pytest.approx(expected)


# ---- the tables of stage 04 ------------------------------------------------------------------------------------------


def ranked(dataset: str, reference, task: str = "ranking", **scores) -> pd.DataFrame:
    """Predictions of one data set by name of the model."""
    ids = [f"{k}.jpg" for k in range(len(reference))]
    return pd.concat(
        [
            pd.DataFrame(
                {
                    "task": task,
                    "dataset": dataset,
                    "protocol": "",
                    "model": name,
                    "first": ids,
                    "second": ids,
                    "score": score,
                    "reference": reference,
                    "correct": None,
                }
            )
            for name, score in scores.items()
        ],
        ignore_index=True,
    )


@pytest.fixture
def predictions(rng):
    """Two ways to ask for size, one for weight, whose values are the same, and one for speed, which has no ceiling."""
    size = np.exp(rng.normal(size=40))
    noisy = {
        name: np.log(size) + noise * rng.normal(size=40)
        for name, noise in (("base", 3.0), ("finetuned", 1.0), ("supervised", 0.3))
    }
    text = {name: noisy[name] for name in ("base", "finetuned")}
    return pd.concat(
        [
            ranked("set/size/plain", size, **text),
            ranked("set/size/swapped", size, **text),
            ranked("set/weight/plain", size, finetuned=noisy["finetuned"]),
            ranked("set/speed/plain", rng.permutation(size), **text),
            ranked("set/size/supervised", size, supervised=noisy["supervised"]),
        ],
        ignore_index=True,
    )


def of(metrics: pd.DataFrame, dataset: str, model: str) -> pd.DataFrame:
    return metrics[(metrics.dataset == dataset) & (metrics.model == model)].set_index("metric")


def test_rankings_have_all_measures_and_are_tested_by_some(predictions):
    metrics, paired = report.summarise(predictions, 100, 0)
    own = of(metrics, "set/size/plain", "base")
    assert list(own.index) == [
        "spearman",
        "pairwise_accuracy",
        "clear_pairwise_accuracy",
        "kendall",
        "auc",
        "ndcg_at_10",
        "precision_at_10",
        "spearman_share",
        "pairwise_accuracy_share",
    ]
    items = predictions[(predictions.dataset == "set/size/plain") & (predictions.model == "base")]
    for metric in statistics.measured_by("ranking"):
        expected = statistics.MEASURES[metric](items, 100, 0)
        assert own.value[metric] == expected.value
        assert (own.ci_low[metric], own.ci_high[metric]) == expected.interval
    assert set(paired.metric) == {"spearman", "pairwise_accuracy", "clear_pairwise_accuracy"}


def test_what_no_model_is_tested_by_has_fewer_draws(predictions):
    items = predictions[(predictions.dataset == "set/size/plain") & (predictions.model == "base")]
    own = of(rankings.measured(items, 600, 0), "set/size/plain", "base")
    for metric, draws in (("spearman", 600), ("pairwise_accuracy", 600), ("kendall", 500), ("auc", 500)):
        assert tuple(own.loc[metric, ["ci_low", "ci_high"]]) == statistics.MEASURES[metric](items, draws, 0).interval


def test_the_share_is_that_of_the_supervised_axis_on_the_same_resamples(predictions):
    metrics = rankings.measured(predictions, 100, 0)
    estimate = {
        model: statistics.spearman(
            predictions[(predictions.model == model) & (predictions.dataset == f"set/size/{end}")], 100, 0
        )
        for model, end in (("finetuned", "plain"), ("supervised", "supervised"))
    }
    found = of(metrics, "set/size/plain", "finetuned").loc["spearman_share"]
    assert found.value == pytest.approx(estimate["finetuned"].value / estimate["supervised"].value)
    assert [found.ci_low, found.ci_high] == pytest.approx(
        np.percentile(estimate["finetuned"].draws / estimate["supervised"].draws, [2.5, 97.5])
    )
    values = {
        end: of(metrics, f"set/size/{end}", model).value["pairwise_accuracy"]
        for end, model in (("plain", "base"), ("supervised", "supervised"))
    }
    assert of(metrics, "set/size/plain", "base").value["pairwise_accuracy_share"] == pytest.approx(
        (values["plain"] - 0.5) / (values["supervised"] - 0.5)
    )


def test_a_share_is_taken_of_an_axis_for_the_same_values(predictions):
    """By the images and values, not by names: weight has the values of size, speed has others."""
    shares = rankings.measured(predictions, 100, 0)
    shares = shares[shares.metric == "spearman_share"]
    assert set(zip(shares.dataset, shares.model, strict=True)) == {
        ("set/size/plain", "base"),
        ("set/size/plain", "finetuned"),
        ("set/size/swapped", "base"),
        ("set/size/swapped", "finetuned"),
        ("set/weight/plain", "finetuned"),
    }


def test_there_is_no_share_of_a_ceiling_that_may_be_at_chance(rng):
    values = rng.permutation(30).astype(float)
    items = pd.concat(
        [ranked("a/b/plain", values, base=values), ranked("a/b/supervised", values, supervised=rng.normal(size=30))]
    )
    metrics = rankings.measured(items, 200, 0)
    low, high = metrics[(metrics.model == "supervised") & (metrics.metric == "spearman")][["ci_low", "ci_high"]].iloc[0]
    assert low < 0 < high
    assert not metrics.metric.str.endswith("_share").any()


def test_the_share_of_pairs(rng):
    """Verdicts on pairs: accuracy, and its share beyond a half."""
    pairs = pd.DataFrame(
        {
            "task": "relative_pairs",
            "protocol": "",
            "first": [f"{k}" for k in range(200)],
            "second": [f"{k + 1}" for k in range(200)],
            "score": 0.0,
            "reference": np.where(rng.random(200) < 0.5, 1.0, -1.0),
        }
    )
    items = pd.concat(
        [
            pairs.assign(dataset="shoes/open/plain", model="base", correct=np.arange(200) % 4 != 0),
            pairs.assign(dataset="shoes/open/supervised", model="supervised", correct=np.arange(200) % 10 != 0),
        ],
        ignore_index=True,
    )
    metrics = rankings.measured(items, 100, 0)
    assert metrics[["model", "metric", "value"]].to_numpy().tolist() == [
        ["base", "accuracy", 0.75],
        ["base", "accuracy_share", pytest.approx(0.25 / 0.4)],
        ["supervised", "accuracy", 0.9],
    ]
