"""What objective clip reads: images with their captions, and what each step sees, a function of seed and step."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Int

from pcclip.comparisons.captions import negatives_of
from pcclip.config import Config
from pcclip.data.image_set import ImageSet
from pcclip.embedding.vectors import Vectors
from pcclip.encoders.dual_encoder import Encoder
from pcclip.encoders.tokens import Tokens
from pcclip.finetuning.batches import Examples, of_captions
from pcclip.finetuning.loop import steps
from pcclip.finetuning.pixels import Pictures


@dataclass(frozen=True)
class Captioned:
    """Images of one split that have captions; those of image i are captions starts[i] to starts[i + 1].

    Attributes:
        images: (n,) rows of the run's image vectors.
        texts, tokens: of all captions.
        same: (m,) a number for each caption, equal for equal texts.
        wrong: the captions' hard negatives; `negative`: (m,) which of them is each caption's, or -1; `wrong_same`: the
            number of the caption that has the same text, or -1.
    """

    images: Int[np.ndarray, " n"]
    starts: Int[np.ndarray, " n+1"]
    texts: list[str]
    tokens: Tokens
    same: Int[np.ndarray, " m"]
    wrong: Tokens
    negative: Int[np.ndarray, " m"]
    wrong_same: Int[np.ndarray, " k"]

    def __len__(self) -> int:
        return len(self.images)

    @property
    def counts(self) -> Int[np.ndarray, " n"]:
        """Captions of each image."""
        return np.diff(self.starts)

    def drawn(self, draw: np.random.Generator, rows: Int[np.ndarray, " k"]) -> Int[np.ndarray, " k"]:
        """One caption of each of some images, any of its own."""
        return self.starts[rows] + draw.integers(self.counts[rows])


@dataclass(frozen=True)
class Given:
    """All that the loop reads. Rows of images are those of `vectors`, by the base model."""

    train: Captioned
    held_out: Captioned
    pairs: Examples | None  # to train on
    held_out_pairs: Examples
    pictures: Pictures
    images: ImageSet
    vectors: Vectors


@dataclass(frozen=True)
class Batch:
    """One step: captions by number, and by their place in `images` (rows of the run's vectors) the pictures they are
    of; pairs by number and by the places of their two pictures."""

    images: Int[np.ndarray, " k"]
    captions: Int[np.ndarray, " b"]
    own: Int[np.ndarray, " b"]
    pairs: Int[np.ndarray, " m"]
    first: Int[np.ndarray, " m"]
    second: Int[np.ndarray, " m"]


def captioned(config: Config, images: ImageSet, split: str, vectors: Vectors, model: Encoder) -> Captioned:
    """The images of a split that have a vector, with all their captions, or with the training captions written anew.

    Raises PcclipError when rewrites or the language model's negatives are asked for and 01 has none.
    """
    found = of_captions(config, images, split, vectors, model)
    order = np.argsort(found.first, kind="stable")
    texts, rows = [found.texts[k] for k in order], found.first[order]
    false = [""] * len(texts)
    if split == "train":
        false = negatives_of(config, images, [vectors.ids[row] for row in rows], texts)
    there = np.array([bool(text) for text in false], dtype=bool)
    number = {text: k for k, text in enumerate(dict.fromkeys(texts))}
    own, counts = np.unique(rows, return_counts=True)
    return Captioned(
        own,
        np.concatenate([[0], np.cumsum(counts)]),
        texts,
        found.tokens[order],
        np.array([number[text] for text in texts], dtype=np.int64),
        model.tokenised([text for text in false if text]),
        np.where(there, np.cumsum(there) - 1, -1),
        np.array([number.get(text, -1) for text in false if text], dtype=np.int64),
    )


def batch(config: Config, train: Captioned, pairs: Examples | None, step: int) -> Batch:
    """What a step sees. An epoch is every image once, with one of its captions, drawn anew for each epoch."""
    settings = config.finetune
    per_epoch, _ = steps(settings, len(train))
    epoch, k = divmod(step, per_epoch)
    rows = np.array_split(np.random.default_rng([config.seed, epoch]).permutation(len(train)), per_epoch)[k]
    captions = train.drawn(np.random.default_rng([config.seed, step, 2]), rows)
    some = first = second = np.empty(0, dtype=np.int64)
    if pairs is not None:
        some = np.random.default_rng([config.seed, step, 3]).choice(
            len(pairs), min(settings.difference_batch, len(pairs)), replace=False
        )
        first, second = pairs.first[some], pairs.second[some]
    images, places = np.unique(np.concatenate([train.images[rows], first, second]), return_inverse=True)
    own, first, second = np.split(places, [len(rows), len(rows) + len(some)])
    return Batch(images, captions, own, some, first, second)
