"""Stage 05 on planted vectors: what perfect arithmetic and no arithmetic at all look like."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from helpers.planted import WIDTH, Fake, N, differences

from pcclip import config as params
from pcclip.arithmetic import retrieval
from pcclip.arithmetic.differences import HeldOut
from pcclip.arithmetic.geometry import item_table, summary
from pcclip.arithmetic.retrieval import RANK, change_table, check_changes, rank_share, ranks, sweep
from pcclip.arithmetic.texts import TextMemory
from pcclip.config import Data
from pcclip.data.image_set import ImageSet, units
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


def test_intervals_draw_concepts_where_whole_concepts_are_held_out(images):
    by_concept, official = Data(split="concept"), Data(split="official")
    assert units(images, by_concept)["photo0"] == units(images, by_concept)["photo1"] == "thing0"
    assert units(images, official) == units(images, by_concept), "the authors held out whole concepts too"
    images.table.loc[N - 1, "concept"] = "thing0"  # now on both sides
    assert units(images, official) == {image: image for image in images.table["id"]}
    assert units(images, by_concept)["photo1"] == "thing0"


@pytest.fixture
def held_out(vectors, images, rng):
    """120 pairs of the 30 held-out photos."""
    drawn = rng.integers(0, 30, (150, 2))
    first, second = drawn[drawn[:, 0] != drawn[:, 1]][:120].T
    pairs = pd.DataFrame(
        {
            "first": [f"photo{i}" for i in first],
            "second": [f"photo{j}" for j in second],
            "first_caption": [f"caption {i}" for i in first],
            "second_caption": [f"caption {j}" for j in second],
            "difference": [f"{i} not {j}" for i, j in zip(first, second, strict=True)],
            "swapped": [f"{j} not {i}" for i, j in zip(first, second, strict=True)],
        }
    )
    return HeldOut(vectors, vectors.of(images.held_out), pairs, (np.empty(0, int), np.empty(0, int)), 5, 200, 0)


@pytest.fixture
def parallelograms(vectors):
    """f(caption i) = u_i and f('i not j') = unit(u_i - u_j)."""
    return TextMemory(Fake(differences(vectors.matrix)))


@pytest.fixture
def noise(parallelograms, rng):
    return TextMemory(Fake({text: unit(rng.normal(size=WIDTH)) for text in parallelograms.model.vectors}))


def by_measure(held_out, model, strength=1.0):
    table = item_table(held_out, {"finetuned": model}, strength)
    return {name: part.value.to_numpy() for name, part in table.groupby("measure")}


def test_perfect_parallelograms(parallelograms, held_out):
    values = by_measure(held_out, parallelograms)
    for kind in ("image difference", "caption difference"):
        np.testing.assert_allclose(values[kind], 1, atol=1e-5)
        np.testing.assert_allclose(values[f"{kind}, reversed text"], -1, atol=1e-5)
    assert (values["retrieval rank, image + text"] == 0).all()
    assert values["retrieval rank, image alone"].mean() == pytest.approx(0.5, abs=0.1)


def test_texts_that_know_nothing(noise, held_out):
    for name, values in by_measure(held_out, noise).items():
        chance = 0.5 if name.startswith("retrieval") else 0.0
        assert values.mean() == pytest.approx(chance, abs=0.1), name
        assert len(values) == 120


def test_a_reversed_text_leads_away(parallelograms, held_out):
    reverse = held_out.pairs.rename(columns={"difference": "swapped", "swapped": "difference"})
    values = by_measure(replace(held_out, pairs=reverse), parallelograms)
    np.testing.assert_allclose(values["image difference"], -1, atol=1e-5)
    assert values["retrieval rank, image + text"].mean() > 0.9


def test_strength_is_the_length_of_the_step(parallelograms, held_out):
    found = [by_measure(held_out, parallelograms, strength) for strength in (1e-6, 0.05, 1.0)]
    ranks = [values["retrieval rank, image + text"] for values in found]
    np.testing.assert_allclose(ranks[0], found[2]["retrieval rank, image alone"], atol=0.05)
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


def test_changes_find_what_was_meant(parallelograms, held_out):
    table = change_table(asking(), held_out, {"base": parallelograms})
    assert list(table.columns) == retrieval.CHANGE_COLUMNS
    assert (table.id[0], table.path[0]) == ("photo7", "/photo7.png")
    assert list(table.position) == [1, 2, 3]
    assert set(table.start) == {"photo0"}
    assert table.cosine.is_monotonic_decreasing
    u = held_out.vectors.matrix
    assert table.cosine[0] == pytest.approx(unit(u[0] + unit(u[7] - u[0])) @ u[7], abs=1e-5)


def test_changes_look_at_held_out_photos_only_and_never_at_the_start(parallelograms, held_out):
    table = change_table(asking(neighbours=29, text="35 not 0"), held_out, {"base": parallelograms})
    assert set(table.id) == {f"photo{k}" for k in range(1, 30)}


def test_an_unknown_start_is_answered_with_the_known_ones(images):
    with pytest.raises(PcclipError, match="has no 'unicorn'; it has: thing"):
        check_changes(asking(start="unicorn"), images)


def test_a_start_that_is_trained_on_is_left_out_and_said(parallelograms, images, held_out, capsys):
    check_changes(asking(start="thing35"), images)
    table = change_table(asking(start="thing35"), held_out, {"base": parallelograms})
    assert table.empty
    assert list(table.columns) == retrieval.CHANGE_COLUMNS
    assert "no held-out photo of 'thing35'" in capsys.readouterr().out
    assert change_table(params.check({}), held_out, {"base": parallelograms}).empty


def test_summary_has_intervals(parallelograms, noise, held_out):
    items = item_table(held_out, {"finetuned": parallelograms, "base": noise}, 1.0)
    table = summary(items, 200, 0)
    assert len(table) == 12
    assert (table.n == 120).all()
    means = items.groupby(["measure", "model"], sort=False).value.mean()
    np.testing.assert_allclose(table.set_index(["measure", "model"]).value[means.index], means)
    assert ((table.ci_low <= table.value + 1e-9) & (table.ci_high >= table.value - 1e-9)).all()
    width = (table.ci_high - table.ci_low).groupby(table.model).max()
    assert 0 < width["base"] < 0.5
    exact = table[(table.model == "finetuned") & (table.measure == "image difference")].iloc[0]
    assert (exact.ci_low, exact.ci_high) == pytest.approx((1, 1), abs=1e-5)


# the sweep of alpha

ALPHAS = (0.0, 0.1, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 4.0, float("inf"))


def test_ranks_by_hand():
    scores = np.array([[9, 3, 2, 1.0], [9, 1, 2, 3], [9, 2, 2, 2], [1, 2, 3, 4]])
    np.testing.assert_allclose(ranks(scores, np.array([1, 1, 1, 0]), np.array([0, 0, 0, 3])), [0, 2, 1, 2])


def test_the_sweep_of_perfect_parallelograms(parallelograms, held_out):
    found = sweep(held_out, parallelograms, ALPHAS)
    for form in ("f(d)", "f(d) - f(swapped)", "f(caption 1) - f(caption 2)"):
        assert found[form, 0.0, RANK].value == pytest.approx(0.5, abs=0.08), "the image alone knows nothing"
        assert found[form, 1.0, RANK].value == 0
        assert found[form, 1.0, "recall@1"].value == 1
        assert found[form, float("inf"), "recall@1"].value == 1
    assert found["f(caption 1)", float("inf"), RANK].value == 0
    assert found["f(d) of another pair", 1.0, RANK].value == pytest.approx(0.5, abs=0.1)
    values = [found["f(d)", alpha, RANK].value for alpha in ALPHAS]
    assert values == sorted(values, reverse=True)


def test_the_sweep_of_texts_that_know_nothing(noise, held_out):
    for (form, alpha, metric), estimate in sweep(held_out, noise, ALPHAS).items():
        if metric == RANK:
            assert estimate.value == pytest.approx(0.5, abs=0.1), (form, alpha)


def test_the_sweep_of_a_constant_is_the_image_alone(held_out, rng):
    blind = Fake(dict.fromkeys(differences(held_out.vectors.matrix), unit(rng.normal(size=WIDTH))))
    found = sweep(held_out, TextMemory(blind), ALPHAS)
    assert found["f(d)", float("inf"), RANK].value == pytest.approx(0.5, abs=0.1)
    assert found["f(d) - f(swapped)", 1.0, RANK].value == pytest.approx(found["f(d)", 0.0, RANK].value, abs=1e-6)


def test_the_sweep_says_what_the_items_say(parallelograms, held_out):
    values = by_measure(held_out, parallelograms, 0.05)["retrieval rank, image + text"]
    assert sweep(held_out, parallelograms, [0.05])["f(d)", 0.05, RANK].value == pytest.approx(values.mean(), abs=1e-6)


def test_the_table_of_sweeps(parallelograms, held_out):
    found = sweep(held_out, parallelograms, [0.0, 1.0])
    table = retrieval.table({"base": found, "finetuned": found})
    assert list(table.columns) == ["model", "form", "alpha", "metric", "value", "ci_low", "ci_high", "n", "detectable"]
    assert len(table) == 2 * 5 * 2 * 4
    assert (table.n == 120).all()
