"""Stage 03: tune the text tower so that f(text of difference) lies along g(image 1) - g(image 2).

Image vectors are cached, so the image tower never runs. The order of the batches is a function of seed and epoch,
dropout stays off and a checkpoint holds everything else, so a killed run continues on the same curve.
"""

import shutil
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import nn

from pcclip.comparisons import generate
from pcclip.comparisons.attributes import load_bank
from pcclip.data import ImageSet
from pcclip.embed import FOLDER as EMBED
from pcclip.embed import Vectors, shared_inputs
from pcclip.errors import PcclipError
from pcclip.finetune import gradcache, lora
from pcclip.finetune.examples import (
    Asked,
    AttributeExamples,
    Examples,
    Replayed,
    of_captions,
    of_comparisons,
    of_verdicts,
    plain_texts,
)
from pcclip.finetune.losses import attribute, infonce, mse, replay, shared_images
from pcclip.finetune.precision import autocast, has_bf16
from pcclip.models import saved
from pcclip.models.encoder import DualEncoder
from pcclip.models.tokens import Tokens
from pcclip.params import Config, Finetune
from pcclip.progress import Meter, say
from pcclip.scores import beats, cosines, image_differences, zero_shot
from pcclip.stage import Stage, atomic, built_on

FOLDER, CURVES = "03_finetune", "curves.csv"
_FORMAT = 2  # raise it when draws or numbers change: old stages are then done again
_NOT_RESULTS = {"micro_batch"}  # may change between a run and its continuation


@dataclass(frozen=True)
class Given:
    """All that the loop reads: what is trained on, what is only looked at, and the image vectors of both."""

    train: Examples
    held_out: Examples
    comparisons: Examples  # of the held-out images, for difference accuracy whatever the objective
    attributes: AttributeExamples | None
    replayed: Replayed | None
    matrix: torch.Tensor  # on the model's device: the image vectors, and below them the nouns of `attributes`
    images: ImageSet
    vectors: Vectors


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
    asks = {"attributes": load_bank(config.generate.attributes).hash} if (
        config.finetune.attribute_weight and config.generate.attributes) else {}
    return Stage(config.folder / FOLDER, {
        "format": _FORMAT, "finetune": config.finetune.model_dump(exclude=_NOT_RESULTS),
        "zero_shot": config.evaluate.zero_shot_prompt, **asks,
        **built_on((config.source_folder / generate.FOLDER, config.source_folder / EMBED),
                   shared_inputs(config, images))})


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
    given = _gather(config, images, vectors, comparisons, model)
    if len(given.train) < 2:
        raise PcclipError(f"{FOLDER}: {len(given.train)} training texts were kept; 01 must keep at least two")
    if config.finetune.precision == "bf16" and not has_bf16(model.device):
        say(f"{FOLDER}: this {model.device.type} has no instructions for bf16, so fp32 would be faster: "
            "finetune.precision: fp32")
    with this.work(), _own_text_tower(model):
        card = saved.describe(model)
        kept_epochs, tuned = _optimise(config, given, model, card, this)
        if not np.isfinite(model.encode_texts(given.train.texts[:1])).all():
            raise PcclipError(f"{FOLDER}: the last step left a text tower without numbers; lower finetune.lr")
        outputs = saved.save(model, {**card, "epoch": config.finetune.epochs}, this.folder)
        this.finish([*outputs, CURVES, *kept_epochs], {
            "train": len(given.train), "held_out": len(given.held_out),
            "steps": _steps(config.finetune, len(given.train))[1], "tuned_parameters": tuned,
            "verdicts": len(given.attributes) if given.attributes else 0,
        }, model=card["base_text_tower"][:16])
    return pd.read_csv(this.folder / CURVES)


def _gather(config: Config, images: ImageSet, vectors: Vectors, comparisons: pd.DataFrame, model: DualEncoder) -> Given:
    """Everything the loop reads, made before the text tower changes."""
    settings = config.finetune
    pairs = {split: of_comparisons(config, comparisons, split, vectors, model) for split in ("train", "held_out")}
    texts = pairs
    if settings.objective == "captions":
        texts = {split: of_captions(config, images, split, vectors, model) for split in pairs}
    attributes = of_verdicts(config, vectors, model) if settings.attribute_weight else None
    return Given(
        train=texts["train"], held_out=texts["held_out"], comparisons=pairs["held_out"], attributes=attributes,
        replayed=_replayed(config, images, model) if settings.replay else None,
        matrix=_on_device(model.device, vectors.matrix, *([attributes.nouns] if attributes else [])),
        images=images, vectors=vectors)


def _replayed(config: Config, images: ImageSet, model: DualEncoder) -> Replayed | None:
    kinds = plain_texts(config, images)
    tokens = model.tokenised([text for texts in kinds for text in texts])
    if not len(tokens):
        return None
    base = torch.from_numpy(_encoded(config.finetune, model, tokens)).to(model.device)
    return Replayed(tokens, np.repeat(np.arange(len(kinds)), [len(texts) for texts in kinds]), base)


def _on_device(device: torch.device, *parts: np.ndarray) -> torch.Tensor:
    """Rows of all parts, without another copy of them there."""
    if len(parts) == 1:
        return torch.from_numpy(parts[0]).to(device)
    matrix = torch.empty(sum(map(len, parts)), parts[0].shape[1], device=device)
    for rows, part in zip(matrix.split([len(part) for part in parts]), parts, strict=True):
        rows.copy_(torch.from_numpy(part))
    return matrix


@contextmanager
def _own_text_tower(model: DualEncoder):
    """Tune a copy, so that the model which was handed in stays the base, also after an interrupted cell."""
    base = model.text_tower
    model.text_tower = deepcopy(base)
    try:
        yield
    finally:
        model.text_tower = base


def _optimise(config: Config, given: Given, model, card, this: Stage) -> tuple[list[str], int]:
    """The loop: from the last checkpoint to the last step. Returns files of kept epochs, and how many values learn."""
    settings = config.finetune
    per_epoch, total = _steps(settings, len(given.train))
    log_temperature = nn.Parameter(
        torch.tensor(np.log(settings.temperature), dtype=torch.float32, device=model.device))
    state = _start(config, model, log_temperature)
    checkpoint = this.partial / "checkpoint.pt"
    if not checkpoint.is_file():
        for old in this.folder.glob("epoch-*"):
            shutil.rmtree(old)  # of other parameters
    else:
        state.load(checkpoint)
        say(f"{FOLDER}: continuing at step {state.step} of {total}")
    meter = Meter(total - state.step, "steps")
    while True:
        epoch, k = divmod(state.step, per_epoch)
        last = state.step == total
        if (state.step % settings.evaluate_every == 0 or last) and not _seen(state.curve, state.step):
            values = held_out_values(config, given, model, float(log_temperature.detach().exp()))
            state.curve += [_point(state.step, per_epoch, "held_out", name, value) for name, value in values.items()]
        if k == 0 and epoch in settings.keep_epochs:
            with lora.merged(model):
                saved.save(model, {**card, "epoch": epoch}, this.folder / f"epoch-{epoch:03d}")
        if (state.step % settings.checkpoint_every == 0 and state.step) or last:
            state.save(checkpoint)
            _write_curves(state.curve, this.folder / CURVES)
        if last:
            lora.merge(model)
            return (_kept_files(this.folder, settings.keep_epochs, total // per_epoch),
                    sum(p.numel() for p in state.parameters.values()))
        rows = np.array_split(
            np.random.default_rng([config.seed, epoch]).permutation(len(given.train)), per_epoch)[k]
        for group in state.optimizer.param_groups:
            group["lr"] = settings.lr * rate(settings, state.step, per_epoch, total)
        terms = _step(config, model, given, rows, state.step, log_temperature, state.optimizer)
        if not np.isfinite(terms["loss"]):
            raise PcclipError(f"{FOLDER}: the loss became {terms['loss']} at step {state.step}; lower finetune.lr")
        state.step += 1
        state.curve += [_point(state.step, per_epoch, "train", name, value) for name, value in terms.items()]
        meter.add(1, f"loss {terms['loss']:.3f}, in-batch accuracy {terms['in_batch_accuracy']:.2f}")


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


def held_out_values(config: Config, given: Given, model: DualEncoder, temperature: float) -> dict[str, float]:
    """One point of the held-out curve: the run's own objective in batches of its size, and two accuracies."""
    settings, values = config.finetune, {}
    held_out = _encoded(settings, model, given.held_out.tokens) if len(given.held_out) else None
    if len(given.held_out) >= 2:
        losses, accuracies, sizes = [], [], []
        w = torch.from_numpy(held_out).to(given.matrix.device)
        twins = torch.from_numpy(
            _encoded(settings, model, given.held_out.twin_tokens)).to(w) if _swaps(settings) else None
        for rows in np.array_split(np.arange(len(w)), _steps(settings, len(w))[0]):
            texts = w[rows] if twins is None else torch.cat([w[rows], twins[rows]])
            loss, accuracy = _objective(settings, texts, given.held_out, rows, given.matrix, temperature)
            losses, accuracies, sizes = [*losses, float(loss)], [*accuracies, float(accuracy)], [*sizes, len(rows)]
        values = {"loss": float(np.average(losses, weights=sizes)),
                  "in_batch_accuracy": float(np.average(accuracies, weights=sizes))}
    if len(given.comparisons):
        pairs = given.comparisons
        v = image_differences(given.vectors.matrix, pairs.first, pairs.second)
        w = held_out if pairs is given.held_out else _encoded(settings, model, pairs.tokens)
        values["difference_accuracy"] = float(beats(cosines(w, v), 0.0).mean())
    images = given.images
    labelled = given.vectors.of(images.held_out[images.held_out.label.notna()])
    if images.classes and len(labelled):
        texts = _encoded(settings, model, model.tokenised(
            [config.evaluate.zero_shot_prompt.format(name) for name in images.classes]))
        found = zero_shot(given.vectors.matrix[given.vectors.rows(labelled["id"])], texts)
        values["zero_shot_accuracy"] = float((np.array(images.classes)[found] == labelled.label.to_numpy()).mean())
    return values


def _start(config: Config, model: DualEncoder, log_temperature: nn.Parameter) -> State:
    settings = config.finetune
    model.text_tower.requires_grad_(False)
    if settings.tune == "lora":
        parameters = lora.add(model, settings.lora_rank, config.seed)
    else:
        parameters = dict(model.tunable(settings.tune))
    for parameter in parameters.values():
        parameter.requires_grad_(True)
    if settings.learn_temperature:
        parameters["log_temperature"] = log_temperature
    kind = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[settings.optimizer]
    optimizer = kind(parameters.values(), lr=settings.lr, weight_decay=settings.weight_decay,
                     fused=model.device.type in ("cpu", "cuda"))
    return State(parameters, optimizer)


def _step(
    config: Config, model: DualEncoder, given: Given, rows: np.ndarray, step: int, log_temperature, optimizer
) -> dict[str, float]:
    """One optimiser step. Returns its loss, in-batch accuracy, and each added term by name."""
    settings, train = config.finetune, given.train
    draw = np.random.default_rng([config.seed, step, 1])
    texts = [train.tokens[rows]] + ([train.twin_tokens[rows]] if _swaps(settings) else [])
    own = sum(map(len, texts))
    asked = replayed = None
    if given.attributes is not None and len(given.attributes):
        asked = given.attributes.draw(settings.attribute_batch, settings.attribute_paraphrases, draw)
        texts.append(asked.tokens)
    if given.replayed is not None:
        replayed = given.replayed.draw(settings.replay_batch, draw)
        texts.append(given.replayed.tokens[replayed])

    def terms(vectors: torch.Tensor) -> dict[str, torch.Tensor]:
        w, said, now = vectors.split([own, len(asked.tokens) if asked else 0, 0 if replayed is None else len(replayed)])
        loss, accuracy = _objective(settings, w, train, rows, given.matrix, log_temperature.exp())
        added = {}
        if asked:
            added["attribute"] = _attribute_term(settings, given, asked, said)
            loss = loss + settings.attribute_weight * added["attribute"]
        if replayed is not None:
            added["replay"] = replay(now, given.replayed.base[torch.from_numpy(replayed).to(now.device)])
            loss = loss + settings.replay * added["replay"]
        return {"loss": loss, "in_batch_accuracy": accuracy, **added}

    optimizer.zero_grad(set_to_none=True)
    found = gradcache.backward(
        partial(_unit_texts, settings, model), Tokens.joined(texts), terms, settings.micro_batch)
    optimizer.step()
    return {name: float(value.detach()) for name, value in found.items()}


def _attribute_term(settings: Finetune, given: Given, asked: Asked, said: torch.Tensor) -> torch.Tensor:
    """The attribute term over the verdicts that were drawn, from the unit vectors of the texts that ask for them."""
    up, down = said.chunk(2)
    v = nn.functional.normalize(given.attributes.differences(given.matrix, asked.rows), dim=-1)
    text, target = (torch.from_numpy(x).to(v.device) for x in (asked.text, given.attributes.target[asked.rows]))
    return attribute(up[text], down[text], v, target, settings.attribute_temperature, settings.attribute_antisymmetric)


def _encoded(settings: Finetune, model: DualEncoder, tokens: Tokens) -> np.ndarray:
    """Unit vectors in the precision of the run, without gradients."""
    with autocast(settings.precision, model.device):
        return model.encode_tokens(tokens)


def _unit_texts(settings: Finetune, model: DualEncoder, tokens: Tokens) -> torch.Tensor:
    with autocast(settings.precision, model.device):
        features = model.features(tokens)
    return nn.functional.normalize(features.float(), dim=-1)


def _objective(settings: Finetune, w, examples: Examples, rows: np.ndarray, matrix, temperature):
    """Loss and in-batch accuracy of the texts `w` of `rows`, followed by their twins where the run swaps."""
    target, swap = examples.targets(matrix, rows), _swaps(settings)
    if swap:
        target = torch.cat([target, -target])
    if settings.objective == "mse":
        return mse(w, target)
    ignore = None
    if settings.mask_shared:
        first = torch.as_tensor(examples.first[rows], device=matrix.device)
        second = first if examples.second is None else torch.as_tensor(examples.second[rows], device=matrix.device)
        ignore = partial(shared_images, first, second, swap)
    return infonce(w, nn.functional.normalize(target, dim=-1), temperature, ignore)


def _swaps(settings: Finetune) -> bool:
    return settings.swap and settings.objective != "captions"


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
