"""Which of two things is larger, faster, ...: the language model's verdicts on pairs of images and pairs of nouns.

A stem is a text that the model continues; its odds are log P(more) - log P(less) for the next word. A stem that
compares two things is asked in both orders, since a model prefers whichever thing comes first; a stem about one thing
is asked about each of the two. For each stem, half the difference of the two odds is divided by its root mean square
over all pairs of their kind (not centred, as the order of a pair is arbitrary). A pair's value is the mean over stems.
PC-CLIP has no verdicts on attributes; its sentences do not teach them.

Nouns beyond the images' own need no photograph: f("a photo of a fox") - f("a photo of a horse") by the base model
stands in for the difference of two photographs. The bank's nouns with the head word of a held-out concept are left out.
"""

import re
from collections.abc import Callable, Iterable

import numpy as np
import pandas as pd
from scipy.special import ndtr

from pcclip.comparisons.attributes import Bank, BankAttribute, Stem, load_bank, with_article
from pcclip.comparisons.llm import Backend, Choice, Odds
from pcclip.comparisons.pairs import both_images, choose_pairs
from pcclip.comparisons.prompts import Prompt, load_prompt
from pcclip.comparisons.sentences import begins_with_article, inside
from pcclip.config import COMPARISONS, Config
from pcclip.data.concepts import singular, words_of
from pcclip.data.image_set import ImageSet
from pcclip.errors import PcclipError
from pcclip.runs.files import digest
from pcclip.runs.log import AnswerLog
from pcclip.runs.stage import read_output

TABLE = "verdicts.parquet"
KINDS = ("image", "thing")
_PAIR = ["kind", "split", "first", "second", "first_subject", "second_subject"]
_CERTAIN = 0.5  # with less confidence the verdict is 'neither'


def judge(config: Config, images: ImageSet, backend_for: Callable[[Prompt], Backend]) -> pd.DataFrame:
    """Ask about every attribute of the run's bank.

    Returns:
        One row for each attribute and pair that is asked about: attribute, kind ('image' or 'thing'), split, first,
        second (ids, or the nouns), first_subject, second_subject, value (scaled odds, > 0 when the first has more),
        probability (that the first has more), confidence (|2p - 1|), verdict ('first', 'second', 'neither', or 'none'
        without an answer), stems (how many were answered), reason (why the first unanswered stem was not).

    Raises:
        PcclipError: more than half of the pairs got no answer.
    """
    bank = load_bank(config.generate.attributes or "")
    backend = backend_for(load_prompt(config.generate.prompt))
    pairs = draw_pairs(config, images, bank)
    choices = {
        attribute.name: [_choices(attribute, stem, pairs) for stem in attribute.stems] for attribute in bank.attributes
    }
    questions = [choice for tables in choices.values() for table in tables for side in table for choice in table[side]]
    odds = _log(config, backend).answer_all(questions, backend.choose, config)
    verdicts = pd.concat(
        [_verdicts(pairs.assign(attribute=name), tables, odds) for name, tables in choices.items()], ignore_index=True
    )
    failed = verdicts.value.isna()
    if failed.mean() > 0.5:
        raise PcclipError(
            f"verdicts: {failed.sum()} of {len(verdicts)} pairs got no answer, mostly with "
            f"{verdicts.reason[failed].value_counts().index[0]!r}; check the model and run again"
        )
    return verdicts


def check_backend(config: Config, images: ImageSet, backend_for: Callable[[Prompt], Backend]) -> None:
    """Raise PcclipError, before all other work, where a server gives no odds for a stem about one noun."""
    if config.generate.backend != "openai" or not config.generate.thing_pairs:
        return
    bank = load_bank(config.generate.attributes or "")
    pairs = draw_pairs(config, images, bank)
    things = pairs[pairs.kind == "thing"].head(1)
    choices = [_choices(a, stem, things).forward for a in bank.attributes for stem in a.stems]
    backend = backend_for(load_prompt(config.generate.prompt))
    for odds in _log(config, backend).answer_all(pd.concat(choices).head(1).to_list(), backend.choose).values():
        if odds.failed:
            raise PcclipError(
                f"generate.thing_pairs = {config.generate.thing_pairs}: {odds.reason.removeprefix('error: ')}; set it to 0, "
                "or judge attributes by backend llama_cpp or transformers"
            )


def load(config: Config) -> pd.DataFrame:
    """The verdicts that stage 01 stored. Raises PcclipError when there are none, or they belong to another bank."""
    bank = load_bank(config.generate.attributes or "")
    return read_output(config.source_folder / COMPARISONS, TABLE, attributes=bank.hash)


def _log(config: Config, backend: Backend) -> AnswerLog:
    return AnswerLog(config.journals / f"verdicts-{digest(backend.identity)[:12]}.jsonl", Odds, "verdicts")


def draw_pairs(config: Config, images: ImageSet, bank: Bank) -> pd.DataFrame:
    """Pairs to judge: kind, split, first, second, first_subject, second_subject.

    The two of a pair have the same split and kind and, where the images have labels, the same label.
    """
    settings, drawn = config.generate, []
    train, held_out = (table.assign(subject=table[bank.subject]) for table in (images.train, images.held_out))
    nouns = spare(bank.things, images)
    for kind, split, table, count in (
        ("image", "train", train, settings.attribute_pairs),
        ("image", "held_out", held_out, settings.held_out_attribute_pairs),
        ("thing", "train", pd.DataFrame({"id": nouns, "subject": nouns}), settings.thing_pairs),
    ):
        labels = table.get("label", pd.Series("", table.index)).astype(object).fillna("").astype(str)
        groups = [group for _, group in table.groupby(labels) if group.subject.nunique() > 1]
        for group in groups if count else []:
            share = -(-count * len(group) // sum(map(len, groups)))
            rows = choose_pairs(group.subject, share, "balanced", config.seed)
            drawn.append(both_images(group[["id", "subject"]], rows).assign(kind=kind, split=split))
    if not drawn:
        raise PcclipError("verdicts: no two subjects to compare; raise generate.attribute_pairs or thing_pairs")
    return pd.concat(drawn, ignore_index=True)[_PAIR]


def spare(nouns: Iterable[str], images: ImageSet) -> list[str]:
    """The nouns that do not contain the head word of a held-out concept."""
    held_out = {word for concept in images.held_out.concept for word in _singular_words(concept)[-1:]}
    return [noun for noun in nouns if not held_out & set(_singular_words(noun))]


def named(subject: str) -> str:
    """A subject for the middle of a sentence: 'fox' -> 'a fox', 'A red fox.' -> 'a red fox'."""
    text = inside(subject)
    return text if begins_with_article(text) else with_article(text)


def summary(table: pd.DataFrame, bank: Bank) -> pd.DataFrame:
    """For each attribute its split, stems, pairs of images and of things, and how often each verdict; for the notebook."""
    attributes = pd.DataFrame(
        [{"attribute": a.name, "split": a.split, "stems": len(a.stems)} for a in bank.attributes]
    ).set_index("attribute")
    names, verdicts = attributes.index, ["first", "second", "neither", "none"]
    by_kind = pd.crosstab(table.attribute, table.kind).reindex(names, columns=list(KINDS), fill_value=0)
    by_verdict = pd.crosstab(table.attribute, table.verdict).reindex(names, columns=verdicts, fill_value=0)
    return attributes.join(by_kind.add_suffix(" pairs")).join(by_verdict).reset_index()


def surest(table: pd.DataFrame, n: int) -> pd.DataFrame:
    """The n most confident verdicts on two subjects of images for each attribute, in words."""
    columns = ["attribute", "first_subject", "second_subject", "verdict", "confidence"]
    answered = table.loc[table.value.notna() & (table.kind == "image"), columns]
    distinct = answered.sort_values("confidence", ascending=False).drop_duplicates(columns[:3])
    return distinct.groupby("attribute", sort=False).head(n).sort_values("attribute", kind="stable", ignore_index=True)


def _singular_words(noun: str) -> list[str]:
    """The words of a noun in the singular, with those after a hyphen or in parentheses."""
    return [singular(word) for word in words_of(re.sub("[-()]", " ", noun))]


def _choices(attribute: BankAttribute, stem: Stem, pairs: pd.DataFrame) -> pd.DataFrame:
    """The two choices of each pair that a stem is asked about: columns forward and backward, indexed as `pairs`.

    A held-out attribute is asked about held-out pairs only. Nouns are not asked about by a stem that compares two.
    """
    suits = (pairs.kind == "image") | (not stem.compares)
    rows = pairs[(pairs.split == "held_out") | ((attribute.split == "train") & suits)]
    both = list(zip(rows.first_subject, rows.second_subject, strict=True))
    return pd.DataFrame(
        {
            "forward": [_choice(attribute, stem, first, second) for first, second in both],
            "backward": [_choice(attribute, stem, second, first) for first, second in both],
        },
        index=rows.index,
    )


def _choice(attribute: BankAttribute, stem: Stem, first: str, second: str) -> Choice:
    """A stem about two subjects; equal choices have equal keys and are asked once."""
    words = {"first": named(first), "second": named(second), "bare": first}
    words["First"] = words["first"][:1].upper() + words["first"][1:]
    text = stem.text.format(**words)
    question = attribute.question.format(**words) if stem.compares else ""
    key = digest([text, stem.more, stem.less, question])[:16]
    return Choice(key, text, tuple(stem.more), tuple(stem.less), question)


def _verdicts(pairs: pd.DataFrame, choices: list[pd.DataFrame], odds: dict[str, Odds]) -> pd.DataFrame:
    """The verdicts of one attribute, from the choices of each of its stems, for the pairs that any stem asks about."""
    values, reasons = pd.DataFrame(index=pairs.index), pd.Series("", index=pairs.index)
    for stem, table in enumerate(choices):
        answers = table.map(lambda choice: odds[choice.key])
        numbers = answers.map(lambda answer: np.nan if answer.failed else answer.value)
        failures = answers.map(lambda answer: answer.reason if answer.failed else "")
        failure = failures.forward.where(failures.forward != "", failures.backward)
        reasons = reasons.where(reasons != "", failure.reindex(reasons.index, fill_value=""))
        value = ((numbers.forward - numbers.backward) / 2).astype(float)
        for kind in KINDS:
            part = value[pairs.kind[table.index] == kind]
            values.loc[part.index, stem] = part / max(float((part**2).mean() ** 0.5), 1e-6)
    rows = sorted(set().union(*(table.index for table in choices)))
    values = values.loc[rows]
    value = values.mean(axis=1)
    probability = pd.Series(ndtr(value), index=value.index)
    confidence = (2 * probability - 1).abs()
    verdict = np.where(confidence < _CERTAIN, "neither", np.where(value > 0, "first", "second"))
    return pairs.loc[rows].assign(
        value=value,
        probability=probability,
        confidence=confidence,
        verdict=np.where(value.isna(), "none", verdict),
        stems=values.notna().sum(axis=1),
        reason=reasons,
    )
