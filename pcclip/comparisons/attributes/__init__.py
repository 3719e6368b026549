"""Attribute banks are files: what is asked about pairs of things, in which words, and what is never trained on.

Each attribute has `stems`, texts for the language model to continue, each with the words that may come next for more
and for less of it. A stem with {second} compares two things and is asked in both orders; one without is asked of each
thing alone. {first} is 'a fox', {First} 'A fox' and {bare} 'fox'. `question` is for servers that tell no
probabilities. `train` and `held_out` are paraphrase pairs for the text tower: the former are trained on, the latter
only ever evaluated. A paraphrase that is one text with {more} and {less} (or {a_more} and {a_less}: 'a big', 'an
enormous') is a pair for every two of the attribute's `words`. An attribute whose `split` is held_out is asked about
held-out images and evaluated, but no text of it is trained on. `things` are nouns beyond the images' own that are
compared too: 'imagenet' (open_clip's 1000 class names), 'imagenet animals' (the animals among them, with one dog for
their 118 breeds, which would else be in half of the pairs) or a list.
"""

from dataclasses import dataclass
from pathlib import Path

import yaml

from pcclip.comparisons.shipped import find
from pcclip.encoders.imagenet_classes import imagenet_names
from pcclip.errors import PcclipError
from pcclip.runs.files import digest

_KEYS, _WORDS = {"split", "stems", "question", "train", "held_out"}, {"words"}
_IMAGENET = ("imagenet", "imagenet animals")
_ANIMALS, _DOGS = 398, slice(151, 269)  # of its class names: the animals come first
_FIRST = ("{first}", "{First}", "{bare}")  # the first thing as 'a fox', 'A fox' and 'fox'


@dataclass(frozen=True)
class Stem:
    """A text to be continued, and the words that say more or less of the attribute."""

    text: str
    more: tuple[str, ...]
    less: tuple[str, ...]

    @property
    def compares(self) -> bool:
        return "{second}" in self.text


@dataclass(frozen=True)
class BankAttribute:
    name: str
    split: str  # 'train' or 'held_out'
    stems: list[Stem]
    question: str
    paraphrases: list[tuple[str, str]]  # (the first has more, the first has less)
    held_out: list[tuple[str, str]]


@dataclass(frozen=True)
class Bank:
    """One bank file. `hash` names its content; `subject` is what things are called: 'concept' or 'caption'."""

    name: str
    hash: str
    subject: str
    things: list[str]
    attributes: list[BankAttribute]

    def __getitem__(self, name: str) -> BankAttribute:
        return next(a for a in self.attributes if a.name == name)


def load_bank(name: str) -> Bank:
    """Load a shipped bank by name, or one of the user's by path. Raises PcclipError."""
    path = find(name, Path(__file__).parent, "attribute bank")
    try:
        return _bank(path.stem, yaml.safe_load(path.read_text(encoding="utf8")))
    except (ValueError, yaml.YAMLError) as error:
        raise PcclipError(
            f"{path}: not an attribute bank ({' '.join(str(error).split())}); "
            "see pcclip/comparisons/attributes/everyday.yaml"
        ) from None


def _bank(name: str, values) -> Bank:
    """Check everything, and that no text which is only evaluated is also trained on. Raises ValueError."""
    _check_keys("the file", values, {"attributes"}, {"version", "subject", "things"})
    subject = values.get("subject", "concept")
    if subject not in ("concept", "caption"):
        raise ValueError(f"subject: {subject!r} is neither concept nor caption")
    _check_keys("attributes", values["attributes"])
    attributes = [_attribute(str(key), entry) for key, entry in values["attributes"].items()]
    if not any(a.split == "train" for a in attributes):
        raise ValueError("no attribute has split: train")
    if subject == "caption" and any("{bare}" in stem.text for a in attributes for stem in a.stems):
        raise ValueError("{bare} is for subject: concept; a caption has its own article")
    trained = {text for a in attributes if a.split == "train" for pair in a.paraphrases for text in pair}
    for a in attributes:
        for pair in a.held_out if a.split == "train" else [*a.paraphrases, *a.held_out]:
            if trained & {*pair}:
                raise ValueError(f"{a.name}: held out, but also trained on: {min(trained & {*pair})!r}")
    things = _things(values["things"]) if values.get("things") else []
    return Bank(name, digest([values, things])[:16], subject, things, attributes)


def _things(named: str | list) -> list[str]:
    """The bank's extra nouns, each once, in lower case."""
    if isinstance(named, str) and named not in _IMAGENET:
        raise ValueError(f"things: {named!r} is neither {', '.join(_IMAGENET)}, nor a list of nouns")
    if isinstance(named, str):
        everything = imagenet_names()
        dogs = everything[_DOGS]
        named = everything if named == "imagenet" else ["dog", *(n for n in everything[:_ANIMALS] if n not in dogs)]
    return sorted({noun.lower() for noun in _texts("things", named)})


def _attribute(name: str, entry) -> BankAttribute:
    _check_keys(name, entry, _KEYS, _WORDS)
    if entry["split"] not in ("train", "held_out"):
        raise ValueError(f"{name}: split is train or held_out, not {entry['split']!r}")
    if not isinstance(entry["stems"], list):
        raise ValueError(f"{name}: stems: needs a list of stems")
    stems = [_stem(f"{name}: stem {k + 1}", stem) for k, stem in enumerate(entry["stems"])]
    _check_slots(f"{name}: question", entry["question"])
    if not any(stem.compares for stem in stems) or "{second}" not in entry["question"]:
        raise ValueError(f"{name}: a stem and the question must compare {{first}} with {{second}}")
    words = _pairs(f"{name}: words", entry.get("words", []), [])
    train, held_out = (_pairs(f"{name}: {key}", entry[key], words) for key in ("train", "held_out"))
    if not train:
        raise ValueError(f"{name}: train: needs a pair of texts")
    return BankAttribute(name, entry["split"], stems, entry["question"], train, held_out)


def _stem(where: str, entry) -> Stem:
    _check_keys(where, entry, {"text", "more", "less"})
    more, less = (tuple(_texts(f"{where}: {key}", entry[key])) for key in ("more", "less"))
    if both := {*more} & {*less}:
        raise ValueError(f"{where}: {min(both)!r} says both more and less")
    _check_slots(where, entry["text"])
    return Stem(" ".join(entry["text"].split()), more, less)


def _pairs(where: str, entry, words: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """Pairs of texts: the first has more, the first has less."""
    if not isinstance(entry, list):
        raise ValueError(f"{where}: needs a list of pairs of texts")
    pairs = []
    for given in entry:
        frame = isinstance(given, str) and "{" in given
        if frame and not words:
            raise ValueError(f"{where}: {given!r} has braces but the attribute has no words to fill them with")
        pairs += [_worded(where, given, *both) for both in words] if frame else [tuple(_texts(where, given))]
    for pair in pairs:
        if len({*pair}) != 2 or len(pair) != 2:
            raise ValueError(f"{where}: needs two different texts, not {list(pair)!r}")
    return list(dict.fromkeys(pairs))


def _worded(where: str, text: str, more: str, less: str) -> tuple[str, str]:
    """One text for two words, and the same with the words exchanged."""

    def filled(one: str, two: str) -> str:
        return text.format(more=one, less=two, a_more=with_article(one), a_less=with_article(two))

    try:
        return filled(more, less), filled(less, more)
    except (LookupError, ValueError, AttributeError):
        raise ValueError(f"{where}: {text!r} has braces but {{more}}, {{less}}, {{a_more}}, {{a_less}}") from None


def with_article(noun: str) -> str:
    """'fox' -> 'a fox', 'enormous' -> 'an enormous'."""
    return f"{'an' if noun[:1].lower() in 'aeiou' else 'a'} {noun}"


def _texts(where: str, entry) -> list[str]:
    if not isinstance(entry, list) or not entry or not all(isinstance(text, str) and text.strip() for text in entry):
        raise ValueError(f"{where}: needs a list of texts, not {repr(entry)[:80]} (yes, no and numbers go in quotes)")
    return entry


def _check_keys(where: str, entry, needed: set = frozenset(), allowed: set | None = None) -> None:
    """Raises ValueError unless `entry` has the needed keys and, where any are named, no other than the allowed ones."""
    if not isinstance(entry, dict) or not entry:
        raise ValueError(f"{where}: needs keys and values, not {entry!r}")
    if needed - set(entry):
        raise ValueError(f"{where}: lacks {', '.join(sorted(needed - set(entry)))}")
    if needed and (other := set(entry) - needed - (allowed or set())):
        raise ValueError(f"{where}: unknown key {', '.join(sorted(map(str, other)))}")


def _check_slots(where: str, text) -> None:
    """Raises ValueError unless `text` names the first thing and has no braces but those that are filled."""
    try:
        text.format(first="", second="", First="", bare="")
    except (LookupError, ValueError, AttributeError):
        raise ValueError(f"{where}: {text!r} is a text with no braces but {', '.join(_FIRST)}, {{second}}") from None
    if not any(slot in text for slot in _FIRST):
        raise ValueError(f"{where}: {text!r} does not name {{first}}")
