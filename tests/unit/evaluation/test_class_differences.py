"""Difference-based classification: what is said of classes, which pairs, and three scores with known answers."""

from itertools import combinations, permutations

import numpy as np
import pandas as pd
import pytest
import torch
from helpers.cifar import HUNDRED as CIFAR100
from helpers.public_sets import flower_names

from pcclip.errors import PcclipError
from pcclip.evaluation.class_differences import (
    Contrast,
    awa2_size,
    cifar100_size,
    class_names,
    class_pairs,
    distance_items,
    every_class,
    flowers_colour,
    image_pairs,
    released_pairs,
)
from pcclip.evaluation.differences import TASKS, difference_items
from pcclip.evaluation.protocols import PROTOCOLS
from pcclip.stats import metrics as statistics
from pcclip.stats.vectors import unit

LARGE, SMALL = {15, 42, 43, 97}, {36, 65, 74, 80}
WRITTEN = pd.DataFrame(
    {"first": ["cat", "dog"], "second": ["dog", "owl"], "difference": ["c-d", "d-o"], "swapped": ["d-c", "o-d"]}
)
ANIMALS = [f"animal {k:02}" for k in np.random.default_rng(5).permutation(50)]


@pytest.fixture(scope="module")
def flowers() -> list[str]:
    return flower_names()


@pytest.fixture
def binary(rng) -> pd.DataFrame:
    """50 rows of 85 attributes."""
    names = [f"attribute {k}" for k in range(85)]
    names[14:16] = ["big", "small"]
    return pd.DataFrame(rng.integers(0, 2, (50, 85)), columns=names)


def compared(found: Contrast) -> set:
    """Ordered pairs of classes that are compared."""
    assert (found.comparable == found.comparable.T).all()
    assert not found.comparable.diagonal().any()
    return {(int(a), int(b)) for a, b in np.argwhere(found.comparable)}


def across(one, other) -> set:
    return {(a, b) for a in one for b in other} | {(b, a) for a in one for b in other}


# what is said


@pytest.mark.parametrize(("protocol", "word"), [("as_released", "whiel"), ("corrected", "while")])
def test_cifar100_size(protocol, word):
    found = cifar100_size(CIFAR100, protocol)
    assert compared(found) == across(LARGE, SMALL)
    large = f"The first image contains a larger animal, {word} the second contains a smaller animal."
    small = "The first image contains a smaller animal, while the second contains a larger animal."
    assert found.texts(15, 80) == (large, small)
    assert found.texts(36, 97) == (small, large)
    assert len(found.seeds) == 5


def test_cifar100_in_another_order():
    names = CIFAR100[::-1]
    found = compared(cifar100_size(names, "corrected"))
    assert found == {(99 - a, 99 - b) for a, b in across(LARGE, SMALL)}


def test_flowers_colour(flowers):
    released = flowers_colour(flowers, "as_released")
    assert compared(released) == across([2, 7], [4, 6, 10, 19])
    corrected = flowers_colour(flowers, "corrected")
    blue, yellow = [9, 24, 27, 34], [14, 41, 53]
    assert compared(corrected) == across(blue, yellow)
    assert [flowers[k] for k in [*blue, *yellow]] == [
        "globe thistle",
        "grape hyacinth",
        "stemless gentian",
        "alpine sea holly",
        "yellow iris",
        "daffodil",
        "sunflower",
    ]
    texts = (
        "The first flower is blue, while the second is yellow.",
        "The first flower is yellow, while the second is blue.",
    )
    assert released.texts(2, 4) == corrected.texts(9, 14) == texts
    assert released.texts(19, 7) == corrected.texts(53, 34) == texts[::-1]


def test_awa2_size_is_that_of_the_animals_shown(binary):
    labels = np.repeat([7, 30, 3, 44, 21], 2)
    big = {k for k in range(50) if binary["big"][k]}
    found = awa2_size(ANIMALS, labels, binary, "corrected")
    assert compared(found) == across(big, set(range(50)) - big)
    large = "The first image contains an animal that is large, while the second image contains an animal that is small."
    small = "The first image contains an animal that is small, while the second image contains an animal that is large."
    a, b = min(big), min(set(range(50)) - big)
    assert found.texts(a, b) == (large, small)
    assert found.texts(b, a) == (small, large)


def test_awa2_size_as_released_reads_the_wrong_rows_and_column(binary):
    labels = np.repeat([7, 30, 3, 44, 21], 2)
    binary.loc[:4, "small"] = [1, 0, 0, 1, 0]
    found = awa2_size(ANIMALS, labels, binary, "as_released")
    shown = sorted([7, 30, 3, 44, 21], key=lambda k: ANIMALS[k])
    large, small = {shown[0], shown[3]}, {shown[1], shown[2], shown[4]}
    assert {(a, b) for a, b in compared(found) if {a, b} <= set(shown)} == across(large, small)
    said = found.texts(shown[0], shown[1])
    assert said == (
        "The first image contains an animal that is large, while the second image contains an animal that is small.",
        "The first image contains an animal is small, while the second image contains an animal that is large.",
    )
    assert found.texts(shown[4], shown[3]) == said[::-1]
    assert list(found.seeds) == [0], "all five of its draws are the same one"


def test_class_names_and_any_text():
    found = class_names(["cat", "dog", "owl"])
    assert compared(found) == set(permutations(range(3), 2))
    assert found.texts(0, 2) == (
        "The first image shows a cat, while the second image shows a owl.",
        "The first image shows a owl, while the second image shows a cat.",
    )
    assert every_class(4, lambda a, b: f"{a} not {b}").texts(3, 1) == ("3 not 1", "1 not 3")


def test_texts_written_for_pairs_of_classes():
    found = class_pairs(["owl", "dog", "cat"], WRITTEN)
    assert compared(found) == {(2, 1), (1, 2), (1, 0), (0, 1)}
    assert [found.texts(2, 1), found.texts(1, 2), found.texts(0, 1)] == [("c-d", "d-c"), ("d-c", "c-d"), ("o-d", "d-o")]


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("labels", [[0, 0], [1, 1], []])
def test_no_two_classes_no_pairs(protocol, labels):
    pairs = image_pairs(class_names("ab"), images(labels), protocol)
    assert (len(pairs), list(pairs)) == (0, ["first", "second", "difference", "swapped", "seed"])


# which pairs


def images(labels) -> tuple[np.ndarray, np.ndarray]:
    return np.arange(len(labels)), np.array(labels, dtype=int)


def by_hand(comparable, labels, seeds) -> list[tuple[int, int, int]]:
    """The released draws in loops."""
    pool, found = [i for i, label in enumerate(labels) if comparable[label].any()], []
    for seed in seeds:
        torch.manual_seed(seed)
        chosen = [pool[k] for k in torch.randperm(len(pool))[:100]]
        found += [(i, j, seed) for i, j in combinations(chosen, 2) if comparable[labels[i]][labels[j]]]
    return found


def test_the_released_pairs(rng):
    labels = rng.integers(0, 100, 3000)
    kinds = cifar100_size(CIFAR100, "as_released")
    rows = rng.permutation(5000)[:3000]
    with torch.random.fork_rng(devices=[]):
        expected = by_hand(kinds.comparable, labels, range(5))
        torch.manual_seed(9)
        before = torch.get_rng_state()
        pairs = image_pairs(kinds, (rows, labels), "as_released")
        assert torch.equal(torch.get_rng_state(), before), "the draw has a generator of its own"
    assert len(pairs) > 5 * 2000
    np.testing.assert_array_equal(
        pairs[["first", "second", "seed"]], [(rows[i], rows[j], seed) for i, j, seed in expected]
    )
    label = dict(zip(rows, labels, strict=True))
    first_is_large = pairs["first"].map(label).isin(LARGE)
    assert 0.3 < first_is_large.mean() < 0.7
    assert (pairs.difference.str.contains("a larger animal, whiel") == first_is_large).all()
    assert (pairs.swapped.str.contains("a larger animal, whiel") == ~first_is_large).all()


def test_corrected_pairs_are_all_there_are_when_few(rng):
    labels = np.array([0, 1, 2, 1, 0, 3])
    said = class_pairs(["cat", "dog", "owl", "ant"], WRITTEN)
    rows = np.array([10, 11, 12, 13, 14, 15])
    pairs = image_pairs(said, (rows, labels), "corrected", seed=4)
    found = {frozenset(pair) for pair in zip(pairs["first"], pairs["second"], strict=True)}
    assert found == {frozenset(pair) for pair in [(10, 11), (10, 13), (14, 11), (14, 13), (11, 12), (13, 12)]}
    assert len(pairs) == 6
    assert set(pairs.seed) == {4}
    for row in pairs.itertuples():
        assert (row.difference, row.swapped) == said.texts(labels[row.first - 10], labels[row.second - 10])


def test_corrected_pairs_are_drawn_evenly_and_either_image_is_first():
    labels = np.repeat([0, 1, 2], [5, 20, 10])
    kinds = class_names("abc")
    counts, firsts, total = np.zeros((35, 35)), 0, 0
    for seed in range(60):
        pairs = image_pairs(kinds, images(labels), "corrected", seed, 100)
        one, two = pairs[["first", "second"]].min(axis=1), pairs[["first", "second"]].max(axis=1)
        assert len(pairs) == len({*zip(one, two, strict=True)}) == 100
        assert (labels[one] != labels[two]).all()
        np.add.at(counts, (one, two), 1)
        firsts += (pairs["first"] == one).sum()
        total += len(pairs)
    possible = np.triu(labels[:, None] != labels[None])
    assert (counts[~possible] == 0).all()
    expected = total / possible.sum()
    assert ((counts[possible] - expected) ** 2 / expected).sum() < 1.2 * possible.sum()
    assert counts[possible].min() > 0
    assert firsts / total == pytest.approx(0.5, abs=0.03)


def test_the_seed_decides_the_corrected_pairs():
    labels = np.arange(200) % 7
    first, again, other = (
        image_pairs(class_names("abcdefg"), images(labels), "corrected", seed, 50) for seed in (1, 1, 2)
    )
    pd.testing.assert_frame_equal(first, again)
    assert (first["first"] != other["first"]).any()


def test_pairs_that_have_texts(rng):
    count = 6000
    table = pd.DataFrame(
        {
            "first": rng.integers(0, 99, count),
            "second": rng.integers(0, 99, count),
            "difference": [f"d{k}" for k in range(count)],
            "swapped": [f"s{k}" for k in range(count)],
            "raw": "x",
        },
        index=np.arange(count) + 7,
    )
    released = released_pairs(table)
    assert list(released.seed) == list(np.repeat(range(5), 5000))
    for seed, part in released.groupby("seed"):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            expected = table.iloc[torch.randperm(count)[:5000].numpy()]
        assert list(part.difference) == list(expected.difference)
        assert list(part["first"]) == list(expected["first"])
    assert list(released) == ["first", "second", "difference", "swapped", "seed"]


# three scores


def known(vectors: dict):
    def encode(texts):
        encode.asked += texts
        return np.stack([vectors[text] for text in texts]).astype(np.float32)

    encode.asked = []
    return encode


def pairs_of(first, second, texts, swapped) -> pd.DataFrame:
    return pd.DataFrame({"first": first, "second": second, "difference": texts, "swapped": swapped})


def accuracies(encode, matrix, pairs) -> tuple:
    """Of difference_classification, difference_order and difference_centred."""
    return tuple(items.correct.mean() for items in difference_items(encode, matrix, pairs).values())


def test_three_scores_by_hand():
    matrix = np.array([[1, 0, 0], [0, 1, 0], [0.6, 0.8, 0]], dtype=np.float32)
    texts = {"up": [0.8, 0, 0.6], "down": [0, 0.8, 0.6], "odd": [0.6, 0, -0.8]}
    pairs = pairs_of([0, 1, 2, 0], [1, 0, 1, 2], ["up", "down", "odd", "down"], ["down", "up", "up", "up"])
    encode = known(texts)
    found = difference_items(encode, matrix, pairs)
    assert tuple(found) == TASKS
    assert sorted(encode.asked) == ["down", "odd", "up"], "every text once"
    v = unit(np.array([[1, -1, 0], [-1, 1, 0], [0.6, -0.2, 0], [0.4, -0.8, 0]]))
    mean = np.mean([*texts.values()], axis=0)
    given, twins = (np.array([texts[text] for text in pairs[column]]) for column in ("difference", "swapped"))
    scores = {
        "difference_classification": (v * given).sum(axis=1),
        "difference_order": (v * given).sum(axis=1),
        "difference_centred": (v * unit(given - mean)).sum(axis=1),
    }
    right = {
        "difference_classification": [True, True, True, False],
        "difference_order": [True, True, False, False],
        "difference_centred": [True, True, True, False],
    }
    for task, items in found.items():
        assert list(items) == ["first", "second", "score", "reference", "correct"]
        assert list(items["first"]) == [0, 1, 2, 0]
        assert list(items["second"]) == [1, 0, 1, 2]
        np.testing.assert_allclose(items.score, scores[task], atol=1e-6)
        assert list(items.correct) == right[task]
    np.testing.assert_allclose(found["difference_order"].reference, (v * twins).sum(axis=1), atol=1e-6)
    assert (found["difference_centred"].reference == 0).all()


@pytest.fixture
def planted(rng):
    """60 images of 12 classes; the pairs are of different classes and the first image has more of axis 0."""
    labels = np.arange(60) % 12
    matrix = unit(rng.normal(size=(60, 16))).astype(np.float32)
    pairs = image_pairs(class_names([f"thing {k}" for k in range(12)]), images(labels), "corrected", 0, 400)
    high = matrix[pairs["first"], 0] > matrix[pairs["second"], 0]
    columns = ["first", "second", "difference", "swapped"]
    pairs[columns] = np.where(high[:, None], pairs[columns], pairs[["second", "first", "swapped", "difference"]])
    return matrix, pairs.astype({"first": int, "second": int}), labels


def classed(planted, signal, noise, offset):
    """f(text) = unit(offset e0 + signal (mean of the first's class - mean of the second's) + noise)."""
    matrix, pairs, labels = planted
    centres = np.stack([matrix[labels == k].mean(axis=0) for k in range(12)])
    rng, vectors = np.random.default_rng(3), {}
    for row in pairs.itertuples():
        for text, one, two in ((row.difference, row.first, row.second), (row.swapped, row.second, row.first)):
            made = offset * np.eye(16)[0] + noise * rng.normal(size=16)
            vectors.setdefault(text, unit(made + signal * (centres[labels[one]] - centres[labels[two]])))
    return known(vectors)


def exchanged(pairs):
    return pairs.rename(columns={"difference": "swapped", "swapped": "difference"})


def test_a_constant_offset_fools_only_the_released_score(planted):
    """Every text lies along an axis of which the first image has more: cos > 0 is right whatever the text says."""
    matrix, pairs, _ = planted
    ignorant, knowing = classed(planted, 0, 0.001, 1), classed(planted, 0.001, 0, 1)
    for encode in (ignorant, knowing):
        assert accuracies(encode, matrix, pairs)[0] > 0.9
        assert accuracies(encode, matrix, exchanged(pairs))[0] > 0.9
    truth = accuracies(classed(planted, 1, 0, 0), matrix, pairs)
    _, order, centred = accuracies(ignorant, matrix, pairs)
    assert (order, centred) == pytest.approx((0.5, 0.5), abs=0.1)
    _, order, centred = accuracies(knowing, matrix, pairs)
    assert order > 0.7
    assert (order, centred) == pytest.approx((truth[1], truth[2]), abs=0.03), "as good as without the offset"
    _, order, centred = accuracies(knowing, matrix, exchanged(pairs))
    assert order < 0.3
    assert centred < 0.3


def test_an_oracle_is_right_and_its_opposite_wrong(rng):
    labels = np.arange(40) % 8
    centres = unit(rng.normal(size=(8, 16)))
    matrix = unit(centres[labels] + 0.01 * rng.normal(size=(40, 16))).astype(np.float32)
    pairs = image_pairs(every_class(8, lambda a, b: f"{a} {b}"), images(labels), "corrected", 0, 300)
    oracle = known({f"{a} {b}": unit(centres[a] - centres[b]) for a, b in permutations(range(8), 2)})
    assert accuracies(oracle, matrix, pairs) == (1, 1, 1)
    assert accuracies(oracle, matrix, exchanged(pairs)) == (0, 0, 0)
    for items in difference_items(oracle, matrix, pairs).values():
        assert statistics.accuracy(items, 100, 0).interval == (1, 1)


def test_a_tie_is_wrong():
    matrix = np.eye(3, dtype=np.float32)
    same = known({"a": [0, 0, 1], "b": [0, 0, 1]})
    pairs = pairs_of([0, 1], [1, 0], ["a", "b"], ["b", "a"])
    assert accuracies(same, matrix, pairs) == (0, 0, 0)
    mute = known({"a": [0, 0, 0], "b": [0, 0, 0]})
    assert accuracies(mute, matrix, pairs) == (0, 0, 0)


def test_texts_that_are_all_one_vector_have_no_direction_once_centred(rng):
    """The mean of many equal vectors in float32 is not quite equal to them: what is left must not be a direction."""
    matrix = unit(rng.normal(size=(50, 16))).astype(np.float32)
    first, second = rng.integers(0, 25, 5000), rng.integers(25, 50, 5000)
    texts, constant = [f"t{k}" for k in range(5000)], unit(rng.normal(size=16))
    found = difference_items(known(dict.fromkeys(texts, constant)), matrix, pairs_of(first, second, texts, texts[::-1]))
    assert not found["difference_centred"].correct.any()
    assert (found["difference_centred"].score == 0).all()
    assert not found["difference_order"].correct.any()


@pytest.mark.parametrize("noise", [0, 1e-7])
def test_equal_images_are_counted_and_wrong(rng, noise):
    matrix = unit(rng.normal(size=(20, 64)))
    matrix[10:] = matrix[:10] + noise * unit(rng.normal(size=(10, 64)))
    matrix = matrix.astype(np.float32)
    first, second = np.arange(20), np.arange(20) ^ 1
    first, second = np.concatenate([first, np.arange(10)]), np.concatenate([second, np.arange(10, 20)])
    texts, twins = [f"t{k}" for k in range(30)], [f"s{k}" for k in range(30)]
    v = unit(matrix[first] - matrix[second] + 1e-30)
    oracle = known({**dict(zip(texts, v, strict=True)), **dict(zip(twins, -v, strict=True))})
    found = difference_items(oracle, matrix, pairs_of(first, second, texts, twins))
    for items in found.values():
        assert len(items) == 30
        assert list(items.correct) == [True] * 20 + [False] * 10


def test_blocks_change_nothing(planted, monkeypatch):
    matrix, pairs, _ = planted
    encode = classed(planted, 0.5, 0.3, 0.2)
    whole = difference_items(encode, matrix, pairs)
    for block in (7, 150, 400):
        monkeypatch.setattr("pcclip.stats.intervals.CELLS", block * matrix.shape[1])
        for task, items in difference_items(encode, matrix, pairs).items():
            pd.testing.assert_frame_equal(items, whole[task])
    assert 0.5 < whole["difference_order"].correct.mean() < 1


@pytest.mark.parametrize(
    ("vectors", "matrix", "says"),
    [
        ({"a": [1, 0], "b": [0, 1]}, np.eye(3), "text vectors are 2 wide, image vectors 3"),
        ({"a": [1, 0], "b": [0, np.nan]}, np.eye(2), "text vectors hold values"),
        ({"a": [1, 0], "b": [0, 1]}, np.eye(2) * np.nan, "image vectors hold values"),
    ],
)
def test_bad_vectors_say_what_to_do(vectors, matrix, says):
    with pytest.raises(PcclipError, match=says):
        difference_items(known(vectors), matrix, pairs_of([0], [1], ["a"], ["b"]))


# embedding distances

AB = pd.DataFrame({"first": ["a"], "second": ["b"], "difference": ["d"], "swapped": ["e"]})


def directions(**vectors):
    return known({name.replace("_", " "): unit(np.array(vector, dtype=np.float32)) for name, vector in vectors.items()})


@pytest.mark.parametrize(("protocol", "distance"), [("as_released", 1 - np.sqrt(0.5)), ("corrected", 0.0)])
def test_the_distance_of_a_known_pair(protocol, distance):
    model = directions(A_photo_of_a_a=[1, 0], A_photo_of_a_b=[0, 1], d=[1, 0], e=[0, 1])
    items = distance_items(model, ["a", "b"], AB, protocol)
    assert items.score[0] == pytest.approx(distance, abs=1e-6)
    assert items.reference[0] == pytest.approx(2 - distance, abs=1e-6)
    assert items[["first", "second", "correct"]].values.tolist() == [[0, 1, True]]


def test_the_released_distance_subtracts_class_texts_of_their_own_lengths():
    """By hand: (3, 0) - (0, 1) = (3, -1) has a cosine of 3 / sqrt(10) with d; unit vectors would give 1 / sqrt(2)."""
    lengths = known({"a": [3, 0], "b": [0, 1], "d": [5, 0], "e": [0, 1]})
    [item] = distance_items(lengths, ["a", "b"], AB, "as_released", "{}").to_dict("records")
    assert item["score"] == pytest.approx(1 - 3 / np.sqrt(10), abs=1e-6)
    assert item["reference"] == pytest.approx(1 + 3 / np.sqrt(10), abs=1e-6)


def test_an_offset_of_all_texts_fools_the_released_distance():
    """All texts of differences point nearly where a is; what they say is the wrong way round."""
    model = directions(a=[1, 0, 0], b=[0, 1, 0], d=[9, 0.9, 0.1], e=[9, -0.9, 0.1])
    released, corrected = (distance_items(model, ["a", "b"], AB, protocol, "{}") for protocol in PROTOCOLS)
    assert released.correct[0]
    assert released.score[0] < 0.5
    assert not corrected.correct[0]
    assert corrected.score[0] > 1.5


def test_texts_without_direction_are_at_distance_one():
    model = directions(a=[1, 0], b=[0, 1], d=[1, 1], e=[1, 1])
    for protocol in PROTOCOLS:
        items = distance_items(model, ["a", "b"], AB, protocol, "{}")
        assert items.score[0] == pytest.approx(items.reference[0], abs=1e-6)
    assert not items.correct[0]


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("oracle", [True, False])
def test_distances_of_an_oracle_and_of_random_texts(oracle, protocol, rng):
    """The oracle's texts are the differences of its names."""
    names = [f"c{k}" for k in range(12)]
    vectors = dict(zip(names, unit(rng.standard_normal((12, 32))), strict=True))
    texts = {(a, b): vectors[a] - vectors[b] if oracle else rng.standard_normal(32) for a, b in permutations(names, 2)}
    vectors |= {f"{a}-{b}": unit(text) for (a, b), text in texts.items()}
    pairs = pd.DataFrame(
        [(a, b, f"{a}-{b}", f"{b}-{a}") for a, b in combinations(names, 2)],
        columns=["first", "second", "difference", "swapped"],
    )
    items = distance_items(known(vectors), names, pairs, protocol, "{}")
    assert items.correct.all() == oracle
    low, high = statistics.mean_score(items, 200, 0).interval
    assert high < 1e-6 if oracle else low <= 1 <= high
