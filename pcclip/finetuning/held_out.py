"""The held-out curve of objective clip: what each term says of images that were never trained on, as they are now."""

from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from pcclip.config import Config
from pcclip.encoders.dual_encoder import Encoder
from pcclip.finetuning.captioned import Given
from pcclip.finetuning.loop import steps
from pcclip.finetuning.losses import infonce, shared_images
from pcclip.finetuning.precision import autocast
from pcclip.finetuning.score_distillation import Distillation
from pcclip.images import batches
from pcclip.stats.vectors import beats, cosines, image_differences, zero_shot

_LOOKED_AT = 64  # images of the curve of L_SDS


@dataclass(frozen=True)
class HeldOut:
    """What the curve looks at: rows of images, and the conditions of the first captions of some of them."""

    config: Config
    given: Given
    rows: Int[np.ndarray, " k"]
    conditions: Float[Tensor, "s t c"] | None

    @classmethod
    def of(cls, config: Config, given: Given, term: Distillation | None) -> "HeldOut":
        own, pairs, looked_at = given.held_out, given.held_out_pairs, None
        if term is not None and len(own):
            looked_at = term.teacher.conditions([own.texts[k] for k in own.starts[:-1][:_LOOKED_AT]])
        return cls(config, given, np.unique(np.concatenate([own.images, pairs.first, pairs.second])), looked_at)

    def values(self, model: Encoder, temperature: float, term: Distillation | None) -> dict[str, float]:
        """One point of the curve: `clip` in batches of the run's size and its in-batch accuracy, `difference_accuracy`,
        `zero_shot_accuracy`, and `sds` with the same noise at every point; those that there are images for."""
        if not len(self.rows):
            return {}
        with autocast(self.config.finetune.precision, model.device):
            parts = self.given.pictures.each(
                self.rows[part] for part in batches(len(self.rows), self.config.embed.batch_size)
            )
            u = np.concatenate([model.encode_pixels(pixels) for pixels in parts])
            found = self._captions(model, u, temperature) | self._differences(model, u) | self._classes(model, u)
        if term is not None and self.conditions is not None:
            some = torch.from_numpy(u[self._places(self.given.held_out.images)][: len(self.conditions)])
            with torch.no_grad():
                z0 = term.latent_map(some.to(model.device))
            found["sds"] = float(term.value(z0, self.conditions, [0, 7]).mean())
        return found

    def _places(self, rows: Int[np.ndarray, " n"]) -> Int[np.ndarray, " n"]:
        """Where images are among those looked at."""
        return np.searchsorted(self.rows, rows)

    def _captions(self, model: Encoder, u: Float[np.ndarray, "k d"], temperature: float) -> dict[str, float]:
        own, settings = self.given.held_out, self.config.finetune
        if len(own) < 2:
            return {}
        first = own.starts[:-1]
        v, w = torch.from_numpy(u[self._places(own.images)]), torch.from_numpy(model.encode_tokens(own.tokens[first]))
        same = torch.from_numpy(own.same[first])
        losses, accuracies, sizes = [], [], []
        for rows in map(torch.from_numpy, np.array_split(np.arange(len(own)), steps(settings, len(own))[0])):
            ignore = partial(shared_images, same[rows], same[rows], False) if settings.mask_shared else None
            loss, accuracy = infonce(w[rows], v[rows], temperature, ignore)
            losses, accuracies, sizes = [*losses, float(loss)], [*accuracies, float(accuracy)], [*sizes, len(rows)]
        return {
            "clip": float(np.average(losses, weights=sizes)),
            "in_batch_accuracy": float(np.average(accuracies, weights=sizes)),
        }

    def _differences(self, model: Encoder, u: Float[np.ndarray, "k d"]) -> dict[str, float]:
        pairs = self.given.held_out_pairs
        if not len(pairs):
            return {}
        v = image_differences(u, self._places(pairs.first), self._places(pairs.second))
        return {"difference_accuracy": float(beats(cosines(model.encode_tokens(pairs.tokens), v), 0.0).mean())}

    def _classes(self, model: Encoder, u: Float[np.ndarray, "k d"]) -> dict[str, float]:
        names, table = self.given.images.classes, self.given.images.held_out
        labelled = self.given.vectors.of(table[table.label.notna()])
        rows = self.given.vectors.rows(labelled["id"])
        labelled, rows = labelled[np.isin(rows, self.rows)], rows[np.isin(rows, self.rows)]
        if not names or not len(rows):
            return {}
        texts = model.encode_tokens(
            model.tokenised([self.config.evaluate.zero_shot_prompt.format(name) for name in names])
        )
        hits = np.array(names)[zero_shot(u[self._places(rows)], texts)]
        return {"zero_shot_accuracy": float((hits == labelled.label.to_numpy()).mean())}
