"""What a forward pass keeps for the gradient, and its FLOPs, found without any numbers: by torch's fake tensors."""

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Traced:
    """`kept` are bytes by storage, parameters and buffers left out."""

    flops: int
    kept: dict[int, int]

    @property
    def bytes(self) -> int:
        return sum(self.kept.values())


def traced(module, run: Callable, block_function: Callable[[Callable], None] | None = None) -> Traced:
    """Run something with `module`, whose parameters and buffers become fake tensors.

    Args:
        module: a torch module without values, on the meta device.
        run: calls it; tensors made in it are fake too.
        block_function: given a stand-in for torch.utils.checkpoint.checkpoint, makes the module use it. Then a block's
            inputs are kept, and of all else only what the largest block has while it is computed again.
    """
    import torch
    from torch._subclasses.fake_tensor import FakeTensorMode
    from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count

    given, inside = [], [0]

    def block(part: Callable, *arguments):
        given.extend(one for one in arguments if isinstance(one, torch.Tensor))
        with torch.autograd.graph.saved_tensors_hooks(lambda x: x, lambda x: x):
            out, held = _kept(lambda: part(*arguments), own)
        inside.append(_bytes(held))
        return out

    def attention(q, k, v, *_, **__):
        return sdpa_flop_count(q, k, v)

    if block_function is not None:
        block_function(block)
    flash = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
    with FakeTensorMode(allow_non_fake_inputs=True):
        own = _made_fake(module)
        with FlopCounterMode(display=False, custom_mapping={flash: attention}) as counter:
            _, held = _kept(run, own)
        held |= {_storage(one): one for one in given}
        kept = {key: one.untyped_storage().nbytes() for key, one in held.items()}
    return Traced(counter.get_total_flops(), kept | {-1: max(inside)})


def _made_fake(module) -> set[int]:
    """Inside fake mode: give every parameter and buffer a fake tensor. Returns their storages."""
    import torch

    for part in module.modules():
        for name, value in part._parameters.items():
            if value is not None:
                part._parameters[name] = torch.nn.Parameter(torch.empty(value.shape), value.requires_grad)
        for name, value in part._buffers.items():
            if value is not None:
                part._buffers[name] = torch.empty(value.shape, dtype=value.dtype)
    return {_storage(value) for value in [*module.parameters(), *module.buffers()]}


def _kept(run: Callable, own: set[int]) -> tuple[object, dict]:
    """What a run gives, and a tensor for each storage that it keeps for the gradient and that is not `own`."""
    import torch

    held = {}

    def keep(value):
        if (storage := _storage(value)) not in own:
            held[storage] = value
        return value

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda value: value):
        out = run()
    return out, held


def _storage(value) -> int:
    return value.untyped_storage()._cdata


def _bytes(held: dict) -> int:
    return sum(value.untyped_storage().nbytes() for value in held.values())
