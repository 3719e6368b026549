"""The pixels of a run's images, batch by batch: kept in memory where all of them fit, decoded ahead where they do not.

What an image becomes is the model's own preprocessing, the same each time: nothing is cut or coloured at random.
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
_AT_ONCE = 64


class Pictures:
    """Images by number.

    Args:
        paths: where they are.
        preprocess: of the model that is to see them.
        workers: threads that decode.
        draft: decode large JPEG files at a fraction of their size, at least so many times what the model sees.
    """

    def __init__(
        self, paths: Sequence[str], preprocess: Callable[[Image.Image], Tensor], workers: int, draft: int | None = None
    ):
        blank = preprocess(Image.new("RGB", (8, 8)))
        self._paths, self._preprocess, self._workers = paths, preprocess, workers
        self._at_least = draft and draft * max(blank.shape[1:])
        self._small = len(paths) * blank.nbytes <= _IN_MEMORY
        self._kept: Tensor | None = None

    def each(self, wanted: Iterable[Int[np.ndarray, " n"]]) -> Iterator[Float[Tensor, "n 3 h w"]]:
        """The pixels of each of the wanted rows of images, decoded while the caller computes.

        Raises PcclipError naming an image that cannot be read any more.
        """
        if not self._small:
            yield from self._decoded(wanted)
            return
        if self._kept is None:
            self._kept = torch.cat(list(self._decoded(batches(len(self._paths), _AT_ONCE))))
        for rows in wanted:
            yield self._kept[torch.from_numpy(np.asarray(rows))]

    def _decoded(self, wanted: Iterable[Sequence[int]]) -> Iterator[Tensor]:
        with closing(
            decoded_batches(self._paths, [self._preprocess], wanted, self._workers, self._at_least)
        ) as decoded:
            for _, pixels, bad in decoded:
                if bad:
                    raise PcclipError(
                        f"{self._paths[bad[0][0]]}: {bad[0][1]}, though notebook 02 could read it; mend "
                        "it, or run 02 again without it"
                    )
                yield pixels[0]
