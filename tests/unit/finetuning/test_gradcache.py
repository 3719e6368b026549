"""GradCache on a model small enough to see through: gradients, what is returned, and how often texts are encoded."""

import numpy as np
import pytest
import torch

from pcclip.encoders.tokens import Tokens
from pcclip.finetuning import gradcache


@pytest.fixture
def tokens(rng):
    return Tokens.of([rng.integers(0, 9, n).tolist() for n in rng.integers(1, 6, 11)], 10)


def step(tokens, at_once):
    """A contrastive loss with a learned temperature over mean embeddings, in double precision."""
    table = torch.randn(9, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64, requires_grad=True)
    tau, calls = torch.tensor(0.5, dtype=torch.float64, requires_grad=True), []

    def encode(rows):
        calls.append((len(rows), torch.is_grad_enabled()))
        texts = tokens[rows]
        return torch.stack(
            [table[torch.tensor(ids)].mean(dim=0).tanh() for ids in np.split(texts.ids, texts.starts[1:-1])]
        )

    def losses(vectors):
        logits = vectors @ vectors.T / tau
        loss = logits.logsumexp(dim=1).mean() - logits.diagonal().mean()
        loss.backward()
        return {"loss": loss, "largest": logits.max()}

    order = np.argsort(tokens.lengths, kind="stable")
    values = gradcache.backward([gradcache.Encoding(encode, gradcache.parts_of(order, at_once))], losses)
    return {name: float(value.detach()) for name, value in values.items()}, (table.grad, tau.grad), calls


@pytest.mark.parametrize("at_once", [1, 4, 10])
def test_gradients_are_those_of_one_pass(tokens, at_once):
    (values, gradients, calls), (expected_values, expected, _) = step(tokens, at_once), step(tokens, None)
    assert values == pytest.approx(expected_values)
    for gradient, other in zip(gradients, expected, strict=True):
        assert other.abs().max() > 0
        torch.testing.assert_close(gradient, other, rtol=1e-12, atol=1e-12)
    for enabled in (False, True):
        sizes = [n for n, with_gradients in calls if with_gradients == enabled]
        assert sum(sizes) == 11
        assert max(sizes) == at_once


@pytest.mark.parametrize("at_once", [None, 11, 12])
def test_one_pass_where_all_fit(tokens, at_once):
    assert step(tokens, at_once)[-1] == [(11, True)]
