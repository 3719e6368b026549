"""Random streams by name: every random choice of the package draws from one of these, and nothing else does.

A stream is a seed list: the run's seed, numbers of the caller (a step, an epoch, an item), and the constants below,
which keep apart streams that would otherwise share a list. Streams with equal lists draw equal numbers; they are listed
all the same, so that this table says everything that depends on the seed.
"""

import random

import numpy as np
import torch

STREAMS: dict[str, tuple[int, ...]] = {
    # data
    "held-out concepts": (),
    "limited images": (),
    "toy scene": (),  # numbers: split, picture
    "toy combinations": (),  # numbers: how many splits there are
    # encoders: toy models
    "toy clip batch": (),  # numbers: step
    "toy diffusion batch": (),  # numbers: step
    "toy texts batch": (1,),  # numbers: step
    # benchmarks
    "limited items": (),
    # comparisons
    "pairs": (),
    "few of many pairs": (),  # Python's generator
    # finetuning
    "batch order": (),  # numbers: epoch
    "verdicts and replayed texts": (1,),  # numbers: step
    "structures of a batch": (8,),  # numbers: step
    "captions of a batch": (2,),  # numbers: step
    "noise of a training step": (6,),  # numbers: step
    "noise of the held-out curve": (7,),  # numbers: 0
    # stats and arithmetic
    "bootstrap": (),
    "sign flips": (),
    "item pairs": (),
    "jackknife groups": (),
    "parallelograms": (),
    "shuffled pairs": (),
    "triples": (),
    "half of the vectors": (),
    # ranking
    "questions to a voter": (),
    "votes of a voter": (1,),
    "future pairs": (),
    "ranks of photos": (),
    "groups voted on": (),
    # evaluation
    "matcher noise levels": (),
    "relation items": (),  # numbers: item
    "few-shot images": (),
    "class pairs": (),
    "distractors": (),
    "judged pairs": (),
}


def stream(name: str, seed: int, *numbers: int) -> np.random.Generator:
    """numpy's generator of the named stream.

    Args:
        name: a key of STREAMS.
        seed: the run's seed.
        numbers: what the stream is drawn anew for, such as a step or an epoch.
    """
    return np.random.default_rng([seed, *numbers, *STREAMS[name]])


def python_stream(name: str, seed: int | str) -> random.Random:
    """Python's generator of the named stream, seeded with `seed` alone: its single draws are faster than numpy's."""
    if name not in STREAMS:
        raise KeyError(name)
    return random.Random(seed)


def torch_stream(seed: int) -> torch.Generator:
    """torch's generator on the CPU: for noise in torch's own dtype, and for orders that a released file draws so."""
    return torch.Generator().manual_seed(seed)
