"""Texts as tokens, end to end and without padding, and how they are grouped so that little padding is computed.

Neither changes a result beyond rounding: a causal tower never looks at what follows the pooled token, a bidirectional
one masks the padding, and every text's vector is put back where the text was.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor


@dataclass(frozen=True)
class Tokens:
    """Token ids of many texts, special tokens included: text i is ids[starts[i]:starts[i + 1]].

    Four bytes a token, and any texts of it are taken without a Python loop over them.
    """

    ids: Int[np.ndarray, " total"]
    starts: Int[np.ndarray, " texts+1"]

    @classmethod
    def of(cls, lists: Sequence[Sequence[int]], limit: int) -> "Tokens":
        """Longer than `limit` is cut, keeping the end-of-text token."""
        cut = [ids if len(ids) <= limit else [*ids[: limit - 1], ids[-1]] for ids in lists]
        flat = np.fromiter((token for ids in cut for token in ids), dtype=np.int32, count=sum(map(len, cut)))
        return cls.with_lengths(flat, np.fromiter(map(len, cut), dtype=np.int64, count=len(cut)))

    @classmethod
    def with_lengths(cls, ids: Int[np.ndarray, " total"], lengths: Int[np.ndarray, " texts"]) -> "Tokens":
        return cls(ids, np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64))

    @classmethod
    def joined(cls, parts: Sequence["Tokens"]) -> "Tokens":
        """The texts of all parts, one part after the other."""
        return cls.with_lengths(
            np.concatenate([part.ids for part in parts]), np.concatenate([part.lengths for part in parts])
        )

    @property
    def lengths(self) -> Int[np.ndarray, " texts"]:
        return np.diff(self.starts)

    def __len__(self) -> int:
        return len(self.starts) - 1

    def __getitem__(self, rows: Int[np.ndarray, " some"]) -> "Tokens":
        """The texts of `rows`, in their order."""
        lengths = self.lengths[rows]
        return Tokens.with_lengths(self.ids[np.repeat(self.starts[rows], lengths) + places(lengths)], lengths)

    def padded(self, pad_id: int, longest: int | None = None) -> Int[Tensor, "texts longest"]:
        """Rows of equal length, filled with `pad_id` at the end."""
        lengths = self.lengths
        longest = max(longest or 0, int(lengths.max(initial=0)))
        out = np.full((len(self), longest), pad_id, dtype=np.int64)
        out[np.arange(longest) < lengths[:, None]] = self.ids
        return torch.from_numpy(out)


def places(lengths: Int[np.ndarray, " texts"]) -> Int[np.ndarray, " total"]:
    """0, 1, ... within every text, end to end."""
    ends = np.cumsum(lengths)
    return np.arange(int(ends[-1]) if len(ends) else 0) - np.repeat(ends - lengths, lengths)


def groups(lengths: Int[np.ndarray, " texts"], overhead: float) -> list[Int[np.ndarray, " group"]]:
    """Rows in groups of similar length, shortest first, with the least padding and groups for what they cost.

    The cost of a group is its texts times the longest of them, plus `overhead`, all in tokens. Sorting by length makes
    every group a run, so the best cut is found exactly, over the distinct lengths.
    """
    if not len(lengths):
        return []
    kinds, counts = np.unique(lengths, return_counts=True)
    until = np.concatenate([[0], np.cumsum(counts)])  # texts shorter than kind k
    cost, cut = np.zeros(len(kinds) + 1), np.zeros(len(kinds) + 1, dtype=np.int64)
    for end in range(1, len(kinds) + 1):
        tried = cost[:end] + (until[end] - until[:end]) * kinds[end - 1] + overhead
        cut[end] = tried.argmin()
        cost[end] = tried[cut[end]]
    edges = [len(kinds)]
    while edges[-1]:
        edges.append(int(cut[edges[-1]]))
    return np.split(np.argsort(lengths, kind="stable"), until[edges[-2:0:-1]])
