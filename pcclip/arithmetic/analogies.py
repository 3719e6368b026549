"""Parallelograms: a is to b as c is to what? Asked of words and of photographs.

3CosAdd is the nearest to b - a + c (Mikolov et al., 2013); 3CosMul multiplies shifted cosines, so that no term drowns
the others, and the pair distance compares x - c with b - a (both Levy and Goldberg, 2014). As they do, a, b and c are
no answers; the controls say what that alone is worth (Linzen, 2016): the nearest to c, and the nearest to b. A further
way leaves none of them out, so that a step too short to leave c shows.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float, Int

from pcclip.stats.vectors import unit

OPEN = "3CosAdd, none left out"
METHODS = ("3CosAdd", "3CosMul", "pair distance", OPEN)
CONTROLS = ("nearest to c", "nearest to b")
_TIE, _EPSILON = 1e-6, 1e-3

_ANIMALS = ("dog", "cat", "horse", "bird", "fish", "elephant")
_THINGS = ("house", "car", "boat", "tree", "ball", "chair")
WORDS: dict[str, tuple[str, str, tuple[str, ...]]] = {  # two ways to say it, and of what
    "size": ("a photo of a large {}", "a photo of a small {}", _ANIMALS + _THINGS),
    "colour": (
        "a photo of a red {}",
        "a photo of a green {}",
        ("car", "apple", "flower", "bird", "house", "ball", "bottle", "chair", "hat", "boat", "book", "leaf"),
    ),
    "age": (
        "a photo of an old {}",
        "a photo of a young {}",
        ("man", "woman", "dog", "cat", "horse", "elephant", "tree", "cow", "lion", "sheep"),
    ),
    "domain": ("a photo of a {}", "a drawing of a {}", _ANIMALS + _THINGS),
}


def word_texts(name: str) -> list[str]:
    """The texts of one set: first one way to say it of every noun, then the other."""
    one, other, nouns = WORDS[name]
    return [way.format(noun) for way in (one, other) for noun in nouns]


def word_quadruples(nouns: int) -> Int[np.ndarray, "m 4"]:
    """Rows a, b, c, d of `word_texts` for every ordered pair of nouns, from one way to the other and back."""
    i, j = np.nonzero(~np.eye(nouns, dtype=bool))
    forth = np.stack([i, i + nouns, j, j + nouns], axis=1)
    return np.concatenate([forth, forth[:, [1, 0, 3, 2]]])


def image_quadruples(groups: Sequence, count: int, seed: int) -> Int[np.ndarray, "m 4"]:
    """Rows a, b, c, d: a and c are two images of one group, b and d two of another.

    Empty where fewer than two groups have two images.
    """
    codes = np.unique(np.asarray(groups, dtype=str), return_inverse=True)[1]
    rng, members = np.random.default_rng(seed), [np.flatnonzero(codes == k) for k in range(codes.max(initial=-1) + 1)]
    members = [rows for rows in members if len(rows) > 1]
    if len(members) < 2:
        return np.empty((0, 4), dtype=np.int64)
    found = []
    for _ in range(count):
        one, other = (members[k] for k in rng.choice(len(members), 2, replace=False))
        (a, c), (b, d) = rng.choice(one, 2, replace=False), rng.choice(other, 2, replace=False)
        found.append((a, b, c, d))
    return np.array(found, dtype=np.int64)


def solved(
    vectors: Float[np.ndarray, "n d"], quadruples: Int[np.ndarray, "m 4"], groups: Int[np.ndarray, " n"] | None = None
) -> dict[str, Bool[np.ndarray, " m"]]:
    """Whether each way of solving finds the answer, by the names in METHODS and CONTROLS.

    Args:
        vectors: unit vectors of the candidates.
        quadruples: rows a, b, c and the answer d.
        groups: of each candidate; then any of the answer's group is right, and without it only the answer itself.

    A tie is not an answer: the best right candidate must be ahead of every wrong one by more than 1e-6.
    """
    a, b, c, d = quadruples.T
    right = (groups[None] == groups[d][:, None]) if groups is not None else np.arange(len(vectors))[None] == d[:, None]
    near = {name: vectors[rows] @ vectors.T for name, rows in (("a", a), ("b", b), ("c", c))}
    shifted = {name: (cosine + 1) / 2 for name, cosine in near.items()}
    step = unit(vectors[b] - vectors[a])
    away = np.sqrt(np.maximum(2 - 2 * near["c"], 1e-12))  # |x - c|, of unit vectors
    scores = {
        "3CosAdd": near["b"] - near["a"] + near["c"],
        "3CosMul": shifted["b"] * shifted["c"] / (shifted["a"] + _EPSILON),
        "pair distance": (step @ vectors.T - (step * vectors[c]).sum(axis=1, keepdims=True)) / away,
        OPEN: near["b"] - near["a"] + near["c"],
        "nearest to c": near["c"],
        "nearest to b": near["b"],
    }
    rows = np.arange(len(quadruples))[:, None]
    found = {}
    for name, score in scores.items():
        score = score.copy()
        answers = right.copy()
        answers[rows, quadruples[:, :3]] = False
        if name != OPEN:
            score[rows, quadruples[:, :3]] = -np.inf
        best = np.where(answers, score, -np.inf).max(axis=1)
        found[name] = best > np.where(answers, -np.inf, score).max(axis=1) + _TIE
    return found


def chance(candidates: int, right: float = 1.0) -> float:
    """Share of the answers that guessing finds, among the candidates that are not a, b or c."""
    return right / max(1, candidates - 3)
