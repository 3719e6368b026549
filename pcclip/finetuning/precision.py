"""finetune.precision: bf16 multiplies in bf16; weights, optimiser, normalisation and losses stay in fp32."""

import torch


def autocast(precision: str, device: torch.device) -> torch.autocast:
    """The context to encode texts in, for 'fp32' or 'bf16'.

    Enter one context for a whole encoding: it casts each weight once and keeps it until the end.
    """
    return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16")


def has_bf16(device: torch.device) -> bool:
    """Whether the device has instructions for bf16: without them the results are the same, but slower."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type == "cpu":
        # torch 2.6 tells no capabilities
        return any(has for name, has in getattr(torch.cpu, "get_capabilities", dict)().items() if "bf16" in name)
    return False
