"""Several processes, one batch: each encodes its share of the texts, and the loss of the whole is taken in all of them.

Vectors are gathered with gradients, as open_clip's `gather_with_grad` does (Cherti et al. 2023), and gradients of the
weights are averaged, as DDP's are: loss and step are those of one process with the whole batch, up to rounding. What
is drawn at random depends on seed and step alone, so a run may continue on another number of processes. The processes
are those of torch.distributed's default group; without one there is one process, and nothing here changes anything.
"""

from collections.abc import Iterable

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch import distributed as dist

from pcclip.errors import PcclipError


class Share:
    """Which texts of a batch this process encodes: as many as every other, and long and short ones alike.

    Texts are dealt out by length, in turn. Where that does not come out even, some get one more of those that another
    has as well, whose vectors are dropped: no process is without a text or a gradient.

    Attributes:
        rows: of the texts in the batch.
    """

    def __init__(self, lengths: Int[np.ndarray, " n"]):
        self._order = np.arange(len(lengths))
        self.rows = self._order
        if size() > 1:
            self._order = np.argsort(lengths, kind="stable")
            even = -(-len(lengths) // size()) * size()
            self.rows = np.resize(self._order, even)[dist.get_rank() :: size()]

    def gather(self, own: Float[Tensor, "m d"]) -> Float[Tensor, "n d"]:
        """Vectors of the whole batch, in its order, from those of `rows`; with gradients, if what is made of them is
        the same in every process."""
        if size() == 1:
            return own
        dealt = _Gathered.apply(own)[: len(self._order)]
        back = np.empty_like(self._order)
        back[self._order] = np.arange(len(back))
        return dealt[torch.from_numpy(back).to(dealt.device)]


class _Gathered(torch.autograd.Function):
    """Rows of all processes in turn: the first of each, the second of each, ...

    Backwards every process has the whole gradient of the same loss already, and takes its own rows of it. They are
    multiplied by the number of processes, for a mean over processes follows.
    """

    @staticmethod
    def forward(ctx, own):
        parts = [torch.empty_like(own) for _ in range(size())]
        dist.all_gather(parts, own.contiguous())
        return torch.stack(parts, dim=1).flatten(0, 1)

    @staticmethod
    def backward(ctx, gradient):
        return gradient[dist.get_rank() :: size()] * size()


def size() -> int:
    """How many processes there are."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def is_first() -> bool:
    """Whether this process is the one that writes and talks."""
    return size() == 1 or dist.get_rank() == 0


def of_first(value):
    """What `value` is in the first process; all wait for it."""
    if size() == 1:
        return value
    held = [value]
    dist.broadcast_object_list(held)
    return held[0]


def check_alike(value, what: str) -> None:
    """Raise PcclipError in all processes unless all have the same `value`; `what` tells what it is of."""
    found = [value]
    if size() > 1:
        found = [None] * size()
        dist.all_gather_object(found, value)
    if any(one != found[0] for one in found):
        raise PcclipError(
            f"{what} differ between the processes; they must see the same files, so `outputs` and data "
            "have to be in a folder that all of them share"
        )


def mean_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Average gradients over the processes, in place."""
    if size() == 1:
        return
    gradients = [p.grad for p in parameters if p.grad is not None]
    for waiting in [dist.all_reduce(gradient, async_op=True) for gradient in gradients]:
        waiting.wait()
    torch._foreach_div_(gradients, size())
