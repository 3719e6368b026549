"""Which sentences are kept: named rules, applied in order, each counted. A rule says True for a sentence it accepts."""

import re
from collections.abc import Callable
from dataclasses import dataclass, replace

import pandas as pd

from pcclip.comparisons.sentences import sides, swapped
from pcclip.data.concepts import concept_of, singular, words_of
from pcclip.errors import PcclipError

_CUTS = re.compile(r"\n\n|\n(?=Q:|#\d|Note|I hope|First image:|Question)|(?<=[.!?])\s+(?=Note\b|I hope\b)")
_STRIP = re.compile(r"^(?:#\d+:|A:|Answer:|Difference:)\s*")


@dataclass(frozen=True)
class Candidate:
    """What a rule may look at."""

    sentence: str
    finish_reason: str
    first_caption: str
    second_caption: str
    first_concept: str
    second_concept: str
    tokens: int  # of the sentence, for the text tower
    context_length: int

    @property
    def words(self) -> list[str]:
        return words_of(self.sentence)


def clean(raw: str) -> str:
    """The sentence inside a raw reply: cut at markers of a following question or note, white space folded."""
    return " ".join(_STRIP.sub("", _CUTS.split(raw.strip(), maxsplit=1)[0]).split())


def _answered(c: Candidate) -> bool:
    """The model said something, and no error came back."""
    return bool(c.sentence) and not c.finish_reason.startswith("error")


def _finished(c: Candidate) -> bool:
    """It ended by itself, not at the token limit."""
    return c.finish_reason == "stop"


def _plain_text(c: Candidate) -> bool:
    """No code, markup or ASCII noise."""
    odd = sum(not (ch.isalnum() or ch in " .,;:!?'\"()-’“”é") for ch in c.sentence)
    return odd <= 0.02 * len(c.sentence) and not re.search(r"#include|#define|</|\*|0{4}|(.)\1{4}", c.sentence)


def _length(c: Candidate) -> bool:
    """Between 8 and 60 words."""
    return 8 <= len(c.words) <= 60


def _no_loop(c: Candidate) -> bool:
    """No word twice in a row, and no three words in a row that come back within the same side."""
    if any(a == b for a, b in zip(c.words, c.words[1:], strict=False)):
        return False
    for side in sides(c.sentence) or (c.sentence,):
        words = words_of(side)
        triples = list(zip(words, words[1:], words[2:], strict=False))
        if len(triples) != len(set(triples)):
            return False
    return True


def _two_sides(c: Candidate) -> bool:
    """It says something of the first image, then something of the second."""
    return sides(c.sentence) is not None


def _own_side(c: Candidate) -> bool:
    """Each caption's head noun is on its own side and, when the subjects differ, not on the other."""
    found = sides(c.sentence)
    if found is None:
        return False
    first, second = ({singular(w) for w in words_of(side)} for side in found)
    one, two = _names(c.first_caption, c.first_concept), _names(c.second_caption, c.second_concept)
    crossed = one != two and (first & (two - one) or second & (one - two))
    return bool(first & one) and bool(second & two) and not crossed


def _in_context(c: Candidate) -> bool:
    """The text tower sees all of it."""
    return c.tokens <= c.context_length


def _names(caption: str, concept: str) -> set[str]:
    """Words that name the subject: the caption's head noun and the last word of its concept."""
    return {singular(concept_of(caption)), *concept.split()[-1:]} - {""}


RULES: dict[str, Callable[[Candidate], bool]] = {
    "answered": _answered,
    "finished": _finished,
    "plain_text": _plain_text,
    "length": _length,
    "no_loop": _no_loop,
    "two_sides": _two_sides,
    "own_side": _own_side,
    "in_context": _in_context,
}


def check_names(names: list[str] | None) -> list[str]:
    """The rules to apply. 'answered' and 'two_sides' always apply: without them there is nothing to train on.

    Raises PcclipError on an unknown name.
    """
    chosen = list(RULES) if names is None else names
    unknown = set(chosen) - set(RULES)
    if unknown:
        raise PcclipError(f"generate.filters: unknown rule {sorted(unknown)[0]!r}; known: {', '.join(RULES)}")
    return [name for name in RULES if name in {*chosen, "answered", "two_sides"}]


def judge(candidate: Candidate, names: list[str]) -> tuple[str, str, bool]:
    """(verdict, sentence, mended): 'kept' or the first rule that drops it.

    A sentence that fails only because the model took the images in the wrong order is mended by exchanging its sides.
    """
    verdict = _first_failure(candidate, names)
    if verdict == "own_side":
        exchanged = replace(candidate, sentence=swapped(candidate.sentence))
        if _first_failure(exchanged, names) == "kept":
            return "kept", exchanged.sentence, True
    return verdict, candidate.sentence, False


def _first_failure(candidate: Candidate, names: list[str]) -> str:
    return next((name for name in names if not RULES[name](candidate)), "kept")


def yield_table(verdicts: pd.Series, names: list[str]) -> pd.DataFrame:
    """What each rule dropped and what was left after it: columns rule, dropped, left, share_left."""
    rows, left = [], len(verdicts)
    for name in names:
        dropped = int((verdicts == name).sum())
        left -= dropped
        rows.append({"rule": name, "dropped": dropped, "left": left, "share_left": left / max(1, len(verdicts))})
    return pd.DataFrame(rows)
