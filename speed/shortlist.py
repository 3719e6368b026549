"""The ends of a ranking by way of one byte a number: a quarter of the memory is read, and the result is exact.

Each tile of 96 vectors keeps, dimension by dimension, 96 codes of one byte, their scale and their offset, which is the
layout of torch's 8-bit embedding bag: its kernel then sums a tile's scores in registers. No score is further from the
true one than the largest distance between a vector and its codes, so that the vectors within twice this distance of the
k-th best by codes are certain to include the k best. Only these are scored exactly.
"""

from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, UInt8

from pcclip.ranking.topk import best_rows, ranked

TILE = 96  # vectors: sums of so many fill the registers of AVX2
AT_ONCE = 2**11  # tiles a call sums: with fewer the calls cost, with more the numbers of their rows
ROUNDING = 1e-4  # of sums of float32 over unit vectors, at most


class ByteVectors(NamedTuple):
    """Codes of a matrix: a row for each tile and dimension, and the largest distance of a vector from its codes."""

    codes: UInt8[np.ndarray, "rows bytes"]
    error: float


def byte_vectors(matrix: Float[np.ndarray, "n d"]) -> ByteVectors:
    """Codes of unit vectors; the last tile repeats the last vector."""
    tiles, width = -(-len(matrix) // TILE), matrix.shape[1]
    codes, error = np.empty((tiles, width, TILE + 8), np.uint8), 0.0
    for tile, rows in zip(codes, np.arange(tiles * TILE).reshape(tiles, TILE), strict=True):
        x = matrix.take(rows, axis=0, mode="clip").T
        low, high = x.min(axis=1, keepdims=True), x.max(axis=1, keepdims=True)
        step = np.maximum((high - low) / np.float32(255), np.float32(1e-12))
        tile[:, :TILE] = np.rint((x - low) / step)
        tile[:, TILE:] = np.concatenate([step, low], axis=1).view(np.uint8)
        error = max(error, float(np.linalg.norm(tile[:, :TILE] * step + low - x, axis=0).max()))
    return ByteVectors(codes.reshape(-1, TILE + 8), error)


def ranked_by_bytes(
    matrix: Float[np.ndarray, "n d"], short: ByteVectors, axis: Float[np.ndarray, " d"], top: int, bottom: int
) -> pd.DataFrame:
    """The table of `topk.ranked` for the projection of `matrix` on a unit `axis`."""
    width, codes = len(axis), torch.from_numpy(short.codes)
    bag = torch.ops.quantized.embedding_bag_byte_rowwise_offsets
    step = AT_ONCE * width
    rows, starts = torch.arange(step, dtype=torch.int32), torch.arange(0, step + 1, width, dtype=torch.int32)
    weights = torch.from_numpy(axis).repeat(AT_ONCE)
    parts = []
    for start in range(0, len(codes), step):
        part = codes[start : start + step]
        n = len(part)
        sums = bag(part, rows[:n], starts[: n // width + 1], False, 0, False, weights[:n], None, True)
        parts.append(sums.numpy().ravel())
    scores = np.concatenate(parts)[: len(matrix)]
    ends, margin = scores[best_rows(scores, top, bottom)], 2 * (short.error + ROUNDING)
    likely = np.flatnonzero((scores >= ends[top - 1] - margin) | (scores <= ends[-bottom] + margin))
    table = ranked(np.vecdot(matrix[likely], axis), top, bottom)
    positions = np.concatenate([np.arange(1, top + 1), np.arange(len(matrix) - bottom + 1, len(matrix) + 1)])
    return table.assign(row=likely[table.row], position=positions)
