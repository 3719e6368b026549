"""The posterior against a reference in all dimensions, honest uncertainty, and the pair that is asked next."""

import numpy as np
import pytest
from scipy.special import expit

from pcclip.errors import PcclipError
from pcclip.ranking.posterior import next_pair, vote_axis
from pcclip.stats.vectors import unit

NONE = np.empty((0, 8), np.float32), np.empty(0)


def photos(n: int, width: int, seed: int) -> np.ndarray:
    return unit(np.random.default_rng(seed).normal(size=(n, width))).astype(np.float32)


def axis(width: int, seed: int) -> np.ndarray:
    return photos(1, width, seed)[0]


def answered(matrix, truth, pairs, rng, sharpness=np.inf):
    """Differences and outcomes of a voter who answers by matrix @ truth, more at random the lower the sharpness."""
    differences = matrix[pairs[:, 0]] - matrix[pairs[:, 1]]
    chance = (differences @ truth > 0) if np.isinf(sharpness) else expit(sharpness * differences @ truth)
    return differences, (rng.random(len(pairs)) < chance).astype(float)


def some_pairs(n: int, m: int, rng) -> np.ndarray:
    first = rng.integers(n, size=m)
    return np.stack([first, (first + rng.integers(1, n, size=m)) % n], axis=1)


# ---- the axis --------------------------------------------------------------------------------------------------------


def full_width(x, y, mean, width):
    """Laplace's approximation by Newton's method in all dimensions, as in any textbook: mode, covariance, evidence."""
    w, d = mean.copy(), x.shape[1]
    for _ in range(200):
        chance = expit(x @ w)
        hessian = np.eye(d) / width**2 + x.T @ np.diag(chance * (1 - chance)) @ x
        w = w + 0.5 * np.linalg.solve(hessian, x.T @ (y - chance) - (w - mean) / width**2)
    return w, np.linalg.inv(hessian)


@pytest.mark.parametrize("m", [1, 5, 30])  # fewer and more votes than dimensions
@pytest.mark.parametrize("with_text", [True, False])
def test_the_posterior_is_that_of_the_full_width(m, with_text):
    rng = np.random.default_rng(m)
    matrix, text = photos(20, 12, 1).astype(np.float64), axis(12, 2).astype(np.float64)
    x, y = answered(matrix, axis(12, 3), some_pairs(20, m, rng), rng)
    y[0] = 1.0
    found = vote_axis(x, y, text if with_text else None, matrix)
    mode, covariance = full_width(x, y, found.strength * text * with_text, found.width)
    np.testing.assert_allclose(found.mean, mode, atol=1e-6)
    np.testing.assert_allclose(found.scores(matrix), matrix @ mode, atol=1e-6)
    np.testing.assert_allclose(
        found.deviations(matrix), np.sqrt(np.einsum("nd,de,ne->n", matrix, covariance, matrix)), atol=1e-6
    )
    assert np.linalg.norm(found.direction) == pytest.approx(1)


def test_strength_and_width_are_in_logits_of_a_typical_pair():
    matrix, text = photos(400, 16, 0), axis(16, 1)
    rng = np.random.default_rng(2)
    pairs = some_pairs(400, 4000, rng)
    gaps = matrix[pairs[:, 0]] - matrix[pairs[:, 1]]
    found = vote_axis(np.empty((0, 16)), np.empty(0), text, matrix, 2.0)
    assert np.sqrt((found.scores(gaps) ** 2).mean()) == pytest.approx(2.0, rel=0.05)
    assert np.sqrt((found.deviations(gaps) ** 2).mean()) == pytest.approx(1.0, rel=0.05)


def test_without_votes_the_order_is_the_texts():
    matrix, text = photos(30, 8, 0), axis(8, 1)
    found = vote_axis(*NONE, text, matrix)
    np.testing.assert_allclose(found.direction, text, atol=1e-6)
    assert list(np.argsort(found.scores(matrix))) == list(np.argsort(matrix @ text))


@pytest.mark.parametrize("outcomes", [[], [0.5, 0.5]])
def test_neither_text_nor_a_vote_that_prefers(outcomes):
    with pytest.raises(PcclipError, match="no text axis, and no vote that prefers a photo"):
        vote_axis(photos(len(outcomes), 8, 0), np.array(outcomes))


def test_votes_that_cancel_out_leave_no_axis():
    x = photos(3, 8, 0)
    ring = np.stack([x[0] - x[1], x[1] - x[2], x[2] - x[0]])
    for differences, outcomes in ((ring, np.ones(3)), (np.stack([ring[0]] * 2), np.array([0.0, 1.0]))):
        with pytest.raises(PcclipError, match="they cancel out and there is no text axis"):
            _ = vote_axis(differences, outcomes, None, x).length
        assert vote_axis(differences, outcomes, axis(8, 1), x).length > 0.1
    found = vote_axis(ring[:1], np.ones(1), None, x)
    assert found.length == pytest.approx(np.linalg.norm(found.mean))


def test_shapes_that_do_not_fit():
    with pytest.raises(PcclipError, match=r"differences \(3, 8\), outcomes \(2,\)"):
        vote_axis(photos(3, 8, 0), np.ones(2))
    with pytest.raises(PcclipError, match="do not fit"):
        vote_axis(photos(3, 8, 0), np.ones(3), axis(9, 0))


def test_a_vote_moves_its_photos_and_swapping_it_is_the_same():
    matrix, text = photos(30, 8, 0), axis(8, 1)
    before = matrix @ text
    one, two = np.argsort(before)[[5, 25]]
    gap = (matrix[one] - matrix[two])[None]
    found = vote_axis(gap, np.array([1.0]), text, matrix)
    assert found.direction @ gap[0] > text @ gap[0]
    np.testing.assert_allclose(found.mean, vote_axis(-gap, np.array([0.0]), text, matrix).mean, atol=1e-9)


def test_many_votes_overrule_a_wrong_text():
    rng, matrix, truth = np.random.default_rng(0), photos(60, 8, 0), axis(8, 1)
    x, y = answered(matrix, truth, some_pairs(60, 150, rng), rng)
    assert vote_axis(x, y, -truth, matrix).direction @ truth > 0.9


def test_deviations_shrink_with_votes():
    rng, matrix, truth = np.random.default_rng(0), photos(60, 8, 0), axis(8, 1)
    x, y = answered(matrix, truth, some_pairs(60, 80, rng), rng)
    means = [vote_axis(x[:m], y[:m], truth, matrix).deviations(matrix).mean() for m in (0, 5, 20, 80)]
    assert (np.diff(means) < 0).all()


def test_contradictory_votes_say_less_than_agreeing_ones():
    """Of twenty votes on a pair, half for each photo: the pair is known to be close, and no other pair is known."""
    matrix = photos(30, 8, 0)
    gaps = np.repeat((matrix[0] - matrix[1])[None], 20, axis=0)
    torn = vote_axis(gaps, np.tile([1.0, 0.0], 10), axis(8, 1), matrix)
    agreed = vote_axis(gaps, np.ones(20), axis(8, 1), matrix)
    assert abs(torn.scores(gaps[:1])[0]) < 0.3
    assert torn.chances(gaps[:1])[0] == pytest.approx(0.5, abs=0.1)
    assert agreed.chances(gaps[:1])[0] > 0.85
    across = matrix[2:] - matrix[2:].mean(axis=0)
    across -= np.outer(across @ gaps[0], gaps[0]) / (gaps[0] @ gaps[0])
    assert torn.deviations(across) == pytest.approx(vote_axis(*NONE, axis(8, 1), matrix).deviations(across))


def test_stated_chances_come_true():
    """Simulated voters with the model's own spread of axes: among pairs given 80%, about 80% are answered so."""
    rng, stated, happened = np.random.default_rng(0), [], []
    matrix, text = photos(80, 16, 0), axis(16, 1)
    prior = vote_axis(np.empty((0, 16)), np.empty(0), text, matrix)
    for _ in range(40):
        truth = prior.mean + prior.width * rng.normal(size=16)
        x, y = answered(matrix, truth, some_pairs(80, 25, rng), rng, sharpness=1.0)
        new, answers = answered(matrix, truth, some_pairs(80, 100, rng), rng, sharpness=1.0)
        stated.append(vote_axis(x, y, text, matrix).chances(new))
        happened.append(answers)
    stated, happened = np.concatenate(stated), np.concatenate(happened)
    for low in (0.1, 0.3, 0.5, 0.7):
        here = (stated >= low) & (stated < low + 0.2)
        assert happened[here].mean() == pytest.approx(stated[here].mean(), abs=0.04)


def test_true_scores_lie_within_the_stated_deviations():
    rng, within = np.random.default_rng(1), []
    matrix, text = photos(80, 16, 0), axis(16, 1)
    gaps = matrix - matrix.mean(axis=0)
    prior = vote_axis(np.empty((0, 16)), np.empty(0), text, matrix)
    for _ in range(40):
        truth = prior.mean + prior.width * rng.normal(size=16)
        x, y = answered(matrix, truth, some_pairs(80, 25, rng), rng, sharpness=1.0)
        found = vote_axis(x, y, text, matrix)
        within.append(np.abs(found.scores(gaps) - gaps @ truth) < found.deviations(gaps))
    assert np.mean(within) == pytest.approx(0.683, abs=0.06)


def test_strength_says_how_much_the_text_counts():
    rng, matrix, truth = np.random.default_rng(0), photos(60, 8, 0), axis(8, 1)
    x, y = answered(matrix, truth, some_pairs(60, 10, rng), rng)
    text = axis(8, 2)
    held = [vote_axis(x, y, text, matrix, strength=strength).direction @ text for strength in (0.25, 1, 4)]
    assert held[0] < held[1] < held[2]


def test_deviations_of_many_rows_are_those_of_each(monkeypatch):
    matrix = photos(50, 8, 0)
    found = vote_axis(matrix[:3] - matrix[3:6], np.ones(3), axis(8, 1), matrix)
    whole = found.deviations(matrix)
    monkeypatch.setattr("pcclip.ranking.posterior.ROWS_AT_ONCE", 7)
    np.testing.assert_allclose(found.deviations(matrix), whole)


# ---- the next pair ---------------------------------------------------------------------------------------------------


def learned(matrix, text, truth, rng, m, informed):
    asked, x, y = set(), np.empty((0, matrix.shape[1]), np.float32), []
    for _ in range(m):
        posterior = vote_axis(x, np.array(y), text, matrix) if informed else None
        one, two = next_pair(posterior, matrix, asked, rng, candidates=200)
        asked.add((min(one, two), max(one, two)))
        x = np.concatenate([x, (matrix[one] - matrix[two])[None]])
        y.append(float((matrix[one] - matrix[two]) @ truth > 0))
    return vote_axis(x, np.array(y), text, matrix).direction @ truth


def test_informed_pairs_teach_more_than_random_ones():
    text = axis(8, 1)
    gained = []
    for seed in range(6):
        truth = unit((text + 0.7 * axis(8, seed + 10))[None])[0]
        both = [learned(photos(80, 8, seed), text, truth, np.random.default_rng(seed), 15, k) for k in (True, False)]
        gained.append(both[0] - both[1])
    assert np.mean(gained) > 0.02
    assert np.mean(np.array(gained) > 0) > 0.6


def test_no_pair_is_asked_twice_and_then_it_says_so():
    matrix, asked, rng = photos(5, 8, 0), {(0, 1)}, np.random.default_rng(0)
    posterior = vote_axis(*NONE, axis(8, 1), matrix)
    for _ in range(9):
        one, two = next_pair(posterior, matrix, asked, rng)
        assert one != two
        assert (min(one, two), max(one, two)) not in asked
        asked.add((min(one, two), max(one, two)))
    with pytest.raises(PcclipError, match="every pair of the 5 photos was asked"):
        next_pair(posterior, matrix, asked, rng)


def test_the_sides_are_drawn():
    matrix, rng = photos(40, 8, 0), np.random.default_rng(0)
    for prior in (None, vote_axis(*NONE, axis(8, 1), matrix)):
        pairs = [next_pair(prior, matrix, set(), rng) for _ in range(20)]
        assert {one < two for one, two in pairs} == {True, False}


def test_what_is_known_is_not_asked():
    """Two tight groups: a pair across them has been decided over and over, so a pair within one is asked."""
    rng = np.random.default_rng(0)
    matrix = unit(np.repeat(np.eye(8)[:2], 5, axis=0) + 0.2 * rng.normal(size=(10, 8))).astype(np.float32)
    gaps = np.repeat((matrix[:5].mean(axis=0) - matrix[5:].mean(axis=0))[None], 60, axis=0)
    posterior = vote_axis(gaps, np.ones(60), None, matrix)
    one, two = next_pair(posterior, matrix, set(), rng)
    assert (one < 5) == (two < 5)
