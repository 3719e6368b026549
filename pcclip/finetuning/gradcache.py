"""Exact gradients of a contrastive step whose batch does not fit in memory (GradCache: Gao et al. 2021, algorithm 1).

Every input is encoded twice: once without gradients, to get all vectors and the loss's gradient with respect to them,
and once more, a few inputs at a time, to carry that gradient into the weights. Memory is that of the few inputs.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor


class Encoding(NamedTuple):
    """How one tower encodes a batch: `encode` turns row numbers into vectors, `parts` are the rows it takes at once."""

    encode: Callable[[Int[np.ndarray, " m"]], Float[Tensor, "m d"]]
    parts: list[Int[np.ndarray, " m"]]


def parts_of(order: Int[np.ndarray, " n"], at_once: int | None) -> list[Int[np.ndarray, " m"]]:
    """`order` cut into parts of at most `at_once` rows; None makes one part."""
    size = at_once or len(order)
    return np.split(order, range(size, len(order), size))


def backward(encodings: Sequence[Encoding], losses: Callable[..., dict[str, Tensor]]) -> dict[str, Tensor]:
    """Add the gradients of a loss over all vectors of the batch to every tower's weights.

    Args:
        encodings: one for each tower, encoding every row alike each time (no dropout). A tower with one part runs
            once, with more parts twice.
        losses: given one leaf tensor of vectors for each tower, runs its own backward pass into them.

    Returns:
        What `losses` returned.
    """
    vectors = []
    for encode, parts in encodings:
        with torch.set_grad_enabled(len(parts) == 1):
            encoded = torch.cat([encode(part) for part in parts])
        back = torch.from_numpy(np.argsort(np.concatenate(parts)))
        vectors.append(encoded[back.to(encoded.device)])
    leaves = [value.detach().requires_grad_() for value in vectors]
    values = losses(*leaves)
    for (encode, parts), value, leaf in zip(encodings, vectors, leaves, strict=True):
        if len(parts) == 1:
            value.backward(leaf.grad)
            continue
        gradient = leaf.grad
        assert gradient is not None, "losses must run its backward pass into every leaf"
        for part in parts:
            encode(part).backward(gradient[torch.from_numpy(part).to(leaf.device)])
    return values
