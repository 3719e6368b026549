"""Tensors that are computed once and stored under the run: the teacher's latents of images and conditions of texts.

Batches are the same whether or not a run was interrupted, and values are stored exactly: reading them is bit-equal to
computing them again.
"""

import os
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from pcclip.images import batches
from pcclip.runs.files import write_tensors
from pcclip.runs.progress import Meter, say
from pcclip.runs.stage import Stage, once

_FORMAT = 1
_ROWS_IN_FILE = 1024


class CachedTensors:
    """Rows of one shape in files of _ROWS_IN_FILE rows: cached[rows] reads those rows, on the CPU."""

    def __init__(self, files: list[Path]):
        self._files, self._open = files, cache(_opened)

    def __getitem__(self, rows: Int[np.ndarray, " n"]) -> Tensor:
        places = [divmod(int(row), _ROWS_IN_FILE) for row in rows]
        return torch.cat([self._open(self._files[file])[row : row + 1] for file, row in places])


@once
def cached_tensors(
    folder: Path, inputs: dict, count: int, make: Callable[[list[range]], Iterator[Tensor]], at_once: int
) -> CachedTensors:
    """Compute and store `count` rows in `folder`, unless that is done; a killed computation continues.

    Args:
        folder: named KIND-DIGEST; messages call the rows KIND.
        inputs: everything that the rows depend on, JSON-able.
        make: given row ranges (at most `at_once` rows each), yields one tensor per range.
    """
    stage = Stage(folder, {"format": _FORMAT, "rows": count, "at_once": at_once, **inputs})
    kind, parts = folder.name.partition("-")[0], batches(count, _ROWS_IN_FILE)
    names = [f"rows-{k:06d}.safetensors" for k in range(len(parts))]
    if stage.done():
        say(f"{kind}: kept already, read from {folder}")
        return CachedTensors([folder / name for name in names])
    with stage.work():
        meter = Meter(count, kind)
        for name, rows in zip(names, parts, strict=True):
            if not (stage.partial / name).is_file():
                tensors = make(batches(len(rows), at_once, rows.start))
                write_tensors(stage.partial / name, {"rows": torch.cat([tensor.cpu() for tensor in tensors])})
            meter.add(len(rows))
        for stale in folder.glob("*.safetensors"):
            stale.unlink()
        for name in names:
            os.replace(stage.partial / name, folder / name)
        stage.finish(names, {kind: count})
    return CachedTensors([folder / name for name in names])


def _opened(file: Path) -> Any:
    from safetensors import safe_open

    return safe_open(file, framework="pt").get_slice("rows")
