"""`shapes-diffusion`: a small text-to-image diffusion model, trained from scratch on pictures of sources/toy_scenes.py.

Its latents are the pixels of a smaller picture that still shows colours and places. Its text encoder first learns, from
texts alone, which object is left, right, above and below; then both networks learn to denoise, which alone would teach
the order of words later. It is stored in diffusers' pipeline layout, so encoders/diffusion.py reads it like Stable
Diffusion.
"""

import math
from collections import Counter
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from pcclip.data.sources import toy_scenes as draw
from pcclip.encoders.toy_model import ToyModel, learn
from pcclip.runs.progress import Meter
from pcclip.stats.random_streams import stream
from pcclip.torchvision_shim import declare_missing

UNET: dict[str, Any] = {
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
TEXT_ENCODER: dict[str, Any] = {
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
}
SIDES = ("left of", "right of", "above", "below")  # read from the last four tokens of the padding
_END = "</w>"


def _write(seed: int, recipe: dict, folder: Path) -> list[str]:
    """Train the model and write its parts in diffusers' pipeline layout."""
    trained_parts = _train(seed, recipe)
    for name, part in trained_parts.items():
        part.save_pretrained(folder / name)
    files = [file for name in trained_parts for file in (folder / name).iterdir()]
    return [file.relative_to(folder).as_posix() for file in sorted(files)]


def parts(seed: int) -> dict[str, Any]:
    """unet, scheduler, text_encoder and tokenizer, with random weights drawn from the seed."""
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

    captions = " ".join(draw.caption(noun, relation, noun) for noun in draw.OBJECTS for relation in draw.RELATIONS)
    merges: list[Any] = []
    known = [(*word[:-1], word[-1] + _END) for word in sorted(set(captions.split()))]
    letters = sorted({letter for word in known for letter in word})
    while counts := Counter(pair for word in known for pair in pairwise(word)):  # byte pair encoding, to its end
        merges.append(min(counts, key=lambda pair: (-counts[pair], pair)))
        known = [_merged(word, merges[-1]) for word in known]
    tokens = ["<|startoftext|>", "<|endoftext|>", *letters, *map("".join, merges)]
    return CLIPTokenizer(
        {token: number for number, token in enumerate(dict.fromkeys(tokens))},
        merges,
        model_max_length=TEXT_ENCODER["max_position_embeddings"],
    )


def _merged(word: tuple[str, ...], pair: tuple[str, str]) -> tuple[str, ...]:
    """The word with every occurrence of the pair made one."""
    made: list[str] = []
    for part in word:
        if made and (made[-1], part) == pair:
            made[-1] += part
        else:
            made.append(part)
    return tuple(made)


def _train(seed: int, recipe: dict) -> dict[str, Any]:
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
    _teach_sides(made["text_encoder"], texts, _sides(scenes), seed, recipe)
    average["text_encoder"].load_state_dict(made["text_encoder"].state_dict())
    meter = Meter(recipe["steps"], "shapes-diffusion: steps")
    losses: list[float] = []
    for step in range(recipe["steps"]):
        warm, left = min(1.0, (step + 1) / recipe["warmup"]), 0.525 + 0.475 * math.cos(math.pi * step / recipe["steps"])
        rng = stream("toy diffusion batch", seed, step)
        rows = rng.integers(len(pixels) // 2, size=recipe["batch"] // 2)
        rows, ways = np.r_[rows, rows + len(pixels) // 2], rng.integers(2, size=recipe["batch"])
        dropped = torch.from_numpy(rng.random(recipe["batch"]) < recipe["without_text"])
        captions = torch.where(dropped[:, None], without, texts[rows, ways])
        loss = _loss(made, pixels[rows].float() / 127.5 - 1, captions, recipe["levels"], rng)
        learn(optimizer, loss, recipe["lr"] * warm * left, longest=1.0)
        kept = min(recipe["average"], (1 + step) / (10 + step))
        with torch.no_grad():
            torch._foreach_lerp_(list(averaged.parameters()), list(learning.parameters()), 1 - kept)
        losses = [*losses[-99:], loss.item()]
        meter.add(note=f"loss {np.mean(losses):.3f}")
    return average


def _both(made: dict[str, Any]) -> nn.ModuleDict:
    """The two networks that learn."""
    return nn.ModuleDict({name: made[name].to(memory_format=torch.channels_last) for name in ("unet", "text_encoder")})


def _examples(scenes: list[draw.Scene], tokenizer: Any) -> tuple[Tensor, Tensor, Tensor]:
    """Pictures (n, 3, h, w) in bytes, tokens of the two captions true of each picture (n, 2, t), tokens of '' (t,)."""
    size = (UNET["sample_size"],) * 2
    pixels = np.stack([np.asarray(draw.draw(scene).resize(size, Image.Resampling.BICUBIC)) for scene in scenes])
    captions = [
        text
        for scene in scenes
        for text in (scene.caption, draw.caption(scene.second, draw.INVERSE[scene.relation], scene.first))
    ]
    ids = tokenizer([*captions, ""], padding="max_length", return_tensors="pt").input_ids
    return torch.from_numpy(pixels).permute(0, 3, 1, 2), ids[:-1].view(len(scenes), 2, -1), ids[-1]


def _sides(scenes: list[draw.Scene]) -> Tensor:
    """Which object is at each of SIDES (n, 4): its number in draw.OBJECTS, or one more than the last for none."""
    sides = torch.full((len(scenes), len(SIDES)), len(draw.OBJECTS))
    for row, scene in zip(sides, scenes, strict=True):
        row[SIDES.index(scene.relation)] = draw.OBJECTS.index(scene.first)
        row[SIDES.index(draw.INVERSE[scene.relation])] = draw.OBJECTS.index(scene.second)
    return sides


def _teach_sides(encoder: Any, texts: Tensor, sides: Tensor, seed: int, recipe: dict) -> None:
    """Train the text encoder until one linear map reads the four sides from its last four hidden states."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        reader = nn.Linear(TEXT_ENCODER["hidden_size"], len(draw.OBJECTS) + 1)
    optimizer = torch.optim.AdamW([*encoder.parameters(), *reader.parameters()], betas=(0.9, 0.99))
    meter = Meter(recipe["text_steps"], "shapes-diffusion: steps of the text encoder alone")
    for step in range(recipe["text_steps"]):
        rate = recipe["lr"] * min(1.0, (step + 1) / 50) * (1 - step / recipe["text_steps"])
        rng = stream("toy texts batch", seed, step)
        rows, ways = rng.integers(len(texts), size=256), rng.integers(2, size=256)
        logits = reader(encoder(texts[rows, ways]).last_hidden_state[:, -len(SIDES) :])
        loss = nn.functional.cross_entropy(logits.flatten(0, 1), sides[rows].flatten())
        learn(optimizer, loss, rate, longest=1.0)
        meter.add(note=f"loss {loss.item():.3f}")


def _loss(made: dict[str, Any], z0: Tensor, captions: Tensor, levels: list[float], rng: np.random.Generator) -> Tensor:
    """Mean squared error of the velocity, with a noise level for each picture of the first half.

    The second half shows the same places with the objects exchanged, with the same levels and noise, so only the texts
    tell the two halves apart.

    Half of the noise levels lie between `levels`, fractions of the highest: below, the picture shows without any text
    which object is where; above, it hardly shows where an object is.
    """
    scheduler, (low, high) = made["scheduler"], levels
    share = rng.random(len(z0) // 2)
    share = np.where(rng.random(len(share)) < 0.5, low + (high - low) * share, share)
    t = torch.from_numpy((share * scheduler.config.num_train_timesteps).astype(np.int64)).repeat(2)
    noise = torch.from_numpy(rng.standard_normal((len(share), *z0.shape[1:]), dtype=np.float32)).repeat(2, 1, 1, 1)
    z_t = scheduler.add_noise(z0, noise, t).to(memory_format=torch.channels_last)
    velocity = made["unet"](z_t, t, made["text_encoder"](captions).last_hidden_state).sample
    return nn.functional.mse_loss(velocity, scheduler.get_velocity(z0, noise, t))


SHAPES_DIFFUSION = ToyModel(
    "shapes-diffusion",
    {"unet": UNET, "text_encoder": TEXT_ENCODER, "scheduler": SCHEDULER},
    RECIPE,
    _write,
)
