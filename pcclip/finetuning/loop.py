"""The training loop of stage 03, its learning-rate schedule, and everything that a checkpoint holds."""

import shutil
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from pcclip.config import Config, Finetune
from pcclip.encoders import saved
from pcclip.encoders.dual_encoder import Encoder, Tower
from pcclip.encoders.tokens import Tokens
from pcclip.errors import PcclipError
from pcclip.finetuning import distributed, lora
from pcclip.finetuning.precision import autocast
from pcclip.runs.files import read_checkpoint, write_checkpoint, write_csv
from pcclip.runs.progress import Meter, say
from pcclip.stats.random_streams import stream

CURVES = "curves.csv"


@dataclass
class State:
    """Everything that changes while training, which is what a checkpoint holds."""

    parameters: dict[str, nn.Parameter]
    optimizer: torch.optim.Optimizer
    step: int = 0
    curve: list[dict] = field(default_factory=list)  # rows with step, epoch, split, metric, value
    rates: list[float] = field(init=False)  # each parameter group's learning rate before any schedule

    def __post_init__(self) -> None:
        self.rates = [group["lr"] for group in self.optimizer.param_groups]

    def add_group(self, parameters: dict[str, nn.Parameter], lr: float, weight_decay: float) -> None:
        """Train more parameters, at a learning rate and weight decay of their own."""
        self.parameters |= parameters
        self.optimizer.add_param_group({"params": list(parameters.values()), "lr": lr, "weight_decay": weight_decay})
        self.rates.append(lr)

    def save(self, path: Path) -> None:
        write_checkpoint(
            path,
            {
                "step": self.step,
                "curve": self.curve,
                "optimizer": self.optimizer.state_dict(),
                "parameters": {name: p.detach() for name, p in self.parameters.items()},
            },
        )

    def load(self, path: Path) -> None:
        checkpoint = read_checkpoint(path)
        self.step, self.curve = checkpoint["step"], checkpoint["curve"]
        self.optimizer.load_state_dict(checkpoint["optimizer"])
        with torch.no_grad():
            for name, parameter in self.parameters.items():
                parameter.copy_(checkpoint["parameters"][name])

    def resume(self, checkpoint: Path, folder: Path, total: int) -> None:
        """Load the checkpoint if it exists; otherwise delete epoch folders left by a run with other parameters."""
        if distributed.of_first(checkpoint.is_file()):
            self.load(checkpoint)
            say(f"{folder.name}: continuing at step {self.step} of {total}")
        elif distributed.is_first():
            for epoch_folder in folder.glob("epoch-*"):
                shutil.rmtree(epoch_folder)

    def add(self, step: int, per_epoch: int, split: str, values: dict[str, float]) -> None:
        """Append one point of the curve, a row for each metric."""
        self.curve += [
            {"step": step, "epoch": step / per_epoch, "split": split, "metric": metric, "value": value}
            for metric, value in values.items()
        ]


class Training(ABC):
    """One training in progress: a model, the data of its steps, and how a step and a held-out point are computed.

    It is none of the eight words because it lives only while stage 03 runs: `train` takes it from its checkpoint to
    the last step. Text-only and two-tower training are its two kinds.

    Attributes:
        card: describes the base model, to be saved beside the trained one.
        size: number of training texts (text tower) or images (both towers); an epoch sees each once.
        log_temperature: log of the contrastive temperature tau.
        state: parameters, optimiser and curve.
    """

    towers: tuple[Tower, ...]

    def __init__(self, config: Config, model: Encoder, size: int):
        self.config, self.settings, self.model, self.size = config, config.finetune, model, size
        self.card = saved.describe(model)
        self.log_temperature = nn.Parameter(
            torch.tensor(np.log(self.settings.temperature), dtype=torch.float32, device=model.device),
            requires_grad=self.settings.learn_temperature,
        )
        parameters = learned(config, model, self.towers)
        if self.settings.learn_temperature:
            parameters["log_temperature"] = self.log_temperature
        settings, kinds = self.settings, {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}
        optimizer = kinds[settings.optimizer](
            parameters.values(),
            lr=settings.lr,
            weight_decay=settings.weight_decay,
            fused=model.device.type in ("cpu", "cuda"),
        )
        self.state = State(parameters, optimizer)

    @abstractmethod
    def batches(self, first: int, last: int) -> Iterator[Any]:
        """The batches of steps `first` to `last` - 1, a function of seed and step alone."""

    @abstractmethod
    def step(self, batch: Any) -> dict[str, float]:
        """One optimiser step. Returns `loss`, `in_batch_accuracy` and each term by name."""

    @abstractmethod
    def held_out(self) -> dict[str, float]:
        """One point of the held-out curve."""

    def prepare(self) -> None:
        """What comes before the first step."""
        return

    def finish(self, folder: Path) -> list[str]:
        """Save everything learned beside the towers. Returns the names of the files it wrote to `folder`."""
        return []

    @property
    def counts(self) -> dict[str, int]:
        """Counts for the manifest."""
        tuned = sum(parameter.numel() for parameter in self.state.parameters.values())
        return {"train": self.size, "steps": steps(self.settings, self.size)[1], "tuned_parameters": tuned}

    @property
    def temperature(self) -> float:
        return float(self.log_temperature.detach().exp())

    def text_vectors(self, tokens: Tokens) -> Float[Tensor, "n d"]:
        """Unit text vectors in fp32 with gradients, the tower in the precision of the run."""
        with autocast(self.settings.precision, self.model.device):
            features = self.model.features(tokens)
        return nn.functional.normalize(features.float(), dim=-1)


def train(training: Training, folder: Path, checkpoint: Path, keep: Callable[[int], None]) -> None:
    """Train from `training.state` to the last step.

    Args:
        folder: where the curve is written.
        checkpoint: file that a killed run continues from.
        keep: saves the model of an epoch; called in the first process.

    Raises:
        PcclipError: a loss is no number.
    """
    settings, state = training.settings, training.state
    per_epoch, total = steps(settings, training.size)
    batches = training.batches(state.step, total)
    meter = Meter(total - state.step, "steps")
    writer, tracked = settings.tracker and summary_writer(), len(state.curve)
    while True:
        epoch, step_of_epoch = divmod(state.step, per_epoch)
        last = state.step == total
        has_point = any(point["split"] == "held_out" and point["step"] == state.step for point in state.curve)
        if (state.step % settings.evaluate_every == 0 or last) and not has_point:
            state.add(state.step, per_epoch, "held_out", training.held_out())
        if step_of_epoch == 0 and epoch in settings.keep_epochs and distributed.is_first():
            keep(epoch)
        if ((state.step % settings.checkpoint_every == 0 and state.step) or last) and distributed.is_first():
            state.save(checkpoint)
            write_csv(folder / CURVES, pd.DataFrame(state.curve))
            if writer and len(state.curve) > tracked:  # a file for each checkpoint: a killed run sends no point twice
                with writer(str(folder / "tensorboard"), filename_suffix=f".{state.step}") as events:
                    for row in state.curve[tracked:]:
                        events.add_scalar(f"{row['split']}/{row['metric']}", row["value"], row["step"])
                tracked = len(state.curve)
        if last:
            return
        for group, lr in zip(state.optimizer.param_groups, state.rates, strict=True):
            group["lr"] = lr * rate(settings, state.step, per_epoch, total)
        terms = training.step(next(batches))
        if not np.isfinite(terms["loss"]):
            raise PcclipError(f"{folder.name}: the loss became {terms['loss']} at step {state.step}; lower finetune.lr")
        state.step += 1
        state.add(state.step, per_epoch, "train", terms)
        meter.add(1, f"loss {terms['loss']:.3f}, in-batch accuracy {terms['in_batch_accuracy']:.2f}")


@contextmanager
def copied_towers(model: Encoder, towers: Iterable[Tower]) -> Iterator[None]:
    """Train copies, so that the caller's model stays the base, also after an interrupted cell."""
    base = {f"{tower}_tower": getattr(model, f"{tower}_tower") for tower in towers}
    for name, tower in base.items():
        setattr(model, name, deepcopy(tower))
    try:
        yield
    finally:
        for name, tower in base.items():
            setattr(model, name, tower)


def learned(config: Config, model: Encoder, towers: Iterable[Tower]) -> dict[str, nn.Parameter]:
    """The parameters that finetune.tune names in these towers, by name within the model; all others are frozen.

    Raises PcclipError when a tower has none.
    """
    settings, parameters = config.finetune, dict[str, nn.Parameter]()
    for tower in towers:
        getattr(model, f"{tower}_tower").requires_grad_(False)
        if settings.tune == "lora":
            tunable = lora.add(model, settings.lora_rank, config.seed, tower)
        else:
            tunable = model.tunable(settings.tune, tower)
        if not tunable:
            raise PcclipError(f"finetune.tune = {settings.tune}: the {tower} tower has nothing of it; choose another")
        parameters |= {f"{tower}_tower.{name}": parameter for name, parameter in tunable.items()}
    for parameter in parameters.values():
        parameter.requires_grad_(True)
    return parameters


def rate(settings: Finetune, step: int, per_epoch: int, total: int) -> float:
    """The schedule's factor on the learning rate at `step` (0 is the first)."""
    if step < settings.warmup_steps:
        return (step + 1) / settings.warmup_steps
    if settings.schedule == "exponential":
        return settings.gamma ** (step // per_epoch)
    if settings.schedule == "cosine":
        progress = (step - settings.warmup_steps) / max(1, total - settings.warmup_steps)
        return 0.5 * (1 + float(np.cos(np.pi * progress)))
    return 1.0


def steps(settings: Finetune, size: int) -> tuple[int, int]:
    """Steps per epoch and in all. Batches are of equal size, at most batch_size; one text alone has no negatives."""
    per_epoch = max(1, min(-(-size // settings.batch_size), size // 2))
    return per_epoch, per_epoch * settings.epochs


def batch_rows(config: Config, step: int, size: int) -> Int[np.ndarray, " b"]:
    """Rows of the batch of `step`: each epoch has an order of its own, cut into batches of equal size."""
    per_epoch, _ = steps(config.finetune, size)
    epoch, number = divmod(step, per_epoch)
    return _epoch_rows(config.seed, epoch, size, per_epoch)[number]


@lru_cache(maxsize=2)  # drawn for each step, they would take as long as the square of the size
def _epoch_rows(seed: int, epoch: int, size: int, per_epoch: int) -> list[Int[np.ndarray, " b"]]:
    return np.array_split(stream("batch order", seed, epoch).permutation(size), per_epoch)


def mean_over_batches(
    settings: Finetune, size: int, objective: Callable[[Int[np.ndarray, " b"]], tuple[Tensor, Tensor]]
) -> tuple[float, float]:
    """Mean loss and in-batch accuracy over `size` held-out rows, in batches of the run's size.

    `objective` returns the loss and the accuracy of the batch with the given rows.
    """
    batches = np.array_split(np.arange(size), steps(settings, size)[0])
    losses, accuracies = zip(*(map(float, objective(rows)) for rows in batches), strict=True)
    sizes = [len(rows) for rows in batches]
    return float(np.average(losses, weights=sizes)), float(np.average(accuracies, weights=sizes))


def summary_writer() -> Any:
    """TensorBoard's writer of event files. Raises PcclipError when its package is not installed."""
    try:
        from tensorboardX import SummaryWriter
    except ImportError:
        raise PcclipError("finetune.tracker = tensorboard needs tensorboardX: pip install tensorboardX") from None
    return SummaryWriter
