"""Retrieve captions of images and images of captions, or the text about a pair of images among texts about other pairs.

The latter, and verdicts with texts of their own, are of sets of image pairs with human texts about their differences
(pcclip.benchmarks.change_captions).
"""

from collections.abc import Collection, Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float, Int

from pcclip.errors import PcclipError
from pcclip.evaluation.predictions import item_table
from pcclip.evaluation.zero_shot import Encode
from pcclip.stats.vectors import cosines, image_differences, unit

_TIE = 1e-6  # cosines in float32 are not known more exactly
_KEYS, _NUMBERS = 4_000_000, 16_000_000  # random keys and vector entries held at once


@dataclass(frozen=True)
class DescribedPairs:
    """Image pairs with a text about each; one argument in place of six.

    Attributes:
        first, second: rows of the image vectors, (m,).
        texts: one a pair; a pair may come several times with a text each.
        twins: each text with the images' roles exchanged, for the antisymmetric form; None for the one-sided form.
        orientation: of the texts, as Benchmark has it.
    """

    first: Int[np.ndarray, " m"]
    second: Int[np.ndarray, " m"]
    texts: Sequence[str]
    twins: Sequence[str] | None = None
    orientation: int = 1


def retrieval_items(
    encode: Encode, matrix: Float[np.ndarray, "n d"], pairs: DescribedPairs, distractors: int = 9, seed: int = 0
) -> pd.DataFrame:
    """Does each pair's own text score above the texts of other pairs?

    A text's score is cos(orientation * (u1 - u2), f(text)), or cos(orientation * (u1 - u2), f(text) - f(twin)) where
    twins are given. The distractors of a pair are texts of other image pairs, drawn once by `seed` and so
    the same for every model; no two are equal, and none has the words of a text of this pair.

    A tie counts against the right text, and cosines less than 1e-6 apart are tied: a model that gives every text the
    same score is never right, and one that scores at random is right once in distractors + 1 times.

    Args:
        encode: texts to unit vectors.
        matrix: unit image vectors.
        pairs: rows of the matrix, and the texts.
        distractors: the number of other texts.
        seed: draws the distractors.

    Returns:
        first, second, score (of the right text), reference (of the best distractor), correct (ranked first), rank
        (1 is best) and reciprocal_rank.

    Raises:
        PcclipError: some pair has fewer other texts than distractors.
    """
    texts = list(pairs.texts)
    own, n = _codes(texts), len(texts)
    wording_codes, pair_codes = _codes(map(_bare, texts)), _pair_codes(pairs.first, pairs.second)
    vectors = _text_vectors(encode, texts, pairs.twins)
    score, best, rank = np.empty(n), np.empty(n), np.empty(n, int)
    v = pairs.orientation * image_differences(matrix, pairs.first, pairs.second)
    for k, drawn in _distractors(wording_codes, pair_codes, distractors, seed, matrix.shape[1]):
        score[k] = cosines(v[k], vectors[own[k]])
        others = np.einsum("md,mkd->mk", v[k], vectors[own[drawn]])
        best[k], rank[k] = others.max(axis=1), 1 + (others >= score[k, None] - _TIE).sum(axis=1)
    items = item_table(pairs.first, pairs.second, score, best, rank == 1)
    return items.assign(rank=rank, reciprocal_rank=1 / rank)


def recall_ranks(
    rows: Float[np.ndarray, "n d"], others: Float[np.ndarray, "m d"], own: Sequence[Collection[int]]
) -> Int[np.ndarray, " n"]:
    """The rank, from 1, of each row's best own one among all others: of an image's captions, or of a caption's images.

    Args:
        rows, others: unit vectors of the ones that ask, and of those that are sought.
        own: for each row the numbers of its own ones, at least one; the others of its own do not count.
    """
    ranks = np.empty(len(rows), dtype=np.int64)
    for row, numbers in enumerate(own):
        scores = others @ rows[row]
        best = scores[list(numbers)].max()
        scores[list(numbers)] = -np.inf
        ranks[row] = 1 + (scores >= best - _TIE).sum()
    return ranks


def check_distractors(first: pd.Series, second: pd.Series, texts: pd.Series, distractors: int) -> None:
    """Raise PcclipError, as `retrieval_items` will, when some pair (ids `first`, `second`) has too few texts of others."""
    _barred(_codes(map(_bare, texts)), _pair_codes(first, second), distractors)


def worded_verdicts(
    encode: Encode, matrix: Float[np.ndarray, "n d"], pairs: DescribedPairs, first_has_more: Bool[np.ndarray, " m"]
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Which image has more of something, each pair asked in its own words: is the sign of the score the verdict's?

    The texts of the pairs say that the first image has more, the twins that the second has. Returns the items of the
    one-sided form, cos(u1 - u2, f(text)), which a constant offset of the text vectors fools where verdicts are not
    balanced, and of the antisymmetric form, cos(u1 - u2, f(text) - f(twin)), which it does not. Columns first,
    second, score, reference
    (+1 where the first has more, else -1) and correct; a score of zero is wrong.
    """
    texts = list(pairs.texts)
    v, own = image_differences(matrix, pairs.first, pairs.second), _codes(texts)
    truth = np.where(first_has_more, 1.0, -1.0)

    def items(vectors: Float[np.ndarray, "t d"]) -> pd.DataFrame:
        score = cosines(v, vectors[own]).astype(float)
        return item_table(pairs.first, pairs.second, score, truth, score * truth > _TIE)

    return items(_text_vectors(encode, texts)), items(_text_vectors(encode, texts, pairs.twins))


def _text_vectors(encode: Encode, texts: list[str], twins: Sequence[str] | None = None) -> Float[np.ndarray, "t d"]:
    """Unit vectors of the distinct texts in the order they first come, or of f(text) - f(twin)."""
    if twins is None:
        return encode(list(dict.fromkeys(texts)))
    twin_of = dict(zip(texts[::-1], list(twins)[::-1], strict=True))  # of the first where equal texts have several
    vectors = encode([*twin_of, *twin_of.values()])
    order = {text: k for k, text in enumerate(twin_of)}
    difference = vectors[: len(twin_of)] - vectors[len(twin_of) :]
    return unit(difference[[order[text] for text in dict.fromkeys(texts)]])


def _codes(names: Iterable[Hashable]) -> Int[np.ndarray, " m"]:
    """A number for each name, equal for equal names, in the order of first appearance."""
    return pd.factorize(pd.Series(list(names), dtype=object))[0]


def _pair_codes(first: Iterable[Hashable], second: Iterable[Hashable]) -> Int[np.ndarray, " m"]:
    """A number for each pair, equal for pairs of the same two images in either order."""
    return _codes(map(frozenset, zip(first, second, strict=True)))


def _distractors(
    wording_codes: Int[np.ndarray, " m"], pair_codes: Int[np.ndarray, " m"], count: int, seed: int, width: int
) -> Iterator[tuple[Int[np.ndarray, " k"], Int[np.ndarray, "k c"]]]:
    """Yield (items, numbers of `count` items whose texts are each item's distractors), some items at a time.

    Items of equal wording code have texts of the same words; items of equal pair code are about the same two images.
    """
    classes, example = np.unique(wording_codes, return_index=True)
    item, taken = _barred(wording_codes, pair_codes, count)
    rng, step = np.random.default_rng(seed), max(1, min(_KEYS // len(classes), _NUMBERS // (count * width)))
    for start in range(0, len(wording_codes), step):
        k = np.arange(start, min(start + step, len(wording_codes)))
        keys = rng.random((len(k), len(classes)))
        here = slice(*np.searchsorted(item, [k[0], k[-1] + 1]))
        keys[item[here] - start, taken[here]] = np.inf
        yield k, example[np.argpartition(keys, count - 1, axis=1)[:, :count]]


def _barred(
    wording_codes: Int[np.ndarray, " m"], pair_codes: Int[np.ndarray, " m"], count: int
) -> tuple[Int[np.ndarray, " k"], Int[np.ndarray, " k"]]:
    """Items, in order, and each text (its place among the distinct ones) that is of the item's own images.

    Raises PcclipError when fewer than `count` others are left to some item.
    """
    classes, code = np.unique(wording_codes, return_inverse=True)
    items = pd.DataFrame({"item": np.arange(len(wording_codes)), "pair": pair_codes})
    texts_of_pairs = pd.DataFrame({"pair": pair_codes, "code": code}).drop_duplicates()
    barred = items.merge(texts_of_pairs, on="pair").sort_values("item")
    left = len(classes) - np.bincount(barred["item"], minlength=len(wording_codes))
    if left.min(initial=count) < count:
        raise PcclipError(
            f"a pair is to find its text among {count} others, but there are only {left.min()} texts of other pairs; "
            "take more pairs (limit)"
        )
    return barred["item"].to_numpy(), barred.code.to_numpy()


def _bare(text: str) -> str:
    """A text without case, extra white space and a final full stop."""
    return " ".join(text.lower().split()).rstrip(" .")
