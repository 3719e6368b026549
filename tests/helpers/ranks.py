"""Not a test: one process of stage 03 that first notes the gradients of single steps; the second then kills itself.

accelerate launch -m helpers.ranks PARAMS.json
"""

import sys
from pathlib import Path

import numpy as np
import torch
from torch import distributed as dist

from helpers.killed import die_at_call
from pcclip import load_model
from pcclip.comparisons import stage as generate
from pcclip.config import Config
from pcclip.data.image_set import load_images
from pcclip.embedding.stage import FOLDER
from pcclip.embedding.vectors import load_vectors
from pcclip.finetuning import __main__ as process
from pcclip.finetuning.loop import copied_towers
from pcclip.finetuning.text_tower import TextTower, load_data
from pcclip.runs.files import read_parquet

TERMS = {"attribute_weight": 1.0, "replay": 0.5, "replay_batch": 9, "mask_shared": True, "learn_temperature": True}
STEPS = {  # name -> how many comparisons, and settings; 33 texts with every term, so shares are uneven
    "plain": (12, {}),
    "fewer texts than would fill the shares": (3, {"swap": False}),
    "mse": (12, {"objective": "mse"}),
    "captions": (11, {"objective": "captions"}),
    "every term": (11, TERMS),
    "every term, few at once": (11, {**TERMS, "micro_batch": 4}),
    "all of the tower": (11, {**TERMS, "tune": "all"}),
    "LoRA, few at once": (11, {**TERMS, "tune": "lora", "lora_rank": 2, "micro_batch": 5}),
    "bf16": (11, {**TERMS, "precision": "bf16"}),
}


def steps(config: Config) -> dict[str, tuple[dict[str, float], dict[str, torch.Tensor]]]:
    """The terms of one step of each kind, and the gradient of everything that learns."""
    images, model = load_images(config), load_model(config.model)
    vectors = load_vectors(config.source_folder / FOLDER, model)
    comparisons = read_parquet(config.source_folder / generate.FOLDER / generate.TABLE).to_pandas()
    results = {}
    for name, (size, changes) in STEPS.items():
        changed = config.model_copy(update={"finetune": config.finetune.model_copy(update=changes)})
        data = load_data(changed, images, vectors, comparisons, model)
        with copied_towers(model, ["text"]):
            training = TextTower(changed, data, model)
            terms = training.step(np.random.default_rng(0).permutation(training.size)[:size])
            gradients = {n: p.grad.clone() for n, p in training.state.parameters.items() if p.grad is not None}
            results[name] = terms, gradients
    return results


def main(path: str) -> None:
    train = process.train

    def noted(config: Config) -> None:
        torch.save(steps(config), Path(config.outputs) / f"steps-{dist.get_rank()}.pt")
        if dist.get_rank() == 1:
            die_at_call(TextTower, "step", 7)
        train(config)

    process.train = noted
    process.main(path)


if __name__ == "__main__":
    main(*sys.argv[1:])
