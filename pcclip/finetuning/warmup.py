"""Before CLIP learns from the teacher: h_w is fitted with CLIP as it is, by its vectors of 02.

Towards the latents of the pictures, in steps or all at once, or under L_SDS itself. The published text names the stage
and not how long it is.
"""

from math import prod
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float

from pcclip.config import Config
from pcclip.errors import PcclipError
from pcclip.finetuning.captioned import Captioned
from pcclip.finetuning.loop import State, point, steps
from pcclip.finetuning.score_distillation import Distillation
from pcclip.finetuning.tensor_cache import KeptTensors
from pcclip.runs.progress import Meter, say

_RIDGE = 1e-3  # of the mean variance of a direction, for those that the pictures hardly differ in
_AT_ONCE = 1024


def warm_up(
    config: Config,
    distillation: Distillation,
    train: Captioned,
    u: Float[np.ndarray, "n d"],
    latents: KeptTensors | None,
    checkpoint: Path,
) -> list[dict]:
    """Fit h_w in place, from the checkpoint if there is one. Returns its curve (step, epoch, split, metric, value).

    Args:
        u: unit vectors of the training images by the base model.
        latents: of the same images, unless the warm-up is under L_SDS.

    Raises PcclipError when the loss is no number.
    """
    settings, linear = distillation.settings, distillation.latent_map.linear
    parameters = dict(linear.named_parameters())
    state = State(parameters, torch.optim.Adam(parameters.values(), lr=settings.warmup_lr))
    if checkpoint.is_file():
        state.load(checkpoint)
    if settings.warmup == "least_squares":
        if not state.curve:
            error = least_squares(distillation, u, latents)
            state.curve = [point(0, 1, "train", "latent_error", error)]
            state.save(checkpoint)
        return state.curve
    meter, per_epoch = Meter(settings.warmup_steps - state.step, "warm-up steps"), steps(config.finetune, len(train))[0]
    name = "sds" if settings.warmup == "sds" else "latent_error"
    while state.step < settings.warmup_steps:
        draw = np.random.default_rng([config.seed, state.step, 4])
        rows = draw.integers(len(train), size=min(config.finetune.batch_size, len(train)))
        state.optimizer.zero_grad(set_to_none=True)
        mine = torch.from_numpy(u[rows]).to(linear.weight.device)
        if settings.warmup == "sds":
            loss = distillation.backward(mine, train.same[train.drawn(draw, rows)], [state.step, 5], 1.0)
        else:
            loss = F.mse_loss(distillation.latent_map(mine), latents[rows].to(mine))
            loss.backward()
        state.optimizer.step()
        value = loss.item()
        if not np.isfinite(value):
            raise PcclipError(
                f"the loss of h_w's warm-up became {value} at step {state.step}; lower finetune.sds.warmup_lr"
            )
        state.curve.append(point(state.step, per_epoch, "train", name, value))
        state.step += 1
        meter.add(1, f"{name.replace('_', ' ')} {value:.4f}")
        if state.step % config.finetune.checkpoint_every == 0 or state.step == settings.warmup_steps:
            state.save(checkpoint)
    return state.curve


@torch.no_grad()
def least_squares(distillation: Distillation, u: Float[np.ndarray, "n d"], latents: KeptTensors) -> float:
    """Put the linear map of smallest squared error (and a little ridge) into h_w. Returns the mean squared error."""
    linear, n = distillation.latent_map.linear, len(u)
    device = linear.weight.device
    x = torch.from_numpy(u).to(device, torch.float64)
    centre = x.mean(dim=0)
    cross = torch.zeros(x.shape[1], prod(distillation.latent_map.shape), dtype=torch.float64, device=device)
    mean, square = cross.new_zeros(cross.shape[1]), 0.0
    for rows in torch.arange(n).split(_AT_ONCE):
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
