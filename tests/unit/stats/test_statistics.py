"""Values with intervals, and the tasks they are made of, on vectors planted by hand."""

import numpy as np
import pandas as pd
import pytest
from scipy.stats import binomtest, spearmanr

from pcclip.errors import PcclipError
from pcclip.evaluation import differences as tasks
from pcclip.stats import intervals as bootstrap
from pcclip.stats import metrics as statistics
from pcclip.stats.vectors import unit


class Fake:
    """An encoder that knows a vector for every text."""

    def __init__(self, vectors: dict):
        self.vectors = vectors

    def encode_texts(self, texts):
        return np.stack([self.vectors[text] for text in texts]).astype(np.float32)


def pair_items(correct, first, second) -> pd.DataFrame:
    return pd.DataFrame({"first": first, "second": second, "correct": correct})


def singles(correct) -> pd.DataFrame:
    """Items that have an image of their own each."""
    return pair_items(np.array(correct, dtype=bool), np.arange(len(correct)), np.arange(len(correct)))


def scored(score, reference) -> pd.DataFrame:
    return pd.DataFrame({"score": np.array(score, dtype=float), "reference": np.array(reference, dtype=float)})


# accuracy


def test_accuracy_of_four_items():
    estimate = statistics.accuracy(pair_items([True, True, False, True], list("abca"), list("bcdd")), 200, 0)
    assert estimate.value == 0.75
    assert estimate.n == 4
    assert len(estimate.draws) == 200
    low, high = estimate.interval
    assert 0 <= low < 0.75 < high <= 1


@pytest.mark.parametrize("correct", [True, False])
def test_accuracy_without_doubt(correct):
    estimate = statistics.accuracy(pair_items([correct] * 6, list("abcdef"), list("bcdefa")), 300, 0)
    assert (estimate.value, *estimate.interval) == (correct, correct, correct)


@pytest.mark.parametrize("single", [False, True])
def test_the_interval_holds_the_truth_of_a_random_scorer(single):
    inside, widths = 0, []
    for seed in range(60):
        rng = np.random.default_rng(seed)
        first = rng.integers(0, 40, 150)
        second = first if single else (first + rng.integers(1, 40, 150)) % 40
        low, high = statistics.accuracy(pair_items(rng.random(150) < 0.5, first, second), 200, seed).interval
        inside += low <= 0.5 <= high
        widths.append(high - low)
    assert inside >= 51
    assert 0.1 < np.mean(widths) < 0.4


def test_an_image_in_every_pair_widens_the_interval():
    rng = np.random.default_rng(0)
    correct = np.repeat(rng.random(20) < 0.5, 20)  # every image decides all of its pairs
    first, other = np.repeat(np.arange(20), 20), np.tile(np.arange(20, 40), 20)
    clustered = statistics.accuracy(pair_items(correct, first, other), 400, 0)
    independent = statistics.accuracy(pair_items(correct, np.arange(400), np.arange(400)), 400, 0)
    assert np.std(clustered.draws) > 3 * np.std(independent.draws)


def test_mean_of_values():
    estimate = statistics.mean(np.array([0.2, -0.4, 0.5]), np.array(list("abc")), np.array(list("bca")), 200, 0)
    assert estimate.value == pytest.approx(0.1)
    assert -0.4 <= estimate.interval[0] < 0.1 < estimate.interval[1] <= 0.5


@pytest.mark.parametrize("measure", [statistics.accuracy, statistics.spearman, statistics.pairwise_accuracy])
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
        estimate = statistics.spearman(scored(score, reference), 200, 0)
        assert estimate.value == pytest.approx(spearmanr(score, reference).statistic)
        assert estimate.interval[0] < estimate.value < estimate.interval[1]
        assert estimate.n == 40


@pytest.mark.parametrize(("sign", "expected"), [(1, 1.0), (-1, -1.0)])
def test_spearman_of_a_perfect_order(sign, expected):
    values = np.arange(20.0)
    estimate = statistics.spearman(scored(sign * values**3, values), 100, 0)
    assert (estimate.value, *estimate.interval) == pytest.approx((expected,) * 3)


def brute_pairwise(score, reference):
    points = []
    for i in range(len(score)):
        for j in range(i):
            if reference[i] != reference[j]:
                right = (score[i] > score[j]) == (reference[i] > reference[j])
                points.append(0.5 if score[i] == score[j] else float(right))
    return np.mean(points)


@pytest.mark.parametrize("high", [3, 10, 1000])
def test_pairwise_accuracy_equals_a_loop(high):
    score, reference = np.random.default_rng(high).integers(0, high, (2, 25))
    estimate = statistics.pairwise_accuracy(scored(score, reference), 200, 0)
    assert estimate.value == pytest.approx(brute_pairwise(score, reference))
    assert estimate.interval[0] < estimate.value < estimate.interval[1]
    assert estimate.n == 25


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
    assert statistics.pairwise_accuracy(scored(score, reference), 100, 0).value == pytest.approx(expected)


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
    found = statistics.clear_pairwise_accuracy(scored(score, reference), 100, 0)
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
    found = statistics.clear_pairwise_accuracy(items, 200, 0)
    assert 0 < len(points) < 30 * 29
    assert found.value == pytest.approx(np.mean(points))
    assert found.interval[0] < found.value < found.interval[1]
    drawn = np.random.default_rng(0).multinomial(30, np.full(30, 1 / 30), 200)
    copies = items.loc[np.repeat(np.arange(30), drawn[0])]
    assert found.draws[0] == pytest.approx(statistics.clear_pairwise_accuracy(copies, 100, 0).value)


@pytest.mark.parametrize("reference", [[0, 1, 2], [-1, 1, 5], [-4, -2, -1], [1, 1.5, 1.9]])
def test_no_clear_pairs(reference):
    """Factors say nothing of what may be zero or less; and there may be none."""
    found = statistics.clear_pairwise_accuracy(scored([1, 2, 3], reference), 100, 0)
    assert found.n == 0
    assert np.isnan([found.value, *found.draws]).all()
    assert len(found.draws) == 100


# paired differences


@pytest.mark.parametrize("measure", [statistics.accuracy, statistics.spearman, statistics.pairwise_accuracy])
def test_a_model_does_not_differ_from_itself(measure):
    rng = np.random.default_rng(1)
    items = pd.concat(
        [
            scored(rng.normal(size=15), rng.integers(0, 4, 15)),
            pair_items(rng.random(15) < 0.5, np.arange(15), np.roll(np.arange(15), 1)),
        ],
        axis=1,
    )
    assert statistics.paired_difference(measure(items, 200, 0), measure(items, 200, 0)) == (0, 0, 0)


def test_pairing_narrows_the_difference():
    rng = np.random.default_rng(0)
    before = rng.random(200) < 0.5
    after = before | (np.arange(200) % 10 == 0)
    estimates = [
        statistics.accuracy(pair_items(correct, np.arange(200), np.arange(200)), 400, 0) for correct in (after, before)
    ]
    value, low, high = statistics.paired_difference(*estimates)
    assert value == pytest.approx(after.mean() - before.mean())
    assert 0 < low < value < high
    assert high - low < 0.7 * np.diff(estimates[0].interval)[0]


def test_a_difference_needs_the_same_items_and_draws():
    one, fewer = (statistics.accuracy(singles([1, 0, 1, 1][:n]), 100, 0) for n in (4, 3))
    with pytest.raises(PcclipError, match="these are 4 and 3 items, 100 and 100 draws"):
        statistics.paired_difference(one, fewer)
    with pytest.raises(PcclipError, match="100 and 200 draws"):
        statistics.p_value(one, statistics.accuracy(singles([1, 0, 1, 1]), 200, 0))


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
    np.testing.assert_array_equal(statistics.accuracy(items, 60, 3).draws, list(naive_accuracy(items, 60, 3)))


def test_rank_measures_equal_a_loop_over_draws(rng):
    items = scored(rng.integers(0, 9, 20), rng.integers(0, 9, 20))
    rows = np.random.default_rng(3).integers(0, 20, (50, 20))
    np.testing.assert_allclose(
        statistics.spearman(items, 50, 3).draws,
        [spearmanr(items.score[row], items.reference[row]).statistic for row in rows],
    )
    counts = np.random.default_rng(3).multinomial(20, np.full(20, 1 / 20), 50)
    drawn = [items.loc[np.repeat(np.arange(20), count)] for count in counts]  # an image and its copy are a tied pair
    np.testing.assert_allclose(
        statistics.pairwise_accuracy(items, 50, 3).draws,
        [brute_pairwise(part.score.to_numpy(), part.reference.to_numpy()) for part in drawn],
    )


@pytest.mark.parametrize("measure", [statistics.accuracy, statistics.spearman, statistics.pairwise_accuracy])
def test_working_in_pieces_changes_no_draw(measure, monkeypatch, rng):
    items = pd.concat(
        [
            scored(rng.normal(size=30), rng.integers(0, 9, 30)),
            pair_items(rng.random(30) < 0.6, rng.integers(0, 20, 30), rng.integers(0, 20, 30)),
        ],
        axis=1,
    )
    whole = measure(items, 100, 1)
    monkeypatch.setattr(bootstrap, "CELLS", 7 * 30)
    pieces = measure(items, 100, 1)
    np.testing.assert_array_equal(whole.draws, pieces.draws)
    assert whole.value == pieces.value


def test_resamples_draw_as_many_images_as_there_are():
    for n in (5, 2001):  # a multinomial's, and counted indices
        counts = np.concatenate(list(statistics.resamples(n, 400, 0)))
        assert counts.shape == (400, n)
        assert (counts.sum(axis=1) == n).all()
        assert counts[:, 0].mean() == pytest.approx(1, abs=0.2)
        assert counts[:, 0].var() == pytest.approx(1 - 1 / n, abs=0.3)


def test_many_images_have_the_binomial_interval(rng):
    correct = rng.random(3000) < 0.7
    low, high = statistics.accuracy(singles(correct), 1000, 0).interval
    error = np.sqrt(correct.mean() * (1 - correct.mean()) / 3000)
    assert [low, high] == pytest.approx(correct.mean() + 1.96 * error * np.array([-1, 1]), abs=0.15 * error * 1.96)


def test_models_see_the_same_resamples_of_many_images(rng):
    before = rng.random(3000) < 0.5
    after = before.copy()
    after[:30] = True
    value, low, high = statistics.paired_difference(
        *(statistics.accuracy(singles(correct), 500, 0) for correct in (after, before))
    )
    gained = (after & ~before).sum() / 3000
    assert value == pytest.approx(gained)
    assert 0 < low < gained < high < 0.02, "unpaired draws would differ by 0.035"


def test_mean_score():
    items = scored([0.5, 1.5, 4.0], [0, 0, 0]).assign(first=list("abc"), second=list("bca"))
    assert statistics.mean_score(items, 100, 0).value == 2


# tests


def test_mcnemar_by_hand():
    a, b = singles([1, 1, 1, 1, 1, 1, 0, 1, 0]), singles([0, 0, 0, 0, 0, 0, 1, 1, 0])
    assert statistics.mcnemar(a, b) == (6, 1, pytest.approx(2 * (1 + 7) / 2**7))  # P(X <= 1) of 7 coins, both tails
    assert statistics.mcnemar(b, a) == (1, 6, pytest.approx(0.125))
    assert statistics.mcnemar(a.iloc[:5], b.iloc[:5]) == (5, 0, pytest.approx(2 / 2**5))


@pytest.mark.parametrize(("only_a", "only_b"), [(3, 12), (40, 25), (1, 0), (9, 9)])
def test_mcnemar_equals_scipys_binomial(only_a, only_b):
    a = singles([1] * only_a + [0] * only_b + [1] * 5)
    b = singles([0] * only_a + [1] * only_b + [1] * 5)
    assert statistics.mcnemar(a, b) == (only_a, only_b, binomtest(only_a, only_a + only_b).pvalue)


def test_mcnemar_of_models_that_never_differ():
    same = singles([1, 0, 1])
    assert statistics.mcnemar(same, same) == (0, 0, 1)
    assert statistics.mcnemar(singles([1, 0]), singles([0, 1])) == (1, 1, 1)


def test_mcnemar_refuses_other_images():
    with pytest.raises(PcclipError, match="not scored on the same items in the same order"):
        statistics.mcnemar(singles([1, 0]), singles([1, 0]).iloc[::-1])
    with pytest.raises(PcclipError, match="not scored on the same items"):
        statistics.mcnemar(singles([1, 0]), singles([1, 0, 1]))


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
    np.testing.assert_allclose(statistics.holm(given), adjusted)


def test_bootstrap_p_value_by_hand():
    def estimate(draws):
        return statistics.Estimate(0.0, np.array(draws, dtype=float), 4)

    zero = estimate([0] * 9)
    assert statistics.p_value(estimate([1] * 9), zero) == pytest.approx(2 / 10)  # none at or below 0
    assert statistics.p_value(estimate([-1] + [1] * 8), zero) == pytest.approx(4 / 10)
    assert statistics.p_value(zero, estimate([-1] + [1] * 8)) == pytest.approx(4 / 10)
    assert statistics.p_value(estimate([0, 0] + [1] * 7), zero) == pytest.approx(6 / 10), "a tie is on both sides"
    assert statistics.p_value(zero, zero) == 1
    assert statistics.p_value(estimate([np.nan] * 2 + [1] * 7), zero) == pytest.approx(2 / 8)


def test_p_values_of_no_difference_are_uniform():
    found = {"mcnemar": [], "bootstrap": []}
    for seed in range(200):
        a, b = (singles(row) for row in np.random.default_rng(seed).random((2, 80)) < 0.6)
        found["mcnemar"].append(statistics.mcnemar(a, b).p_value)
        found["bootstrap"].append(statistics.p_value(*(statistics.accuracy(items, 100, seed) for items in (a, b))))
    assert 0.01 <= np.mean(np.array(found["bootstrap"]) < 0.1) <= 0.17
    assert 0.01 <= np.mean(np.array(found["mcnemar"]) < 0.1) <= 0.13, "an exact test is never too sure of itself"
    assert np.median(found["bootstrap"]) == pytest.approx(0.5, abs=0.15)


# seeds


def test_over_seeds_by_hand():
    found = statistics.over_seeds([0.5, 0.6, 0.7])
    assert found.mean == pytest.approx(0.6)
    assert found.standard_error == pytest.approx(0.1 / np.sqrt(3))
    half = 4.302653 * 0.1 / np.sqrt(3)  # Student's t with 2 degrees of freedom, from a table
    assert (found.ci_low, found.ci_high) == pytest.approx((0.6 - half, 0.6 + half))
    assert found.n == 3
    assert statistics.t_interval([0.5, 0.6, 0.7]) == (found.ci_low, found.ci_high)


def test_one_seed_has_no_interval():
    mean, *rest, n = statistics.over_seeds([0.5])
    assert (mean, n) == (0.5, 1)
    assert np.isnan(rest).all()
    with pytest.raises(PcclipError, match="one value for each training seed"):
        statistics.over_seeds([])


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
    found = statistics.compare(predictions, "finetuned", "base", 200, 0)
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
    assert easy.p_mcnemar == statistics.mcnemar(new, old).p_value
    np.testing.assert_allclose(found.p_holm[:2], statistics.holm(found.p_mcnemar[:2]))
    assert (found.p_holm[:2] > found.p_mcnemar[:2]).any()
    assert list(found.p_holm[2:]) == list(found.p_bootstrap[2:]), "alone in their families"
    assert found.p_mcnemar[3:].isna().all()
    back = statistics.compare(predictions, "base", "finetuned", 200, 0)
    np.testing.assert_allclose(back.difference, -found.difference)
    np.testing.assert_allclose(back.p_holm, found.p_holm)


def test_an_image_in_two_items_makes_it_a_matter_of_the_bootstrap():
    predictions = predictions_of(base=0.0, finetuned=0.5)
    predictions.loc[predictions["first"] == 1, ["first", "second"]] = 0
    found = statistics.compare(predictions, "finetuned", "base", 100, 0)
    assert set(found.test) == {"bootstrap"}
    assert found.p_mcnemar[:3].notna().all()


def test_protocols_are_families_of_their_own():
    one = predictions_of(base=0.0, finetuned=0.3)
    both = pd.concat([one.assign(protocol="as_released"), one.assign(protocol="corrected")])
    plain, found = (statistics.compare(table, "finetuned", "base", 100, 0) for table in (one, both))
    assert list(found.protocol.unique()) == ["as_released", "corrected"]
    assert len(found) == 2 * len(plain)
    for protocol, part in found.groupby("protocol"):
        np.testing.assert_allclose(part.p_holm, plain.p_holm, err_msg=protocol)


def test_compare_refuses_what_cannot_be_paired():
    predictions = predictions_of(base=0.0, finetuned=0.3)
    with pytest.raises(PcclipError, match="no predictions of the model 'tuned'; there are: base, finetuned"):
        statistics.compare(predictions, "tuned", "base", 100, 0)
    moved = predictions.copy()
    moved.loc[(moved.model == "base") & (moved.dataset == "hard"), "first"] += 1
    with pytest.raises(PcclipError, match="zero_shot, hard: the two models were not scored on the same items"):
        statistics.compare(moved, "finetuned", "base", 100, 0)


def test_a_task_that_one_model_lacks_is_no_comparison():
    predictions = predictions_of(base=0.0, finetuned=0.3)
    part = predictions[(predictions.model == "base") | (predictions.task == "zero_shot")]
    assert set(statistics.compare(part, "finetuned", "base", 100, 0).task) == {"zero_shot"}
    assert list(statistics.compare(part[part.model == "base"], "base", "base", 100, 0).p_holm) == [1] * 5


# tasks


@pytest.fixture
def planted(rng):
    """60 images and 200 pairs whose first image always has the larger first coordinate."""
    matrix = unit(rng.normal(size=(60, 16))).astype(np.float32)
    pairs = rng.integers(0, 60, (400, 2))
    pairs = pairs[pairs[:, 0] != pairs[:, 1]][:200]
    high = matrix[pairs[:, 0], 0] > matrix[pairs[:, 1], 0]
    pairs = np.where(high[:, None], pairs, pairs[:, ::-1])
    texts, twins = ([f"{which} {k}" for k in range(200)] for which in ("text", "twin"))
    return matrix, pairs[:, 0], pairs[:, 1], texts, twins


def encoder(planted, signal: float, noise: float, offset: float) -> Fake:
    """f(text) = unit(offset e1 + signal v + noise), and the twin's with -v; v the image difference."""
    matrix, first, second, texts, twins = planted
    rng, v = np.random.default_rng(7), unit(matrix[first] - matrix[second])
    constant = np.eye(16)[0] * offset
    return Fake(
        {
            text: unit(constant + sign * signal * row + noise * rng.normal(size=16))
            for names, sign in ((texts, 1), (twins, -1))
            for text, row in zip(names, v, strict=True)
        }
    )


def both_tasks(planted, model, exchanged=False):
    matrix, first, second, texts, twins = planted
    classified, ordered = tasks.differences(
        model, matrix, first, second, *((twins, texts) if exchanged else (texts, twins))
    )
    return classified.correct.mean(), ordered.correct.mean()


def test_an_oracle_is_right_in_both_tasks(planted):
    oracle = encoder(planted, signal=1, noise=0, offset=0)
    assert both_tasks(planted, oracle) == (1, 1)
    assert both_tasks(planted, oracle, exchanged=True) == (0, 0)


def test_noise_is_at_chance_in_both_tasks(planted):
    noise = encoder(planted, signal=0, noise=1, offset=0)
    assert both_tasks(planted, noise) == pytest.approx((0.5, 0.5), abs=0.1)


def test_a_constant_offset_fools_classification_but_not_order(planted):
    ignorant = encoder(planted, signal=0, noise=0.001, offset=1)
    knowing = encoder(planted, signal=0.001, noise=0, offset=1)
    for model in (ignorant, knowing):
        assert both_tasks(planted, model)[0] > 0.9
        assert both_tasks(planted, model, exchanged=True)[0] > 0.9  # whatever the sentence says
    assert both_tasks(planted, ignorant)[1] == pytest.approx(0.5, abs=0.1)
    assert both_tasks(planted, knowing)[1] == 1
    assert both_tasks(planted, knowing, exchanged=True)[1] == 0


def test_a_tie_is_not_a_win(planted):
    mute = Fake(dict.fromkeys([*planted[3], *planted[4]], np.zeros(16)))
    assert both_tasks(planted, mute) == (0, 0)


def test_items_say_what_was_compared(planted):
    matrix, first, second, *_ = planted
    model = encoder(planted, signal=1, noise=0.3, offset=0.2)
    classified, ordered = tasks.differences(model, *planted)
    v = unit(matrix[first] - matrix[second])
    for items in (classified, ordered):
        assert list(items.columns) == ["first", "second", "score", "reference", "correct"]
        np.testing.assert_array_equal(items[["first", "second"]], np.stack([first, second], 1))
        np.testing.assert_allclose(items.score, (v * model.encode_texts(planted[3])).sum(axis=1), atol=1e-6)
        np.testing.assert_array_equal(items.correct, items.score > items.reference)
    assert (classified.reference == 0).all()
    np.testing.assert_allclose(ordered.reference, (v * model.encode_texts(planted[4])).sum(axis=1), atol=1e-6)


def test_zero_shot_finds_the_nearest_class():
    axes = np.eye(4, dtype=np.float32)
    matrix = unit(axes[[0, 1, 2, 1, 0]] + 0.1 * axes[3])
    model = Fake({"a photo of a cat": axes[0], "a photo of a dog": axes[1], "a photo of a {}": axes[2]})
    items = tasks.zero_shot_items(
        model, matrix, np.array([4, 1, 2, 3]), ["cat", "dog", "dog", "cat"], ["cat", "dog", "{}"], "a photo of a {}"
    )
    assert list(items["first"]) == list(items["second"]) == [4, 1, 2, 3]
    assert list(items.score) == [0, 1, 2, 1]
    assert list(items.reference) == [0, 1, 1, 0]
    assert list(items.correct) == [True, True, False, False]


def test_ranking_items_are_projections():
    items = tasks.ranking_items(
        np.array([2.0, 0.0]), unit(np.array([[1.0, 0], [0, 1], [-1, 1]])), np.array([2, 0]), pd.Series([7, 5])
    )
    np.testing.assert_allclose(items.score, [-np.sqrt(2), 2])
    assert list(items.reference) == [7, 5]
    assert items.correct.isna().all()
