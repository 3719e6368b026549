"""Stage 04: agreement with the verdicts, weight averaging as rows of the results, and the figures of both."""

import ast
import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import yaml
from helpers.judge import BANK, Judge
from helpers.knowing import Knowing, predicted, prepared
from helpers.runs import run_values
from matplotlib.colors import to_hex

from pcclip import plots
from pcclip.comparisons import stage as generate, verdicts
from pcclip.config import root
from pcclip.data.image_set import ImageSet
from pcclip.evaluation import stage as report
from pcclip.evaluation.own_images import HeldOut
from pcclip.ranking.axes import text_axis


def agreement(given, model) -> pd.DataFrame:
    """Per-item predictions of verdict_agreement."""
    found = predicted(given.config, given.images, given.vectors, given.comparisons, {"base": model})
    return found[found.task == "verdict_agreement"]


@pytest.fixture(scope="module")
def given(photos, tiny_model, tiny_encoder, tmp_path_factory):
    folder = tmp_path_factory.mktemp("report")
    return prepared(run_values(photos, tiny_model, folder), tiny_encoder, folder, alphas=[0.0, 0.25])


# verdict agreement


def test_agreement_with_the_verdicts_by_hand(given, tiny_encoder):
    predictions = agreement(given, tiny_encoder)
    metrics = report.summarise(predictions, 100, 0)[0].set_index("dataset")
    assert set(metrics.index) == {
        "folder/size/train/trained_wording",
        "folder/size/train/new_wording",
        "folder/weight/held_out/trained_wording",
    }, "weight has no new wording"
    table = verdicts.load(given.config)
    table = table[(table.split == "held_out") & table.verdict.isin(["first", "second"])]
    for attribute, wording, key in (
        ("size", "train", "train/trained_wording"),
        ("size", "held_out", "train/new_wording"),
        ("weight", "train", "held_out/trained_wording"),
    ):
        [[up, down]] = BANK["attributes"][attribute][wording]
        axis = text_axis(tiny_encoder, up, down)
        sure = table[table.attribute == attribute]
        step = (
            given.vectors.matrix[given.vectors.rows(sure["first"])]
            - given.vectors.matrix[given.vectors.rows(sure["second"])]
        )
        right = (step @ axis > 0) == (sure.verdict == "first")
        row = metrics.loc[f"folder/{attribute}/{key}"]
        assert row.value == pytest.approx(right.mean())
        assert (row.metric, row.n) == ("accuracy", len(sure))
        items = predictions[predictions.dataset == f"folder/{attribute}/{key}"]
        assert list(items["first"]) == list(sure["first"])
        assert list(items.reference) == list(np.where(sure.verdict == "first", 1.0, -1.0))
        assert list(items.score) == pytest.approx(step @ axis, abs=1e-6)


@pytest.mark.parametrize(("sign", "value"), [(1, 1.0), (-1, 0.0), (0, 0.0)])
def test_a_model_that_knows_agrees_and_a_tie_does_not(given, sign, value):
    [[up, down]] = BANK["attributes"]["size"]["train"]
    axis = np.eye(32)[0]
    size = given.images.table.set_index("id")["size"]
    sizes = np.outer(size[given.vectors.ids].to_numpy() / 20, axis).astype(np.float32)
    given = SimpleNamespace(**{**vars(given), "vectors": replace(given.vectors, matrix=sizes)})
    items = agreement(given, Knowing({up: sign * axis, down: -sign * axis}, 32))
    found = items.groupby("dataset").correct.mean()
    assert found["folder/size/train/trained_wording"] == value
    assert found["folder/size/train/new_wording"] == 0, "no text, no axis"


def test_no_bank_no_verdicts(given, tiny_encoder):
    generate_settings = given.config.generate.model_copy(update={"attributes": None})
    config = given.config.model_copy(update={"generate": generate_settings})
    assert agreement(SimpleNamespace(**{**vars(given), "config": config}), tiny_encoder).empty


def test_a_new_wording_is_evaluated_anew(given, tiny_encoder):
    before = report.stage(given.config, given.images).key
    path = Path(given.config.generate.attributes)
    written = path.read_text()
    bank = {
        **BANK,
        "attributes": {
            **BANK["attributes"],
            "size": {**BANK["attributes"]["size"], "held_out": [["It is vast.", "It is minute."]]},
        },
    }
    try:
        path.write_text(yaml.safe_dump(bank))
        generate.generate(given.config, given.images, tiny_encoder, Judge())
        assert report.stage(given.config, given.images).key != before
    finally:
        path.write_text(written)
        generate.generate(given.config, given.images, tiny_encoder, Judge())


# pairs


def test_cubs_written_pairs_have_the_released_draws_too(given):
    cub = ImageSet("cub", given.images.table, given.images.left_out, given.images.captions)
    own = HeldOut(given.config, cub, given.vectors, given.comparisons)
    sets = own.pairs
    assert list(sets) == [("cub/template", ""), ("cub/llm", ""), ("cub/llm", "as_released")]
    written, drawn = sets["cub/llm", ""], sets["cub/llm", "as_released"]
    assert len(drawn) == 5 * len(written) > 0, "fewer than 5000: each of five draws has them all"
    assert set(drawn.difference) == set(written.difference)
    assert len(replace(own, images=given.images).pairs) == 2


# weight averaging


def test_alphas_are_rows_between_base_and_finetuned(given):
    models = report.load_models(given.config)
    assert list(models) == ["base", "finetuned", "alpha=0", "alpha=0.25"]
    weight = "transformer.resblocks.0.mlp.c_fc.weight"
    base, tuned, mixed = (models[name].text_tower.get_parameter(weight) for name in ("base", "finetuned", "alpha=0.25"))
    assert not base.equal(tuned)
    assert mixed.detach().numpy() == pytest.approx((0.25 * tuned + 0.75 * base).detach().numpy(), abs=1e-7)
    metrics, paired = report.evaluate(given.config, given.images, given.vectors, given.comparisons, models)
    table = metrics[metrics.model != "supervised"].pivot(
        index=["task", "dataset", "metric"], columns="model", values="value"
    )
    assert set(table.columns) == set(models)
    assert table.notna().all(axis=None)
    assert report.read(given.config, report.COMPARATIVE).empty, "no labelled set"
    assert list(table["alpha=0"]) == list(table["base"])
    assert list(paired.difference) == pytest.approx(
        (table["finetuned"] - table["base"]).loc[list(zip(paired.task, paired.dataset, paired.metric, strict=True))],
        abs=2e-6,
    )


# notebook 04


def test_the_notebooks_ranking_is_of_the_runs_own_attributes_alone():
    """With evaluate.relative and no evaluate.attributes there is no ranking to draw, and the cell shows nothing."""
    cells = json.loads((root() / "notebooks" / "04_evaluate.ipynb").read_text(encoding="utf8"))["cells"]
    [cell] = [cell for cell in cells if "plots.ranking(" in "".join(cell["source"])]
    assert cell["metadata"]["tags"] == ["needs:evaluate.attributes"]
    relative = pd.DataFrame({"task": ["relative_pairs"], "dataset": ["zap50k/open/two_prompt"]})
    names = {
        "report": SimpleNamespace(read=lambda config, name: relative, PREDICTIONS=""),
        "images": SimpleNamespace(table=pd.DataFrame({"id": [], "caption": []}), name="stamps"),
        "config": SimpleNamespace(evaluate=SimpleNamespace(attributes={})),
        "plots": plots,
    }
    assert eval_cell("".join(cell["source"]), **names) is None


def eval_cell(source: str, **names):
    """The value of a cell's last line."""
    *body, last = ast.parse(source).body
    exec(compile(ast.Module(body, []), "cell", "exec"), names)
    return eval(compile(ast.Expression(last.value), "cell", "eval"), names)


# the table of metrics


def ranking(reference, **model) -> pd.DataFrame:
    """Predictions of a ranking by scores 1, 2, ..., by name of the model."""
    return pd.concat(
        [
            pd.DataFrame(
                {
                    "task": "ranking",
                    "dataset": "set/size",
                    "protocol": "",
                    "model": name,
                    "first": range(len(score)),
                    "second": range(len(score)),
                    "score": score,
                    "reference": reference,
                    "correct": None,
                }
            )
            for name, score in model.items()
        ],
        ignore_index=True,
    ).astype({"correct": "boolean"})


@pytest.mark.parametrize(
    ("reference", "value"),
    [
        ([1.0, 1.5, 2.0, 4.0], 0.75),
        ([0.0, 1.5, 2.0, 4.0], None),
        ([-1.0, 1.5, 2.0, 4.0], None),
        ([1.0, 1.2, 1.4, 1.6], None),
    ],
)
def test_clear_pairs_have_a_row_where_there_are_any(reference, value):
    items = ranking(reference, base=[1.0, 2.0, 4.0, 3.0], finetuned=[1.0, 2.0, 3.0, 4.0])
    metrics, paired = report.summarise(items, 200, 0)
    found = metrics[metrics.metric == "clear_pairwise_accuracy"].set_index("model")
    assert set(metrics.metric) - {"clear_pairwise_accuracy"} == {"spearman", "pairwise_accuracy"}
    assert metrics[["value", "ci_low", "ci_high"]].notna().all(axis=None)
    if value is None:
        assert found.empty
        assert "clear_pairwise_accuracy" not in set(paired.metric)
        return
    assert found.value.to_dict() == {"base": value, "finetuned": 1.0}  # 1:2, 1:4 and 1.5:4 are right, 2:4 is not
    assert paired.set_index("metric").difference["clear_pairwise_accuracy"] == pytest.approx(0.25)


def test_the_worst_group_is_measured_by_its_worst_class():
    items = pd.DataFrame(
        {
            "task": "worst_group",
            "dataset": "set/single",
            "protocol": "corrected",
            "model": "base",
            "first": range(6),
            "second": range(6),
            "score": 0.0,
            "reference": [0.0] * 4 + [1.0] * 2,
            "correct": [True, True, True, False, True, False],
        }
    )
    metrics, paired = report.summarise(items, 200, 0)
    assert metrics[["metric", "value", "n"]].to_numpy().tolist() == [["worst_group_accuracy", 0.5, 6]]
    assert paired.empty, "one model alone"


# figures


def test_a_study_draws_every_seed_and_their_mean():
    table = pd.DataFrame(
        {
            "variant": ["ours", "ours", "paper", "paper"],
            "size order": [0.9, 0.7, 0.5, 0.6],
            "zero_shot": [0.2, 0.4, 0.3, np.nan],
        }
    )
    plots.style()  # another test of this process may have called it: titles stand on the left
    order, zero_shot = plots.study(table, ["size order", "zero_shot"]).axes
    assert [label.get_text() for label in order.get_yticklabels()] == ["ours", "paper"]
    assert [x for line in order.lines for x in line.get_xdata()] == pytest.approx([0.8, 0.55])
    assert [x for line in zero_shot.lines for x in line.get_xdata()] == pytest.approx([0.3, 0.3])
    dots = sorted(x for points in order.collections for x, _ in np.ma.getdata(points.get_offsets()))
    assert dots == [0.5, 0.6, 0.7, 0.9]
    assert {to_hex(c) for points in order.collections for c in points.get_facecolors()} == {plots.MODELS["finetuned"]}
    assert zero_shot.get_title("left") == "zero shot"
