"""The tables and figures of results: what stands in their cells, what is drawn where."""

import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_hex

from pcclip import plots
from pcclip.stats import metrics as statistics

METRICS = pd.DataFrame(
    [
        ("zero_shot", "birds", "base", "accuracy", 0.5, 0.4, 0.6, 100),
        ("zero_shot", "birds", "finetuned", "accuracy", 0.75, 0.65, 0.85, 100),
        ("zero_shot", "fields", "base", "accuracy", 0.25, 0.2, 0.3, 400),
        ("zero_shot", "fields", "finetuned", "accuracy", 0.2, 0.15, 0.25, 400),
        ("zero_shot", "fields", "captions", "accuracy", 0.3, 0.25, 0.35, 400),
        ("ranking", "birds/size", "base", "spearman", -0.1, -0.3, 0.1, 30),
        ("ranking", "birds/size", "base", "pairwise_accuracy", 0.45, 0.35, 0.55, 30),
        ("difference_classification", "birds", "base", "accuracy", 0.5, np.nan, np.nan, 60),
        ("made_up", "birds", "base", "accuracy", np.nan, np.nan, np.nan, 0),
    ],
    columns=["task", "dataset", "model", "metric", "value", "ci_low", "ci_high", "n"],
)
PAIRED = pd.DataFrame(
    [
        ("zero_shot", "birds", "accuracy", 0.25, 0.15, 0.35, 0.001),
        ("zero_shot", "fields", "accuracy", -0.05, -0.1, 0.0, 0.05),
        ("ranking", "birds/size", "spearman", 0.1, -0.2, 0.4, np.nan),
    ],
    columns=["task", "dataset", "metric", "difference", "ci_low", "ci_high", "p_holm"],
).assign(after="finetuned", before="base")


# tables


def test_the_papers_table_by_hand():
    table = plots.tables(METRICS, PAIRED)["Zero-shot classification"]
    assert list(table.columns) == ["birds", "fields"]
    assert table.to_dict("index") == {
        "base": {"birds": "0.500 [0.400, 0.600]", "fields": "0.250 [0.200, 0.300]"},
        "finetuned": {"birds": "0.750 [0.650, 0.850]", "fields": "0.200 [0.150, 0.250]"},
        "captions": {"birds": "", "fields": "0.300 [0.250, 0.350]"},
        "finetuned - base": {"birds": "+0.250 [+0.150, +0.350] *", "fields": "-0.050 [-0.100, +0.000]"},
        "n": {"birds": "100", "fields": "400"},
    }


def test_models_that_cannot_be_told_apart_are_printed_as_tied():
    table = plots.paper_table(
        METRICS[:5].assign(tied=[False, False, True, False, True]), PAIRED.assign(detectable=0.14)
    )
    assert table.loc[["base", "finetuned"], "birds"].str.endswith("]").all()
    assert table.fields.str.endswith(" tied").tolist() == [True, False, True, False, False, False]
    assert table.loc["finetuned - base, detectable"].tolist() == ["0.140", "0.140"]


def test_every_task_and_metric_has_a_table_the_papers_first():
    found = plots.tables(METRICS)
    assert list(found) == [
        "Difference-based classification",
        "Zero-shot classification",
        "Ranking by an attribute, spearman",
        "Ranking by an attribute, pairwise accuracy",
        "Made up",
    ]
    assert found["Difference-based classification"].loc["base", "birds"] == "0.500", "no interval, no brackets"
    assert found["Made up"].loc["base", "birds"] == ""
    assert found["Ranking by an attribute, spearman"].loc["base", "size"] == "-0.100 [-0.300, 0.100]"


def test_one_call_draws_every_table():
    rows = [
        ("zero_shot", "cub", "base", "accuracy", 0.5),
        ("zero_shot", "cub", "a $ peer", "accuracy", 0.7),
        ("zero_shot", "sun", "base", "accuracy", 0.6),
        ("ranking", "s/size", "base", "spearman", 0.1),
        ("ranking", "s/size", "base", "pairwise_accuracy", 0.55),
    ]
    table = pd.DataFrame(rows, columns=["task", "dataset", "model", "metric", "value"])
    table = table.assign(ci_low=table.value - 0.1, ci_high=table.value + 0.1, n=9)
    panels = [ax for ax in plots.overview(table).axes if ax.get_title(loc="left")]
    assert [ax.get_title(loc="left") for ax in panels] == list(plots.tables(table))
    assert [label.get_text() for label in panels[0].get_yticklabels()] == ["cub", "sun"]
    base, peer = dots(panels[0]).values()
    assert [(x, round(y)) for x, y in base] == [(0.5, 0), (0.6, 1)]
    assert [(x, round(y)) for x, y in peer if not np.isnan(x)] == [(0.7, 0)]
    bars = [end for bar in panels[0].collections for end in bar.get_segments() if len(end)]
    assert {round(float(x), 6) for end in bars for x in end[:, 0]} == {0.4, 0.5, 0.6, 0.7, 0.8}


def test_protocols_stand_side_by_side():
    one = METRICS[METRICS.dataset == "birds"].query("task == 'zero_shot'")
    both = pd.concat(
        [
            one.assign(protocol="as_released"),
            one.assign(protocol="corrected", value=0.125),
            one.assign(protocol="", dataset="fish"),
        ]
    )
    table = plots.paper_table(both, PAIRED.head(1).assign(protocol="corrected"))
    assert list(table.columns) == ["birds, as released", "birds, corrected", "fish"]
    assert list(table.loc["base"].str[:5]) == ["0.500", "0.125", "0.500"]
    assert list(table.loc["finetuned - base"]) == ["", "+0.250 [+0.150, +0.350] *", ""]


def test_two_comparisons_are_two_rows():
    second = PAIRED.head(1).assign(after="captions", difference=0.5, p_holm=1.0)
    table = plots.paper_table(METRICS[METRICS.task == "zero_shot"], pd.concat([PAIRED.head(2), second]))
    assert list(table.index[-3:]) == ["finetuned - base", "captions - base", "n"]
    assert list(table.loc["captions - base"]) == ["+0.500 [+0.150, +0.350]", ""]


def test_tables_of_what_statistics_finds(rng):
    items = [
        pd.DataFrame(
            {
                "task": "zero_shot",
                "dataset": "set",
                "model": model,
                "first": range(40),
                "second": range(40),
                "correct": rng.random(40) < share,
            }
        )
        for model, share in (("a", 0.2), ("b", 0.9))
    ]
    paired = statistics.compare(pd.concat(items), "b", "a", 100, 0)
    metrics = pd.DataFrame(
        [
            {
                "task": "zero_shot",
                "dataset": "set",
                "model": "a",
                "metric": "accuracy",
                "value": 0.2,
                "ci_low": 0.1,
                "ci_high": 0.3,
                "n": 40,
            }
        ]
    )
    [cell] = plots.paper_table(metrics, paired).loc["b - a"]
    assert cell == f"{paired.difference[0]:+.3f} [{paired.ci_low[0]:+.3f}, {paired.ci_high[0]:+.3f}] *"


def test_differences_are_named_by_their_models_task_and_data_set():
    changes = plots.differences(PAIRED)
    assert set(changes.name) == {"finetuned - base"}
    assert list(changes.what) == ["zero shot, birds", "zero shot, fields", "birds, size"]


# figures


def dots(ax) -> dict:
    """Face colour -> [(x, y)] of an axis' markers."""
    found = {}
    for line in ax.get_lines():
        if line.get_marker() == "o":
            found.setdefault(to_hex(line.get_markerfacecolor()), []).extend(zip(*line.get_data(), strict=True))
    return found


def test_the_forest_draws_each_difference_and_marks_the_sure():
    accuracy, spearman = plots.forest(PAIRED).axes
    assert dots(accuracy) == {plots.MODELS["finetuned"]: [(0.25, 0)], "#ffffff": [(-0.05, 1)]}
    assert dots(spearman)[plots.MODELS["finetuned"]] == [(0.1, 0)], "no p value: neither sure nor doubtful"
    assert [label.get_text() for label in accuracy.get_yticklabels()] == ["zero shot, birds", "zero shot, fields"]
    ends = sorted(float(x) for bar in accuracy.collections for path in bar.get_segments() for x in path[:, 0])
    assert ends == pytest.approx([-0.1, 0.0, 0.15, 0.35])
    assert accuracy.get_title(loc="left") == "accuracy: finetuned - base"
    assert accuracy.yaxis_inverted()
    assert "Holm" in spearman.get_xlabel()


def test_a_forest_of_nothing():
    [ax] = plots.forest(PAIRED.iloc[:0]).axes
    assert ax.get_title(loc="left").startswith("nothing was compared")


def test_long_row_names_leave_room_for_the_matrix(recwarn):
    plots.style()
    figure = plots.heat_map(np.eye(2), ["a photo of a very long caption " * 9, "$5"], [1, 2], "title")
    figure.canvas.draw()
    assert not [warning for warning in recwarn if "constrained_layout" in str(warning.message)]
    (ax,) = figure.axes
    assert ax.get_window_extent().width > 0.3 * figure.bbox.width


def test_the_alpha_sweep_draws_every_line_and_rings_what_was_chosen():
    alphas = np.array([1.0, 0.5, 0.0])
    table = pd.concat(
        [
            pd.DataFrame({"dataset": dataset, "model": model, "alpha": alphas, "value": shift + alphas / 10})
            for dataset in ("birds", "fields")
            for model, shift in (("base", 0.2), ("peer", 0.4))
        ]
    )
    plots.style()
    figure = plots.alpha_sweep(table.assign(chosen=table.alpha == 0.5))
    birds, fields = figure.axes
    assert (birds.get_title("left"), fields.get_title("left")) == ("birds", "fields")
    base, peer = (line for line in birds.get_lines() if len(line.get_xdata()))
    assert [list(values) for values in peer.get_data()] == [[0, 0.5, 1], pytest.approx([0.4, 0.45, 0.5])]
    assert base.get_color() == plots.MODELS["base"]
    assert peer.get_color() not in plots.MODELS.values()
    rings = np.concatenate([ring.get_offsets() for ring in birds.collections])
    np.testing.assert_allclose(rings, [(0.5, 0.25), (0.5, 0.45)])
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["base", "peer"]


def test_without_results_the_figure_says_so():
    [ax] = plots.overview(METRICS[:0]).axes
    assert ax.texts[0].get_text() == "nothing was measured"


def test_data_sets_in_words():
    names = ["stamps/body_mass/one_sided", "stamps/top_speed/two_prompt", "stamps"]
    assert plots.in_words(names) == ["body mass, one text", "top speed, two prompts", "stamps"]
    assert plots.in_words(["cub", "stamps/structures/images shuffled"]) == ["cub", "stamps, images shuffled"]
    assert plots.in_words(["s/structures/trained/a_b", "s/structures/held_out/c"]) == ["trained, a b", "held out, c"]


def test_the_headline_is_accuracies_without_single_structures():
    table = pd.DataFrame(
        [
            ("difference_order", "s/template", "accuracy"),
            ("ranking", "s/size", "spearman"),
            ("ranking", "s/size", "pairwise_accuracy"),
            ("difference_order", "s/structures/trained/forward", "accuracy"),
            ("difference_classification", "s/structures/images shuffled", "accuracy"),
            ("specificity", "s/size/speed", "pairwise_accuracy"),
        ],
        columns=["task", "dataset", "metric"],
    )
    assert list(plots.headline(table).index) == [0, 2, 4]


def test_panels_with_the_same_rows_name_them_once_and_mark_chance():
    rows = [
        (task, dataset, "base", "accuracy", 0.5)
        for task in ("difference_classification", "difference_order", "zero_shot")
        for dataset in ("s/template", "s/llm")
    ]
    table = pd.DataFrame(rows, columns=["task", "dataset", "model", "metric", "value"])
    left, zero_shot, right, _ = plots.overview(table.assign(ci_low=0.4, ci_high=0.6, n=9)).axes
    assert [label.get_text() for label in left.get_yticklabels()] == ["template sentences", "sentences of 01"]
    assert left.yaxis.get_tick_params()["labelleft"]
    assert not zero_shot.yaxis.get_tick_params()["labelleft"]
    dotted = [
        [line.get_xdata()[0] for line in ax.get_lines() if line.get_linestyle() == ":"]
        for ax in (left, zero_shot, right)
    ]
    assert dotted == [[0.5], [], [0.5]], "zero-shot chance hangs on the classes"
