"""Exact gradients of a contrastive step whose batch does not fit at once (GradCache: Gao et al. 2021, algorithm 1).

Every text is encoded twice: once without gradients, to get all vectors and the loss's gradient with respect to them,
and once more, a few texts at a time, to carry that gradient into the weights. Memory is that of the few texts.
"""

from collections.abc import Callable

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from pcclip.models.tokens import Tokens


def backward(
    encode: Callable[[Tokens], Float[Tensor, "n d"]], tokens: Tokens, terms: Callable[[Float[Tensor, "n d"]], dict],
    at_once: int | None = None,
) -> dict:
    """Add the gradients of terms(encode(tokens))["loss"] to whatever it depends on.

    Args:
        encode: texts to vectors, each by itself and the same every time (no dropout).
        tokens: of all texts of the step, negatives included.
        terms: vectors of all texts to a dictionary with the scalar "loss"; may use learned values of its own.
        at_once: texts in the tower at once; None or enough for all makes it one plain pass.

    Returns:
        What `terms` gave.
    """
    if at_once is None or at_once >= len(tokens):
        found = terms(encode(tokens))
        found["loss"].backward()
        return found
    order = np.argsort(tokens.lengths, kind="stable")  # texts of similar length go through the tower together
    parts = np.split(order, range(at_once, len(order), at_once))
    with torch.no_grad():
        encoded = [encode(tokens[part]) for part in parts]
    vectors = torch.empty(len(tokens), encoded[0].shape[1], dtype=encoded[0].dtype, device=encoded[0].device)
    parts = [torch.from_numpy(part).to(vectors.device) for part in parts]
    for part, values in zip(parts, encoded, strict=True):
        vectors[part] = values
    found = terms(vectors.requires_grad_())
    found["loss"].backward()
    for part in parts:
        encode(tokens[part.cpu().numpy()]).backward(vectors.grad[part])
    return found
