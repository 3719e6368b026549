"""Questions against truths, and retrieval, against cases counted by hand."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from pcclip.config import Evaluate
from pcclip.embedding.vectors import Vectors
from pcclip.evaluation import specificity
from pcclip.evaluation.retrieval import recall_ranks

TEXTS = {"big": [1, 0], "small": [-1, 0], "fast": [0.6, 0.8], "slow": [-0.6, -0.8]}


def held_out(table: pd.DataFrame, matrix: np.ndarray, **evaluate) -> SimpleNamespace:
    """What specificity.score reads of a HeldOut: photos with two truths, and one question for each."""
    settings = {"questions": {"size": ["big", "small"], "speed": ["fast", "slow"]}, "fixed": "mass", "bootstrap": 200}
    config = SimpleNamespace(
        evaluate=Evaluate(**settings | evaluate), generate=SimpleNamespace(attributes=None), seed=0
    )
    images = SimpleNamespace(attributes=["mass", "speed"])
    vectors = Vectors(list(table["id"]), list(table["id"]), matrix.astype(np.float32))
    return SimpleNamespace(config=config, images=images, table=table, vectors=vectors)


@pytest.fixture
def model():
    return SimpleNamespace(encode_texts=lambda texts: np.array([TEXTS[text] for text in texts], np.float32))


def values(table: pd.DataFrame) -> dict:
    return table.set_index(["question", "truth", "metric"]).value.round(6).to_dict()


def test_pairs_are_counted_against_every_truth(model):
    """Of six pairs by mass, size has all but (c, d) right and speed all but (a, b); b's speed is not known."""
    table = pd.DataFrame({"id": [*"abcd"], "concept": [*"abcd"], "mass": [1, 2, 3, 4], "speed": [4, np.nan, 2, 2]})
    given = held_out(table, np.array([[0.0, 0.3], [0.1, 0.0], [0.4, 0.5], [0.3, 0.9]]))
    scored = specificity.score(given, {"base": model})
    found = values(scored)
    assert found["size", "mass", "pairwise_accuracy"] == pytest.approx(5 / 6)
    assert found["speed", "mass", "pairwise_accuracy"] == pytest.approx(5 / 6)
    assert found["size", "speed", "pairwise_accuracy"] == found["speed", "speed", "pairwise_accuracy"] == 0
    assert ("size", "mass", "partial_spearman") not in found
    assert set(scored[scored.truth == "speed"].n) == {3}
    rows = specificity.as_metrics(scored, "set")
    assert set(rows.task + " " + rows.dataset) >= {"specificity set/size/mass", "specificity set/speed/speed"}


def test_a_question_of_size_alone_has_nothing_left_when_mass_is_given(model, rng):
    """Speed is mass plus a part of its own; the axis of speed has both, the axis of size mass and noise."""
    mass, own, noise = rng.normal(size=(3, 400))
    table = pd.DataFrame({"id": [f"{k}" for k in range(400)], "mass": mass, "speed": mass + own})
    given = held_out(table.assign(concept=table["id"]), np.stack([mass + 0.3 * noise, own], axis=1))
    found = values(specificity.score(given, {"base": model}))
    assert found["size", "speed", "pairwise_accuracy"] > 0.7
    assert abs(found["size", "speed", "partial_spearman"]) < 0.1
    assert found["speed", "speed", "partial_spearman"] > 0.8


def test_intervals_are_over_concepts(model, rng):
    """Ten photos of each concept say no more of the concepts' masses than one does."""
    mass = np.arange(12.0)
    matrix = np.stack([mass + 3 * rng.normal(size=12), mass], axis=1)
    photos = pd.DataFrame({"id": [*map(str, mass)], "concept": [*map(str, mass)], "mass": mass, "speed": mass})
    tenfold = photos.loc[photos.index.repeat(10)].assign(id=[*map(str, range(120))]).reset_index(drop=True)

    def width(table, rows):
        row = specificity.score(held_out(table, rows), {"base": model}).iloc[0]
        return row.ci_high - row.ci_low

    assert width(tenfold, matrix.repeat(10, axis=0)) == pytest.approx(width(photos, matrix), rel=0.2)


def test_no_truth_no_question(model):
    table = pd.DataFrame({"id": ["a", "b"], "concept": ["a", "b"], "mass": [1.0, 1.0], "speed": [np.nan, np.nan]})
    empty = specificity.score(held_out(table, np.eye(2)), {"base": model})
    assert specificity.as_metrics(empty, "set").empty
    assert specificity.matrices(empty) == {}


def test_recall_counts_ties_against_and_leaves_the_others_of_its_own_out():
    captions = np.array([[1.0, 0], [0.8, 0.6], [0, 1.0], [0, 1.0]], np.float32)
    images = np.array([[0.9, np.sqrt(0.19)], [0.0, 1.0]], np.float32)
    # image 0 is nearest to caption 1, its second own one; image 1 ties with caption 3, which is not its own
    assert recall_ranks(images, captions, [{0, 1}, {2}]).tolist() == [1, 2]
    assert recall_ranks(captions, images, [{0}, {0}, {1}, {0}]).tolist() == [1, 1, 1, 2]
