"""A text-to-image model as a matcher: which text helps it most to find the noise in an image?

d(x, c) is the mean squared error of the noise it finds (Diffusion Classifier, 2303.16203; DiffusionITM, 2305.16397),
and the text with the lowest d is its answer. All texts and all images see the same draws of noise level and noise, so
that two scores differ by nothing else. d is not calibrated between images: some are harder to denoise whatever the
text. Where images are compared, d of no text at all can be subtracted, as DiffusionITM does.

Most texts need few draws to be out of the question. As in Diffusion Classifier's successive elimination a text is given
up on the way; here that is once its mean error is a number of standard errors above the best one's.
"""

import time
from collections.abc import Callable, Iterator, Sequence

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
ROUND = 8  # draws between two eliminations
_DECODED = 4  # images in the VAE at once
COLUMNS = ["dataset", "images", "texts", "evaluations", "without_stopping", "seconds", "seconds_an_image"]
Errors = Callable[[Int[np.ndarray, " k"], range], Float[np.ndarray, "k n"]]  # of some texts, on some draws


def noise_draws(teacher: Teacher, settings: Matcher, seed: int) -> tuple[Int[Tensor, " n"], Float[Tensor, "n c h w"]]:
    """`settings.samples` noise levels, evenly over [t_min, t_max] of the teacher's, and noise for each.

    The order of the levels is drawn, so that the first few cover the range.
    """
    share = (np.random.default_rng(seed).permutation(settings.samples) + 0.5) / settings.samples
    share = settings.t_min + share * (settings.t_max - settings.t_min)
    levels = np.minimum((share * teacher.steps).astype(np.int64), teacher.steps - 1)
    noise = torch.randn(settings.samples, *teacher.latent_shape, generator=torch.Generator().manual_seed(seed))
    return torch.from_numpy(levels).to(teacher.device), noise.to(teacher.device)


class DiffusionMatcher:
    """Scores of one text-to-image model on one set, and their cost.

    Args:
        settings: draws, when to give texts up, evaluations at once.
        seed: of the draws.
    """

    def __init__(self, teacher: Teacher, settings: Matcher, seed: int):
        self.teacher, self.settings = teacher, settings
        self._levels, self._noise = noise_draws(teacher, settings, seed)
        self.evaluations = self.without_stopping = self.images = self.texts = 0
        self._started = time.monotonic()

    @torch.inference_mode()
    def scores(
        self, latent: Float[Tensor, "c h w"], texts: Sequence[str], between_images: bool = False
    ) -> Float[np.ndarray, " k"]:
        """-d(x, c) of one image's latent for each text. Equal texts have equal scores, in whichever order they come.

        With `between_images` the scores are to be compared between images: no text is given up, as only a text that is
        seen to the end has an unbiased score, and -(d(x, c) - d(x, '')) is returned if settings.unconditional says so.
        """
        distinct = sorted(set(texts))
        subtract = between_images and self.settings.unconditional
        conditions = self.teacher.conditions([*distinct, *([""] if subtract else [])])

        def errors(rows: np.ndarray, draws: range) -> np.ndarray:
            return self._errors(latent, conditions[torch.from_numpy(rows).to(conditions.device)], draws)

        count, samples = len(distinct), len(self._levels)
        stop = None if between_images else self.settings.stop
        means, spent = eliminate(errors, count, samples, stop, to_the_end=between_images)
        if subtract:
            means = means - errors(np.array([count]), range(samples)).mean()
        self.evaluations += spent + samples * subtract
        self.without_stopping += samples * (count + subtract)
        self.images += 1
        self.texts += count
        return -means[[distinct.index(text) for text in texts]]

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
        """One row with COLUMNS: UNet evaluations, their number without stopping, seconds."""
        seconds = time.monotonic() - self._started
        counts = [self.images, self.texts, self.evaluations, self.without_stopping]
        return pd.DataFrame([[dataset, *counts, seconds, seconds / max(1, self.images)]], columns=COLUMNS)

    def _errors(self, latent: Tensor, conditions: Tensor, draws: range) -> np.ndarray:
        """Errors of each text on each of the draws, (texts, draws), batch by batch."""
        text = torch.arange(len(conditions)).repeat(len(draws))
        draw = torch.arange(draws.start, draws.stop).repeat_interleave(len(conditions))
        size = self.settings.batch_size
        errors = [
            self.teacher.denoising(
                latent.expand(len(some), *latent.shape), self._levels[some], self._noise[some], conditions[texts]
            )
            for texts, some in zip(text.split(size), draw.split(size), strict=True)
        ]
        return torch.cat(errors).double().cpu().numpy().reshape(len(draws), len(conditions)).T


def eliminate(
    errors: Errors, texts: int, samples: int, stop: float | None, to_the_end: bool = False
) -> tuple[Float[np.ndarray, " texts"], int]:
    """The mean error of each text, and the number of errors that were computed.

    After every ROUND draws a text is given up whose mean is above the best one's by more than `stop` standard errors of
    their difference, draw by draw. Its mean is then the best one's final mean plus that difference, so it stays above.

    Args:
        errors: the errors of some texts on some draws.
        stop: None never gives one up.
        to_the_end: go on with the last one until all draws are seen; else its mean is of those seen so far.

    Raises:
        PcclipError: an error that is not finite.
    """
    seen, alive, given_up, computed = np.empty((texts, 0)), np.arange(texts), [], 0
    for start in range(0, samples, ROUND):
        if start and len(alive) == 1 and not to_the_end:
            break
        draws = range(start, min(start + ROUND, samples))
        new = np.full((texts, len(draws)), np.nan)
        new[alive] = errors(alive, draws)
        if not np.isfinite(new[alive]).all():
            raise PcclipError("the teacher's errors are not finite; take evaluate.teacher.precision: fp32 or bf16")
        seen = np.hstack([seen, new])
        computed += len(alive) * len(draws)
        best = alive[seen[alive].mean(axis=1).argmin()]
        if stop is not None:
            behind = seen[alive] - seen[best]
            spread = behind.std(axis=1, ddof=1) / np.sqrt(seen.shape[1]) if seen.shape[1] > 1 else np.inf
            out = alive[behind.mean(axis=1) > stop * spread]
            given_up += [(text, best, (seen[text] - seen[best]).mean()) for text in out]
            alive = np.setdiff1d(alive, out)
    means = np.full(texts, np.nan)
    means[alive] = seen[alive].mean(axis=1)
    for text, best, behind in reversed(given_up):  # the best text of a round is given up later, if at all
        means[text] = means[best] + behind
    return means, computed
