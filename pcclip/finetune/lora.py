"""LoRA on the text tower through peft: low-rank updates of the transformer's linear layers, merged in at the end.

The attention of open_clip's towers is one nn.MultiheadAttention, for which peft 0.21 adds the update of the output
projection twice and lets the frozen weights drift with every call: it is left alone, and its MLPs learn.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy

import torch
from torch import nn

from pcclip.errors import PcclipError
from pcclip.models.encoder import DualEncoder


def add(model: DualEncoder, rank: int, seed: int) -> dict[str, nn.Parameter]:
    """Put an update of `rank` beside every linear layer of the transformer. Returns the updates' parameters.

    An update is zero at first, so the model does not change yet. Raises PcclipError without peft.
    """
    try:
        from peft import LoraConfig, inject_adapter_in_model
    except ImportError:
        raise PcclipError("finetune.tune = lora needs peft: pip install 'pcclip[paper]'") from None
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        inject_adapter_in_model(LoraConfig(r=rank, lora_alpha=rank, target_modules=_layers(model)), model.text_tower)
    model.text_tower.eval()
    return {name: p for name, p in model.text_tower.named_parameters() if "lora_" in name}


def merge(model: DualEncoder) -> None:
    """Add the updates to the weights and put the plain layers back; nothing happens without updates."""
    for name, layer in list(model.text_tower.named_modules()):
        if hasattr(layer, "lora_A") and hasattr(layer, "get_base_layer"):
            layer.merge()
            model.text_tower.set_submodule(name, layer.get_base_layer())
    vars(model.text_tower).pop("peft_config", None)  # peft's note to itself, or the next add would warn


@contextmanager
def merged(model: DualEncoder) -> Iterator[None]:
    """The model with its updates merged, for the length of the block."""
    learning = model.text_tower
    model.text_tower = deepcopy(learning)
    merge(model)
    try:
        yield
    finally:
        model.text_tower = learning


def _layers(model: DualEncoder) -> list[str]:
    """Names, within the text tower, of the transformer's linear layers outside nn.MultiheadAttention."""
    inside = {id(m) for m in model.transformer().modules()}
    attention = {id(m) for a in model.text_tower.modules() if isinstance(a, nn.MultiheadAttention) for m in a.modules()}
    return [name for name, m in model.text_tower.named_modules()
            if isinstance(m, nn.Linear) and id(m) in inside - attention]
