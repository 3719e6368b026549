"""Several processes, one batch: each encodes its share of the texts, and every process computes the whole loss.

Vectors are gathered with gradients, as open_clip's `gather_with_grad` does (Cherti et al. 2023), and gradients of the
weights are averaged, as in DDP: loss and step equal those of one process with the whole batch, up to rounding. Random
draws depend on seed and step alone, so a run may continue on another number of processes. The processes form
torch.distributed's default group; without such a group there is one process, and these functions do nothing.
"""

from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, distributed as dist, nn

from pcclip.errors import PcclipError


class Share:
    """The texts of a batch that this process encodes: every process has equally many, long and short ones.

    Texts are dealt out by length, in turn. If their number does not divide evenly, some processes encode a text that
    another process has too, and its vector is dropped: no process is without a text or a gradient.

    Attributes:
        rows: this process's texts, as rows of the batch.
    """

    def __init__(self, lengths: Int[np.ndarray, " n"]):
        self._order = np.arange(len(lengths))
        self.rows = self._order
        if size() > 1:
            self._order = np.argsort(lengths, kind="stable")
            self.rows = np.resize(self._order, -(-len(lengths) // size()) * size())[dist.get_rank() :: size()]

    def gather(self, own: Float[Tensor, "m d"]) -> Float[Tensor, "n d"]:
        """The vectors of the whole batch, in its order, from the vectors of each process's `rows`.

        Gradients pass through, if every process computes the same loss from the result.
        """
        if size() == 1:
            return own
        dealt = _Gathered.apply(own)[: len(self._order)]
        back = np.empty_like(self._order)
        back[self._order] = np.arange(len(back))
        return dealt[torch.from_numpy(back).to(dealt.device)]


class _Gathered(torch.autograd.Function):
    """Rows of all processes in turn: the first of each, the second of each, ...

    Backwards, every process already has the whole gradient of the same loss and takes its own rows. They are
    multiplied by the number of processes, since `mean_gradients` follows.
    """

    @staticmethod
    def forward(ctx: Any, own: Tensor) -> Tensor:
        parts = [torch.empty_like(own) for _ in range(size())]
        dist.all_gather(parts, own.contiguous())
        return torch.stack(parts, dim=1).flatten(0, 1)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return gradient[dist.get_rank() :: size()] * size()


def size() -> int:
    """The number of processes."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def is_first() -> bool:
    """Whether this process is the one that writes and talks."""
    return size() == 1 or dist.get_rank() == 0


def of_first(value: Any) -> Any:
    """The first process's `value`, in every process; all wait for it."""
    if size() == 1:
        return value
    values = [value]
    dist.broadcast_object_list(values)
    return values[0]


def check_alike(value: Any, name: str) -> None:
    """Raise PcclipError in every process unless all have the same `value`, which the message calls `name`."""
    values = [value]
    if size() > 1:
        values = [None] * size()
        dist.all_gather_object(values, value)
    if any(other != values[0] for other in values):
        raise PcclipError(
            f"{name} differ between the processes; they must see the same files, so `outputs` and data "
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
