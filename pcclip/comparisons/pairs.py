"""Which images are compared: ordered pairs of rows, chosen reproducibly and without ever listing all n^2 of them."""

import random

import numpy as np
import pandas as pd

from pcclip.errors import PcclipError


def choose_pairs(groups: pd.Series, count: int | None, sampling: str, both_directions: bool, seed: int) -> np.ndarray:
    """Ordered pairs (i, j) of rows whose groups differ, each at most once, in the order they were drawn.

    Args:
        groups: (n,) one value per image; images of equal value are never paired (captions: nothing to compare).
        count: how many pairs; None means every one there is.
        sampling: 'all' (every unordered pair in order of rows; with a count, that many at random), 'random'
            (uniform), or 'balanced' (every image is first and second equally often, up to one).
        both_directions: follow each (i, j) by (j, i); the count includes them.
        seed: of the draw.

    Returns:
        (m, 2) int64. m is smaller than `count` when there are not that many pairs.
    """
    codes = pd.factorize(groups)[0]
    if len(set(codes)) < 2:
        raise PcclipError("need at least two different images to make a pair")
    ways = 2 if both_directions else 1
    wanted = None if count is None else -(-count // ways)
    if sampling == "all" and count is not None:
        sampling = "random"
    drawn = {"all": _all, "random": _random, "balanced": _balanced}[sampling](codes, wanted, seed)
    pairs, seen = [], set()
    for i, j in drawn:
        unordered = (min(i, j), max(i, j))
        if codes[i] == codes[j] or unordered in seen:
            continue
        seen.add(unordered)
        pairs.extend([(i, j), (j, i)] if both_directions else [(i, j)])
        if count is not None and len(pairs) >= count:
            break
    return np.array(pairs[:count], dtype=np.int64).reshape(-1, 2)


def _all(codes: np.ndarray, wanted: int | None, seed: int):
    return ((i, j) for i in range(len(codes)) for j in range(i + 1, len(codes)))


def _random(codes: np.ndarray, wanted: int | None, seed: int):
    """Ordered pairs at random: single draws where few of many are wanted (the caller drops repeats), else all."""
    n = len(codes)
    total = n * (n - 1)
    usable = 1 - ((np.bincount(codes) / n) ** 2).sum()  # share of the pairs whose groups differ
    if wanted is not None and wanted <= usable * total / 8:
        rng = random.Random(seed)
        order = (rng.randrange(total) for _ in range(int(4 * wanted / usable) + 100))
    else:
        order = np.random.default_rng(seed).permutation(total)
    for k in order:
        i, j = divmod(int(k), n - 1)
        yield i, j + (j >= i)


def _balanced(codes: np.ndarray, wanted: int | None, seed: int):
    """Round r pairs everyone on a shuffled circle with the one r steps ahead: each is first once and second once."""
    n, rng = len(codes), np.random.default_rng(seed)
    circle = rng.permutation(n)
    steps = rng.permutation(np.arange(1, (n + 1) // 2))
    for step in [*steps, *([n // 2] if n % 2 == 0 else [])]:  # half a circle away is only half a round: it comes last
        for k in rng.permutation(n):
            yield int(circle[k]), int(circle[(k + step) % n])
