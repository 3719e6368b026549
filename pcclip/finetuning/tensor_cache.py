"""Tensors that are computed once and stored under the run: the teacher's latents of images and conditions of texts.

Batches are the same whether or not a run was interrupted, and values are stored exactly: reading them is bit-equal to
computing them again.
"""

import os
from collections.abc import Callable, Iterator
from functools import cache
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from pcclip.images import batches
from pcclip.runs.files import write_tensors
from pcclip.runs.progress import Meter, say
from pcclip.runs.stage import Stage

_FORMAT = 1
_ROWS_IN_FILE = 1024


class CachedTensors:
    """Rows of one shape in the files of a folder: cached[rows] reads those rows, on the CPU."""

    def __init__(self, folder: Path, count: int):
        self._files = _files(folder, count)
        self._open = cache(_opened)

    def __getitem__(self, rows: Int[np.ndarray, " n"]) -> Tensor:
        places = [divmod(int(row), _ROWS_IN_FILE) for row in rows]
        return torch.cat([self._open(self._files[file])[row : row + 1] for file, row in places])


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
    kind = folder.name.partition("-")[0]
    if stage.done():
        say(f"{kind}: kept already, read from {folder}")
        return CachedTensors(folder, count)
    with stage.work():
        files = _files(stage.partial, count)
        missing = {
            file: batches(len(rows), at_once, rows.start)
            for file, rows in zip(files, batches(count, _ROWS_IN_FILE), strict=True)
            if not file.is_file()
        }
        ranges = [rows for file_ranges in missing.values() for rows in file_ranges]
        meter, tensors = Meter(sum(map(len, ranges)), kind), make(ranges)
        for file, file_ranges in missing.items():
            parts = []
            for part in islice(tensors, len(file_ranges)):
                parts.append(part.cpu())
                meter.add(len(part))
            write_tensors(file, {"rows": torch.cat(parts)})
        for stale in folder.glob("*.safetensors"):
            stale.unlink()
        for file in files:
            os.replace(file, folder / file.name)
        stage.finish([file.name for file in files], {kind: count})
    return CachedTensors(folder, count)


def _opened(file: Path) -> Any:
    from safetensors import safe_open

    return safe_open(file, framework="pt").get_slice("rows")


def _files(folder: Path, count: int) -> list[Path]:
    return [folder / f"rows-{k:06d}.safetensors" for k in range(-(-count // _ROWS_IN_FILE))]
