"""Which sentences are kept: lists of named rules, applied in order, each counted.

A list cleans a raw reply into a sentence; a rule says True for a sentence it accepts. There are three lists: ours; the
one the paper's sentences went through (as released); and none, which keeps every answer.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass, replace

import pandas as pd

from pcclip.comparisons.sentences import sides, swapped
from pcclip.data.concepts import concept_of, singular, words_of
from pcclip.encoders.dual_encoder import Encoder
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
    raw: str = ""  # the reply as it came

    @property
    def words(self) -> list[str]:
        return words_of(self.sentence)


def clean(raw: str) -> str:
    """Ours: the sentence inside a raw reply, cut at markers of a following question or note, white space folded."""
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


# As released (data/filter_comparatives.py of the paper's repository): what it looks for, grouped under names. It also
# looks for one-off strings of its own run; those are left out, or fall under `stutter`, which is a little wider.

_ENDS = ("Q:", "I hope", "#2:", "Note")
_NUMBERS = re.compile(r"1000000|0{58}|1{5}|5{5}|0:00:00")
_PUNCTUATION = re.compile(r'\?{5}|!{5}|-{5}|\.\. \.\. \.\.|(\. ){4}|" " "|"""|\{{3}')
_STUTTER = re.compile(r"([A-Za-z]\S{1,3})\1\1")
_SHORTEST = 60  # characters


def clean_as_released(raw: str) -> str:
    """As released: cut at the first of _ENDS anywhere, markers and newlines taken out (which may join two words)."""
    text = raw[: min((raw.find(end) for end in _ENDS if end in raw), default=len(raw))].strip()
    for old, new in (("#1:", ""), ("A: ", ""), ("#", ""), ("\n", ""), ("\t", " "), ("  ", " ")):
        text = text.replace(old, new)
    return text.strip().removeprefix(". ").strip()


def _starts_with_text(c: Candidate) -> bool:
    """The reply does not begin with three empty lines."""
    return not c.raw.startswith(("\n\n\n", " \n\n\n"))


def _no_code(c: Candidate) -> bool:
    """No C source, no numbered heading '# 1000'."""
    return not c.raw.startswith(("#include", "# 1000")) and "#define" not in c.raw


def _no_numbers(c: Candidate) -> bool:
    """No runs of one digit."""
    return not _NUMBERS.search(c.raw)


def _no_markup(c: Candidate) -> bool:
    """No asterisk and no HTML."""
    return not any(mark in c.raw for mark in ("*", "</p>", "<br>"))


def _no_heading(c: Candidate) -> bool:
    """It does not describe one image under a heading."""
    return "Description:" not in c.raw and "Description of the image:" not in c.raw


def _no_punctuation_run(c: Candidate) -> bool:
    """No runs of the same punctuation."""
    return not _PUNCTUATION.search(c.raw)


def _no_stutter(c: Candidate) -> bool:
    """No piece of two to four characters three times in a row."""
    return not _STUTTER.search(c.raw)


def _ascii(c: Candidate) -> bool:
    """Nothing outside ASCII."""
    return c.raw.isascii()


def _sixty(c: Candidate) -> bool:
    """At least 60 characters after cleaning."""
    return len(c.sentence) >= _SHORTEST


AS_RELEASED: dict[str, Callable[[Candidate], bool]] = {
    "starts_with_text": _starts_with_text,
    "no_code": _no_code,
    "no_numbers": _no_numbers,
    "no_markup": _no_markup,
    "no_heading": _no_heading,
    "no_punctuation_run": _no_punctuation_run,
    "no_stutter": _no_stutter,
    "ascii": _ascii,
    "answered": _answered,
    "sixty": _sixty,
}


@dataclass(frozen=True)
class RuleList:
    """A way to clean a raw reply, and the rules for what comes out, in order."""

    name: str
    clean: Callable[[str], str]
    rules: dict[str, Callable[[Candidate], bool]]

    def judge(self, candidate: Candidate) -> tuple[str, str, bool]:
        """(verdict, sentence, mended): 'kept' or the first rule that drops it.

        A sentence that fails only because the model took the images in the wrong order is mended by exchanging its
        sides.
        """
        verdict = self._first_failure(candidate)
        if verdict == "own_side":
            exchanged = replace(candidate, sentence=swapped(candidate.sentence))
            if self._first_failure(exchanged) == "kept":
                return "kept", exchanged.sentence, True
        return verdict, candidate.sentence, False

    def _first_failure(self, candidate: Candidate) -> str:
        return next((name for name, accepts in self.rules.items() if not accepts(candidate)), "kept")


LISTS = {
    "ours": RuleList("ours", clean, RULES),
    "as_released": RuleList("as_released", clean_as_released, AS_RELEASED),
    "none": RuleList("none", clean, {"answered": _answered}),
}


def rule_list(chosen: str | list[str]) -> RuleList:
    """A list by name, or some of our rules by their names; then 'answered' and 'two_sides' always apply.

    In the lists 'as_released' and 'none' a sentence need not have two sides, and so has no swapped twin.
    Raises PcclipError on an unknown name.
    """
    if isinstance(chosen, str):
        if chosen not in LISTS:
            raise PcclipError(f"generate.filters: unknown list {chosen!r}; known: {', '.join(LISTS)}")
        return LISTS[chosen]
    unknown = set(chosen) - set(RULES)
    if unknown:
        raise PcclipError(f"generate.filters: unknown rule {sorted(unknown)[0]!r}; known: {', '.join(RULES)}")
    wanted = {*chosen, "answered", "two_sides"}
    return RuleList("chosen", clean, {name: rule for name, rule in RULES.items() if name in wanted})


def check_names(chosen: str | list[str]) -> list[str]:
    """Names of the rules that apply, in order. Raises PcclipError on an unknown name."""
    return list(rule_list(chosen).rules)


def judged(table: pd.DataFrame, rules: RuleList, model: Encoder) -> pd.DataFrame:
    """Apply a rule list to raw replies.

    Args:
        table: columns raw, finish_reason, first_caption, second_caption, first_concept, second_concept.
        rules: from `rule_list`.
        model: its tokenizer and context length say which sentences are too long for its text tower.

    Returns:
        difference (the cleaned sentence), tokens (its length), mended and verdict, row by row.
    """
    sentences = [rules.clean(raw) for raw in table.raw]
    rows = []
    for reply, sentence, ids in zip(table.itertuples(), sentences, model.tokens(sentences), strict=True):
        tokens = len(ids)
        verdict, sentence, mended = rules.judge(
            Candidate(
                sentence,
                reply.finish_reason,
                reply.first_caption,
                reply.second_caption,
                reply.first_concept,
                reply.second_concept,
                tokens,
                model.context_length,
                reply.raw,
            )
        )
        if mended:  # exchanging the sides can change the number of tokens
            tokens = len(model.tokens([sentence])[0])
            verdict = "in_context" if "in_context" in rules.rules and tokens > model.context_length else verdict
        rows.append((sentence, tokens, mended, verdict))
    return pd.DataFrame(rows, columns=["difference", "tokens", "mended", "verdict"], index=table.index)


def agreement(
    table: pd.DataFrame, model: Encoder, one: str | list[str] = "ours", other: str | list[str] = "as_released"
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Two rule lists on the same raw replies (`table` and `model` as in `judged`).

    Returns:
        One row: replies, how many both keep, only one of them keeps, or both drop, the share they agree on, and
        Cohen's kappa (none when both keep all or both drop all); and where they differ: kept_by, dropped_by, rule,
        count, the commonest first.
    """
    lists = [rule_list(one), rule_list(other)]
    first, second = (judged(table, rules, model).verdict for rules in lists)
    a, b = first == "kept", second == "kept"
    agree, chance = (a == b).mean(), a.mean() * b.mean() + (1 - a.mean()) * (1 - b.mean())
    counts = pd.DataFrame(
        [
            {
                "replies": len(table),
                "both_keep": (a & b).sum(),
                f"only_{lists[0].name}": (a & ~b).sum(),
                f"only_{lists[1].name}": (b & ~a).sum(),
                "neither": (~a & ~b).sum(),
                "agreement": agree,
                "kappa": (agree - chance) / (1 - chance) if chance < 1 else None,
            }
        ]
    )
    rows = [
        (keeps.name, drops.name, rule, count)
        for keeps, drops, verdicts in ((*lists, second[a & ~b]), (*lists[::-1], first[b & ~a]))
        for rule, count in verdicts.value_counts().items()
    ]
    differ = pd.DataFrame(rows, columns=["kept_by", "dropped_by", "rule", "count"])
    return counts, differ.sort_values("count", ascending=False, ignore_index=True)


def yield_table(verdicts: pd.Series, names: list[str]) -> pd.DataFrame:
    """What each rule dropped and what was left after it: columns rule, dropped, left, share_left."""
    rows, left = [], len(verdicts)
    for name in names:
        dropped = int((verdicts == name).sum())
        left -= dropped
        rows.append({"rule": name, "dropped": dropped, "left": left, "share_left": left / max(1, len(verdicts))})
    return pd.DataFrame(rows)
