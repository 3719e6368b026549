"""Which images are compared: ordered pairs of rows, drawn reproducibly and without a list of all n^2."""

from collections.abc import Iterator

import numpy as np
import pandas as pd
from jaxtyping import Int

from pcclip.errors import PcclipError
from pcclip.stats.random_streams import python_stream, stream


def choose_pairs(groups: pd.Series, count: int | None, sampling: str, seed: int) -> Int[np.ndarray, "m 2"]:
    """Ordered pairs (i, j) of rows whose groups differ, each unordered pair at most once, in the order of the draw.

    Args:
        groups: (n,) one value for each image; images with equal values are not paired.
        count: the number of pairs, None for all.
        sampling: 'all' (every unordered pair in the order of the rows; with a count it is 'random'), 'random'
            (uniform), or 'balanced' (every image is first and second equally often, up to one).
        seed: the seed of the draw.

    Returns:
        (m, 2) int64; m is smaller than `count` when there are fewer pairs.

    Raises:
        PcclipError: there are fewer than two groups.
    """
    codes = pd.factorize(groups)[0]
    if len(set(codes)) < 2:
        raise PcclipError("need at least two different images to make a pair")
    if sampling == "balanced":
        drawn = _balanced(len(codes), seed)
    elif sampling == "random" or count is not None:
        drawn = _random(codes, count, seed)
    else:
        drawn = ((i, j) for i in range(len(codes)) for j in range(i + 1, len(codes)))
    pairs: dict[tuple[int, int], tuple[int, int]] = {}
    for i, j in drawn:
        if codes[i] != codes[j]:
            pairs.setdefault((min(i, j), max(i, j)), (i, j))
        if len(pairs) == count:
            break
    return np.array(list(pairs.values()), dtype=np.int64).reshape(-1, 2)


def both_images(table: pd.DataFrame, rows: Int[np.ndarray, "m 2"]) -> pd.DataFrame:
    """Both rows of each pair: first and second, their values of column `id`, and first_NAME and second_NAME of the others."""
    sides = [
        table.iloc[rows[:, side]].reset_index(drop=True).add_prefix(f"{name}_")
        for side, name in enumerate(("first", "second"))
    ]
    return pd.concat(sides, axis=1).rename(columns={"first_id": "first", "second_id": "second"})


def _random(codes: Int[np.ndarray, " n"], count: int | None, seed: int) -> Iterator[tuple[int, int]]:
    """Ordered pairs, uniformly: single draws with repeats where few of many pairs are wanted, else a permutation."""
    n = len(codes)
    total = n * (n - 1)
    usable = 1 - ((np.bincount(codes) / n) ** 2).sum()  # share of the pairs whose groups differ
    if count is not None and count <= usable * total / 8:
        draw = python_stream("few of many pairs", seed)
        numbers: Iterator[int] = (draw.randrange(total) for _ in range(int(4 * count / usable) + 100))
    else:
        numbers = iter(stream("pairs", seed).permutation(total))
    for number in numbers:
        i, j = divmod(int(number), n - 1)
        yield i, j + (j >= i)


def _balanced(n: int, seed: int) -> Iterator[tuple[int, int]]:
    """Rounds: each pairs every row of a shuffled circle with the row some steps ahead.

    So each row is first once and second once in a round. With an even n the round of half a circle gives every pair twice,
    so it comes last.
    """
    draw = stream("pairs", seed)
    circle = draw.permutation(n)
    steps = list(draw.permutation(np.arange(1, (n + 1) // 2)))
    for step in [*steps, n // 2] if n % 2 == 0 else steps:
        for k in draw.permutation(n):
            yield int(circle[k]), int(circle[(k + step) % n])
