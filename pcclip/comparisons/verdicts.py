"""Which of two things is larger, faster, ...: asked of the language model, for pairs of images and of plain nouns.

The odds of a stem are log P(more) - log P(less) of the word that follows it. A stem that compares two things is asked
in both orders, since the first of two gets the better of it whatever they are; a stem about one thing is asked of each
of the two. Either way a pair's value is half the difference of the two odds, in standard deviations (about zero: which
of two comes first means nothing) over the pairs of its kind, averaged over the stems. A step beyond the paper, whose
sentences leave attributes unlearned.

Nouns beyond the images' own need no photograph: f("a photo of a fox") - f("a photo of a horse") by the base model
stands in for the difference of two photographs. Nouns with the head word of a held-out concept are never asked about.
"""

import re
from collections.abc import Callable, Iterable

import numpy as np
import pandas as pd
from scipy.special import ndtr

from pcclip.comparisons.attributes import Bank, BankAttribute, Stem, load_bank, with_article
from pcclip.comparisons.llm import Asker, Backend, Choice, Odds
from pcclip.comparisons.pairs import choose_pairs
from pcclip.config import COMPARISONS, Config
from pcclip.data.concepts import singular, words_of
from pcclip.data.image_set import ImageSet
from pcclip.errors import PcclipError
from pcclip.runs.files import digest, read_parquet
from pcclip.runs.log import AnswerLog
from pcclip.runs.stage import finished

TABLE = "verdicts.parquet"
KINDS = ("image", "thing")
_CERTAIN = 0.5  # a verdict with less confidence is 'neither'


def judge(config: Config, images: ImageSet, start: Callable[[], Backend], identity: str) -> pd.DataFrame:
    """Ask about every attribute of the bank; `start` gives the backend when something is left to ask.

    Returns:
        One row for each attribute and pair: attribute, kind ('image' or 'thing'), split, first, second (ids, or the
        nouns), first_subject, second_subject, value (standard deviations, > 0 when the first has more), probability
        (that it has), confidence (|2p - 1|), verdict ('first', 'second', 'neither', or 'none' without an answer),
        stems (how many were answered), reason (of the first that was not).

    Raises:
        PcclipError: more than half of the pairs got no answer.
    """
    bank = load_bank(config.generate.attributes)
    table = draw_pairs(config, images, bank)
    asked = {(a.name, stem): _choices(a, stem, table) for a in bank.attributes for stem in a.stems}
    asked = {key: both[_wanted(bank[key[0]], key[1], table)] for key, both in asked.items()}
    journal = AnswerLog(config.journals / f"verdicts-{digest(identity)[:12]}.jsonl", Odds, "verdicts")
    questions = [choice for both in asked.values() for column in both for choice in both[column]]
    odds = journal.answer_all(questions, Asker(start, "choose"), config)
    found = pd.concat([_weighed(attribute, table, asked, odds) for attribute in bank.attributes], ignore_index=True)
    failed = found.value.isna()
    if failed.mean() > 0.5:
        raise PcclipError(
            f"verdicts: {failed.sum()} of {len(found)} pairs got no answer, mostly with "
            f"{found.reason[failed].value_counts().index[0]!r}; check the model and run again"
        )
    return found


def load(config: Config) -> pd.DataFrame:
    """The verdicts that 01 stored. Raises PcclipError when there are none, or they are of another bank."""
    folder = config.source_folder / COMPARISONS
    finished(folder, attributes=load_bank(config.generate.attributes).hash)
    return read_parquet(folder / TABLE).to_pandas()


def draw_pairs(config: Config, images: ImageSet, bank: Bank) -> pd.DataFrame:
    """Pairs to judge: kind, split, first, second, first_subject, second_subject.

    No pair crosses a split or a kind, nor a label where like is compared with like and the set has labels.
    """
    settings, chosen = config.generate, []
    nouns = pd.DataFrame({"id": spare(bank.things, images)}).assign(subject=lambda t: t["id"])
    for kind, split, table, count in (
        ("image", "train", images.train.assign(subject=images.train[bank.subject]), settings.attribute_pairs),
        (
            "image",
            "held_out",
            images.held_out.assign(subject=images.held_out[bank.subject]),
            settings.held_out_attribute_pairs,
        ),
        ("thing", "train", nouns, settings.thing_pairs),
    ):
        alike = table.groupby(_alike(table, settings.attributes_within))
        groups = [group for _, group in alike if group.subject.nunique() > 1]
        for group in groups if count else []:
            share = -(-count * len(group) // sum(map(len, groups)))
            pairs = choose_pairs(group.subject, share, "balanced", False, config.seed)
            one, two = (group.iloc[pairs[:, k]].reset_index(drop=True) for k in (0, 1))
            chosen.append(
                pd.DataFrame(
                    {
                        "kind": kind,
                        "split": split,
                        "first": one["id"],
                        "second": two["id"],
                        "first_subject": one.subject,
                        "second_subject": two.subject,
                    }
                )
            )
    if not chosen:
        raise PcclipError("verdicts: no two subjects to compare; raise generate.attribute_pairs or thing_pairs")
    return pd.concat(chosen, ignore_index=True)


def _alike(table: pd.DataFrame, within: str) -> pd.Series:
    """The group of each row within which it is compared: its label, or one group where there are none."""
    labels = table.label if within == "label" and "label" in table else pd.Series("", index=table.index)
    return labels.astype(object).where(labels.notna(), "").astype(str)


def spare(nouns: Iterable[str], images: ImageSet) -> list[str]:
    """The nouns without those that have the head word of a held-out concept in them."""
    held_out = {word for concept in images.held_out.concept for word in _parts(concept)[-1:]}
    return [noun for noun in nouns if not held_out & set(_parts(noun))]


def named(subject: str) -> str:
    """A subject fit for the middle of a sentence: 'fox' -> 'a fox', 'A red fox.' -> 'a red fox'."""
    subject = subject.strip().rstrip(".!? ")
    head = subject.split(" ", 1)[0].lower()
    if head in ("a", "an", "the", "some", "two", "this", "our"):
        return subject[:1].lower() + subject[1:]
    return with_article(subject)


def summary(table: pd.DataFrame, bank: Bank) -> pd.DataFrame:
    """Per attribute: how many pairs of images and of things, and how often either verdict; for the notebook."""
    rows = []
    for attribute in bank.attributes:
        part = table[table.attribute == attribute.name]
        rows.append(
            {
                "attribute": attribute.name,
                "split": attribute.split,
                "stems": len(attribute.stems),
                **{f"{kind} pairs": int((part.kind == kind).sum()) for kind in KINDS},
                **{v: int((part.verdict == v).sum()) for v in ("first", "second", "neither", "none")},
            }
        )
    return pd.DataFrame(rows)


def surest(table: pd.DataFrame, n: int) -> pd.DataFrame:
    """The n most confident verdicts of each attribute about images, in words."""
    told = table[table.value.notna() & (table.kind == "image")].sort_values("confidence", ascending=False)
    best = (
        told.groupby("attribute", sort=False)
        .head(n)
        .sort_values(["attribute", "confidence"], ascending=[True, False], ignore_index=True)
    )
    return best[["attribute", "first_subject", "second_subject", "verdict", "confidence"]]


def _parts(noun: str) -> list[str]:
    """Its words in the singular, those behind a hyphen or in parentheses too."""
    return [singular(word) for word in words_of(re.sub("[-()]", " ", noun))]


def _wanted(attribute: BankAttribute, stem: Stem, table: pd.DataFrame) -> pd.Series:
    """Which pairs a stem is asked about: a held-out attribute only held-out ones, and nouns never in two orders."""
    suits = (table.kind == "image") | (not stem.compares)
    return (table.split == "held_out") | ((attribute.split == "train") & suits)


def _choices(attribute: BankAttribute, stem: Stem, table: pd.DataFrame) -> pd.DataFrame:
    """The two questions of each pair, columns one and two; equal questions have equal keys and are asked once."""
    made = {}

    def choice(first: str, second: str) -> Choice:
        key = (first, second if stem.compares else "")
        if key not in made:
            words = {"first": named(first), "second": named(second), "bare": first}
            words["First"] = words["first"][:1].upper() + words["first"][1:]
            text = stem.text.format(**words)
            question = attribute.question.format(**words) if stem.compares else ""
            asked = digest([text, stem.more, stem.less, question])[:16]
            made[key] = Choice(asked, text, stem.more, stem.less, question)
        return made[key]

    pairs = list(zip(table.first_subject, table.second_subject, strict=True))
    return pd.DataFrame(
        {"one": [choice(a, b) for a, b in pairs], "two": [choice(b, a) for a, b in pairs]}, index=table.index
    )


def _weighed(attribute: BankAttribute, table: pd.DataFrame, asked: dict, odds: dict[str, Odds]) -> pd.DataFrame:
    """All stems of one attribute put together, for the pairs that at least one of them was asked about."""
    values, reasons = pd.DataFrame(index=table.index), pd.Series("", index=table.index)
    for k, stem in enumerate(attribute.stems):
        both = asked[attribute.name, stem]
        told = [[odds[choice.key] for choice in row] for row in both.itertuples(index=False)]
        value = pd.Series(
            [np.nan if None in (a.value, b.value) else (a.value - b.value) / 2 for a, b in told],
            index=both.index,
            dtype=float,
        )
        for kind in KINDS:
            part = value[table.kind[both.index] == kind]
            values.loc[part.index, k] = part / max(float((part**2).mean() ** 0.5), 1e-6)  # NaN passes max() by
        silent = value.index[value.isna() & (reasons[value.index] == "")]
        reasons[silent] = [next(o.reason for o in told[both.index.get_loc(i)] if o.value is None) for i in silent]
    values = values[
        pd.concat([asked[attribute.name, s].one.reindex(table.index).notna() for s in attribute.stems], axis=1).any(
            axis=1
        )
    ]
    value = values.mean(axis=1)
    probability = pd.Series(ndtr(value), index=value.index)
    confidence = (2 * probability - 1).abs()
    verdict = np.where(confidence < _CERTAIN, "neither", np.where(value > 0, "first", "second"))
    return table.loc[value.index].assign(
        attribute=attribute.name,
        value=value,
        probability=probability,
        confidence=confidence,
        verdict=np.where(value.isna(), "none", verdict),
        stems=values.notna().sum(axis=1),
        reason=reasons,
    )
