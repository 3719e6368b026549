"""The pixels of a run's images, batch by batch: in memory if all fit, else decoded ahead while the caller computes.

Preprocessing is the model's own and the same each time: nothing is cropped or coloured at random.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing

import numpy as np
import torch
from jaxtyping import Float, Int
from PIL import Image
from torch import Tensor

from pcclip.errors import PcclipError
from pcclip.images import batches, decoded_batches

_IN_MEMORY = 2**30  # bytes of pixels, at most
_AT_ONCE = 64  # images decoded at once where all are kept in memory


class Pixels:
    """Preprocessed images, by row.

    Args:
        paths: image files.
        preprocess: PIL image to pixels, as the model that sees them needs.
        workers: threads that decode.
    """

    def __init__(self, paths: Sequence[str], preprocess: Callable[[Image.Image], Tensor], workers: int):
        blank = preprocess(Image.new("RGB", (8, 8)))
        self._paths, self._preprocess, self._workers = paths, preprocess, workers
        self._fits = len(paths) * blank.nbytes <= _IN_MEMORY
        self._all: Tensor | None = None

    def each(self, wanted: Iterable[Sequence[int] | Int[np.ndarray, " _"]]) -> Iterator[Float[Tensor, "n 3 h w"]]:
        """The pixels of each batch of rows, decoded while the caller computes.

        Raises PcclipError naming an image that cannot be read any more.
        """
        if not self._fits:
            yield from self._decoded(wanted)
            return
        if self._all is None:
            self._all = torch.cat(list(self._decoded(batches(len(self._paths), _AT_ONCE))))
        for rows in wanted:
            yield self._all[torch.from_numpy(np.asarray(rows))]

    def _decoded(self, wanted: Iterable[Sequence[int] | Int[np.ndarray, " _"]]) -> Iterator[Tensor]:
        with closing(decoded_batches(self._paths, [self._preprocess], map(list, wanted), self._workers)) as decoded:
            for _, pixels, bad in decoded:
                if bad:
                    row, reason = bad[0]
                    raise PcclipError(
                        f"{self._paths[row]}: {reason}, though notebook 02 could read it; mend it, or run 02 again "
                        "without it"
                    )
                yield pixels[0]
