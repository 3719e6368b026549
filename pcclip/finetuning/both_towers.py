"""Training with objective clip: images and their captions as CLIP was trained, both towers learning.

L = L_CLIP + sds.weight * L_SDS: the symmetric cross entropy of images and captions, and a text-to-image model's
denoising loss (score_distillation.py). Images are decoded and encoded at every step. The contrastive term sees the whole
batch, however few images fit in memory (gradcache.py). What a step sees and draws is a function of seed and step, so a
killed run continues on the same curve.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from pcclip.config import Config
from pcclip.data.image_set import ImageSet
from pcclip.embedding.vectors import Vectors
from pcclip.encoders.dual_encoder import Encoder
from pcclip.errors import PcclipError
from pcclip.finetuning import gradcache
from pcclip.finetuning.batches import (
    Batch,
    CaptionedImages,
    TrainingData,
    captioned_images,
    comparison_examples,
    draw_batch,
)
from pcclip.finetuning.held_out import HeldOut
from pcclip.finetuning.loop import Training, mean_over_batches
from pcclip.finetuning.losses import Ignore, infonce, shared_images
from pcclip.finetuning.pixels import Pixels
from pcclip.finetuning.precision import autocast
from pcclip.finetuning.score_distillation import fit_latent_map, load_distillation
from pcclip.images import batches
from pcclip.runs.files import write_tensors

BASELINE, LATENT_MAP = "captions", "latent_map.safetensors"
_LOWEST_TEMPERATURE = 0.01  # CLIP's own bound on a learned temperature
_DISTILLED_IMAGES = 64  # held-out images that the curve of L_SDS is measured on


@dataclass(frozen=True)
class BothTowersData(TrainingData):
    """What training both towers reads; rows of images are rows of `vectors`, which are the base model's."""

    train: CaptionedImages
    held_out: CaptionedImages
    pixels: Pixels


def load_data(
    config: Config, images: ImageSet, vectors: Vectors, comparisons: pd.DataFrame, model: Encoder
) -> BothTowersData:
    """Read everything that training needs. Raises PcclipError when fewer than two captions are there."""
    train, held_out = (captioned_images(config, images, split, vectors, model) for split in ("train", "held_out"))
    if len(train) < 2:
        raise PcclipError(f"03_finetune: {len(train)} training images have a caption and a vector; two are needed")
    return BothTowersData(
        images,
        vectors,
        held_out_pairs=comparison_examples(config, comparisons, "held_out", vectors, model),
        train=train,
        held_out=held_out,
        pixels=Pixels(vectors.paths, model.preprocess, config.embed.workers),
    )


class BothTowers(Training):
    """Training of both towers, and of h_w where the run has a teacher."""

    towers = ("text", "image")

    def __init__(self, config: Config, data: BothTowersData, model: Encoder):
        self.distillation = load_distillation(config, data.train, model)
        super().__init__(config, model, len(data.train))
        self.data = data
        if self.distillation is not None:
            parameters = {f"latent_map.{n}": p for n, p in self.distillation.latent_map.named_parameters()}
            self.state.add_group(parameters, lr=self.distillation.settings.map_lr, weight_decay=0.0)
        captioned, pairs = data.held_out, data.held_out_pairs
        rows = np.unique(np.concatenate([captioned.images, pairs.first, pairs.second]))
        self._held_out = HeldOut(config, data, model, rows)
        self._conditions = None  # the teacher's conditions of the first held-out images' first captions
        if self.distillation is not None and len(captioned):
            first_texts = [captioned.texts[k] for k in captioned.starts[:-1][:_DISTILLED_IMAGES]]
            self._conditions = self.distillation.teacher.conditions(first_texts)

    @property
    def counts(self) -> dict[str, int]:
        return {**super().counts, "held_out": len(self.data.held_out), "captions": len(self.data.train.texts)}

    def prepare(self) -> None:
        """Fit h_w to the untuned CLIP."""
        if self.distillation is not None:
            fit_latent_map(self.config, self.distillation, self.data, self.data.train)

    def finish(self, folder: Path) -> list[str]:
        if self.distillation is None:
            return []
        write_tensors(folder / LATENT_MAP, self.distillation.latent_map.state_dict())
        return [LATENT_MAP]

    def batches(self, first: int, last: int) -> Iterator[tuple[Batch, Float[Tensor, "k 3 h w"]]]:
        """The batch of each step with the pixels of its images, decoded while the caller computes."""
        draw = partial(draw_batch, self.config, self.data.train)
        pixels = self.data.pixels.each(draw(step).images for step in range(first, last))
        for step in range(first, last):
            yield draw(step), next(pixels)

    def step(self, batch: tuple[Batch, Float[Tensor, "k 3 h w"]]) -> dict[str, float]:
        """One optimiser step. Returns loss, each term by name, and in_batch_accuracy."""
        self.state.optimizer.zero_grad(set_to_none=True)
        values = self.gradients(*batch)
        self.state.optimizer.step()
        lowest = np.log(min(_LOWEST_TEMPERATURE, self.settings.temperature))
        with torch.no_grad():
            self.log_temperature.clamp_(min=lowest)
        return {name: float(value) for name, value in values.items()}

    def gradients(self, batch: Batch, pixels: Float[Tensor, "k 3 h w"]) -> dict[str, Tensor]:
        """Add the gradients of one batch to the parameters. Returns the terms and their weighted sum, detached."""
        settings, train = self.settings, self.data.train
        tokens = train.tokens[batch.captions]

        def losses(u: Float[Tensor, "k d"], w: Float[Tensor, "t d"]) -> dict[str, Tensor]:
            own_images = u[_on_device(batch.caption_images, u)]
            text_numbers = train.text_numbers[batch.captions]
            ignore = self._same_texts(text_numbers, u)
            clip, accuracy = infonce(w, own_images, self.log_temperature.exp(), ignore)
            clip.backward()
            values = {"loss": clip.detach(), "clip": clip}
            if self.distillation is not None:
                weight, noise = self.distillation.settings.weight, ("noise of a training step", self.state.step)
                own_images = u[_on_device(batch.caption_images, u)]  # a graph of its own: clip's is spent
                values["sds"] = self.distillation.backward(own_images, text_numbers, noise, weight)
                values["loss"] = values["loss"] + weight * values["sds"]
            return {name: value.detach() for name, value in (values | {"in_batch_accuracy": accuracy}).items()}

        by_length = np.argsort(tokens.lengths, kind="stable")
        image_parts = gradcache.parts_of(np.arange(len(pixels)), settings.micro_batch)
        text_parts = gradcache.parts_of(by_length, settings.micro_batch)
        return gradcache.backward(
            [
                gradcache.Encoding(lambda rows: self.image_vectors(pixels[torch.from_numpy(rows)]), image_parts),
                gradcache.Encoding(lambda rows: self.text_vectors(tokens[rows]), text_parts),
            ],
            losses,
        )

    def image_vectors(self, pixels: Float[Tensor, "k 3 h w"]) -> Float[Tensor, "k d"]:
        """Unit image vectors in fp32 with gradients, the tower in the precision of the run."""
        with autocast(self.settings.precision, self.model.device):
            features = self.model.image_features(pixels.to(self.model.device))
        return nn.functional.normalize(features.float(), dim=-1)

    def held_out(self) -> dict[str, float]:
        """Of held-out images as the model sees them now: clip in batches of the run's size and its in-batch accuracy,
        difference_accuracy, zero_shot_accuracy, and sds with the same noise at every point."""
        held_out, data, model = self._held_out, self.data, self.model
        if not len(held_out.rows):
            return {}
        wanted = (held_out.rows[part] for part in batches(len(held_out.rows), self.config.embed.batch_size))
        with autocast(self.settings.precision, model.device):
            u = np.concatenate([model.encode_pixels(pixels) for pixels in data.pixels.each(wanted)])
            metrics = self._clip(u) | held_out.accuracies(u, model.encode_tokens)
        if self.distillation is not None and self._conditions is not None:
            shown = u[held_out.places(data.held_out.images)][: len(self._conditions)]
            with torch.no_grad():
                z0 = self.distillation.latent_map(torch.from_numpy(shown).to(model.device))
            losses = self.distillation.losses(z0, self._conditions, ("noise of the held-out curve", 0))
            metrics["sds"] = float(losses.mean())
        return metrics

    def _clip(self, u: Float[np.ndarray, "n d"]) -> dict[str, float]:
        """L_CLIP of held-out images and their first captions."""
        data = self.data.held_out
        if len(data) < 2:
            return {}
        first = data.starts[:-1]
        v = torch.from_numpy(u[self._held_out.places(data.images)])
        w = torch.from_numpy(self.model.encode_tokens(data.tokens[first]))
        temperature = self.temperature

        def objective(rows: Int[np.ndarray, " b"]) -> tuple[Tensor, Tensor]:
            return infonce(w[rows], v[rows], temperature, self._same_texts(data.text_numbers[first][rows], v))

        loss, accuracy = mean_over_batches(self.settings, len(data), objective)
        return {"clip": loss, "in_batch_accuracy": accuracy}

    def _same_texts(self, text_numbers: Int[np.ndarray, " b"], like: Tensor) -> Ignore | None:
        """Captions with the same text are no negatives of each other, where the run masks them."""
        if not self.settings.mask_shared:
            return None
        numbers = _on_device(text_numbers, like)
        return partial(shared_images, numbers, numbers, False)


def _on_device(rows: Int[np.ndarray, " n"], like: Tensor) -> Int[Tensor, " n"]:
    return torch.from_numpy(rows).to(like.device)
