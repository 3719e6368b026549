"""The cost of a run: counts of model sizes and of every stage against counts by hand, and what `pcclip plan` scales."""

import json
import math

import pytest
from helpers.runs import ROOT

from pcclip import cli, config as params
from pcclip.comparisons.attributes import load_bank
from pcclip.config import Generate
from pcclip.data.image_set import load_images
from pcclip.encoders import toy_clip
from pcclip.errors import PcclipError
from pcclip.workbook import cost
from pcclip.workbook.cost import Cost, Row, Scale
from pcclip.workbook.sizes import EncoderSize, Network, encoder_size, language_model_size

BLOCKS = 2 * (12 * 32**2 + 13 * 32)  # two of width 32: attention 4w^2+4w, MLP 8w^2+5w, two norms 4w
TEXT = BLOCKS + 49408 * 32 + 40 * 32 + 2 * 32 + 32 * 32  # words, places, last norm, projection
CAPTION, SENTENCE = 12 + 2, 29 + 2  # tokens with their marks, by the constants
V1 = "CompVis/stable-diffusion-v1-4"
PAPER = ROOT / "params" / "paper_coco.yaml"
FIRST = {  # 1.2 and 1.4 of the paper's appendix and code: all pairs of 1000 COCO photos
    "data": {"source": "coco", "path": "/nowhere", "limit": 1000},
    "generate": {"backend": "transformers", "llm": "meta-llama/Llama-2-13b-chat-hf", "prompt": "paper"},
}


@pytest.fixture(autouse=True)
def default_constants(monkeypatch):
    monkeypatch.setattr(cost, "constants", lambda: cost.DEFAULTS)


@pytest.fixture
def writer(monkeypatch):
    """Give every language model this size."""
    return lambda size: monkeypatch.setattr(cost, "language_model_size", lambda settings: size)


def cost_of(config, scale=None, here=True) -> Cost:
    return Cost(config, scale or Scale(), load_images(config) if here else None)


def row(cost: Cost, stage: str) -> Row:
    return next(row for row in cost.rows if row.stage.startswith(stage))


@pytest.fixture
def sds(values):
    """sds(settings, **finetune): the tiny run with objective clip and a teacher."""

    def changed(settings: dict | None = None, **finetune) -> params.Config:
        own = {"objective": "clip", "tune": "layernorm", "sds": {"teacher": V1, **(settings or {})}}
        return params.check({**values, "finetune": {**values["finetune"], **own, **finetune}})

    return changed


# ---- sizes of models -------------------------------------------------------------------------------------------------


def test_towers_are_counted_as_by_hand(config, tiny_encoder):
    size = encoder_size(config.model)
    assert (size.text.parameters, size.width) == (TEXT, 32)
    assert size.text.parameters == sum(p.numel() for p in tiny_encoder.text_tower.parameters())
    patches = 2 * 16 * (3 * 8 * 8) * 32
    blocks = 2 * (2 * 17 * 12 * 32**2 + 2 * 2 * 17 * 17 * 32)  # and each head's products of 17 tokens with 17
    assert size.image.flop == patches + blocks + 2 * 32 * 32
    attention = 2 * (2 * 2 * 40 * 32)  # of one token with all 40, in two blocks
    assert size.text.flop == pytest.approx(2 * 2 * 12 * 32**2 + attention + 2 * 32 * 32 / 40)
    assert encoder_size("shapes-clip:3").width == toy_clip.MODEL["embed_dim"]


@pytest.mark.parametrize(
    ("name", "total", "active"),
    [
        ("meta-llama/Llama-2-13b-chat-hf", 13e9, 13e9),
        ("Qwen/Qwen3-30B-A3B", 30e9, 3e9),
        ("HuggingFaceTB/SmolLM2-135M-Instruct", 135e6, 135e6),
        ("gpt-4o-mini", math.nan, math.nan),
        ("mistralai/Mixtral-8x7B-Instruct", math.nan, math.nan),
    ],
)
def test_a_language_model_by_name(name, total, active):
    size = language_model_size(Generate(backend="openai", llm=name))
    assert size == pytest.approx((total, 2 * active), nan_ok=True)


def test_a_language_model_by_its_files(tmp_path):
    settings = Generate(backend="transformers", llm=str(tmp_path))
    assert math.isnan(language_model_size(settings).parameters)
    (tmp_path / "model.safetensors").write_bytes(bytes(100))
    assert language_model_size(settings) == Network(50, 100)
    (tmp_path / "tiny-3b.gguf").touch()
    assert language_model_size(Generate(gguf=str(tmp_path / "tiny-3b.gguf"))).parameters == 3e9


def test_a_model_that_cannot_be_built_is_one_line_and_costs_an_unknown_amount(tmp_path):
    for settings, message in (
        ({"nothing": 1}, "not a configuration of open_clip; fetch it again"),
        ({"model_cfg": {"embed_dim": 32}}, "open_clip cannot build it"),
    ):
        (tmp_path / "open_clip_config.json").write_text(json.dumps(settings))
        config = params.check({"model": f"local-dir:{tmp_path}", "generate": {"backend": "template"}})
        with pytest.raises(PcclipError, match=message) as error:
            encoder_size(config.model)
        assert "\n" not in str(error.value)
        assert cost_of(config, here=False).model == EncoderSize()


# ---- the stages ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "passes"),
    [
        ({}, 3),
        ({"micro_batch": 15}, 4),
        ({"micro_batch": 16}, 3),
        ({"tune": "lora"}, 2),
        ({"tune": "layernorm", "micro_batch": 4}, 3),
    ],
)
def test_finetuning_as_by_hand(values, changes, passes):
    """40 pairs with their twins in batches of 8, 4 epochs."""
    config = params.check({**values, "finetune": {**values["finetune"], **changes}})
    finetune, size = row(cost_of(config), "03"), encoder_size(config.model)
    assert finetune.tokens == pytest.approx(4 * 40 * 2 * 0.73 * SENTENCE)
    assert finetune.flop == pytest.approx(passes * finetune.tokens * size.text.flop)
    assert finetune.hours == pytest.approx(finetune.flop / (0.3 * 19.5e12) / 3600)
    if not changes:
        assert finetune.bytes == 4 * (2 + 3) * TEXT  # the last one and epoch 2; weights, two moments of Adam
        assert row(cost_of(config), "02").bytes == 24 * 32 * 4


def test_an_objective_of_ones_own_compares_pairs(values):
    """CONTRIBUTING's recipe adds a name; it is trained on the same pairs as infonce."""
    config = params.check(values)
    mine = config.model_copy(update={"finetune": config.finetune.model_copy(update={"objective": "mine"})})
    assert row(cost_of(mine), "03") == row(cost_of(config), "03")


def test_replayed_captions_are_counted(values):
    plain = row(cost_of(params.check(values)), "03").tokens
    changed = {**values, "finetune": {**values["finetune"], "replay": 1.0, "replay_batch": 30}}
    assert row(cost_of(params.check(changed)), "03").tokens - plain == pytest.approx(20 * 30 * CAPTION)


@pytest.mark.parametrize(
    ("changes", "image", "text"),
    [
        ({}, 2, 2),
        ({"tune": "all"}, 3, 3),
        ({"micro_batch": 4}, 3, 3),
        ({"sds": {"teacher": V1, "baseline": True}}, 4, 4),
    ],
)
def test_both_towers_as_by_hand(sds, changes, image, text):
    """8 steps of 8 images and captions."""
    config = sds(**changes)
    size, finetune = encoder_size(config.model), row(cost_of(config), "03 finetune")
    assert finetune.flop == pytest.approx(64 * (image * size.image.flop + text * CAPTION * size.text.flop))


@pytest.mark.parametrize(
    ("settings", "passes"),
    [
        ({}, 2),
        ({"checkpointing": True, "precision": "bf16"}, 3),
        ({"samples": 4}, 8),
        ({"weight": 0.0}, None),
    ],
)
def test_the_teacher_as_by_hand(sds, settings, passes):
    """15 images and captions in batches of 8, 4 epochs; its UNet counts as Stable Diffusion 1's."""
    teachers = [row.flop for row in cost_of(sds(settings)).rows if row.stage == "03 teacher"]
    assert teachers == ([pytest.approx(64 * passes * 8.033e11)] if passes else [])


def test_rewrites_and_verdicts_are_questions_too(values, writer):
    settings = {"backend": "openai", "llm": "x", "rewrites": "rewrite", "attributes": "size"}
    writer(Network(10, 20))
    config = params.check(values | {"generate": {**values["generate"], **settings}})
    rows = cost_of(config).rows
    assert [row.stage for row in rows[:3]] == ["01 comparisons", "01 rewrites", "01 verdicts, at most"]
    assert all(row.flop == 20 * row.tokens for row in rows[:3])
    assert rows[1].work.startswith("15 questions")
    bank, images = load_bank("size"), load_images(config)
    comparing = [stem.compares for attribute in bank.attributes for stem in attribute.stems]
    alone = len(bank.things) + len(images.table)
    assert rows[2].work.startswith(f"{2 * 600 * sum(comparing) + alone * comparing.count(False):,} questions")


# ---- the papers' sizes, and any size ---------------------------------------------------------------------------------


def test_beside_the_papers_own_hours():
    """30 A100 hours of generation and 12 of finetuning."""
    config = params.check(FIRST)
    costs = cost_of(config, here=False)
    comparisons, finetune = row(costs, "01"), row(costs, "03")
    assert "at most 499,500 examples" in finetune.work
    assert comparisons.hours == pytest.approx(11.3, abs=0.5)  # as cost.py's docstring says
    assert finetune.hours == pytest.approx(5.6, abs=0.1)
    steps = 20 * math.ceil(499_500 / 512)
    assert finetune.tokens == pytest.approx(512 * steps * 0.73 * 31)


def test_a_billion_images_by_hand(writer):
    config = params.read(PAPER)
    writer(Network(13e9, 26e9))
    costs = cost_of(config, Scale(1e9, 64, "H100"), here=False)
    embed, comparisons = row(costs, "02"), row(costs, "01")
    assert (costs.train, costs.held_out, costs.pairs) == (10**9 - 500, 500, 10**9 - 500)
    assert embed.flop == costs.model.image.flop * 10**9
    assert embed.bytes == 4 * 768 * 10**9
    assert (embed.machines, embed.hours) == ("64 H100", pytest.approx(embed.flop / (64 * 0.3 * 67e12) / 3600))
    assert row(costs, "02 decoding").hours == pytest.approx(4.8e-3 * 1e9 / (64 * config.embed.workers) / 3600)
    asked, written = 10**9 - 500 + 5000, 29  # one comparison for each training image, and the held-out ones
    read = comparisons.tokens - asked * written
    assert comparisons.flop == pytest.approx(26e9 * comparisons.tokens)
    assert comparisons.hours == pytest.approx(26e9 * (read / 0.3 + asked * written / 0.1) / (64 * 989e12) / 3600)
    assert row(costs, "03").machines == "1 H100", "finetune.processes, not --gpus"
    twice = cost_of(config, Scale(2e9, 64, "H100"), here=False)
    for small, large in zip(costs.rows[:4], twice.rows, strict=False):
        assert large.hours == pytest.approx(2 * small.hours, rel=1e-3)


def test_sets_that_are_not_here_are_counted_as_the_file_limits_them():
    config = params.check({**FIRST, "data": {**FIRST["data"], "held_out_limit": 50}})
    known = cost_of(config, here=False)
    assert (known.train, known.held_out, known.pairs) == (1000, 50, 499_500)
    own = cost_of(params.check({"data": {"source": "folder", "path": "/nowhere"}}), here=False)
    assert (own.train, own.captions) == (1000, 1000)


def test_a_language_model_on_cores_uses_no_gpus(values, writer):
    writer(Network(10, 20))
    values["generate"] |= {"backend": "llama_cpp", "in_flight": 3}
    costs = cost_of(params.check(values), Scale(1000, 8), here=False)
    comparisons = row(costs, "01")
    assert comparisons.machines == "3 CPU cores"
    assert comparisons.hours == pytest.approx(comparisons.flop / (3 * 2.5e10) / 3600)


def test_an_unknown_size_is_a_question_mark_and_left_out_of_the_sum(values):
    values["generate"] |= {"backend": "openai", "llm": "x"}
    lines = cost.table(cost_of(params.check(values)).rows).splitlines()
    assert lines[1].split()[-3:] == ["?", "1", "A100"]
    assert "?" not in lines[-1]


def test_equal_rows_of_a_sweep_are_one_row():
    same = Row("02 embed", "9 images", 1.0, 2.0, 3.0, 4.0, "1 A100")
    lines = [line.split() for line in cost.table([same, same]).splitlines()]
    assert lines[1] == "02 embed 2 times 9 images 2 4 6 8 1 A100".split()
    assert lines[2] == "sum of what is known 2 4 6 8".split()


# ---- the command and the constants -----------------------------------------------------------------------------------


def test_the_command_plans_any_size(capsys):
    assert cli.main(["plan", str(PAPER), "--images", "1e9", "--gpus", "64", "--gpu", "H100"]) == 0
    out = capsys.readouterr().out
    assert "1,000,000,000 images" in out
    assert "64 H100" in out
    assert all(source in out for _, source in cost.DEFAULTS.values())


def test_a_check_has_the_cost_of_any_size_too(params_file, capsys):
    assert cli.main(["run", str(params_file), "--check", "--images", "1e9", "--gpus", "64", "--gpu", "H100"]) == 0
    out = capsys.readouterr().out
    assert "1,000,000,000 images" in out
    assert "64 H100" in out
    assert "fine, nothing is missing" in out


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"gpu": "B4"}, "--gpu B4: unknown; one of A100, H100"),
        ({"gpus": 0}, "at least 1"),
        ({"images": 1}, "at least 2"),
        ({"images": math.inf}, "at most"),
        ({"images": math.nan}, "at most"),
    ],
)
def test_impossible_sizes(options, message):
    with pytest.raises(PcclipError, match=message):
        Scale(**options)


def test_measured_constants_replace_the_defaults(tmp_path, monkeypatch):
    monkeypatch.undo()
    monkeypatch.setenv("PCCLIP_ROOT", str(tmp_path))
    assert cost.constants() == cost.DEFAULTS
    file = tmp_path / "speed" / "constants.json"
    file.parent.mkdir()
    file.write_text(json.dumps({"training": [0.5, "of a GPU's peak: measured"]}))
    assert cost.constant("training") == 0.5
    assert cost.constant("writing") == cost.DEFAULTS["writing"][0]
    file.write_text('{"training": 0.5}')
    with pytest.raises(PcclipError, match="not a table of constants; delete it or run `make speed` again"):
        cost.constants()
