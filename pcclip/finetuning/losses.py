"""The objectives and the terms that can be added to them, each a function of vectors alone."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.utils.checkpoint import checkpoint


def infonce(
    w: Float[Tensor, "b d"],
    v: Float[Tensor, "b d"],
    temperature: Float[Tensor, ""] | float,
    ignore: Callable[[Int[Tensor, " r"]], Bool[Tensor, "r b"]] | None = None,
    at_once: int = 4096,
    wrong: Float[Tensor, "k d"] | None = None,
) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
    """Symmetric InfoNCE of PC-CLIP, L = 1/2 [CE(W V^T / tau, I) + CE(V W^T / tau, I)] (released finetune.py).

    Args:
        w: unit text vectors of the differences.
        v: unit image differences, row i belonging to text i.
        temperature: tau, a number or a learned scalar.
        ignore: gives rows of a symmetric matrix, True where i and j are not to be held against each other. The diagonal
            never is.
        at_once: texts whose logits are in memory at once; those of a larger batch are computed again for the gradient.
        wrong: unit vectors of texts that no image of the batch is to lie along: hard negatives, more columns for every
            image and no rows of their own (NegCLIP: Yuksekgonul et al. 2023, 2210.01936).

    Returns:
        The loss, and how often the right text is nearest to its image difference.
    """

    def block(w: Tensor, v: Tensor, temperature: Tensor | float, rows: Tensor):
        """Of some texts: their sums over all images, each image's sum over them, their own logits, which are right."""
        logits = w @ v.T / temperature
        if ignore is not None:
            own = rows[:, None] == torch.arange(len(v), device=v.device)
            logits = logits.masked_fill(ignore(rows) & ~own, float("-inf"))
        right = logits.gather(1, rows[:, None]).squeeze(1)
        return logits.logsumexp(dim=1), logits.logsumexp(dim=0), right, logits.argmax(dim=1) == rows

    parts = torch.arange(len(w), device=w.device).split(at_once)
    if len(parts) == 1:
        found = [block(w, v, temperature, parts[0])]
    else:
        found = [checkpoint(block, w[rows], v, temperature, rows, use_reentrant=False) for rows in parts]
    over_images, over_texts, right, hits = zip(*found, strict=True)
    right = torch.cat(right)
    if wrong is not None and len(wrong):
        over_texts = (*over_texts, (wrong @ v.T / temperature).logsumexp(dim=0))
    loss = ((torch.cat(over_images) - right).mean() + (torch.stack(over_texts).logsumexp(dim=0) - right).mean()) / 2
    return loss, torch.cat(hits).float().mean()


def mse(w: Float[Tensor, "b d"], difference: Float[Tensor, "b d"]) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
    """The paper's MSE variant, mean of || w - (u1 - u2) ||^2; the difference is NOT normalised here."""
    loss = ((w - difference) ** 2).sum(dim=-1).mean()
    nearest = (w @ F.normalize(difference, dim=-1).T).argmax(dim=1)
    return loss, (nearest == torch.arange(len(w), device=w.device)).float().mean()


def attribute(
    more: Float[Tensor, "m d"],
    less: Float[Tensor, "m d"],
    v: Float[Tensor, "m d"],
    target: Float[Tensor, " m"],
    temperature: float,
    antisymmetric: float = 0.0,
) -> Float[Tensor, ""]:
    """The attribute term, a step beyond the paper: <v, f(more)> and -<v, f(less)> should have the verdict's sign.

    mean of CE(sigmoid(<v, f(P+)> / tau), p) + CE(sigmoid(<v, f(P-)> / tau), 1 - p), which for a certain verdict
    r = 2p - 1 = +-1 is softplus(-r <v, f(P+)> / tau) + softplus(r <v, f(P-)> / tau). Each of the two may be met by
    the words that both texts share; `antisymmetric` is the weight of CE(sigmoid(<v, f(P+) - f(P-)> / tau), p), which
    may not. It sees inner products of at most 2, so tau bounds the odds, and how far noise in verdicts is followed.

    Args:
        more: unit vectors of "The first is larger than the second.", one for each verdict.
        less: unit vectors of its twin, "The first is smaller than the second."
        v: unit image differences.
        target: p, how probable it is that the first image has more of the attribute.
        temperature: tau.
        antisymmetric: weight of the difference of the two texts, beside 1 for each of them.
    """
    up, down = (v * more).sum(dim=-1) / temperature, (v * less).sum(dim=-1) / temperature
    cross_entropy = F.binary_cross_entropy_with_logits
    each = cross_entropy(up, target) + cross_entropy(down, 1 - target)
    return each + antisymmetric * cross_entropy(up - down, target)


def replay(now: Float[Tensor, "b d"], base: Float[Tensor, "b d"]) -> Float[Tensor, ""]:
    """Mean cosine distance of plain captions' unit vectors from where the base model has them: holds zero-shot."""
    return 1 - (now * base).sum(dim=-1).mean()


def shared_images(
    first: Int[Tensor, " b"], second: Int[Tensor, " b"], swap: bool, rows: Int[Tensor, " r"] | None = None
) -> Bool[Tensor, "r b"] | Bool[Tensor, "r 2b"]:
    """True for pairs that share an image, whose texts are partly true of each other: unmarked false negatives.

    With `swap` the reversed twins follow the pairs; a pair and its own twin remain negatives, since they contradict.
    `rows` are those of the matrix that are wanted; None is all of them.
    """
    if swap:
        first, second = torch.cat([first, second]), torch.cat([second, first])
    rows = torch.arange(len(first), device=first.device) if rows is None else rows
    one, two = first[rows, None], second[rows, None]
    shared = (one == first) | (one == second) | (two == first) | (two == second)
    if not swap:
        return shared
    twin = (rows + len(first) // 2) % len(first)
    return shared & (twin[:, None] != torch.arange(len(first), device=first.device))
