"""LoRA on the text tower through peft: low-rank updates beside frozen weights, merged into them at the end."""

from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy

import torch
from torch import nn

from pcclip.errors import PcclipError
from pcclip.models.encoder import DualEncoder


def add(model: DualEncoder, rank: int, seed: int) -> dict[str, nn.Parameter]:
    """Put adapters of `rank` beside every linear and attention layer of the transformer. Returns their parameters.

    The second factor starts at zero, so the model is unchanged at first. Raises PcclipError without peft.
    """
    try:
        from peft import LoraConfig, inject_adapter_in_model
    except ImportError:
        raise PcclipError("finetune.tune = lora needs peft: pip install 'pcclip[paper]'") from None
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        settings = LoraConfig(r=rank, lora_alpha=rank, target_modules=_layers(model))
        inject_adapter_in_model(settings, model.text_tower)
    model.text_tower.eval()
    return {name: p for name, p in model.text_tower.named_parameters() if "lora_" in name}


def merge(model: DualEncoder) -> None:
    """Add the updates to the weights and take the adapters out; nothing happens without adapters."""
    for name, layer in list(model.text_tower.named_modules()):
        if hasattr(layer, "get_base_layer") and hasattr(layer, "merge"):
            layer.merge(safe_merge=True)
            model.text_tower.set_submodule(name, layer.get_base_layer())


@contextmanager
def merged(model: DualEncoder) -> Iterator[None]:
    """The model with its updates merged, for the length of the block."""
    adapted = model.text_tower
    model.text_tower = deepcopy(adapted)
    merge(model)
    try:
        yield
    finally:
        model.text_tower = adapted


def _layers(model: DualEncoder) -> list[str]:
    """Names of the transformer's linear and attention layers; an attention's own output layer belongs to it."""
    inside = {id(m) for m in model.transformer().modules()}
    found, attention = [], ()
    for name, module in model.text_tower.named_modules():
        if id(module) not in inside or name.startswith(attention or ("\0",)):
            continue
        if isinstance(module, nn.MultiheadAttention):
            found.append(name)
            attention = (*attention, f"{name}.")
        elif isinstance(module, nn.Linear):
            found.append(name)
    return found
