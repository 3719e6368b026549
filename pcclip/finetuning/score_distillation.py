"""Score distillation: a text-to-image model says whether a picture's CLIP vector holds what its caption says.

L_SDS = E_{t, eps} || eps_theta(z_t, t, c) - eps ||^2 (SDS-CLIP, Basu et al. 2307.09233), z_t = sqrt(abar_t) z0 +
sqrt(1 - abar_t) eps and z0 = h_w(f(x)), a linear map of CLIP's unit image vector to the latents of a frozen diffusion
model, as the mean over the latent's values. t and eps are a function of seed and step alone.

Before CLIP learns, h_w is fitted with CLIP frozen towards the pictures' latents, by least squares. The published text
names this stage, and not how h_w is fitted.
"""

from dataclasses import dataclass
from math import prod
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from pcclip.config import Config, Sds
from pcclip.encoders.diffusion import Teacher, identify_teacher, load_teacher
from pcclip.encoders.dual_encoder import Encoder
from pcclip.finetuning.batches import CaptionedImages, TrainingData
from pcclip.finetuning.pixels import Pixels
from pcclip.finetuning.tensor_cache import CachedTensors, cached_tensors
from pcclip.runs.files import digest
from pcclip.runs.progress import say
from pcclip.stats.random_streams import stream

FOLDER = "teacher"  # beside 01 and 02, for every run that builds on them
_IMAGES_AT_ONCE, _TEXTS_AT_ONCE = 16, 64  # in the VAE and in the teacher's text encoder
_RIDGE = 1e-3  # as a fraction of the mean variance of a direction, for directions in which the pictures hardly differ
_ROWS_AT_ONCE = 1024


class LatentMap(nn.Module):
    """h_w: unit image vectors to latents, linear with a constant; zero at first."""

    def __init__(self, width: int, shape: tuple[int, int, int]):
        super().__init__()
        self.shape = tuple(shape)
        self.linear = nn.Linear(width, prod(shape))
        nn.init.zeros_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)

    def forward(self, u: Float[Tensor, "n d"]) -> Float[Tensor, "n c h w"]:
        return self.linear(u).view(len(u), *self.shape)


@dataclass(frozen=True)
class Distillation:
    """The term L_SDS: teacher, h_w and the teacher's condition of every text.

    Attributes:
        conditions: row k is the condition of the caption with text number k.
    """

    teacher: Teacher
    latent_map: LatentMap
    conditions: CachedTensors
    settings: Sds
    seed: int

    def backward(
        self, u: Float[Tensor, "n d"], text_numbers: Int[np.ndarray, " n"], noise: tuple[str, int], weight: float
    ) -> Float[Tensor, ""]:
        """Add the gradients of weight * L_SDS to `u` and to h_w. Returns L_SDS.

        A few images are in the UNet at once. The UNet sees the gradient of the sum over the latent's values, since in
        fp16 the gradient of their mean would underflow.

        Args:
            u: unit image vectors.
            text_numbers: the text of each image.
            noise: name and step of the random stream that noise levels and noise are drawn from.
        """
        t, eps = self.draw(len(u), noise)
        size, samples = prod(self.latent_map.shape), self.settings.samples
        total, leaf = torch.zeros((), device=u.device), u.detach().requires_grad_()
        for rows in torch.arange(len(u)).split(self.settings.micro_batch or len(u)):
            z0 = self.latent_map(leaf[rows.to(u.device)])
            latent_leaf = z0.detach().requires_grad_()
            condition = self.conditions[text_numbers[rows.numpy()]].to(u.device)
            for k in range(samples):
                noise_level, drawn = t[k, rows].to(u.device), eps[k, rows].to(u.device)
                loss = self.teacher.denoising(latent_leaf, noise_level, drawn, condition).sum()
                (size * loss).backward()
                total += loss.detach()
            z0.backward(latent_leaf.grad * (weight / (size * samples * len(u))))
        if u.requires_grad:
            u.backward(leaf.grad)
        return total / (samples * len(u))

    @torch.no_grad()
    def losses(
        self, z0: Float[Tensor, "n c h w"], condition: Float[Tensor, "n t e"], noise: tuple[str, int]
    ) -> Float[Tensor, " n"]:
        """L_SDS of latents under texts, image by image, without gradients."""
        t, eps = (part.to(z0.device) for part in self.draw(len(z0), noise))
        parts = torch.arange(len(z0), device=z0.device).split(self.settings.micro_batch or len(z0))
        samples = [
            torch.cat([self.teacher.denoising(z0[rows], t[k, rows], eps[k, rows], condition[rows]) for rows in parts])
            for k in range(self.settings.samples)
        ]
        return torch.stack(samples).mean(dim=0)

    def draw(self, n: int, noise: tuple[str, int]) -> tuple[Int[Tensor, "s n"], Float[Tensor, "s n c h w"]]:
        """Noise levels and noise for each of n images, the same on every machine."""
        settings, generator = self.settings, stream(noise[0], self.seed, noise[1])
        low = min(round(settings.t_min * self.teacher.steps), self.teacher.steps - 1)
        high = max(low + 1, round(settings.t_max * self.teacher.steps))
        t = generator.integers(low, high, (settings.samples, n))
        eps = generator.standard_normal((settings.samples, n, *self.latent_map.shape), dtype=np.float32)
        return torch.from_numpy(t), torch.from_numpy(eps)


def load_distillation(config: Config, train: CaptionedImages, model: Encoder) -> Distillation | None:
    """The term with h_w at zero, or None where the run has no teacher or the term has no weight.

    Raises PcclipError when the teacher cannot be loaded.
    """
    settings = config.finetune.sds
    if settings is None or not settings.weight:
        return None
    teacher = load_teacher(settings.teacher, settings.precision, settings.checkpointing).to(model.device)
    latent_map = LatentMap(model.width, teacher.latent_shape).to(model.device)
    return Distillation(teacher, latent_map, text_conditions(config, teacher, train), settings, config.seed)


def text_conditions(config: Config, teacher: Teacher, train: CaptionedImages) -> CachedTensors:
    """The teacher's condition of each distinct training caption, numbered as in `train.text_numbers`; made once.

    In the UNet's precision, to which it rounds them itself.
    """
    texts, dtype = list(dict.fromkeys(train.texts)), teacher.unet.dtype
    inputs = {"teacher": identify_teacher(teacher.spec), "texts": texts, "dtype": str(dtype)}
    return cached_tensors(
        _cache_folder(config, "texts", inputs),
        inputs,
        len(texts),
        lambda ranges: (teacher.conditions(texts[rows.start : rows.stop]).to(dtype) for rows in ranges),
        _TEXTS_AT_ONCE,
    )


def image_latents(config: Config, teacher: Teacher, data: TrainingData, rows: Int[np.ndarray, " n"]) -> CachedTensors:
    """The teacher's latents of the images at `rows` of the run's vectors; made once."""
    paths = [data.vectors.paths[row] for row in rows]
    inputs = {"teacher": identify_teacher(teacher.spec), "images": data.images.identity(), "paths": paths}
    pixels = Pixels(paths, teacher.preprocess, config.embed.workers)
    return cached_tensors(
        _cache_folder(config, "latents", inputs),
        inputs,
        len(paths),
        lambda ranges: map(teacher.latents, pixels.each(ranges)),
        _IMAGES_AT_ONCE,
    )


def fit_latent_map(config: Config, distillation: Distillation, data: TrainingData, train: CaptionedImages) -> None:
    """Fit h_w to the latents of the training images, as CLIP sees them now."""
    latents = image_latents(config, distillation.teacher, data, train.images)
    least_squares(distillation, data.vectors.matrix[train.images], latents)


@torch.no_grad()
def least_squares(distillation: Distillation, u: Float[np.ndarray, "n d"], latents: CachedTensors) -> float:
    """Put the linear map of smallest squared error (and a little ridge) into h_w. Returns the mean squared error."""
    linear, n = distillation.latent_map.linear, len(u)
    device = linear.weight.device
    x = torch.from_numpy(u).to(device, torch.float64)
    centre = x.mean(dim=0)
    cross = torch.zeros(x.shape[1], prod(distillation.latent_map.shape), dtype=torch.float64, device=device)
    mean, square = cross.new_zeros(cross.shape[1]), 0.0
    for rows in torch.arange(n).split(_ROWS_AT_ONCE):
        z = latents[rows.numpy()].to(device, torch.float64).flatten(1)
        cross += (x[rows.to(device)] - centre).T @ z
        mean += z.sum(dim=0) / n
        square += float(z.square().sum())
    covariance = (x - centre).T @ (x - centre)
    ridge = _RIDGE * covariance.diagonal().mean() * torch.eye(len(covariance), dtype=torch.float64, device=device)
    weight = torch.linalg.solve(covariance + ridge, cross)
    linear.weight.copy_(weight.T)
    linear.bias.copy_(mean - centre @ weight)
    variance = max(square - n * float(mean.square().sum()), 1e-12)
    error = variance - float((weight * (2 * cross - covariance @ weight)).sum())
    say(f"h_w: a linear map of CLIP's vectors gives {1 - error / variance:.1%} of the variance of the latents")
    return error / (n * len(mean))


def _cache_folder(config: Config, kind: str, inputs: dict) -> Path:
    """A folder for each teacher and each set of texts or pictures: runs that share 01 and 02 may differ in them."""
    return config.source_folder / FOLDER / f"{kind}-{digest(inputs)[:12]}"
