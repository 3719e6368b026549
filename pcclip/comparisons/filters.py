"""Rules that accept or drop the language model's sentences. They are applied in order, and each is counted.

A rule list cleans a raw reply into a sentence; a rule returns True for a sentence that it accepts. The lists are `ours`,
`as_released` (the code behind the paper's sentences) and `none`, which drops errors, empty replies and overlong replies.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass, replace

import pandas as pd

from pcclip.comparisons.llm.replies import without_reasoning
from pcclip.comparisons.sentences import LONGEST, sides, swapped
from pcclip.data.concepts import concept_of, singular, words_of
from pcclip.encoders.dual_encoder import Encoder
from pcclip.errors import PcclipError

_END_OF_SENTENCE = re.compile(r"\n\n|\n(?=Q:|#\d|Note|I hope|First image:|Question)|(?<=[.!?])\s+(?=Note\b|I hope\b)")
FIRST = 20  # the language model answers so many questions before the others, to see that it can
_LABEL = re.compile(r"^(?:#\d+:|A:|Answer:|Difference:)\s*")


@dataclass(frozen=True)
class Candidate:
    """A cleaned sentence with everything that the rules read.

    Attributes:
        finish_reason: why the reply ended: 'stop', 'length', or 'error: ...'.
        tokens: the sentence's length for the text tower.
        context_length: the most tokens that the tower reads.
        raw: the reply before it was cleaned.
    """

    sentence: str
    finish_reason: str
    first_caption: str
    second_caption: str
    first_concept: str
    second_concept: str
    tokens: int
    context_length: int
    raw: str = ""

    @property
    def words(self) -> list[str]:
        return words_of(self.sentence)


Rule = Callable[[Candidate], bool]


# Ours


def clean(raw: str) -> str:
    """The sentence of a raw reply: cut where another question or a note begins, white space folded."""
    return " ".join(_LABEL.sub("", _END_OF_SENTENCE.split(without_reasoning(raw).strip(), maxsplit=1)[0]).split())


def _plain_text(c: Candidate) -> bool:
    """No code, markup or ASCII noise."""
    odd = sum(not (ch.isalnum() or ch in " .,;:!?'\"()-’“”é") for ch in c.sentence)
    return odd <= 0.02 * len(c.sentence) and not re.search(r"#include|#define|</|\*|0{4}|(.)\1{4}", c.sentence)


def _no_loop(c: Candidate) -> bool:
    """No word twice in a row, and no sequence of three words twice in one half of the sentence."""
    if any(word == following for word, following in zip(c.words, c.words[1:], strict=False)):
        return False
    for side in sides(c.sentence) or (c.sentence,):
        words = words_of(side)
        triples = list(zip(words, words[1:], words[2:], strict=False))
        if len(triples) != len(set(triples)):
            return False
    return True


def _own_side(c: Candidate) -> bool:
    """Each half names the subject of its own caption and, if the subjects differ, not that of the other caption."""
    parts = sides(c.sentence)
    if parts is None:
        return False
    first_words, second_words = ({singular(word) for word in words_of(part)} for part in parts)
    first, second = _subject(c.first_caption, c.first_concept), _subject(c.second_caption, c.second_concept)
    crossed = first != second and (first_words & (second - first) or second_words & (first - second))
    return bool(first_words & first) and bool(second_words & second) and not crossed


def _subject(caption: str, concept: str) -> set[str]:
    """The words that name a caption's subject: its head noun and the last word of its concept."""
    return {singular(concept_of(caption)), *concept.split()[-1:]} - {""}


RULES: dict[str, Rule] = {
    # the reply has text, is not too long, and the backend reported no error
    "answered": lambda c: 0 < len(c.sentence) <= LONGEST and not c.finish_reason.startswith("error"),
    "finished": lambda c: c.finish_reason == "stop",  # before the token limit
    "plain_text": _plain_text,
    "length": lambda c: 8 <= len(c.words) <= 60,
    "no_loop": _no_loop,
    "two_sides": lambda c: sides(c.sentence) is not None,  # the first image, then the second
    "own_side": _own_side,
    "in_context": lambda c: c.tokens <= c.context_length,  # the text tower reads the whole sentence
}


# As released (data/filter_comparatives.py of the paper's repository), its patterns grouped under names. Strings that
# the release drops because they occurred in its own run are left out, or fall under `no_stutter`, which is wider.

_ENDS = ("Q:", "I hope", "#2:", "Note")
_DROPPED_AS_RELEASED = {  # rule -> what a raw reply must not contain
    "starts_with_text": r"\A ?\n\n\n",
    "no_code": r"\A#include|\A# 1000|#define",
    "no_numbers": r"1000000|0{58}|1{5}|5{5}|0:00:00",
    "no_markup": r"\*|</p>|<br>",
    "no_heading": r"Description:|Description of the image:",
    "no_punctuation_run": r'\?{5}|!{5}|-{5}|\.\. \.\. \.\.|(\. ){4}|" " "|"""|\{{3}',
    "no_stutter": r"([A-Za-z]\S{1,3})\1\1",  # a piece of two to four characters, three times in a row
    "ascii": r"[^\x00-\x7f]",
}


def clean_as_released(raw: str) -> str:
    """The reply up to the first of _ENDS, without markers. As released newlines are deleted, which can join two words."""
    raw = without_reasoning(raw)
    text = raw[: min((raw.find(end) for end in _ENDS if end in raw), default=len(raw))].strip()
    for old, new in (("#1:", ""), ("A: ", ""), ("#", ""), ("\n", ""), ("\t", " "), ("  ", " ")):
        text = text.replace(old, new)
    return text.strip().removeprefix(". ").strip()


def _without(pattern: str) -> Rule:
    return lambda c: not re.search(pattern, c.raw)


AS_RELEASED: dict[str, Rule] = {
    **{name: _without(pattern) for name, pattern in _DROPPED_AS_RELEASED.items()},
    "answered": RULES["answered"],
    "sixty": lambda c: len(c.sentence) >= 60,  # characters, after cleaning
}


@dataclass(frozen=True)
class RuleList:
    """A function that cleans a raw reply, and the rules for the cleaned sentence, in order."""

    clean: Callable[[str], str]
    rules: dict[str, Rule]

    def judge(self, candidate: Candidate) -> tuple[str, str, bool]:
        """(verdict, sentence, mended): the verdict is 'kept' or the first rule that drops the sentence.

        A sentence that passes only after its halves are exchanged is kept that way (mended): the language model took the
        images in the wrong order.
        """
        verdict = self._verdict(candidate)
        if verdict == "own_side":
            exchanged = replace(candidate, sentence=swapped(candidate.sentence))
            if self._verdict(exchanged) == "kept":
                return "kept", exchanged.sentence, True
        return verdict, candidate.sentence, False

    def _verdict(self, candidate: Candidate) -> str:
        return next((name for name, accepts in self.rules.items() if not accepts(candidate)), "kept")


LISTS = {
    "ours": RuleList(clean, RULES),
    "as_released": RuleList(clean_as_released, AS_RELEASED),
    "none": RuleList(clean, {"answered": RULES["answered"]}),
}


def rule_list(names: str | list[str]) -> RuleList:
    """A rule list by its name, or our rules of these names, always with 'answered' and 'two_sides'.

    The lists 'as_released' and 'none' accept a sentence with one half; it has no swapped twin.
    Raises PcclipError on an unknown name.
    """
    if isinstance(names, str):
        if names not in LISTS:
            raise PcclipError(f"generate.filters: unknown list {names!r}; known: {', '.join(LISTS)}")
        return LISTS[names]
    if unknown := sorted(set(names) - set(RULES)):
        raise PcclipError(f"generate.filters: unknown rule {unknown[0]!r}; known: {', '.join(RULES)}")
    return RuleList(clean, {n: RULES[n] for n in RULES if n in {*names, "answered", "two_sides"}})


def judged(table: pd.DataFrame, rules: RuleList, model: Encoder) -> pd.DataFrame:
    """Apply a rule list to raw replies.

    Args:
        table: columns raw, finish_reason, first_caption, second_caption, first_concept, second_concept.
        rules: a rule list.
        model: its tokenizer and context length decide which sentences are too long for its text tower.

    Returns:
        Columns difference (the cleaned sentence), tokens (its length), mended and verdict, row by row of `table`.
    """
    sentences = [rules.clean(raw) for raw in table.raw]
    rows = []
    tokens_of = model.tokens([sentence[:LONGEST] for sentence in sentences])  # longer ones are not kept
    for reply, sentence, ids in zip(table.itertuples(), sentences, tokens_of, strict=True):
        tokens = len(ids)
        verdict, sentence, mended = rules.judge(
            Candidate(
                sentence=sentence,
                finish_reason=reply.finish_reason,
                first_caption=reply.first_caption,
                second_caption=reply.second_caption,
                first_concept=reply.first_concept,
                second_concept=reply.second_concept,
                tokens=tokens,
                context_length=model.context_length,
                raw=without_reasoning(reply.raw),
            )
        )
        if mended:  # a sentence with exchanged sides can have another number of tokens
            tokens = len(model.tokens([sentence])[0])
            verdict = "in_context" if "in_context" in rules.rules and tokens > model.context_length else verdict
        rows.append((sentence, tokens, mended, verdict))
    return pd.DataFrame(rows, columns=["difference", "tokens", "mended", "verdict"], index=table.index)


def check_yield(table: pd.DataFrame, min_yield: float, noun: str) -> None:
    """Raise PcclipError, with the commonest reason, when less than a share `min_yield` of the rows has verdict 'kept'.

    Args:
        table: columns verdict and finish_reason.
        min_yield: the smallest share.
        noun: what the rows are, for the message.
    """
    dropped = table.verdict[table.verdict != "kept"].value_counts()
    kept = len(table) - dropped.sum()
    if kept >= min_yield * len(table):
        return
    errors = table.finish_reason[table.finish_reason.str.startswith("error")].value_counts()
    backend = f"; the backend reported {errors.index[0]!r} {errors.iloc[0]} times" if len(errors) else ""
    raise PcclipError(
        f"{noun}: only {kept} of {len(table)} were kept, less than generate.min_yield = {min_yield}; rule "
        f"{dropped.index[0]!r} dropped most ({dropped.iloc[0]}): check the model, the prompt and generate.filters{backend}"
    )


def check_first(table: pd.DataFrame, min_yield: float, noun: str) -> None:
    """Raise PcclipError with three raw replies when none of the first FIRST rows has verdict 'kept'.

    Args as of `check_yield`. Checks nothing when there are fewer rows, or min_yield is 0.
    """
    if len(table) < FIRST or min_yield == 0 or (table.verdict == "kept").any():
        return
    rules = ", ".join(f"{rule!r} ({count})" for rule, count in table.verdict.value_counts().items())
    replies = ", ".join(repr(reply.raw[:120] or reply.finish_reason) for reply in table.head(3).itertuples())
    raise PcclipError(
        f"{noun}: none of the first {len(table)} replies passes the filters (dropped by {rules}); the first three are {replies}; "
        "check the model, the prompt and generate.filters, or set generate.min_yield: 0 to go on"
    )


def side_by_side(table: pd.DataFrame, model: Encoder) -> pd.DataFrame:
    """Count raw replies by verdict of our rules (rows) and of the rules as released (columns); arguments of `judged`."""
    return pd.crosstab(*(judged(table, LISTS[name], model).verdict.rename(name) for name in ("ours", "as_released")))


def yield_table(verdicts: pd.Series, rules: RuleList) -> pd.DataFrame:
    """How many sentences each rule dropped and how many were left after it: rule, dropped, left, share_left."""
    dropped = verdicts.value_counts().reindex(list(rules.rules), fill_value=0)
    left = len(verdicts) - dropped.cumsum()
    columns = {"dropped": dropped, "left": left, "share_left": left / max(1, len(verdicts))}
    return pd.DataFrame(columns).rename_axis("rule").reset_index()
