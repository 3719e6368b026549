"""The posterior against a reference in all dimensions, honest uncertainty, and the pair that is asked next."""

import numpy as np
import pytest
from scipy.sparse import csr_array
from scipy.special import expit

from pcclip.errors import PcclipError
from pcclip.ranking.posterior import LEARN, WORDS, Ballot, Parts, learnt_order, next_pair, rank_interval
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


class Axis:
    """The part of the order that is linear in the vectors, without parts of the photos' own."""

    def __init__(self, differences, outcomes, text, matrix, strength=1.0):
        nothing = Ballot(np.empty((0, 2), np.int64), np.empty(0), set())
        votes = differences * (2 * outcomes - 1)[:, None]  # as examples, each a vote for the first
        self.order = learnt_order(matrix, nothing, votes, text, Parts(strength, 1.0, 0.0))
        self.mean, self.width = self.order.mean, self.order.width

    @property
    def direction(self):
        return unit(self.mean[None])[0]

    def deviations(self, rows):
        return self.order.spread(rows, csr_array((len(rows), len(self.order.votes))), 0)


def chances(found, differences) -> np.ndarray:
    return expit(differences @ found.mean / np.sqrt(1 + np.pi / 8 * found.deviations(differences) ** 2))


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
    found = Axis(x, y, text if with_text else None, matrix)
    start = Axis(*(part[:0] for part in (x, y)), text, matrix).mean * with_text
    mode, covariance = full_width(x, y, start, found.width)
    np.testing.assert_allclose(found.mean, mode, atol=1e-6)
    np.testing.assert_allclose(matrix @ found.mean, matrix @ mode, atol=1e-6)
    np.testing.assert_allclose(
        found.deviations(matrix), np.sqrt(np.einsum("nd,de,ne->n", matrix, covariance, matrix)), atol=1e-6
    )
    assert np.linalg.norm(found.direction) == pytest.approx(1)


def test_strength_and_width_are_in_logits_of_a_typical_pair():
    matrix, text = photos(400, 16, 0), axis(16, 1)
    rng = np.random.default_rng(2)
    pairs = some_pairs(400, 4000, rng)
    gaps = matrix[pairs[:, 0]] - matrix[pairs[:, 1]]
    found = Axis(np.empty((0, 16)), np.empty(0), text, matrix, 2.0)
    assert np.sqrt(((gaps @ found.mean) ** 2).mean()) == pytest.approx(2.0, rel=0.05)
    assert np.sqrt((found.deviations(gaps) ** 2).mean()) == pytest.approx(1.0, rel=0.05)


def test_without_votes_the_order_is_the_texts():
    matrix, text = photos(30, 8, 0), axis(8, 1)
    found = Axis(*NONE, text, matrix)
    np.testing.assert_allclose(found.direction, text, atol=1e-6)
    assert list(np.argsort(matrix @ found.mean)) == list(np.argsort(matrix @ text))


def test_votes_that_cancel_out_leave_no_axis():
    x = photos(3, 8, 0)
    ring = [(0, 1), (1, 2), (2, 0)]
    for pairs, outcomes in ((ring, [1.0] * 3), (ring[:1] * 2, [0.0, 1.0]), (ring[:2], [0.5] * 2), ([], [])):
        with pytest.raises(PcclipError, match="they are ties, or cancel out, and there are no words"):
            _ = learnt_order(x, voted(pairs, outcomes), x[:0], None).scores
        assert learnt_order(x, voted(pairs, outcomes), x[:0], axis(8, 1)).length > 0.1


def test_a_vote_moves_its_photos_and_swapping_it_is_the_same():
    matrix, text = photos(30, 8, 0), axis(8, 1)
    before = matrix @ text
    one, two = np.argsort(before)[[5, 25]]
    gap = (matrix[one] - matrix[two])[None]
    found = Axis(gap, np.array([1.0]), text, matrix)
    assert found.direction @ gap[0] > text @ gap[0]
    np.testing.assert_allclose(found.mean, Axis(-gap, np.array([0.0]), text, matrix).mean, atol=1e-9)


def test_many_votes_overrule_a_wrong_text():
    rng, matrix, truth = np.random.default_rng(0), photos(60, 8, 0), axis(8, 1)
    x, y = answered(matrix, truth, some_pairs(60, 150, rng), rng)
    assert Axis(x, y, -truth, matrix).direction @ truth > 0.9


def test_deviations_shrink_with_votes():
    rng, matrix, truth = np.random.default_rng(0), photos(60, 8, 0), axis(8, 1)
    x, y = answered(matrix, truth, some_pairs(60, 80, rng), rng)
    means = [Axis(x[:m], y[:m], truth, matrix).deviations(matrix).mean() for m in (0, 5, 20, 80)]
    assert (np.diff(means) < 0).all()


def test_contradictory_votes_say_less_than_agreeing_ones():
    """Of twenty votes on a pair, half for each photo: the pair is known to be close, and no other pair is known."""
    matrix = photos(30, 8, 0)
    gaps = np.repeat((matrix[0] - matrix[1])[None], 20, axis=0)
    torn = Axis(gaps, np.tile([1.0, 0.0], 10), axis(8, 1), matrix)
    agreed = Axis(gaps, np.ones(20), axis(8, 1), matrix)
    assert abs(gaps[0] @ torn.mean) < 0.3
    assert chances(torn, gaps[:1])[0] == pytest.approx(0.5, abs=0.1)
    assert chances(agreed, gaps[:1])[0] > 0.85
    across = matrix[2:] - matrix[2:].mean(axis=0)
    across -= np.outer(across @ gaps[0], gaps[0]) / (gaps[0] @ gaps[0])
    assert torn.deviations(across) == pytest.approx(Axis(*NONE, axis(8, 1), matrix).deviations(across))


def test_stated_chances_come_true():
    """Simulated voters with the model's own spread of axes: among pairs given 80%, about 80% are answered so."""
    rng, stated, happened = np.random.default_rng(0), [], []
    matrix, text = photos(80, 16, 0), axis(16, 1)
    prior = Axis(np.empty((0, 16)), np.empty(0), text, matrix)
    for _ in range(40):
        truth = prior.mean + prior.width * rng.normal(size=16)
        x, y = answered(matrix, truth, some_pairs(80, 25, rng), rng, sharpness=1.0)
        new, answers = answered(matrix, truth, some_pairs(80, 100, rng), rng, sharpness=1.0)
        stated.append(chances(Axis(x, y, text, matrix), new))
        happened.append(answers)
    stated, happened = np.concatenate(stated), np.concatenate(happened)
    for low in (0.1, 0.3, 0.5, 0.7):
        here = (stated >= low) & (stated < low + 0.2)
        assert happened[here].mean() == pytest.approx(stated[here].mean(), abs=0.04)


def test_true_scores_lie_within_the_stated_deviations():
    rng, within = np.random.default_rng(1), []
    matrix, text = photos(80, 16, 0), axis(16, 1)
    gaps = matrix - matrix.mean(axis=0)
    prior = Axis(np.empty((0, 16)), np.empty(0), text, matrix)
    for _ in range(40):
        truth = prior.mean + prior.width * rng.normal(size=16)
        x, y = answered(matrix, truth, some_pairs(80, 25, rng), rng, sharpness=1.0)
        found = Axis(x, y, text, matrix)
        within.append(np.abs(gaps @ found.mean - gaps @ truth) < found.deviations(gaps))
    assert np.mean(within) == pytest.approx(0.683, abs=0.06)


def test_strength_says_how_much_the_text_counts():
    rng, matrix, truth = np.random.default_rng(0), photos(60, 8, 0), axis(8, 1)
    x, y = answered(matrix, truth, some_pairs(60, 10, rng), rng)
    text = axis(8, 2)
    held = [Axis(x, y, text, matrix, strength=strength).direction @ text for strength in (0.25, 1.0, 4.0)]
    assert held[0] < held[1] < held[2]


def test_deviations_of_many_rows_are_those_of_each(monkeypatch):
    matrix = photos(50, 8, 0)
    found = Axis(matrix[:3] - matrix[3:6], np.ones(3), axis(8, 1), matrix)
    whole = found.deviations(matrix)
    monkeypatch.setattr("pcclip.ranking.posterior.ROWS_AT_ONCE", 7)
    np.testing.assert_allclose(found.deviations(matrix), whole)


# ---- photos with a part of their own ----------------------------------------------------------------------------------


def voted(pairs, outcomes) -> Ballot:
    pairs = np.array(pairs, dtype=np.int64).reshape(-1, 2)
    asked = {(min(pair), max(pair)) for pair in pairs.tolist()}
    return Ballot(pairs, np.array(outcomes, dtype=float), asked)


def test_the_order_is_that_of_a_gaussian_process_over_photos():
    """Laplace's approximation in the space of the photos' scores, with the kernel of both parts written out."""
    matrix, text = photos(12, 6, 1), axis(6, 2)
    pairs, outcomes = some_pairs(12, 15, np.random.default_rng(3)), np.array([1.0, 0.0, 0.5] * 5)
    order = learnt_order(matrix, voted(pairs, outcomes), matrix[:0], text, LEARN)
    prior = learnt_order(matrix, voted([], []), matrix[:0], text)
    wide = matrix.astype(float)
    kernel = prior.width**2 * wide @ wide.T + np.eye(12) / 2
    design = np.eye(12)[pairs[:, 0]] - np.eye(12)[pairs[:, 1]]
    start = scores = wide @ prior.mean
    for _ in range(200):
        chance = expit(design @ scores)
        hessian = np.linalg.inv(kernel) + design.T @ np.diag(chance * (1 - chance)) @ design
        gradient = design.T @ (outcomes - chance) - np.linalg.solve(kernel, scores - start)
        scores = scores + 0.5 * np.linalg.solve(hessian, gradient)
    covariance = np.linalg.inv(hessian)
    np.testing.assert_allclose(order.logits, scores, atol=1e-4)
    new = some_pairs(12, 30, np.random.default_rng(4))
    means, deviations = order.gaps(new)
    np.testing.assert_allclose(means, scores[new[:, 0]] - scores[new[:, 1]], atol=1e-4)
    gaps = np.eye(12)[new[:, 0]] - np.eye(12)[new[:, 1]]
    np.testing.assert_allclose(deviations, np.sqrt(np.einsum("md,de,me->m", gaps, covariance, gaps)), atol=1e-4)


def test_votes_on_photos_of_one_vector_tell_them_apart():
    """Two photos that no vector tells apart: only a part of their own can follow the votes."""
    matrix, text = photos(20, 8, 0), axis(8, 1)
    matrix[1] = matrix[0]
    order = learnt_order(matrix, voted([(1, 0)] * 4, np.ones(4)), matrix[:0], text)
    assert order.scores[1] > order.scores[0]
    assert order.chances(np.array([(1, 0)]))[0] > 0.7
    assert order.deviations[0] < order.deviations[2]


def test_without_votes_the_order_of_photos_is_the_words():
    matrix, text = photos(30, 8, 0), axis(8, 1)
    order = learnt_order(matrix, voted([], []), matrix[:0], text)
    np.testing.assert_allclose(order.scores, matrix @ text, atol=1e-6)


# ---- which parts, and what they are worth -------------------------------------------------------------------------------


def test_the_marginal_likelihood_is_the_product_of_the_chances():
    """By the chain rule; Laplace's approximation errs by little for few votes."""
    matrix, text = photos(12, 6, 1), axis(6, 2)
    pairs, outcomes = some_pairs(12, 6, np.random.default_rng(3)), np.array([1.0, 0, 1, 1, 0, 1])
    foretold = 0.0
    for k in range(6):
        order = learnt_order(matrix, voted(pairs[:k], outcomes[:k]), matrix[:0], text, LEARN)
        chance = order.chances(pairs[k : k + 1])[0]
        foretold += np.log(chance if outcomes[k] else 1 - chance)
    whole = learnt_order(matrix, voted(pairs, outcomes), matrix[:0], text, LEARN)
    assert whole.evidence == pytest.approx(foretold, abs=0.15)
    assert learnt_order(matrix, voted([], []), matrix[:0], text).evidence == 0


def test_good_words_stay_and_others_learn():
    """A voter who errs in one answer of ten: where the words are right, votes leave them so, and where not, they teach."""
    matrix, text = photos(60, 16, 0), axis(16, 1)
    for truth, parts in ((text, WORDS), (-text, LEARN)):
        gained = []
        for seed in range(6):
            rng = np.random.default_rng(seed)
            pairs = some_pairs(60, 25, rng)
            _, outcomes = answered(matrix, truth, pairs, rng)
            outcomes = np.abs(outcomes - (rng.random(25) < 0.1))
            orders = [learnt_order(matrix, voted(pairs, outcomes), matrix[:0], text, fixed) for fixed in (None, LEARN)]
            gained.append([np.corrcoef(order.scores, matrix @ truth)[0, 1] for order in orders])
            assert orders[0].parts == parts
            assert ("say what the words say" in orders[0].unhelpful) == (parts == WORDS)
        chosen, learning = np.mean(gained, axis=0)
        assert chosen > learning + 0.02 if parts == WORDS else chosen == learning > -0.5


def test_answers_at_random_help_nobody():
    """Most voters who answer at random are told so; after four answers it cannot be known."""
    matrix, said = photos(60, 16, 0), []
    for seed in range(20):
        rng = np.random.default_rng(seed)
        pairs = some_pairs(60, 30, rng)
        order = learnt_order(matrix, voted(pairs, rng.integers(2, size=30)), matrix[:0], axis(16, 1))
        said.append(order.unhelpful.startswith("So far a coin foretells these answers as well"))
        assert learnt_order(matrix, voted(pairs[:4], [1.0, 0, 1, 0]), matrix[:0], axis(16, 1)).unhelpful == ""
    assert np.mean(said) > 0.6


def test_true_ranks_lie_in_their_interval():
    """Voters with the model's own spread of scores: 95% of the true ranks, to within a few per cent."""
    within, matrix, text = [], photos(80, 16, 0), axis(16, 1)
    prior = learnt_order(matrix, voted([], []), matrix[:0], text, LEARN)
    for seed in range(30):
        rng = np.random.default_rng(seed)
        truth = matrix @ (prior.mean + prior.width * rng.normal(size=16)) + prior.own * rng.normal(size=80)
        pairs = some_pairs(80, 40, rng)
        outcomes = (rng.random(40) < expit(truth[pairs[:, 0]] - truth[pairs[:, 1]])).astype(float)
        order = learnt_order(matrix, voted(pairs, outcomes), matrix[:0], text, LEARN)
        best, worst = rank_interval(order.scores, order.deviations)
        ranks = 1 + np.argsort(np.argsort(-truth))
        within.append((best <= ranks) & (ranks <= worst))
        places = 1 + np.argsort(np.argsort(-order.scores))
        assert ((best >= 1) & (best <= places) & (places <= worst) & (worst <= 80)).all()
    assert np.mean(within) == pytest.approx(0.95, abs=0.03)


# ---- the next pair ---------------------------------------------------------------------------------------------------


def learned(matrix, text, truth, rng, informed) -> float:
    """Agreement with the truth after fifteen votes on informative or on random pairs."""
    pairs, outcomes = [], []
    for _ in range(15):
        order = learnt_order(matrix, voted(pairs, outcomes), matrix[:0], text)
        pairs.append(next_pair(order if informed else None, len(matrix), voted(pairs, outcomes).asked_pairs, rng, 200))
        first, second = pairs[-1]
        outcomes.append(float((matrix[first] - matrix[second]) @ truth > 0))
    return np.corrcoef(learnt_order(matrix, voted(pairs, outcomes), matrix[:0], text).scores, matrix @ truth)[0, 1]


def test_informed_pairs_teach_more_than_random_ones():
    text, gained = axis(8, 1), []
    for seed in range(5):
        truth = unit((text + 0.7 * axis(8, seed + 10))[None])[0]
        both = [learned(photos(80, 8, seed), text, truth, np.random.default_rng(seed), k) for k in (True, False)]
        gained.append(both[0] - both[1])
    assert np.mean(gained) > 0.01


def test_no_pair_is_asked_twice_and_then_it_says_so():
    matrix, asked, rng = photos(5, 8, 0), {(0, 1)}, np.random.default_rng(0)
    order = learnt_order(matrix, voted([], []), matrix[:0], axis(8, 1))
    for _ in range(9):
        pair = next_pair(order, 5, asked, rng)
        assert pair[0] != pair[1]
        assert (min(pair), max(pair)) not in asked
        asked.add((min(pair), max(pair)))
    with pytest.raises(PcclipError, match="every pair of the 5 photos was asked"):
        next_pair(order, 5, asked, rng)


def test_the_sides_are_drawn():
    matrix, rng = photos(40, 8, 0), np.random.default_rng(0)
    for order in (None, learnt_order(matrix, voted([], []), matrix[:0], axis(8, 1))):
        pairs = [next_pair(order, 40, set(), rng) for _ in range(20)]
        assert {one < two for one, two in pairs} == {True, False}


def test_what_is_known_is_not_asked():
    """Two tight groups: pairs across them have been decided over and over, so a pair within one is asked."""
    rng = np.random.default_rng(0)
    matrix = unit(np.repeat(np.eye(8)[:2], 5, axis=0) + 0.2 * rng.normal(size=(10, 8))).astype(np.float32)
    across = [(one, two) for one in range(5) for two in range(5, 10)] * 3
    order = learnt_order(matrix, voted(across, np.ones(len(across))), matrix[:0], None)
    one, two = next_pair(order, 10, set(), rng)
    assert (one < 5) == (two < 5)
