"""Token storage and grouping by length: what is taken, what is cut, and that no cheaper grouping exists."""

import itertools

import numpy as np
import pytest

from pcclip.encoders.tokens import Tokens, groups, places

LISTS = [[5, 6, 7], [5], [8, 9], [5, 6, 7, 1, 2, 3]]


def lists(tokens: Tokens) -> list[list[int]]:
    return [tokens.ids[a:b].tolist() for a, b in itertools.pairwise(tokens.starts)]


def test_texts_come_back_as_they_were():
    tokens = Tokens.of(LISTS, 10)
    assert lists(tokens) == LISTS
    assert len(tokens) == 4
    assert tokens.lengths.tolist() == [3, 1, 2, 6]
    assert lists(Tokens.of([], 10)) == []


def test_too_long_a_text_is_cut_and_keeps_its_end():
    assert lists(Tokens.of(LISTS, 4)) == [*LISTS[:3], [5, 6, 7, 3]]


@pytest.mark.parametrize("rows", [[2, 0, 0, 3], [1], [], [3, 2, 1, 0]])
def test_any_rows_in_any_order(rows):
    assert lists(Tokens.of(LISTS, 10)[np.array(rows, dtype=np.int64)]) == [LISTS[i] for i in rows]


def test_joined():
    one, two = Tokens.of(LISTS[:1], 10), Tokens.of(LISTS[1:], 10)
    assert lists(Tokens.joined([one, two, one])) == [*LISTS, LISTS[0]]


def test_padded():
    assert Tokens.of(LISTS[:3], 10).padded(-1).tolist() == [[5, 6, 7], [5, -1, -1], [8, 9, -1]]
    assert Tokens.of(LISTS[:3], 10).padded(0, longest=4).tolist() == [[5, 6, 7, 0], [5, 0, 0, 0], [8, 9, 0, 0]]


def test_places():
    assert places(np.array([3, 0, 2])).tolist() == [0, 1, 2, 0, 1]
    assert places(np.array([], dtype=np.int64)).tolist() == []


def cost(lengths, found, overhead) -> float:
    return sum(len(rows) * lengths[rows].max() + overhead for rows in found)


@pytest.mark.parametrize("overhead", [0, 3, 20, 1e6])
def test_no_grouping_of_sorted_texts_is_cheaper(rng, overhead):
    lengths = rng.integers(1, 25, 9)
    found = groups(lengths, overhead)
    assert sorted(np.concatenate(found)) == list(range(9))
    assert (np.diff(lengths[np.concatenate(found)]) >= 0).all()
    order = np.argsort(lengths, kind="stable")
    every = [np.split(order, cuts) for k in range(9) for cuts in itertools.combinations(range(1, 9), k)]
    assert cost(lengths, found, overhead) == min(cost(lengths, parts, overhead) for parts in every)
    assert len(found) == {0: len(set(lengths)), 1e6: 1}.get(overhead, len(found))


def test_nothing_to_group():
    assert groups(np.array([], dtype=np.int64), 1) == []
