"""A text-to-image model as a matcher: which text helps it most to find the noise in an image?

d(x, c) is the mean squared error of the noise it finds (Diffusion Classifier, 2303.16203; DiffusionITM, 2305.16397),
and the text with the lowest d is its answer. All texts and all images see the same draws of noise level and noise, so
that two of them differ by nothing else. d is not calibrated between images: some are harder to denoise whatever the
text. Where images are compared, d of no text at all can be subtracted, as DiffusionITM does.

Most texts need few draws to be out of the question. As in Diffusion Classifier's successive elimination a text is given
up in between; here that is once it is behind the best one by so many standard errors of their difference.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, Int
from torch import Tensor

from pcclip.config import Matcher
from pcclip.encoders.diffusion import Teacher
from pcclip.errors import PcclipError
from pcclip.images import decoded_batches
from pcclip.runs.progress import Meter

ROW = "teacher"  # its name among the models
ROUND = 8  # draws between two looks at who is behind
_DECODED = 4  # images in the VAE at once
COLUMNS = ["dataset", "images", "texts", "evaluations", "without_stopping", "seconds", "seconds_an_image"]
Errors = Callable[[Int[np.ndarray, " k"], range], Float[np.ndarray, "k n"]]  # of some texts, on some draws


@dataclass(frozen=True)
class Draws:
    """Noise levels t (n,) and noise (n, c, h, w), the same for every image and text."""

    t: Int[Tensor, " n"]
    noise: Float[Tensor, "n c h w"]


def draws(teacher: Teacher, settings: Matcher, seed: int) -> Draws:
    """`settings.samples` levels, evenly over [t_min, t_max] of the teacher's and in an order that is drawn, so that
    the first few cover the range; and noise for each."""
    share = (np.random.default_rng(seed).permutation(settings.samples) + 0.5) / settings.samples
    share = settings.t_min + share * (settings.t_max - settings.t_min)
    levels = np.minimum((share * teacher.steps).astype(np.int64), teacher.steps - 1)
    noise = torch.randn(settings.samples, *teacher.latent_shape, generator=torch.Generator().manual_seed(seed))
    return Draws(torch.from_numpy(levels).to(teacher.device), noise.to(teacher.device))


class Matching:
    """Scores of one teacher, and what they cost.

    Args:
        settings: draws, when to stop, how many at once.
        seed: of the draws.
    """

    def __init__(self, teacher: Teacher, settings: Matcher, seed: int):
        self.teacher, self.settings = teacher, settings
        self._draws = draws(teacher, settings, seed)
        self.evaluations = self.without_stopping = self.images = self.texts = 0
        self._started = time.monotonic()

    @torch.inference_mode()
    def scores(
        self, z0: Float[Tensor, "c h w"], texts: Sequence[str], between_images: bool = False
    ) -> Float[np.ndarray, " k"]:
        """-d(x, c) of one image's latent for each text; -(d(x, c) - d(x, '')) if the settings say so and the scores
        are to be compared between images. Equal texts have equal scores, in whichever order they come."""
        distinct = sorted(set(texts))
        free = between_images and self.settings.unconditional
        told = self.teacher.conditions([*distinct, *([""] if free else [])])

        def errors(rows: np.ndarray, seen: range) -> np.ndarray:
            return self._errors(z0, told[torch.from_numpy(rows).to(told.device)], seen)

        count, samples = len(distinct), len(self._draws.t)
        stop = None if between_images else self.settings.stop  # what is behind when it is given up looks further behind
        found, spent = eliminate(errors, count, samples, stop, to_the_end=between_images)
        if free:
            found = found - errors(np.array([count]), range(samples)).mean()
        self.evaluations += spent + samples * free
        self.without_stopping += samples * (count + free)
        self.images += 1
        self.texts += count
        return -found[[distinct.index(text) for text in texts]]

    def of_images(
        self,
        images: Sequence,
        rows: Int[np.ndarray, "m i"],
        texts: Sequence[Sequence[str]],
        between_images: bool,
        workers: int,
        what: str,
    ) -> Iterator[tuple[tuple[int, int], Float[np.ndarray, " k"]]]:
        """Yield ((item, column), scores of the item's texts) for the image at each place of `rows`.

        Args:
            images: paths or PIL images; rows: which of them an item shows.
            texts: of each item.
            workers: decoding threads; what: the name of the set, shown beside the progress.

        Raises PcclipError when an image cannot be read.
        """
        shown = {row: list(zip(*np.nonzero(rows == row), strict=True)) for row in np.unique(rows)}
        meter, wanted = Meter(rows.size, f"{what}: images matched by the teacher"), list(shown)
        wanted = [wanted[k : k + _DECODED] for k in range(0, len(wanted), _DECODED)]
        for found, pixels, bad in decoded_batches(images, [self.teacher.preprocess], wanted, workers):
            if bad:
                raise PcclipError(f"{images[bad[0][0]]}: {bad[0][1]}; mend it, or remove its item from the set")
            for row, z0 in zip(found, self.teacher.latents(pixels[0]), strict=True):
                for item, column in shown[row]:
                    yield (item, column), self.scores(z0, texts[item], between_images)
                    meter.add()

    def cost(self, dataset: str) -> pd.DataFrame:
        """One row: UNet evaluations, what they would have been without stopping, seconds."""
        seconds = time.monotonic() - self._started
        return pd.DataFrame(
            [
                [
                    dataset,
                    self.images,
                    self.texts,
                    self.evaluations,
                    self.without_stopping,
                    seconds,
                    seconds / max(1, self.images),
                ]
            ],
            columns=COLUMNS,
        )

    def _errors(self, z0: Tensor, told: Tensor, seen: range) -> np.ndarray:
        """Errors of each text on each of the draws, (texts, draws), batch by batch."""
        text = torch.arange(len(told)).repeat(len(seen))
        draw = torch.arange(seen.start, seen.stop).repeat_interleave(len(told))
        found = [
            self.teacher.denoising(
                z0.expand(len(some), *z0.shape), self._draws.t[some], self._draws.noise[some], told[which]
            )
            for which, some in zip(
                text.split(self.settings.batch_size), draw.split(self.settings.batch_size), strict=True
            )
        ]
        return torch.cat(found).double().cpu().numpy().reshape(len(seen), len(told)).T


def eliminate(
    errors: Errors, texts: int, samples: int, stop: float | None, to_the_end: bool = False
) -> tuple[Float[np.ndarray, " texts"], int]:
    """The mean error of each text, and how many errors were asked for.

    After every ROUND draws a text is given up whose mean is above the best one's by more than `stop` standard errors of
    their difference, draw by draw. Its mean is then the best one's final mean plus that difference, so it stays above.

    Args:
        errors: the errors of some texts on some draws.
        stop: None never gives one up.
        to_the_end: go on with the last one until all draws are seen; else its mean is of those seen so far.

    Raises:
        PcclipError: an error that is not finite.
    """
    seen, alive, given_up = np.empty((texts, 0)), np.arange(texts), []
    asked = 0
    for start in range(0, samples, ROUND):
        if start and len(alive) == 1 and not to_the_end:
            break
        some = range(start, min(start + ROUND, samples))
        new = np.full((texts, len(some)), np.nan)
        new[alive] = errors(alive, some)
        if not np.isfinite(new[alive]).all():
            raise PcclipError("the teacher's errors are not finite; take evaluate.teacher.precision: fp32 or bf16")
        seen = np.hstack([seen, new])
        asked += len(alive) * len(some)
        best = alive[seen[alive].mean(axis=1).argmin()]
        if stop is not None:
            behind = seen[alive] - seen[best]
            spread = behind.std(axis=1, ddof=1) / np.sqrt(seen.shape[1]) if seen.shape[1] > 1 else np.inf
            out = alive[behind.mean(axis=1) > stop * spread]
            given_up += [(text, best, (seen[text] - seen[best]).mean()) for text in out]
            alive = np.setdiff1d(alive, out)
    found = np.full(texts, np.nan)
    found[alive] = seen[alive].mean(axis=1)
    for text, best, behind in reversed(given_up):  # the best one of a round is given up later, if at all
        found[text] = found[best] + behind
    return found, asked
