"""Other texts for the training captions: rewrites in other words, and hard negatives, which are false of their image.

A language model writes rewrites, for the paper's rewritten-caption baseline. Negatives are made by rule, after NegCLIP
(arXiv:2210.01936): two nouns or two adjectives change places, or a relation becomes its opposite ("behind" for "in front
of"). An exchange that leaves the caption true ("a cat and a dog", "a dog next to a cat") is not
made. NegCLIP itself finds the words with spaCy, exchanges verbs too, and fills in words with a language model.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, groupby
from typing import Any

import pandas as pd

from pcclip.benchmarks.compositionality.order import TOKEN
from pcclip.comparisons import filters
from pcclip.comparisons.llm import Backend, Question, Reply, Template
from pcclip.comparisons.prompts import Prompt, load_prompt
from pcclip.config import COMPARISONS, Config
from pcclip.data.concepts import singular
from pcclip.data.image_set import ImageSet
from pcclip.data.parts_of_speech import parts_of_speech
from pcclip.errors import PcclipError
from pcclip.runs.files import digest, read_parquet
from pcclip.runs.log import AnswerLog
from pcclip.runs.progress import say
from pcclip.runs.stage import finished
from pcclip.stats.random_streams import python_stream

TABLE = "rewrites.parquet"
NEGATIVES_FORMAT = 1  # raise it when the rules give other negatives
NOTHING = "nothing to exchange"
_SHORTEST, _LONGEST = 3, 60  # words of a written caption
_DETERMINERS = frozenset("a an the his her its their another some two three".split())
_SYMMETRIC = frozenset(
    ["and", "or", ",", "&", "with", "near", "beside", "alongside", "next to", "along with", "close to", "together with"]
)  # "a cat X a dog" means "a dog X a cat"
_OPPOSITES = [
    ("in front of", "behind"),
    ("on top of", "underneath"),
    ("to the left of", "to the right of"),
    ("left", "right"),
    ("above", "below"),
    ("over", "under"),
    ("inside", "outside"),
    ("into", "out of"),
    ("onto", "off"),
    ("before", "after"),
    ("up", "down"),
    ("upstairs", "downstairs"),
    ("uphill", "downhill"),
    ("indoors", "outdoors"),
    ("toward", "away from"),
    ("towards", "away from"),
    ("beneath", "on top of"),
]
_OPPOSITE = {word: opposite for pair in _OPPOSITES for word, opposite in (pair, pair[::-1])} | {
    "behind": "in front of",
    "on top of": "underneath",
    "away from": "toward",
}
_UNMOVED = frozenset(
    "group bunch couple pair lot piece front top bottom side back middle edge end kind type number "
    "set photo picture image view".split()
)  # nouns that leave no sentence when they are exchanged
_RELATION = re.compile(r"\b(" + "|".join(sorted(_OPPOSITE, key=len, reverse=True)) + r")\b", re.IGNORECASE)


def single_text_prompt(name: str) -> Prompt:
    """A prompt file whose question has {first} alone. Raises PcclipError."""
    return load_prompt(name, slots=("first",))


def write_rewrites(config: Config, images: ImageSet, backend_for: Callable[[Prompt], Backend]) -> pd.DataFrame:
    """Have the language model write every training caption in other words.

    Returns:
        Columns id, original, raw, finish_reason, caption (the cleaned reply) and verdict ('kept', or why not).

    Raises:
        PcclipError: fewer than generate.min_yield are kept, or the backend is the template.
    """
    prompt, settings = single_text_prompt(config.generate.rewrites or ""), config.generate
    backend = backend_for(prompt)
    if backend.identity == Template.identity:
        raise PcclipError(
            "generate.backend = template writes no rewrites; name a language model's backend, "
            "or leave generate.rewrites out"
        )
    table = images.captions[images.captions["id"].isin(set(images.train["id"]))].reset_index(drop=True)
    table = table.rename(columns={"caption": "original"})
    questions = [
        Question(digest(["rewrite", config.seed, row.id, row.original])[:16], row.original, "")
        for row in table.itertuples()
    ]
    sampling = settings.model_dump(include={"temperature", "top_p", "max_tokens"})
    path = config.journals / f"rewrites-{digest([prompt.hash, backend.identity, sampling])[:12]}.jsonl"
    log = AnswerLog(path, Reply, "rewrites")

    def judged(part: Sequence[Question], answers: Mapping[str, Reply]) -> pd.DataFrame:
        replies = [answers[question.key] for question in part]
        columns = {"raw": [r.text for r in replies], "finish_reason": [r.finish_reason for r in replies]}
        written = table[: len(part)].assign(**columns, caption=[filters.clean(r.text) for r in replies])
        return written.assign(verdict=[_verdict(row) for row in written.itertuples()])

    first, rest = questions[: filters.FIRST], questions[filters.FIRST :]
    answers = log.answer_all(first, backend.answers, config)
    filters.check_first(judged(first, answers), settings.min_yield, "rewrites")
    table = judged(questions, answers | log.answer_all(rest, backend.answers, config))
    filters.check_yield(table, settings.min_yield, "rewrites")
    return table


def load_rewrites(config: Config) -> pd.DataFrame:
    """Columns id and caption of the rewrites that stage 01 kept. Raises PcclipError when 01 has none by this prompt."""
    if config.generate.rewrites is None:
        raise PcclipError("finetune.captions = rewrites needs generate.rewrites, a prompt file for 01 to write them")
    folder = config.source_folder / COMPARISONS
    finished(folder, rewrites=single_text_prompt(config.generate.rewrites).hash)
    table = read_parquet(folder / TABLE).to_pandas()
    return table.loc[table.verdict == "kept", ["id", "caption"]].reset_index(drop=True)


def _verdict(row: Any) -> str:
    """'kept', or why a rewrite is not."""
    if row.finish_reason != "stop":
        return "error" if row.finish_reason.startswith("error") else "unfinished"
    if not _SHORTEST <= len(row.caption.split()) <= _LONGEST:
        return "length"
    return "copied" if row.caption.strip(" .").lower() == row.original.strip(" .").lower() else "kept"


# Negatives by rule


def negatives_of(config: Config, images: ImageSet, ids: Iterable[str], captions: Iterable[str]) -> list[str]:
    """The negative of each training caption, '' for none; all '' with finetune.negatives: none.

    `ids` are the images of the captions. A negative is no caption of its image.
    """
    pairs = list(zip(ids, captions, strict=True))
    if config.finetune.negatives == "none":
        return [""] * len(pairs)
    by_image = images.captions.caption.map(plain_words).groupby(images.captions["id"]).agg(set)
    texts = [by_rule(caption, by_image[image], f"{config.seed}\0{image}")[0] for image, caption in pairs]
    say(f"negatives: {sum(map(bool, texts)):,} of {len(texts):,} captions have one")
    return texts


def plain_words(text: str) -> str:
    """The words of a text in lower case; two captions with equal words count as the same caption."""
    return " ".join(re.findall(r"\w+", text.lower()))


@dataclass(frozen=True)
class _Span:
    """A word or a compound noun ("tennis racket") of a caption, by its first and last token and its characters."""

    first: int
    last: int
    start: int
    end: int


def by_rule(caption: str, true_captions: set[str], seed: str) -> tuple[str, str]:
    """One negative of a caption and its kind of exchange, or ('', NOTHING).

    Every kind that is possible is equally likely.

    Args:
        caption: a plain English caption.
        true_captions: all captions of the image, each as its `plain_words`; a negative never equals one.
        seed: decides the draw, together with the caption.
    """
    kinds: dict[str, list[str]] = {}
    for how, text in exchanges(caption):
        if plain_words(text) not in true_captions and plain_words(text) != plain_words(caption):
            kinds.setdefault(how, []).append(text)
    if not kinds:
        return "", NOTHING
    draw = python_stream("exchanged words", digest([seed, caption]))
    how = draw.choice(sorted(kinds))
    return draw.choice(kinds[how]), how


def exchanges(caption: str) -> Iterator[tuple[str, str]]:
    """Every possible exchange in a caption: its kind ('nouns', 'adjectives' or 'relation') and the changed text."""
    matches, relations = list(TOKEN.finditer(caption)), list(_RELATION.finditer(caption))
    tokens = [match[0].lower() for match in matches]
    parts = [
        "other" if token in _UNMOVED or any(r.start() <= match.start() < r.end() for r in relations) else part
        for token, match, part in zip(tokens, matches, parts_of_speech(tokens), strict=True)
    ]
    for first, last in _runs(parts, "adjective"):
        # "a red square left of ...": the last adjective after a determiner stands for a noun
        if first and tokens[first - 1] in _DETERMINERS and "noun" not in parts[last + 1 : last + 2]:
            parts[last] = "noun"
    nouns = [_Span(a, b, matches[a].start(), matches[b].end()) for a, b in _runs(parts, "noun")]
    for left, right in combinations(nouns, 2):
        same_number = _plural(tokens[left.last]) == _plural(tokens[right.last])
        if same_number and not _symmetric(tokens, parts, left, right):
            yield "nouns", _exchanged(caption, left, right)
    adjectives = [k for k, part in enumerate(parts) if part == "adjective"]
    for left, right in combinations([_Span(k, k, *matches[k].span()) for k in adjectives], 2):
        if "noun" in parts[left.last : right.first]:  # "a big red dog" and "a red big dog" are the same
            yield "adjectives", _exchanged(caption, left, right)
    for match in relations:
        opposite = _OPPOSITE[match[0].lower()]
        opposite = opposite.capitalize() if match[0][0].isupper() else opposite
        yield "relation", f"{caption[: match.start()]}{opposite}{caption[match.end() :]}"


def _runs(parts: Sequence[str], part: str) -> list[tuple[int, int]]:
    """First and last index of every run of neighbouring tokens with this part of speech."""
    runs = [list(run) for same, run in groupby(range(len(parts)), key=lambda k: parts[k] == part) if same]
    return [(run[0], run[-1]) for run in runs]


def _plural(noun: str) -> bool:
    return noun in ("people", "men", "women", "children") or singular(noun) != noun


def _symmetric(tokens: Sequence[str], parts: Sequence[str], left: _Span, right: _Span) -> bool:
    """Whether only a symmetric word stands between two nouns, and no adjective before the first tells them apart."""
    described = left.first and parts[left.first - 1] == "adjective"
    between = [token for token in tokens[left.last + 1 : right.first] if token not in _DETERMINERS]
    return not described and " ".join(between) in _SYMMETRIC


def _exchanged(text: str, left: _Span, right: _Span) -> str:
    first, second = text[left.start : left.end], text[right.start : right.end]
    if not left.first and first[:1].isupper() and first[1:].islower():  # the sentence keeps its capital letter
        first, second = first.lower(), second[:1].upper() + second[1:]
    before = _with_article(text[: left.start], second)
    between = _with_article(text[left.end : right.start], first)
    return f"{before}{second}{between}{first}{text[right.end :]}"


def _with_article(before: str, word: str) -> str:
    """`before`, with a final "a" or "an" made to fit `word`: the article must not give the exchange away."""
    article = "an" if word[:1].lower() in "aeiou" else "a"
    return re.sub(r"\b([Aa])n?(\s+)$", lambda match: match[1] + article[1:] + match[2], before)
