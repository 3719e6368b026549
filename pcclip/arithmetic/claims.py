"""Claims about the arithmetic, and whether they hold on a run's images: computed, never written down.

Each claim is a number that should be above 0, with a 95% interval from paired resamples and a p value that Holm's method
adjusts for all claims. Below 0.05 the claim holds where the number is above 0 and fails where it is below 0; otherwise
it is undecided.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import reduce
from operator import sub

import pandas as pd

from pcclip.arithmetic.analogies import OPEN
from pcclip.arithmetic.differences import IMAGES, MEASURE
from pcclip.arithmetic.geometry import Measures
from pcclip.arithmetic.retrieval import RANK, Sweep
from pcclip.stats.intervals import Estimate
from pcclip.stats.metrics import holm, p_value

COLUMNS = ["claim", "of", "number", "ci_low", "ci_high", "holds", "how", "n", "detectable", "p_holm"]
PAPER, OURS = "the paper", "this workbook"
_STRENGTH = -1.0  # stands for the run's arithmetic.strength in a search's alpha
_INF = float("inf")
_BASE, _TUNED = "base", "finetuned"
_ALONG, _ONE_IMAGE = "alignment, image difference", "f(d) with one image"
Key = tuple[str, str, str | float]


@dataclass(frozen=True)
class Claim:
    """A claim and the number that should be above 0: the measure `plus` (or 0) minus the measures `minus`.

    A class of its own because a claim is a sentence with its formula, which no table or estimate is.

    Attributes:
        words: the claim.
        source: whose claim it is.
        how: the formula in words.
        plus, minus: keys of geometry.Measures, or (model, form, alpha) of a search, whose measure is the rank share.
    """

    words: str
    source: str
    how: str
    plus: Key | None
    minus: tuple[Key, ...] = ()


def _along(model: str, control: str = MEASURE) -> Key:
    return _ALONG, model, control


CLAIMS = [
    Claim(
        "f(d) lies along the image difference after finetuning",
        PAPER,
        "cosine of f(d) with g(1) - g(2)",
        _along(_TUNED),
    ),
    Claim(
        "finetuning turns f(d) towards the image difference",
        PAPER,
        "that cosine, minus the base's",
        _along(_TUNED),
        (_along(_BASE),),
    ),
    Claim(
        "finetuning turns f(d) towards the difference of the captions",
        PAPER,
        "cosine of f(d) with f(caption 1) - f(caption 2), minus the base's",
        ("alignment, caption difference", _TUNED, MEASURE),
        (("alignment, caption difference", _BASE, MEASURE),),
    ),
    Claim(
        "the reversed text points the other way",
        PAPER,
        "minus the cosine of f(d swapped) with g(1) - g(2)",
        None,
        (_along(_TUNED, "reversed"),),
    ),
    Claim(
        "the text must be about these two images",
        OURS,
        "cosine with the image difference, minus that of another pair's text",
        _along(_TUNED),
        (_along(_TUNED, "shuffled"),),
    ),
    Claim(
        "finetuning is worth more than subtracting the swapped text, which is free",
        OURS,
        "cosine of the finetuned f(d), minus that of the base's f(d) - f(d swapped)",
        _along(_TUNED),
        (_along(_BASE, "f(d) - f(swapped)"),),
    ),
    Claim(
        "finetuning makes f(d) - f(swapped) better too",
        OURS,
        "cosine of f(d) - f(d swapped) with g(1) - g(2), minus the base's",
        _along(_TUNED, "f(d) - f(swapped)"),
        (_along(_BASE, "f(d) - f(swapped)"),),
    ),
    Claim(
        "f(d) puts the first image there",
        OURS,
        "cosine of f(d) with g(1), images centred",
        (_ONE_IMAGE, _TUNED, "the first"),
    ),
    Claim(
        "f(d) takes the second image away",
        OURS,
        "minus the cosine of f(d) with g(2), images centred",
        None,
        ((_ONE_IMAGE, _TUNED, "the second"),),
    ),
    Claim(
        "it takes the second away as much as it puts the first there",
        OURS,
        "minus the cosine of f(d) with g(2), minus that with g(1)",
        None,
        ((_ONE_IMAGE, _TUNED, "the second"), (_ONE_IMAGE, _TUNED, "the first")),
    ),
    Claim(
        "finetuning tells a text from its swapped twin",
        OURS,
        "cosine of f(d) with f(d swapped), base minus finetuned",
        ("antisymmetry", _BASE, MEASURE),
        (("antisymmetry", _TUNED, MEASURE),),
    ),
    Claim(
        "what is left when the mean text is taken off is antisymmetric",
        OURS,
        "minus the cosine of centred f(d) and f(d swapped)",
        None,
        (("antisymmetry", _TUNED, "centred"),),
    ),
    Claim(
        "differences add up in text",
        OURS,
        "cosine of f(ab) + f(bc) with f(ac), minus that of the better leg",
        ("additivity, texts", _TUNED, MEASURE),
        (("additivity, texts", _TUNED, "better leg alone"),),
    ),
    Claim(
        "finetuning makes differences add up better",
        OURS,
        "cosine of f(ab) + f(bc) with f(ac), minus the base's",
        ("additivity, texts", _TUNED, MEASURE),
        (("additivity, texts", _BASE, MEASURE),),
    ),
    Claim(
        "words make parallelograms",
        OURS,
        "3CosAdd's accuracy, minus that of taking the nearest to c",
        ("analogies, all words", _TUNED, "3CosAdd"),
        (("analogies, all words", _TUNED, "nearest to c"),),
    ),
    Claim(
        "finetuning makes the parallelograms of words closer",
        OURS,
        "accuracy of 3CosAdd with no candidate left out, minus the base's",
        ("analogies, all words", _TUNED, OPEN),
        (("analogies, all words", _BASE, OPEN),),
    ),
    Claim(
        "photographs make parallelograms",
        OURS,
        "3CosAdd's accuracy, minus that of the nearest to b",
        ("analogies, images", IMAGES, "3CosAdd"),
        (("analogies, images", IMAGES, "nearest to b"),),
    ),
    Claim(
        "the text of a difference takes a search to the image that was meant",
        PAPER,
        "rank share of the image alone, minus that of image + f(d)",
        (_TUNED, "f(d)", 0.0),
        ((_TUNED, "f(d)", _STRENGTH),),
    ),
    Claim(
        "finetuning makes that search better",
        PAPER,
        "rank share of image + f(d), base minus finetuned",
        (_BASE, "f(d)", _STRENGTH),
        ((_TUNED, "f(d)", _STRENGTH),),
    ),
    Claim(
        "image + f(d) finds more than f(d) alone",
        OURS,
        "rank share of f(d) alone, minus that of image + f(d)",
        (_TUNED, "f(d)", _INF),
        ((_TUNED, "f(d)", _STRENGTH),),
    ),
    Claim(
        "a difference finds more than the caption of what is wanted",
        OURS,
        "rank share of f(caption 1) alone, minus that of image + f(d)",
        (_TUNED, "f(caption 1)", _INF),
        ((_TUNED, "f(d)", _STRENGTH),),
    ),
    Claim(
        "images and captions lie in different places",
        OURS,
        "distance of half the images' mean from the other captions' mean, minus that from the other images' mean",
        ("modality gap", _TUNED, "captions of the other half"),
        (("modality gap", _TUNED, "two halves of the images"),),
    ),
    Claim(
        "finetuning narrows that gap",
        OURS,
        "distance of the means, base minus finetuned",
        ("modality gap", _BASE, MEASURE),
        (("modality gap", _TUNED, MEASURE),),
    ),
    Claim(
        "taking both means off helps a caption find its image",
        OURS,
        "recall@1 centred, minus recall@1 as it is",
        ("caption finds its image", _TUNED, "centred"),
        (("caption finds its image", _TUNED, MEASURE),),
    ),
    Claim(
        "finetuning spreads the texts of differences over more directions",
        OURS,
        "effective rank, minus the base's",
        ("effective rank, text differences", _TUNED, MEASURE),
        (("effective rank, text differences", _BASE, MEASURE),),
    ),
]


def table(measures: Measures, sweeps: Mapping[str, Sweep], strength: float) -> pd.DataFrame:
    """A row for each claim whose measures were taken: columns COLUMNS, `holds` as in `verdict`.

    Args:
        measures: of 'base' and 'finetuned'.
        sweeps: by model, with `strength` among their alphas.
        strength: the run's arithmetic.strength.
    """
    known: dict[Key, Estimate] = dict(measures.items())
    for model, sweep in sweeps.items():
        known |= {(model, form, alpha): estimate for (form, alpha, metric), estimate in sweep.items() if metric == RANK}
        known |= {(model, form, _STRENGTH): sweep[form, strength, RANK] for form, _, _ in sweep}
    numbers = {
        claim: _number(claim, known) for claim in CLAIMS if {claim.plus or claim.minus[0], *claim.minus} <= known.keys()
    }
    p_holm = holm([p_value(number) for number in numbers.values()])
    rows = [
        [claim.words, claim.source, number.value, *number.interval, verdict(number.value, p), claim.how, number.n]
        + [number.detectable, p]
        for (claim, number), p in zip(numbers.items(), p_holm, strict=True)
    ]
    return pd.DataFrame(rows, columns=COLUMNS)


def _number(claim: Claim, known: Mapping[Key, Estimate]) -> Estimate:
    """The measure `plus`, or 0, minus the measures `minus`."""
    first = known[claim.plus or claim.minus[0]]
    return reduce(sub, [known[key] for key in claim.minus], first if claim.plus else first - first)


def verdict(number: float, p: float) -> str:
    """'yes' for a number above 0 with p below 0.05, 'no' for one below 0, else 'undecided'."""
    return "undecided" if not p < 0.05 else "yes" if number > 0 else "no"


def as_markdown(claims: pd.DataFrame) -> str:
    """The table in words: how many claims hold, then each claim with its number."""
    if claims.empty:
        return "No claim could be checked."
    counts = claims.holds.value_counts()
    lines = [
        f"Of {len(claims)} claims, {counts.get('yes', 0)} hold on these held-out images, "
        f"{counts.get('no', 0)} do not and {counts.get('undecided', 0)} stay undecided.",
        "",
    ]
    for source in dict.fromkeys(claims.of):
        for answer, lead in (("yes", "holds"), ("no", "does not hold"), ("undecided", "undecided")):
            part = claims[(claims.of == source) & (claims.holds == answer)]
            numbers = [
                f"{row.claim} ({row.number:+.3f} [{row.ci_low:+.3f}, {row.ci_high:+.3f}])" for row in part.itertuples()
            ]
            if numbers:
                lines.append(f"- **Of {source}, {lead}:** {'; '.join(numbers)}.")
    return "\n".join(lines)
