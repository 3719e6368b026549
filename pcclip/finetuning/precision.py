"""bf16 where it is asked for: products in bf16, while weights, optimiser, normalisation and losses stay in fp32."""

import torch


def autocast(precision: str, device: torch.device) -> torch.autocast:
    """The context texts are encoded in, for 'fp32' or 'bf16'. One is entered for a whole encoding: it casts each weight
    once and keeps it until it is left."""
    return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16")


def has_bf16(device: torch.device) -> bool:
    """Whether the device multiplies bf16 by itself: elsewhere the results are the same, but later."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type == "cpu":
        return any(there for name, there in torch.cpu.get_capabilities().items() if "bf16" in name)
    return False
