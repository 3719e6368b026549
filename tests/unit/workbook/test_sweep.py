"""Sweeps: the runs a file stands for, what they share, and what comes out of them."""

import pandas as pd
import pytest
import yaml

from pcclip import config as params
from pcclip.errors import PcclipError
from pcclip.runs.stage import Stage, finished
from pcclip.workbook.sweep import FOLDER, Member, collect, parents, read_sweep

LATE = {"variants": {"slow": {"finetune.lr": 1e-4}, "no twins": {"finetune.swap": False}}}
EARLY = {"filters": {"generate.filters": "none"}}


@pytest.fixture
def members(tmp_path):
    """members(sweep, **values): the runs of a file with that sweep."""

    def call(sweep=None, **values):
        path = tmp_path / "swept.yaml"
        path.write_text(
            yaml.safe_dump({"run": "s", **values, **({} if sweep is None else {"sweep": sweep})}, sort_keys=False)
        )
        return read_sweep(path)

    return call


def told(found: list[Member]) -> dict[str, str | None]:
    return {member.config.run: member.config.reuse for member in found}


# the runs a file stands for


def test_a_file_without_a_sweep_is_one_run_as_it_says(members, tmp_path):
    (member,) = members(run="a/b", reuse="a", finetune={"lr": 0.5})
    assert member == Member(params.read(tmp_path / "swept.yaml"), "", {})
    assert not member.swept
    assert parents([member]) == []


def test_late_variants_reuse_the_files_own_run(members):
    found = members(LATE, finetune={"swap": True})
    assert told(found) == {"s/slow": "s", "s/no_twins": "s"}
    assert [member.variant for member in found] == ["slow", "no twins"]
    assert [(m.config.finetune.lr, m.config.finetune.swap) for m in found] == [(1e-4, True), (1e-8, False)]
    (parent,) = parents(found)
    assert (parent.run, parent.reuse) == ("s", None)


def test_an_early_variant_has_an_01_of_its_own_and_the_sweeps_journals(members):
    found = members({"variants": {**LATE["variants"], **EARLY}})
    assert told(found) == {"s/slow": "s", "s/no_twins": "s", "s/filters": None}
    own = found[-1].config
    assert own.generate.filters == "none"
    assert own.source_folder == own.folder
    assert len({member.config.journals for member in found}) == 1
    assert [config.run for config in parents(found)] == ["s"]


def test_a_grid_is_crossed_with_the_variants(members):
    sweep = {"grid": {"seed": [0, 1], "finetune.lr": ["1e-5", 0.01]}, "variants": {"plain": {}, **EARLY}}
    found = members(sweep)
    assert told(found) == {
        f"s/seed={seed}/lr={lr}/{name}": None if name == "filters" else f"s/seed={seed}"
        for seed in (0, 1)
        for lr in ("1e-5", "0.01")
        for name in ("plain", "filters")
    }
    assert [member.grid for member in found[:3]] == [{"seed": 0, "finetune.lr": "1e-5"}] * 2 + [
        {"seed": 0, "finetune.lr": 0.01}
    ]
    assert [(member.config.seed, member.config.finetune.lr) for member in found[4:7]] == [(1, 1e-5)] * 2 + [(1, 0.01)]
    assert [(config.run, config.seed) for config in parents(found)] == [("s/seed=0", 0), ("s/seed=1", 1)]


def test_an_early_grid_alone_shares_nothing(members):
    found = members({"grid": {"seed": [0, 1]}})
    assert told(found) == {"s/seed=0": None, "s/seed=1": None}
    assert parents(found) == []


def test_a_grid_of_one_late_value_is_a_sweep(members):
    found = members({"grid": {"finetune.lr": [0.1]}})
    assert told(found) == {"s/lr=0.1": "s"}
    assert [config.run for config in parents(found)] == ["s"]


@pytest.mark.parametrize(
    ("key", "value", "early"),
    [
        ("data.held_out", 0.5, True),
        ("embed.shard", 9, True),
        ("model", "minilm-efficientnet", True),
        ("evaluate.alpha", 0.5, False),
        ("arithmetic.pairs", 9, False),
    ],
)
def test_what_01_and_02_read_is_early(members, key, value, early):
    assert told(members({"variants": {"x": {key: value}}})) == {"s/x": None if early else "s"}


def test_folder_names_are_plain(members):
    names = {"a b/../c": "a_b_.._c", "ä": "x", "-y-": "y", 0.1: "0.1", "lr=1,2": "lr=1,2"}
    found = members({"variants": {name: {} for name in names}})
    assert list(told(found)) == [f"s/{folder}" for folder in names.values()]
    assert [member.variant for member in found] == list(map(str, names))


def test_a_change_does_not_reach_the_other_members(members):
    attributes = {"size": {"more": "a", "less": "b", "comparison": "c", "comparison_swapped": "d"}}
    changed, plain = members(
        {"variants": {"x": {"evaluate.attributes.size.more": "z"}, "y": {}}}, evaluate={"attributes": attributes}
    )
    assert changed.config.evaluate.attributes["size"].more == "z"
    assert plain.config.evaluate.attributes["size"].more == "a"


@pytest.mark.parametrize(
    ("sweep", "says"),
    [
        (["finetune.lr"], "sweep: needs grid"),
        ({}, "sweep: needs grid"),
        ({"grid": {}}, "sweep: needs grid"),
        ({"grids": {"seed": [0]}}, "sweep: needs grid"),
        ({"grid": {"seed": [0]}, "variant": {}}, "sweep.variant: unknown key; did you mean variants?"),
        ({"grid": ["seed"]}, "sweep.grid: every key needs a list"),
        ({"grid": {"seed": 1}}, "sweep.grid: every key needs a list"),
        ({"grid": {"seed": []}}, "sweep.grid: every key needs a list"),
        ({"variants": ["x"]}, "sweep.variants: every name needs its changes"),
        ({"variants": {"x": "finetune.swap"}}, "sweep.variants: every name needs its changes"),
        ({"variants": {"": {"finetune.swap": True}}}, "sweep.variants: give every variant a name"),
        ({"variants": {"base": {}}}, "sweep.variants: give every variant a name, and not 'base'"),
        (
            {"variants": {"x": {"finetune": {"swap": True}}}},
            "sweep: finetune: needs seed, model, or a key with its block",
        ),
        ({"variants": {"x": {3: True}}}, "sweep: 3: needs seed"),
        ({"grid": {"run": ["a", "b"]}}, "sweep: run: needs seed"),
        ({"grid": {"seed": [0]}, "variants": {"x": {"seed": 1}}}, "sweep: seed: in the grid and in a variant"),
        ({"variants": {"x": {"seed.y": 1}}}, "sweep: seed.y: seed has no keys below it"),
        ({"variants": {"x": {"finetune.lrr": 1.0}}}, "sweep: finetune.lrr: unknown key; did you mean lr?"),
        ({"grid": {"finetune.lr": [0.1, -1.0]}}, "sweep: finetune.lr = -1.0: Input should be greater than 0"),
        ({"grid": {"finetune.lr": [0.1, "0.1"]}}, "sweep: two members would share a folder"),
        ({"variants": {"a b": {}, "a_b": {}}}, "sweep: two members would share a folder"),
    ],
)
def test_a_bad_sweep_is_one_line(members, tmp_path, sweep, says):
    with pytest.raises(PcclipError) as error:
        members(sweep, seed=0)
    assert str(error.value).startswith(f"{tmp_path / 'swept.yaml'}: {says}")
    assert "\n" not in str(error.value)


def test_a_sweep_does_not_reuse_another_run(members):
    with pytest.raises(PcclipError, match=r"swept.yaml: reuse = 'other': a sweep has an 01 and 02 of its own"):
        members(LATE, reuse="other")


def test_one_table_of_all_members(members, tmp_path):
    sweep = {"grid": {"seed": [0, 1], "model": ["a", "b"], "finetune.keep_epochs": [[], [1, 2]]}, **LATE}
    found = members(sweep, outputs=str(tmp_path))
    for k, member in enumerate(found):
        with Stage(member.config.folder / "04_evaluate", {}).work() as stage:
            rows = {"model": ["base", "finetuned"], "value": [0.5, k / 16]}
            pd.DataFrame(rows).to_csv(member.config.folder / "metrics.csv", index=False)
            stage.finish(["../metrics.csv"], {})
    table = collect(found, tmp_path)
    assert list(table.columns) == ["model", "value", "run", "variant", "seed", "sweep.model", "finetune.keep_epochs"]
    assert list(table.value[1::2]) == [k / 16 for k in range(16)]
    assert list(table.run[::2]) == list(told(found))
    assert list(table.variant[:4]) == ["slow", "slow", "no twins", "no twins"]
    assert list(table["seed"]) == ["0"] * 16 + ["1"] * 16
    assert list(table["sweep.model"][:16]) == ["a"] * 8 + ["b"] * 8
    assert list(table["finetune.keep_epochs"][:8]) == ["[]"] * 4 + ["[1, 2]"] * 4
    again = pd.read_csv(tmp_path / "sweep.csv", dtype={"seed": str})
    pd.testing.assert_frame_equal(again, table)
    manifest = finished(tmp_path / FOLDER)
    assert manifest["counts"] == {"runs": 16, "rows": 32}
    assert manifest["inputs"].keys() == told(found).keys()
    with open(found[3].config.folder / "metrics.csv", "a") as file:
        file.write("finetuned,1.0\n")
    with pytest.raises(PcclipError, match="metrics.csv: missing or changed since 04_evaluate wrote it"):
        collect(found, tmp_path)
