"""The tasks on differences, zero-shot classes and rankings, on vectors planted by hand."""

import numpy as np
import pandas as pd
import pytest

from pcclip.evaluation import differences as tasks
from pcclip.stats.vectors import unit


class Fake:
    """An encoder that knows a vector for every text."""

    def __init__(self, vectors: dict):
        self.vectors = vectors

    def encode_texts(self, texts):
        return np.stack([self.vectors[text] for text in texts]).astype(np.float32)


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
