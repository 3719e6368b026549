"""What changed, in words: a planted bank is ranked as planted, and a model is as sure as it is right."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from helpers.planted import Fake, N, differences, orthogonal

from pcclip.arithmetic import explain
from pcclip.arithmetic.differences import HeldOut
from pcclip.arithmetic.explain import bank_of
from pcclip.arithmetic.texts import TextMemory
from pcclip.embedding.vectors import Vectors
from pcclip.errors import PcclipError


@pytest.fixture
def u(rng):
    return orthogonal(rng)


@pytest.fixture
def vectors(u):
    ids = [f"photo{k}" for k in range(N)]
    return Vectors(ids, [f"/{name}.png" for name in ids], u)


@pytest.fixture
def model(u):
    return TextMemory(Fake(differences(u)))


@pytest.fixture
def held_out(vectors):
    return HeldOut(vectors, pd.DataFrame(), pd.DataFrame(), (np.empty(0, int), np.empty(0, int)), 0, 100, 0)


def bank(pairs) -> pd.DataFrame:
    texts, twins = ([f"{a} not {b}" for a, b in ends] for ends in (pairs, [(j, i) for i, j in pairs]))
    return pd.DataFrame({"text": texts, "twin": twins, "source": "made"})


def written(pairs) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "first": [f"photo{i}" for i, _ in pairs],
            "second": [f"photo{j}" for _, j in pairs],
            "difference": [f"{i} not {j}" for i, j in pairs],
            "swapped": [f"{j} not {i}" for i, j in pairs],
        }
    )


PAIRS = [(0, 1), (0, 2), (3, 1), (4, 5), (1, 0), (6, 7)]


def test_the_right_sentence_is_best_and_its_reverse_worst(model, vectors):
    found = explain.explain(model, vectors, ("photo0", "photo1"), bank(PAIRS), shown=1)
    assert list(found.text) == ["0 not 1", "1 not 0"]
    assert list(found.position) == [1, 6]
    assert (found.of == 6).all()
    np.testing.assert_allclose(found.score, [1, -1], atol=1e-5)


def test_half_right_sentences_come_between(model, vectors):
    found = explain.explain(model, vectors, ("photo0", "photo1"), bank(PAIRS), shown=3)
    assert set(found.text[1:3]) == {"0 not 2", "3 not 1"}
    np.testing.assert_allclose(found.score, [1, 0.5, 0.5, 0, 0, -1], atol=1e-4)


def test_exchanging_the_images_turns_every_score_round(model, vectors):
    one, two = (
        explain.scores(model, vectors.matrix, np.array([a]), np.array([b]), bank(PAIRS)) for a, b in ((0, 1), (1, 0))
    )
    np.testing.assert_allclose(one, -two, atol=1e-6)


def test_an_offset_of_all_texts_changes_nothing(u, model, vectors, rng):
    offset = 9 * orthogonal(rng, 1)[0]
    shifted = TextMemory(Fake({text: v + offset for text, v in differences(u).items()}))
    one, two = (explain.scores(m, vectors.matrix, np.array([0]), np.array([1]), bank(PAIRS)) for m in (model, shifted))
    np.testing.assert_allclose(one, two, atol=1e-3)


def test_a_bank_is_of_sentences_with_a_twin_and_of_attribute_phrases():
    table = pd.concat([written(PAIRS), written(PAIRS[:1])], ignore_index=True)
    table.loc[4, "swapped"] = ""
    alone = bank_of(table, None, 100, 0)
    assert list(alone.text) == ["0 not 1", "0 not 2", "3 not 1", "4 not 5", "6 not 7"]
    assert alone.twin[0] == "1 not 0"
    both = bank_of(table, "size", 2, 0)
    assert (both.source == "a pair of 01").sum() == 2
    phrases = both[both.source == "size"]
    assert len(phrases)
    assert set(phrases.twin) == set(phrases.text)


@pytest.fixture(autouse=True)
def two_explained(monkeypatch):
    monkeypatch.setattr(explain, "EXPLAINED", 2)


def test_explanations_by_each_model_mark_the_own_sentence(model, held_out, vectors):
    table = explain.explanations(held_out, {"base": model, "finetuned": model}, written(PAIRS), bank(PAIRS))
    assert list(table.columns) == explain.COLUMNS
    assert len(table) == 2 * 2 * 6
    assert (table.own == (table.position == 1)).all()
    paths, names = explain.photos_of(table, vectors, pd.DataFrame({"id": vectors.ids, "caption": vectors.ids}))
    assert len(paths) == len(names) == 4
    assert paths[0] == f"/{names[0]}.png"


def test_explained_pairs_have_their_own_sentence_in_the_bank(model, held_out):
    for seed in range(5):
        table = explain.explanations(replace(held_out, seed=seed), {"base": model}, written(PAIRS), bank(PAIRS[:2]))
        assert set(zip(table["first"], table.second, strict=True)) == {("photo0", "photo1"), ("photo0", "photo2")}
    elsewhere = explain.explanations(held_out, {"base": model}, written(PAIRS), bank([(8, 9)]))
    assert elsewhere.pair.nunique() == 2, "any pair, where none has its own"


def test_nothing_to_explain_with(model, held_out, vectors):
    empty = bank_of(written([]), None, 10, 0)
    assert empty.empty
    assert explain.explanations(held_out, {"base": model}, written(PAIRS), empty).empty
    with pytest.raises(PcclipError, match="no sentence to explain with"):
        explain.explain(model, vectors, ("photo0", "photo1"), empty)
    with pytest.raises(PcclipError, match="1 images have no vector, e.g. 'unicorn'"):
        explain.explain(model, vectors, ("photo0", "unicorn"), bank(PAIRS))
