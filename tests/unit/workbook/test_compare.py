"""Members of a sweep compared: means, ranges and intervals of known numbers."""

import numpy as np
import pandas as pd
import pytest

from pcclip import plots
from pcclip.errors import PcclipError
from pcclip.runs.stage import Stage
from pcclip.workbook import compare
from pcclip.workbook.sweep import FOLDER, TABLE

MEASURES = {
    "difference": ("difference_classification", "stamps/template", "accuracy"),
    "order": ("difference_order", "stamps/template", "accuracy"),
    "zero-shot": ("zero_shot", "stamps", "accuracy"),
    "size, one text": ("ranking", "stamps/body_mass/one_sided", "pairwise_accuracy"),
    "size, text minus twin": ("ranking", "stamps/body_mass/antisymmetric", "pairwise_accuracy"),
}
OTHERS = [
    ("difference_order", "stamps/llm", "accuracy"),
    ("ranking", "stamps/body_mass/one_sided", "spearman"),
    ("ranking", "stamps/top_speed/one_sided", "pairwise_accuracy"),
    ("zero_shot", "stamps", "spearman"),
]


def row(model, value, measure="difference", run="study/x", variant="x", **grid) -> dict:
    task, dataset, metric = MEASURES.get(measure, measure)
    return {
        "task": task,
        "dataset": dataset,
        "model": model,
        "metric": metric,
        "value": value,
        "ci_low": None,
        "ci_high": None,
        "n": 9,
        "run": run,
        "variant": variant,
        **grid,
    }


def loaded(folder, rows) -> pd.DataFrame:
    with Stage(folder / FOLDER, {}).work() as stage:
        pd.DataFrame(rows).to_csv(folder / TABLE, index=False)
        stage.finish([f"../{TABLE}"], {})
    return compare.read(folder)


@pytest.fixture
def table(tmp_path) -> pd.DataFrame:
    """Variants ours and plain on three seeds, the base beside each of them."""
    values = {"ours": [0.8, 0.9, 0.7], "plain": [0.5, 0.7, 0.6]}
    rows = [
        row(model, value, "difference", f"study/seed={seed}/{variant}", variant, seed=seed)
        for variant, result in values.items()
        for seed, own in enumerate(result)
        for model, value in (("base", 0.5), ("finetuned", own), ("alpha=0.5", 0.1))
    ]
    return loaded(tmp_path, rows)


def test_the_base_is_a_variant_and_averaged_weights_are_none(table):
    assert list(dict.fromkeys(table.variant)) == ["base", "ours", "plain"]
    assert table.groupby("variant").size().to_dict() == {"base": 3, "ours": 3, "plain": 3}


def test_only_the_shown_measures_are_read(tmp_path):
    rows = [row("finetuned", k / 8, measure) for k, measure in enumerate([*MEASURES, *OTHERS])]
    result = loaded(tmp_path, rows[::-1])
    assert dict(zip(result.measure, result.value, strict=True)) == {name: k / 8 for k, name in enumerate(MEASURES)}
    assert list(result.measure.cat.categories) == list(MEASURES)


def test_one_row_for_each_variant_and_seed_base_first(table):
    result = compare.by_seed(table)
    assert result[["variant", "seed"]].to_numpy().tolist() == [
        [name, seed] for name in ("base", "ours", "plain") for seed in range(3)
    ]
    assert list(result.difference) == [0.5] * 3 + [0.8, 0.9, 0.7] + [0.5, 0.7, 0.6]


def test_ten_seeds_are_in_the_order_of_numbers(tmp_path):
    rows = [row("finetuned", seed / 16, seed=seed) for seed in range(11)]
    assert list(compare.by_seed(loaded(tmp_path, rows)).seed) == list(range(11))


def test_means_and_half_ranges(table):
    result = compare.means(table)
    assert list(result.columns) == ["difference", "± difference", "seeds"]
    assert list(result.index) == ["base", "ours", "plain"]
    assert list(result.difference) == pytest.approx([0.5, 0.8, 0.6])
    assert list(result["± difference"]) == pytest.approx([0, 0.1, 0.1])
    assert list(result.seeds) == [3, 3, 3]


def test_differences_are_paired_by_seed_with_a_t_interval(table):
    result = compare.differences(table, "plain").set_index("variant")
    assert list(result.index) == ["base", "ours"]
    ours = result.loc["ours"]  # 0.3, 0.2, 0.1: mean 0.2, deviation 0.1, t of 2 degrees 4.3027
    half = 4.302653 * 0.1 / np.sqrt(3)
    assert [ours["minus reference"], ours.ci_low, ours.ci_high] == pytest.approx([0.2, 0.2 - half, 0.2 + half])
    assert ours.seeds == 3
    assert ours.detectable == pytest.approx((4.302653 + 1.060660) * half / 4.302653)
    assert result.loc["base", "minus reference"] == pytest.approx(-0.1)


def test_two_seeds_that_agree_prove_nothing(tmp_path):
    rows = [
        row("finetuned", value, "order", f"s/{v}", v, seed=s) for v, value in [("a", 0.5), ("b", 0.7)] for s in (0, 1)
    ]
    change = compare.differences(loaded(tmp_path, rows), "a").iloc[0]
    assert change["minus reference"] == pytest.approx(0.2)
    assert change[["ci_low", "ci_high", "detectable", "p_holm"]].isna().all()


def test_a_seed_that_one_side_lacks_is_left_out(tmp_path):
    values = {("ours", 0): 0.9, ("ours", 1): 0.7, ("ours", 2): 0.1, ("plain", 0): 0.5, ("plain", 1): 0.5}
    rows = [
        row("finetuned", value, "order", f"s/{variant}", variant, seed=seed)
        for (variant, seed), value in values.items()
    ]
    rows.append(row("finetuned", 0.25, "zero-shot", "s/ours", "ours", seed=0))
    rows.append(row("finetuned", 0.5, "zero-shot", "s/plain", "plain", seed=0))
    result = compare.differences(loaded(tmp_path, rows), "plain").set_index("measure")
    half = 12.7062 * np.std([0.4, 0.2], ddof=1) / np.sqrt(2)
    assert result.loc["order", ["minus reference", "ci_low", "ci_high", "seeds"]].tolist() == pytest.approx(
        [0.3, 0.3 - half, 0.3 + half, 2], rel=1e-4
    )
    assert result.loc["zero-shot", ["minus reference", "seeds"]].tolist() == [-0.25, 1]
    assert np.isnan(result.loc["zero-shot", ["ci_low", "ci_high"]].astype(float)).all()


def test_seeds_and_images_are_two_sources_of_variation(tmp_path):
    rows = [
        row("finetuned", value, "order", f"s/{seed}", "ours", seed=seed)
        | {"ci_low": value - 0.02 * (seed + 1), "ci_high": value + 0.01}
        for seed, value in enumerate([0.8, 0.9, 0.7])
    ]
    rows += [
        row("base", 0.5, measure, "s/0", "ours", seed=0) | {"ci_low": 0.4, "ci_high": 0.6}
        for measure in ("order", "difference")
    ]
    result = compare.variation(loaded(tmp_path, rows))
    assert result[["variant", "measure", "seeds", "wider"]].to_numpy().tolist() == [
        ["base", "difference", 1, ""],
        ["base", "order", 1, ""],
        ["ours", "order", 3, "seeds"],
    ]
    half = 4.302653 * 0.1 / np.sqrt(3)
    assert result.loc[2, "mean":"images_high"].tolist() == pytest.approx([0.8, 0.8 - half, 0.8 + half, 0.76, 0.81])
    assert result.loc[0, ["mean", "images_low", "images_high"]].tolist() == [0.5, 0.4, 0.6]
    assert result.loc[0, ["seeds_low", "seeds_high"]].isna().all(), "one seed has no spread"


def test_an_unknown_reference_names_the_known(table):
    with pytest.raises(PcclipError, match="^no variant 'theirs' in this sweep; it has: base, ours, plain$"):
        compare.differences(table, "theirs")


@pytest.mark.parametrize(
    ("grids", "variant", "names"),
    [
        ([{"seed": 0}, {"seed": 1}], "", ["finetuned"]),
        ([{"finetune.lr": "1e-8"}, {"finetune.lr": 0.1}], "", ["lr=1e-8", "lr=0.1"]),
        ([{"finetune.lr": 1, "finetune.epochs": k} for k in (2, 3)], "", ["lr=1, epochs=2", "lr=1, epochs=3"]),
        ([{"seed": 0, "sweep.model": "a"}, {"seed": 1, "sweep.model": "a"}], "no swap", ["model=a, no swap"]),
        ([{"generate.pairs": "None"}, {"generate.pairs": 5}], "", ["pairs=None", "pairs=5"]),
    ],
)
def test_a_grids_values_name_the_variants(tmp_path, grids, variant, names):
    rows = [row("finetuned", k / 8, run=f"s/{k}", variant=variant, **grid) for k, grid in enumerate(grids)]
    table = loaded(tmp_path, rows)
    assert list(dict.fromkeys(table.variant)) == names
    assert len(table) == len(grids)


def test_without_a_sweep_it_says_what_to_run(tmp_path):
    with pytest.raises(
        PcclipError, match=r"sweep.csv: not there, or without its manifest; run the parameter file with"
    ):
        compare.read(tmp_path)


@pytest.mark.parametrize("change", ["edit", "flip", "no manifest", "other manifest", "no table"])
def test_a_table_that_is_not_as_its_sweep_wrote_it_is_refused(table, tmp_path, change):
    file, manifest = tmp_path / TABLE, tmp_path / FOLDER / "manifest.json"
    content = file.read_bytes()
    if change == "edit":
        file.write_bytes(content.replace(b"0.9", b"0.8"))
    elif change == "flip":
        file.write_bytes(content[:50] + bytes([content[50] ^ 1]) + content[51:])
    elif change == "other manifest":
        manifest.write_text(manifest.read_text().replace("sha256", "sha512"))
    else:
        (file if change == "no table" else manifest).unlink()
    with pytest.raises(PcclipError, match=rf"^{file}: .*; run the parameter file with its `sweep`[^\n]*$"):
        compare.read(tmp_path)


def test_a_dot_for_every_seed(table):
    plots.style()
    figure = plots.study(compare.by_seed(table), list(table.measure.cat.categories))
    (axis,) = figure.axes
    assert axis.get_title("left") == "difference"
    assert [label.get_text() for label in axis.get_yticklabels()] == ["base", "ours", "plain"]
    assert sum(len(dots.get_offsets()) for dots in axis.collections) == 9
