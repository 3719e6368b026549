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

    def encode(some):
        calls.append((len(some), torch.is_grad_enabled()))
        return torch.stack(
            [table[torch.tensor(ids)].mean(dim=0).tanh() for ids in np.split(some.ids, some.starts[1:-1])]
        )

    def terms(vectors):
        logits = vectors @ vectors.T / tau
        return {"loss": logits.logsumexp(dim=1).mean() - logits.diagonal().mean(), "largest": logits.max()}

    found = gradcache.backward(encode, tokens, terms, at_once)
    return found, table.grad, tau.grad, calls


@pytest.mark.parametrize("at_once", [1, 4, 10])
def test_gradients_are_those_of_one_pass(tokens, at_once):
    (whole, *expected, once), (found, *gradients, calls) = step(tokens, None), step(tokens, at_once)
    assert once == [(11, True)]
    assert {name: float(value.detach()) for name, value in found.items()} == pytest.approx(
        {name: float(value.detach()) for name, value in whole.items()}
    )
    for one, other in zip(gradients, expected, strict=True):
        assert other.abs().max() > 0
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)
    for enabled in (False, True):
        sizes = [n for n, with_gradients in calls if with_gradients == enabled]
        assert sum(sizes) == 11
        assert max(sizes) == at_once


@pytest.mark.parametrize("at_once", [11, 12])
def test_one_pass_where_all_fit(tokens, at_once):
    assert step(tokens, at_once)[-1] == [(11, True)]
