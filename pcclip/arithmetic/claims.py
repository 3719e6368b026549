"""What is claimed of the arithmetic, and whether it holds on these images: computed, never written down.

Each claim is a number that should be above 0, with a 95% interval from the paired resamples: it holds where the whole
interval is above 0, it does not where the whole interval is below, and else it is undecided.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd

from pcclip.arithmetic.analogies import OPEN
from pcclip.arithmetic.differences import NONE
from pcclip.arithmetic.geometry import IMAGES, Found
from pcclip.arithmetic.retrieval import RANK
from pcclip.stats.intervals import Estimate

COLUMNS = ["claim", "of", "number", "ci_low", "ci_high", "holds", "how", "n"]
PAPER, OURS = "the paper", "this workbook"
_ALONG, _CAPTIONS, _BASE, _TUNED = "alignment, image difference", "alignment, caption difference", "base", "finetuned"
Swept = dict[str, dict[tuple[str, float, str], Estimate]]


@dataclass(frozen=True)
class Claim:
    """Words, whose claim it is, the number that should be above 0, and how it is computed in words."""

    words: str
    of: str
    number: Callable[[Found, Swept, float], Estimate]
    how: str


def _between(metric: str, control: str = NONE, sign: int = 1) -> Callable:
    """sign * (finetuned - base) of one measure."""

    def number(found: Found, swept: Swept, strength: float) -> Estimate:
        pair = found[metric, _TUNED, control], found[metric, _BASE, control]
        return pair[0] - pair[1] if sign > 0 else pair[1] - pair[0]

    return number


def _against(metric: str, control: str, own: str = NONE, model: str = _TUNED) -> Callable:
    """A measure minus its control."""
    return lambda found, swept, strength: found[metric, model, own] - found[metric, model, control]


def _below_zero(metric: str, control: str) -> Callable:
    return lambda found, swept, strength: _minus(found[metric, _TUNED, control])


def _minus(one: Estimate) -> Estimate:
    return Estimate(-one.value, -one.draws, one.n, one.jackknife)


def _rank_gain(better: tuple, worse: tuple) -> Callable:
    """By how much one search's rank share is smaller; each is (model, form, alpha), alpha None for the strength."""

    def number(found: Found, swept: Swept, strength: float) -> Estimate:
        of = [swept[model][form, strength if alpha is None else alpha, RANK] for model, form, alpha in (worse, better)]
        return of[0] - of[1]

    return number


_INF = float("inf")
CLAIMS = [
    Claim(
        "f(d) lies along the image difference after finetuning",
        PAPER,
        lambda found, swept, strength: found[_ALONG, _TUNED, NONE],
        "cosine of f(d) with g(1) - g(2)",
    ),
    Claim(
        "finetuning turns f(d) towards the image difference", PAPER, _between(_ALONG), "that cosine, minus the base's"
    ),
    Claim(
        "finetuning turns f(d) towards the difference of the captions",
        PAPER,
        _between(_CAPTIONS),
        "cosine of f(d) with f(caption 1) - f(caption 2), minus the base's",
    ),
    Claim(
        "the reversed text points the other way",
        PAPER,
        _below_zero(_ALONG, "reversed"),
        "minus the cosine of f(d swapped) with g(1) - g(2)",
    ),
    Claim(
        "the text must be about these two images",
        OURS,
        _against(_ALONG, "shuffled"),
        "cosine with the image difference, minus that of another pair's text",
    ),
    Claim(
        "finetuning is worth more than subtracting the swapped text, which is free",
        OURS,
        lambda found, swept, strength: found[_ALONG, _TUNED, NONE] - found[_ALONG, _BASE, "f(d) - f(swapped)"],
        "cosine of the finetuned f(d), minus that of the base's f(d) - f(d swapped)",
    ),
    Claim(
        "finetuning makes f(d) - f(swapped) better too",
        OURS,
        _between(_ALONG, "f(d) - f(swapped)"),
        "cosine of f(d) - f(d swapped) with g(1) - g(2), minus the base's",
    ),
    Claim(
        "f(d) puts the first image there",
        OURS,
        lambda found, swept, strength: found["f(d) with one image", _TUNED, "the first"],
        "cosine of f(d) with g(1), images centred",
    ),
    Claim(
        "f(d) takes the second image away",
        OURS,
        _below_zero("f(d) with one image", "the second"),
        "minus the cosine of f(d) with g(2), images centred",
    ),
    Claim(
        "it takes the second away as much as it puts the first there",
        OURS,
        lambda found, swept, strength: (
            _minus(found["f(d) with one image", _TUNED, "the second"])
            - found["f(d) with one image", _TUNED, "the first"]
        ),
        "minus the cosine of f(d) with g(2), minus that with g(1)",
    ),
    Claim(
        "finetuning tells a text from its swapped twin",
        OURS,
        _between("antisymmetry", sign=-1),
        "cosine of f(d) with f(d swapped), base minus finetuned",
    ),
    Claim(
        "what is left when the mean text is taken off is antisymmetric",
        OURS,
        _below_zero("antisymmetry", "centred"),
        "minus the cosine of centred f(d) and f(d swapped)",
    ),
    Claim(
        "differences add up in text",
        OURS,
        _against("additivity, texts", "better leg alone"),
        "cosine of f(ab) + f(bc) with f(ac), minus that of the better leg",
    ),
    Claim(
        "finetuning makes differences add up better",
        OURS,
        _between("additivity, texts"),
        "cosine of f(ab) + f(bc) with f(ac), minus the base's",
    ),
    Claim(
        "words make parallelograms",
        OURS,
        _against("analogies, all words", "nearest to c", "3CosAdd"),
        "3CosAdd's accuracy, minus that of taking the nearest to c",
    ),
    Claim(
        "finetuning makes the parallelograms of words closer",
        OURS,
        _between("analogies, all words", OPEN),
        "accuracy of 3CosAdd with no candidate left out, minus the base's",
    ),
    Claim(
        "photographs make parallelograms",
        OURS,
        lambda found, swept, strength: (
            found["analogies, images", IMAGES, "3CosAdd"] - found["analogies, images", IMAGES, "nearest to b"]
        ),
        "3CosAdd's accuracy, minus that of the nearest to b",
    ),
    Claim(
        "the text of a difference takes a search to the image that was meant",
        PAPER,
        _rank_gain((_TUNED, "f(d)", None), (_TUNED, "f(d)", 0.0)),
        "rank share of the image alone, minus that of image + f(d)",
    ),
    Claim(
        "finetuning makes that search better",
        PAPER,
        _rank_gain((_TUNED, "f(d)", None), (_BASE, "f(d)", None)),
        "rank share of image + f(d), base minus finetuned",
    ),
    Claim(
        "image + f(d) finds more than f(d) alone",
        OURS,
        _rank_gain((_TUNED, "f(d)", None), (_TUNED, "f(d)", _INF)),
        "rank share of f(d) alone, minus that of image + f(d)",
    ),
    Claim(
        "a difference finds more than the caption of what is wanted",
        OURS,
        _rank_gain((_TUNED, "f(d)", None), (_TUNED, "f(caption 1)", _INF)),
        "rank share of f(caption 1) alone, minus that of image + f(d)",
    ),
    Claim(
        "images and captions lie in different places",
        OURS,
        _against("modality gap", "two halves of the images", "captions of the other half"),
        "distance of half the images' mean from the other captions' mean, minus that from the other images' mean",
    ),
    Claim(
        "finetuning narrows that gap",
        OURS,
        _between("modality gap", sign=-1),
        "distance of the means, base minus finetuned",
    ),
    Claim(
        "taking both means off helps a caption find its image",
        OURS,
        _against("caption finds its image", NONE, "centred"),
        "recall@1 centred, minus recall@1 as it is",
    ),
    Claim(
        "finetuning spreads the texts of differences over more directions",
        OURS,
        _between("effective rank, text differences"),
        "effective rank, minus the base's",
    ),
]


def judged(found: Found, swept: Swept, strength: float) -> pd.DataFrame:
    """The claims that can be checked with what was measured, a row each: columns COLUMNS, holds is as in `verdict`.

    Args:
        found: geometry.measure of 'base' and 'finetuned'.
        swept: by model, retrieval.sweep with `strength` among its alphas.
        strength: arithmetic.strength of the run.
    """
    return pd.DataFrame(
        [
            [claim.words, claim.of, one.value, *one.interval, verdict(one), claim.how, one.n]
            for claim, one in _numbers(found, swept, strength)
        ],
        columns=COLUMNS,
    )


def verdict(number: Estimate) -> str:
    """'yes' where the interval is above 0, 'no' where it is below, else 'undecided'; a constant is its own interval."""
    low, high = number.interval
    if np.isnan([low, high]).any():
        return "undecided"
    return "yes" if low > 0 else "no" if high < 0 else "undecided"


def told(claims: pd.DataFrame) -> str:
    """The table in words, as Markdown: how many hold, then each claim with its number."""
    if claims.empty:
        return "No claim could be checked."
    lines = [
        f"Of {len(claims)} claims, {(claims.holds == 'yes').sum()} hold on these held-out images, "
        f"{(claims.holds == 'no').sum()} do not and {(claims.holds == 'undecided').sum()} stay undecided."
    ]
    for whose in dict.fromkeys(claims.of):
        for answer, lead in (("yes", "holds"), ("no", "does not hold"), ("undecided", "undecided")):
            part = claims[(claims.of == whose) & (claims.holds == answer)]
            told_of = "; ".join(
                f"{row.claim} ({row.number:+.3f} [{row.ci_low:+.3f}, {row.ci_high:+.3f}])" for row in part.itertuples()
            )
            if told_of:
                lines.append(f"- **Of {whose}, {lead}:** {told_of}.")
    return "\n".join([lines[0], "", *lines[1:]])


def _numbers(found: Found, swept: Swept, strength: float) -> Iterator[tuple[Claim, Estimate]]:
    for claim in CLAIMS:
        try:
            yield claim, claim.number(found, swept, strength)
        except KeyError:  # too few images for triples, say: what was not measured is not claimed
            continue
