"""Measures of a ranking against known answers, and how near a text axis comes to the supervised one."""

import numpy as np
import pandas as pd
import pytest

from pcclip.evaluation import stage as report
from pcclip.evaluation.predictions import measured
from pcclip.stats import metrics as statistics

# ---- the tables of stage 04 ------------------------------------------------------------------------------------------


def ranked(dataset: str, reference, task: str = "ranking", **scores) -> pd.DataFrame:
    """Predictions of one data set by name of the model."""
    ids = [f"{k}.jpg" for k in range(len(reference))]
    return pd.concat(
        [
            pd.DataFrame(
                {
                    "task": task,
                    "dataset": dataset,
                    "protocol": "",
                    "model": name,
                    "first": ids,
                    "second": ids,
                    "score": score,
                    "reference": reference,
                    "correct": None,
                }
            )
            for name, score in scores.items()
        ],
        ignore_index=True,
    )


@pytest.fixture
def predictions(rng):
    """Two ways to ask for size, one for weight, whose values are the same, and one for speed, which has no ceiling."""
    size = np.exp(rng.normal(size=40))
    noisy = {
        name: np.log(size) + noise * rng.normal(size=40)
        for name, noise in (("base", 3.0), ("finetuned", 1.0), ("supervised", 0.3))
    }
    text = {name: noisy[name] for name in ("base", "finetuned")}
    return pd.concat(
        [
            ranked("set/size/plain", size, **text),
            ranked("set/size/swapped", size, **text),
            ranked("set/weight/plain", size, finetuned=noisy["finetuned"]),
            ranked("set/speed/plain", rng.permutation(size), **text),
            ranked("set/size/supervised", size, supervised=noisy["supervised"]),
        ],
        ignore_index=True,
    )


def of(metrics: pd.DataFrame, dataset: str, model: str) -> pd.DataFrame:
    return metrics[(metrics.dataset == dataset) & (metrics.model == model)].set_index("metric")


def test_rankings_have_all_measures_and_are_tested_by_them(predictions):
    metrics, paired = report.summarise(predictions, 100, 0)
    own = of(metrics, "set/size/plain", "base")
    assert list(own.index) == [
        "spearman",
        "pairwise_accuracy",
        "clear_pairwise_accuracy",
        "spearman_share",
        "pairwise_accuracy_share",
    ]
    items = predictions[(predictions.dataset == "set/size/plain") & (predictions.model == "base")]
    for metric in statistics.metrics_of("ranking"):
        expected = statistics.MEASURES[metric](items, 100, 0)
        assert own.value[metric] == expected.value
        assert (own.ci_low[metric], own.ci_high[metric]) == expected.interval
    assert set(paired.metric) == {"spearman", "pairwise_accuracy", "clear_pairwise_accuracy"}


def test_what_cannot_be_told_from_the_best_is_tied():
    right = np.arange(200) < 180
    models = {"best": right, "near": np.roll(right, 1), "far": np.arange(200) < 60}
    rows = [
        pd.DataFrame({"model": model, "first": range(200), "second": range(200), "correct": correct, "score": 0.0})
        for model, correct in models.items()
    ]
    items = pd.concat(rows).assign(task="zero_shot", dataset="set", protocol="", reference=0.0)
    assert dict(zip(models, measured(items, 200, 0).tied, strict=True)) == {"best": True, "near": True, "far": False}
    alone = measured(items[items.model != "near"], 200, 0)
    assert not alone.tied.any(), "the best is tied only with another"
    distances = measured(items.assign(task="embedding_distance", score=1.0 * ~items.correct), 200, 0)
    assert list(distances.tied) == [True, True, False], "a smaller distance is better"


def test_the_share_is_that_of_the_supervised_axis_on_the_same_resamples(predictions):
    metrics = measured(predictions, 100, 0)
    estimate = {
        model: statistics.spearman(
            predictions[(predictions.model == model) & (predictions.dataset == f"set/size/{end}")], 100, 0
        )
        for model, end in (("finetuned", "plain"), ("supervised", "supervised"))
    }
    found = of(metrics, "set/size/plain", "finetuned").loc["spearman_share"]
    assert found.value == pytest.approx(estimate["finetuned"].value / estimate["supervised"].value)
    assert [found.ci_low, found.ci_high] == pytest.approx(
        np.percentile(estimate["finetuned"].draws / estimate["supervised"].draws, [2.5, 97.5])
    )
    values = {
        end: of(metrics, f"set/size/{end}", model).value["pairwise_accuracy"]
        for end, model in (("plain", "base"), ("supervised", "supervised"))
    }
    assert of(metrics, "set/size/plain", "base").value["pairwise_accuracy_share"] == pytest.approx(
        (values["plain"] - 0.5) / (values["supervised"] - 0.5)
    )


def test_a_share_is_taken_of_an_axis_for_the_same_values(predictions):
    """By the images and values, not by names: weight has the values of size, speed has others."""
    shares = measured(predictions, 100, 0)
    shares = shares[shares.metric == "spearman_share"]
    assert set(zip(shares.dataset, shares.model, strict=True)) == {
        ("set/size/plain", "base"),
        ("set/size/plain", "finetuned"),
        ("set/size/swapped", "base"),
        ("set/size/swapped", "finetuned"),
        ("set/weight/plain", "finetuned"),
    }


def test_there_is_no_share_of_a_ceiling_that_may_be_at_chance(rng):
    values = rng.permutation(30).astype(float)
    items = pd.concat(
        [ranked("a/b/plain", values, base=values), ranked("a/b/supervised", values, supervised=rng.normal(size=30))]
    )
    metrics = measured(items, 200, 0)
    low, high = metrics[(metrics.model == "supervised") & (metrics.metric == "spearman")][["ci_low", "ci_high"]].iloc[0]
    assert low < 0 < high
    assert not metrics.metric.str.endswith("_share").any()


def test_the_share_of_pairs(rng):
    """Verdicts on pairs: accuracy, and its share beyond a half."""
    pairs = pd.DataFrame(
        {
            "task": "relative_pairs",
            "protocol": "",
            "first": [f"{k}" for k in range(200)],
            "second": [f"{k + 1}" for k in range(200)],
            "score": 0.0,
            "reference": np.where(rng.random(200) < 0.5, 1.0, -1.0),
        }
    )
    items = pd.concat(
        [
            pairs.assign(dataset="shoes/open/plain", model="base", correct=np.arange(200) % 4 != 0),
            pairs.assign(dataset="shoes/open/supervised", model="supervised", correct=np.arange(200) % 10 != 0),
        ],
        ignore_index=True,
    )
    metrics = measured(items, 100, 0)
    assert metrics[["model", "metric", "value"]].to_numpy().tolist() == [
        ["base", "accuracy", 0.75],
        ["base", "accuracy_share", pytest.approx(0.25 / 0.4)],
        ["supervised", "accuracy", 0.9],
    ]
