"""Tensors that are computed once and kept under the run: the teacher's latents of pictures and conditions of texts.

Batches are the same whether or not a run was interrupted, and numbers are kept as they are: reading is bit-equal to
computing afresh.
"""

import os
from collections.abc import Callable, Iterator
from functools import cache
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from pcclip.images import batches
from pcclip.runs.files import atomic
from pcclip.runs.progress import Meter, say
from pcclip.runs.stage import Stage

_FORMAT = 1
_SHARD = 1024  # rows in a file


class KeptTensors:
    """Rows of one shape in files of a folder: kept[rows] gives some of them, on the CPU."""

    def __init__(self, folder: Path, count: int):
        self._files = _files(folder, count)
        self._open = cache(_opened)

    def __getitem__(self, rows: Int[np.ndarray, " n"]) -> Tensor:
        return torch.cat([self._open(self._files[row // _SHARD])[row % _SHARD : row % _SHARD + 1] for row in rows])


def kept(
    folder: Path, inputs: dict, count: int, make: Callable[[list[range]], Iterator[Tensor]], at_once: int, what: str
) -> KeptTensors:
    """Do the stage of `count` rows of `what` in `folder`, or find it done.

    Args:
        inputs: everything that the rows depend on, JSON-able.
        make: the rows of each of some ranges, of `at_once` rows or of what is left of a file.
    """
    this = Stage(folder, {"format": _FORMAT, "rows": count, "at_once": at_once, **inputs})
    if this.done():
        say(f"{what}: kept already, read from {folder}")
        return KeptTensors(folder, count)
    with this.work():
        shards = batches(count, _SHARD)
        todo = {
            file: batches(len(rows), at_once, rows.start)
            for file, rows in zip(_files(this.partial, count), shards, strict=True)
            if not file.is_file()
        }
        meter = Meter(sum(len(rows) for wanted in todo.values() for rows in wanted), what)
        made = make([rows for wanted in todo.values() for rows in wanted])
        for file, wanted in todo.items():
            parts = []
            for part in islice(made, len(wanted)):
                parts.append(part.cpu())
                meter.add(len(part))
            _write(file, torch.cat(parts))
        for old in folder.glob("*.safetensors"):
            old.unlink()
        for file in _files(this.partial, count):
            os.replace(file, folder / file.name)
        this.finish([file.name for file in _files(folder, count)], {what: count})
    return KeptTensors(folder, count)


def _write(file: Path, rows: Tensor) -> None:
    from safetensors.torch import save_file

    with atomic(file) as temporary:
        save_file({"rows": rows.contiguous()}, temporary)


def _opened(file: Path):
    from safetensors import safe_open

    return safe_open(file, framework="pt").get_slice("rows")


def _files(folder: Path, count: int) -> list[Path]:
    return [folder / f"rows-{k:06d}.safetensors" for k in range(-(-count // _SHARD))]
