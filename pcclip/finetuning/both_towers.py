"""Stage 03 with objective clip: images and their captions as CLIP was trained, both towers learning.

L = L_CLIP + sds.weight * L_SDS + difference * L_PC: the symmetric cross entropy of images and captions, a text-to-image
model's denoising loss (sds.py), and PC-CLIP's objective on the image vectors as they are now. Images are decoded and
encoded at every step. The towers see the whole batch before any gradient, so the contrastive terms do too, however few
images fit (gradcache.py). What a step sees and draws is a function of seed and step, so a killed run continues on the
same curve.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from pcclip.config import Config, Finetune
from pcclip.data.image_set import ImageSet
from pcclip.embedding.stage import DRAFT
from pcclip.embedding.vectors import Vectors
from pcclip.encoders import saved
from pcclip.encoders.dual_encoder import Encoder, weights_digest
from pcclip.encoders.tokens import Tokens
from pcclip.errors import PcclipError
from pcclip.finetuning import gradcache, lora, teaching
from pcclip.finetuning.batches import of_comparisons
from pcclip.finetuning.captioned import Batch, Given, batch, captioned
from pcclip.finetuning.held_out import HeldOut
from pcclip.finetuning.loop import CURVES, State, kept_files, loop, optimizer_of, steps, write_curves
from pcclip.finetuning.losses import infonce, shared_images
from pcclip.finetuning.pixels import Pictures
from pcclip.finetuning.precision import autocast, has_bf16
from pcclip.finetuning.score_distillation import Distillation
from pcclip.runs.files import atomic
from pcclip.runs.progress import say
from pcclip.runs.stage import Stage

BASELINE, LATENT_MAP, WARMUP = "captions", "latent_map.safetensors", "warmup.csv"
_HOTTEST = float(np.log(0.01))  # of a learned temperature: CLIP's own bound


def finetune(
    config: Config, images: ImageSet, vectors: Vectors, comparisons: pd.DataFrame, model: Encoder, this: Stage
) -> pd.DataFrame:
    """Run the stage: the trained model, its baseline without the teacher if asked for, and curves. `model` is left.

    Returns:
        Curves with columns step, epoch, split ('train' or 'held_out'), metric, value.

    Raises:
        PcclipError: too few captions or pairs, no such teacher, or a loss that is no number.
    """
    settings, sds = config.finetune, config.finetune.sds
    given = _gather(config, images, vectors, comparisons, model)
    name = this.folder.name
    if len(given.train) < 2:
        raise PcclipError(f"{name}: {len(given.train)} training images have a caption and a vector; two are needed")
    if given.pairs is not None and len(given.pairs) < 2:
        raise PcclipError(f"{name}: {len(given.pairs)} training comparisons were kept; finetune.difference needs two")
    if settings.precision == "bf16" and not has_bf16(model.device):
        say(
            f"{name}: this {model.device.type} has no instructions for bf16, so fp32 would be faster: "
            "finetune.precision: fp32"
        )
    with this.work():
        outputs, tuned = _trained(config, given, model, this, this.folder, "checkpoint.pt")
        if sds and sds.baseline:
            say(f"{name}: the same without the teacher, for comparison")
            alone = config.model_copy(update={"finetune": settings.model_copy(update={"sds": None, "keep_epochs": []})})
            files, _ = _trained(alone, given, model, this, this.folder / BASELINE, f"{BASELINE}.pt")
            outputs += [f"{BASELINE}/{file}" for file in files]
        this.finish(
            outputs,
            {
                "train": len(given.train),
                "held_out": len(given.held_out),
                "captions": len(given.train.texts),
                "pairs": len(given.pairs) if given.pairs else 0,
                "steps": steps(settings, len(given.train))[1],
                "tuned_parameters": tuned,
                "verdicts": 0,
            },
            model=weights_digest(model.text_tower)[:16],
        )
    return pd.read_csv(this.folder / CURVES)


def _gather(config: Config, images: ImageSet, vectors: Vectors, comparisons: pd.DataFrame, model: Encoder) -> Given:
    pairs = {
        split: of_comparisons(config, comparisons, split, vectors, model)
        for split in (["train", "held_out"] if config.finetune.difference else ["held_out"])
    }
    return Given(
        **{split: captioned(config, images, split, vectors, model) for split in ("train", "held_out")},
        pairs=pairs.get("train"),
        held_out_pairs=pairs["held_out"],
        images=images,
        vectors=vectors,
        pictures=Pictures(vectors.paths, model.preprocess, config.embed.workers, DRAFT if config.embed.draft else None),
    )


@contextmanager
def _own_towers(model: Encoder) -> Iterator[None]:
    """Tune copies, so that the model which was handed in stays the base, also after an interrupted cell."""
    base = model.text_tower, model.image_tower
    model.text_tower, model.image_tower = deepcopy(base)
    try:
        yield
    finally:
        model.text_tower, model.image_tower = base


def _trained(
    config: Config, given: Given, model: Encoder, this: Stage, folder: Path, checkpoint: str
) -> tuple[list[str], int]:
    """One model, trained and saved in `folder`. Returns its files, and how many values learned."""
    with _own_towers(model):
        card, outputs = saved.describe(model), [CURVES]
        term = teaching.distillation(config, given, model)
        if term is not None and (curve := teaching.warmed_up(config, term, given, this.partial / "warmup.pt")):
            write_curves(curve, this.folder / WARMUP)
            outputs.append(WARMUP)
        elif term is not None:
            (this.folder / WARMUP).unlink(missing_ok=True)  # of other parameters
        training = Loop(config, given, model, term)
        outputs += training.run(card, folder, this.partial / checkpoint)
        if not all(bool(p.isfinite().all()) for p in training.state.parameters.values()):
            raise PcclipError(f"{this.folder.name}: the last step left weights that are no numbers; lower finetune.lr")
        outputs += saved.save(model, {**card, "epoch": config.finetune.epochs}, folder)
    return outputs, sum(p.numel() for p in training.state.parameters.values())


def learned(config: Config, model: Encoder) -> dict[str, nn.Parameter]:
    """The parameters of both towers that finetune.tune names, by name within the model; nothing else has gradients."""
    settings, found = config.finetune, {}
    for tower in ("text", "image"):
        getattr(model, f"{tower}_tower").requires_grad_(False)
        own = (
            lora.add(model, settings.lora_rank, config.seed, tower)
            if settings.tune == "lora"
            else (model.tunable(settings.tune, tower))
        )
        if not own:
            raise PcclipError(f"finetune.tune = {settings.tune}: the {tower} tower has nothing of it; choose another")
        found |= {f"{tower}_tower.{name}": parameter for name, parameter in own.items()}
    for parameter in found.values():
        parameter.requires_grad_(True)
    return found


class Loop:
    """The loop of one model, from the last checkpoint to the last step."""

    def __init__(self, config: Config, given: Given, model: Encoder, term: Distillation | None):
        self.config, self.given, self.model, self.term = config, given, model, term
        settings = config.finetune
        self.log_temperature = nn.Parameter(
            torch.tensor(np.log(settings.temperature), dtype=torch.float32, device=model.device),
            requires_grad=settings.learn_temperature,
        )
        towers = learned(config, model)
        if settings.learn_temperature:
            towers["log_temperature"] = self.log_temperature
        mapping = {f"latent_map.{name}": p for name, p in term.latent_map.named_parameters()} if term else {}
        groups = [{"params": list(towers.values()), "lr": settings.lr}]
        if mapping:
            groups.append({"params": list(mapping.values()), "lr": settings.sds.map_lr, "weight_decay": 0.0})
        self.state = State({**towers, **mapping}, optimizer_of(settings, groups, model.device))
        self._held_out = HeldOut.of(config, given, term)

    def run(self, card: dict, folder: Path, checkpoint: Path) -> list[str]:
        """Train; leaves the model with the last step's weights. Returns the names of the files it wrote to `folder`."""
        config, settings, state = self.config, self.config.finetune, self.state
        per_epoch, total = steps(settings, len(self.given.train))
        state.resume(checkpoint, folder, total)
        plan = partial(batch, config, self.given.train, self.given.pairs)
        pixels = self.given.pictures.each(plan(step).images for step in range(state.step, total))

        def look() -> dict[str, float]:
            return self._held_out.values(self.model, float(self.log_temperature.detach().exp()), self.term)

        def keep(epoch: int) -> None:
            with lora.merged(self.model):
                saved.save(self.model, {**card, "epoch": epoch}, folder / f"epoch-{epoch:03d}")

        loop(
            settings,
            state,
            len(self.given.train),
            folder,
            checkpoint,
            lambda *_: self.step(plan(state.step), next(pixels)),
            look,
            keep,
        )
        lora.merge(self.model)
        written = kept_files(folder, settings.keep_epochs, total // per_epoch)
        if self.term is not None:
            _save(self.term.latent_map, folder / LATENT_MAP)
            written.append(LATENT_MAP)
        return written

    def step(self, plan: Batch, pixels: Float[Tensor, "k 3 h w"]) -> dict[str, float]:
        """One optimiser step. Returns its loss, each term by name, and the in-batch accuracy."""
        self.state.optimizer.zero_grad(set_to_none=True)
        found = self.gradients(plan, pixels)
        self.state.optimizer.step()
        with torch.no_grad():
            self.log_temperature.clamp_(min=min(_HOTTEST, np.log(self.config.finetune.temperature)))
        return {name: float(value) for name, value in found.items()}

    def gradients(self, plan: Batch, pixels: Float[Tensor, "k 3 h w"]) -> dict[str, Tensor]:
        """Add the gradients of one batch to the parameters. Returns the terms and their sum, detached."""
        settings, train, pairs = self.config.finetune, self.given.train, self.given.pairs
        wrong = train.negative[plan.captions]
        wrong = wrong[wrong >= 0]
        if settings.mask_shared:  # one image's negative may be the caption of another
            wrong = wrong[~np.isin(train.wrong_same[wrong], train.same[plan.captions])]
        texts = [train.tokens[plan.captions], train.wrong[wrong]]
        if pairs is not None:
            texts += [pairs.tokens[plan.pairs]] + ([pairs.twin_tokens[plan.pairs]] if settings.swap else [])
        sizes, tokens = [*map(len, texts)], Tokens.joined(texts)

        def terms(u: Float[Tensor, "k d"], w: Float[Tensor, "t d"]) -> dict[str, Tensor]:
            own, false, *told = w.split(sizes)
            same = torch.from_numpy(train.same[plan.captions]).to(u.device)
            clip, accuracy = infonce(
                own,
                u[_there(plan.own, u)],
                self.log_temperature.exp(),
                partial(shared_images, same, same, False) if settings.mask_shared else None,
                wrong=false,
            )
            loss, found = clip, {"clip": clip}
            if told:
                found["difference"] = _difference(settings, torch.cat(told), u, plan.first, plan.second)
                loss = loss + settings.difference * found["difference"]
            loss.backward()
            if self.term is not None:
                found["sds"] = self.term.backward(
                    u[_there(plan.own, u)], train.same[plan.captions], [self.state.step, 6], settings.sds.weight
                )
                loss = loss.detach() + settings.sds.weight * found["sds"]
            return {
                name: value.detach() for name, value in {"loss": loss, **found, "in_batch_accuracy": accuracy}.items()
            }

        by_length = np.argsort(tokens.lengths, kind="stable")
        return gradcache.backward_through(
            [
                (
                    lambda rows: self._images(pixels[torch.from_numpy(rows)]),
                    _parts(np.arange(len(pixels)), settings.micro_batch),
                ),
                (lambda rows: self._texts(tokens[rows]), _parts(by_length, settings.micro_batch)),
            ],
            terms,
        )

    def _images(self, pixels: Float[Tensor, "k 3 h w"]) -> Float[Tensor, "k d"]:
        with autocast(self.config.finetune.precision, self.model.device):
            features = self.model.image_features(pixels.to(self.model.device))
        return nn.functional.normalize(features.float(), dim=-1)

    def _texts(self, tokens: Tokens) -> Float[Tensor, "t d"]:
        with autocast(self.config.finetune.precision, self.model.device):
            features = self.model.features(tokens)
        return nn.functional.normalize(features.float(), dim=-1)


def _difference(
    settings: Finetune,
    w: Float[Tensor, "t d"],
    u: Float[Tensor, "k d"],
    first: Int[np.ndarray, " m"],
    second: Int[np.ndarray, " m"],
) -> Float[Tensor, ""]:
    """PC-CLIP's objective (paper, equation 1) of texts, with their twins where the run swaps, and the images now."""
    one, two = _there(first, u), _there(second, u)
    v = nn.functional.normalize(u[one] - u[two], dim=-1)
    if settings.swap:
        v = torch.cat([v, -v])
    ignore = partial(shared_images, one, two, settings.swap) if settings.mask_shared else None
    return infonce(w, v, settings.difference_temperature, ignore)[0]


def _parts(order: Int[np.ndarray, " n"], at_once: int | None) -> list[Int[np.ndarray, " m"]]:
    return np.split(order, range(at_once or len(order), len(order), at_once or len(order)))


def _there(rows: Int[np.ndarray, " n"], like: Tensor) -> Int[Tensor, " n"]:
    return torch.from_numpy(rows).to(like.device)


def _save(module: nn.Module, path: Path) -> None:
    from safetensors.torch import save_file

    with atomic(path) as temporary:
        save_file({name: value.detach().cpu().contiguous() for name, value in module.state_dict().items()}, temporary)
