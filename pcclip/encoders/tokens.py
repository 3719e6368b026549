"""Texts as tokens, end to end and without padding, and how they are grouped so that little padding is computed.

Neither changes a result beyond rounding: a causal tower never looks at tokens after the pooled one, a bidirectional
tower masks the padding, and the vectors are returned in the order of the texts.
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

    A token takes four bytes, and indexing by rows needs no Python loop over texts.
    """

    ids: Int[np.ndarray, " total"]
    starts: Int[np.ndarray, " starts"]  # one more than there are texts

    @classmethod
    def of(cls, lists: Sequence[Sequence[int]], limit: int) -> "Tokens":
        """Pack lists of token ids; a list longer than `limit` is cut, keeping its last token, the end of text."""
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
    """The position of each token within its text: 0, 1, ... for every text, end to end."""
    ends = np.cumsum(lengths)
    return np.arange(int(ends[-1]) if len(ends) else 0) - np.repeat(ends - lengths, lengths)


def groups(lengths: Int[np.ndarray, " texts"], overhead: int | float) -> list[Int[np.ndarray, " group"]]:
    """Group texts of similar length, shortest first, at the least total cost. Returns the rows of each group.

    The cost of a group, in tokens, is its number of texts times its longest length, plus `overhead`. With texts sorted
    by length every group is a contiguous run, so dynamic programming over the distinct lengths finds the best cuts.
    """
    if not len(lengths):
        return []
    distinct, counts = np.unique(lengths, return_counts=True)
    before = np.concatenate([[0], np.cumsum(counts)])  # number of texts shorter than distinct[k]
    cost, cut = np.zeros(len(distinct) + 1), np.zeros(len(distinct) + 1, dtype=np.int64)
    for end in range(1, len(distinct) + 1):
        candidates = cost[:end] + (before[end] - before[:end]) * distinct[end - 1] + overhead
        cut[end] = candidates.argmin()
        cost[end] = candidates[cut[end]]
    edges = [len(distinct)]
    while edges[-1]:
        edges.append(int(cut[edges[-1]]))
    return np.split(np.argsort(lengths, kind="stable"), before[edges[-2:0:-1]])
