"""The objectives, by name in OBJECTIVES, and the terms that can be added to them: functions of vectors alone.

To add an objective, write a function with the signature of `mse`, enter it in OBJECTIVES, and allow its name in
finetune.objective (config.py).
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.utils.checkpoint import checkpoint

Ignore = Callable[[Int[Tensor, " r"]], Bool[Tensor, "r n"]]
ROWS_AT_ONCE = 4096  # texts whose logits are in memory at once; a larger batch computes them again for the gradient


def infonce(
    w: Float[Tensor, "b d"],
    v: Float[Tensor, "b d"],
    temperature: Float[Tensor, ""] | float,
    ignore: Ignore | None = None,
) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
    """Symmetric InfoNCE of PC-CLIP, L = 1/2 [CE(W V^T / tau, I) + CE(V W^T / tau, I)] (released finetune.py).

    Args:
        w: unit text vectors of the differences.
        v: unit image differences, row i belonging to text i.
        temperature: tau, a number or a learned scalar.
        ignore: given row numbers, returns those rows of a symmetric matrix that is True where text i and image
            difference j must not be contrasted. The diagonal is always contrasted.

    Returns:
        The loss, and the fraction of texts whose own image difference is the nearest.
    """

    def block(w: Tensor, v: Tensor, temperature: Tensor | float, rows: Tensor) -> tuple[Tensor, ...]:
        """For the texts `rows`: log-sums over images, each image's log-sum over the texts, own logits, hits."""
        logits = w @ v.T / temperature
        if ignore is not None:
            own = rows[:, None] == torch.arange(len(v), device=v.device)
            logits = logits.masked_fill(ignore(rows) & ~own, float("-inf"))
        positives = logits.gather(1, rows[:, None]).squeeze(1)
        return logits.logsumexp(dim=1), logits.logsumexp(dim=0), positives, logits.argmax(dim=1) == rows

    parts = torch.arange(len(w), device=w.device).split(ROWS_AT_ONCE)
    if len(parts) == 1:
        blocks = [block(w, v, temperature, parts[0])]
    else:
        blocks = [checkpoint(block, w[rows], v, temperature, rows, use_reentrant=False) for rows in parts]
    over_images, over_texts, positive_parts, hits = zip(*blocks, strict=True)
    positives = torch.cat(positive_parts)
    text_loss = (torch.cat(over_images) - positives).mean()
    image_loss = (torch.stack(over_texts).logsumexp(dim=0) - positives).mean()
    return (text_loss + image_loss) / 2, torch.cat(hits).float().mean()


def direction_infonce(
    w: Float[Tensor, "b d"],
    target: Float[Tensor, "b d"],
    temperature: Float[Tensor, ""] | float,
    ignore: Ignore | None = None,
) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
    """`infonce` with v = target / ||target||: equation 1 of PC-CLIP where the target is u1 - u2."""
    return infonce(w, F.normalize(target, dim=-1), temperature, ignore)


def mse(
    w: Float[Tensor, "b d"],
    target: Float[Tensor, "b d"],
    temperature: Float[Tensor, ""] | float = 1.0,
    ignore: Ignore | None = None,
) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
    """The paper's MSE variant as released: torch.nn.MSELoss of w and u1 - u2, which is not normalised.

    It is the mean over the batch and the d dimensions, || w - (u1 - u2) ||^2 / d.

    Args:
        w: unit text vectors of the differences.
        target: u1 - u2, row i belonging to text i.
        temperature, ignore: unused; every objective takes them.

    Returns:
        The loss, and the fraction of texts whose own image difference is the nearest.
    """
    nearest = (w @ F.normalize(target, dim=-1).T).argmax(dim=1)
    return F.mse_loss(w, target), (nearest == torch.arange(len(w), device=w.device)).float().mean()


OBJECTIVES = {"infonce": direction_infonce, "mse": mse, "captions": direction_infonce}


def attribute(
    more: Float[Tensor, " m"],
    less: Float[Tensor, " m"],
    target: Float[Tensor, " m"],
    temperature: float,
    antisymmetric: float = 0.0,
) -> Float[Tensor, ""]:
    """The attribute term, a step beyond the paper: <v, f(P+)> and -<v, f(P-)> should have the verdict's sign.

    mean of CE(sigmoid(<v, f(P+)> / tau), p) + CE(sigmoid(<v, f(P-)> / tau), 1 - p), which for a certain verdict
    r = 2p - 1 = +-1 is softplus(-r <v, f(P+)> / tau) + softplus(r <v, f(P-)> / tau). The words that both texts share
    can lower each of the two; they cannot lower CE(sigmoid(<v, f(P+) - f(P-)> / tau), p), whose weight is
    `antisymmetric`. Inner products are at most 2, so tau bounds the odds, and how far noise in verdicts is followed.

    Args:
        more: <v, f(P+)> of unit vectors, P+ such as "The first is larger than the second.", v an image difference.
        less: <v, f(P-)>, P- the twin, "The first is smaller than the second."
        target: p, the probability that the first image has more of the attribute.
        temperature: tau.
        antisymmetric: weight of the difference of the two texts; each single text has weight 1.
    """
    cross_entropy = F.binary_cross_entropy_with_logits
    up, down = more / temperature, less / temperature
    each = cross_entropy(up, target) + cross_entropy(down, 1 - target)
    return each + antisymmetric * cross_entropy(up - down, target)


def replay(tuned: Float[Tensor, "b d"], base: Float[Tensor, "b d"]) -> Float[Tensor, ""]:
    """Mean cosine distance of plain texts' unit vectors from the base model's: keeps zero-shot accuracy."""
    return 1 - (tuned * base).sum(dim=-1).mean()


def unrelated(tuned: Float[Tensor, "t d"], base: Float[Tensor, "q d"], v: Float[Tensor, "m d"]) -> Float[Tensor, ""]:
    """Keep unrelated questions where the base model has them: mean cosine distance of their scores from the base's.

    Without this term the attribute term turns every comparison, of beauty or of price, towards the trained attribute. The
    term compares scores on image differences, not directions: images differ along few directions, so a small turn towards
    the trained axis changes their order and hardly changes the cosine of the directions.

    Args:
        tuned: unit vectors of the texts P+, "The first is warm and the second cold.", then of their twins P-.
        base: the base model's direction of the same words.
        v: unit image differences.
    """
    more, less = tuned.chunk(2)
    return 1 - F.cosine_similarity((more - less) @ v.T, base @ v.T).mean()


def shared_images(
    first: Int[Tensor, " b"], second: Int[Tensor, " b"], swap: bool, rows: Int[Tensor, " r"] | None = None
) -> Bool[Tensor, "r n"]:
    """True where two pairs share an image: their texts are partly true of each other, so they are false negatives.

    Args:
        first, second: the images of each pair.
        swap: the reversed twins follow the pairs (n = 2b). A pair and its own twin contradict and stay negatives.
        rows: the rows of the matrix to return; None returns all n.
    """
    if swap:
        first, second = torch.cat([first, second]), torch.cat([second, first])
    rows = torch.arange(len(first), device=first.device) if rows is None else rows
    left, right = first[rows, None], second[rows, None]
    shared = (left == first) | (left == second) | (right == first) | (right == second)
    if not swap:
        return shared
    twin = (rows + len(first) // 2) % len(first)
    return shared & (twin[:, None] != torch.arange(len(first), device=first.device))
