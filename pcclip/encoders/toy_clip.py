"""`shapes-clip`: a small CLIP, trained from scratch by the plain contrastive loss on pictures of sources/toy_scenes.py.

It names the objects and cannot tell "a left of b" from "b left of a", for the reason that large CLIPs cannot. The loss
contrasts the texts of one batch; among 32 pictures of 108 combinations, each in four arrangements, the picture with the
roles exchanged is there for about one picture in fourteen (`share_of_twins`). Knowing the objects wins nearly all.
"""

import json
import math
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from pcclip.data.sources import toy_scenes as draw
from pcclip.encoders.toy_model import ToyModel, learn
from pcclip.runs.files import write_json, write_tensors
from pcclip.runs.progress import Meter
from pcclip.stats.random_streams import stream
from pcclip.torchvision_shim import declare_missing

WEIGHTS, CARD = "open_clip_model.safetensors", "open_clip_config.json"
MODEL: dict[str, Any] = {
    "embed_dim": 64,
    "vision_cfg": {"image_size": draw.SIDE, "patch_size": 8, "width": 64, "layers": 3, "head_width": 32},
    "text_cfg": {"context_length": 12, "vocab_size": 49408, "width": 64, "heads": 2, "layers": 2},
}
PREPROCESS: dict[str, Any] = {
    "mean": [0.5] * 3,
    "std": [0.25] * 3,
    "interpolation": "bicubic",
    "resize_mode": "shortest",
}
RECIPE = {
    "pictures": 20_000,
    "steps": 400,
    "batch": 32,
    "lr": 1e-3,
    "warmup": 50,
    "weight_decay": 0.05,
}


def share_of_twins(batch: int) -> float:
    """The chance that a batch holds, for one of its pictures, the picture with the roles of the objects exchanged."""
    arrangements = 4 * round((1 - draw.HELD_OUT) * len(draw.PAIRS))
    return 1 - (1 - 1 / arrangements) ** (batch - 1)


def _write(seed: int, recipe: dict, folder: Path) -> list[str]:
    """Train the model and write it in open_clip's local-dir layout."""
    model = _train(seed, recipe)
    write_json(folder / CARD, {"model_cfg": MODEL, "preprocess_cfg": PREPROCESS})
    write_tensors(folder / WEIGHTS, model.state_dict())
    return [CARD, WEIGHTS]


def _train(seed: int, recipe: dict) -> nn.Module:
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
        model = open_clip.CustomTextCLIP(**json.loads(json.dumps(MODEL)))  # a copy: open_clip changes its arguments
    optimizer = torch.optim.AdamW(
        [
            {"params": [p for p in model.parameters() if p.ndim > 1], "weight_decay": recipe["weight_decay"]},
            {"params": [p for p in model.parameters() if p.ndim < 2], "weight_decay": 0.0},
        ],
        lr=0.0,
        betas=(0.9, 0.98),
    )
    meter = Meter(recipe["steps"], "shapes-clip: steps")
    for step in range(recipe["steps"]):
        warm, left = min(1.0, (step + 1) / recipe["warmup"]), 0.5 + 0.5 * math.cos(math.pi * step / recipe["steps"])
        rows = stream("toy clip batch", seed, step).integers(len(scenes), size=recipe["batch"])
        scaled = (pixels[rows].float() / 255 - PREPROCESS["mean"][0]) / PREPROCESS["std"][0]
        loss = _loss(model, scaled, tokens[rows])
        learn(optimizer, loss, recipe["lr"] * warm * left)
        meter.add(note=f"loss {loss.item():.2f}")
    return model.eval()


def _loss(model: Any, pixels: Tensor, tokens: Tensor) -> Tensor:
    """CLIP's symmetric cross entropy within the batch."""
    images, texts = model.encode_image(pixels, normalize=True), model.encode_text(tokens, normalize=True)
    logits = model.logit_scale.exp().clamp(max=100) * images @ texts.T
    right = torch.arange(len(pixels))
    return (nn.functional.cross_entropy(logits, right) + nn.functional.cross_entropy(logits.T, right)) / 2


SHAPES_CLIP = ToyModel("shapes-clip", {"model": MODEL, "preprocess": PREPROCESS}, RECIPE, _write)
