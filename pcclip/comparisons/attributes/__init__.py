"""Attribute banks: files with attributes of things, the questions about them, and the texts that are trained on.

A bank has these keys:

    subject      what a thing is called: its image's 'concept' (the default) or 'caption'
    things       nouns that are compared beside the images' own: 'imagenet' (the 1000 class names), 'imagenet animals'
                 (its animals, with 'dog' for the 118 breeds, which would else be in half of the pairs), or a list
    attributes   for each attribute:
        split      'train', or 'held_out': asked about held-out images and evaluated, its texts never trained on
        stems      texts that the language model continues, each with the words that may come next for more and for
                   less; a stem with {second} compares two things and is asked in both orders, one without is asked
                   about each thing alone
        question   the same question for servers that give no token probabilities
        train      pairs of texts that are trained on: in the first text the first thing has more, in the second less
        held_out   such pairs that are only evaluated
        words      pairs of words for more and less: a text of `train` or `held_out` with {more} and {less} (or
                   {a_more} and {a_less}: 'a big', 'an enormous') stands for one pair of texts for each
    kept         words and frames of questions about something else, which should mean what they mean to the base model:
                 in each frame two words point where they point in the first frame before training

In stems and questions {first} is 'a fox', {First} is 'A fox' and {bare} is 'fox'.
"""

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    model_validator,
)

from pcclip.comparisons.prompts import yaml_file
from pcclip.config import read_yaml
from pcclip.encoders.imagenet_classes import imagenet_names
from pcclip.errors import PcclipError
from pcclip.runs.files import digest

_ANIMALS, _DOGS = 398, slice(151, 269)  # of the ImageNet class names, which begin with the animals
_FIRST = ("{first}", "{First}", "{bare}")


def with_article(noun: str) -> str:
    """'fox' -> 'a fox', 'enormous' -> 'an enormous'."""
    return f"{'an' if noun[:1].lower() in 'aeiou' else 'a'} {noun}"


def _check_slots(text: str) -> str:
    """Raise ValueError unless the text names the first thing and has no other slots than those that are filled."""
    try:
        text.format(first="", second="", First="", bare="")
    except (LookupError, ValueError, AttributeError):
        raise ValueError(f"{text!r} is a text with no braces but {', '.join(_FIRST)}, {{second}}") from None
    if not any(slot in text for slot in _FIRST):
        raise ValueError(f"{text!r} does not name {{first}}")
    return " ".join(text.split())


def _fill_frames(entries: Any, info: Any) -> Any:
    """Replace every text with slots by one pair of texts for each two of the attribute's words.

    `info` is pydantic's ValidationInfo, whose `data` holds the fields before this one.
    """
    if not isinstance(entries, list):
        return entries
    frames = [entry for entry in entries if isinstance(entry, str) and "{" in entry]
    words = info.data.get("words") or []
    if frames and not words:
        raise ValueError(f"{frames[0]!r} has braces but the attribute has no words to fill them with")
    filled = {frame: [(_filled(frame, *pair), _filled(frame, *pair[::-1])) for pair in words] for frame in frames}
    return [pair for entry in entries for pair in (filled[entry] if entry in frames else [entry])]


def _filled(frame: str, more: str, less: str) -> str:
    try:
        return frame.format(more=more, less=less, a_more=with_article(more), a_less=with_article(less))
    except (LookupError, ValueError, AttributeError):
        raise ValueError(f"{frame!r} has braces but {{more}}, {{less}}, {{a_more}}, {{a_less}}") from None


def _distinct_pairs(pairs: list[tuple[str, str]]) -> list[tuple[str, str]]:
    for more, less in pairs:
        if more == less:
            raise ValueError(f"needs two different texts, not {more!r} twice")
    return list(dict.fromkeys(pairs))


def _nouns(things: Any) -> Any:
    """The class names that 'imagenet' and 'imagenet animals' stand for; a list stays a list."""
    if things == "imagenet":
        return imagenet_names()
    if things == "imagenet animals":
        names = imagenet_names()
        return ["dog", *(name for name in names[:_ANIMALS] if name not in names[_DOGS])]
    if isinstance(things, str):
        raise ValueError(f"{things!r} is neither imagenet, imagenet animals, nor a list of nouns")
    return things or []


Text = Annotated[str, Field(min_length=1)]
Texts = Annotated[list[Text], Field(min_length=1)]
Pairs = Annotated[list[tuple[Text, Text]], AfterValidator(_distinct_pairs)]  # (more, less)


class _Strict(BaseModel):
    """A part of a bank: it refuses keys that it does not know."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Stem(_Strict):
    """A text that the language model continues, and the words that say more or less of the attribute."""

    text: Annotated[Text, AfterValidator(_check_slots)]
    more: Texts
    less: Texts

    @property
    def compares(self) -> bool:
        return "{second}" in self.text

    @model_validator(mode="after")
    def _no_word_says_both(self) -> "Stem":
        if shared := {*self.more} & {*self.less}:
            raise ValueError(f"{min(shared)!r} says both more and less")
        return self


class BankAttribute(_Strict):
    """One attribute of a bank; `paraphrases` are the pairs of the file's key `train`."""

    name: str
    split: Literal["train", "held_out"]
    stems: list[Stem]
    question: Annotated[Text, AfterValidator(_check_slots)]
    words: Pairs = []
    paraphrases: Annotated[Pairs, BeforeValidator(_fill_frames), Field(alias="train", min_length=1)]
    held_out: Annotated[Pairs, BeforeValidator(_fill_frames)]

    @model_validator(mode="after")
    def _compares(self) -> "BankAttribute":
        if not any(stem.compares for stem in self.stems) or "{second}" not in self.question:
            raise ValueError("a stem and the question must compare {first} with {second}")
        return self


class Kept(_Strict):
    """Questions about other things than the bank's attributes: every pair of `words` in every one of `frames`."""

    words: Annotated[Pairs, Field(min_length=1)]
    frames: Texts

    @property
    def pairs(self) -> list[tuple[str, str]]:
        """The texts for more and less: the first frame with each pair of words, then the second frame, and so on."""
        return [(_filled(frame, *pair), _filled(frame, *pair[::-1])) for frame in self.frames for pair in self.words]

    @model_validator(mode="after")
    def _frames_have_two_sides(self) -> "Kept":
        _distinct_pairs(self.pairs)
        return self


def _named(attributes: Any) -> Any:
    """A file's attributes by name, each with its name among its values."""
    if not isinstance(attributes, dict):
        return attributes
    return {
        str(name): {"name": str(name), **values} if isinstance(values, dict) else values
        for name, values in attributes.items()
    }


class Bank(_Strict):
    """One bank file. `hash` identifies its content and the nouns that `things` stands for."""

    name: str
    hash: str = ""
    version: Any = None
    subject: Literal["concept", "caption"] = "concept"
    things: Annotated[
        list[Text], BeforeValidator(_nouns), AfterValidator(lambda nouns: sorted({*map(str.lower, nouns)}))
    ] = []
    kept: Kept | None = None
    by_name: Annotated[dict[str, BankAttribute], BeforeValidator(_named), Field(alias="attributes")]

    @property
    def attributes(self) -> list[BankAttribute]:
        return list(self.by_name.values())

    def __getitem__(self, name: str) -> BankAttribute:
        return self.by_name[name]

    @model_validator(mode="after")
    def _nothing_evaluated_is_trained_on(self) -> "Bank":
        trained = {text for a in self.attributes if a.split == "train" for pair in a.paraphrases for text in pair}
        if not trained:
            raise ValueError("no attribute has split: train")
        trained |= {text for pair in (self.kept.pairs if self.kept else []) for text in pair}
        if self.subject == "caption" and any("{bare}" in stem.text for a in self.attributes for stem in a.stems):
            raise ValueError("{bare} is for subject: concept; a caption has its own article")
        for a in self.attributes:
            evaluated = a.held_out if a.split == "train" else [*a.paraphrases, *a.held_out]
            if both := trained & {text for pair in evaluated for text in pair}:
                raise ValueError(f"{a.name}: held out, but also trained on: {min(both)!r}")
        return self


def load_bank(name: str) -> Bank:
    """Load a bank of the package by name, or one of the user's by path. Raises PcclipError."""
    path = yaml_file(name, Path(__file__).parent, "attribute bank")
    values = read_yaml(path)
    try:
        bank = Bank.model_validate({**values, "name": path.stem} if isinstance(values, dict) else values)
    except ValidationError as error:
        raise PcclipError(
            f"{path}: not an attribute bank ({_reason(error)}); see pcclip/comparisons/attributes/everyday.yaml"
        ) from None
    return bank.model_copy(update={"hash": digest([values, bank.things])[:16]})


def _reason(error: ValidationError) -> str:
    """The error on one line; a value that fails a check comes with its place in the file."""
    first = error.errors()[0]
    place, message = ".".join(map(str, first["loc"])), first["msg"].removeprefix("Value error, ")
    if first["type"] == "value_error":
        return f"{place}: {message}" if place else message
    quotes = " (yes, no and numbers go in quotes)" if first["type"] == "string_type" else ""
    return f"{place}: {message}, not {repr(first['input'])[:80]}{quotes}"
