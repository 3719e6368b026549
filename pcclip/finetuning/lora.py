"""LoRA on a tower through peft: low-rank updates of the transformer's linear layers, merged in at the end.

The attention of open_clip's towers is one nn.MultiheadAttention, for which peft 0.21 adds the update of the output
projection twice and lets the frozen weights drift with every call. So attention stays frozen there, and the MLPs learn.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy

import torch
from torch import nn

from pcclip.encoders.dual_encoder import Encoder, Tower
from pcclip.errors import PcclipError


def add(model: Encoder, rank: int, seed: int, tower: Tower = "text") -> dict[str, nn.Parameter]:
    """Add a low-rank update to every linear layer of a tower's transformer. Returns the updates' parameters.

    An update is zero at first, so the model does not change yet.

    Raises:
        PcclipError: peft is not installed, or the tower has no linear layer, as a tower of convolutions.
    """
    try:
        from peft import LoraConfig, inject_adapter_in_model
    except ImportError:
        raise PcclipError("finetune.tune = lora needs peft: pip install 'pcclip[paper]'") from None
    module = model.text_tower if tower == "text" else model.image_tower
    layers = _layers(module, model.transformer(tower))
    if not layers:
        raise PcclipError(f"finetune.tune = lora: the {tower} tower's blocks have no linear layer; choose another")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        inject_adapter_in_model(LoraConfig(r=rank, lora_alpha=rank, target_modules=layers), module)
    module.eval()
    return {name: p for name, p in module.named_parameters() if "lora_" in name}


def merge(model: Encoder) -> None:
    """Add the updates to the weights and put the plain layers back; nothing happens without updates."""
    for tower in _towers(model).values():
        for name, layer in list(tower.named_modules()):
            if _is_updated(layer):
                layer.merge()
                tower.set_submodule(name, layer.get_base_layer())
        vars(tower).pop("peft_config", None)  # peft's note to itself, or the next add would warn


@contextmanager
def merged(model: Encoder) -> Iterator[None]:
    """Merge the updates for the length of a `with` block."""
    learning = {name: tower for name, tower in _towers(model).items() if any(map(_is_updated, tower.modules()))}
    for name, tower in learning.items():
        setattr(model, name, deepcopy(tower))
    merge(model)
    try:
        yield
    finally:
        for name, tower in learning.items():
            setattr(model, name, tower)


def _towers(model: Encoder) -> dict[str, nn.Module]:
    return {name: part for name, part in model.named_children() if name in ("text_tower", "image_tower")}


def _is_updated(layer: nn.Module) -> bool:
    return hasattr(layer, "lora_A") and hasattr(layer, "get_base_layer")


def _layers(tower: nn.Module, blocks: nn.Module) -> list[str]:
    """Names, within the tower, of its blocks' linear layers outside nn.MultiheadAttention."""
    inside = {id(m) for m in blocks.modules()}
    attention = {id(m) for a in tower.modules() if isinstance(a, nn.MultiheadAttention) for m in a.modules()}
    return [name for name, m in tower.named_modules() if isinstance(m, nn.Linear) and id(m) in inside - attention]
