"""What the objectives see: texts with their tokens, and the rows of image vectors each is to lie along."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from pcclip.comparisons import stage as generate
from pcclip.comparisons import verdicts
from pcclip.comparisons.attributes import Bank, imagenet_names, load_bank
from pcclip.comparisons.captions import load_rewrites
from pcclip.comparisons.sentences import from_captions
from pcclip.config import Config
from pcclip.data.image_set import ImageSet
from pcclip.embedding.vectors import Vectors
from pcclip.encoders.dual_encoder import Encoder
from pcclip.encoders.tokens import Tokens
from pcclip.errors import PcclipError
from pcclip.runs.progress import say


@dataclass(frozen=True)
class Examples:
    """Texts and the images they are about: two of them for a difference, one for a plain caption (second is None)."""

    texts: list[str]
    tokens: Tokens
    first: np.ndarray
    second: np.ndarray | None = None
    twin_tokens: Tokens | None = None  # of each text with the roles of the images exchanged

    def __len__(self) -> int:
        return len(self.texts)

    def targets(self, matrix: Float[Tensor, "n d"], rows: np.ndarray) -> Float[Tensor, "b d"]:
        """What the texts of `rows` are to lie along, not normalised: u1 - u2, or u for plain captions."""
        if self.second is None:
            return matrix[torch.as_tensor(self.first[rows], device=matrix.device)]
        return _differences(matrix, self.first[rows], self.second[rows])


@dataclass(frozen=True)
class AttributeExamples:
    """Verdicts as (m,) rows of image vectors with `nouns` below them, attribute numbers and probabilities, and the
    texts that ask for them."""

    nouns: Float[np.ndarray, "k d"]  # the text vectors of plain nouns
    first: np.ndarray
    second: np.ndarray
    attribute: np.ndarray  # index into paraphrases
    target: np.ndarray  # p, float32: how probable it is that the first has more
    more: Tokens  # every paraphrase of every attribute, one attribute after the other
    less: Tokens
    paraphrases: np.ndarray  # how many of them each attribute has

    def __len__(self) -> int:
        return len(self.first)

    def differences(self, matrix: Float[Tensor, "n+k d"], rows: np.ndarray) -> Float[Tensor, "m d"]:
        """u1 - u2 of some of the verdicts, not normalised."""
        return _differences(matrix, self.first[rows], self.second[rows])

    def draw(self, verdicts: int, paraphrases: int, draw: np.random.Generator) -> "Asked":
        """Some of the verdicts, each to be asked for by one of a few of its attribute's paraphrases."""
        some = draw.integers(len(self), size=min(verdicts, len(self)))
        chosen = [draw.permutation(count)[:paraphrases] for count in self.paraphrases]
        counts = np.array([len(rows) for rows in chosen])
        starts = np.cumsum(counts) - counts
        which = self.attribute[some]
        text = starts[which] + draw.integers(counts[which])
        begins = np.cumsum(self.paraphrases) - self.paraphrases
        rows = np.concatenate([begin + rows for begin, rows in zip(begins, chosen, strict=True)])
        return Asked(some, text, Tokens.joined([self.more[rows], self.less[rows]]))


@dataclass(frozen=True)
class Asked:
    """One step's verdicts: their rows, which of the texts asks for each, and the texts for more and then for less."""

    rows: np.ndarray
    text: np.ndarray
    tokens: Tokens


@dataclass(frozen=True)
class Replayed:
    """Plain texts that are held where the base model has them, of a few kinds: captions, nouns, classes."""

    tokens: Tokens
    kinds: np.ndarray  # (n,), ascending: which kind each is
    base: Float[Tensor, "n d"]  # unit vectors by the base model

    def draw(self, size: int, draw: np.random.Generator) -> np.ndarray:
        """`size` rows, each of a kind drawn evenly: fifteen class names weigh as much as a thousand nouns."""
        kinds, starts, counts = np.unique(self.kinds, return_index=True, return_counts=True)
        chosen = np.searchsorted(kinds, draw.choice(kinds, size))
        return starts[chosen] + draw.integers(counts[chosen])


def _differences(matrix: Float[Tensor, "n d"], first: np.ndarray, second: np.ndarray) -> Float[Tensor, "m d"]:
    one, two = (torch.as_tensor(side, device=matrix.device) for side in (first, second))
    return matrix[one] - matrix[two]


def of_comparisons(config: Config, comparisons: pd.DataFrame, split: str, vectors: Vectors, model: Encoder) -> Examples:
    """The kept comparisons of one split whose two images have a vector, told apart by it."""
    table = generate.kept(comparisons, split)
    asked = len(table)
    table = table[vectors.has(table["first"], table["second"])]
    if config.finetune.comparisons == "template":
        texts = [from_captions(a, b) for a, b in zip(table.first_caption, table.second_caption, strict=True)]
        twins = [from_captions(b, a) for a, b in zip(table.first_caption, table.second_caption, strict=True)]
    else:
        texts, twins = list(table.difference), list(table.swapped)
    first, second = vectors.rows(table["first"]), vectors.rows(table["second"])
    keep = _apart(vectors.matrix, first, second)
    if keep.sum() < asked:
        say(f"{asked - keep.sum()} {split} comparisons left out: no vector for an image, or equal ones")
    if config.finetune.swap:
        has_twin = np.array([bool(twin) for twin in twins], dtype=bool)
        if not has_twin[keep].all():
            say(f"{(keep & ~has_twin).sum()} {split} comparisons left out: finetune.swap needs two sides to exchange")
        keep &= has_twin
    rows = np.flatnonzero(keep)
    texts, twins = [texts[i] for i in rows], [twins[i] for i in rows]
    return Examples(texts, model.tokenised(texts), first[rows], second[rows], model.tokenised(twins))


def of_captions(config: Config, images: ImageSet, split: str, vectors: Vectors, model: Encoder) -> Examples:
    """Plain captions (all of every image), or the training captions written anew, of images that have a vector.

    Raises PcclipError when rewrites are asked for and 01 has none.
    """
    wanted = images.train if split == "train" else images.held_out
    rewritten = config.finetune.captions == "rewrites" and split == "train"
    table = load_rewrites(config) if rewritten else images.captions
    table = table[table["id"].isin(set(wanted["id"])) & vectors.has(table["id"])]
    texts = list(table.caption)
    return Examples(texts, model.tokenised(texts), vectors.rows(table["id"]))


def plain_texts(config: Config, images: ImageSet) -> list[list[str]]:
    """What replay holds where the base model has it: training captions, and nouns and classes in the zero-shot prompt.

    The nouns are the training concepts and ImageNet's class names, but none that names a held-out concept; the
    classes are the training images' labels.
    """
    captions = images.captions[images.captions["id"].isin(set(images.train["id"]))].caption
    nouns = {*images.train.concept, *verdicts.spare(imagenet_names(), images)}
    labels = {*images.train.label.dropna()}
    prompted = [[config.evaluate.zero_shot_prompt.format(name) for name in sorted(names)] for names in (nouns, labels)]
    return [kind for kind in ([*captions], *prompted) if kind]


def of_verdicts(config: Config, vectors: Vectors, model: Encoder) -> AttributeExamples:
    """The trained attributes' verdicts on training pairs, with the bank's training paraphrases.

    Nouns without a photograph stand for themselves: u is the base model's f("a photo of a fox"), and what photographs
    and texts differ by cancels in u1 - u2, since no pair mixes them.

    Raises PcclipError when 01 asked for none or got no answer.
    """
    if config.generate.attributes is None:
        raise PcclipError("finetune.attribute_weight needs generate.attributes, an attribute bank for 01 to ask about")
    bank: Bank = load_bank(config.generate.attributes)
    names = [a.name for a in bank.attributes if a.split == "train"]
    table = verdicts.load(config)
    table = table[(table.split == "train") & table.value.notna() & table.attribute.isin(names)]
    images = table[(table.kind == "image").to_numpy() & vectors.has(table["first"], table["second"])]
    nouns = table[table.kind == "thing"]
    things = sorted({*nouns["first"], *nouns["second"]})
    photos = [f"a photo of {verdicts.named(thing)}" for thing in things]
    said = model.encode_texts(photos)
    row = {thing: len(vectors.matrix) + k for k, thing in enumerate(things)}
    first, second = (
        np.concatenate([vectors.rows(images[side]), nouns[side].map(row).to_numpy(dtype=np.int64)])
        for side in ("first", "second")
    )
    keep = np.concatenate(
        [
            _apart(vectors.matrix, first[: len(images)], second[: len(images)]),
            _apart(said, *(side[len(images) :] - len(vectors.matrix) for side in (first, second))),
        ]
    )
    if not keep.any():
        raise PcclipError(
            "finetune.attribute_weight: 01 has no verdict on training pairs; "
            "raise generate.attribute_pairs or thing_pairs"
        )
    table = pd.concat([images, nouns])
    paraphrases = [pair for name in names for pair in bank[name].paraphrases]
    return AttributeExamples(
        said,
        first[keep],
        second[keep],
        table.attribute.map(names.index).to_numpy(dtype=np.int64)[keep],
        table.probability.to_numpy(dtype=np.float32)[keep],
        more=model.tokenised([up for up, _ in paraphrases]),
        less=model.tokenised([down for _, down in paraphrases]),
        paraphrases=np.array([len(bank[name].paraphrases) for name in names]),
    )


def _apart(matrix: Float[np.ndarray, "n d"], first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Whether two vectors differ, pair by pair."""
    return np.linalg.norm(matrix[first] - matrix[second], axis=1) > 1e-6
