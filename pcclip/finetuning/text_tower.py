"""PC-CLIP's training: turn f(text of a difference) in the direction of g(image 1) - g(image 2).

Image vectors come from stage 02, so the image tower never runs. The batches depend on seed and epoch alone and
dropout stays off, so a resumed run repeats the losses of an uninterrupted run. losses.py has the objectives and terms.
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
    ReplayedTexts,
    TrainingData,
    UnrelatedQuestions,
    Verdicts,
    caption_examples,
    comparison_examples,
    plain_texts,
    training_verdicts,
    unrelated_questions,
)
from pcclip.finetuning.held_out import HeldOut
from pcclip.finetuning.loop import Training, batch_rows, mean_over_batches
from pcclip.finetuning.losses import OBJECTIVES, attribute, replay, shared_images, unrelated
from pcclip.finetuning.precision import autocast
from pcclip.stats.random_streams import stream


@dataclass(frozen=True)
class TextTowerData(TrainingData):
    """The inputs of training the text tower.

    Attributes:
        matrix: image vectors of stage 02, then the vectors of the nouns in `verdicts`, on the model's device.
    """

    train: Examples
    held_out: Examples
    verdicts: Verdicts | None
    replayed: ReplayedTexts | None
    unrelated: UnrelatedQuestions | None
    matrix: Float[Tensor, "n d"]


class Term(NamedTuple):
    """A loss beside the objective. `loss` takes the unit vectors of `tokens`."""

    name: str
    weight: float
    tokens: Tokens
    loss: Callable[[Float[Tensor, "t d"]], Float[Tensor, ""]]


def load_data(
    config: Config, images: ImageSet, vectors: Vectors, comparisons: pd.DataFrame, model: Encoder
) -> TextTowerData:
    """Read everything that training needs, while `model` is still the base model.

    Raises PcclipError when fewer than two texts can be trained on, or stage 01 wrote no data for a term.
    """
    settings = config.finetune
    pairs = {split: comparison_examples(config, comparisons, split, vectors, model) for split in ("train", "held_out")}
    texts = pairs
    if settings.objective == "captions":
        texts = {split: caption_examples(config, images, split, vectors, model) for split in pairs}
    if len(texts["train"]) < 2:
        raise PcclipError(
            f"03_finetune: {len(texts['train'])} training texts; 01 must write at least two that its filters accept"
        )
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
        unrelated=unrelated_questions(config, model) if settings.attribute_kept else None,
        matrix=torch.from_numpy(rows).to(model.device),
    )


class TextTower(Training):
    """Training of the text tower alone."""

    towers = ("text",)

    def __init__(self, config: Config, data: TextTowerData, model: Encoder):
        super().__init__(config, model, len(data.train))
        self.data = data
        self._adds_twins = self.settings.swap and self.settings.objective != "captions"

    @cached_property
    def _evaluator(self) -> HeldOut:
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
        batch_tokens, terms = self._tokens(train, batch), self._terms()
        tokens = Tokens.joined([batch_tokens, *(term.tokens for term in terms)])
        share = distributed.Share(tokens.lengths)
        shared_tokens, micro_batch = tokens[share.rows], self.settings.micro_batch
        order = np.arange(len(shared_tokens))
        if micro_batch is not None and micro_batch < len(order):  # texts of similar length are encoded together
            order = np.argsort(shared_tokens.lengths, kind="stable")

        def losses(vectors: Float[Tensor, "s d"]) -> dict[str, Tensor]:
            w, *by_term = share.gather(vectors).split([len(batch_tokens), *(len(term.tokens) for term in terms)])
            loss, accuracy = self.objective(w, train, batch, self.log_temperature.exp())
            values: dict[str, Tensor] = {self.settings.objective: loss}
            for term, term_vectors in zip(terms, by_term, strict=True):
                values[term.name] = term.loss(term_vectors)
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
            w: unit text vectors of `rows`, then with finetune.swap the vectors of their twins (images exchanged).
        """
        matrix = self.data.matrix
        target = examples.targets(matrix, rows)
        if self._adds_twins:
            target = torch.cat([target, -target])
        ignore = None
        if self.settings.mask_shared:
            first = torch.as_tensor(examples.first[rows], device=matrix.device)
            second = first if examples.second is None else torch.as_tensor(examples.second[rows], device=matrix.device)
            ignore = partial(shared_images, first, second, self._adds_twins)
        return OBJECTIVES[self.settings.objective](w, target, temperature, ignore)

    def held_out(self) -> dict[str, float]:
        """The objective on the held-out texts, in batches of the training size, and two accuracies."""
        examples, temperature, metrics = self.data.held_out, self.temperature, dict[str, float]()
        encode = partial(encoded, self.settings, self.model)
        if len(examples) >= 2:
            texts = encode(examples.tokens)
            with_twins = np.stack([texts, encode(examples.twin_tokens)]) if self._adds_twins else texts[None]
            vectors = torch.from_numpy(with_twins).to(self.data.matrix.device)

            def batch_loss(rows: Int[np.ndarray, " b"]) -> tuple[Tensor, Tensor]:
                return self.objective(vectors[:, rows].flatten(0, 1), examples, rows, temperature)

            loss, accuracy = mean_over_batches(self.settings, len(examples), batch_loss)
            metrics = {self.settings.objective: loss, "in_batch_accuracy": accuracy}
        return metrics | self._evaluator.accuracies(self.data.vectors.matrix, encode)

    def _tokens(self, examples: Examples, rows: Int[np.ndarray, " b"]) -> Tokens:
        """The texts of `rows`, each in a sentence structure drawn for this step, then their twins with finetune.swap."""
        drawn = examples.forms(rows, self.config.seed, self.state.step)
        texts = examples.tokens[drawn]
        return Tokens.joined([texts, examples.twin_tokens[drawn]]) if self._adds_twins else texts

    def _terms(self) -> list[Term]:
        """The losses with a weight above 0, each with the texts drawn for this step."""
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
        if data.verdicts is not None and data.unrelated is not None:
            tokens, directions = data.unrelated.draw(generator)
            v = nn.functional.normalize(data.verdicts.differences(data.matrix, pairs), dim=-1)
            terms.append(Term("unrelated", settings.attribute_kept, tokens, partial(unrelated, base=directions, v=v)))
        return terms

    def _attribute(
        self,
        verdicts: Verdicts,
        rows: Int[np.ndarray, " m"],
        texts: Int[np.ndarray, " m"],
        vectors: Float[Tensor, "t d"],
    ) -> Float[Tensor, ""]:
        """The attribute term of the verdicts `rows`; `texts[i]` is the row of verdict i's text for more."""
        settings = self.settings
        more, less = vectors.chunk(2)
        v = nn.functional.normalize(verdicts.differences(self.data.matrix, rows), dim=-1)
        row, target = (torch.from_numpy(x).to(v.device) for x in (texts, verdicts.target[rows]))
        more_score, less_score = ((v * side[row]).sum(dim=-1) for side in (more, less))
        return attribute(
            more_score, less_score, target, settings.attribute_temperature, settings.attribute_antisymmetric
        )


def encoded(settings: Finetune, model: Encoder, tokens: Tokens) -> Float[np.ndarray, "n d"]:
    """Unit text vectors in the precision of the run, without gradients. Each process encodes a part; all get every vector."""
    share = distributed.Share(tokens.lengths)
    with autocast(settings.precision, model.device):
        part = model.encode_tokens(tokens[share.rows])
    return share.gather(torch.from_numpy(part).to(model.device)).cpu().numpy()


def _replayed(config: Config, images: ImageSet, model: Encoder) -> ReplayedTexts | None:
    """The plain texts of the run with their vectors by the base model; None if there is no text."""
    kinds = plain_texts(config, images)
    tokens = model.tokenised([text for texts in kinds for text in texts])
    if not len(tokens):
        return None
    kind_of = np.repeat(np.arange(len(kinds)), [len(texts) for texts in kinds])
    return ReplayedTexts(tokens, kind_of, torch.from_numpy(encoded(config.finetune, model, tokens)).to(model.device))
