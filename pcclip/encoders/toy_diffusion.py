"""`shapes-diffusion`: a small text-to-image diffusion model, trained from scratch on pictures of data/sources/toy_scenes.py.

Its latents are the pixels, in a smaller picture that still shows colours and places. Its text encoder is taught first,
by texts alone, to say which object is left, right, above and below; then both networks learn to denoise, which alone
teaches the order of words later. It is trained the first time it is asked for, and kept in ~/.cache/pcclip/shapes in
diffusers' pipeline layout, which encoders/diffusion.py reads as it reads Stable Diffusion.
"""

import math
import re
from collections import Counter
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from pcclip.data.sources import toy_scenes as draw
from pcclip.runs.files import atomic, cache_folder, digest
from pcclip.runs.progress import Meter, say
from pcclip.runs.stage import Stage
from pcclip.torchvision_shim import declare_missing

SPEC = re.compile(r"shapes-diffusion(?::(\d+))?")
STATE = "state.pt"
UNET = {
    "sample_size": 8,
    "in_channels": 3,
    "out_channels": 3,
    "layers_per_block": 1,
    "block_out_channels": [64, 64],
    "down_block_types": ["SimpleCrossAttnDownBlock2D"] * 2,
    "mid_block_type": "UNetMidBlock2DSimpleCrossAttn",
    "up_block_types": ["SimpleCrossAttnUpBlock2D"] * 2,
    "norm_num_groups": 8,
    "cross_attention_dim": 64,
    "attention_head_dim": 32,
}
TEXT_ENCODER = {
    "hidden_size": 64,
    "intermediate_size": 256,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "max_position_embeddings": 16,
}
SCHEDULER = {"num_train_timesteps": 1000, "beta_schedule": "linear", "prediction_type": "v_prediction"}
RECIPE = {
    "pictures": 12_000,
    "steps": 800,
    "batch": 64,
    "lr": 2e-3,
    "warmup": 100,
    "weight_decay": 0.01,
    "average": 0.99,
    "without_text": 0.1,
    "levels": [0.25, 0.8],
    "text_steps": 150,
    "checkpoint_every": 250,
}
SIDES = ("left of", "right of", "above", "below")  # what the last four tokens of the padding are taught to say
_END = "</w>"


def seed_of(spec: str) -> int:
    """3 for 'shapes-diffusion:3', 0 for 'shapes-diffusion'."""
    return int(SPEC.fullmatch(spec)[1] or 0)


def stage(seed: int, recipe: dict = RECIPE) -> Stage:
    """Where the model of a seed is kept: a folder in diffusers' pipeline layout, named by all that goes in."""
    inputs = {
        "format": draw.FORMAT,
        "seed": seed,
        "unet": UNET,
        "text_encoder": TEXT_ENCODER,
        "scheduler": SCHEDULER,
        "recipe": recipe,
    }
    return Stage(cache_folder() / "shapes" / f"diffusion-{digest(inputs)[:16]}", inputs)


def trained(seed: int, recipe: dict = RECIPE) -> Path:
    """The folder of the model of a seed, trained unless it is there; a killed training continues.

    Raises PcclipError when it cannot be written, or another process is at it.
    """
    this = stage(seed, recipe)
    if this.done():
        return this.folder
    say(f"shapes-diffusion:{seed} is trained once, {recipe['steps']} steps, into {this.folder}")
    with this.work():
        for name, part in _train(seed, recipe, this.partial / STATE).items():
            part.save_pretrained(this.folder / name)
        written = [
            file
            for folder in this.folder.iterdir()
            if folder.is_dir() and folder != this.partial
            for file in folder.iterdir()
        ]
        this.finish(
            [file.relative_to(this.folder).as_posix() for file in sorted(written)],
            {"pictures": recipe["pictures"], "steps": recipe["steps"]},
            "shapes-diffusion",
        )
    return this.folder


def parts(seed: int) -> dict[str, Any]:
    """unet, scheduler, text_encoder and tokenizer, the weights as drawn from the seed."""
    declare_missing()
    from diffusers import DDPMScheduler, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel

    tokenizer = _tokenizer()
    ends = {
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return {
            "unet": UNet2DConditionModel(**UNET),
            "scheduler": DDPMScheduler(**SCHEDULER),
            "tokenizer": tokenizer,
            "text_encoder": CLIPTextModel(CLIPTextConfig(vocab_size=len(tokenizer), **TEXT_ENCODER, **ends)),
        }


def _tokenizer() -> Any:
    """CLIP's kind of tokenizer, whose vocabulary is the words of the captions, each a token of its own."""
    from transformers import CLIPTokenizer

    captions = " ".join(draw.caption(one, relation, one) for one in draw.OBJECTS for relation in draw.RELATIONS)
    merges, known = [], [(*word[:-1], word[-1] + _END) for word in sorted(set(captions.split()))]
    letters = sorted({letter for word in known for letter in word})
    while found := Counter(pair for word in known for pair in pairwise(word)):  # byte pair encoding, to its end
        merges.append(min(found, key=lambda pair: (-found[pair], pair)))
        known = [_merged(word, merges[-1]) for word in known]
    tokens = ["<|startoftext|>", "<|endoftext|>", *letters, *map("".join, merges)]
    return CLIPTokenizer(
        {token: number for number, token in enumerate(dict.fromkeys(tokens))},
        merges,
        model_max_length=TEXT_ENCODER["max_position_embeddings"],
    )


def _merged(word: tuple[str, ...], pair: tuple[str, str]) -> tuple[str, ...]:
    """The word with every occurrence of the pair made one."""
    made = []
    for part in word:
        if made and (made[-1], part) == pair:
            made[-1] += part
        else:
            made.append(part)
    return tuple(made)


def _train(seed: int, recipe: dict, state: Path) -> dict[str, Any]:
    """The trained parts, with the mean of the last steps' weights, in fp32 on the CPU."""
    from diffusers.models.attention_processor import AttnAddedKVProcessor

    made, average = parts(seed), parts(seed)
    learning, averaged = _both(made), _both(average)
    made["unet"].set_attn_processor(AttnAddedKVProcessor())  # fused, it takes longer on a CPU
    made["text_encoder"].set_attn_implementation("eager")
    scenes = [draw.scene(seed, "train", number) for number in range(recipe["pictures"] // 2)]
    scenes += map(draw.mirrored, scenes[:])
    pixels, texts, without = _examples(scenes, made["tokenizer"])
    optimizer = torch.optim.AdamW(
        learning.parameters(), lr=0.0, betas=(0.9, 0.99), weight_decay=recipe["weight_decay"], fused=True
    )
    first = _resumed(state, learning, averaged, optimizer)
    if not first:
        _teach_sides(made["text_encoder"], texts, _sides(scenes), seed, recipe)
        average["text_encoder"].load_state_dict(made["text_encoder"].state_dict())
    meter, losses = Meter(recipe["steps"], "shapes-diffusion: steps"), []
    meter.add(first)
    for step in range(first, recipe["steps"]):
        for group in optimizer.param_groups:
            group["lr"] = (
                recipe["lr"]
                * min(1.0, (step + 1) / recipe["warmup"])
                * (0.525 + 0.475 * math.cos(math.pi * step / recipe["steps"]))
            )
        rng = np.random.default_rng([seed, step])
        rows = rng.integers(len(pixels) // 2, size=recipe["batch"] // 2)
        rows, ways = np.r_[rows, rows + len(pixels) // 2], rng.integers(2, size=recipe["batch"])
        dropped = torch.from_numpy(rng.random(recipe["batch"]) < recipe["without_text"])
        told = torch.where(dropped[:, None], without, texts[rows, ways])
        loss = _loss(made, pixels[rows].float() / 127.5 - 1, told, recipe["levels"], rng)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(learning.parameters(), 1.0)
        optimizer.step()
        kept = min(recipe["average"], (1 + step) / (10 + step))
        with torch.no_grad():
            torch._foreach_lerp_(list(averaged.parameters()), list(learning.parameters()), 1 - kept)
        losses = [*losses[-99:], loss.item()]
        if (step + 1) % recipe["checkpoint_every"] == 0:
            with atomic(state) as temporary:
                torch.save(
                    {
                        "step": step + 1,
                        "model": learning.state_dict(),
                        "average": averaged.state_dict(),
                        "optimizer": optimizer.state_dict(),
                    },
                    temporary,
                )
        meter.add(note=f"loss {np.mean(losses):.3f}")
    return average


def _both(made: dict[str, Any]) -> nn.ModuleDict:
    """The two networks that learn."""
    return nn.ModuleDict({name: made[name].to(memory_format=torch.channels_last) for name in ("unet", "text_encoder")})


def _examples(scenes: list[draw.Scene], tokenizer: Any) -> tuple[Tensor, Tensor, Tensor]:
    """Pictures (n, 3, h, w) in bytes, the tokens of both captions that are true of each (n, 2, t), those of no text."""
    size = (UNET["sample_size"],) * 2
    pixels = np.stack([np.asarray(draw.draw(one).resize(size, Image.Resampling.BICUBIC)) for one in scenes])
    captions = [
        text
        for one in scenes
        for text in (one.caption, draw.caption(one.second, draw.INVERSE[one.relation], one.first))
    ]
    ids = tokenizer([*captions, ""], padding="max_length", return_tensors="pt").input_ids
    return torch.from_numpy(pixels).permute(0, 3, 1, 2), ids[:-1].view(len(scenes), 2, -1), ids[-1]


def _sides(scenes: list[draw.Scene]) -> Tensor:
    """Which object is at each of SIDES (n, 4): its number in draw.OBJECTS, or one more than the last for none."""
    found = torch.full((len(scenes), len(SIDES)), len(draw.OBJECTS))
    for row, one in zip(found, scenes, strict=True):
        row[SIDES.index(one.relation)] = draw.OBJECTS.index(one.first)
        row[SIDES.index(draw.INVERSE[one.relation])] = draw.OBJECTS.index(one.second)
    return found


def _teach_sides(encoder: Any, texts: Tensor, sides: Tensor, seed: int, recipe: dict) -> None:
    """Train the text encoder until one linear map reads the four sides from its last four hidden states."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        reader = nn.Linear(TEXT_ENCODER["hidden_size"], len(draw.OBJECTS) + 1)
    weights = [*encoder.parameters(), *reader.parameters()]
    optimizer = torch.optim.AdamW(weights, lr=recipe["lr"], betas=(0.9, 0.99))
    meter = Meter(recipe["text_steps"], "shapes-diffusion: steps of the text encoder alone")
    for step in range(recipe["text_steps"]):
        for group in optimizer.param_groups:
            group["lr"] = recipe["lr"] * min(1.0, (step + 1) / 50) * (1 - step / recipe["text_steps"])
        rng = np.random.default_rng([seed, step, 1])
        rows, ways = rng.integers(len(texts), size=256), rng.integers(2, size=256)
        found = reader(encoder(texts[rows, ways]).last_hidden_state[:, -len(SIDES) :])
        loss = nn.functional.cross_entropy(found.flatten(0, 1), sides[rows].flatten())
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(weights, 1.0)
        optimizer.step()
        meter.add(note=f"loss {loss.item():.3f}")


def _loss(made: dict[str, Any], z0: Tensor, told: Tensor, levels: list[float], rng: np.random.Generator) -> Tensor:
    """Mean squared error of the velocity, at a noise level of its own for each picture of the first half.

    The second half are the same places with the objects exchanged: they have the same levels and the same noise, so
    that the two differ by what the texts tell apart.

    Half of them are between `levels`, shares of all: below, the picture shows which object is where without any text,
    and above it hardly shows where an object is.
    """
    scheduler, (low, high) = made["scheduler"], levels
    share = rng.random(len(z0) // 2)
    share = np.where(rng.random(len(share)) < 0.5, low + (high - low) * share, share)
    t = torch.from_numpy((share * scheduler.config.num_train_timesteps).astype(np.int64)).repeat(2)
    noise = torch.from_numpy(rng.standard_normal((len(share), *z0.shape[1:]), dtype=np.float32)).repeat(2, 1, 1, 1)
    z_t = scheduler.add_noise(z0, noise, t).to(memory_format=torch.channels_last)
    found = made["unet"](z_t, t, made["text_encoder"](told).last_hidden_state).sample
    return nn.functional.mse_loss(found, scheduler.get_velocity(z0, noise, t))


def _resumed(state: Path, learning: nn.Module, averaged: nn.Module, optimizer: torch.optim.Optimizer) -> int:
    """The number of steps that an interrupted training has done; it is put into the networks and the optimiser."""
    if not state.is_file():
        return 0
    held = torch.load(state, map_location="cpu", weights_only=True)
    learning.load_state_dict(held["model"])
    averaged.load_state_dict(held["average"])
    optimizer.load_state_dict(held["optimizer"])
    return held["step"]
