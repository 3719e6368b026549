"""Stage 04 by sentence structure: a model that reads order of mention alone is right in one half and wrong in the other."""

from types import SimpleNamespace
from unittest.mock import Mock

import numpy as np
import pandas as pd
import pytest
from helpers.knowing import predicted, prepared
from torch import nn

from pcclip import config as params
from pcclip.benchmarks.benchmark import Benchmark
from pcclip.comparisons.sentences import inside, sides
from pcclip.comparisons.structures import STRUCTURES
from pcclip.comparisons.verdicts import named
from pcclip.embedding.vectors import Vectors
from pcclip.encoders.dual_encoder import Encoder
from pcclip.evaluation import benchmarks, labelled, stage
from pcclip.evaluation.predictions import Predictions
from pcclip.stats.vectors import unit

CONTROLS = {"images shuffled", "captions subtracted"}
REVERSED = ["reversed", "depicts_reversed", "marker_after_reversed"]
CLASSES = ["dog", "owl", "car", "boat", "bee", "lamp", "tree", "ant"]


class Reader(Encoder):
    """f(text) = u(A) - u(B), where A is the caption that the text mentions first, or that it says of the first image."""

    def __init__(self, u: dict[str, np.ndarray], reads: str):
        nn.Module.__init__(self)  # it has no towers
        self.u, self.reads = u, reads

    def encode_texts(self, texts):
        return np.stack([self._vector(text) for text in texts]).astype(np.float32)

    def _vector(self, text):
        lower = text.lower()
        mentioned = sorted((lower.find(caption.lower()), caption) for caption in self.u if caption.lower() in lower)
        longest = [c for _, c in mentioned if not any(c != other and c in other for _, other in mentioned)]
        if len(longest) < 2:
            return self.u[longest[0]] if longest else np.zeros(len(next(iter(self.u.values()))))
        first, second = longest[:2]
        if self.reads == "meaning" and sides(text) and first.lower() not in sides(text)[0].lower():
            first, second = second, first
        return unit((self.u[first] - self.u[second])[None])[0]


@pytest.fixture
def given(values, tiny_encoder, tmp_path):
    return prepared(values, tiny_encoder, tmp_path, structures=12)


@pytest.fixture
def planted(values, monkeypatch):
    """planted(classes, structures) is a labelled set of twenty photos a class: the class's vector, and a little noise."""

    def make(classes=CLASSES, structures=120):
        rng, labels = np.random.default_rng(0), np.arange(20 * len(classes)) % len(classes)
        means = unit(rng.normal(size=(len(classes), 32)))
        matrix = unit(means[labels] + 0.02 * rng.normal(size=(len(labels), 32))).astype(np.float32)
        images = pd.DataFrame({"id": [f"i{k}" for k in range(len(labels))], "label": labels, "split": "test"})
        images["path"] = images["id"]
        made = Benchmark("folders", "classification", images, classes=list(classes))
        vectors = Vectors(list(images["id"]), list(images.path), matrix)
        monkeypatch.setattr(labelled, "embedded_sets", lambda *_: [("folders", made, vectors)])
        sets = {"folders": {"path": "none", "tasks": ["differences"]}}
        evaluate = {**values["evaluate"], "structures": structures, "labelled": sets}
        u = {named(name): mean for name, mean in zip(classes, means, strict=True)}
        return SimpleNamespace(config=params.check({**values, "evaluate": evaluate}), made=made, u=u)

    return make


def scored(planted, **models) -> pd.DataFrame:
    """Items of the structures of a labelled set."""
    predictions = Predictions()
    labelled.score(planted.config, {"folders": planted.made}, models, predictions)
    table = predictions.table()
    return table[table.dataset.str.contains("/structures/")]


def accuracies(table: pd.DataFrame, name: str, task: str = "difference_classification") -> pd.Series:
    """Mean of `correct` by the data set's name after 'NAME/structures/', for one task."""
    table = table[(table.task == task) & table.dataset.str.startswith(f"{name}/structures/")]
    return table.assign(name=table.dataset.str.split("/").str[-1]).groupby("name").correct.mean()


def of_own_images(given, model) -> pd.DataFrame:
    u = given.vectors.of(given.images.held_out)
    u = dict(zip(u.caption.map(inside), given.vectors.matrix[given.vectors.rows(u["id"])], strict=True))
    return predicted(given.config, given.images, given.vectors, given.comparisons, {"base": Reader(u, model)})


@pytest.mark.parametrize(("reads", "of_reversed"), [("order of mention", 0.0), ("meaning", 1.0)])
def test_only_a_model_that_reads_meaning_is_right_in_reversed_structures(given, reads, of_reversed):
    accuracy = accuracies(of_own_images(given, reads), "folder")
    assert set(accuracy.index) == {s.name for s in STRUCTURES} | CONTROLS
    assert accuracy["forward"] == accuracy["number_words"] == accuracy["captions subtracted"] == 1
    assert (accuracy[REVERSED] == of_reversed).all()
    assert accuracy["images shuffled"] < 1


def test_structures_are_scored_where_they_are_asked_for(values, tiny_encoder, tmp_path, planted):
    given = prepared(values, tiny_encoder, tmp_path)
    own = predicted(given.config, given.images, given.vectors, given.comparisons, {"base": tiny_encoder})
    assert accuracies(own, "folder").empty
    without = planted(structures=0)
    assert scored(without, base=Reader(without.u, "meaning")).empty


# ---- labelled sets ---------------------------------------------------------------------------------------------------


def test_a_labelled_set_has_the_rows_of_the_own_images(given, planted):
    own, made = of_own_images(given, "meaning"), planted()
    own = own[own.dataset.str.contains("/structures/")]
    public = scored(made, base=Reader(made.u, "meaning"))
    rows = [
        dict.fromkeys(zip(table.task, table.dataset.str.removeprefix(name), table.protocol, strict=True))
        for table, name in ((own, "folder"), (public, "folders"))
    ]
    assert list(rows[0]) == list(rows[1])


@pytest.mark.parametrize(("reads", "of_reversed"), [("order of mention", 0.0), ("meaning", 1.0)])
def test_on_a_labelled_set_order_of_mention_is_wrong_where_the_second_image_comes_first(planted, reads, of_reversed):
    made = planted()
    table = scored(made, base=Reader(made.u, reads))
    for task in ("difference_classification", "difference_order"):
        accuracy = accuracies(table, "folders", task)
        assert (accuracy[["forward", "number_words", "depicts"]] == 1).all()
        assert (accuracy[REVERSED] == of_reversed).all()
    accuracy = accuracies(table, "folders")
    assert accuracy["captions subtracted"] == 1, "without any sentence, whatever a model reads"
    assert accuracy["images shuffled"] == pytest.approx(0.5, abs=0.12)
    assert set(table.first_unit) == set(CLASSES), "intervals draw classes"


def test_structures_of_a_labelled_set_are_compared_in_pairs(planted):
    made = planted()
    models = {"base": Reader(made.u, "order of mention"), "finetuned": Reader(made.u, "meaning")}
    metrics, paired = stage.summarise(scored(made, **models), 200, 0)
    dataset = "folders/structures/trained/reversed"
    assert dict(metrics[metrics.dataset == dataset].groupby("model").value.max()) == {"base": 0, "finetuned": 1}
    change = paired[paired.dataset == dataset]
    assert list(change.task) == ["difference_classification", "difference_order"]
    assert (change.difference == 1).all()
    assert (paired[paired.dataset == "folders/structures/captions subtracted"].difference == 0).all()
    shuffled = metrics[metrics.dataset == "folders/structures/images shuffled"]
    assert ((shuffled.ci_low < 0.5) & (shuffled.ci_high > 0.5)).all()


def test_a_set_with_one_class_has_no_rows(planted, capsys):
    made, predictions = planted(CLASSES[:1]), Mock()
    labelled.score(made.config, {"folders": made.made}, {"base": Reader(made.u, "meaning")}, predictions)
    predictions.add.assert_not_called()
    assert "folders/class names, corrected: no two of these images are of classes" in capsys.readouterr().out


def test_a_changed_structure_evaluates_labelled_sets_again(planted, config, monkeypatch):
    made = planted()
    before = [benchmarks.inputs(each, {}) for each in (made.config, config)]
    monkeypatch.setattr(benchmarks, "STRUCTURES", STRUCTURES[1:])
    after = [benchmarks.inputs(each, {}) for each in (made.config, config)]
    assert [a == b for a, b in zip(before, after, strict=True)] == [False, True]
