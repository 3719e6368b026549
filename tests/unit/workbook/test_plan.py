"""The plan: FLOPs and bytes by hand and by the estimate, what GPUs change, and the books of simulated shards."""

import functools
import importlib
import json
import math

import pandas as pd
import pytest
import yaml
from helpers.runs import ROOT

from pcclip import cli
from pcclip import config as params
from pcclip.data.image_set import load_images
from pcclip.errors import PcclipError
from pcclip.workbook import estimate, sizes
from pcclip.workbook.plan import ASSUMED, MEASURED, PEAKS, plan, table

PAPER = ROOT / "params" / "paper_coco.yaml"
BILLION = 1_000_000_000


@pytest.fixture(scope="module", autouse=True)
def built_once():
    """ViT-L/14 on the meta device takes a second."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sizes, "of_model", functools.cache(sizes.of_model))
        yield


@pytest.fixture(scope="module")
def paper() -> dict:
    return plan(PAPER, images=1e9, gpus=64, gpu="H100")


def part(found: dict, stage: str) -> dict:
    return next(one for one in found["stages"] if one["stage"].startswith(stage))


# ---- a billion images ------------------------------------------------------------------------------------------------


def test_a_billion_images_by_hand(paper):
    towers, llm = sizes.of_model("ViT-L-14:datacomp_xl_s13b_b90k"), 13e9
    assert (paper["images"], paper["train"], paper["held_out"]) == (BILLION, BILLION - 500, 500)
    embed, comparisons = part(paper, "02"), part(paper, "01")
    assert embed["flops"] == towers.image_flops * BILLION
    assert embed["disk"] == 4 * 768 * BILLION
    assert embed["machine_hours"] == pytest.approx(embed["flops"] / (0.3 * 67e12) / 3600)
    assert (embed["machines"], embed["hours"]) == (64, pytest.approx(embed["machine_hours"] / 64))
    assert paper["shards"] == math.ceil(BILLION / 4096)
    asked = BILLION - 500 + 5000  # one comparison for each training image, and the held-out ones
    assert comparisons["tokens_out"] == 29 * asked
    assert comparisons["flops"] == pytest.approx(2 * llm * (comparisons["tokens_in"] + comparisons["tokens_out"]))
    assert comparisons["machine_hours"] == pytest.approx(
        2 * llm * (comparisons["tokens_in"] / 0.3 + comparisons["tokens_out"] / 0.1) / 989e12 / 3600
    )
    finetune = part(paper, "03")
    assert finetune["machines"] == 1, "finetune.processes, not --gpus"
    assert finetune["tokens_in"] == pytest.approx(
        20 * paper["pairs"] * estimate.text_length(params.read(PAPER), counts_of(paper), towers)
    )


def counts_of(found: dict) -> estimate.Counts:
    return estimate.Counts(found["train"], found["held_out"], found["train"], found["pairs"], 5000, 12)


def test_it_takes_no_longer_and_no_more_memory_than_a_small_one(monkeypatch):
    """No list of the images: nothing that counts them may be made."""
    monkeypatch.setattr(pd, "Series", lambda *a, **k: pytest.fail("a series was made"))
    monkeypatch.setattr("pcclip.data.image_set.load_images", lambda *a: pytest.fail("images were read"))
    assert plan(PAPER, images=1e15)["images"] == 10**15


def test_what_is_linear_in_the_images_is(paper):
    twice = plan(PAPER, images=2e9, gpus=64, gpu="H100")
    for key in ("disk", "read", "shards", "bookkeeping_seconds", "decoding_core_hours"):
        assert twice[key] == pytest.approx(2 * paper[key], rel=1e-3)
    for one, other in zip(paper["stages"][:4], twice["stages"], strict=False):
        assert other["machine_hours"] == pytest.approx(2 * one["machine_hours"], rel=1e-3)
    for stage, held in paper["memory"].items():
        assert twice["memory"][stage] == pytest.approx(2 * held, rel=1e-3)


def test_memory_that_no_machine_has_is_told_with_what_to_do(paper):
    [note] = [line for line in paper["notes"] if "slurm.memory" in line]
    runs = math.ceil(max(paper["memory"].values()) / 64e9)
    assert f"plan {runs:,} runs, each with its own part of the set" in note
    assert not [line for line in plan(PAPER, images=1000)["notes"] if "slurm.memory" in line]


def test_all_pairs_are_not_asked_for_unless_the_file_is_planned_as_it_is(paper):
    assert paper["pairs"] == paper["train"]
    assert any("all pairs, as the file says, were 5e+17" in line for line in paper["notes"])
    assert plan(PAPER)["pairs"] == 499_500
    assert plan(PAPER, images=1e9, pairs=5e6)["pairs"] == 5_000_000


# ---- the estimate of --check -----------------------------------------------------------------------------------------


def test_a_set_that_is_here_is_planned_as_it_is_checked(params_file, values):
    config = params.check(values)
    models = sizes.of_model(config.model), sizes.of_llm(config.generate)
    rows, _ = estimate.estimate(config, load_images(config), *models)
    found = plan(params_file)
    assert found["images"] == 24
    assert [(one["stage"], one["work"], one["flops"], one["disk"]) for one in found["stages"]] == [
        (row.stage, row.work, row.flops, row.disk) for row in rows
    ]


def test_an_a100_takes_the_hours_of_the_check():
    config = params.read(PAPER)
    rows, _ = estimate.estimate(config, None, sizes.of_model(config.model), sizes.of_llm(config.generate))
    assert [one["machine_hours"] for one in plan(PAPER)["stages"]] == [row.hours for row in rows]


def test_a_language_model_on_cores_is_not_given_gpus(tmp_path, values):
    path = tmp_path / "cores.yaml"
    values["generate"] |= {"backend": "llama_cpp", "gguf": "absent.gguf", "in_flight": 3}
    path.write_text(yaml.safe_dump(values))
    found = plan(path, images=1000, gpus=8)
    assert (part(found, "01")["on"], part(found, "01")["machines"], part(found, "01")["hours"]) == ("CPU core", 3, None)
    assert any("absent.gguf: no such file" in line for line in found["notes"])


# ---- the command -----------------------------------------------------------------------------------------------------


def test_the_command_prints_json_or_a_table(capsys):
    assert cli.main(["plan", str(PAPER), "--images", "1e9", "--gpus", "64", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["images"], found["gpus"], found["gpu"]) == (BILLION, 64, "A100")
    assert cli.main(["plan", str(PAPER), "--images", "1e9", "--gpus", "64"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "\n".join(lines) == table(found)
    told = [line for line in lines if line.startswith(("measured ", "assumed "))]
    assert len(told) == len(MEASURED) + len(ASSUMED) + len(PEAKS["A100"])


def test_every_constant_has_a_source_and_the_measured_ones_a_date():
    assert all(constant.source and constant.measured for constant in MEASURED.values())
    assert all(constant.source and not constant.measured for constant in ASSUMED.values()), "no GPU was measured"


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"gpu": "B4"}, "--gpu B4: unknown; one of A100, H100"),
        ({"gpus": 0}, "at least 1"),
        ({"images": 1}, "at least 2"),
        ({"pairs": 0}, "at least 1"),
        ({"images": math.inf}, "none more than"),
        ({"pairs": math.nan}, "none more than"),
    ],
)
def test_impossible_sizes(given, message):
    with pytest.raises(PcclipError, match=message):
        plan(PAPER, **given)


# ---- the simulation --------------------------------------------------------------------------------------------------


@pytest.fixture
def simulation(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "speed"))
    monkeypatch.setenv("PCCLIP_CACHE", "")
    return importlib.import_module("plan")


def simulated(simulation, tiny_model, capsys, shards: list[int]) -> dict:
    simulation.main(
        [
            "--shards",
            *map(str, shards),
            "--images",
            "60",
            "--pairs",
            "10",
            "--written",
            "3",
            "--model",
            tiny_model,
            "--json",
        ]
    )
    return json.loads(capsys.readouterr().out.splitlines()[-1])


def test_simulated_shards(simulation, tiny_model, capsys):
    found = simulated(simulation, tiny_model, capsys, [300])
    assert (found["benchmark"], found["shards"]) == ("plan", 300)
    assert found["ratio"] > 0
    assert set(found["seconds_by_step"]) >= {"the set into the key", "planning", "finding those there", "manifest"}
    assert found["bytes_on_disk_an_image"] > 4 * simulation.WIDTH
    assert found["bytes_an_image"] >= 0


@pytest.mark.parametrize(("power", "fine"), [(1.0, True), (2.0, False)])
def test_books_that_grow_faster_than_the_shards_fail(simulation, tiny_model, capsys, monkeypatch, power, fine):
    monkeypatch.setattr(simulation, "of_memory", lambda *a: {})
    monkeypatch.setattr(simulation, "of_written", lambda *a: {})
    monkeypatch.setattr(
        simulation,
        "of_books",
        lambda folder, n: {"planning": 1e-6 * n**power, "finding those there": 1e-6, "asking file by file": 1e-5},
    )
    if fine:
        assert simulated(simulation, tiny_model, capsys, [100, 10_000])["growth"] == pytest.approx(1, abs=0.1)
        return
    with pytest.raises(SystemExit, match="they grow with the power 2.00, over"):
        simulated(simulation, tiny_model, capsys, [100, 10_000])
