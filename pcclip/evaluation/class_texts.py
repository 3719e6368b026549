"""Texts about classes, written by the language model: what a class looks like, and how two of them differ.

Descriptions are for extended prompts ("This is a photo of a goldfish. It has fins ..."), differences for comparative
prompting of any pair of classes. Every reply is journalled under a key made of all that it depends on, so nothing is
asked twice; a reply that cannot be used is asked for again under another seed, kept in the table of replies with the
reason, and a subject left without any text gets a template's, marked as such.
"""

import json
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import cache, partial
from pathlib import Path

import pandas as pd

from pcclip.comparisons import filters
from pcclip.comparisons.llm import Backend, Question, Reply, Template, backend_identity
from pcclip.comparisons.prompts import Prompt, load_prompt
from pcclip.comparisons.sentences import from_captions, sides, swapped
from pcclip.comparisons.verdicts import named
from pcclip.config import Generate
from pcclip.data.concepts import singular, words_of
from pcclip.encoders.dual_encoder import Encoder
from pcclip.errors import PcclipError
from pcclip.runs.files import digest
from pcclip.runs.log import AnswerLog

EXTENDED = "This is a photo of a {}. {}"  # where a description goes; its tokens must fit the text tower
FORMAT = 1  # raise it when what is asked, or what a reply means, changes: everything is then asked again
_RETRIES = 2


def inputs(settings: Generate) -> list:
    """What the texts depend on, for the key of the stage that asks for them."""
    prompts = [load_prompt("class_differences").hash, load_prompt("describe_class", slots=("first",)).hash]
    sampling = settings.model_dump(include={"temperature", "top_p", "max_tokens", "min_yield"})
    return [backend_identity(settings), prompts, sampling, FORMAT]


def descriptions(
    classes: Sequence[str],
    kind_of_thing: str,
    settings: Generate,
    start: Callable[[Prompt], Backend],
    identity: str,
    journals: Path,
    model: Encoder,
    n: int = 1,
    retries: int = _RETRIES,
    prompt: str = "describe_class",
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """What each class looks like.

    Args:
        classes: readable names.
        kind_of_thing: what they are ('bird', 'land seen from above'); told to the model in parentheses, or ''. Worth
            it for names that mean several things; a small model writes worse texts with it.
        settings: how replies are sampled, and generate.min_yield.
        start: makes the backend of a prompt when something is left to ask.
        identity: the backend's.
        journals: the folder of the journals.
        model: its tokenizer says which descriptions are too long for its text tower.
        n: how many different descriptions a class gets.
        retries: how many more replies are asked for where some of the n cannot be used.
        prompt: a prompt file with {first} alone.

    Returns:
        Descriptions: class, description, source ('llm', or 'template' for the one of a class that has no other),
        verdict ('kept', or why the last reply was not), prompt_hash, model_hash, sampling; n rows a class, or fewer.
        And all replies: class, number, raw, finish_reason, description, tokens, verdict ('kept', 'answered',
        'finished', 'plain_text', 'no_loop', 'in_context' as in `filters`, 'length' when it has not 5 to 40 words,
        'other_class' when it names another of the classes, 'repeated').

    Raises:
        PcclipError: fewer than generate.min_yield of the classes got a description, the template backend, or a class
            named twice.
    """
    classes = list(classes)
    _distinct(classes, "class")
    if identity == Template.identity:
        raise PcclipError(
            "generate.backend = template cannot describe classes; name a language model's backend, or "
            "leave extended prompts out"
        )
    asked = _Asked("class-descriptions", load_prompt(prompt, slots=("first",)), settings, start, identity, journals)
    replies = asked.replies(
        [(name, "") for name in classes], kind_of_thing, n, retries, partial(_judge_descriptions, classes, model)
    )
    replies = replies.drop(columns="second").rename(columns={"first": "class", "text": "description"})
    kept, rows = replies[replies.verdict == "kept"], []
    for name in classes:
        found = kept.description[kept["class"] == name]
        rows += [(name, text, "llm", "kept") for text in found] or [
            (
                name,
                f"It is {named(kind_of_thing or name)}.",
                "template",
                replies.verdict[replies["class"] == name].iloc[-1],
            )
        ]
    table = pd.DataFrame(rows, columns=["class", "description", "source", "verdict"])
    asked.check_yield((table.source == "llm").groupby(table["class"]).any().mean(), replies)
    return table.assign(**asked.origin), replies


def class_differences(
    pairs: Iterable[tuple[str, str]],
    settings: Generate,
    start: Callable[[Prompt], Backend],
    identity: str,
    journals: Path,
    model: Encoder,
    kind_of_thing: str = "",
    retries: int = _RETRIES,
    prompt: str = "class_differences",
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """How the classes of each pair differ, with the swapped twin for the pair the other way round.

    Args:
        pairs: class names, each pair one way round only.
        settings, start, identity, journals, model, kind_of_thing, retries: as in `descriptions`; with the template
            backend nothing is asked and every text is the template's.
        prompt: a prompt file with {first} and {second}.

    Returns:
        One row a pair: first, second, difference, swapped, source ('llm' or 'template'), verdict ('kept', why the
        last reply was not, or 'not asked'), prompt_hash, model_hash, sampling. And all replies: first, second,
        number, raw, finish_reason, difference, tokens, mended, verdict ('kept', one of `filters.RULES`, or 'alike'
        when it says the same of both).

    Raises:
        PcclipError: fewer than generate.min_yield of the pairs got a text of the model, or a pair that is there
            twice or of a class with itself.
    """
    pairs = [tuple(pair) for pair in pairs]
    _distinct([tuple(sorted(pair)) for pair in pairs], "pair")
    for first, second in pairs:
        if first == second:
            raise PcclipError(f"pair {first!r}, {second!r}: a class does not differ from itself; leave it out")
    asked = _Asked("class-differences", load_prompt(prompt), settings, start, identity, journals)
    writes = identity != Template.identity
    replies = asked.replies(pairs if writes else [], kind_of_thing, 1, retries, partial(_judge_differences, model))
    replies = replies.rename(columns={"text": "difference"})
    found = {(row.first, row.second): row for row in replies.itertuples()}  # the last reply is the one that was kept
    rows = []
    for first, second in pairs:
        reply = found.get((first, second))
        kept = reply is not None and reply.verdict == "kept"
        text = reply.difference if kept else from_captions(named(first), named(second))
        rows.append(
            (first, second, text, swapped(text), "llm" if kept else "template", reply.verdict if reply else "not asked")
        )
    table = pd.DataFrame(rows, columns=["first", "second", "difference", "swapped", "source", "verdict"])
    if writes:
        asked.check_yield((table.source == "llm").mean(), replies)
    return table.assign(**asked.origin), replies


def per_class(table: pd.DataFrame, classes: Sequence[str]) -> list[list[str]]:
    """The texts of `descriptions` as lists in the order of `classes`. Raises PcclipError for a class without any."""
    by_class = table.groupby("class", sort=False).description.apply(list).to_dict()
    for name in classes:
        if name not in by_class:
            raise PcclipError(f"class {name!r}: not among the described ones; have its description written")
    return [by_class[name] for name in classes]


class _Asked:
    """One kind of text asked of one backend with one prompt."""

    def __init__(self, noun: str, prompt: Prompt, settings: Generate, start: Callable, identity: str, journals: Path):
        self._noun, self._prompt, self._settings = noun, prompt, settings
        sampling = settings.model_dump(include={"temperature", "top_p", "max_tokens"})
        self._content = [FORMAT, prompt.hash, identity, sampling]
        self._journal = AnswerLog(Path(journals) / f"{noun}-{digest(self._content)[:12]}.jsonl", Reply, noun)
        self._started = cache(lambda: start(prompt))
        self.origin = {"prompt_hash": prompt.hash, "model_hash": identity, "sampling": json.dumps(sampling)}

    def replies(
        self, subjects: list[tuple[str, str]], kind: str, wanted: int, retries: int, judge: Callable
    ) -> pd.DataFrame:
        """Rounds of one reply for each subject that has fewer kept ones than wanted, at most wanted + retries rounds.

        `judge` gives text, tokens and verdict for a table of first, second, number, raw and finish_reason.
        """
        if wanted < 1 or retries < 0:
            raise PcclipError(f"{self._noun}: n = {wanted}, retries = {retries}; ask for one text or more")
        kept, told, rounds = Counter(), set(), []
        for number in range(wanted + retries if subjects else 0):
            left = [subject for subject in subjects if kept[subject] < wanted]
            if not left:
                break
            found = self._round(left, kind, number)
            echo = f" ({kind})"  # which a small model repeats
            judged = found.join(judge(found.assign(raw=found.raw.str.replace(echo, "", regex=False))))
            for row in judged.itertuples():
                subject = (row.first, row.second)
                if row.verdict == "kept" and (subject, row.text) in told:
                    judged.loc[row.Index, "verdict"] = "repeated"
                elif row.verdict == "kept":
                    kept[subject] += 1
                    told.add((subject, row.text))
            rounds.append(judged)
        columns = ["first", "second", "number", "raw", "finish_reason", "text", "tokens", "verdict"]
        return pd.concat(rounds, ignore_index=True) if rounds else pd.DataFrame(columns=columns)

    def check_yield(self, share: float, replies: pd.DataFrame) -> None:
        """Raise PcclipError when the share of subjects with a text of the model is below generate.min_yield."""
        if share < self._settings.min_yield:
            bad = replies[replies.verdict != "kept"]
            errors = bad.finish_reason[bad.finish_reason.str.startswith("error")]
            said = f" ({errors.value_counts().index[0]})" if len(errors) else ""
            raise PcclipError(
                f"{self._noun}: only {share:.0%} got a text, less than generate.min_yield; most replies "
                f"were {bad.verdict.value_counts().index[0]!r}{said}: check the model and the prompt"
            )

    def _round(self, subjects: list[tuple[str, str]], kind: str, number: int) -> pd.DataFrame:
        asked = [self._question(subject, kind, number) for subject in subjects]
        replies = self._journal.answer_all(asked, lambda rest: self._started().answers(rest))
        found = [replies[question.key] for question in asked]
        return pd.DataFrame(
            {
                "first": [first for first, _ in subjects],
                "second": [second for _, second in subjects],
                "number": number,
                "raw": [reply.text for reply in found],
                "finish_reason": [reply.finish_reason for reply in found],
            }
        )

    def _question(self, subject: tuple[str, str], kind: str, number: int) -> Question:
        """Two classes as two captions ('A frog.'), one class as it goes into a question ('a frog')."""
        words = [f"{named(name)} ({kind})" if kind else named(name) for name in subject if name]
        if len(words) == 2:
            words = [f"{text[:1].upper()}{text[1:]}." for text in words]
        key = digest([*self._content, words, number])[:32]
        return Question(key, *words) if len(words) == 2 else Question(key, words[0], "")


def _distinct(subjects: Sequence, noun: str) -> None:
    twice = [subject for subject, count in Counter(subjects).items() if count > 1]
    if twice:
        raise PcclipError(f"{noun} {twice[0]!r} is there twice; give each once")
    if any(not name.strip() for subject in subjects for name in ([subject] if noun == "class" else subject)):
        raise PcclipError(f"a {noun} has an empty name; give every class a readable one")


def _candidate(row, sentence: str, tokens: int, model: Encoder) -> filters.Candidate:
    one, two = _telling(row.first, row.second), _telling(row.second, row.first)
    return filters.Candidate(
        sentence,
        row.finish_reason,
        named(row.first),
        named(row.second) if row.second else "",
        one,
        two,
        tokens,
        model.context_length,
        row.raw,
    )


def _telling(name: str, other: str) -> str:
    """The last word of a class's name that the other's has not: 'maple' of 'maple tree' beside 'oak tree'."""
    words, others = ([singular(word) for word in words_of(text)] for text in (name, other))
    return next((word for word in reversed(words) if word not in others), words[-1] if words else "")


# descriptions

_SHORTEST, _LONGEST = 5, 40  # words
_RULES = ("answered", "finished", "plain_text", "no_loop", "in_context")


def _judge_descriptions(classes: Sequence[str], model: Encoder, table: pd.DataFrame) -> pd.DataFrame:
    sentences = [filters.clean(raw) for raw in table.raw]
    lengths = map(len, model.tokens([EXTENDED.format(*both) for both in zip(table["first"], sentences, strict=True)]))
    names, rows = [_spaced(name) for name in classes], []
    for row, sentence, tokens in zip(table.itertuples(), sentences, lengths, strict=True):
        others = [name for name in names if name not in _spaced(row.first)]
        rules = {
            **{name: filters.RULES[name] for name in _RULES},
            "length": lambda c: _SHORTEST <= len(c.words) <= _LONGEST,
            "other_class": lambda c, others=others: not _names_any(c.sentence, others),
        }
        verdict, *_ = filters.RuleList("descriptions", filters.clean, rules).judge(
            _candidate(row, sentence, tokens, model)
        )
        rows.append((sentence, tokens, verdict))
    return pd.DataFrame(rows, columns=["text", "tokens", "verdict"], index=table.index)


def _names_any(sentence: str, others: Sequence[str]) -> bool:
    """Whether it has the whole name of another class, one that is no part of its own: 'truck' in 'pickup truck'."""
    said = _spaced(sentence)
    return any(other in said for other in others)


def _spaced(text: str) -> str:
    """Its words in the singular, each between blanks."""
    return f" {' '.join(singular(word) for word in words_of(text))} "


# differences


def _judge_differences(model: Encoder, table: pd.DataFrame) -> pd.DataFrame:
    candidates = [_candidate(row, "", 0, model) for row in table.itertuples()]
    given = table.assign(
        first_caption=[c.first_caption for c in candidates],
        second_caption=[c.second_caption for c in candidates],
        first_concept=[c.first_concept for c in candidates],
        second_concept=[c.second_concept for c in candidates],
    )
    judged = filters.judged(given, _differing(), model)
    return judged.rename(columns={"difference": "text"})


def _differing() -> filters.RuleList:
    """Our rules for comparisons, and that more than the names sets the sides apart."""
    ours = filters.rule_list("ours")
    return replace(ours, name="class differences", rules={**ours.rules, "alike": _differs})


def _differs(c: filters.Candidate) -> bool:
    names = {singular(word) for caption in (c.first_caption, c.second_caption) for word in words_of(caption)}
    first, second = (
        {singular(word) for word in words_of(side)} - names - {"a", "an", "the"} for side in sides(c.sentence)
    )
    return first != second
