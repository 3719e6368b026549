"""Exact gradients of a contrastive step whose batch does not fit at once (GradCache: Gao et al. 2021, algorithm 1).

Every text is encoded twice: once without gradients, to get all vectors and the loss's gradient with respect to them,
and once more, a few texts at a time, to carry that gradient into the weights. Memory is that of the few texts.
Of several processes each does so with its share of the texts.
"""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from pcclip.encoders.tokens import Tokens
from pcclip.finetuning.distributed import Share


def backward(
    encode: Callable[[Tokens], Float[Tensor, "n d"]],
    tokens: Tokens,
    terms: Callable[[Float[Tensor, "n d"]], dict],
    at_once: int | None = None,
) -> dict:
    """Add the gradients of terms(encode(tokens))["loss"] to whatever it depends on.

    Args:
        encode: texts to vectors, each by itself and the same every time (no dropout).
        tokens: of all texts of the step, negatives included.
        terms: vectors of all texts to a dictionary with the scalar "loss"; may use learned values of its own.
        at_once: texts in the tower at once; None or enough for all makes it one plain pass.

    Returns:
        What `terms` gave. Of several processes all have the loss of the whole batch; the mean over them of a gradient
        is the gradient.
    """
    share = Share(tokens.lengths)
    tokens = tokens[share.rows]
    if at_once is None or at_once >= len(tokens):
        found = terms(share.gather(encode(tokens)))
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
    found = terms(share.gather(vectors.requires_grad_()))
    found["loss"].backward()
    for part in parts:
        encode(tokens[part.cpu().numpy()]).backward(vectors.grad[part])
    return found


def backward_through(
    towers: Sequence[tuple[Callable[[Int[np.ndarray, " m"]], Float[Tensor, "m d"]], list[Int[np.ndarray, " m"]]]],
    terms: Callable[..., dict],
) -> dict:
    """The same for several towers at once, and for a loss that takes memory of its own and does its own backward pass.

    Args:
        towers: of each what makes vectors of some of its rows, and its rows in the parts that go through it at once.
            With one part it is run once, else twice.
        terms: given all vectors of every tower as leaves, adds its gradients to them and to what else it depends on.

    Returns:
        What `terms` gave.
    """
    live = []
    for encode, parts in towers:
        with torch.set_grad_enabled(len(parts) == 1):
            encoded = [encode(part) for part in parts]
        back = np.argsort(np.concatenate(parts))
        live.append(torch.cat(encoded)[torch.from_numpy(back).to(encoded[0].device)])
    leaves = [vectors.detach().requires_grad_() for vectors in live]
    found = terms(*leaves)
    for (encode, parts), vectors, leaf in zip(towers, live, leaves, strict=True):
        if len(parts) == 1:
            vectors.backward(leaf.grad)
            continue
        for part in parts:
            encode(part).backward(leaf.grad[torch.from_numpy(part).to(leaf.device)])
    return found
