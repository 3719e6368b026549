"""Zero-shot: prompts, class vectors, and classification with known answers, in blocks."""

import tracemalloc

import numpy as np
import pandas as pd
import pytest

from pcclip.benchmarks.benchmark import Benchmark
from pcclip.errors import PcclipError
from pcclip.evaluation import zero_shot
from pcclip.evaluation.zero_shot import class_texts, classify, prompt_sets, zero_shot_tasks
from pcclip.stats.vectors import unit

AXES = np.eye(4, dtype=np.float32)
NAMES = ["Cat", "river boat", "{}"]


def ints(*values):
    return np.array(values, dtype=int)


IMAGE = (ints(0), ints(0))  # row and label of one image


class Listening:
    """Random unit vectors, the same for the same text; keeps what it was asked."""

    def __init__(self, width=8, known=()):
        self.width, self.known, self.asked = width, dict(known), []

    def __call__(self, texts):
        assert all(isinstance(text, str) for text in texts)
        self.asked += texts
        return np.stack([self.known.get(text, self.random(text)) for text in texts]).astype(np.float32)

    def random(self, text):
        return unit(np.random.default_rng([*text.encode()]).normal(size=self.width))


def labelled(classes=NAMES, released=None) -> Benchmark:
    return Benchmark("few", "classification", pd.DataFrame(), classes=list(classes), released=released)


# prompts


def test_prompts_by_hand():
    assert zero_shot.templated(NAMES, "single") == [
        ["This is a photo of a Cat"],
        ["This is a photo of a river boat"],
        ["This is a photo of a {}"],
    ]
    assert zero_shot.described(NAMES[:2], [["It purrs."], ["It is long.", "It floats."]]) == [
        ["This is a photo of a Cat. It purrs."],
        ["This is a photo of a river boat. It is long.", "This is a photo of a river boat. It floats."],
    ]


@pytest.mark.parametrize(
    ("name", "count", "some"),
    [
        ("official80", 80, ["a bad photo of a {}.", "a tattoo of the {}."]),
        ("simple7", 7, ["itap of a {}.", "a photo of the small {}."]),
    ],
)
def test_the_official_sets(name, count, some):
    for label, texts in zip(NAMES, zero_shot.templated(NAMES, name), strict=True):
        assert len(set(texts)) == len(texts) == count
        assert {text.replace("{}", label) for text in some} <= set(texts)
        assert all(text.count(label) == 1 for text in texts)


# class vectors


def test_class_texts_by_hand():
    known = {"a": AXES[0], "b": AXES[1], "c": -AXES[2], "d": -AXES[2]}
    prompts = [["a", "b"], ["c", "d", "c"], ["a", "a", "b"], ["b"]]
    one, five = 1 / np.sqrt(2), np.sqrt(5)
    means = class_texts(Listening(4, known), prompts)
    np.testing.assert_allclose(means, [[one, one, 0, 0], [0, 0, -1, 0], [2 / five, 1 / five, 0, 0], AXES[1]], atol=1e-6)
    mean_scores = class_texts(Listening(4, known), prompts, "scores")
    np.testing.assert_allclose(mean_scores, [[0.5, 0.5, 0, 0], [0, 0, -1, 0], [2 / 3, 1 / 3, 0, 0], AXES[1]], atol=1e-6)


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: class_texts(Listening(4, {"a": AXES[0] * np.nan}), [["a"]]), "text vectors hold values"),
        (lambda: classify(AXES, AXES[:, :3], *IMAGE), "text vectors are 3 wide, image vectors 4"),
        (lambda: classify(AXES * np.inf, AXES, *IMAGE), "image vectors hold values"),
        (
            lambda: zero_shot_tasks(Listening(), prompt_sets(labelled()), np.ones((1, 9)), *IMAGE),
            "8 wide, image vectors 9",
        ),
    ],
)
def test_bad_vectors_say_what_to_do(make, says):
    with np.errstate(invalid="ignore"), pytest.raises(PcclipError, match=says) as error:
        make()
    assert "\n" not in str(error.value)


# classification


def test_classify_by_hand():
    matrix = unit(np.array([[3, 2, 1, 0], [0, 3, 2, 1], [1, 0, 3, 2.0]]))
    items = classify(matrix, AXES, ints(2, 0, 1, 0), ints(2, 2, 0, 1))
    assert list(items["first"]) == list(items["second"]) == [2, 0, 1, 0]
    assert list(items.score) == [2, 0, 1, 0]
    assert list(items.reference) == [2, 2, 0, 1]
    assert list(items.correct) == [True, False, False, False]
    assert items.score.dtype == items.reference.dtype == float


def test_a_tie_goes_to_the_lower_index():
    texts = AXES[[3, 0, 0, 3]]
    for label in range(4):
        items = classify(AXES, texts, ints(0), ints(label))
        assert items.score[0] == 1
        assert items.correct[0] == (label == 1)


@pytest.mark.parametrize("block", [1, 7, 4096])
def test_equal_texts_tie_whatever_the_arithmetic(block, monkeypatch):
    """A matrix product may give equal columns unequal values in the last bit."""
    monkeypatch.setattr("pcclip.stats.intervals.CELLS", block * 700)
    for seed in range(8):
        rng = np.random.default_rng(seed)
        count, width = int(rng.integers(3, 1100)), int(rng.choice([16, 100, 384]))
        texts = unit(rng.normal(size=(count, width))).astype(np.float32)
        twins = [0, count // 2, count - 1]
        texts[twins] = texts[0]
        matrix = unit(texts[0] + rng.normal(size=(20, width)) / width).astype(np.float32)
        for label in twins:
            items = classify(matrix, texts, np.arange(20), np.full(20, label))
            assert (items.score == 0).all()
            assert (items.correct == (label == 0)).all()


def test_blocks_change_nothing(rng, monkeypatch):
    matrix, texts = (unit(rng.normal(size=(n, 16))) for n in (103, 12))
    rows, labels = rng.permutation(103)[:90], rng.integers(0, 12, 90)
    whole = classify(matrix, texts, rows, labels)
    scores = matrix[rows] @ texts.T
    np.testing.assert_array_equal(whole.score, scores.argmax(axis=1))
    np.testing.assert_array_equal(whole.correct, scores.argmax(axis=1) == labels)
    for block in (1, 7, 90):
        monkeypatch.setattr("pcclip.stats.intervals.CELLS", block * (12 + 16))
        pd.testing.assert_frame_equal(classify(matrix, texts, rows, labels), whole)
    assert len(classify(matrix, texts, ints(), ints())) == 0


def test_memory_is_that_of_a_block(rng):
    matrix, texts = (rng.standard_normal((n, 32), dtype=np.float32) for n in (20_000, 1000))
    labels = rng.integers(0, 1000, 20_000)
    tracemalloc.start()
    items = classify(matrix, texts, np.arange(20_000), labels)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(items) == 20_000
    assert peak < 45e6 < 20_000 * 1000 * 4


# all variants


def test_every_variant_and_each_text_encoded_once():
    raw = ["cat_1", "river_boat", "{}"]
    descriptions = [["It purrs.", "It sleeps."], ["It floats."], ["It is blank."]]
    encode = Listening()
    matrix = unit(np.random.default_rng(0).normal(size=(20, 8))).astype(np.float32)
    rows, labels = np.arange(5, 20), np.arange(15) % 3
    found = zero_shot_tasks(encode, prompt_sets(labelled(NAMES, raw), descriptions), matrix, rows, labels)
    names = [
        "single/as_released",
        "single/corrected",
        "simple7/corrected",
        "official80/corrected",
        "official80_scores/corrected",
        "extended/as_released",
        "extended/corrected",
    ]
    assert list(found) == names
    assert len(encode.asked) == len(set(encode.asked))
    expected = {
        "single/as_released": class_texts(encode, zero_shot.templated(raw, "single")),
        "single/corrected": class_texts(encode, zero_shot.templated(NAMES, "single")),
        "simple7/corrected": class_texts(encode, zero_shot.templated(NAMES, "simple7")),
        "official80/corrected": class_texts(encode, zero_shot.templated(NAMES, "official80")),
        "official80_scores/corrected": class_texts(encode, zero_shot.templated(NAMES, "official80"), "scores"),
        "extended/as_released": class_texts(encode, zero_shot.described(raw, [one[:1] for one in descriptions])),
        "extended/corrected": class_texts(encode, zero_shot.described(NAMES, descriptions)),
    }
    for name, texts in expected.items():
        pd.testing.assert_frame_equal(found[name], classify(matrix, texts, rows, labels))


def test_what_is_not_asked_for_is_not_encoded():
    encode = Listening()
    found = zero_shot_tasks(encode, prompt_sets(labelled(), variants=["single"]), np.ones((1, 8)), *IMAGE)
    assert list(found) == ["single/as_released", "single/corrected"]
    assert encode.asked == [text for texts in zero_shot.templated(NAMES, "single") for text in texts]
    assert found["single/as_released"].equals(found["single/corrected"]), "no raw names, no difference"


def planted(rng, sets=25):
    names = [f"thing {k}" for k in range(10)]
    labels = np.repeat(np.arange(10), sets)
    return labelled(names), unit(rng.normal(size=(len(labels), 16))).astype(np.float32), np.arange(len(labels)), labels


def test_a_mute_model_names_the_first_class(rng):
    images, matrix, rows, labels = planted(rng)
    tasks = zero_shot_tasks(lambda texts: np.zeros((len(texts), 16)), prompt_sets(images), matrix, rows, labels)
    for items in tasks.values():
        assert (items.score == 0).all()
        assert items.correct.mean() == 0.1
