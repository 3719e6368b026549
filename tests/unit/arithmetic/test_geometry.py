"""Every measure of the geometry on planted vectors: perfect parallelograms, one constant offset, and nothing at all."""

import numpy as np
import pandas as pd
import pytest
from helpers.planted import WIDTH, Fake, N, differences, orthogonal

from pcclip.arithmetic import analogies, claims, geometry
from pcclip.arithmetic.differences import (
    HeldOut,
    additivity,
    alignment,
    antisymmetry,
    draw_triples,
    shuffled,
    sides,
)
from pcclip.arithmetic.geometry import effective_rank, modality_gap
from pcclip.arithmetic.retrieval import sweeps
from pcclip.arithmetic.texts import TextMemory
from pcclip.embedding.vectors import Vectors
from pcclip.stats.vectors import unit

M = 60


def drawn(rng, legs: int) -> np.ndarray:
    """(M, legs) rows of N images, no image twice in a row."""
    return np.stack([rng.permutation(N)[:legs] for _ in range(M)])


@pytest.fixture
def u(rng):
    return orthogonal(rng)


@pytest.fixture
def offset(rng):
    return 5 * orthogonal(rng, 1)[0]


@pytest.fixture
def noise(rng):
    return lambda: unit(rng.normal(size=(M, WIDTH)))


# where f(d) points


def test_alignment(u, offset, noise, rng):
    i, j = drawn(rng, 2).T
    v, order = unit(u[i] - u[j]), shuffled(M, 0)
    perfect = alignment(v, v, -v, order)
    for control, value in (("none", 1), ("reversed", -1), ("f(d) - f(swapped)", 1)):
        np.testing.assert_allclose(perfect[control], value, atol=1e-5)
    assert abs(perfect["shuffled"].mean()) < 0.1
    constant = alignment(v, unit(v + offset), unit(-v + offset), order)
    assert abs(constant["none"]).max() < 0.35
    np.testing.assert_allclose(constant["f(d) - f(swapped)"], 1, atol=0.05), "subtracting the swapped text cancels it"
    assert all(abs(values.mean()) < 0.05 for values in alignment(v, noise(), noise(), order).values())


def test_antisymmetry(u, offset, noise, rng):
    i, j = drawn(rng, 2).T
    v, order = unit(u[i] - u[j]), shuffled(M, 0)
    perfect = antisymmetry(v, -v, order)
    np.testing.assert_allclose(perfect["none"], -1, atol=1e-5)
    np.testing.assert_allclose(perfect["centred"], -1, atol=1e-5)
    constant = antisymmetry(unit(v + offset), unit(-v + offset), order)
    assert constant["none"].mean() > 0.85
    assert constant["shuffled"].mean() > 0.85, "an offset is shared by all texts"
    assert constant["centred"].mean() < -0.9, "and hides a text that turns with its images"
    assert abs(constant["centred, shuffled"].mean()) < 0.1
    blind = unit(np.tile(offset, (M, 1)) + 0.1 * noise())
    assert antisymmetry(blind, blind, order)["none"].min() > 0.99
    assert antisymmetry(blind, blind, order)["centred"].min() > 0.99
    assert all(abs(values.mean()) < 0.05 for values in antisymmetry(noise(), noise(), order).values())


def test_additivity(u, offset, noise, rng):
    a, b, c = drawn(rng, 3).T
    ab, bc, ac = unit(u[a] - u[b]), unit(u[b] - u[c]), unit(u[a] - u[c])
    perfect = additivity(ab, bc, ac, -ab, shuffled(M, 0))
    np.testing.assert_allclose(perfect["none"], 1, atol=1e-5)
    for leg in ("first leg alone", "second leg alone", "better leg alone"):
        np.testing.assert_allclose(perfect[leg], 0.5, atol=1e-4)
    np.testing.assert_allclose(perfect["first leg reversed"], 0, atol=1e-4)
    constant = additivity(*[np.tile(unit(offset), (M, 1))] * 4, shuffled(M, 0))
    assert all(values.min() > 0.999 for values in constant.values()), "an offset adds up with anything"
    first_only = additivity(u[a], u[b], u[a], u[b], shuffled(M, 0))
    np.testing.assert_allclose(first_only["first leg alone"], 1, atol=1e-5)
    np.testing.assert_allclose(first_only["none"], 1 / np.sqrt(2), atol=1e-4)
    assert all(abs(values.mean()) < 0.1 for values in additivity(*[noise() for _ in range(4)], shuffled(M, 0)).values())


def test_sides(u, noise, rng):
    i, j = drawn(rng, 2).T
    half = 1 / np.sqrt(2)
    perfect = sides(unit(u[i] - u[j]), u[i], u[j], shuffled(M, 0))
    np.testing.assert_allclose(perfect["the first"], half, atol=1e-4)
    np.testing.assert_allclose(perfect["the second"], -half, atol=1e-4)
    one_eyed = sides(u[i], u[i], u[j], shuffled(M, 0))
    np.testing.assert_allclose(one_eyed["the first"], 1, atol=1e-5)
    np.testing.assert_allclose(one_eyed["the second"], 0, atol=1e-5)


def test_a_shuffle_leaves_nothing_in_its_place():
    for count in (2, 3, 100):
        order = shuffled(count, 1)
        assert sorted(order) == list(range(count))
        assert (order != np.arange(count)).all()


# parallelograms


def parallelogram(rng, nouns: int = 8) -> np.ndarray:
    """Texts of one noun in two ways: noun + way."""
    rows = orthogonal(rng, nouns + 2)
    return unit(np.concatenate([rows[:nouns] + rows[-2], rows[:nouns] + rows[-1]]))


def test_words_that_make_parallelograms(rng):
    quadruples = analogies.word_quadruples(8)
    assert len(quadruples) == 2 * 8 * 7
    found = analogies.solved(parallelogram(rng), quadruples)
    assert all(found[method].all() for method in analogies.METHODS)
    assert not found["nearest to b"].all()


def test_words_that_are_all_the_same_solve_nothing(offset):
    found = analogies.solved(np.tile(unit(offset), (16, 1)), analogies.word_quadruples(8))
    assert not any(right.any() for right in found.values()), "a tie is no answer"


def test_words_without_structure_are_guessed(rng):
    found = analogies.solved(unit(rng.normal(size=(40, 512))), analogies.word_quadruples(20))
    for method in ("3CosAdd", "3CosMul", "pair distance", "nearest to c"):
        assert found[method].mean() == pytest.approx(analogies.chance(40), abs=0.06), method
    assert found[analogies.OPEN].mean() < 0.01, "without a way to leave c, nothing else comes first"


def test_a_step_too_short_to_leave_c(rng):
    rows = orthogonal(rng, 10)
    texts = unit(np.concatenate([rows[:8] + 0.1 * rows[8], rows[:8] + 0.1 * rows[9]]))
    noisy = unit(texts + 0.3 * unit(rng.normal(size=texts.shape)))
    found = analogies.solved(noisy, analogies.word_quadruples(8))
    assert found["nearest to c"].all(), "leaving a, b and c out is all it takes"
    assert found["3CosAdd"].all()
    assert found[analogies.OPEN].mean() < 0.5


def test_texts_of_word_sets_are_pairs():
    for name, (one, other, nouns) in analogies.WORDS.items():
        texts = analogies.word_texts(name)
        assert len(set(texts)) == 2 * len(nouns)
        for a, b, c, d in analogies.word_quadruples(len(nouns)):
            assert a % len(nouns) == b % len(nouns) != c % len(nouns) == d % len(nouns)
            assert (a < len(nouns)) == (c < len(nouns)) != (b < len(nouns))
        assert texts[0] == one.format(nouns[0])
        assert texts[len(nouns)] == other.format(nouns[0])


def test_quadruples_of_images(rng):
    groups = np.repeat(["a", "b", "c", "alone"], [3, 4, 2, 1])
    found = analogies.image_quadruples(groups, 50, 0)
    a, b, c, d = (groups[rows] for rows in found.T)
    assert len(found) == 50
    assert (a == c).all()
    assert (b == d).all()
    assert (a != b).all()
    assert (found[:, 0] != found[:, 2]).all()
    assert (found[:, 1] != found[:, 3]).all()
    assert "alone" not in set(groups[found].ravel())
    assert analogies.image_quadruples(["a", "a", "b"], 5, 0).shape == (0, 4)


def test_images_of_groups(rng):
    centres = orthogonal(rng, 5)
    codes = np.repeat(np.arange(5), 6)
    images = unit(centres[codes] + 0.05 * rng.normal(size=(30, WIDTH)) / np.sqrt(WIDTH))
    found = analogies.solved(images, analogies.image_quadruples(codes, 40, 0), codes)
    assert found["3CosAdd"].all()
    assert found["nearest to b"].all(), "which is why this control stands beside it"
    assert not found["nearest to c"].any()
    random = analogies.solved(
        unit(rng.normal(size=(200, WIDTH))), analogies.image_quadruples(np.arange(200) % 5, 300, 0), np.arange(200) % 5
    )
    assert random["3CosAdd"].mean() == pytest.approx(39 / 197, abs=0.09)


# the space


def test_modality_gap(u, rng):
    step = rng.normal(size=WIDTH)
    assert modality_gap(u + step, u) == pytest.approx(np.linalg.norm(step), rel=1e-5)
    assert modality_gap(u, u) == 0


def test_effective_rank(u, offset, rng):
    both = np.concatenate([u[:7], -u[:7]])
    assert effective_rank(both) == pytest.approx(7, rel=1e-4)
    assert effective_rank(both + offset) == pytest.approx(7, rel=1e-4), "a constant is no variance"
    assert effective_rank(np.outer(rng.normal(size=20), u[0])) == pytest.approx(1, abs=1e-3)
    assert effective_rank(unit(rng.normal(size=(5000, 20)))) == pytest.approx(20, rel=0.01)


# all of it in one table


@pytest.fixture
def held_out(u, rng, monkeypatch):
    """40 photos, two of each subject in turn; texts are named by the numbers of their photos."""
    monkeypatch.setattr(geometry, "from_captions", lambda a, b: f"{a.split()[-1]} not {b.split()[-1]}")
    ids = [f"photo{k}" for k in range(N)]
    vectors = Vectors(ids, [f"/{name}.png" for name in ids], u)
    table = pd.DataFrame(
        {"id": ids, "caption": [f"caption {k}" for k in range(N)], "concept": [f"thing{k // 2}" for k in range(N)]}
    )
    i, j = drawn(rng, 2).T
    pairs = pd.DataFrame(
        {
            "first": [ids[k] for k in i],
            "second": [ids[k] for k in j],
            "first_caption": [f"caption {k}" for k in i],
            "second_caption": [f"caption {k}" for k in j],
            "difference": [f"{a} not {b}" for a, b in zip(i, j, strict=True)],
            "swapped": [f"{b} not {a}" for a, b in zip(i, j, strict=True)],
        }
    )
    return HeldOut(vectors, table, pairs, draw_triples(table, pairs, 30, 0), 20, 200, 0)


def known(u, vectors: dict, rng) -> TextMemory:
    words = parallelogram(rng, 12)
    for name, (_, _, nouns) in analogies.WORDS.items():
        rows = np.concatenate([words[: len(nouns)], words[12 : 12 + len(nouns)]])
        vectors |= dict(zip(analogies.word_texts(name), rows, strict=True))
    return TextMemory(Fake(vectors))


@pytest.fixture
def models(u, rng):
    """base: a constant that all texts share, and little else; finetuned: perfect."""
    constant = 6 * orthogonal(rng, 1)[0]
    perfect = differences(u)
    return {
        "base": known(
            u, {text: unit(constant + 0.3 * v + 0.6 * unit(rng.normal(size=WIDTH))) for text, v in perfect.items()}, rng
        ),
        "finetuned": known(u, perfect, rng),
    }


def test_the_whole_table(held_out, models):
    table = geometry.table(geometry.measure(held_out, models))
    assert list(table.columns) == ["metric", "model", "control", "value", "ci_low", "ci_high", "n", "detectable"]
    assert not table.duplicated(["metric", "model", "control"]).any()
    assert set(table.model) == {"images", "base", "finetuned"}
    assert (table.ci_low <= table.value + 1e-6).all()
    assert (table.ci_high >= table.value - 1e-6).all()

    def value(metric, model="finetuned", control="none"):
        [found] = table.value[(table.metric == metric) & (table.model == model) & (table.control == control)]
        return found

    for metric in ("alignment, image difference", "alignment, caption difference", "additivity, texts"):
        assert value(metric) == pytest.approx(1, abs=1e-4)
        assert abs(value(metric, control="shuffled")) < 0.15
    assert value("additivity, images", "images") == pytest.approx(1, abs=1e-4)
    assert value("antisymmetry") == pytest.approx(-1, abs=1e-4)
    assert value("antisymmetry", "base") > 0.9
    assert value("f(d) with one image", control="the first") == pytest.approx(
        -value("f(d) with one image", control="the second"), abs=1e-3
    )
    assert value("analogies, all words", control="3CosAdd") == 1
    assert value("modality gap") == pytest.approx(0, abs=1e-5), "captions lie on their images"
    assert value("modality gap", "base") > 0.8
    assert value("caption finds its image") == 1


def test_some_rows_at_a_time_are_all_rows(held_out, models, monkeypatch):
    """100,000 photos make matrices that no memory holds."""
    whole, search = geometry.table(geometry.measure(held_out, models)), sweeps(held_out, models, [0.0, 1.0])
    monkeypatch.setattr("pcclip.stats.intervals.CELLS", 3 * N)
    pd.testing.assert_frame_equal(geometry.table(geometry.measure(held_out, models)), whole)
    again = sweeps(held_out, models, [0.0, 1.0])
    assert [estimate.value for estimate in again["base"].values()] == [e.value for e in search["base"].values()]


def test_the_same_images_are_resampled_for_both_models(held_out, models):
    twice = geometry.measure(held_out, {"base": models["base"], "finetuned": models["base"]})
    for (metric, model, control), one in twice.items():
        if model == "finetuned" and (metric, "base", control) in twice:
            assert (one - twice[metric, "base", control]).interval == pytest.approx((0, 0), abs=1e-9), metric


def test_third_images_are_of_another_subject(held_out):
    rows, third = held_out.triples
    concept = dict(zip(held_out.table["id"], held_out.table.concept, strict=True))
    for row, c in zip(rows, third, strict=True):
        pair = held_out.pairs.iloc[row]
        assert held_out.table.concept[c] not in (concept[pair["first"]], concept[pair["second"]])


# what is claimed


def swept(held_out, models):
    return sweeps(held_out, models, (0.0, 1.0, float("inf")))


def test_claims_of_perfect_arithmetic(held_out, models):
    table = claims.table(geometry.measure(held_out, models), swept(held_out, models), 1.0)
    assert list(table.claim) == [claim.words for claim in claims.CLAIMS]
    holds = dict(zip(table.claim, table.holds, strict=True))
    for claim in (
        "f(d) lies along the image difference after finetuning",
        "differences add up in text",
        "finetuning turns f(d) towards the image difference",
        "the reversed text points the other way",
        "f(d) takes the second image away",
        "finetuning makes that search better",
        "finetuning narrows that gap",
        "finetuning tells a text from its swapped twin",
    ):
        assert holds[claim] == "yes", claim
    assert holds["photographs make parallelograms"] != "yes", "these photos are at right angles"


def test_claims_of_a_model_that_did_not_change(held_out, models):
    same = {"base": models["base"], "finetuned": models["base"]}
    table = claims.table(geometry.measure(held_out, same), swept(held_out, same), 1.0)
    changed = table[table.claim.str.startswith("finetuning") & ~table.claim.str.contains("free")]
    assert len(changed) > 5
    assert (changed.holds == "undecided").all()


def test_what_was_not_measured_is_not_claimed(held_out, models):
    without = HeldOut(held_out.vectors, held_out.table, held_out.pairs, (np.empty(0, int), np.empty(0, int)), 5, 100, 0)
    table = claims.table(geometry.measure(without, models), swept(held_out, models), 1.0)
    assert not table.claim.str.contains("add up").any()
    assert len(table) > 15


def test_the_text_tells_the_numbers_of_the_table(held_out, models):
    table = claims.table(geometry.measure(held_out, models), swept(held_out, models), 1.0)
    text = claims.as_markdown(table)
    assert text.startswith(f"Of {len(table)} claims, {(table.holds == 'yes').sum()} hold")
    for row in table.itertuples():
        assert f"{row.claim} ({row.number:+.3f} [" in text
    assert claims.as_markdown(table[:0]) == "No claim could be checked."


def test_texts_are_read_once(u):
    class Counting(Fake):
        asked_for = 0

        def encode_texts(self, texts):
            self.asked_for += len(texts)
            return super().encode_texts(texts)

    model = Counting(differences(u[:4]))
    known = TextMemory(model)
    one = known.encode_texts(["caption 1", "caption 2", "caption 1"])
    np.testing.assert_array_equal(known.encode_texts(["caption 2", "caption 1"]), one[[1, 0]])
    assert model.asked_for == 2
    assert known.encode_texts([]).shape == (0, WIDTH)
