"""What stage 03 learns from: texts as tokens with rows of image vectors, and how each step draws its batch."""

from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from pcclip.comparisons import stage as generate, verdicts
from pcclip.comparisons.attributes import imagenet_names, load_bank
from pcclip.comparisons.captions import load_rewrites
from pcclip.comparisons.sentences import from_captions
from pcclip.comparisons.structures import rewritten
from pcclip.config import Config
from pcclip.data.image_set import ImageSet
from pcclip.embedding.vectors import Vectors
from pcclip.encoders.dual_encoder import Encoder
from pcclip.encoders.tokens import Tokens
from pcclip.errors import PcclipError
from pcclip.finetuning.loop import batch_rows
from pcclip.runs.progress import say
from pcclip.stats.random_streams import stream

PARAPHRASES_IN_BATCH = 8  # of each attribute in a step, at most
UNRELATED_IN_BATCH = 6  # unrelated questions in a step, at most


@dataclass(frozen=True)
class Examples:
    """Texts and the images they are about: two images for a difference, one for a plain caption (second is None).

    Attributes:
        tokens, twin_tokens: tokens of the texts, and of the texts with the two images exchanged. With
            finetune.structures, all training texts come as written, then all in the first structure, and so on.
        first, second: rows of the run's image vectors.
    """

    texts: list[str]
    tokens: Tokens
    first: Int[np.ndarray, " n"]
    second: Int[np.ndarray, " n"] | None = None
    twin_tokens: Tokens = field(default_factory=lambda: Tokens.of([], 1))

    def __len__(self) -> int:
        return len(self.texts)

    def forms(self, rows: Int[np.ndarray, " b"], seed: int, step: int) -> Int[np.ndarray, " b"]:
        """Draw a structure for each text of `rows`; return its row in `tokens`."""
        structures = len(self.tokens) // max(1, len(self))
        if structures == 1:
            return rows
        return rows + len(self) * stream("structures of a batch", seed, step).integers(structures, size=len(rows))

    def targets(self, matrix: Float[Tensor, "m d"], rows: Int[np.ndarray, " b"]) -> Float[Tensor, "b d"]:
        """The directions the texts of `rows` should have, not normalised: u1 - u2, or u for plain captions."""
        if self.second is None:
            return matrix[torch.as_tensor(self.first[rows], device=matrix.device)]
        return _differences(matrix, self.first[rows], self.second[rows])


@dataclass(frozen=True)
class TrainingData:
    """What every training reads, gathered before a tower changes."""

    images: ImageSet
    vectors: Vectors
    held_out_pairs: Examples  # for difference accuracy, whatever the objective


@dataclass(frozen=True)
class Verdicts:
    """Attribute verdicts of 01, and every paraphrase that can ask for one.

    Attributes:
        nouns: text vectors of nouns without a photograph; they follow the run's image vectors in one matrix.
        first, second: rows of that matrix.
        attribute: the attribute of each verdict, by number.
        target: probability that the first has more of the attribute.
        more, less: paraphrases of every attribute, one attribute after the other.
        paraphrases: number of paraphrases of each attribute.
    """

    nouns: Float[np.ndarray, "k d"]
    first: Int[np.ndarray, " m"]
    second: Int[np.ndarray, " m"]
    attribute: Int[np.ndarray, " m"]
    target: Float[np.ndarray, " m"]
    more: Tokens
    less: Tokens
    paraphrases: Int[np.ndarray, " a"]

    def __len__(self) -> int:
        return len(self.first)

    def differences(self, matrix: Float[Tensor, "n d"], rows: Int[np.ndarray, " b"]) -> Float[Tensor, "b d"]:
        """u1 - u2 of the verdicts `rows`, not normalised."""
        return _differences(matrix, self.first[rows], self.second[rows])

    def draw(
        self, size: int, generator: np.random.Generator
    ) -> tuple[Int[np.ndarray, " b"], Int[np.ndarray, " b"], Tokens]:
        """Draw verdicts for one step. Each takes one of at most PARAPHRASES_IN_BATCH paraphrases drawn for its attribute.

        Args:
            size: number of verdicts, at most.

        Returns:
            The verdicts' rows, the index of each verdict's text among the texts for more, and all texts: those for
            more, then their twins for less.
        """
        rows = generator.integers(len(self), size=min(size, len(self)))
        chosen = [generator.permutation(count)[:PARAPHRASES_IN_BATCH] for count in self.paraphrases]
        counts = np.array([len(numbers) for numbers in chosen])
        starts, attributes = np.cumsum(counts) - counts, self.attribute[rows]
        texts = starts[attributes] + generator.integers(counts[attributes])
        begins = np.cumsum(self.paraphrases) - self.paraphrases
        numbers = np.concatenate([begin + numbers for begin, numbers in zip(begins, chosen, strict=True)])
        return rows, texts, Tokens.joined([self.more[numbers], self.less[numbers]])


@dataclass(frozen=True)
class ReplayedTexts:
    """Plain texts (captions and nouns) whose vectors should stay where the base model has them."""

    tokens: Tokens
    kinds: Int[np.ndarray, " n"]  # the kind of each, ascending
    base: Float[Tensor, "n d"]  # unit vectors by the base model

    def draw(self, size: int, generator: np.random.Generator) -> Int[np.ndarray, " b"]:
        """Draw `size` rows: for each a kind, all kinds equally likely, then a text of that kind."""
        kinds, starts, counts = np.unique(self.kinds, return_index=True, return_counts=True)
        chosen = np.searchsorted(kinds, generator.choice(kinds, size))
        return starts[chosen] + generator.integers(counts[chosen])


@dataclass(frozen=True)
class UnrelatedQuestions:
    """Questions about other attributes, with the base model's direction of each (`base`)."""

    more: Tokens
    less: Tokens
    base: Float[Tensor, "n d"]

    def draw(self, generator: np.random.Generator) -> tuple[Tokens, Float[Tensor, "b d"]]:
        """Some texts for more, then their twins for less, and the directions."""
        rows = generator.permutation(len(self.more))[:UNRELATED_IN_BATCH]
        return Tokens.joined([self.more[rows], self.less[rows]]), self.base[torch.from_numpy(rows).to(self.base.device)]


@dataclass(frozen=True)
class CaptionedImages:
    """Images of one split with their captions; image i has the captions starts[i] to starts[i + 1] - 1.

    Attributes:
        images: rows of the run's image vectors.
        text_numbers: a number for each caption, equal for equal texts.
    """

    images: Int[np.ndarray, " n"]
    starts: Int[np.ndarray, " starts"]
    texts: list[str]
    tokens: Tokens
    text_numbers: Int[np.ndarray, " m"]

    def __len__(self) -> int:
        return len(self.images)

    def draw(self, generator: np.random.Generator, rows: Int[np.ndarray, " b"]) -> Int[np.ndarray, " b"]:
        """One caption, by number, of each of the images `rows`."""
        return self.starts[rows] + generator.integers(np.diff(self.starts)[rows])


class Batch(NamedTuple):
    """One step of both towers.

    Attributes:
        images: rows of the run's image vectors whose pixels the step needs, ascending.
        captions: captions by number.
        caption_images: the place within `images` of each caption's image.
    """

    images: Int[np.ndarray, " b"]
    captions: Int[np.ndarray, " b"]
    caption_images: Int[np.ndarray, " b"]


def draw_batch(config: Config, train: CaptionedImages, step: int) -> Batch:
    """The batch of a step, a function of seed and step. An epoch has every image once, with a caption drawn anew."""
    rows = batch_rows(config, step, len(train))
    captions = train.draw(stream("captions of a batch", config.seed, step), rows)
    images, places = np.unique(train.images[rows], return_inverse=True)
    return Batch(images, captions, places)


def comparison_examples(
    config: Config, comparisons: pd.DataFrame, split: str, vectors: Vectors, model: Encoder
) -> Examples:
    """The kept comparisons of one split whose two images have different vectors."""
    accepted = generate.kept(comparisons, split)
    table = accepted[vectors.has(accepted["first"], accepted["second"])]
    if config.finetune.comparisons == "template":
        texts = [from_captions(a, b) for a, b in zip(table.first_caption, table.second_caption, strict=True)]
        twins = [from_captions(b, a) for a, b in zip(table.first_caption, table.second_caption, strict=True)]
    else:
        texts, twins = list(table.difference), list(table.swapped)
    first, second = vectors.rows(table["first"]), vectors.rows(table["second"])
    usable = _differ(vectors.matrix, first, second)
    if usable.sum() < len(accepted):
        say(
            f"{len(accepted) - usable.sum()} {split} comparisons left out: an image has no vector, or both have the same"
        )
    if config.finetune.swap:
        has_twin = np.array([bool(twin) for twin in twins], dtype=bool)
        if not has_twin[usable].all():
            say(f"{(usable & ~has_twin).sum()} {split} comparisons left out: finetune.swap needs two sides to exchange")
        usable &= has_twin
    rows = np.flatnonzero(usable)
    texts, twins = [texts[i] for i in rows], [twins[i] for i in rows]
    tokens, twin_tokens = (_tokens_of_forms(config, split, side, model) for side in (texts, twins))
    return Examples(texts, tokens, first[rows], second[rows], twin_tokens)


def _tokens_of_forms(config: Config, split: str, texts: list[str], model: Encoder) -> Tokens:
    """The texts as tokens; training texts also in each trained structure, if finetune.structures says so."""
    if not (config.finetune.structures and split == "train" and texts):
        return model.tokenised(texts)
    forms = zip(*map(rewritten, texts), strict=True)
    return model.tokenised([text for form in forms for text in form])


def caption_examples(config: Config, images: ImageSet, split: str, vectors: Vectors, model: Encoder) -> Examples:
    """All captions of a split's images that have a vector; for training their rewrites, if finetune.captions says so.

    Raises PcclipError when rewrites are wanted and 01 has none.
    """
    split_images = images.train if split == "train" else images.held_out
    rewritten = config.finetune.captions == "rewrites" and split == "train"
    table = load_rewrites(config) if rewritten else images.captions
    table = table[table["id"].isin(set(split_images["id"])) & vectors.has(table["id"])]
    texts = list(table.caption)
    return Examples(texts, model.tokenised(texts), vectors.rows(table["id"]))


def captioned_images(config: Config, images: ImageSet, split: str, vectors: Vectors, model: Encoder) -> CaptionedImages:
    """The images of a split that have a vector, with their captions.

    Raises PcclipError when rewrites are wanted and 01 has none.
    """
    examples = caption_examples(config, images, split, vectors, model)
    order = np.argsort(examples.first, kind="stable")
    texts, rows = [examples.texts[k] for k in order], examples.first[order]
    number = {text: k for k, text in enumerate(dict.fromkeys(texts))}
    image_rows, counts = np.unique(rows, return_counts=True)
    return CaptionedImages(
        images=image_rows,
        starts=np.concatenate([[0], np.cumsum(counts)]),
        texts=texts,
        tokens=examples.tokens[order],
        text_numbers=np.array([number[text] for text in texts], dtype=np.int64),
    )


def plain_texts(config: Config, images: ImageSet) -> list[list[str]]:
    """The texts to replay, by kind: training captions, and nouns in a prompt of their own. A kind without texts is left out.

    The nouns are the training concepts and ImageNet's class names, except those that name a held-out concept. The
    run's zero-shot prompts are left out: replay would fix the very texts that the evaluation uses.
    """
    captions = images.captions[images.captions["id"].isin(set(images.train["id"]))].caption
    nouns = {*images.train.concept, *verdicts.spare(imagenet_names(), images)}
    kinds = captions, [f"a view of {verdicts.named(noun)}" for noun in sorted(nouns)]  # a prompt of no evaluation
    evaluated = {config.evaluate.zero_shot_prompt.format(name) for name in images.classes}
    return [kind for texts in kinds if (kind := [text for text in texts if text not in evaluated])]


def training_verdicts(config: Config, vectors: Vectors, model: Encoder) -> Verdicts:
    """The verdicts of 01 on training pairs and the trained attributes, with the bank's training paraphrases.

    For a noun, u is the base model's f("a photo of a fox"). No pair mixes nouns and photographs, so the offset between
    text vectors and image vectors cancels in u1 - u2.

    Raises PcclipError when 01 had another attribute bank, or has no verdict on a training pair.
    """
    bank = load_bank(config.generate.attributes or "")
    names = [entry.name for entry in bank.attributes if entry.split == "train"]
    table = verdicts.load(config)
    table = table[(table.split == "train") & table.value.notna() & table.attribute.isin(names)]
    photo_pairs = table[(table.kind == "image").to_numpy() & vectors.has(table["first"], table["second"])]
    noun_pairs = table[table.kind == "thing"]
    nouns = sorted({*noun_pairs["first"], *noun_pairs["second"]})
    noun_vectors = model.encode_texts([f"a photo of {verdicts.named(noun)}" for noun in nouns])
    noun_number = {noun: number for number, noun in enumerate(nouns)}
    photo_rows = [vectors.rows(photo_pairs[side]) for side in ("first", "second")]
    noun_rows = [noun_pairs[side].map(noun_number).to_numpy(dtype=np.int64) for side in ("first", "second")]
    usable = np.concatenate([_differ(vectors.matrix, *photo_rows), _differ(noun_vectors, *noun_rows)])
    if not usable.any():
        raise PcclipError(
            "finetune.attribute_weight: 01 has no verdict on training pairs; "
            "raise generate.attribute_pairs or thing_pairs"
        )
    first, second = (
        np.concatenate([photos, len(vectors.matrix) + numbers])[usable]
        for photos, numbers in zip(photo_rows, noun_rows, strict=True)
    )
    table = pd.concat([photo_pairs, noun_pairs])[usable]
    paraphrases = [pair for name in names for pair in bank[name].paraphrases]
    return Verdicts(
        noun_vectors,
        first,
        second,
        attribute=table.attribute.map(names.index).to_numpy(dtype=np.int64),
        target=table.probability.to_numpy(dtype=np.float32),
        more=model.tokenised([more for more, _ in paraphrases]),
        less=model.tokenised([less for _, less in paraphrases]),
        paraphrases=np.array([len(bank[name].paraphrases) for name in names]),
    )


def unrelated_questions(config: Config, model: Encoder) -> UnrelatedQuestions:
    """The bank's `kept` questions; those in every frame get the base model's direction in the first frame.

    Raises PcclipError when the run has no bank, or the bank no such questions.
    """
    bank = load_bank(config.generate.attributes) if config.generate.attributes else None
    if bank is None or bank.kept is None:
        raise PcclipError("finetune.attribute_kept needs generate.attributes, a bank with `kept` words and frames")
    more, less = map(list, zip(*bank.kept.pairs, strict=True))
    words = len(bank.kept.words)
    directions = model.encode_texts(more[:words]) - model.encode_texts(less[:words])
    base = torch.from_numpy(np.tile(directions, (len(bank.kept.frames), 1))).to(model.device)
    return UnrelatedQuestions(model.tokenised(more), model.tokenised(less), base)


def _differences(
    matrix: Float[Tensor, "n d"], first: Int[np.ndarray, " m"], second: Int[np.ndarray, " m"]
) -> Float[Tensor, "m d"]:
    left, right = (torch.as_tensor(side, device=matrix.device) for side in (first, second))
    return matrix[left] - matrix[right]


def _differ(
    matrix: Float[np.ndarray, "n d"], first: Int[np.ndarray, " m"], second: Int[np.ndarray, " m"]
) -> Bool[np.ndarray, " m"]:
    """Whether two vectors differ, pair by pair."""
    return np.linalg.norm(matrix[first] - matrix[second], axis=1) > 1e-6
