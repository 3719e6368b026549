"""Attribute banks are files: what is asked about pairs of things, in which words, and what is never trained on.

Each attribute has `stems`, texts for the language model to continue, each with the words that may come next for more
and for less of it. A stem with {second} compares two things and is asked in both orders; one without is asked of each
thing alone. `question` is for servers that tell no probabilities. `train` and `held_out` are paraphrase pairs for the
text tower: the former are trained on, the latter only ever evaluated. An attribute whose `split` is held_out is asked
about held-out images and evaluated, but no text of it is trained on. `things` are nouns beyond the images' own that
are compared too: 'imagenet' (open_clip's 1000 class names) or a list.
"""

from dataclasses import dataclass
from pathlib import Path

import yaml

from pcclip.errors import PcclipError
from pcclip.models.torchvision_ops import declare_missing
from pcclip.params import resolve
from pcclip.stage import digest

_KEYS = {"split", "stems", "question", "train", "held_out"}


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
    shipped = Path(__file__).parent / f"{name}.yaml"
    path = shipped if shipped.is_file() else resolve(name)
    if not path.is_file():
        known = ", ".join(sorted(p.stem for p in Path(__file__).parent.glob("*.yaml")))
        raise PcclipError(f"attribute bank {name!r}: no such file; shipped banks: {known}")
    try:
        values = yaml.safe_load(path.read_text(encoding="utf8"))
        subject = values.get("subject", "concept")
        attributes = [_attribute(key, entry) for key, entry in values["attributes"].items()]
        if subject not in ("concept", "caption"):
            raise ValueError(f"subject {subject!r} is neither concept nor caption")
        if not any(a.split == "train" for a in attributes):
            raise ValueError("no attribute has split: train")
        things = _things(values.get("things") or [])
    except (KeyError, TypeError, AttributeError, IndexError, ValueError, yaml.YAMLError) as error:
        raise PcclipError(f"{path}: not an attribute bank ({' '.join(str(error).split())}); "
                          "see pcclip/comparisons/attributes/everyday.yaml") from None
    return Bank(path.stem, digest(values)[:16], subject, things, attributes)


def _things(named: str | list) -> list[str]:
    """The bank's extra nouns, each once, in lower case."""
    if named == "imagenet":
        declare_missing()
        from open_clip import IMAGENET_CLASSNAMES

        named = IMAGENET_CLASSNAMES
    if isinstance(named, str):
        raise ValueError(f"things: {named!r} is neither imagenet nor a list of nouns")
    return sorted({str(name).lower() for name in named})


def _attribute(name: str, entry: dict) -> BankAttribute:
    if set(entry) != _KEYS:
        raise ValueError(f"{name}: needs exactly the keys {', '.join(sorted(_KEYS))}")
    if entry["split"] not in ("train", "held_out"):
        raise ValueError(f"{name}: split is train or held_out")
    stems = [Stem(" ".join(s["text"].split()), tuple(s["more"]), tuple(s["less"])) for s in entry["stems"]]
    for text in [*(stem.text for stem in stems), entry["question"]]:
        text.format(first="", second="", First="", bare="")
    if not any(stem.compares for stem in stems) or "{second}" not in entry["question"]:
        raise ValueError(f"{name}: a stem and the question must compare {{first}} with {{second}}")
    pairs = {key: [(str(up), str(down)) for up, down in entry[key]] for key in ("train", "held_out")}
    if not pairs["train"] or set(pairs["train"]) & set(pairs["held_out"]):
        raise ValueError(f"{name}: needs paraphrases to train on, none of them also held out")
    return BankAttribute(name, entry["split"], stems, entry["question"], pairs["train"], pairs["held_out"])
