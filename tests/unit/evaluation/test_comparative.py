"""Comparative prompting: class vectors worked out by hand, what is chosen on which images, where and why it helps."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from scipy.stats import binomtest

from pcclip.errors import PcclipError
from pcclip.evaluation import comparative as co
from pcclip.evaluation import gains
from pcclip.evaluation.zero_shot import classify
from pcclip.stats.vectors import unit

X, Y, Z = np.eye(3)


def vectors_of(classes, pairs, right, swapped, null=None) -> co.ClassVectors:
    classes, right, swapped = (np.array(v, dtype=float) for v in (classes, right, swapped))
    return co.ClassVectors(
        [f"class {k}" for k in range(len(classes))],
        classes,
        np.array(pairs).reshape(-1, 2),
        right,
        swapped,
        np.zeros(classes.shape[1]) if null is None else np.array(null, dtype=float),
    )


def random_vectors(rng, c=5, d=8) -> co.ClassVectors:
    pairs = np.stack(np.triu_indices(c, 1), axis=1)
    texts = unit(rng.normal(size=(2 * len(pairs) + c + 1, d)))
    return co.ClassVectors(
        [f"class {k}" for k in range(c)],
        texts[:c],
        pairs,
        texts[c : c + len(pairs)],
        texts[c + len(pairs) : -1],
        texts[-1],
    )


def random_images(rng, n, c=5, d=8) -> tuple:
    return unit(rng.normal(size=(n, d))), np.arange(n), rng.integers(0, c, n)


def moved(vectors, ordered, alpha, text="plain", weights=None):
    ordered = np.array(ordered).reshape(-1, 2)
    weights = np.ones(len(ordered)) if weights is None else np.array(weights)
    return co.blended(vectors, co.compared(vectors, ordered, weights, text), ordered, alpha)


# class vectors by hand


def test_released_form_of_one_pair():
    vectors = vectors_of([X, Y], [(0, 1)], [-Y], [Z])
    found = moved(vectors, [(0, 1)], 0.8)  # f' = X + Y
    np.testing.assert_allclose(found, [X, np.array([0.2, 1.0, 0.0]) / np.sqrt(1.04)])


def test_the_other_way_round_takes_the_swapped_text():
    vectors = vectors_of([X, Y], [(0, 1)], [-Y], [Z])
    found = moved(vectors, [(1, 0)], 0.5)  # f'_0 = Y - Z
    np.testing.assert_allclose(found, [np.array([1.0, 1.0, -1.0]) / np.sqrt(3), Y])


def test_mean_over_the_pairs_of_a_class():
    vectors = vectors_of([X, Y, Z], [(0, 1), (2, 1)], [-Y, -Z], [X, X])
    given = co.compared(vectors, np.array([(0, 1), (2, 1)]), np.array([0.5, 0.5]), "plain")
    np.testing.assert_allclose(given, [[0, 0, 0], [0.5, 0.5, 1.0], [0, 0, 0]])  # of (1, 1, 0) and (0, 0, 2)
    found = moved(vectors, [(0, 1), (2, 1)], 0.9, weights=[0.5, 0.5])
    np.testing.assert_allclose(found, [X, unit(np.array([0.05, 0.95, 0.1])), Z])


def test_weights_of_the_pairs():
    vectors = vectors_of([X, Y, Z], [(0, 1), (1, 2)], [-Y, X], [X, -Z])
    given = co.compared(vectors, np.array([(0, 1), (2, 1)]), np.array([0.25, 0.75]), "plain")
    np.testing.assert_allclose(given[1], [0.25, 0.25, 1.5])  # of (1, 1, 0), and of Z - (-Z): the text of (2, 1)
    vectors = vectors_of([X, Y, Z], [(0, 1), (2, 1)], [X, Z], [Y, -Z])
    given = co.compared(vectors, np.array([(0, 1), (2, 1)]), np.array([0.25, 0.75]), "antisymmetric")
    np.testing.assert_allclose(given[1], 0.25 * Y + 0.75 * (1 - np.sqrt(2)) * Z)


@pytest.mark.parametrize(
    ("text", "null", "swapped"), [("centred", Y, Z), ("antisymmetric", Z, Y), ("antisymmetric", X, Y)]
)
def test_a_text_that_says_the_difference_gives_the_other_class(text, null, swapped):
    vectors = vectors_of([X, Y], [(0, 1)], [X], [swapped], null)  # text less its null or twin: X - Y
    np.testing.assert_allclose(moved(vectors, [(0, 1)], 0.0, text), [X, Y], atol=1e-12)


@pytest.mark.parametrize("text", ["antisymmetric", "plain", "centred"])
def test_what_a_constant_offset_of_the_texts_does(text, rng):
    vectors, offset = random_vectors(rng), 3 * rng.normal(size=8)
    shifted = replace(vectors, right=vectors.right + offset, swapped=vectors.swapped + offset)
    ordered, weights = vectors.pairs, np.ones(len(vectors.pairs)) / 2
    same = np.allclose(co.compared(vectors, ordered, weights, text), co.compared(shifted, ordered, weights, text))
    assert same == (text == "antisymmetric")
    shifted = replace(shifted, null=vectors.null + offset)
    same = np.allclose(co.compared(vectors, ordered, weights, text), co.compared(shifted, ordered, weights, text))
    assert same == (text != "plain")


def test_a_text_that_is_its_own_twin_says_nothing():
    vectors = vectors_of([X, Y], [(0, 1)], [Z], [Z])
    np.testing.assert_allclose(co.compared(vectors, np.array([(0, 1)]), np.ones(1), "antisymmetric"), [0 * X, X])


def test_classes_without_a_pair_are_untouched_to_the_bit(rng):
    vectors = random_vectors(rng)
    vectors = replace(vectors, classes=vectors.classes.astype(np.float32))
    found = moved(vectors, [(0, 1), (1, 0)], 0.5)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found[2:], vectors.classes[2:])
    assert not np.isclose(found[:2], vectors.classes[:2]).all()
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, rtol=1e-6)


def test_alpha_one_is_the_class_text_to_the_bit(rng):
    vectors = random_vectors(rng)
    vectors = replace(vectors, classes=vectors.classes * (1 + 1e-9))  # as long as vectors are after rounding
    assert not np.array_equal(unit(vectors.classes), vectors.classes)
    np.testing.assert_array_equal(moved(vectors, vectors.pairs, 1.0), vectors.classes)


# what is encoded


def test_vectors_of_a_table_of_texts():
    known = {co.NULL: Z, "d01": X, "d10": Y, "d21": -X, "d12": -Y}
    table = pd.DataFrame(
        {
            "first": ["a", "c"],
            "second": ["b", "b"],
            "difference": ["d01", "d21"],
            "swapped": ["d10", "d12"],
            "source": "llm",
        }
    )
    found = co.class_vectors(
        lambda texts: np.stack([known[t] for t in texts]), np.stack([X, Y, Z]), ["a", "b", "c"], table
    )
    assert found.pairs.tolist() == [[0, 1], [2, 1]]
    np.testing.assert_array_equal(found.right, [X, -X])
    np.testing.assert_array_equal(found.swapped, [Y, -Y])
    np.testing.assert_array_equal(found.null, Z)
    assert found.position([(0, 1), (1, 0), (2, 1), (1, 2), (0, 2), (0, 0)]).tolist() == [0, 2, 1, 3, -1, -1]
    with pytest.raises(PcclipError, match="a text of differences is of 'b', which is no class here"):
        co.class_vectors(lambda texts: np.zeros((len(texts), 3)), np.stack([X, Y]), ["a", "c"], table)
    with pytest.raises(PcclipError, match="2 class vectors for 3 classes"):
        co.class_vectors(lambda texts: np.zeros((len(texts), 3)), np.stack([X, Y]), ["a", "b", "c"], table)


# which pairs

RATES = np.array([[0.7, 0.3, 0.0, 0.0], [0.1, 0.5, 0.4, 0.0], [0.0, 0.1, 0.9, 0.0], [0.2, 0.0, 0.0, 0.8]])


@pytest.mark.parametrize(
    ("k", "both_ways", "pairs"),
    [
        (1, True, [[1, 2]]),
        (2, True, [[1, 2], [0, 1]]),
        (9, True, [[1, 2], [0, 1], [0, 3]]),
        (1, False, [[2, 1]]),
        (3, False, [[2, 1], [1, 0], [0, 3]]),  # images of class 1 are taken for class 2
        (9, False, [[2, 1], [1, 0], [0, 3], [0, 1], [1, 2]]),  # equal rates in the classes' order
    ],
)
def test_the_most_confused_pairs(k, both_ways, pairs):
    assert co.confused_pairs(RATES, k, both_ways).tolist() == pairs


def test_how_often_classes_are_confused():
    images = np.stack([X, X, Y, Y, Y, X])
    rates = co.confusions(np.stack([X, Y, Z]), images, np.arange(6), [0, 0, 0, 0, 1, 1])
    np.testing.assert_array_equal(rates, [[0.5, 0.5, 0], [0.5, 0.5, 0], [0, 0, 0]])


def test_weights_by_confusion():
    ordered = np.array([(1, 0), (3, 0), (0, 1), (2, 1)])
    found = co._weights(ordered, RATES, 0.1)  # symmetric rates 0.2, 0.1, 0.2, 0.25
    e = np.e
    np.testing.assert_allclose(found, [e / (e + 1), 1 / (e + 1), 1 / (1 + e**0.5), e**0.5 / (1 + e**0.5)])
    np.testing.assert_array_equal(co._weights(ordered, RATES, np.inf), [0.5] * 4)
    np.testing.assert_allclose(co._weights(ordered, RATES, 1e-4), [1, 0, 0, 1], atol=1e-12)


# plain zero-shot is a special case


@pytest.mark.parametrize("form", co.FORMS)
def test_nothing_added_is_plain_zero_shot(form, rng):
    models = {"base": random_vectors(rng), "other": random_vectors(rng)}
    matrix, rows, labels = random_images(rng, 300)
    chosen = co.choose(models, matrix, rows, labels, form, values=[co.FORMS[form].values[0]])
    for vectors in models.values():
        items = co.apply(chosen, vectors, matrix, rows, labels)
        expected = classify(matrix, vectors.classes, rows, labels)
        pd.testing.assert_frame_equal(items, expected)
        pd.testing.assert_frame_equal(co.plain(chosen, vectors, matrix, rows, labels), expected)
    assert (chosen.sweep.accuracy == chosen.sweep.plain).all()


# re-ranking


def test_the_two_nearest_are_told_apart_by_their_text():
    a, b, c = np.array([1.0, 0, 0]), np.array([0.8, 0.6, 0]), np.array([-1.0, 0, 0])
    vectors = vectors_of([a, b, c], [(0, 1)], [[0, 0, 1.0]], [[0, 0, -1.0]])
    u = unit(np.array([[0.9, 0.2, -0.1], [0.9, 0.2, 0.1], [0.8, 0.5, 0.1], [-0.9, 0.1, 0.0]]))
    # <u, a - b> is 0.06, 0.06, -0.14, and the text's 2 z is -0.2, 0.2, 0.2 (before the length is taken off both)
    chosen = co.choose({"base": vectors}, u, np.arange(4), [0, 1, 1, 2], "rerank", values=[0.0])
    for strength, found in (
        (0.0, [0, 0, 1, 2]),
        (0.29, [0, 0, 1, 2]),
        (0.31, [1, 0, 1, 2]),
        (0.69, [1, 0, 1, 2]),
        (0.71, [1, 0, 0, 2]),
    ):
        items = co.apply(replace(chosen, value=strength), vectors, u, np.arange(4), [0, 1, 1, 2])
        assert items.score.tolist() == found, strength
        assert items.correct.tolist() == [f == r for f, r in zip(found, [0, 1, 1, 2], strict=True)]


def test_a_tie_and_a_pair_without_a_text_stay_as_they_are():
    vectors = vectors_of([X, X, Z], [(0, 1)], [-Z], [Z])
    images = unit(np.array([[1.0, 0.0, 0.0], [1.0, 0.0, 0.1], [0.5, 0.0, 1.0]]))
    chosen = co.choose({"base": vectors}, images, np.arange(3), [1, 1, 2], "rerank", values=[5.0])
    assert co.apply(chosen, vectors, images, np.arange(3), [1, 1, 2]).score.tolist() == [0, 1, 2]


def test_images_in_blocks(monkeypatch, rng):
    vectors = random_vectors(rng)
    matrix, rows, labels = random_images(rng, 50)
    chosen = co.choose({"base": vectors}, matrix, rows, labels, "rerank", values=[0.5])
    whole = co.apply(chosen, vectors, matrix, rows[::-1], labels[::-1])
    assert (whole.score != co.plain(chosen, vectors, matrix, rows[::-1], labels[::-1]).score).sum() > 5
    monkeypatch.setattr(co, "_BLOCK", 7)
    pd.testing.assert_frame_equal(co.apply(chosen, vectors, matrix, rows[::-1], labels[::-1]), whole)


# what is chosen, and on which images


@pytest.mark.parametrize("form", co.FORMS)
def test_test_images_never_touch_the_choice(form, rng):
    models = {"base": random_vectors(rng), "other": random_vectors(rng)}
    matrix, rows, labels = random_images(rng, 200)
    tune, (test, right) = (rows[:100], labels[:100]), (rows[100:], labels[100:])
    items, chosen = co.comparative(models, matrix, tune, (test, right), form)
    other_matrix = matrix.copy()
    other_matrix[100:] = unit(rng.normal(size=(100, 8)))
    others, again = co.comparative(models, other_matrix, tune, (test, rng.permutation(right)), form)
    assert not np.array_equal(items.correct, others.correct)
    assert set(items["first"]) == set(range(100, 200))
    assert again["base"] is again["other"], "the same for every model"
    assert (chosen["base"].value, chosen["base"].temperature) == (again["base"].value, again["base"].temperature)
    for name in ("pairs", "weights", "scored"):
        np.testing.assert_array_equal(getattr(chosen["base"], name), getattr(again["base"], name))
    pd.testing.assert_frame_equal(chosen["base"].sweep, again["base"].sweep)
    assert chosen["base"].split == "tune"
    moved_labels = co.comparative(models, matrix, (tune[0], (tune[1] + 1) % 5), (test, right), form)[1]
    assert not chosen["base"].sweep.equals(moved_labels["base"].sweep), "tune labels do"


@pytest.mark.parametrize("form", co.FORMS)
def test_the_choice_is_the_best_mean_over_models(form, rng):
    models = {"base": random_vectors(rng), "other": random_vectors(rng), "third": random_vectors(rng)}
    chosen = co.choose(models, *random_images(rng, 150), form)
    mean = chosen.sweep.groupby(["temperature", "value"]).accuracy.mean()
    assert mean.loc[chosen.temperature, chosen.value] == pytest.approx(mean.max())
    assert len(chosen.sweep) == 3 * len(co.FORMS[form].temperatures) * len(co.FORMS[form].values)


@pytest.mark.parametrize("form", co.FORMS)
def test_pairs_and_alpha_are_chosen_on_images_of_their_own(form, rng):
    models = {"base": random_vectors(rng), "other": random_vectors(rng)}
    matrix, rows, labels = random_images(rng, 200)
    tune = rows[:101][::-1], labels[:101][::-1]
    _, chosen = co.comparative(models, matrix, tune, (rows[101:], labels[101:]), form)
    one, other = co.halves(*tune)
    assert sorted([*one[0], *other[0]]) == list(range(101))
    assert [len(one[0]), len(other[0])] == [51, 50]
    assert np.abs(np.bincount(one[1], minlength=5) - np.bincount(other[1], minlength=5)).max() == 1
    for half in (one, other):
        np.testing.assert_array_equal(labels[half[0]], half[1])
    rates = co.confusions(models["base"].classes, matrix, *one)
    if form in ("weighted", "rerank"):
        assert len(chosen["base"].pairs) == 20
    else:
        pairs = co.confused_pairs(rates, co.RELEASED_PAIRS)
        assert chosen["base"].pairs.tolist() == [*pairs.tolist(), *pairs[:, ::-1].tolist()]
    np.testing.assert_allclose(
        chosen["base"].weights, co._weights(chosen["base"].pairs, rates, chosen["base"].temperature)
    )
    for name, vectors in models.items():
        right = classify(matrix, vectors.classes, *other).correct.mean()
        assert set(chosen[name].sweep.plain[chosen[name].sweep.model == name]) == {right}


def test_one_image_has_no_halves():
    with pytest.raises(PcclipError, match="^1 tune images to choose pairs and alpha on; read the set with its tune sp"):
        co.halves([3], [0])


def test_every_model_counts_alike():
    """One text is right for the base and wrong for the other model, more so."""

    def model(text):
        return vectors_of([unit(X + 0.2 * Y), unit(X - 0.2 * Y)], [(0, 1)], [text], [-text])

    images = unit(X + np.array([[0.1], [-0.1], [0.1], [0.1]]) * Y + np.array([[0.3], [-0.3], [0.3], [-0.3]]) * Z)
    args = (images, np.arange(4), [0, 1, 0, 1])
    alone = co.choose({"base": model(Z)}, *args, "antisymmetric", values=[1.0, 0.5])
    assert (alone.value, alone.sweep.plain[0]) == (0.5, 0.75)
    both = co.choose({"base": model(Z), "other": model(-Z)}, *args, "antisymmetric", values=[1.0, 0.5])
    assert both.sweep.set_index(["model", "value"]).accuracy.to_dict() == {
        ("base", 1.0): 0.75,
        ("base", 0.5): 1.0,
        ("other", 1.0): 0.75,
        ("other", 0.5): 0.0,
    }
    assert both.value == 1.0


@pytest.mark.parametrize(("form", "nothing"), [("released", 1.0), ("weighted", 1.0), ("rerank", 0.0)])
def test_of_equal_values_the_one_nearest_to_plain(form, nothing):
    vectors = vectors_of([X, Y, Z], [(0, 1), (0, 2), (1, 2)], [0 * X] * 3, [0 * X] * 3)
    images = np.stack([X, Y, Z, Y])  # the texts say nothing, so that any value finds the same
    chosen = co.choose({"base": vectors}, images, np.arange(4), [0, 1, 2, 0], form, values=[0.9, nothing, 0.95])
    assert chosen.sweep.accuracy.nunique() == 1
    assert chosen.value == nothing
    assert chosen.temperature == co.FORMS[form].temperatures[0]


def test_pairs_follow_the_base_and_its_confusions():
    base = vectors_of([X, Y, Z], [(0, 1), (1, 2)], [X, Y], [Y, X])
    other = replace(base, classes=base.classes[[0, 2, 1]])
    images, labels = np.stack([X, Y, Y, Z, X]), [0, 0, 0, 2, 0]
    chosen = co.choose({"base": base, "other": other}, images, np.arange(5), labels, k=1)
    assert chosen.pairs.tolist() == [[0, 1], [1, 0]]  # images of class 0 go to class 1
    assert chosen.weights.tolist() == [1, 1]
    chosen = co.choose({"base": base, "other": other}, images, np.arange(5), labels, k=1, base="other", both_ways=False)
    assert (chosen.base, chosen.pairs.tolist()) == ("other", [[1, 2]])
    with pytest.raises(PcclipError, match="no text says how 'class 2' differs from 'class 0'; have it written"):
        co.choose({"base": base}, np.stack([Z, Z]), np.arange(2), [0, 0], k=1, both_ways=False)


def test_all_pairs_take_those_that_have_a_text():
    vectors = vectors_of([X, Y, Z], [(0, 1), (1, 2)], [X, Y], [Y, X])
    chosen = co.choose({"base": vectors}, np.stack([X, Y, Y]), np.arange(3), [0, 1, 0], "weighted", values=[0.9])
    assert sorted(chosen.pairs.tolist()) == [[0, 1], [1, 0], [1, 2], [2, 1]]
    np.testing.assert_allclose(np.bincount(chosen.pairs[:, 1], chosen.weights), [1, 1, 1])


# the confused classes only


@pytest.mark.parametrize("form", co.FORMS)
def test_confused_classes_only(form):
    classes = np.eye(4)
    pairs = np.stack(np.triu_indices(4, 1), axis=1)
    vectors = vectors_of(classes, pairs, np.zeros((6, 4)), np.zeros((6, 4)))
    images = classes[[0, 1, 2, 3, 3, 2, 2, 1]]
    labels = np.array([0, 1, 2, 3, 1, 1, 3, 1])  # 3 for 1, 2 for 1, 2 for 3; classes 1, 3 and 2
    tune = (np.arange(5), labels[:5])  # 1 and 3 only
    items, chosen = co.comparative({"base": vectors}, images, tune, (np.arange(8), labels), form, "confused")
    assert chosen["base"].scored.tolist() == [1, 3]
    assert sorted(chosen["base"].pairs.tolist()) == [[1, 3], [3, 1]]
    plain = items[items.prompting == "plain"]
    assert plain["first"].tolist() == plain.second.tolist() == [1, 3, 4, 5, 6, 7]
    assert plain.reference.tolist() == [1, 3, 1, 1, 3, 1]
    assert plain.score.tolist() == [1, 3, 3, 1, 1, 1], "ties among what is left go to the lower index"
    assert set(items.score) == {1, 3}


def test_nothing_is_confused():
    vectors = vectors_of([X, Y], [(0, 1)], [X], [Y])
    args = ({"base": vectors}, np.stack([X, Y]), np.arange(2), [0, 1])
    chosen = co.choose(*args)
    assert len(chosen.pairs) == 0
    assert co.apply(chosen, vectors, *args[1:]).correct.all()
    with pytest.raises(PcclipError, match="base confuses no two classes on the tune images; use mode = all"):
        co.choose(*args, mode="confused")


# as released


def test_as_released():
    """Each model's own pairs, from the very images it is tested on, one class of a pair changed, alpha fixed."""
    base = vectors_of([X, Y, Z], [(0, 1), (0, 2), (1, 2)], [-Y, X, Y], [X, Y, Z])
    other = replace(base, classes=base.classes[[2, 1, 0]])
    images, labels = np.stack([X, Y, Z, X]), np.array([0, 1, 2, 1])
    tune = (np.array([2]), np.array([0]))
    models = {"base": base, "other": other}
    items, chosen = co.comparative(models, images, tune, (np.arange(4), labels), protocol="as_released")
    assert chosen["base"].pairs.tolist() == [[0, 1]]  # class 1's image is taken for class 0
    assert chosen["other"].pairs.tolist() == [[0, 2], [2, 0], [2, 1]]  # the last for half its images
    assert chosen["base"].base == "base"
    assert chosen["other"].base == "other"
    assert {(c.split, c.value) for c in chosen.values()} == {("test", 0.8)}
    expected = classify(images, moved(base, [(0, 1)], 0.8), np.arange(4), labels)
    found = items[(items.model == "base") & (items.prompting == "comparative")].drop(columns=["model", "prompting"])
    pd.testing.assert_frame_equal(found.reset_index(drop=True), expected)
    _, chosen = co.comparative(models, images, tune, (np.arange(4), labels), protocol="as_released", values=[0.9])
    assert chosen["base"].value == 0.9
    with pytest.raises(PcclipError, match="form 'weighted' is not in the release"):
        co.comparative(models, images, tune, (np.arange(4), labels), "weighted", protocol="as_released")


# where it helps


def planted(rng, n=400, names=0.0, d=8):
    """Three classes; two differ in images along e1, in names along e2 (nothing in the images) and `names` of e1."""
    e = np.eye(d)
    labels = rng.integers(0, 3, n)
    sign = np.array([1, -1, 0])[labels][:, None]
    images = unit(np.where(labels[:, None] == 2, e[7], e[0]) + 0.5 * sign * e[1] + 0.1 * rng.normal(size=(n, d)))
    offset = e[3]  # what all comparative texts share
    right, swapped = unit(np.stack([offset + e[1], offset])), unit(np.stack([offset - e[1], offset]))
    vectors = vectors_of(
        unit(np.stack([e[0] + 0.3 * e[2] + names * e[1], e[0] - 0.3 * e[2] - names * e[1], e[7]])),
        [(0, 1), (0, 2)],
        right,
        swapped,
        offset,
    )
    every = replace(
        vectors, pairs=np.array([(0, 1), (0, 2), (1, 2)]), right=right[[0, 1, 1]], swapped=swapped[[0, 1, 1]]
    )
    return every, images, labels


@pytest.mark.parametrize("form", co.FORMS)
def test_a_true_text_tells_a_confused_pair_apart(form, rng):
    vectors, images, labels = planted(rng)
    tune, test = (np.arange(200), labels[:200]), (np.arange(200, 400), labels[200:])
    items, chosen = co.comparative({"base": vectors}, images, tune, test, form, k=1)
    accuracy = items.groupby("prompting").correct.mean()
    assert accuracy["plain"] < 0.75
    assert accuracy["comparative"] > 0.95
    table = gains.by_class(items, chosen["base"]).set_index("name")
    assert table.n.sum() == 200
    assert (table.helped - table.hurt).sum() == round(200 * (accuracy["comparative"] - accuracy["plain"]))
    assert (table.comparative[["class 0", "class 1"]] > 0.9).all()
    assert not table.changed["class 2"] or form in ("weighted", "rerank")
    pair = gains.by_pair(items, chosen["base"], vectors, images).set_index(["first", "second"])
    assert pair.text_fit["class 0", "class 1"] > 0.9 > 0.3 > abs(pair.names_fit["class 0", "class 1"])
    assert pair.comparative["class 0", "class 1"] > 0.95


@pytest.mark.parametrize("form", co.FORMS)
def test_a_text_that_is_wrong_is_not_chosen(form, rng):
    vectors, images, labels = planted(rng, names=0.1)
    wrong = replace(vectors, right=vectors.swapped, swapped=vectors.right)
    tune, test = (np.arange(200), labels[:200]), (np.arange(200, 400), labels[200:])
    items, chosen = co.comparative({"base": wrong}, images, tune, test, form, k=1)
    assert chosen["base"].value == co.FORMS[form].values[0]
    before, after = (items[items.prompting == name].correct for name in ("plain", "comparative"))
    assert before.tolist() == after.tolist()
    fixed, _ = co.comparative({"base": wrong}, images, tune, test, form, k=1, values=[2.0 if form == "rerank" else 0.5])
    assert fixed.groupby("prompting").correct.mean().diff()["plain"] > 0.2, "taken all the same, it hurts"


def test_an_oracle_is_always_right():
    """Every class has a name of its own but for two with the same name, which only their text tells apart."""
    classes = np.eye(6)[[0, 0, 1, 2]]
    texts = np.zeros((6, 6))
    texts[0] = np.eye(6)[5]
    vectors = vectors_of(classes, np.stack(np.triu_indices(4, 1), axis=1), texts, -texts)
    labels = np.tile(np.arange(4), 10)
    images = unit(classes[labels] + 0.3 * np.array([1, -1, 0, 0])[labels][:, None] * np.eye(6)[5])
    args = ({"base": vectors}, images, (np.arange(20), labels[:20]), (np.arange(20, 40), labels[20:]))
    for mode in co.MODES:
        for form in ("released", "rerank"):
            items, _ = co.comparative(*args, form, mode)
            assert items[items.prompting == "comparative"].correct.all()
            assert items[items.prompting == "plain"].correct.mean() == (0.75 if mode == "all" else 0.5)


@pytest.mark.parametrize(
    ("form", "protocol"), [*((form, "corrected") for form in co.FORMS), ("released", "as_released")]
)
def test_a_random_model_is_at_chance(form, protocol, rng):
    c, d, n = 5, 16, 4000
    vectors = random_vectors(rng, c, d)
    matrix, rows, labels = random_images(rng, n, c, d)
    items, _ = co.comparative(
        {"base": vectors}, matrix, (rows[:2000], labels[:2000]), (rows[2000:], labels[2000:]), form, protocol=protocol
    )
    for _, part in items.groupby("prompting"):
        interval = binomtest(int(part.correct.sum()), len(part)).proportion_ci(0.999)
        assert interval.low < 1 / c < interval.high
        assert interval.high - interval.low < 0.07


# tables


def prompted(before, found) -> pd.DataFrame:
    """Items of one model by plain prompting, and of the classes found by comparing."""
    after = before.assign(score=found, correct=before.reference == found).set_index(before.index + len(before))
    return pd.concat([before.assign(prompting="plain"), after.assign(prompting="comparative")]).assign(model="base")


def by_hand():
    """Three classes, five images of the first two; what was chosen, and items."""
    vectors = vectors_of([X, Y, Z], [(0, 1), (1, 2)], [X, Y], [Y, Z])
    images, labels = np.stack([X, X, Y, Y, X]), np.array([0, 0, 1, 1, 1])
    chosen = co.choose({"base": vectors}, images, np.arange(5), labels, k=1, values=[0.9])
    before = co.plain(chosen, vectors, images, np.arange(5), labels)
    assert before.correct.tolist() == [True] * 4 + [False]
    return vectors, images, chosen, prompted(before, np.array([0.0, 1, 2, 1, 1]))


def test_where_it_helps_and_hurts_by_hand():
    _, _, chosen, items = by_hand()
    assert gains.by_class(items, chosen).to_dict("list") == {
        "name": ["class 0", "class 1"],
        "changed": [True, True],
        "n": [2, 3],
        "plain": [1.0, pytest.approx(2 / 3)],
        "comparative": [0.5, pytest.approx(2 / 3)],
        "helped": [0, 1],
        "hurt": [1, 1],
    }


def test_why_by_hand():
    """An image that goes to a third class is not the pair's to tell apart; class 2 has no images."""
    vectors, images, chosen, items = by_hand()
    [pair] = gains.by_pair(items, chosen, vectors, images).to_dict("records")
    # mean images X and (X + 2 Y) / 3 differ along X - Y, as the names do and the texts
    assert pair == {
        "first": "class 0",
        "second": "class 1",
        "n": 4,
        "plain": 0.75,
        "comparative": 0.75,
        "helped": 1,
        "hurt": 1,
        "names_fit": pytest.approx(1),
        "text_fit": pytest.approx(1),
        "text_names": pytest.approx(1),
    }


def test_a_pair_that_no_image_is_between():
    vectors, images, chosen, items = by_hand()
    [pair] = gains.by_pair(items.assign(score=2.0, correct=False), chosen, vectors, images).to_dict("records")
    assert [pair[name] for name in ("n", "helped", "hurt")] == [0, 0, 0]
    assert np.isnan([pair["plain"], pair["comparative"]]).all()
    none = gains.by_pair(items, replace(chosen, pairs=np.zeros((0, 2), dtype=int)), vectors, images)
    assert none.empty
    assert none.columns.tolist() == gains.BY_PAIR


# tested


def changing(helped, hurt, **keys) -> pd.DataFrame:
    """Items of 40 images, so many newly right and newly wrong; half of the others are right."""
    same = [True, False] * ((40 - helped - hurt) // 2)
    was = np.array([True] * hurt + [False] * helped + same)
    now = np.array([False] * hurt + [True] * helped + same)
    rows = pd.DataFrame({"first": np.arange(40), "second": np.arange(40), "score": 0.0, "reference": 0.0})
    keys = {"form": "rerank", "mode": "all", "protocol": "corrected", "model": "base", "best_on_tune": True, **keys}
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
            changing(0, 6, dataset="cub", form="released", best_on_tune=False),
        ],
        ignore_index=True,
    )
    table = gains.tested(items, 300, 0).set_index(["form", "model", "dataset"])
    assert list(table.columns) == [name for name in gains.TESTED if name not in table.index.names]
    one = table.loc["rerank", "base", "flowers"]
    assert [one.n, one.helped, one.hurt, one.plain, one.comparative, one.difference] == [40, 10, 0, 0.375, 0.625, 0.25]
    assert one.ci_low < 0.25 < one.ci_high
    assert [one.test, one.best_on_tune] == ["mcnemar", True]
    p = 2 * 0.5**10
    assert one.p_mcnemar == pytest.approx(p)
    assert one.p_holm == pytest.approx(2 * p), "two data sets"
    assert table.p_holm["rerank", "finetuned", "cub"] == pytest.approx(p), "another model is a family of its own"
    assert table.p_holm["rerank", "base", "cub"] == pytest.approx(binomtest(8, 10).pvalue)
    hurt = table.loc["released", "base", "cub"]
    assert [hurt.difference, hurt.hurt, hurt.best_on_tune] == [pytest.approx(-0.15), 6, False]


def test_the_best_forms_are_a_family_whatever_form_is_best():
    """What is shown is one row a data set: two tests, though each form is the best of one data set only."""
    items = pd.concat(
        [
            changing(10, 0, dataset="flowers"),
            changing(8, 2, dataset="cub", best_on_tune=False),
            changing(0, 6, dataset="flowers", form="released", best_on_tune=False),
            changing(10, 2, dataset="cub", form="released"),
        ],
        ignore_index=True,
    )
    p_holm = gains.tested(items, 300, 0).set_index(["form", "dataset"]).p_holm
    best = [binomtest(10, 10).pvalue, binomtest(10, 12).pvalue]
    assert p_holm["rerank", "flowers"] == pytest.approx(2 * best[0])
    assert p_holm["released", "cub"] == pytest.approx(best[1])
    assert p_holm["rerank", "cub"] == pytest.approx(binomtest(8, 10).pvalue), "the larger of its form's two"


def test_nothing_was_compared():
    assert gains.tested(pd.DataFrame(columns=gains.KEYS), 100, 0).columns.tolist() == gains.TESTED


# what cannot be


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"form": "best"}, "no form 'best' or mode 'all'; forms: released, centred"),
        ({"mode": "some"}, "or mode 'some'; .* modes: all, confused"),
        ({"base": "finetuned"}, "no model 'finetuned' to choose pairs by; there are: base"),
        ({"rows": [], "labels": []}, "no tune images to choose pairs and alpha on"),
        ({"k": 0}, "k = 0, values = None; ask for one pair or more"),
        ({"values": []}, r"values = \[\]"),
        ({"values": [0.8, 1.5]}, r"values = \[0.8, 1.5\]"),
        ({"values": [np.nan]}, "values = .nan"),
        ({"values": [-1.0], "form": "rerank"}, "strengths from 0"),
        ({"labels": [0, 5, 1]}, "labels run from 0 to 5"),
        ({"labels": [0, 1]}, "3 images and 2 labels"),
    ],
)
def test_a_choice_that_cannot_be_made(change, says, rng):
    given = {
        "models": {"base": random_vectors(rng)},
        "matrix": unit(rng.normal(size=(3, 8))),
        "rows": [0, 1, 2],
        "labels": [0, 1, 1],
        **change,
    }
    with pytest.raises(PcclipError, match=says) as error:
        co.choose(**given)
    assert "\n" not in str(error.value)


def test_models_with_texts_for_different_pairs(rng):
    one = random_vectors(rng)
    for other in (replace(one, pairs=one.pairs[::-1]), random_vectors(rng, 4), replace(one, classes=one.classes[:4])):
        with pytest.raises(PcclipError, match="texts for different classes or pairs; encode the same tables with each"):
            co.choose({"base": one, "other": other}, *random_images(rng, 9))


@pytest.mark.parametrize(("rows", "labels"), [([0], [9]), ([0], [-1]), ([0, 1], [0])])
def test_labels_that_are_no_classes(rows, labels, rng):
    vectors = random_vectors(rng)
    matrix, *images = random_images(rng, 60)
    chosen = co.choose({"base": vectors}, matrix, *images, mode="confused", k=1)
    for task in (co.apply, co.plain):
        with pytest.raises(PcclipError, match="labels must be one for each .* from 0 to 4"):
            task(chosen, vectors, matrix, rows, labels)


def test_an_unknown_protocol(rng):
    with pytest.raises(PcclipError, match="no protocol 'mine'; known: as_released, corrected"):
        co.comparative({"base": random_vectors(rng)}, *random_images(rng, 9)[:1], None, None, protocol="mine")
