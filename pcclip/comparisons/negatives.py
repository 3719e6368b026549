"""Hard negative captions: words of a caption exchanged so that it is false of its image (NegCLIP's recipe).

By rule: two nouns, two adjectives, or a relation word for its opposite ("behind" for "in front of"), found by the
small tagger of the order benchmarks; or written by the language model of 01 (generate.negatives). An exchange that
would leave a true caption ("a cat and a dog", "a dog next to a cat") is not made. NegCLIP (2210.01936) also exchanges
verbs, and has spaCy's tagger and a language model that fills in words.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from random import Random

import pandas as pd

from pcclip.benchmarks.compositionality.order import TOKEN
from pcclip.benchmarks.compositionality.parts_of_speech import parts_of_speech
from pcclip.comparisons import rewrites
from pcclip.comparisons.llm import Backend
from pcclip.comparisons.prompts import load_prompt
from pcclip.config import COMPARISONS, Config
from pcclip.data.concepts import singular
from pcclip.data.image_set import ImageSet
from pcclip.errors import PcclipError
from pcclip.runs.files import digest, read_parquet
from pcclip.runs.progress import say
from pcclip.runs.stage import finished

TABLE = "negatives.parquet"
FORMAT = 1  # of the rules: raise it when they give other captions
NONE = "nothing to exchange"
_SHARED = 0.5  # of a caption's words, in a negative that the language model wrote: fewer is another scene
_DETERMINERS = frozenset("a an the his her its their another some two three".split())
_EVEN_HANDED = frozenset(
    ["and", "or", ",", "&", "with", "near", "beside", "alongside", "next to", "along with", "close to", "together with"]
)  # "a cat X a dog" is "a dog X a cat"
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
_OPPOSITE = {one: other for pair in _OPPOSITES for one, other in (pair, pair[::-1])} | {
    "behind": "in front of",
    "on top of": "underneath",
    "away from": "toward",
}
_UNMOVED = frozenset(
    "group bunch couple pair lot piece front top bottom side back middle edge end kind type number "
    "set photo picture image view".split()
)  # exchanged, they leave no sentence
_RELATION = re.compile(r"\b(" + "|".join(sorted(_OPPOSITE, key=len, reverse=True)) + r")\b", re.IGNORECASE)


@dataclass(frozen=True)
class _Word:
    """A word, or nouns in a row ("tennis racket"): characters start to end, and which tokens."""

    start: int
    end: int
    first: int
    last: int


def beside(config: Config, images: ImageSet, ids: Iterable[str], captions: Iterable[str]) -> list[str]:
    """The negative of each training caption, '' where it has none, as finetune.negatives says; all '' for none.

    Raises PcclipError when the language model's are asked for and 01 has none.
    """
    wanted = list(zip(ids, captions, strict=True))
    if config.finetune.negatives == "none":
        return [""] * len(wanted)
    table = load(config, images)
    known = dict(zip(zip(table["id"], table.caption, strict=True), table.negative, strict=True))
    found = [known.get(of, "") for of in wanted]
    say(
        f"negatives: {sum(map(bool, found)):,} of {len(found):,} captions have one; the others have none to be held "
        "against"
    )
    return found


def load(config: Config, images: ImageSet) -> pd.DataFrame:
    """Columns id, caption, negative ('' where there is none) and how (what was exchanged, or why there is none).

    By rule they are made here, one for each training caption; else they are 01's. Raises PcclipError when 01 has none.
    """
    if config.finetune.negatives == "rules":
        table = _of_training(images)
        truths = _by_image(images)
        found = [by_rule(row.caption, truths[row.id], f"{config.seed}\0{row.id}") for row in table.itertuples()]
        return table.assign(negative=[text for text, _ in found], how=[how for _, how in found])
    if config.generate.negatives is None:
        raise PcclipError("finetune.negatives = llm needs generate.negatives, a prompt file for 01 to write them")
    folder = config.source_folder / COMPARISONS
    finished(folder, negatives=load_prompt(config.generate.negatives, slots=("first",)).hash)
    table = read_parquet(folder / TABLE).to_pandas()
    kept = table.verdict == "kept"
    return pd.DataFrame(
        {
            "id": table["id"],
            "caption": table.original,
            "negative": table.caption.where(kept, ""),
            "how": table.verdict.where(~kept, "llm"),
        }
    )


def write(config: Config, images: ImageSet, start: Callable[[], Backend], identity: str) -> pd.DataFrame:
    """01: have the language model write one of every training caption.

    Returns columns id, original, raw, finish_reason, caption (the negative) and verdict ('kept' or why not). Raises
    PcclipError when fewer than generate.min_yield are kept, and when the backend is the template.
    """
    return rewrites.written(
        config, images, start, identity, "negatives", config.generate.negatives, partial(_verdict, _by_image(images))
    )


def by_rule(caption: str, truths: set[str], lot: str) -> tuple[str, str]:
    """One negative and the kind of exchange, each kind that is possible being equally likely; ('', NONE) without any.

    Args:
        caption: a plain English caption.
        truths: what must not come out, each as `plain` has it: all captions of the image.
        lot: what is drawn follows from it and the caption alone.
    """
    kinds = {}
    for how, text in exchanges(caption):
        if plain(text) not in truths and plain(text) != plain(caption):
            kinds.setdefault(how, []).append(text)
    if not kinds:
        return "", NONE
    draw = Random(digest([lot, caption]))
    how = draw.choice(sorted(kinds))
    return draw.choice(kinds[how]), how


def exchanges(caption: str) -> Iterator[tuple[str, str]]:
    """Every exchange that is possible: its kind ('nouns', 'adjectives' or 'relation') and the text."""
    found, relations = list(TOKEN.finditer(caption)), list(_RELATION.finditer(caption))
    tokens = [match[0].lower() for match in found]
    kinds = [
        "other" if token in _UNMOVED or any(of.start() <= match.start() < of.end() for of in relations) else kind
        for token, match, kind in zip(tokens, found, parts_of_speech(tokens), strict=True)
    ]
    for run in _runs(kinds, "adjective"):  # "a red square left of": what stands there is the noun
        if run[0] and tokens[run[0] - 1] in _DETERMINERS and "noun" not in kinds[run[-1] + 1 : run[-1] + 2]:
            kinds[run[-1]] = "noun"
    nouns = [_Word(found[run[0]].start(), found[run[-1]].end(), run[0], run[-1]) for run in _runs(kinds, "noun")]
    for k, one in enumerate(nouns):
        for other in nouns[k + 1 :]:
            if _plural(tokens[one.last]) == _plural(tokens[other.last]) and not _even_handed(tokens, kinds, one, other):
                yield "nouns", _exchanged(caption, one, other)
    adjectives = [_Word(found[k].start(), found[k].end(), k, k) for k, kind in enumerate(kinds) if kind == "adjective"]
    for k, one in enumerate(adjectives):
        for other in adjectives[k + 1 :]:
            if "noun" in kinds[one.last : other.first]:  # "a big red dog" is a red big dog
                yield "adjectives", _exchanged(caption, one, other)
    for match in relations:
        said = _OPPOSITE[match[0].lower()]
        said = said.capitalize() if match[0][0].isupper() else said
        yield "relation", f"{caption[: match.start()]}{said}{caption[match.end() :]}"


def plain(text: str) -> str:
    """What makes two captions the same: their words."""
    return " ".join(re.findall(r"\w+", text.lower()))


def _runs(kinds: Sequence[str], kind: str) -> Iterator[list[int]]:
    run = []
    for k, found in enumerate([*kinds, ""]):
        if found == kind:
            run.append(k)
        elif run:
            yield run
            run = []


def _plural(noun: str) -> bool:
    return noun in ("people", "men", "women", "children") or singular(noun) != noun


def _even_handed(tokens: Sequence[str], kinds: Sequence[str], one: _Word, other: _Word) -> bool:
    """Whether the two stand on either side of a word that says as much the other way round, and nothing marks one."""
    between = tokens[one.last + 1 : other.first]
    marked = one.first and kinds[one.first - 1] == "adjective"
    return not marked and " ".join(word for word in between if word not in _DETERMINERS) in _EVEN_HANDED


def _exchanged(text: str, one: _Word, other: _Word) -> str:
    first, second = text[one.start : one.end], text[other.start : other.end]
    if not one.first and first[:1].isupper() and first[1:].islower():  # a sentence keeps its capital
        first, second = first.lower(), second[:1].upper() + second[1:]
    parts = [text[: one.start], second, text[one.end : other.start], first, text[other.end :]]
    return "".join([_article(parts[0], second), second, _article(parts[2], first), first, parts[4]])


def _article(before: str, word: str) -> str:
    """`before` with its last word a or an as `word` wants it: the article must not tell what was exchanged."""
    wanted = "an" if word[:1].lower() in "aeiou" else "a"
    return re.sub(r"\b([Aa])n?(\s+)$", lambda found: found[1] + wanted[1:] + found[2], before)


def _of_training(images: ImageSet) -> pd.DataFrame:
    return images.captions[images.captions["id"].isin(set(images.train["id"]))].reset_index(drop=True)


def _by_image(images: ImageSet) -> dict[str, set[str]]:
    """All captions of each image, as `plain` has them."""
    return images.captions.caption.map(plain).groupby(images.captions["id"]).agg(set).to_dict()


def _verdict(truths: dict[str, set[str]], row) -> str:
    if (fault := rewrites.fault(row)) is not None:
        return fault
    if plain(row.caption) in truths[row.id]:
        return "true of the image"
    said, meant = set(plain(row.caption).split()), plain(row.original).split()
    return "kept" if sum(word in said for word in meant) >= _SHARED * len(meant) else "another scene"
