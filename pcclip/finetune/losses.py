"""The objectives. Each returns its loss and how often the right text is nearest to its image difference."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor


def infonce(
    w: Float[Tensor, "b d"], v: Float[Tensor, "b d"], temperature: Float[Tensor, ""] | float
) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
    """Symmetric InfoNCE of PC-CLIP, L = 1/2 [CE(W V^T / tau, I) + CE(V W^T / tau, I)] (released finetune.py).

    Args:
        w: unit text vectors of the differences.
        v: unit image differences, row i belonging to text i.
        temperature: tau, a number or a learned scalar.
    """
    logits = w @ v.T / temperature
    target = torch.arange(len(w), device=w.device)
    loss = (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2
    return loss, (logits.argmax(dim=1) == target).float().mean()


def mse(
    w: Float[Tensor, "b d"], difference: Float[Tensor, "b d"]
) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
    """The paper's MSE variant, mean of || w - (u1 - u2) ||^2; the difference is NOT normalised here."""
    loss = ((w - difference) ** 2).sum(dim=-1).mean()
    nearest = (w @ F.normalize(difference, dim=-1).T).argmax(dim=1)
    return loss, (nearest == torch.arange(len(w), device=w.device)).float().mean()
