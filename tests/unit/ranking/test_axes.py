"""Axes from words, from examples, and learning curves: directions that are known in advance."""

import numpy as np
import pytest

from pcclip import plots
from pcclip.config import Attribute
from pcclip.encoders.dual_encoder import Encoder
from pcclip.errors import PcclipError
from pcclip.ranking import learning_curve as curves
from pcclip.ranking.axes import (
    ESTIMATORS,
    Query,
    agreeing,
    attribute_axis,
    paraphrase_axis,
    query_axis,
    text_axis,
)
from pcclip.ranking.examples import example_differences
from pcclip.ranking.learning_curve import learning_curve
from pcclip.ranking.posterior import Ballot, learnt_order
from pcclip.stats.intervals import Estimate
from pcclip.stats.vectors import unit

TEXTS = Attribute(
    more="a photo of a big one",
    less="a photo of a small one",
    comparison="The first is bigger, the second smaller.",
    comparison_swapped="The first is smaller, the second bigger.",
)


class Words(Encoder):
    """Encodes each text as a unit vector of its own, always the same; remembers what it was asked."""

    def __init__(self, known: dict | None = None, width: int = 12):
        super().__init__()
        self.known, self.width, self.asked = known or {}, width, []

    def encode_texts(self, texts, batch_size=256) -> np.ndarray:
        self.asked += texts
        rows = [
            self.known[text]
            if text in self.known
            else np.random.default_rng(list(text.encode())).normal(size=self.width)
            for text in texts
        ]
        return unit(np.array(rows)).astype(np.float32)


def direction(model: Words, *pairs: tuple[str, str]) -> np.ndarray:
    one, other = (model.encode_texts([pair[side] for pair in pairs]) for side in (0, 1))
    return unit((one - other).mean(axis=0)[None])[0]


# ---- words -----------------------------------------------------------------------------------------------------------


def test_each_estimator_is_the_unit_difference_of_its_texts():
    model = Words()
    expected = {
        "one_sided": model.encode_texts([TEXTS.comparison])[0],
        "antisymmetric": direction(model, (TEXTS.comparison, TEXTS.comparison_swapped)),
        "two_prompt": direction(model, (TEXTS.more, TEXTS.less)),
        "ensemble": direction(
            model,
            *[
                (f"{form} a big one".strip(), f"{form} a small one".strip())
                for form in ("a photo of", "", "a picture of", "this is")
            ],
            (TEXTS.comparison, TEXTS.comparison_swapped),
        ),
    }
    assert {*expected} == {*ESTIMATORS}
    for estimator, axis in expected.items():
        np.testing.assert_allclose(attribute_axis(model, TEXTS, estimator), axis, atol=1e-6)


def test_paraphrases_go_through_the_same_templates():
    model = Words()
    found = attribute_axis(model, TEXTS, "ensemble", [("huge", "tiny")])
    assert {"a photo of huge", "huge", "a picture of tiny", "this is tiny"} <= {*model.asked}
    assert found @ attribute_axis(model, TEXTS, "ensemble") < 0.99


def test_unknown_estimator():
    with pytest.raises(PcclipError, match="'two_sided'; known: one_sided, antisymmetric, two_prompt, ensemble"):
        attribute_axis(Words(), TEXTS, "two_sided")


def test_the_paraphrase_axis_is_the_mean_of_the_differences():
    model = Words(dict(zip("abcd", np.eye(4), strict=True)), 4)
    np.testing.assert_allclose(paraphrase_axis(model, [("a", "b"), ("c", "d")]), [0.5, -0.5, 0.5, -0.5])
    np.testing.assert_allclose(text_axis(model, "a", "b"), np.array([1, -1, 0, 0]) / np.sqrt(2), rtol=1e-6)
    assert list(text_axis(model, "a")) == [1, 0, 0, 0]


def test_a_query_makes_every_text():
    texts = Query(" a  large dog ", "a small dog").attribute()
    assert texts.more == "a photo of a large dog"
    assert texts.less == "a photo of a small dog"
    assert texts.comparison == "The first image shows a large dog, while the second image shows a small dog."
    assert texts.comparison_swapped == "The first image shows a small dog, while the second image shows a large dog."
    assert Query("a large dog", "a small dog").label == "a large dog / a small dog"


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_a_query_without_less_has_an_axis_by_every_estimator(estimator):
    model = Words()
    found = attribute_axis(model, Query("a large dog").attribute(), estimator)
    assert np.linalg.norm(found) == pytest.approx(1, abs=1e-5)
    assert "" not in model.asked
    assert not any(text.endswith(" ") for text in model.asked)


def test_paraphrases_of_a_query_without_less_are_pairs_of_their_own():
    model, query = Words(), Query("a large dog")
    found = attribute_axis(model, query.attribute(), "ensemble", [("a huge dog", "a tiny dog")])
    assert "" not in model.asked
    assert not any(text.endswith(" ") for text in model.asked)
    pairs = [(f"{form}a huge dog", f"{form}a tiny dog") for form in ("a photo of ", "", "a picture of ", "this is ")]
    both = (query.attribute().comparison, query.attribute().comparison_swapped)
    np.testing.assert_allclose(found, direction(model, *pairs, both), atol=1e-6)


@pytest.mark.parametrize("estimator", ["antisymmetric", "two_prompt", "ensemble"])
def test_two_texts_that_are_the_same_to_the_model(estimator):
    class Deaf(Words):
        def encode_texts(self, texts, batch_size=256):
            return super().encode_texts(["noise" for _ in texts])

    assert not attribute_axis(Deaf(), TEXTS, estimator).any(), "a tie, in an evaluation"
    with pytest.raises(PcclipError, match="more and less are the same to this model; say how they differ"):
        query_axis(Deaf(), Query("a large dog", "a small dog"), estimator)


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (("",), "the attribute text is empty"),
        ((" \n",), "the attribute text is empty"),
        (("a", " "), "the attribute text is empty"),
        (("a dog", "a  dog"), "more and less are both 'a dog'"),
        (("Red", "red"), "more and less are both 'Red'"),
    ],
)
def test_a_query_that_asks_nothing(texts, message):
    with pytest.raises(PcclipError, match=message):
        Query(*texts)


def test_paraphrases_that_say_the_opposite_are_left_out():
    large, small = np.eye(6)[:2]
    known = {
        f"{form}{text}": vector
        for form in ("a photo of ", "", "a picture of ", "this is ")
        for text, vector in (("large", large), ("small", small), ("huge", large + 0.1), ("tiny", small + 0.1))
    }
    query = Query("large", "small")
    known |= {query.attribute().comparison: large, query.attribute().comparison_swapped: small}
    assert agreeing(Words(known, 6), query, [("huge", "tiny"), ("tiny", "huge")]) == [("huge", "tiny")]
    assert agreeing(Words(known, 6), query, []) == []


# ---- examples --------------------------------------------------------------------------------------------------------


def gallery(n: int = 200, width: int = 10) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    return unit(rng.normal(size=(n, width))).astype(np.float32), unit(rng.normal(size=(1, width)))[0]


def example_axis(matrix, most, least, text=None) -> np.ndarray:
    differences = example_differences(matrix, most, least)
    none = Ballot(np.empty((0, 2), np.int64), np.empty(0), set())
    return unit(learnt_order(matrix, none, differences, text).mean[None])[0]


def test_one_example_each_is_their_difference():
    matrix, _ = gallery()
    expected = unit(matrix[:1] - matrix[1:2])[0]
    np.testing.assert_allclose(example_axis(matrix, matrix[:1], matrix[1:2]), expected, atol=1e-5)


@pytest.mark.parametrize("sides", [(1, 0), (0, 1)])
def test_examples_of_one_side_are_set_against_the_mean_photo(sides):
    matrix, _ = gallery()
    most, least = matrix[: sides[0]], matrix[: sides[1]]
    expected = (1 if sides[0] else -1) * (matrix[0] - matrix.mean(axis=0))
    np.testing.assert_allclose(example_axis(matrix, most, least), expected / np.linalg.norm(expected), atol=1e-5)


def test_more_examples_teach_more_and_the_text_helps():
    matrix, truth = gallery()
    order = np.argsort(matrix @ truth)
    text = unit((truth + 0.3 * np.random.default_rng(1).normal(size=10))[None])[0]
    few, many, helped = (
        example_axis(matrix, matrix[order[-k:]], matrix[order[:k]], prior) @ truth
        for k, prior in ((1, None), (10, None), (1, text))
    )
    assert few < many
    assert few < helped
    assert text @ truth < example_axis(matrix, matrix[order[-10:]], matrix[order[:10]], text) @ truth


def test_each_example_counts_once():
    matrix, _ = gallery()
    assert example_differences(matrix, matrix[:3], matrix[3:8]).shape == (8, 10)


# ---- sums of attributes ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("more", "terms"),
    [
        ("a well-lit photo", [(1, "a well-lit photo")]),
        ("2:golden retriever - puppy", [(2, "golden retriever"), (-1, "puppy")]),
        ("- 2:a dog + a cat", [(-2, "a dog"), (1, "a cat")]),
        ("big / small + 0.5:a red thing", [(1, "big / small"), (0.5, "a red thing / a blue thing")]),
    ],
)
def test_words_are_sums_of_attributes(more, terms, tiny_encoder):
    less = "a blue thing" if "red" in more else None
    query = Query(more, less)
    assert [(weight, term.label) for weight, term in query.terms()] == terms
    parts = [weight * query_axis(tiny_encoder, Query(*name.split(" / ")), "two_prompt") for weight, name in terms]
    np.testing.assert_allclose(query_axis(tiny_encoder, query, "two_prompt"), unit(sum(parts)), atol=1e-5)


def test_a_sum_without_a_term(tiny_encoder):
    with pytest.raises(PcclipError, match="the attribute text is empty"):
        query_axis(tiny_encoder, Query("2: + a dog"), "two_prompt")


# ---- learning curves -------------------------------------------------------------------------------------------------


def test_votes_teach_and_a_text_is_a_head_start(monkeypatch):
    monkeypatch.setattr(curves, "VOTES", (0, 4, 25))
    matrix, truth = gallery(60, 6)
    text = unit((truth + 0.2 * np.random.default_rng(3).normal(size=6))[None])[0]
    table = learning_curve(matrix, matrix @ truth, np.arange(60) // 2, text, seeds=range(2))
    assert len(table) == 4 * 2 * 3 * 2
    mean = table[table.photos == "other"].groupby(["prior", "asked", "votes"]).accuracy.mean()
    for strategy in ("next_pair", "random"):
        assert mean["none", strategy, 0] == 0.5
        assert mean["none", strategy, 0] < mean["none", strategy, 4] < mean["none", strategy, 25]
        assert mean["text", strategy, 25] > mean["text", strategy, 0]
        assert mean["text", strategy, 4] > mean["none", strategy, 4]
    again = learning_curve(matrix, matrix @ truth, np.arange(60) // 2, text, seeds=[1])
    assert list(again.accuracy) == list(table[table.seed == 1].accuracy)


def test_judged_photos_are_never_voted_on(monkeypatch):
    """The values of the judged half change nothing of what is learned."""
    matrix, truth = gallery(40, 6)
    monkeypatch.setattr(curves, "VOTES", (3,))
    judged_scores = []

    def accuracy(items, draws, seed):
        judged_scores.append(items.score.to_numpy())
        return Estimate(0.5, np.zeros(1), 1)

    monkeypatch.setattr(curves, "pairwise_accuracy", accuracy)
    values, groups = matrix @ truth, np.arange(40)
    judged = np.isin(groups, np.random.default_rng(0).permutation(40)[20:])
    for known in (values, np.where(judged, -values, values)):
        learning_curve(matrix, known, groups, truth, seeds=[0])
    np.testing.assert_array_equal(judged_scores[:8], judged_scores[8:])


@pytest.mark.parametrize(
    ("values", "groups", "message"),
    [
        (np.arange(6.0), [0, 0, 0, 1, 1, 2], "needs four groups of photos, not 3"),
        (np.ones(6), range(6), "values that differ in both halves"),
    ],
)
def test_photos_that_have_no_learning_curve(values, groups, message):
    with pytest.raises(PcclipError, match=message):
        learning_curve(np.eye(6, dtype=np.float32), values, list(groups), np.eye(6)[0], seeds=[0])


def test_the_figure_has_a_line_for_each_way_and_each_reference(monkeypatch):
    monkeypatch.setattr(curves, "VOTES", (0, 2))
    matrix, truth = gallery(20, 4)
    table = learning_curve(matrix, matrix @ truth, np.arange(20), truth, seeds=range(2))
    plots.style()
    voted, ax = plots.learning_curve(table, {"two prompts": 0.7}).axes
    assert voted.get_title("left") != ax.get_title("left")
    assert ax.get_title("left").endswith("never voted on")
    labels = [text.get_text() for text in ax.get_legend().get_texts()]
    assert {"text as the prior", "votes alone", "two prompts"} <= {*labels}
    assert [label.get_text() for label in ax.get_xticklabels()] == ["0", "2"]
