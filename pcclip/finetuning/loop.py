"""The training loop of stage 03, whatever it learns, and what it keeps: parameters, optimiser and curve."""

import shutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import nn

from pcclip.config import Finetune
from pcclip.encoders import saved
from pcclip.errors import PcclipError
from pcclip.finetuning import distributed
from pcclip.runs.files import atomic
from pcclip.runs.progress import Meter, say

CURVES = "curves.csv"
_NOT_RESULTS = {
    **dict.fromkeys(["micro_batch", "processes", "launcher"], True),  # may change between a run and its
    "sds": {"micro_batch", "checkpointing"},
}  # continuation
_LATER = ("difference", "difference_temperature", "difference_batch", "sds", "negatives")  # older runs stay done


@dataclass
class State:
    """Everything that changes while training; what a checkpoint holds."""

    parameters: dict[str, nn.Parameter]
    optimizer: torch.optim.Optimizer
    step: int = 0
    curve: list[dict] = field(default_factory=list)
    rates: list[float] = field(init=False)  # each group's learning rate before any schedule

    def __post_init__(self):
        self.rates = [group["lr"] for group in self.optimizer.param_groups]

    def resume(self, checkpoint: Path, folder: Path, total: int) -> None:
        """Continue from the checkpoint; without one, what is left of other parameters' epochs goes."""
        if distributed.of_first(checkpoint.is_file()):
            self.load(checkpoint)
            say(f"{folder.name}: continuing at step {self.step} of {total}")
        elif distributed.is_first():
            for old in folder.glob("epoch-*"):
                shutil.rmtree(old)

    def save(self, path: Path) -> None:
        with atomic(path) as temporary:
            torch.save(
                {
                    "step": self.step,
                    "curve": self.curve,
                    "optimizer": self.optimizer.state_dict(),
                    "parameters": {n: p.detach() for n, p in self.parameters.items()},
                },
                temporary,
            )

    def load(self, path: Path) -> None:
        with path.open("rb") as file:  # which may be a URL's
            held = torch.load(file, map_location="cpu", weights_only=True)
        self.step, self.curve = held["step"], held["curve"]
        self.optimizer.load_state_dict(held["optimizer"])
        with torch.no_grad():
            for name, parameter in self.parameters.items():
                parameter.copy_(held["parameters"][name])


def optimizer_of(settings: Finetune, parameters: Iterable, device: torch.device) -> torch.optim.Optimizer:
    """Adam or AdamW as the run asks, for parameters or groups of them."""
    kind = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[settings.optimizer]
    return kind(parameters, lr=settings.lr, weight_decay=settings.weight_decay, fused=device.type in ("cpu", "cuda"))


def loop(
    settings: Finetune,
    state: State,
    n: int,
    folder: Path,
    checkpoint: Path,
    step: Callable[[int, int], dict[str, float]],
    look: Callable[[], dict[str, float]],
    keep: Callable[[int], None],
) -> None:
    """From where `state` is to the last step: each step, each look, each epoch to keep, and checkpoints.

    Args:
        n: training texts, of which an epoch sees each once.
        folder: where the curve is written.
        step: one optimiser step, for an epoch and the number of a batch in it; its loss, other terms, and
            in_batch_accuracy.
        look: one point of the held-out curve.
        keep: saves the model of an epoch, in the first process.

    Raises PcclipError when a loss is no number.
    """
    per_epoch, total = steps(settings, n)
    meter = Meter(total - state.step, "steps")
    while True:
        epoch, k = divmod(state.step, per_epoch)
        last = state.step == total
        if (state.step % settings.evaluate_every == 0 or last) and not seen(state.curve, state.step):
            state.curve += [point(state.step, per_epoch, "held_out", *value) for value in look().items()]
        if k == 0 and epoch in settings.keep_epochs and distributed.is_first():
            keep(epoch)
        if ((state.step % settings.checkpoint_every == 0 and state.step) or last) and distributed.is_first():
            state.save(checkpoint)
            write_curves(state.curve, folder / CURVES)
        if last:
            return
        for group, lr in zip(state.optimizer.param_groups, state.rates, strict=True):
            group["lr"] = lr * rate(settings, state.step, per_epoch, total)
        terms = step(epoch, k)
        if not np.isfinite(terms["loss"]):
            raise PcclipError(f"{folder.name}: the loss became {terms['loss']} at step {state.step}; lower finetune.lr")
        state.step += 1
        state.curve += [point(state.step, per_epoch, "train", *term) for term in terms.items()]
        meter.add(1, f"loss {terms['loss']:.3f}, in-batch accuracy {terms['in_batch_accuracy']:.2f}")


def batch_of(seed: int, epoch: int, k: int, n: int, per_epoch: int) -> np.ndarray:
    """Rows of the k-th batch of an epoch: of n in an order of its own, in parts of equal size."""
    return np.array_split(np.random.default_rng([seed, epoch]).permutation(n), per_epoch)[k]


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
    names = [
        f"epoch-{epoch:03d}/{name}"
        for epoch in sorted(set(epochs))
        if epoch <= last
        for name in (saved.WEIGHTS, saved.IMAGE_WEIGHTS, saved.CARD)
    ]
    return [name for name in names if (folder / name).is_file()]
