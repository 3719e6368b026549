"""The linear probe, accuracy by group, embedding distances and the supervised axis, on cases with known answers."""

import numpy as np
import pandas as pd
import pytest
import torch

from pcclip.errors import PcclipError
from pcclip.evaluation import differences as tasks
from pcclip.evaluation.linear_probe import probe_items, released_probe_items
from pcclip.evaluation.predictions import share
from pcclip.ranking.axes import ridge_axis
from pcclip.stats import metrics as statistics
from pcclip.stats.intervals import Estimate
from pcclip.stats.vectors import unit

PROTOCOLS = ["as_released", "corrected"]


# ---- the linear probe ------------------------------------------------------------------------------------------------


def clusters(rng, classes: int, each: int, spread: float) -> tuple[np.ndarray, np.ndarray]:
    """Unit vectors around one direction for each class, and their labels."""
    labels = np.repeat(np.arange(classes), each)
    vectors = np.eye(16)[labels] + spread * rng.standard_normal((len(labels), 16))
    return unit(vectors).astype(np.float32), labels


def split(labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rows to tune on and rows to test on, half of each class."""
    rows = np.arange(len(labels))
    return rows[::2], rows[1::2]


def probed(matrix, labels, tune, test, shots: int, seed: int = 0, protocol: str = "corrected") -> pd.DataFrame:
    sides = (tune, labels[tune]), (test, labels[test])
    if protocol == "corrected":
        return probe_items(matrix, *sides, shots, seed)
    return released_probe_items(matrix, *sides, shots)


@pytest.mark.parametrize(
    ("protocol", "shots", "each"), [("corrected", 1, 50), ("corrected", 3, 50), ("as_released", 250, 500)]
)
def test_clear_clusters_are_told_apart(rng, protocol, shots, each):
    matrix, labels = clusters(rng, 4, each, 0.02)
    tune, test = split(labels)
    items = probed(matrix, labels, tune, test, shots, 0, protocol)
    assert items.correct.all()
    assert list(items.columns) == ["first", "second", "score", "reference", "correct"]
    seeds = 1 if protocol == "corrected" else 5
    assert (items["first"] == items["second"]).all()
    assert list(items["first"]) == list(test) * seeds
    assert list(items.reference) == list(labels[test]) * seeds


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_labels_without_meaning_are_guessed(protocol):
    inside = 0
    for seed in range(12):
        rng = np.random.default_rng(seed)
        matrix, labels = unit(rng.standard_normal((300, 8))), np.tile(np.arange(4), 75)
        tune, test = np.arange(100), np.arange(100, 300)
        items = probed(matrix, labels, tune, test, 5, seed, protocol)
        low, high = statistics.accuracy(items, 200, 0).interval
        inside += low <= 0.25 <= high
    assert inside >= 9


def test_more_shots_help(rng):
    matrix, labels = clusters(rng, 8, 60, 0.35)
    tune, test = split(labels)
    few, more = (
        np.mean([probed(matrix, labels, tune, test, shots, seed).correct.mean() for seed in range(3)])
        for shots in (1, 16)
    )
    assert few > 0.3
    assert more > few + 0.1


def test_classes_with_one_image_or_none(rng):
    """Three shots of two classes, one of a third and none of a fourth, which is then never predicted."""
    matrix, labels = clusters(rng, 4, 20, 0.05)
    tune = np.r_[0:10, 20:30, 40:41]
    test = np.r_[10:20, 30:40, 50:60, 60:80]
    items = probed(matrix, labels, tune, test, 3)
    assert items.correct[:30].all()
    assert not items.correct[30:].any()
    assert set(items.score) == {0, 1, 2}
    assert set(probed(matrix, labels, np.arange(3), test, 3).score) == {0}, "one class alone"


def test_the_released_draw_is_of_any_class(rng):
    """20 of 40 images of one class and 4 of others: at 1 shot of 5 classes most draws miss a class."""
    matrix, labels = clusters(rng, 5, 30, 0.01)
    tune, test = np.r_[0:29, 30, 60, 90, 120], np.arange(150)
    items = released_probe_items(matrix, (tune, labels[tune]), (test, labels[test]), 1)
    assert len(items) == 5 * 150, "once for each seed"
    first_draw = np.random.default_rng(0).permutation(len(tune))[:5]
    assert len(set(labels[tune][first_draw])) < 5


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_the_same_seed_gives_the_same_items(rng, protocol):
    matrix, labels = clusters(rng, 4, 20, 0.5)
    tune, test = split(labels)
    torch.manual_seed(7)
    state = torch.random.get_rng_state()
    one, two = (probed(matrix, labels, tune, test, 2, 5, protocol) for _ in range(2))
    pd.testing.assert_frame_equal(one, two)
    assert torch.equal(torch.random.get_rng_state(), state)  # nobody else's draws are touched


# ---- the supervised axis ---------------------------------------------------------------------------------------------


def planted(rng, n: int, d: int, noise: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Vectors, the direction in which an attribute lies, and its values."""
    matrix, direction = unit(rng.standard_normal((n, d))), unit(rng.standard_normal((1, d)))[0]
    return matrix, direction, 50 + 20 * (matrix @ direction + noise * rng.standard_normal(n))


@pytest.mark.parametrize(("n", "d"), [(12, 4), (9, 30)])
def test_the_penalty_has_the_smallest_leave_one_out_error(rng, n, d):
    """Against ridge regression refitted without each image in turn."""
    matrix, _, values = planted(rng, n, d, 0.1)
    axis, penalty = ridge_axis(matrix, np.arange(n), values)
    centred = matrix - matrix.mean(axis=0)
    candidates = np.logspace(-6, 3, 19) * np.linalg.eigvalsh(centred.T @ centred).max()

    def fitted(rows, penalty):
        x, y = matrix[rows], values[rows]
        weights = np.linalg.solve(
            (x - x.mean(axis=0)).T @ (x - x.mean(axis=0)) + penalty * np.eye(d), (x - x.mean(axis=0)).T @ (y - y.mean())
        )
        return weights, y.mean() - x.mean(axis=0) @ weights

    def error(penalty):
        rest = [np.delete(np.arange(n), k) for k in range(n)]
        fits = [fitted(rows, penalty) for rows in rest]
        return np.mean([(values[k] - matrix[k] @ weights - offset) ** 2 for k, (weights, offset) in enumerate(fits)])

    assert penalty == pytest.approx(min(candidates, key=error))
    assert axis == pytest.approx(unit(fitted(np.arange(n), penalty)[0][None])[0], abs=1e-6)


def test_a_planted_axis_is_found(rng):
    matrix, direction, values = planted(rng, 400, 16, 0.05)
    axis, _ = ridge_axis(matrix.astype(np.float32), np.arange(200), values[:200])
    assert axis.dtype == np.float32
    assert np.linalg.norm(axis) == pytest.approx(1, abs=1e-5)
    assert axis @ direction > 0.98
    ranked = tasks.ranking_items(axis, matrix, np.arange(200, 400), values[200:])
    assert statistics.spearman(ranked, 50, 0).value > 0.95


def test_values_without_meaning_give_an_axis_at_chance():
    inside = 0
    for seed in range(20):
        rng = np.random.default_rng(seed)
        matrix, values = unit(rng.standard_normal((160, 12))), rng.standard_normal(160)
        axis, _ = ridge_axis(matrix, np.arange(80), values[:80])
        items = tasks.ranking_items(axis, matrix, np.arange(80, 160), values[80:])
        low, high = statistics.spearman(items, 200, 0).interval
        inside += low <= 0 <= high
    assert inside >= 17


def test_a_class_counts_once(rng):
    """Images of a class share its value: the axis is that of the classes' means, however many images each has."""
    means, _, values = planted(rng, 9, 5, 0.1)
    sizes = rng.integers(1, 30, 9)
    labels = np.repeat(np.arange(9), sizes)
    matrix = means[labels] + 0.5 * rng.standard_normal((len(labels), 5))
    centres = np.stack([matrix[labels == k].mean(axis=0) for k in range(9)])
    expected, penalty = ridge_axis(centres, np.arange(9), values)
    rows = rng.permutation(len(labels))
    axis, chosen = ridge_axis(matrix, rows, values[labels[rows]], groups=list(labels[rows]))
    assert chosen == pytest.approx(penalty)
    assert axis == pytest.approx(expected, abs=1e-6)


def test_images_without_a_value_are_left_out(rng):
    matrix, _, values = planted(rng, 30, 5, 0.1)
    expected, _ = ridge_axis(matrix, np.arange(20), values[:20])
    values[20:] = np.nan
    assert ridge_axis(matrix, np.arange(30), values)[0] == pytest.approx(expected)


@pytest.mark.parametrize("values", [[1.0, 2.0, np.nan, np.nan], [5.0, 5.0, 5.0, 5.0], [np.nan] * 4])
def test_an_axis_needs_values_that_differ(values):
    with pytest.raises(PcclipError, match="leave this attribute out"):
        ridge_axis(np.eye(4), np.arange(4), values)


def test_an_axis_needs_vectors_that_differ():
    with pytest.raises(PcclipError, match="image vectors that differ"):
        ridge_axis(np.ones((4, 3)), np.arange(4), [1.0, 2.0, 3.0, 4.0])


def estimate(value: float, *draws: float) -> Estimate:
    return Estimate(value, np.array(draws), 10)


def test_the_share_of_the_ceiling():
    found = share(estimate(0.3, 0.2, 0.4), estimate(0.6, 0.8, 0.5))
    assert found.value == pytest.approx(0.5)
    assert found.draws == pytest.approx([0.25, 0.8])
    assert found.n == 10
    assert share(estimate(0.7, 0.6), estimate(0.9, 0.75), chance=0.5).value == pytest.approx(0.5)
    assert share(estimate(0.7, 0.6), estimate(0.9, 0.75), chance=0.5).draws == pytest.approx([0.4])
    assert share(estimate(0.6, 0.8, 0.7), estimate(0.6, 0.8, 0.7)).interval == (1, 1)


def test_there_is_no_share_of_a_ceiling_at_chance():
    found = share(estimate(0.3, 0.2, 0.2), estimate(0.0, -0.1, 0.4))
    assert np.isnan(found.value)
    assert np.isnan(found.draws[0])
    assert found.draws[1] == pytest.approx(0.5)
