"""The objectives against plain double-precision references."""

import numpy as np
import pytest
import torch

from pcclip.finetuning import losses
from pcclip.finetuning.losses import OBJECTIVES, attribute, infonce, mse, replay, shared_images, unrelated


def unit(values):
    return values / np.linalg.norm(values, axis=1, keepdims=True)


@pytest.fixture
def pair(rng):
    return unit(rng.normal(size=(12, 7))), unit(rng.normal(size=(12, 7)))


def reference_infonce(w, v, tau):
    logits = w @ v.T / tau
    by_text = [np.log(np.exp(row).sum()) - row[i] for i, row in enumerate(logits)]
    by_image = [np.log(np.exp(column).sum()) - column[i] for i, column in enumerate(logits.T)]
    return (np.mean(by_text) + np.mean(by_image)) / 2, np.mean([row.argmax() == i for i, row in enumerate(logits)])


@pytest.mark.parametrize("tau", [1.0, 0.05])
def test_infonce(pair, tau):
    for temperature in (tau, torch.tensor(tau)):
        loss, accuracy = infonce(*(torch.tensor(x, dtype=torch.float32) for x in pair), temperature)
        expected = reference_infonce(*pair, tau)
        assert float(loss) == pytest.approx(expected[0], rel=1e-5)
        assert float(accuracy) == pytest.approx(expected[1])


def test_infonce_is_symmetric_and_teaches_the_temperature(pair):
    w, v = (torch.tensor(x) for x in pair)
    tau = torch.tensor(0.3, dtype=torch.float64, requires_grad=True)
    loss, _ = infonce(w, v, tau)
    loss.backward()
    assert loss.item() == pytest.approx(infonce(v, w, 0.3)[0].item())
    step = 1e-5
    slope = (reference_infonce(*pair, 0.3 + step)[0] - reference_infonce(*pair, 0.3 - step)[0]) / (2 * step)
    assert float(tau.grad) == pytest.approx(slope, rel=1e-5)


def test_perfect_pairs(pair):
    w = torch.tensor(pair[0])
    loss, accuracy = infonce(w, w, 0.01)
    assert float(accuracy) == 1
    assert float(loss) < 1e-3
    assert float(infonce(w, w.roll(1, 0), 0.01)[1]) == 0
    assert [float(x) for x in mse(w, w)] == [0, 1]
    assert float(mse(w, w.roll(1, 0))[1]) == 0


def test_mse_does_not_normalise_the_difference(pair):
    w, difference = pair[0], 1.7 * pair[1]
    loss, accuracy = mse(torch.tensor(w), torch.tensor(difference))
    assert float(loss) == pytest.approx(np.mean((w - difference) ** 2))
    assert float(loss) == float(torch.nn.MSELoss()(torch.tensor(w), torch.tensor(difference))), "as released"
    assert float(accuracy) == pytest.approx(np.mean((w @ unit(difference).T).argmax(axis=1) == np.arange(12)))
    assert float(mse(torch.tensor(w), torch.tensor(2 * w))[0]) == pytest.approx(1 / w.shape[1])


# pairs that are no negatives of each other


def masked(size, *pairs):
    ignore = torch.zeros(size, size, dtype=torch.bool)
    for i, j in pairs:
        ignore[i, j] = ignore[j, i] = True
    return ignore.__getitem__


def test_ignored_pairs_are_left_out_of_the_sums(pair):
    w, v = pair
    ignore = masked(12, (0, 1), (0, 2), (3, 7), (10, 11))
    logits = np.where(ignore(torch.arange(12)).numpy(), -np.inf, w @ v.T / 0.2)
    by_text = [np.log(np.exp(row).sum()) - row[i] for i, row in enumerate(logits)]
    by_image = [np.log(np.exp(column).sum()) - column[i] for i, column in enumerate(logits.T)]
    loss, accuracy = infonce(torch.tensor(w), torch.tensor(v), 0.2, ignore)
    assert float(loss) == pytest.approx((np.mean(by_text) + np.mean(by_image)) / 2)
    assert float(accuracy) == pytest.approx(np.mean(logits.argmax(axis=1) == np.arange(12)))
    assert float(loss) < float(infonce(torch.tensor(w), torch.tensor(v), 0.2)[0])


def test_every_objective_is_called_alike_and_takes_what_a_text_is_about_unnormalised(pair):
    w, target = torch.tensor(pair[0]), torch.tensor(1.7 * pair[1])
    values = {name: float(objective(w, target, 0.3, None)[0]) for name, objective in OBJECTIVES.items()}
    loss = reference_infonce(*pair, 0.3)[0]
    assert values == pytest.approx({"infonce": loss, "captions": loss, "mse": float(mse(w, target)[0])})


def test_two_groups_that_ignore_each_other_are_two_batches(pair):
    w, v = (torch.tensor(x) for x in pair)
    one, two = slice(0, 4), slice(4, 12)
    ignore = masked(12, *((i, j) for i in range(4) for j in range(4, 12)))
    loss, accuracy = infonce(w, v, 0.3, ignore)
    apart = [infonce(w[part], v[part], 0.3) for part in (one, two)]
    assert float(loss) == pytest.approx(float(4 * apart[0][0] + 8 * apart[1][0]) / 12)
    assert float(accuracy) == pytest.approx(float(4 * apart[0][1] + 8 * apart[1][1]) / 12)


@pytest.mark.parametrize("marked", [None, torch.zeros(12, 12, dtype=torch.bool), torch.eye(12, dtype=torch.bool)])
def test_the_right_text_is_never_ignored(pair, marked):
    w, v = (torch.tensor(x) for x in pair)
    ignore = None if marked is None else marked.__getitem__
    assert float(infonce(w, v, 0.3, ignore)[0]) == pytest.approx(reference_infonce(*pair, 0.3)[0])


def test_a_pair_that_ignores_all_others_has_nothing_to_learn(pair):
    w, v = (torch.tensor(x, requires_grad=True) for x in pair)
    loss, accuracy = infonce(w, v, 0.3, torch.ones(12, 12, dtype=torch.bool).__getitem__)
    loss.backward()
    assert loss.item() == 0
    assert float(accuracy) == 1
    assert not w.grad.any()


@pytest.mark.parametrize("at_once", [1, 5, 12])
@pytest.mark.parametrize("ignore", [None, masked(12, (0, 1), (0, 2), (3, 7), (10, 11))])
def test_a_few_texts_at_once_are_the_same_loss(pair, ignore, at_once, monkeypatch):
    results = []
    for size in (4096, at_once):
        monkeypatch.setattr(losses, "ROWS_AT_ONCE", size)
        w, tau = torch.tensor(pair[0], requires_grad=True), torch.tensor(0.3, dtype=torch.float64, requires_grad=True)
        loss, accuracy = infonce(w, torch.tensor(pair[1]), tau, ignore)
        results.append((loss.detach(), accuracy, *torch.autograd.grad(loss, (w, tau))))
    for value, expected in zip(*results, strict=True):
        torch.testing.assert_close(value, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("swap", [False, True])
def test_some_rows_of_shared_images(rng, swap):
    first, second = (torch.tensor(rng.integers(0, 6, 10)) for _ in range(2))
    rows = torch.tensor([7, 0, 3, 9])
    assert torch.equal(shared_images(first, second, swap, rows), shared_images(first, second, swap)[rows])


@pytest.mark.parametrize("swap", [False, True])
def test_shared_images_by_brute_force(rng, swap):
    first = rng.integers(0, 9, 14)
    second = (first + rng.integers(1, 9, 14)) % 9
    pairs = list(zip(first, second, strict=True)) + (list(zip(second, first, strict=True)) if swap else [])
    expected = np.zeros((len(pairs), len(pairs)), dtype=bool)
    for i, (a, b) in enumerate(pairs):
        for j, (c, d) in enumerate(pairs):
            own_twin = swap and abs(i - j) == 14
            expected[i, j] = bool({a, b} & {c, d}) and not own_twin
    found = shared_images(torch.tensor(first), torch.tensor(second), swap)
    assert found.dtype == torch.bool
    assert (found.numpy() == expected).all()
    assert 14 < expected.sum() < expected.size, "the draw has both"
    assert (found == found.T).all()


# the attribute term


def attribute_loss(more, less, v, target, temperature, antisymmetric=0.0) -> float:
    scores = [(v * texts).sum(dim=1) for texts in (more, less)]
    return float(attribute(*scores, target, temperature, antisymmetric))


@pytest.fixture
def verdicts(rng):
    """Vectors of texts for more, texts for less and image differences, and how probable more is."""
    vectors = [torch.tensor(unit(rng.normal(size=(9, 7)))) for _ in range(3)]
    return *vectors, torch.tensor([1.0, 0.0, 0.5, 0.9, 0.2, 1.0, 0.0, 0.73, 0.31], dtype=torch.float64)


def cross_entropy(logit, p):
    return p * np.log1p(np.exp(-logit)) + (1 - p) * np.log1p(np.exp(logit))


@pytest.mark.parametrize("tau", [1.0, 0.05])
def test_the_attribute_term(verdicts, tau):
    more, less, v, target = (part.numpy() for part in verdicts)
    expected = np.mean(
        [
            cross_entropy(v[i] @ more[i] / tau, p) + cross_entropy(v[i] @ less[i] / tau, 1 - p)
            for i, p in enumerate(target)
        ]
    )
    assert attribute_loss(*verdicts, tau) == pytest.approx(expected, rel=1e-9)
    assert attribute_loss(*(part.float() for part in verdicts), tau) == pytest.approx(expected, rel=1e-4)


def test_the_attribute_term_is_the_same_for_exchanged_images_and_for_exchanged_texts(verdicts):
    more, less, v, target = verdicts
    value = attribute_loss(*verdicts, 0.1)
    assert attribute_loss(more, less, -v, 1 - target, 0.1) == pytest.approx(value)
    assert attribute_loss(less, more, v, 1 - target, 0.1) == pytest.approx(value)
    assert attribute_loss(more, less, v, 1 - target, 0.1) != pytest.approx(value)


def test_the_attribute_term_falls_where_the_axis_agrees(verdicts):
    v, certain = verdicts[2], torch.ones(9, dtype=torch.float64)
    right, none, wrong = (attribute_loss(s * v, -s * v, v, certain, 0.1) for s in (1.0, 0.0, -1.0))
    assert right < none < wrong
    assert none == pytest.approx(2 * np.log(2))
    assert right == pytest.approx(2 * np.log1p(np.exp(-10)))


@pytest.mark.parametrize("p", [1.0, 0.0, 0.3])
def test_the_antisymmetric_weight_by_hand(p):
    """f(more) scores 0.6 and f(less) 0.8, so their difference scores -0.2."""
    more, less, target = (torch.tensor([value], dtype=torch.float64) for value in (0.6, 0.8, p))
    each = cross_entropy(0.6 / 0.5, p) + cross_entropy(0.8 / 0.5, 1 - p)
    for weight in (0.0, 2.5):
        value = float(attribute(more, less, target, 0.5, weight))
        assert value == pytest.approx(each + weight * cross_entropy(-0.2 / 0.5, p))


def test_what_both_texts_share_is_no_help_to_the_antisymmetric_part(verdicts, rng):
    """A common part raises f(more) and lowers f(less) at once; of their difference it leaves nothing."""
    more, less, v, target = verdicts
    shared = torch.tensor(unit(rng.normal(size=(9, 7))))
    moved = [attribute_loss(more + shared, less + shared, v, target, 0.1, weight) for weight in (0.0, 3.0)]
    plain = [attribute_loss(more, less, v, target, 0.1, weight) for weight in (0.0, 3.0)]
    assert moved[0] != pytest.approx(plain[0])
    assert moved[1] - moved[0] == pytest.approx(plain[1] - plain[0])


# replay


def test_replay_is_the_mean_cosine_distance(pair):
    now, base = (torch.tensor(x) for x in pair)
    assert float(replay(now, base)) == pytest.approx(np.mean([1 - a @ b for a, b in zip(*pair, strict=True)]))
    assert float(replay(base, base)) == pytest.approx(0, abs=1e-12)
    assert float(replay(-base, base)) == pytest.approx(2)


def test_kept_compares_how_questions_score_image_differences():
    more, less = torch.tensor([[1.0, 0.0], [0.0, 1.0]]), torch.tensor([[0.0, 1.0], [1.0, 0.0]])
    directions = torch.tensor([[3.0, -3.0], [-1.0, 1.0]])
    v = torch.tensor([[1.0, 0.0], [0.6, -0.8]])
    assert float(unrelated(torch.cat([more, less]), directions, v)) == pytest.approx(0, abs=1e-6)
    assert float(unrelated(torch.cat([less, more]), directions, v)) == pytest.approx(2)
    blind = torch.tensor(
        [[1.0, -99.0], [-1.0, 5.0]]
    )  # images differ in the first number alone, so the other says nothing
    assert float(unrelated(torch.cat([more, less]), blind, v[:1])) == pytest.approx(0, abs=1e-6)
