"""`shapes-clip`: a small CLIP, trained from scratch by the plain contrastive loss on pictures of data/sources/toy_scenes.py.

It names the objects and cannot tell a left of b from b left of a, for the reason that large CLIPs cannot: the loss
contrasts what is in a batch, and among 32 pictures of 108 combinations, each in four arrangements, the one with the
roles exchanged is there for about one picture in fourteen (`share_of_twins`); knowing the objects is nearly all there
is to win. It is trained the first time it is asked for and kept in ~/.cache/pcclip/shapes.
"""

import json
import math
import re
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from pcclip.data.sources import toy_scenes as draw
from pcclip.runs.files import atomic, cache_folder, digest, write_json
from pcclip.runs.progress import Meter, say
from pcclip.runs.stage import Stage
from pcclip.torchvision_shim import declare_missing

SPEC = re.compile(r"shapes-clip(?::(\d+))?")
WEIGHTS, CARD, STATE = "open_clip_model.safetensors", "open_clip_config.json", "state.pt"
MODEL = {
    "embed_dim": 64,
    "vision_cfg": {"image_size": draw.SIDE, "patch_size": 8, "width": 64, "layers": 3, "head_width": 32},
    "text_cfg": {"context_length": 12, "vocab_size": 49408, "width": 64, "heads": 2, "layers": 2},
}
PREPROCESS = {"mean": [0.5] * 3, "std": [0.25] * 3, "interpolation": "bicubic", "resize_mode": "shortest"}
RECIPE = {
    "pictures": 20_000,
    "steps": 400,
    "batch": 32,
    "lr": 1e-3,
    "warmup": 50,
    "weight_decay": 0.05,
    "checkpoint_every": 100,
}


def seed_of(spec: str) -> int:
    """3 for 'shapes-clip:3', 0 for 'shapes-clip'."""
    return int(SPEC.fullmatch(spec)[1] or 0)


def stage(seed: int, recipe: dict = RECIPE) -> Stage:
    """Where the model of a seed is kept: a folder in open_clip's local-dir layout, named by all that goes in."""
    inputs = {"format": draw.FORMAT, "seed": seed, "model": MODEL, "preprocess": PREPROCESS, "recipe": recipe}
    return Stage(cache_folder() / "shapes" / f"clip-{digest(inputs)[:16]}", inputs)


def trained(seed: int, recipe: dict = RECIPE) -> Path:
    """The folder of the model of a seed, trained unless it is there; a killed training continues.

    Raises PcclipError when it cannot be written, or another process is at it.
    """
    this = stage(seed, recipe)
    if this.done():
        return this.folder
    say(f"shapes-clip:{seed} is trained once, {recipe['steps']} steps, into {this.folder}")
    with this.work():
        from safetensors.torch import save_file

        model = _train(seed, recipe, this.partial / STATE)
        write_json(this.folder / CARD, {"model_cfg": MODEL, "preprocess_cfg": PREPROCESS})
        with atomic(this.folder / WEIGHTS) as temporary:
            save_file({name: value.contiguous() for name, value in model.state_dict().items()}, temporary)
        this.finish([CARD, WEIGHTS], {"pictures": recipe["pictures"], "steps": recipe["steps"]}, "shapes-clip")
    return this.folder


def share_of_twins(batch: int) -> float:
    """The chance that the batch has, for one picture, that of the same objects with the roles exchanged."""
    arrangements = 4 * round((1 - draw.HELD_OUT) * len(draw.PAIRS))
    return 1 - (1 - 1 / arrangements) ** (batch - 1)


def _train(seed: int, recipe: dict, state: Path) -> nn.Module:
    """The trained model, in fp32 on the CPU, where the same seed gives the same weights."""
    declare_missing()
    import open_clip

    scenes = [draw.scene(seed, "train", number) for number in range(recipe["pictures"])]
    pixels = torch.from_numpy(draw.pictures(scenes)).permute(0, 3, 1, 2)
    tokens = open_clip.SimpleTokenizer(context_length=MODEL["text_cfg"]["context_length"])(
        [scene.caption for scene in scenes]
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = open_clip.CustomTextCLIP(**json.loads(json.dumps(MODEL)))  # it writes into what it is given
    matrices = [p for p in model.parameters() if p.ndim > 1]
    optimizer = torch.optim.AdamW(
        [
            {"params": matrices, "weight_decay": recipe["weight_decay"]},
            {"params": [p for p in model.parameters() if p.ndim < 2], "weight_decay": 0.0},
        ],
        lr=0.0,
        betas=(0.9, 0.98),
    )
    first = _resumed(state, model, optimizer)
    meter = Meter(recipe["steps"], "shapes-clip: steps")
    meter.add(first)
    for step in range(first, recipe["steps"]):
        for group in optimizer.param_groups:
            group["lr"] = (
                recipe["lr"]
                * min(1.0, (step + 1) / recipe["warmup"])
                * (0.5 + 0.5 * math.cos(math.pi * step / recipe["steps"]))
            )
        rows = np.random.default_rng([seed, step]).integers(len(scenes), size=recipe["batch"])
        loss = _loss(model, _scaled(pixels[rows]), tokens[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if (step + 1) % recipe["checkpoint_every"] == 0:
            with atomic(state) as temporary:
                torch.save(
                    {"step": step + 1, "model": model.state_dict(), "optimizer": optimizer.state_dict()}, temporary
                )
        meter.add(note=f"loss {loss.item():.2f}")
    return model.eval()


def _resumed(state: Path, model: nn.Module, optimizer: torch.optim.Optimizer) -> int:
    """The number of steps that an interrupted training has done; it is put into the model and the optimiser."""
    if not state.is_file():
        return 0
    held = torch.load(state, map_location="cpu", weights_only=True)
    model.load_state_dict(held["model"])
    optimizer.load_state_dict(held["optimizer"])
    return held["step"]


def _scaled(pixels: Tensor) -> Tensor:
    """Bytes as PREPROCESS has them."""
    return (pixels.float() / 255 - PREPROCESS["mean"][0]) / PREPROCESS["std"][0]


def _loss(model: nn.Module, pixels: Tensor, tokens: Tensor) -> Tensor:
    """CLIP's symmetric cross entropy within the batch."""
    images, texts = model.encode_image(pixels, normalize=True), model.encode_text(tokens, normalize=True)
    logits = model.logit_scale.exp().clamp(max=100) * images @ texts.T
    right = torch.arange(len(pixels))
    return (nn.functional.cross_entropy(logits, right) + nn.functional.cross_entropy(logits.T, right)) / 2
