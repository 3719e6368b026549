"""Values with intervals, and the tasks they are made of, on vectors planted by hand."""

import numpy as np
import pandas as pd
import pytest
from scipy.stats import spearmanr

from pcclip import statistics
from pcclip.axes import ESTIMATORS, attribute_axis
from pcclip.evaluate import tasks
from pcclip.params import Attribute
from pcclip.scores import unit


class Fake:
    """An encoder that knows a vector for every text."""

    def __init__(self, vectors: dict):
        self.vectors = vectors

    def encode_texts(self, texts):
        return np.stack([self.vectors[text] for text in texts]).astype(np.float32)


def pair_items(correct, first, second) -> pd.DataFrame:
    return pd.DataFrame({"first": first, "second": second, "correct": correct})


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
    items = pd.concat([scored(rng.normal(size=30), rng.normal(size=30)),
                       pair_items(rng.random(30) < 0.6, np.arange(30), np.arange(30))], axis=1)
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


@pytest.mark.parametrize(("score", "reference", "expected"), [
    ([1, 2, 3], [1, 2, 3], 1.0), ([3, 2, 1], [1, 2, 3], 0.0), ([5, 5, 5], [1, 2, 3], 0.5),
    ([1, 2, 2], [1, 2, 3], 5 / 6), ([9, 1, 2], [7, 7, 8], 0.5),
])
def test_pairwise_accuracy_by_hand(score, reference, expected):
    assert statistics.pairwise_accuracy(scored(score, reference), 100, 0).value == pytest.approx(expected)


# paired differences

@pytest.mark.parametrize("measure", [statistics.accuracy, statistics.spearman, statistics.pairwise_accuracy])
def test_a_model_does_not_differ_from_itself(measure):
    rng = np.random.default_rng(1)
    items = pd.concat([scored(rng.normal(size=15), rng.integers(0, 4, 15)),
                       pair_items(rng.random(15) < 0.5, np.arange(15), np.roll(np.arange(15), 1))], axis=1)
    assert statistics.paired_difference(measure(items, 200, 0), measure(items, 200, 0)) == (0, 0, 0)


def test_pairing_narrows_the_difference():
    rng = np.random.default_rng(0)
    before = rng.random(200) < 0.5
    after = before | (np.arange(200) % 10 == 0)
    estimates = [statistics.accuracy(pair_items(correct, np.arange(200), np.arange(200)), 400, 0)
                 for correct in (after, before)]
    value, low, high = statistics.paired_difference(*estimates)
    assert value == pytest.approx(after.mean() - before.mean())
    assert 0 < low < value < high
    assert high - low < 0.7 * np.diff(estimates[0].interval)[0]


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
    return Fake({text: unit(constant + sign * signal * row + noise * rng.normal(size=16))
                 for names, sign in ((texts, 1), (twins, -1)) for text, row in zip(names, v, strict=True)})


def both_tasks(planted, model, exchanged=False):
    matrix, first, second, texts, twins = planted
    classified, ordered = tasks.differences(model, matrix, first, second, *((twins, texts) if exchanged else
                                                                            (texts, twins)))
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
        model, matrix, np.array([4, 1, 2, 3]), ["cat", "dog", "dog", "cat"], ["cat", "dog", "{}"], "a photo of a {}")
    assert list(items["first"]) == list(items["second"]) == [4, 1, 2, 3]
    assert list(items.score) == [0, 1, 2, 1]
    assert list(items.reference) == [0, 1, 1, 0]
    assert list(items.correct) == [True, True, False, False]


def test_ranking_items_are_projections():
    items = tasks.ranking_items(np.array([2.0, 0.0]), unit(np.array([[1.0, 0], [0, 1], [-1, 1]])), np.array([2, 0]),
                                pd.Series([7, 5]))
    np.testing.assert_allclose(items.score, [-np.sqrt(2), 2])
    assert list(items.reference) == [7, 5]
    assert items.correct.isna().all()


# axes

TEXTS = Attribute(more="a big one", less="a small one", comparison="The first is bigger, the second smaller.",
                  comparison_swapped="The first is smaller, the second bigger.")
VECTORS = dict(zip((TEXTS.more, TEXTS.less, TEXTS.comparison, TEXTS.comparison_swapped),
                   unit(np.random.default_rng(0).normal(size=(4, 5))).astype(np.float32), strict=True))


@pytest.mark.parametrize(("estimator", "expected"), [
    ("one_sided", VECTORS[TEXTS.comparison]),
    ("antisymmetric", VECTORS[TEXTS.comparison] - VECTORS[TEXTS.comparison_swapped]),
    ("two_prompt", VECTORS[TEXTS.more] - VECTORS[TEXTS.less]),
])
def test_axis(estimator, expected):
    np.testing.assert_allclose(attribute_axis(Fake(VECTORS), TEXTS, estimator), expected)
    assert estimator in ESTIMATORS


def test_unknown_axis():
    with pytest.raises(ValueError, match="'two_sided'; known: one_sided, antisymmetric, two_prompt"):
        attribute_axis(Fake(VECTORS), TEXTS, "two_sided")
