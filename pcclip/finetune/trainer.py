"""Stage 03: tune the text tower so that f(text of difference) lies along g(image 1) - g(image 2).

Image vectors are cached, so the image tower never runs. The order of the batches is a function of seed and epoch,
dropout stays off and a checkpoint holds everything else, so a killed run continues on the same curve.
"""

import shutil
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import nn

from pcclip.comparisons import generate
from pcclip.comparisons.sentences import from_captions
from pcclip.data import ImageSet
from pcclip.embed import FOLDER as EMBED
from pcclip.embed import Vectors, shared_inputs
from pcclip.errors import PcclipError
from pcclip.finetune.losses import infonce, mse
from pcclip.models import saved
from pcclip.models.encoder import DualEncoder
from pcclip.params import Config, Finetune
from pcclip.progress import Meter, say
from pcclip.scores import beats, cosines, unit, zero_shot
from pcclip.stage import Stage, atomic, built_on

FOLDER, CURVES = "03_finetune", "curves.csv"
_FORMAT = 1


@dataclass(frozen=True)
class Examples:
    """What the objective sees: rows of image vectors, and the tokens of each difference and of its swapped twin."""

    first: np.ndarray
    second: np.ndarray
    tokens: list[list[int]]
    swapped: list[list[int]]
    texts: list[str]
    twins: list[str]

    def __len__(self) -> int:
        return len(self.first)


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
        held = torch.load(path, map_location="cpu", weights_only=True)
        self.step, self.curve = held["step"], held["curve"]
        self.optimizer.load_state_dict(held["optimizer"])
        with torch.no_grad():
            for name, parameter in self.parameters.items():
                parameter.copy_(held["parameters"][name])


def stage(config: Config, images: ImageSet | None = None) -> Stage:
    """Raises PcclipError when 01 or 02 has not finished."""
    return Stage(config.folder / FOLDER, {
        "format": _FORMAT, "finetune": config.finetune.model_dump(), "zero_shot": config.evaluate.zero_shot_prompt,
        **built_on(config.folder, (generate.FOLDER, EMBED), shared_inputs(config, images))})


def examples(config: Config, comparisons: pd.DataFrame, split: str, vectors: Vectors, model: DualEncoder) -> Examples:
    """The kept comparisons of one split whose two images have a vector, told apart by it."""
    table = generate.kept(comparisons, split)
    asked = len(table)
    table = table[vectors.has(table["first"], table["second"])]
    if config.finetune.comparisons == "template":
        texts = [from_captions(a, b) for a, b in zip(table.first_caption, table.second_caption, strict=True)]
        twins = [from_captions(b, a) for a, b in zip(table.first_caption, table.second_caption, strict=True)]
    else:
        texts, twins = list(table.difference), list(table.swapped)
    first, second = vectors.rows(table["first"]), vectors.rows(table["second"])
    apart = np.linalg.norm(vectors.matrix[first] - vectors.matrix[second], axis=1) > 1e-6
    keep = np.flatnonzero(apart)
    if len(keep) < asked:
        say(f"{FOLDER}: {asked - len(keep)} {split} comparisons left out: no vector for an image, or equal ones")
    tokens, swapped = model.tokens(texts), model.tokens(twins)
    return Examples(first[keep], second[keep], [tokens[i] for i in keep], [swapped[i] for i in keep],
                    [texts[i] for i in keep], [twins[i] for i in keep])


def finetune(
    config: Config, images: ImageSet, vectors: Vectors, comparisons: pd.DataFrame, model: DualEncoder
) -> pd.DataFrame:
    """Run the stage, or read its curves when done. The finetuned model is then `load_model(run folder)`.

    Returns:
        Curves with columns step, epoch, split ('train' or 'held_out'), metric, value.
    """
    this = stage(config, images)
    if this.done():
        say(f"{FOLDER}: done already, read from {this.folder}")
        return pd.read_csv(this.folder / CURVES)
    train = examples(config, comparisons, "train", vectors, model)
    held_out = examples(config, comparisons, "held_out", vectors, model)
    if len(train) < 2:
        raise PcclipError(f"{FOLDER}: {len(train)} training comparisons were kept; 01 must keep at least two")
    with this.work(), _own_text_tower(model):
        card = saved.describe(model)
        kept_epochs = _optimise(config, train, held_out, images, vectors, model, card, this)
        if not np.isfinite(model.encode_texts(train.texts[:1])).all():
            raise PcclipError(f"{FOLDER}: the last step left a text tower without numbers; lower finetune.lr")
        outputs = saved.save(model, {**card, "epoch": config.finetune.epochs}, this.folder)
        this.finish([*outputs, CURVES, *kept_epochs], {
            "train": len(train), "held_out": len(held_out), "steps": _steps(config.finetune, len(train))[1],
            "tuned_parameters": sum(p.numel() for p in model.tunable(config.finetune.tune).values()),
        }, model=card["base_text_tower"][:16])
    return pd.read_csv(this.folder / CURVES)


@contextmanager
def _own_text_tower(model: DualEncoder):
    """Tune a copy, so that the model which was handed in stays the base, also after an interrupted cell."""
    base = model.text_tower
    model.text_tower = deepcopy(base)
    try:
        yield
    finally:
        model.text_tower = base


def _optimise(config: Config, train, held_out, images, vectors, model, card, this: Stage) -> list[str]:
    """The loop: from the last checkpoint to the last step. Returns the files of the epochs that were kept."""
    settings, device = config.finetune, model.device
    per_epoch, total = _steps(settings, len(train))
    log_temperature = nn.Parameter(torch.tensor(np.log(settings.temperature), dtype=torch.float32, device=device))
    state = _start(settings, model, log_temperature)
    checkpoint = this.partial / "checkpoint.pt"
    if not checkpoint.is_file():
        for old in this.folder.glob("epoch-*"):
            shutil.rmtree(old)  # of other parameters
    else:
        state.load(checkpoint)
        say(f"{FOLDER}: continuing at step {state.step} of {total}")
    matrix = torch.from_numpy(vectors.matrix).to(device)
    meter = Meter(total - state.step, "steps")
    while True:
        epoch, k = divmod(state.step, per_epoch)
        last = state.step == total
        if (state.step % settings.evaluate_every == 0 or last) and not _seen(state.curve, state.step):
            temperature = float(log_temperature.detach().exp())
            values = held_out_values(config, held_out, images, vectors, model, temperature)
            state.curve += [_point(state.step, per_epoch, "held_out", name, value) for name, value in values.items()]
        if k == 0 and epoch in settings.keep_epochs:
            saved.save(model, {**card, "epoch": epoch}, this.folder / f"epoch-{epoch:03d}")
        if (state.step % settings.checkpoint_every == 0 and state.step) or last:
            state.save(checkpoint)
            _write_curves(state.curve, this.folder / CURVES)
        if last:
            return _kept_files(this.folder, settings.keep_epochs, total // per_epoch)
        rows = np.array_split(np.random.default_rng([config.seed, epoch]).permutation(len(train)), per_epoch)[k]
        for group in state.optimizer.param_groups:
            group["lr"] = settings.lr * rate(settings, state.step, per_epoch, total)
        loss, accuracy = _step(settings, model, train, rows, matrix, log_temperature, state.optimizer)
        if not np.isfinite(loss):
            raise PcclipError(f"{FOLDER}: the loss became {loss} at step {state.step}; lower finetune.lr")
        state.step += 1
        state.curve += [_point(state.step, per_epoch, "train", "loss", loss),
                        _point(state.step, per_epoch, "train", "in_batch_accuracy", accuracy)]
        meter.add(1, f"loss {loss:.3f}, in-batch accuracy {accuracy:.2f}")


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


def held_out_values(config, held_out: Examples, images, vectors, model, temperature) -> dict[str, float]:
    """One point of the held-out curve: the run's own objective in batches of its size, and two accuracies."""
    settings, values = config.finetune, {}
    if len(held_out) >= 2:
        w, twins = model.encode_texts(held_out.texts), model.encode_texts(held_out.twins) if settings.swap else None
        difference = vectors.matrix[held_out.first] - vectors.matrix[held_out.second]
        losses, accuracies, sizes = [], [], []
        for rows in np.array_split(np.arange(len(held_out)), _steps(settings, len(held_out))[0]):
            texts = np.concatenate([w[rows], twins[rows]]) if settings.swap else w[rows]
            lines = np.concatenate([difference[rows], -difference[rows]]) if settings.swap else difference[rows]
            loss, accuracy = _objective(settings, torch.from_numpy(texts), torch.from_numpy(lines), temperature)
            losses, accuracies, sizes = [*losses, float(loss)], [*accuracies, float(accuracy)], [*sizes, len(rows)]
        values = {"loss": float(np.average(losses, weights=sizes)),
                  "in_batch_accuracy": float(np.average(accuracies, weights=sizes)),
                  "difference_accuracy": float(beats(cosines(w, unit(difference)), 0.0).mean())}
    labelled = vectors.of(images.held_out[images.held_out.label.notna()])
    if images.classes and len(labelled):
        texts = model.encode_texts([config.evaluate.zero_shot_prompt.format(name) for name in images.classes])
        found = zero_shot(vectors.matrix[vectors.rows(labelled["id"])], texts)
        values["zero_shot_accuracy"] = float((np.array(images.classes)[found] == labelled.label.to_numpy()).mean())
    return values


def _start(settings: Finetune, model: DualEncoder, log_temperature: nn.Parameter) -> State:
    model.text_tower.requires_grad_(False)
    tuned = model.tunable(settings.tune)
    for parameter in tuned.values():
        parameter.requires_grad_(True)
    parameters = dict(tuned)
    if settings.learn_temperature:
        parameters["log_temperature"] = log_temperature
    kind = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[settings.optimizer]
    optimizer = kind(parameters.values(), lr=settings.lr, weight_decay=settings.weight_decay)
    return State(parameters, optimizer)


def _step(settings, model, train, rows, matrix, log_temperature, optimizer) -> tuple[float, float]:
    tokens = [train.tokens[i] for i in rows] + ([train.swapped[i] for i in rows] if settings.swap else [])
    first = torch.as_tensor(train.first[rows], device=matrix.device)
    second = torch.as_tensor(train.second[rows], device=matrix.device)
    difference = matrix[first] - matrix[second]
    if settings.swap:
        difference = torch.cat([difference, -difference])
    with torch.autocast(matrix.device.type, torch.bfloat16, enabled=settings.precision == "bf16"):
        features = model.text_features(model.batch(tokens))
    w = nn.functional.normalize(features.float(), dim=-1)
    loss, accuracy = _objective(settings, w, difference, log_temperature.exp())
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    optimizer.step()
    return float(loss.detach()), float(accuracy)


def _objective(settings: Finetune, w, difference, temperature):
    if settings.objective == "mse":
        return mse(w, difference)
    return infonce(w, nn.functional.normalize(difference, dim=-1), temperature)


def _steps(settings: Finetune, n: int) -> tuple[int, int]:
    """Steps per epoch and in all. Batches are of equal size, at most batch_size; one text alone has no negatives."""
    per_epoch = max(1, min(-(-n // settings.batch_size), n // 2))
    return per_epoch, per_epoch * settings.epochs


def _seen(curve: list[dict], step: int) -> bool:
    return any(point["split"] == "held_out" and point["step"] == step for point in curve)


def _point(step: int, per_epoch: int, split: str, metric: str, value: float) -> dict:
    return {"step": step, "epoch": step / per_epoch, "split": split, "metric": metric, "value": value}


def _write_curves(curve: list[dict], path: Path) -> None:
    with atomic(path) as temporary:
        pd.DataFrame(curve).to_csv(temporary, index=False)


def _kept_files(folder: Path, epochs: list[int], last: int) -> list[str]:
    return [f"epoch-{epoch:03d}/{name}" for epoch in sorted(set(epochs)) if epoch <= last
            for name in (saved.WEIGHTS, saved.CARD)]
