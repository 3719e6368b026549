"""Texts about classes, written by the language model: the look of a class, and the difference between two classes.

Descriptions are for extended prompts ("This is a photo of a goldfish. It has fins ..."), differences for comparative
prompting. Every reply is logged under a key made of all that it depends on, so that no question is asked twice. An
unusable reply is asked for again under another seed; a subject left without a text gets the template's.
"""

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
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
from pcclip.runs.files import digest
from pcclip.runs.log import AnswerLog

EXTENDED = "This is a photo of a {}. {}"  # class and description; the tokens must fit the text tower
FORMAT = 1  # a higher number asks everything again
_SHORTEST, _LONGEST = 5, 40  # words of a description
_ORIGIN = ["prompt_hash", "model_hash", "sampling"]
_DESCRIPTION_RULES = ("answered", "finished", "plain_text", "no_loop", "in_context")

Subject = tuple[str, str]  # two classes, or one class and ''
Judged = tuple[str, str]  # the text of a reply, and its verdict: 'kept', or the rule that drops it


@dataclass(frozen=True)
class Writing:
    """Everything about how class texts are written; one argument in place of six.

    Attributes:
        settings: the sampling of replies, and generate.min_yield.
        backend: makes the (lazy) backend of a prompt.
        folder: of the logs.
        model: its tokenizer says which texts are too long for its text tower.
        kind: the kind of thing that the classes are ('bird', 'land seen from above'), told to the language model in
            parentheses, or ''. It helps with names of several meanings; a small model writes worse texts with it.
        retries: rounds in which missing texts are asked for again.
    """

    settings: Generate
    backend: Callable[[Prompt], Backend]
    folder: Path
    model: Encoder
    kind: str = ""
    retries: int = 2


@dataclass(frozen=True)
class _Kind:
    """A kind of text: its name in files and errors, its prompt, and the rules that keep or drop a reply."""

    name: str
    prompt: Prompt
    judge: Callable[[Subject, Reply], Judged]


def inputs(settings: Generate) -> list:
    """Everything that the texts depend on, for the key of the stage that asks for them."""
    prompts = [load_prompt("class_differences").hash, load_prompt("describe_class", slots=("first",)).hash]
    return [backend_identity(settings), prompts, _sampling(settings), settings.min_yield, FORMAT]


def descriptions(classes: Sequence[str], writing: Writing, n: int = 1) -> pd.DataFrame:
    """Describe the look of each class.

    Args:
        classes: readable names.
        writing: how; its backend is not the template.
        n: the number of different descriptions of a class.

    Returns:
        class, description, source ('llm', or 'template' for the only description of a class), verdict ('kept', or why
        the last reply was dropped: a rule of `filters`, 'length' for fewer than 5 or more than 40 words, 'other_class'
        for the name of another class, 'repeated'), prompt_hash, model_hash, sampling; at most n rows a class.

    Raises:
        PcclipError: fewer than generate.min_yield of the classes got a description.
    """
    judge = partial(_judge_description, classes, writing.model)
    kind = _Kind("class-descriptions", load_prompt("describe_class", slots=("first",)), judge)
    table = _write(kind, [(name, "") for name in classes], writing, n)
    texts = [
        text or f"It is {named(writing.kind or name)}." for name, text in zip(table["first"], table.text, strict=True)
    ]
    columns = ["class", "description", "source", "verdict", *_ORIGIN]
    return table.assign(description=texts).rename(columns={"first": "class"})[columns]


def class_differences(
    pairs: Iterable[tuple[str, str]], writing: Writing, prompt_name: str = "class_differences"
) -> pd.DataFrame:
    """Write how the classes of each pair differ, with the swapped twin for the pair in the other order.

    Args:
        pairs: class names, each pair in one order only.
        writing: how; the template backend is not asked, and every text is the template's.
        prompt_name: of a prompt file with {first} and {second}.

    Returns:
        One row a pair: first, second, difference, swapped, source ('llm' or 'template'), verdict ('kept', 'not asked',
        or why the last reply was dropped: a rule of `filters`, or 'alike' for the same words about both), prompt_hash,
        model_hash, sampling.

    Raises:
        PcclipError: fewer than generate.min_yield of the pairs got a text of the model.
    """
    kind = _Kind("class-differences", load_prompt(prompt_name), partial(_judge_difference, writing.model))
    table = _write(kind, list(pairs), writing)
    texts = [row.text or from_captions(named(row.first), named(row.second)) for row in table.itertuples()]
    columns = ["first", "second", "difference", "swapped", "source", "verdict", *_ORIGIN]
    return table.assign(difference=texts, swapped=[swapped(text) for text in texts])[columns]


def _write(kind: _Kind, subjects: list[Subject], writing: Writing, n: int = 1) -> pd.DataFrame:
    """Ask in rounds, one reply for each subject with fewer than n texts; the template backend is not asked.

    Returns columns first, second, text ('' for a subject without any), source, verdict and _ORIGIN. Raises PcclipError
    for too few texts.
    """
    prompt, settings = kind.prompt, writing.settings
    backend, sampling = writing.backend(prompt), _sampling(settings)
    content = [FORMAT, prompt.hash, backend.identity, sampling]
    log = AnswerLog(Path(writing.folder) / f"{kind.name}-{digest(content)[:12]}.jsonl", Reply, kind.name)
    texts: dict[Subject, list[str]] = {subject: [] for subject in subjects}
    last = dict.fromkeys(subjects, ("not asked", "", ""))  # verdict, finish reason and text of the last reply
    for number in range(0 if backend.identity == Template.identity else n + writing.retries):
        incomplete = [subject for subject in subjects if len(texts[subject]) < n]
        for part in (incomplete[: filters.FIRST], incomplete[filters.FIRST :]):
            questions = [_question(subject, writing.kind, [*content], number) for subject in part]
            replies = log.answer_all(questions, backend.answers) if questions else {}
            for subject, question in zip(part, questions, strict=True):
                reply = replies[question.key]
                echo = f" ({writing.kind})"  # small models repeat it
                text, verdict = kind.judge(subject, replace(reply, text=reply.text.replace(echo, "")))
                if verdict == "kept" and text in texts[subject]:
                    verdict = "repeated"
                elif verdict == "kept":
                    texts[subject].append(text)
                last[subject] = verdict, reply.finish_reason, reply.text
            if number == 0 and part == subjects[: filters.FIRST]:
                first = pd.DataFrame([last[subject] for subject in part], columns=["verdict", "finish_reason", "raw"])
                filters.check_first(first, settings.min_yield, kind.name)
    if backend.identity != Template.identity:
        outcomes = [("kept" if texts[subject] else last[subject][0], last[subject][1]) for subject in subjects]
        filters.check_yield(pd.DataFrame(outcomes, columns=["verdict", "finish_reason"]), settings.min_yield, kind.name)
    rows = [(*subject, text) for subject in subjects for text in texts[subject] or [""]]
    table = pd.DataFrame(rows, columns=["first", "second", "text"])
    verdicts = ["kept" if text else last[first, second][0] for first, second, text in rows]
    origin = dict(zip(_ORIGIN, (prompt.hash, backend.identity, json.dumps(sampling)), strict=True))
    return table.assign(source=table.text.ne("").map({True: "llm", False: "template"}), verdict=verdicts, **origin)


def _sampling(settings: Generate) -> dict[str, float]:
    return settings.model_dump(include={"temperature", "top_p", "max_tokens"})


def _question(subject: Subject, kind: str, content: list, number: int) -> Question:
    """Two classes as two captions ('A frog.'), or one class as part of a question ('a frog')."""
    words = [f"{named(name)} ({kind})" if kind else named(name) for name in subject if name]
    if len(words) == 2:
        words = [f"{text[:1].upper()}{text[1:]}." for text in words]
    first, second = [*words, ""][:2]
    return Question(digest([*content, words, number])[:32], first, second)


# which replies are kept


def _judge_description(classes: Sequence[str], model: Encoder, subject: Subject, reply: Reply) -> Judged:
    name, sentence = subject[0], filters.clean(reply.text)
    others = [_in_singular(other) for other in classes if _in_singular(other) not in _in_singular(name)]
    rules = {
        **{rule: filters.RULES[rule] for rule in _DESCRIPTION_RULES},
        "length": lambda candidate: _SHORTEST <= len(candidate.words) <= _LONGEST,
        "other_class": lambda candidate: not any(other in _in_singular(candidate.sentence) for other in others),
    }
    candidate = filters.Candidate(
        sentence=sentence,
        finish_reason=reply.finish_reason,
        first_caption=named(name),
        second_caption="",
        first_concept="",
        second_concept="",
        tokens=len(model.tokens([EXTENDED.format(name, sentence)])[0]),
        context_length=model.context_length,
        raw=reply.text,
    )
    verdict, sentence, _ = filters.RuleList(filters.clean, rules).judge(candidate)
    return sentence, verdict


def _judge_difference(model: Encoder, subject: Subject, reply: Reply) -> Judged:
    """Judge by our rules for comparisons; beyond the names, the sides must also have different words."""
    first, second = subject
    row = {
        "raw": reply.text,
        "finish_reason": reply.finish_reason,
        "first_caption": named(first),
        "second_caption": named(second),
        "first_concept": _distinguishing_word(first, second),
        "second_concept": _distinguishing_word(second, first),
    }
    ours = filters.rule_list("ours")
    rules = replace(ours, rules={**ours.rules, "alike": _sides_differ})
    judged = filters.judged(pd.DataFrame([row]), rules, model)
    return judged.difference[0], judged.verdict[0]


def _sides_differ(candidate: filters.Candidate) -> bool:
    names = {singular(word) for word in words_of(f"{candidate.first_caption} {candidate.second_caption}")}
    first, second = (
        {singular(word) for word in words_of(side)} - names - {"a", "an", "the"}
        for side in sides(candidate.sentence) or ("", "")
    )
    return first != second


def _distinguishing_word(name: str, other: str) -> str:
    """The last word of a class's name that the other name lacks: 'maple' of 'maple tree' beside 'oak tree'."""
    words, others = ([singular(word) for word in words_of(text)] for text in (name, other))
    return next((word for word in reversed(words) if word not in others), words[-1] if words else "")


def _in_singular(text: str) -> str:
    """The words of a text in the singular, each between blanks, so that a name is found as whole words only."""
    return f" {' '.join(singular(word) for word in words_of(text))} "
