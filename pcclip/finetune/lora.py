"""LoRA on the text tower: W + B A in place of every frozen matrix W of its transformer, merged into it at the end.

Not through peft, whose nn.MultiheadAttention (0.21) adds the update of the output projection twice, and adds and
subtracts the others at every call, so that the frozen weights drift and a resumed run leaves the curve.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.utils import parametrize

from pcclip.models.encoder import DualEncoder


class LowRank(nn.Module):
    """An update of one matrix, zero at first."""

    def __init__(self, weight: Float[Tensor, "o i"], rank: int, generator: torch.Generator):
        super().__init__()
        rows, columns = weight.shape
        start = (2 * torch.rand(rank, columns, generator=generator) - 1) / columns**0.5
        self.lora_A = nn.Parameter(start.to(weight))
        self.lora_B = nn.Parameter(weight.new_zeros(rows, rank))

    def forward(self, weight: Float[Tensor, "o i"]) -> Float[Tensor, "o i"]:
        return weight + self.lora_B @ self.lora_A


def add(model: DualEncoder, rank: int, seed: int) -> dict[str, nn.Parameter]:
    """Put an update of `rank` on every matrix of the transformer, embeddings aside. Returns the updates' parameters."""
    generator = torch.Generator().manual_seed(seed)
    for module in list(model.transformer().modules()):
        if isinstance(module, nn.Embedding):
            continue
        for name, weight in list(module.named_parameters(recurse=False)):
            if weight.ndim == 2:
                parametrize.register_parametrization(module, name, LowRank(weight, rank, generator))
    model.text_tower.eval()
    return {name: p for name, p in model.text_tower.named_parameters() if "lora_" in name}


def merge(model: DualEncoder) -> None:
    """Put the sums in the weights' places; nothing happens without updates."""
    for module, name, _, _ in _updates(model):
        parametrize.remove_parametrizations(module, name, leave_parametrized=True)


@contextmanager
def merged(model: DualEncoder) -> Iterator[None]:
    """The model with its updates merged, for the length of the block."""
    before = _updates(model)
    merge(model)
    try:
        yield
    finally:
        for module, name, update, weight in before:
            getattr(module, name).data = weight
            parametrize.register_parametrization(module, name, update)


def _updates(model: DualEncoder) -> list[tuple[nn.Module, str, LowRank, Tensor]]:
    """(module, name of its matrix, update, a copy of the frozen weight)."""
    return [(module, name, held[0], held.original.detach().clone())
            for module in model.text_tower.modules() if parametrize.is_parametrized(module)
            for name, held in module.parametrizations.items() if isinstance(held[0], LowRank)]
