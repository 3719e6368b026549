"""Published figures beside ours, and the released subset mode by hand."""

import numpy as np
import pandas as pd
import pytest

from pcclip.evaluation import comparative, published


def metrics_row(value: float, **keys) -> dict:
    keys = {"task": "difference_classification", "dataset": "cifar100/size", "protocol": "as_released", **keys}
    return {"metric": "accuracy", "value": value, "ci_low": value - 0.1, "ci_high": value + 0.1, **keys}


def test_the_papers_figure_stands_beside_ours():
    metrics = pd.DataFrame(
        [
            metrics_row(0.55, model="base"),
            metrics_row(0.69, model="finetuned"),
            metrics_row(0.5, model="finetuned", protocol="corrected"),
            metrics_row(0.6, model="rewrites"),
        ]
    )
    table = published.beside(metrics, "pc_clip")
    size = table[table.dataset == "cifar100/size"].set_index("model")
    assert size.published.dropna().to_dict() == {"base": 0.5492, "finetuned": 0.6744}
    assert size.ours.dropna().to_dict() == {"base": 0.55, "finetuned": 0.69, "rewrites": 0.6}
    assert size.agrees.to_dict() == {"base": True, "COCO captions": False, "rewrites": False, "finetuned": False}
    assert size.note["rewrites"] == "0.50 to 0.55"
    assert table.ours.notna().sum() == 3, "as released stands beside as released alone"


def test_figures_of_the_base_by_others():
    table = published.beside(
        pd.DataFrame([metrics_row(0.2962, task="winoground_text", dataset="winoground", model="base")]), "clip"
    )
    assert table.set_index("task").agrees.winoground_text == np.False_
    close = metrics_row(0.2949, task="winoground_text", dataset="winoground", model="base", protocol="")
    assert published.beside(pd.DataFrame([close]), "clip").agrees.sum() == 1


def test_the_confused_classes_alone_by_hand():
    """Classes 0 and 1 are a pair, class 2 is not: its images are left out, and no image is taken for it."""
    classes = np.array([[1, 0, 0], [0, 1, 0], [0, 0.6, 0.8]])
    texts = {(0, 1): np.array([0, -1.0, 0]), (1, 0): np.array([-1.0, 0, 0])}
    vectors = comparative.ClassVectors(["a", "b", "c"], classes, texts, np.zeros(3))
    images = np.array([[1, 0, 0], [0, 0.5, 0.9], [0, 0, 1.0]])  # the second is nearest to class 2 of all
    choice = comparative.Choice(np.array([[0, 1]]), comparative.RELEASED_ALPHA)
    test = np.arange(3), np.arange(3)
    items = comparative.confused_items({"base": vectors}, {"base": images}, test, choice)
    plain = items[items.prompting == "plain"]
    assert plain["first"].tolist() == [0, 1]
    assert plain.score.tolist() == [0, 1]
    assert plain.correct.all()
    nothing = comparative.Choice(np.empty((0, 2), dtype=int), 0.9)
    assert comparative.confused_items({"base": vectors}, {"base": images}, test, nothing).empty


@pytest.mark.parametrize("group", ["pc_clip", "clip"])
def test_each_figure_is_named_once(group):
    table = published.beside(pd.DataFrame(columns=[*published._KEYS, "value", "ci_low", "ci_high"]), group)
    assert len(table) > 8
    assert not table[published._KEYS].duplicated().any()
    assert (table.published.notna() | (table.note != "")).all()
