"""What the two toy models share: a spec with a seed, a folder in the cache, and a training of a minute or two.

A toy model is trained from scratch on drawn pictures the first time its spec is used, and kept in
~/.cache/pcclip/shapes.
"""

import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch

from pcclip.data.sources import toy_scenes
from pcclip.runs.files import cache_folder, digest
from pcclip.runs.progress import say
from pcclip.runs.stage import Stage, once


class ToyModel(NamedTuple):
    """A family of toy models that differ by seed.

    Attributes:
        name: the spec without a seed, such as 'shapes-clip'.
        architecture: everything but seed and recipe that determines the trained weights, JSON-able.
        recipe: sizes and rates of the training, with `pictures` and `steps`.
        write: trains into a folder, given seed, recipe and folder; returns the names of its files.
    """

    name: str
    architecture: dict[str, Any]
    recipe: dict[str, Any]
    write: Callable[[int, dict[str, Any], Path], list[str]]

    def seed(self, spec: str) -> int | None:
        """3 for 'shapes-clip:3', 0 for 'shapes-clip', None for a spec of another family."""
        match = re.fullmatch(rf"{self.name}(?::(\d+))?", spec)
        return int(match[1] or 0) if match else None

    def stage(self, seed: int) -> Stage:
        """The stage in the cache, whose folder is named by everything that determines the trained weights."""
        inputs = {"format": toy_scenes.FORMAT, "seed": seed, **self.architecture, "recipe": self.recipe}
        folder = f"{self.name.removeprefix('shapes-')}-{digest(inputs)[:16]}"
        return Stage(cache_folder() / "shapes" / folder, inputs)

    @once
    def trained(self, seed: int) -> Path:
        """The folder of the model of a seed, trained unless that is done.

        Raises PcclipError when the folder cannot be written.
        """
        stage, counts = self.stage(seed), {name: self.recipe[name] for name in ("pictures", "steps")}
        if not stage.done():
            say(f"{self.name}:{seed} is trained once, {counts['steps']} steps, into {stage.folder}")
            with stage.work():
                stage.finish(self.write(seed, self.recipe, stage.folder), counts, self.name)
        return stage.folder


def learn(optimizer: torch.optim.Optimizer, loss: torch.Tensor, rate: float, longest: float = math.inf) -> None:
    """Take one step with this learning rate; the gradient of each group of weights is cut to the length `longest`."""
    optimizer.zero_grad()
    loss.backward()
    for group in optimizer.param_groups:
        group["lr"] = rate
        torch.nn.utils.clip_grad_norm_(group["params"], longest)
    optimizer.step()
