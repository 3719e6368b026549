"""Comparative prompting: class vectors by hand, choices made on tune images only, and where and why it helps."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from scipy.stats import binomtest

from pcclip.errors import PcclipError
from pcclip.evaluation import comparative as co
from pcclip.evaluation.zero_shot import classify
from pcclip.stats.vectors import unit

X, Y, Z = np.eye(3)
FORMS = ("released", "centred")


def vectors_of(classes, differences, null=None) -> co.ClassVectors:
    classes = np.array(classes, dtype=float)
    null = np.zeros(classes.shape[1]) if null is None else null
    return co.ClassVectors([f"class {k}" for k in range(len(classes))], classes, differences, null)


def random_vectors(rng, c=5, d=8) -> co.ClassVectors:
    pairs = [(a, b) for a in range(c) for b in range(c) if a != b]
    texts = unit(rng.normal(size=(len(pairs) + c + 1, d)))
    return vectors_of(texts[:c], dict(zip(pairs, texts[c:-1], strict=True)), texts[-1])


def random_images(rng, n, c=5, d=8) -> tuple:
    return unit(rng.normal(size=(n, d))), np.arange(n), rng.integers(0, c, n)


def moved(vectors, pairs, alpha, form="released"):
    pairs = np.array(pairs).reshape(-1, 2)
    return co.blended(vectors, co.compared(vectors, pairs, form), co.Choice(pairs, alpha))


# class vectors by hand


def test_released_form_of_one_pair():
    vectors = vectors_of([X, Y], {(0, 1): -Y, (1, 0): Z})
    np.testing.assert_allclose(moved(vectors, [(0, 1)], 0.8), [X, np.array([0.2, 1.0, 0.0]) / np.sqrt(1.04)])
    np.testing.assert_allclose(moved(vectors, [(1, 0)], 0.5), [np.array([1.0, 1.0, -1.0]) / np.sqrt(3), Y])


def test_mean_over_the_pairs_of_a_class():
    vectors, pairs = vectors_of([X, Y, Z], {(0, 1): -Y, (2, 1): -Z}), [(0, 1), (2, 1)]
    mean = co.compared(vectors, np.array(pairs), "released")
    np.testing.assert_allclose(mean, [[0, 0, 0], [0.5, 0.5, 1.0], [0, 0, 0]])  # of (1, 1, 0) and (0, 0, 2)
    np.testing.assert_allclose(moved(vectors, pairs, 0.9), [X, unit(np.array([0.05, 0.95, 0.1])), Z])


def test_a_centred_text_that_points_along_the_difference_gives_the_other_class():
    vectors = vectors_of([X, Y], {(0, 1): X}, null=Y)
    np.testing.assert_allclose(moved(vectors, [(0, 1)], 0.0, "centred"), [X, Y], atol=1e-12)
    silent = vectors_of([X, Y], {(0, 1): Z}, null=Z)
    np.testing.assert_allclose(co.compared(silent, np.array([(0, 1)]), "centred"), [0 * X, X])


def test_an_offset_of_all_texts_cancels_in_the_centred_form(rng):
    vectors, offset = random_vectors(rng), 3 * rng.normal(size=8)
    shifted = {pair: text + offset for pair, text in vectors.differences.items()}
    shifted = replace(vectors, differences=shifted, null=vectors.null + offset)
    pairs = np.array(list(vectors.differences))
    for form in FORMS:
        same = np.allclose(co.compared(vectors, pairs, form), co.compared(shifted, pairs, form))
        assert same == (form == "centred")


def test_unchanged_classes_keep_every_bit(rng):
    vectors = random_vectors(rng)
    vectors = replace(vectors, classes=(vectors.classes * (1 + 1e-6)).astype(np.float32))
    found = moved(vectors, [(0, 1), (1, 0)], 0.5)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found[2:], vectors.classes[2:])
    assert not np.isclose(found[:2], vectors.classes[:2]).all()
    np.testing.assert_array_equal(moved(vectors, [(0, 1), (1, 0)], 1.0), vectors.classes)


def test_vectors_of_a_table_of_texts():
    known = {co.NULL: Z, "d01": X, "d10": Y, "d21": -X, "d12": -Y}
    table = pd.DataFrame(
        [("a", "b", "d01", "d10"), ("c", "b", "d21", "d12")], columns=["first", "second", "difference", "swapped"]
    )
    found = co.class_vectors(
        lambda texts: np.stack([known[t] for t in texts]), np.stack([X, Y, Z]), ["a", "b", "c"], table
    )
    expected = {(0, 1): X, (1, 0): Y, (2, 1): -X, (1, 2): -Y}
    assert {pair: text.tolist() for pair, text in found.differences.items()} == {
        pair: text.tolist() for pair, text in expected.items()
    }
    np.testing.assert_array_equal(found.null, Z)


# which pairs

RATES = np.array([[0.7, 0.3, 0.0, 0.0], [0.1, 0.5, 0.4, 0.0], [0.0, 0.1, 0.9, 0.0], [0.2, 0.0, 0.0, 0.8]])


@pytest.mark.parametrize(
    ("k", "both_ways", "pairs"),
    [
        (2, True, [[1, 2], [0, 1]]),
        (9, True, [[1, 2], [0, 1], [0, 3]]),
        (3, False, [[2, 1], [1, 0], [0, 3]]),  # images of class 1 are taken for class 2
        (9, False, [[2, 1], [1, 0], [0, 3], [0, 1], [1, 2]]),  # equal rates in the classes' order
    ],
)
def test_the_most_confused_pairs(k, both_ways, pairs):
    assert co.confused_pairs(RATES, k, both_ways).tolist() == pairs


def test_how_often_classes_are_confused():
    images = np.stack([X, X, Y, Y, Y, X])
    rates = co.confusions(np.stack([X, Y, Z]), images, np.arange(6), np.array([0, 0, 0, 0, 1, 1]))
    np.testing.assert_array_equal(rates, [[0.5, 0.5, 0], [0.5, 0.5, 0], [0, 0, 0]])


# what is chosen, and on which images


@pytest.mark.parametrize("form", FORMS)
def test_pairs_and_alpha_are_chosen_on_halves_of_the_tune_images(form, rng):
    models = {"base": random_vectors(rng), "other": random_vectors(rng)}
    matrix, rows, labels = random_images(rng, 201)
    tune, test = (rows[:101][::-1], labels[:101][::-1]), (rows[101:], labels[101:])
    items, choice = co.comparative_items(models, dict.fromkeys(models, matrix), tune, test, (form, "corrected"))
    pair_images, alpha_images = co.halves(*tune)
    assert sorted([*pair_images[0], *alpha_images[0]]) == list(range(101))
    assert [len(pair_images[0]), len(alpha_images[0])] == [51, 50]
    assert np.abs(np.bincount(pair_images[1], minlength=5) - np.bincount(alpha_images[1], minlength=5)).max() == 1
    pairs = co.confused_pairs(co.confusions(models["base"].classes, matrix, *pair_images))
    assert choice.pairs.tolist() == [*pairs.tolist(), *pairs[:, ::-1].tolist()]
    mean = choice.sweep.groupby("alpha").value.mean()
    assert mean[choice.alpha] == pytest.approx(mean.max())
    assert choice.sweep.alpha[choice.sweep.chosen].tolist() == [choice.alpha] * 2
    for name, vectors in models.items():
        plain = classify(matrix, vectors.classes, *alpha_images).correct.mean()
        assert set(choice.sweep.plain[choice.sweep.model == name]) == {plain}
    others = matrix.copy()
    others[101:] = unit(rng.normal(size=(100, 8)))
    again_items, again = co.comparative_items(models, dict.fromkeys(models, others), tune, test, (form, "corrected"))
    assert not np.array_equal(items.correct, again_items.correct)
    pd.testing.assert_frame_equal(choice.sweep, again.sweep)
    np.testing.assert_array_equal(choice.pairs, again.pairs)


def test_every_model_counts_alike_and_of_equal_alphas_the_largest_wins(rng):
    """One text is right for the base and as wrong for the other model."""

    def model(text):
        return vectors_of([unit(X + 0.2 * Y), unit(X - 0.2 * Y)], {(0, 1): text, (1, 0): -text})

    images = unit(X + np.array([0.1, -0.1, 0.1, 0.1])[:, None] * Y + np.array([0.3, -0.3, 0.3, -0.3])[:, None] * Z)
    images, labels = np.repeat(images, 2, axis=0), np.repeat([0, 1, 0, 1], 2)
    tune, matrices = (np.arange(8), labels), {"base": images, "other": images}
    alone = co.choose({"base": model(Z)}, matrices, tune, "released")
    assert alone.sweep.plain[0] == 0.75
    assert alone.sweep.value[alone.sweep.chosen].item() == 1.0
    both = co.choose({"base": model(Z), "other": model(-Z)}, matrices, tune, "released")
    assert both.alpha == 1.0
    assert both.sweep.query("model == 'other'").value.min() < 0.75


def test_nothing_is_confused():
    vectors, images = vectors_of([X, Y], {(0, 1): X, (1, 0): Y}), np.stack([X, Y, X, Y])
    tune = (np.arange(4), np.array([0, 1, 0, 1]))
    items, choice = co.comparative_items({"base": vectors}, {"base": images}, tune, tune, ("released", "corrected"))
    assert len(choice.pairs) == 0
    assert items.correct.all()


def test_as_released():
    """The finetuned model's pairs for both, from the very images they are tested on; one class of a pair changed, alpha fixed."""
    texts = {(0, 1): -Y, (1, 0): X, (0, 2): X, (2, 0): Y, (1, 2): Y, (2, 1): Z}
    base = vectors_of([X, Y, Z], texts)
    models = {"base": base, "other": replace(base, classes=base.classes[[2, 1, 0]])}
    images, labels = np.stack([X, Y, Z, X]), np.array([0, 1, 2, 1])
    none, test = (np.zeros(0, dtype=int), np.zeros(0, dtype=int)), (np.arange(4), labels)
    items, choice = co.comparative_items(models, dict.fromkeys(models, images), none, test, co.VARIANTS[0])
    assert choice.pairs.tolist() == [[0, 1]]  # class 1's image is taken for class 0
    assert choice.alpha == 0.9
    tuned = {"base": models["base"], "finetuned": models["other"]}
    released = co.comparative_items(tuned, dict.fromkeys(tuned, images), none, test, co.VARIANTS[0])[1]
    assert released.pairs.tolist() == [[0, 2], [2, 0], [2, 1]], "the finetuned's"
    expected = classify(images, moved(base, [(0, 1)], 0.9), *test)
    found = items[(items.model == "base") & (items.prompting == "comparative")].drop(columns=["model", "prompting"])
    pd.testing.assert_frame_equal(found.reset_index(drop=True), expected)


# where it helps


def planted(rng, n=400, names=0.0, d=8):
    """Three classes; two differ in images along e1, in names along e2 (nothing in the images) and `names` of e1."""
    e = np.eye(d)
    labels = rng.integers(0, 3, n)
    sign = np.array([1, -1, 0])[labels][:, None]
    images = unit(np.where(labels[:, None] == 2, e[7], e[0]) + 0.5 * sign * e[1] + 0.1 * rng.normal(size=(n, d)))
    texts = {(a, b): e[3] for a in range(3) for b in range(3) if a != b}  # e3: what all comparative texts share
    texts |= {(0, 1): unit(e[3] + e[1]), (1, 0): unit(e[3] - e[1])}
    classes = unit(np.stack([e[0] + 0.3 * e[2] + names * e[1], e[0] - 0.3 * e[2] - names * e[1], e[7]]))
    return vectors_of(classes, texts, e[3]), images, labels


@pytest.mark.parametrize("form", FORMS)
def test_a_true_text_tells_a_confused_pair_apart(form, rng):
    vectors, images, labels = planted(rng)
    tune, test = (np.arange(200), labels[:200]), (np.arange(200, 400), labels[200:])
    items, _ = co.comparative_items({"base": vectors}, {"base": images}, tune, test, (form, "corrected"))
    accuracy = items.groupby("prompting").correct.mean()
    assert accuracy["plain"] < 0.75
    assert accuracy["comparative"] > 0.95


@pytest.mark.parametrize("form", FORMS)
def test_a_wrong_text_is_not_chosen(form, rng):
    vectors, images, labels = planted(rng, names=0.1)
    wrong = replace(vectors, differences={(b, a): text for (a, b), text in vectors.differences.items()})
    tune, test = (np.arange(200), labels[:200]), (np.arange(200, 400), labels[200:])
    items, choice = co.comparative_items({"base": wrong}, {"base": images}, tune, test, (form, "corrected"))
    assert choice.alpha == 1
    before, after = (items[items.prompting == name].correct for name in ("plain", "comparative"))
    assert before.tolist() == after.tolist()


# tables


def changing(helped, hurt, **keys) -> pd.DataFrame:
    """Items of 40 images, so many newly right and newly wrong; half of the others are right."""
    same = [True, False] * ((40 - helped - hurt) // 2)
    was = np.array([True] * hurt + [False] * helped + same)
    now = np.array([False] * hurt + [True] * helped + same)
    rows = pd.DataFrame({"first": np.arange(40), "second": np.arange(40), "score": 0.0, "reference": 0.0})
    keys = {"form": "centred", "protocol": "corrected", "model": "base", **keys}
    return pd.concat(
        [rows.assign(correct=was, prompting="plain"), rows.assign(correct=now, prompting="comparative")],
        ignore_index=True,
    ).assign(**keys)


def test_comparing_is_tested_against_the_same_model_without():
    items = pd.concat(
        [
            changing(10, 0, dataset="flowers"),
            changing(8, 2, dataset="cub"),
            changing(10, 0, dataset="cub", model="finetuned"),
            changing(0, 6, dataset="cub", form="released"),
        ],
        ignore_index=True,
    )
    table = co.tested(items, 300, 0).set_index(["form", "model", "dataset"])
    assert list(table.columns) == [name for name in co.TESTED if name not in table.index.names]
    row = table.loc["centred", "base", "flowers"]
    assert [row.n, row.helped, row.hurt, row.plain, row.comparative, row.difference] == [40, 10, 0, 0.375, 0.625, 0.25]
    assert row.ci_low < 0.25 < row.ci_high
    assert row.test == "mcnemar"
    p = 2 * 0.5**10
    assert row.p_mcnemar == pytest.approx(p)
    assert row.p_holm == table.p_holm["centred", "finetuned", "cub"] == pytest.approx(4 * p), "all rows are one family"
    assert table.p_holm["centred", "base", "cub"] == pytest.approx(binomtest(8, 10).pvalue)
    hurt = table.loc["released", "base", "cub"]
    assert [hurt.difference, hurt.hurt] == [pytest.approx(-0.15), 6]
    assert co.tested(pd.DataFrame(columns=co.KEYS), 100, 0).columns.tolist() == co.TESTED


# what cannot be


def test_a_confused_pair_without_a_text_says_so(rng):
    matrix, rows, labels = random_images(rng, 60)
    models = {"base": replace(random_vectors(rng), differences={})}
    with pytest.raises(PcclipError, match=r"^no text says how 'class \d' differs from 'class \d'; have it written$"):
        co.comparative_items(models, {"base": matrix}, (rows, labels), (rows, labels), co.VARIANTS[1])
