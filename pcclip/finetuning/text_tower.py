"""PC-CLIP's training: the text tower learns that f(text of difference) lies along g(image 1) - g(image 2).

Image vectors come from stage 02, so the image tower never runs. The batches are a function of seed and epoch and
dropout stays off, so a killed run continues on the same curve. The terms of a step are the functions of losses.py.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property, partial
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from pcclip.config import Config, Finetune
from pcclip.data.image_set import ImageSet
from pcclip.embedding.vectors import Vectors
from pcclip.encoders.dual_encoder import Encoder
from pcclip.encoders.tokens import Tokens
from pcclip.errors import PcclipError
from pcclip.finetuning import distributed, gradcache
from pcclip.finetuning.batches import (
    Examples,
    KeptQuestions,
    ReplayedTexts,
    TrainingData,
    Verdicts,
    caption_examples,
    comparison_examples,
    kept_questions,
    plain_texts,
    training_verdicts,
)
from pcclip.finetuning.held_out import HeldOut
from pcclip.finetuning.loop import Training, batch_rows, mean_over_batches
from pcclip.finetuning.losses import OBJECTIVES, attribute, kept, replay, shared_images
from pcclip.finetuning.precision import autocast
from pcclip.stats.random_streams import stream


@dataclass(frozen=True)
class TextTowerData(TrainingData):
    """What training the text tower reads.

    Attributes:
        matrix: image vectors of 02, followed by the noun vectors of `verdicts`, on the model's device.
    """

    train: Examples
    held_out: Examples
    verdicts: Verdicts | None
    replayed: ReplayedTexts | None
    kept: KeptQuestions | None
    matrix: Float[Tensor, "n d"]


class Term(NamedTuple):
    """A term added to the objective: `loss` takes the unit vectors of `tokens`."""

    name: str
    weight: float
    tokens: Tokens
    loss: Callable[[Float[Tensor, "t d"]], Float[Tensor, ""]]


def gather(
    config: Config, images: ImageSet, vectors: Vectors, comparisons: pd.DataFrame, model: Encoder
) -> TextTowerData:
    """Read everything that training needs, while `model` is still the base model.

    Raises PcclipError when fewer than two texts can be trained on, or a term lacks what it needs from 01.
    """
    settings = config.finetune
    pairs = {split: comparison_examples(config, comparisons, split, vectors, model) for split in ("train", "held_out")}
    texts = pairs
    if settings.objective == "captions":
        texts = {split: caption_examples(config, images, split, vectors, model) for split in pairs}
    if len(texts["train"]) < 2:
        raise PcclipError(f"03_finetune: {len(texts['train'])} training texts were kept; 01 must keep at least two")
    verdicts = training_verdicts(config, vectors, model) if settings.attribute_weight else None
    rows = vectors.matrix if verdicts is None else np.concatenate([vectors.matrix, verdicts.nouns])
    return TextTowerData(
        images,
        vectors,
        held_out_pairs=pairs["held_out"],
        train=texts["train"],
        held_out=texts["held_out"],
        verdicts=verdicts,
        replayed=_replayed(config, images, model) if settings.replay else None,
        kept=kept_questions(config, model) if settings.attribute_kept else None,
        matrix=torch.from_numpy(rows).to(model.device),
    )


class TextTower(Training):
    """Training of the text tower alone."""

    towers = ("text",)

    def __init__(self, config: Config, data: TextTowerData, model: Encoder):
        super().__init__(config, model, len(data.train))
        self.data = data
        self._swaps = self.settings.swap and self.settings.objective != "captions"

    @cached_property
    def _held_out(self) -> HeldOut:
        return HeldOut(self.config, self.data, self.model)

    @property
    def counts(self) -> dict[str, int]:
        verdicts = len(self.data.verdicts) if self.data.verdicts else 0
        return {**super().counts, "held_out": len(self.data.held_out), "verdicts": verdicts}

    def batches(self, first: int, last: int) -> Iterator[Int[np.ndarray, " b"]]:
        for step in range(first, last):
            yield batch_rows(self.config, step, self.size)

    def step(self, batch: Int[np.ndarray, " b"]) -> dict[str, float]:
        """One optimiser step on the training texts `batch`. Returns loss, in_batch_accuracy, the objective and each term."""
        optimizer, train = self.state.optimizer, self.data.train
        own, added = self._tokens(train, batch), self._added_terms()
        tokens = Tokens.joined([own, *(term.tokens for term in added)])
        share = distributed.Share(tokens.lengths)
        shared_tokens, micro_batch = tokens[share.rows], self.settings.micro_batch
        order = np.arange(len(shared_tokens))
        if micro_batch is not None and micro_batch < len(order):  # texts of similar length are encoded together
            order = np.argsort(shared_tokens.lengths, kind="stable")

        def losses(leaf: Float[Tensor, "s d"]) -> dict[str, Tensor]:
            w, *term_vectors = share.gather(leaf).split([len(own), *(len(term.tokens) for term in added)])
            loss, accuracy = self.objective(w, train, batch, self.log_temperature.exp())
            values: dict[str, Tensor] = {self.settings.objective: loss}
            for term, vectors in zip(added, term_vectors, strict=True):
                values[term.name] = term.loss(vectors)
                loss = loss + term.weight * values[term.name]
            loss.backward()
            return {"loss": loss, "in_batch_accuracy": accuracy, **values}

        optimizer.zero_grad(set_to_none=True)
        encoding = gradcache.Encoding(
            lambda rows: self.text_vectors(shared_tokens[rows]), gradcache.parts_of(order, micro_batch)
        )
        values = gradcache.backward([encoding], losses)
        distributed.mean_gradients(p for group in optimizer.param_groups for p in group["params"])
        optimizer.step()
        return {name: float(value.detach()) for name, value in values.items()}

    def objective(
        self,
        w: Float[Tensor, "t d"],
        examples: Examples,
        rows: Int[np.ndarray, " b"],
        temperature: Float[Tensor, ""] | float,
    ) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
        """Loss and in-batch accuracy of the examples `rows`.

        Args:
            w: unit text vectors of `rows`, followed by their twins' vectors where the run swaps.
        """
        matrix = self.data.matrix
        target = examples.targets(matrix, rows)
        if self._swaps:
            target = torch.cat([target, -target])
        ignore = None
        if self.settings.mask_shared:
            first = torch.as_tensor(examples.first[rows], device=matrix.device)
            second = first if examples.second is None else torch.as_tensor(examples.second[rows], device=matrix.device)
            ignore = partial(shared_images, first, second, self._swaps)
        return OBJECTIVES[self.settings.objective](w, target, temperature, ignore)

    def held_out(self) -> dict[str, float]:
        """The run's own objective in batches of the run's size, and two accuracies."""
        examples, temperature, metrics = self.data.held_out, self.temperature, dict[str, float]()
        encode = partial(encoded, self.settings, self.model)
        if len(examples) >= 2:
            own = encode(examples.tokens)
            sides = np.stack([own, encode(examples.twin_tokens)]) if self._swaps else own[None]
            vectors = torch.from_numpy(sides).to(self.data.matrix.device)

            def objective(rows: Int[np.ndarray, " b"]) -> tuple[Tensor, Tensor]:
                return self.objective(vectors[:, rows].flatten(0, 1), examples, rows, temperature)

            loss, accuracy = mean_over_batches(self.settings, len(examples), objective)
            metrics = {self.settings.objective: loss, "in_batch_accuracy": accuracy}
        return metrics | self._held_out.accuracies(self.data.vectors.matrix, encode)

    def _tokens(self, examples: Examples, rows: Int[np.ndarray, " b"]) -> Tokens:
        """The texts of `rows`, each in a structure drawn for this step, followed by their twins where the run swaps."""
        forms = examples.forms(rows, self.config.seed, self.state.step)
        texts = examples.tokens[forms]
        return Tokens.joined([texts, examples.twin_tokens[forms]]) if self._swaps else texts

    def _added_terms(self) -> list[Term]:
        """The terms beside the objective that the run asks for, with this step's random texts."""
        settings, data = self.settings, self.data
        generator = stream("verdicts and replayed texts", self.config.seed, self.state.step)
        terms = []
        if data.verdicts is not None:
            pairs, texts, tokens = data.verdicts.draw(settings.attribute_batch, generator)
            loss = partial(self._attribute, data.verdicts, pairs, texts)
            terms.append(Term("attribute", settings.attribute_weight, tokens, loss))
        if data.replayed is not None:
            rows = data.replayed.draw(settings.replay_batch, generator)
            base = data.replayed.base[torch.from_numpy(rows).to(data.replayed.base.device)]
            terms.append(Term("replay", settings.replay, data.replayed.tokens[rows], partial(replay, base=base)))
        if data.verdicts is not None and data.kept is not None:
            tokens, directions = data.kept.draw(generator)
            v = nn.functional.normalize(data.verdicts.differences(data.matrix, pairs), dim=-1)
            terms.append(Term("kept", settings.attribute_kept, tokens, partial(kept, base=directions, v=v)))
        return terms

    def _attribute(
        self,
        verdicts: Verdicts,
        rows: Int[np.ndarray, " m"],
        texts: Int[np.ndarray, " m"],
        vectors: Float[Tensor, "t d"],
    ) -> Float[Tensor, ""]:
        """The attribute term of the verdicts `rows`; `texts` is each verdict's place among the texts for more."""
        settings = self.settings
        more, less = vectors.chunk(2)
        v = nn.functional.normalize(verdicts.differences(self.data.matrix, rows), dim=-1)
        text, target = (torch.from_numpy(x).to(v.device) for x in (texts, verdicts.target[rows]))
        up, down = ((v * side[text]).sum(dim=-1) for side in (more, less))
        return attribute(up, down, target, settings.attribute_temperature, settings.attribute_antisymmetric)


def encoded(settings: Finetune, model: Encoder, tokens: Tokens) -> Float[np.ndarray, "n d"]:
    """Unit text vectors in the precision of the run, without gradients; every process encodes its share."""
    share = distributed.Share(tokens.lengths)
    with autocast(settings.precision, model.device):
        own = model.encode_tokens(tokens[share.rows])
    return share.gather(torch.from_numpy(own).to(model.device)).cpu().numpy()


def _replayed(config: Config, images: ImageSet, model: Encoder) -> ReplayedTexts | None:
    """The plain texts of the run with their vectors by the base model; None if there is no text."""
    kinds = plain_texts(config, images)
    tokens = model.tokenised([text for texts in kinds for text in texts])
    if not len(tokens):
        return None
    numbers = np.repeat(np.arange(len(kinds)), [len(texts) for texts in kinds])
    return ReplayedTexts(tokens, numbers, torch.from_numpy(encoded(config.finetune, model, tokens)).to(model.device))
