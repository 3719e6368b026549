"""What a training loop of stage 03 keeps: its parameters, optimiser and curve, in checkpoints; and its schedule."""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import nn

from pcclip.models import saved
from pcclip.params import Finetune
from pcclip.stage import atomic

CURVES = "curves.csv"
_NOT_RESULTS = {**dict.fromkeys(["micro_batch", "processes", "launcher"], True),  # may change between a run and its
                "sds": {"micro_batch", "checkpointing"}}  # continuation
_LATER = ("difference", "difference_temperature", "difference_batch", "sds", "negatives")  # older runs stay done


@dataclass
class State:
    """Everything that changes while training; what a checkpoint holds."""

    parameters: dict[str, nn.Parameter]
    optimizer: torch.optim.Optimizer
    step: int = 0
    curve: list[dict] = field(default_factory=list)

    def save(self, path: Path) -> None:
        with atomic(path) as temporary:
            torch.save({"step": self.step, "curve": self.curve, "optimizer": self.optimizer.state_dict(),
                        "parameters": {n: p.detach() for n, p in self.parameters.items()}}, temporary)

    def load(self, path: Path) -> None:
        with path.open("rb") as file:  # which may be a URL's
            held = torch.load(file, map_location="cpu", weights_only=True)
        self.step, self.curve = held["step"], held["curve"]
        self.optimizer.load_state_dict(held["optimizer"])
        with torch.no_grad():
            for name, parameter in self.parameters.items():
                parameter.copy_(held["parameters"][name])


def asked_of(settings: Finetune) -> dict:
    """What a result depends on, for the stage's key."""
    fields = type(settings).model_fields
    unused = {name: True for name in _LATER if getattr(settings, name) == fields[name].default}
    return settings.model_dump(exclude={**_NOT_RESULTS, **unused})


def rate(settings: Finetune, step: int, per_epoch: int, total: int) -> float:
    """The schedule's factor on the learning rate at `step` (0 is the first)."""
    if step < settings.warmup_steps:
        return (step + 1) / settings.warmup_steps
    if settings.schedule == "exponential":
        return settings.gamma ** (step // per_epoch)
    if settings.schedule == "cosine":
        done = (step - settings.warmup_steps) / max(1, total - settings.warmup_steps)
        return 0.5 * (1 + float(np.cos(np.pi * done)))
    return 1.0


def steps(settings: Finetune, n: int) -> tuple[int, int]:
    """Steps per epoch and in all. Batches are of equal size, at most batch_size; one text alone has no negatives."""
    per_epoch = max(1, min(-(-n // settings.batch_size), n // 2))
    return per_epoch, per_epoch * settings.epochs


def seen(curve: list[dict], step: int) -> bool:
    return any(point["split"] == "held_out" and point["step"] == step for point in curve)


def point(step: int, per_epoch: int, split: str, metric: str, value: float) -> dict:
    return {"step": step, "epoch": step / per_epoch, "split": split, "metric": metric, "value": value}


def write_curves(curve: list[dict], path: Path) -> None:
    with atomic(path) as temporary:
        pd.DataFrame(curve).to_csv(temporary, index=False)


def kept_files(folder: Path, epochs: list[int], last: int) -> list[str]:
    """Names of the files of the epochs that were kept."""
    names = [f"epoch-{epoch:03d}/{name}" for epoch in sorted(set(epochs)) if epoch <= last
             for name in (saved.WEIGHTS, saved.IMAGE_WEIGHTS, saved.CARD)]
    return [name for name in names if (folder / name).is_file()]
