"""A text-to-image model as a matcher: which text helps it most to find the noise in an image?

d(x, c) is the mean squared error of the noise it finds (Diffusion Classifier, 2303.16203; DiffusionITM, 2305.16397),
and the text with the lowest d is its answer. All texts and all images see the same draws of noise level and noise, so
that two scores differ by nothing else. d is not calibrated between images: some are harder to denoise whatever the
text. Where images are compared, d of no text at all can be subtracted, as DiffusionITM does.
"""

import time
from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, Int
from torch import Tensor

from pcclip.benchmarks.benchmark import Benchmark
from pcclip.config import Matcher
from pcclip.encoders.diffusion import Teacher
from pcclip.errors import PcclipError
from pcclip.images import decoded_batches
from pcclip.runs.progress import Meter

MODEL = "teacher"  # its name among the models
_DECODED = 4  # images in the VAE at once
COLUMNS = ["dataset", "images", "texts", "evaluations", "seconds", "seconds_an_image"]


def noise_draws(teacher: Teacher, settings: Matcher, seed: int) -> tuple[Int[Tensor, " n"], Float[Tensor, "n c h w"]]:
    """`settings.samples` noise levels, evenly over [t_min, t_max] of the teacher's, and noise for each."""
    share = (np.random.default_rng(seed).permutation(settings.samples) + 0.5) / settings.samples
    share = settings.t_min + share * (settings.t_max - settings.t_min)
    levels = np.minimum((share * teacher.steps).astype(np.int64), teacher.steps - 1)
    noise = torch.randn(settings.samples, *teacher.latent_shape, generator=torch.Generator().manual_seed(seed))
    return torch.from_numpy(levels).to(teacher.device), noise.to(teacher.device)


class DiffusionMatcher:
    """Scores of one text-to-image model on one set, and their cost.

    Args:
        settings: draws, and evaluations at once.
        seed: of the draws.
    """

    def __init__(self, teacher: Teacher, settings: Matcher, seed: int):
        self.teacher, self.settings = teacher, settings
        self._levels, self._noise = noise_draws(teacher, settings, seed)
        self.evaluations = self.images = self.texts = 0
        self._started = time.monotonic()

    @torch.inference_mode()
    def scores(
        self, latent: Float[Tensor, "c h w"], texts: Sequence[str], between_images: bool = False
    ) -> Float[np.ndarray, " k"]:
        """-d(x, c) of one image's latent for each text. Equal texts have equal scores, in whichever order they come.

        With `between_images` the scores are to be compared between images, and -(d(x, c) - d(x, '')) is returned if
        settings.unconditional says so. Raises PcclipError for an error that is not finite.
        """
        distinct = sorted(set(texts))
        subtract = between_images and self.settings.unconditional
        conditions = self.teacher.conditions([*distinct, *([""] if subtract else [])])
        errors = self._errors(latent, conditions)
        if not np.isfinite(errors).all():
            raise PcclipError("the teacher's errors are not finite; take evaluate.teacher.precision: fp32 or bf16")
        self.evaluations += errors.size
        self.images += 1
        self.texts += len(distinct)
        means = errors.mean(axis=1)
        return -(means[[distinct.index(text) for text in texts]] - (means[-1] if subtract else 0.0))

    def image_scores(
        self,
        images: Benchmark,
        rows: Int[np.ndarray, "m i"],
        texts: Sequence[Sequence[str]],
        between_images: bool,
        workers: int,
    ) -> Iterator[tuple[tuple[int, int], Float[np.ndarray, " k"]]]:
        """Yield ((item, column), scores of the item's texts) for the image at each place of `rows`.

        Args:
            rows: of images.pictures: the images that an item shows.
            texts: of each item.
            between_images: as in `scores`.
            workers: decoding threads.

        Raises PcclipError when an image cannot be read.
        """
        pictures = images.pictures
        shown = {row: list(zip(*np.nonzero(rows == row), strict=True)) for row in np.unique(rows)}
        meter, order = Meter(rows.size, f"{images.name}: images matched by the teacher"), list(shown)
        batches = [order[k : k + _DECODED] for k in range(0, len(order), _DECODED)]
        for readable, pixels, bad in decoded_batches(pictures, [self.teacher.preprocess], batches, workers):
            if bad:
                raise PcclipError(f"{pictures[bad[0][0]]}: {bad[0][1]}; mend it, or remove its item from the set")
            for row, latent in zip(readable, self.teacher.latents(pixels[0]), strict=True):
                for item, column in shown[row]:
                    yield (item, column), self.scores(latent, texts[item], between_images)
                    meter.add()

    def cost(self, dataset: str) -> pd.DataFrame:
        """One row with COLUMNS."""
        seconds = time.monotonic() - self._started
        counts = [self.images, self.texts, self.evaluations]
        return pd.DataFrame([[dataset, *counts, seconds, seconds / max(1, self.images)]], columns=COLUMNS)

    def _errors(self, latent: Float[Tensor, "c h w"], conditions: Tensor) -> Float[np.ndarray, "texts draws"]:
        """Errors of each text on each draw, batch by batch."""
        text = torch.arange(len(conditions)).repeat(len(self._levels))
        draw = torch.arange(len(self._levels)).repeat_interleave(len(conditions))
        size = self.settings.batch_size
        errors = [
            self.teacher.denoising(
                latent.expand(len(some), *latent.shape), self._levels[some], self._noise[some], conditions[texts]
            )
            for texts, some in zip(text.split(size), draw.split(size), strict=True)
        ]
        return torch.cat(errors).double().cpu().numpy().reshape(-1, len(conditions)).T
