"""What the objectives see: texts with their tokens, and the rows of image vectors each is to lie along."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from pcclip.comparisons import generate, rewrites, verdicts
from pcclip.comparisons.attributes import Bank, imagenet_names, load_bank
from pcclip.comparisons.sentences import from_captions
from pcclip.data import ImageSet
from pcclip.embed import Vectors
from pcclip.errors import PcclipError
from pcclip.models.encoder import DualEncoder
from pcclip.params import Config
from pcclip.progress import say


@dataclass(frozen=True)
class Examples:
    """Texts and the images they are about: two of them for a difference, one for a plain caption (second is None)."""

    texts: list[str]
    tokens: list[list[int]]
    first: np.ndarray
    second: np.ndarray | None = None
    twins: list[str] | None = None  # each text with the roles of the images exchanged
    twin_tokens: list[list[int]] | None = None

    def __len__(self) -> int:
        return len(self.texts)

    def targets(self, matrix: Float[Tensor, "n d"], rows: np.ndarray) -> Float[Tensor, "b d"]:
        """What the texts of `rows` are to lie along, not normalised: u1 - u2, or u for plain captions."""
        first = matrix[torch.as_tensor(self.first[rows], device=matrix.device)]
        if self.second is None:
            return first
        return first - matrix[torch.as_tensor(self.second[rows], device=matrix.device)]


@dataclass(frozen=True)
class AttributeExamples:
    """Verdicts as (m,) rows of `matrix`, attribute numbers and probabilities, and the texts that ask for them."""

    matrix: Float[Tensor, "n d"]  # image vectors, and below them the text vectors of plain nouns
    first: np.ndarray
    second: np.ndarray
    attribute: np.ndarray  # index into more and less
    target: np.ndarray  # p, float32: how probable it is that the first has more
    more: list[list[list[int]]]  # per attribute, per paraphrase: tokens
    less: list[list[list[int]]]

    def __len__(self) -> int:
        return len(self.first)

    def differences(self, rows: np.ndarray) -> Float[Tensor, "m d"]:
        """u1 - u2 of some of the verdicts, not normalised."""
        first, second = (torch.as_tensor(side[rows], device=self.matrix.device) for side in (self.first, self.second))
        return self.matrix[first] - self.matrix[second]


def of_comparisons(
    config: Config, comparisons: pd.DataFrame, split: str, vectors: Vectors, model: DualEncoder
) -> Examples:
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
    keep = np.linalg.norm(vectors.matrix[first] - vectors.matrix[second], axis=1) > 1e-6
    if keep.sum() < asked:
        say(f"{asked - keep.sum()} {split} comparisons left out: no vector for an image, or equal ones")
    if config.finetune.swap:
        has_twin = np.array([bool(twin) for twin in twins], dtype=bool)
        if not has_twin[keep].all():
            say(f"{(keep & ~has_twin).sum()} {split} comparisons left out: finetune.swap needs two sides to exchange")
        keep &= has_twin
    rows = np.flatnonzero(keep)
    texts, twins = [texts[i] for i in rows], [twins[i] for i in rows]
    return Examples(texts, model.tokens(texts), first[rows], second[rows], twins, model.tokens(twins))


def of_captions(config: Config, images: ImageSet, split: str, vectors: Vectors, model: DualEncoder) -> Examples:
    """Plain captions (all of every image), or the training captions written anew, of images that have a vector.

    Raises PcclipError when rewrites are asked for and 01 has none.
    """
    wanted = images.train if split == "train" else images.held_out
    rewritten = config.finetune.captions == "rewrites" and split == "train"
    table = rewrites.load(config) if rewritten else images.captions
    table = table[table["id"].isin(set(wanted["id"])) & vectors.has(table["id"])]
    texts = list(table.caption)
    return Examples(texts, model.tokens(texts), vectors.rows(table["id"]))


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


def of_verdicts(config: Config, vectors: Vectors, model: DualEncoder) -> AttributeExamples:
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
    matrix = np.concatenate([vectors.matrix, model.encode_texts(photos)]) if things else vectors.matrix
    row = {thing: len(vectors.matrix) + k for k, thing in enumerate(things)}
    table = pd.concat([images, nouns])
    first, second = (np.concatenate([vectors.rows(images[side]), nouns[side].map(row).to_numpy(dtype=np.int64)])
                     for side in ("first", "second"))
    keep = np.linalg.norm(matrix[first] - matrix[second], axis=1) > 1e-6
    if not keep.any():
        raise PcclipError("finetune.attribute_weight: 01 has no verdict on training pairs; "
                          "raise generate.attribute_pairs or thing_pairs")
    return AttributeExamples(
        torch.from_numpy(matrix).to(model.device), first[keep], second[keep],
        table.attribute.map(names.index).to_numpy(dtype=np.int64)[keep],
        table.probability.to_numpy(dtype=np.float32)[keep],
        more=[[model.tokens([up])[0] for up, _ in bank[name].paraphrases] for name in names],
        less=[[model.tokens([down])[0] for _, down in bank[name].paraphrases] for name in names])
