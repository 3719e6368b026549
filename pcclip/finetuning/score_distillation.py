"""Score distillation: a text-to-image model says whether a picture's CLIP vector holds what its caption says.

L_SDS = E_{t, eps} || eps_theta(z_t, t, c) - eps ||^2 (SDS-CLIP, Basu et al. 2307.09233), z_t = sqrt(abar_t) z0 +
sqrt(1 - abar_t) eps and z0 = h_w(f(x)), a linear map of CLIP's image vector to the latents of a frozen diffusion model,
as the mean over the latent's values. f(x) is the unit vector that CLIP compares with texts. t and eps are a function of
seed and step alone.
"""

from dataclasses import dataclass
from math import prod

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from pcclip.config import Sds
from pcclip.encoders.diffusion import Teacher
from pcclip.finetuning.tensor_cache import KeptTensors


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
    """The teacher's term: what it needs beside the image vectors.

    Attributes:
        conditions: of every caption by number, as the teacher reads them.
    """

    teacher: Teacher
    latent_map: LatentMap
    conditions: KeptTensors
    settings: Sds
    seed: int

    def backward(
        self, u: Float[Tensor, "n d"], captions: Int[np.ndarray, " n"], lot: list[int], weight: float
    ) -> Float[Tensor, ""]:
        """Add the gradients of weight * L_SDS to `u` and to h_w, a few images in the UNet at once. Returns L_SDS.

        The UNet sees the gradient of the sum over the latent's values, so that fp16 has no gradient below its reach.
        """
        t, noise = self.draw(len(u), lot)
        size, samples = prod(self.latent_map.shape), self.settings.samples
        total, own = torch.zeros((), device=u.device), u.detach().requires_grad_()
        for rows in torch.arange(len(u)).split(self.settings.micro_batch or len(u)):
            z0 = self.latent_map(own[rows.to(u.device)])
            leaf = z0.detach().requires_grad_()
            condition = self.conditions[captions[rows.numpy()]].to(u.device)
            for k in range(samples):
                loss = denoising(
                    self.teacher,
                    leaf,
                    t[k, rows].to(u.device),
                    noise[k, rows].to(u.device),
                    condition,
                    self.settings.through_unet,
                ).sum()
                (size * loss).backward()
                total += loss.detach()
            z0.backward(leaf.grad * (weight / (size * samples * len(u))))
        if u.requires_grad:
            u.backward(own.grad)
        return total / (samples * len(u))

    @torch.no_grad()
    def value(
        self, z0: Float[Tensor, "n c h w"], condition: Float[Tensor, "n t c"], lot: list[int]
    ) -> Float[Tensor, " n"]:
        """L_SDS of latents under texts, image by image, without gradients."""
        t, noise = (part.to(z0.device) for part in self.draw(len(z0), lot))
        parts = torch.arange(len(z0), device=z0.device).split(self.settings.micro_batch or len(z0))
        return torch.stack(
            [
                torch.cat(
                    [self.teacher.denoising(z0[rows], t[k, rows], noise[k, rows], condition[rows]) for rows in parts]
                )
                for k in range(self.settings.samples)
            ]
        ).mean(dim=0)

    def draw(self, n: int, lot: list[int]) -> tuple[Int[Tensor, "s n"], Float[Tensor, "s n c h w"]]:
        """Noise levels and noise for each of n images, the same for the same `lot` on every machine."""
        settings, draw = self.settings, np.random.default_rng([self.seed, *lot])
        low = min(round(settings.t_min * self.teacher.steps), self.teacher.steps - 1)
        high = max(low + 1, round(settings.t_max * self.teacher.steps))
        t = draw.integers(low, high, (settings.samples, n))
        noise = draw.standard_normal((settings.samples, n, *self.latent_map.shape), dtype=np.float32)
        return torch.from_numpy(t), torch.from_numpy(noise)


def denoising(
    teacher: Teacher,
    z0: Float[Tensor, "n c h w"],
    t: Int[Tensor, " n"],
    noise: Float[Tensor, "n c h w"],
    condition: Float[Tensor, "n t c"],
    through_unet: bool = True,
) -> Float[Tensor, " n"]:
    """|| eps_theta(z_t, t, c) - eps ||^2 as the mean over the latent's values, with its gradient to z0.

    Without `through_unet` the value is the same, and the gradient DreamFusion's (Poole et al. 2209.14988, equation 3):
    d eps_theta / d z_t is taken for the identity, so that 2 (eps_theta - eps) itself is what z_t is told.
    """
    if through_unet:
        return teacher.denoising(z0, t, noise, condition)
    z_t = teacher.noised(z0, t, noise)
    with torch.no_grad():
        found = teacher.noise(z_t, t, condition)
    return (found + (z_t - z_t.detach()) - noise).square().flatten(1).mean(dim=1)
