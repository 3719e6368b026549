"""Stage 03: tune the text tower so that f(text of difference) lies along g(image 1) - g(image 2).

Image vectors are cached, so the image tower never runs. The order of the batches is a function of seed and epoch,
dropout stays off and a checkpoint holds everything else, so a killed run continues on the same curve.
"""

from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass
from functools import partial

import numpy as np
import pandas as pd
import torch
from torch import nn

from pcclip.config import Config, Finetune
from pcclip.data.image_set import ImageSet
from pcclip.embedding.vectors import Vectors
from pcclip.encoders import saved
from pcclip.encoders.dual_encoder import Encoder
from pcclip.encoders.tokens import Tokens
from pcclip.finetuning import distributed, gradcache, lora
from pcclip.finetuning.batches import (
    Asked,
    AttributeExamples,
    Examples,
    Replayed,
    of_captions,
    of_comparisons,
    of_verdicts,
    plain_texts,
)
from pcclip.finetuning.loop import State, batch_of, kept_files, loop, optimizer_of, steps
from pcclip.finetuning.losses import attribute, infonce, mse, replay, shared_images
from pcclip.finetuning.precision import autocast
from pcclip.runs.stage import Stage
from pcclip.stats.vectors import beats, cosines, image_differences, zero_shot


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


def gather(config: Config, images: ImageSet, vectors: Vectors, comparisons: pd.DataFrame, model: Encoder) -> Given:
    """Everything the loop reads, made before the text tower changes."""
    settings = config.finetune
    pairs = {split: of_comparisons(config, comparisons, split, vectors, model) for split in ("train", "held_out")}
    texts = pairs
    if settings.objective == "captions":
        texts = {split: of_captions(config, images, split, vectors, model) for split in pairs}
    attributes = of_verdicts(config, vectors, model) if settings.attribute_weight else None
    return Given(
        train=texts["train"],
        held_out=texts["held_out"],
        comparisons=pairs["held_out"],
        attributes=attributes,
        replayed=_replayed(config, images, model) if settings.replay else None,
        matrix=_on_device(model.device, vectors.matrix, *([attributes.nouns] if attributes else [])),
        images=images,
        vectors=vectors,
    )


def _replayed(config: Config, images: ImageSet, model: Encoder) -> Replayed | None:
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
def own_text_tower(model: Encoder):
    """Tune a copy, so that the model which was handed in stays the base, also after an interrupted cell."""
    base = model.text_tower
    model.text_tower = deepcopy(base)
    try:
        yield
    finally:
        model.text_tower = base


def optimise(config: Config, given: Given, model, card, this: Stage) -> tuple[list[str], int]:
    """The loop: from the last checkpoint to the last step. Returns files of kept epochs, and how many values learn."""
    settings = config.finetune
    per_epoch, total = steps(settings, len(given.train))
    log_temperature = nn.Parameter(torch.tensor(np.log(settings.temperature), dtype=torch.float32, device=model.device))
    state = _start(config, model, log_temperature)
    checkpoint = this.shards / "checkpoint.pt"
    state.resume(checkpoint, this.folder, total)
    distributed.check_alike([this.key, state.step, len(given.train)], "parameters, checkpoints or comparisons")

    def step(epoch: int, k: int) -> dict[str, float]:
        rows = batch_of(config.seed, epoch, k, len(given.train), per_epoch)
        return _step(config, model, given, rows, state.step, log_temperature, state.optimizer)

    def look() -> dict[str, float]:
        return held_out_values(config, given, model, float(log_temperature.detach().exp()))

    def keep(epoch: int) -> None:
        with lora.merged(model):
            for folder in filter(None, (this.folder, this.storage)):
                saved.save(model, {**card, "epoch": epoch}, folder / f"epoch-{epoch:03d}")

    loop(settings, state, len(given.train), this.folder, checkpoint, step, look, keep)
    lora.merge(model)
    return (
        kept_files(this.storage or this.folder, settings.keep_epochs, total // per_epoch),
        sum(p.numel() for p in state.parameters.values()),
    )


def held_out_values(config: Config, given: Given, model: Encoder, temperature: float) -> dict[str, float]:
    """One point of the held-out curve: the run's own objective in batches of its size, and two accuracies."""
    settings, values = config.finetune, {}
    held_out = _encoded(settings, model, given.held_out.tokens) if len(given.held_out) else None
    if len(given.held_out) >= 2:
        losses, accuracies, sizes = [], [], []
        w = torch.from_numpy(held_out).to(given.matrix.device)
        twins = (
            torch.from_numpy(_encoded(settings, model, given.held_out.twin_tokens)).to(w) if _swaps(settings) else None
        )
        for rows in np.array_split(np.arange(len(w)), steps(settings, len(w))[0]):
            texts = w[rows] if twins is None else torch.cat([w[rows], twins[rows]])
            loss, accuracy = _objective(settings, texts, given.held_out, rows, given.matrix, temperature)
            losses, accuracies, sizes = [*losses, float(loss)], [*accuracies, float(accuracy)], [*sizes, len(rows)]
        values = {
            "loss": float(np.average(losses, weights=sizes)),
            "in_batch_accuracy": float(np.average(accuracies, weights=sizes)),
        }
    if len(given.comparisons):
        pairs = given.comparisons
        v = image_differences(given.vectors.matrix, pairs.first, pairs.second)
        w = held_out if pairs is given.held_out else _encoded(settings, model, pairs.tokens)
        values["difference_accuracy"] = float(beats(cosines(w, v), 0.0).mean())
    images = given.images
    labelled = given.vectors.of(images.held_out[images.held_out.label.notna()])
    if images.classes and len(labelled):
        texts = _encoded(
            settings, model, model.tokenised([config.evaluate.zero_shot_prompt.format(name) for name in images.classes])
        )
        found = zero_shot(given.vectors.matrix[given.vectors.rows(labelled["id"])], texts)
        values["zero_shot_accuracy"] = float((np.array(images.classes)[found] == labelled.label.to_numpy()).mean())
    return values


def _start(config: Config, model: Encoder, log_temperature: nn.Parameter) -> State:
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
    return State(parameters, optimizer_of(settings, parameters.values(), model.device))


def _step(
    config: Config, model: Encoder, given: Given, rows: np.ndarray, step: int, log_temperature, optimizer
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
    found = gradcache.backward(partial(_unit_texts, settings, model), Tokens.joined(texts), terms, settings.micro_batch)
    distributed.mean_gradients(p for group in optimizer.param_groups for p in group["params"])
    optimizer.step()
    return {name: float(value.detach()) for name, value in found.items()}


def _attribute_term(settings: Finetune, given: Given, asked: Asked, said: torch.Tensor) -> torch.Tensor:
    """The attribute term over the verdicts that were drawn, from the unit vectors of the texts that ask for them."""
    up, down = said.chunk(2)
    v = nn.functional.normalize(given.attributes.differences(given.matrix, asked.rows), dim=-1)
    text, target = (torch.from_numpy(x).to(v.device) for x in (asked.text, given.attributes.target[asked.rows]))
    return attribute(up[text], down[text], v, target, settings.attribute_temperature, settings.attribute_antisymmetric)


def _encoded(settings: Finetune, model: Encoder, tokens: Tokens) -> np.ndarray:
    """Unit vectors in the precision of the run, without gradients."""
    share = distributed.Share(tokens.lengths)
    with autocast(settings.precision, model.device):
        own = model.encode_tokens(tokens[share.rows])
    return share.gather(torch.from_numpy(own).to(model.device)).cpu().numpy()


def _unit_texts(settings: Finetune, model: Encoder, tokens: Tokens) -> torch.Tensor:
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
