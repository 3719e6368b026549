"""Stage 05 on planted vectors: what perfect arithmetic and no arithmetic at all look like."""

import numpy as np
import pandas as pd
import pytest
from helpers.planted import WIDTH, Fake, N, differences

from pcclip import config as params
from pcclip.arithmetic.retrieval import ALPHAS, RANK, forms, ranks, sweep, sweep_table
from pcclip.arithmetic.stage import changes, check_changes, measures, rank_share, summary
from pcclip.arithmetic.texts import Remembered
from pcclip.data.image_set import ImageSet
from pcclip.embedding.vectors import Vectors
from pcclip.errors import PcclipError
from pcclip.stats.vectors import unit


@pytest.fixture
def vectors(rng):
    ids = [f"photo{k}" for k in range(N)]
    return Vectors(ids, [f"/{name}.png" for name in ids], unit(rng.normal(size=(N, WIDTH))).astype(np.float32))


@pytest.fixture
def images(vectors):
    """The first 30 photos are held out; two share a concept."""
    concepts = [f"thing{k}" for k in range(N)]
    concepts[1] = "thing0"
    return ImageSet(
        "planted",
        pd.DataFrame(
            {
                "id": vectors.ids,
                "path": vectors.paths,
                "caption": [f"caption {k}" for k in range(N)],
                "concept": concepts,
                "label": None,
                "split": ["held_out"] * 30 + ["train"] * (N - 30),
            }
        ),
        pd.DataFrame(),
    )


@pytest.fixture
def pairs(rng):
    drawn = rng.integers(0, 30, (150, 2))
    first, second = drawn[drawn[:, 0] != drawn[:, 1]][:120].T
    return pd.DataFrame(
        {
            "first": [f"photo{i}" for i in first],
            "second": [f"photo{j}" for j in second],
            "first_caption": [f"caption {i}" for i in first],
            "second_caption": [f"caption {j}" for j in second],
            "difference": [f"{i} not {j}" for i, j in zip(first, second, strict=True)],
            "swapped": [f"{j} not {i}" for i, j in zip(first, second, strict=True)],
        }
    )


@pytest.fixture
def parallelograms(vectors):
    """f(caption i) = u_i and f('i not j') = unit(u_i - u_j)."""
    return Fake(differences(vectors.matrix))


@pytest.fixture
def noise(parallelograms, rng):
    return Fake({text: unit(rng.normal(size=WIDTH)) for text in parallelograms.vectors})


def by_measure(table):
    return {name: part.value.to_numpy() for name, part in table.groupby("measure")}


def test_perfect_parallelograms(parallelograms, vectors, images, pairs):
    found = by_measure(measures(parallelograms, vectors, images, pairs, 1.0))
    for kind in ("image difference", "caption difference"):
        np.testing.assert_allclose(found[kind], 1, atol=1e-5)
        np.testing.assert_allclose(found[f"{kind}, reversed text"], -1, atol=1e-5)
    assert found["retrieval rank, image + text"].max() < 2 / 29
    assert found["retrieval rank, image alone"].mean() == pytest.approx(0.5, abs=0.1)


def test_perfect_parallelograms_are_found_first(parallelograms, vectors, images, pairs):
    found = by_measure(measures(parallelograms, vectors, images, pairs, 1.0))
    assert (found["retrieval rank, image + text"] == 0).all()


def test_texts_that_know_nothing(noise, vectors, images, pairs):
    found = by_measure(measures(noise, vectors, images, pairs, 1.0))
    for name, values in found.items():
        chance = 0.5 if name.startswith("retrieval") else 0.0
        assert values.mean() == pytest.approx(chance, abs=0.1), name
        assert len(values) == len(pairs)


def test_a_reversed_text_leads_away(parallelograms, vectors, images, pairs):
    reverse = pairs.rename(columns={"difference": "swapped", "swapped": "difference"})
    found = by_measure(measures(parallelograms, vectors, images, reverse, 1.0))
    np.testing.assert_allclose(found["image difference"], -1, atol=1e-5)
    assert found["retrieval rank, image + text"].mean() > 0.9


def test_strength_is_the_length_of_the_step(parallelograms, vectors, images, pairs):
    ranks = [
        by_measure(measures(parallelograms, vectors, images, pairs, strength))["retrieval rank, image + text"]
        for strength in (1e-6, 0.05, 1.0)
    ]
    alone = by_measure(measures(parallelograms, vectors, images, pairs, 1.0))["retrieval rank, image alone"]
    np.testing.assert_allclose(ranks[0], alone, atol=0.05)
    assert ranks[0].mean() > ranks[1].mean() + 0.05 > ranks[2].mean() + 0.1


def test_rank_share_by_hand():
    steps = np.array([[0, 3, 2, 1], [0, 1, 2, 3], [0, 2, 3, 1.0], [9, 3, 2, 1]])
    pool, start, target = np.arange(4), np.zeros(4, dtype=int), np.ones(4, dtype=int)
    np.testing.assert_allclose(rank_share(np.eye(4), pool, target, start, steps), [0, 1, 1 / 2, 0])


def test_rank_share_by_brute_force(vectors, rng):
    matrix, pool = vectors.matrix.astype(np.float64), np.arange(5, 25)
    start, target = rng.choice(pool, (2, 30))
    start = np.where(start == target, (target - 4) % 20 + 5, start)
    steps = 0.1 * rng.normal(size=(30, WIDTH))
    expected = []
    for s, t, step in zip(start, target, steps, strict=True):
        query = (matrix[s] + step) / np.linalg.norm(matrix[s] + step)
        better = [k for k in pool if k != s and query @ matrix[k] > query @ matrix[t] + 1e-7]
        expected.append(len(better) / (len(pool) - 2))
    np.testing.assert_allclose(rank_share(matrix, pool, target, start, steps), expected)


# changes asked for in the parameters


def asking(neighbours=3, **change):
    return params.check(
        {"arithmetic": {"changes": [{"start": "thing0", "text": "7 not 0", **change}], "neighbours": neighbours}}
    )


def test_changes_find_what_was_meant(parallelograms, vectors, images):
    found = changes(asking(), images, vectors, parallelograms)
    assert list(found.columns) == ["start", "text", "position", "id", "path", "cosine"]
    assert found.id[0] == "photo7"
    assert found.path[0] == "/photo7.png"
    assert list(found.position) == [1, 2, 3]
    assert set(found.start) == {"photo0"}
    assert found.cosine.is_monotonic_decreasing
    u = vectors.matrix
    assert found.cosine[0] == pytest.approx(unit(u[0] + unit(u[7] - u[0])) @ u[7], abs=1e-5)


def test_changes_look_at_held_out_photos_only_and_never_at_the_start(parallelograms, vectors, images):
    found = changes(asking(neighbours=29, text="35 not 0"), images, vectors, parallelograms)
    assert set(found.id) == {f"photo{k}" for k in range(1, 30)}


def test_an_unknown_start_is_answered_with_the_known_ones(parallelograms, vectors, images):
    with pytest.raises(PcclipError, match="has no 'unicorn'; it has: thing"):
        check_changes(asking(start="unicorn"), images)


def test_a_start_that_is_trained_on_is_left_out_and_said(parallelograms, vectors, images, capsys):
    check_changes(asking(start="thing35"), images)
    assert changes(asking(start="thing35"), images, vectors, parallelograms).empty
    assert "no held-out photo of 'thing35'" in capsys.readouterr().out


def test_no_changes_asked_for(parallelograms, vectors, images):
    found = changes(params.check({}), images, vectors, parallelograms)
    assert len(found) == 0
    assert list(found.columns) == ["start", "text", "position", "id", "path", "cosine"]


def test_summary_has_intervals(parallelograms, noise, vectors, images, pairs):
    items = pd.concat(
        [
            measures(model, vectors, images, pairs, 1.0).assign(model=name)
            for name, model in (("finetuned", parallelograms), ("base", noise))
        ],
        ignore_index=True,
    )
    table = summary(items, 200, 0)
    assert len(table) == 12
    assert (table.n == len(pairs)).all()
    for row in table.itertuples():
        part = items[(items.measure == row.measure) & (items.model == row.model)]
        assert row.value == pytest.approx(part.value.mean())
        assert row.ci_low <= row.value + 1e-9
        assert row.ci_high >= row.value - 1e-9
    width = (table.ci_high - table.ci_low).groupby(table.model).max()
    assert 0 < width["base"] < 0.5
    exact = table[(table.model == "finetuned") & (table.measure == "image difference")].iloc[0]
    assert (exact.ci_low, exact.ci_high) == pytest.approx((1, 1), abs=1e-5)


# the sweep of alpha


def swept(model, vectors, pairs, alphas=ALPHAS):
    pool, start = np.arange(30), vectors.rows(pairs["second"])
    return sweep(
        vectors.matrix, pool, vectors.rows(pairs["first"]), start, forms(Remembered(model), pairs, 0), 200, 0, alphas
    )


def test_ranks_by_hand():
    scores = np.array([[9, 3, 2, 1.0], [9, 1, 2, 3], [9, 2, 2, 2], [1, 2, 3, 4]])
    np.testing.assert_allclose(ranks(scores, np.array([1, 1, 1, 0]), np.array([0, 0, 0, 3])), [0, 2, 1, 2])


def test_the_sweep_of_perfect_parallelograms(parallelograms, vectors, pairs):
    found = swept(parallelograms, vectors, pairs)
    for form in ("f(d)", "f(d) - f(swapped)", "f(caption 1) - f(caption 2)"):
        assert found[form, 0.0, RANK].value == pytest.approx(0.5, abs=0.08), "the image alone knows nothing"
        assert found[form, 1.0, RANK].value == 0
        assert found[form, 1.0, "recall@1"].value == 1
        assert found[form, float("inf"), "recall@1"].value == 1
    assert found["f(caption 1)", float("inf"), RANK].value == 0
    assert found["f(d) of another pair", 1.0, RANK].value == pytest.approx(0.5, abs=0.1)
    values = [found["f(d)", alpha, RANK].value for alpha in sorted(ALPHAS)]
    assert values == sorted(values, reverse=True)


def test_the_sweep_of_texts_that_know_nothing(noise, vectors, pairs):
    for (form, alpha, metric), one in swept(noise, vectors, pairs).items():
        if metric == RANK:
            assert one.value == pytest.approx(0.5, abs=0.1), (form, alpha)


def test_the_sweep_of_a_constant_is_the_image_alone(vectors, pairs, rng):
    constant = unit(rng.normal(size=WIDTH))
    blind = Fake(dict.fromkeys(differences(vectors.matrix), constant))
    found = swept(blind, vectors, pairs)
    assert found["f(d)", float("inf"), RANK].value == pytest.approx(0.5, abs=0.1)
    assert found["f(d) - f(swapped)", 1.0, RANK].value == pytest.approx(found["f(d)", 0.0, RANK].value, abs=1e-6)


def test_the_sweep_says_what_the_items_say(parallelograms, vectors, images, pairs):
    found = by_measure(measures(parallelograms, vectors, images, pairs, 0.05))["retrieval rank, image + text"]
    assert swept(parallelograms, vectors, pairs, [0.05])["f(d)", 0.05, RANK].value == pytest.approx(
        found.mean(), abs=1e-6
    )


def test_the_table_of_sweeps(parallelograms, vectors, pairs):
    found = swept(parallelograms, vectors, pairs, [0.0, 1.0])
    table = sweep_table({"base": found, "finetuned": found})
    assert list(table.columns) == ["model", "form", "alpha", "metric", "value", "ci_low", "ci_high", "n"]
    assert len(table) == 2 * 5 * 2 * 4
    assert (table.n == len(pairs)).all()
