"""The objectives against plain double-precision references."""

import numpy as np
import pytest
import torch

from pcclip.finetune.losses import infonce, mse


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
    assert float(loss) == pytest.approx(np.mean([np.sum((a - b) ** 2) for a, b in zip(w, difference, strict=True)]))
    assert float(accuracy) == pytest.approx(np.mean((w @ unit(difference).T).argmax(axis=1) == np.arange(12)))
    assert float(mse(torch.tensor(w), torch.tensor(2 * w))[0]) == pytest.approx(1)
