"""Parallelograms: a is to b as c is to what? For words and for photos.

3CosAdd takes the nearest to b - a + c (Mikolov et al., 2013). 3CosMul multiplies shifted cosines, so that no term
dominates, and the pair distance compares x - c with b - a (both Levy and Goldberg, 2014). As in these papers a, b and c
are no answers. The controls nearest to c and nearest to b show how much excluding them achieves alone (Linzen, 2016).
3CosAdd with none left out shows steps that are too short to leave c.
"""

from collections.abc import Iterable

import numpy as np
from jaxtyping import Bool, Float, Int

from pcclip.stats.random_streams import stream
from pcclip.stats.vectors import by_rows, unit

OPEN = "3CosAdd, none left out"
METHODS = ("3CosAdd", "3CosMul", "pair distance", OPEN)
_TIE, _EPSILON = 1e-6, 1e-3

_ANIMALS = ("dog", "cat", "horse", "bird", "fish", "elephant")
_THINGS = ("house", "car", "boat", "tree", "ball", "chair")
WORDS: dict[str, tuple[str, str, tuple[str, ...]]] = {  # name -> two contrasting phrases, and their nouns
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
    """The texts of one set: the first phrase with every noun, then the second."""
    first, second, nouns = WORDS[name]
    return [phrase.format(noun) for phrase in (first, second) for noun in nouns]


def word_quadruples(nouns: int) -> Int[np.ndarray, "m 4"]:
    """Rows a, b, c, d of `word_texts` for every ordered pair of nouns, from either phrase to the other."""
    i, j = np.nonzero(~np.eye(nouns, dtype=bool))
    forth = np.stack([i, i + nouns, j, j + nouns], axis=1)
    return np.concatenate([forth, forth[:, [1, 0, 3, 2]]])


def image_quadruples(groups: Iterable, count: int, seed: int) -> Int[np.ndarray, "m 4"]:
    """Rows a, b, c, d: a and c are two images of one group, b and d two images of another.

    Empty where fewer than two groups have two images.
    """
    codes = np.unique(np.asarray(groups, dtype=str), return_inverse=True)[1]
    members = [np.flatnonzero(codes == k) for k in range(codes.max(initial=-1) + 1)]
    members = [rows for rows in members if len(rows) > 1]
    if len(members) < 2:
        return np.empty((0, 4), dtype=np.int64)
    rng, quadruples = stream("parallelograms", seed), []
    for _ in range(count):
        from_group, to_group = (members[k] for k in rng.choice(len(members), 2, replace=False))
        (a, c), (b, d) = rng.choice(from_group, 2, replace=False), rng.choice(to_group, 2, replace=False)
        quadruples.append((a, b, c, d))
    return np.array(quadruples, dtype=np.int64)


def solved(
    vectors: Float[np.ndarray, "n d"], quadruples: Int[np.ndarray, "m 4"], groups: Int[np.ndarray, " n"] | None = None
) -> dict[str, Bool[np.ndarray, " m"]]:
    """Whether each method of METHODS and each control finds the answer.

    Args:
        vectors: unit vectors of the candidates.
        quadruples: rows a, b, c and the answer d.
        groups: group of each candidate, where any candidate of the answer's group is right; otherwise only d is.

    The best right candidate must be ahead of every wrong candidate by more than 1e-6, so that a tie is no answer.
    """
    is_solved = by_rows(lambda rows: _solved(vectors, rows, groups), len(vectors), quadruples)
    return dict(zip((*METHODS, "nearest to c", "nearest to b"), is_solved, strict=True))


def _solved(
    vectors: Float[np.ndarray, "n d"], quadruples: Int[np.ndarray, "m 4"], groups: Int[np.ndarray, " n"] | None
) -> Bool[np.ndarray, "k m"]:
    """`solved` of some quadruples: the methods, and nearest to c and to b."""
    a, b, c, d = quadruples.T
    right = (groups[None] == groups[d][:, None]) if groups is not None else np.arange(len(vectors))[None] == d[:, None]
    near_a, near_b, near_c = (vectors[rows] @ vectors.T for rows in (a, b, c))
    step = unit(vectors[b] - vectors[a])
    distance = np.sqrt(np.maximum(2 - 2 * near_c, 1e-12))  # |x - c| of unit vectors
    scores = {
        "3CosAdd": near_b - near_a + near_c,
        "3CosMul": (near_b + 1) / 2 * ((near_c + 1) / 2) / ((near_a + 1) / 2 + _EPSILON),
        "pair distance": (step @ vectors.T - (step * vectors[c]).sum(axis=1, keepdims=True)) / distance,
        OPEN: near_b - near_a + near_c,
        "nearest to c": near_c,
        "nearest to b": near_b,
    }
    rows, answers = np.arange(len(quadruples))[:, None], right.copy()
    answers[rows, quadruples[:, :3]] = False
    is_solved = []
    for name, score in scores.items():
        score = score.copy()
        if name != OPEN:
            score[rows, quadruples[:, :3]] = -np.inf
        best = np.where(answers, score, -np.inf).max(axis=1)
        is_solved.append(best > np.where(answers, -np.inf, score).max(axis=1) + _TIE)
    return np.stack(is_solved)


def chance(candidates: int, right: float = 1.0) -> float:
    """Accuracy of guessing among the candidates other than a, b and c."""
    return right / max(1, candidates - 3)
