"""Checking a parameter file: what is fine, what is missing and what to do, and an estimate held against hand counts."""

import json
import math
import shutil
import socket
import struct
from pathlib import Path

import pytest
import yaml
from helpers.llm_server import serving

from pcclip import cli
from pcclip import config as params
from pcclip.comparisons.attributes import load_bank
from pcclip.comparisons.pairs import choose_pairs
from pcclip.config import Generate
from pcclip.data.image_set import load_images
from pcclip.errors import PcclipError
from pcclip.workbook import check as checks
from pcclip.workbook import estimate, sizes

BLOCKS = 2 * (12 * 32**2 + 13 * 32)  # two of width 32: attention 4w^2+4w, MLP 8w^2+5w, two norms 4w
TEXT = BLOCKS + 49408 * 32 + 40 * 32 + 2 * 32 + 32 * 32  # words, places, last norm, projection
PAPER = {  # 1.2 and 1.4 of its appendix and code: all pairs of 1000 COCO photos
    "model": "ViT-L-14:datacomp_xl_s13b_b90k",
    "data": {"source": "coco", "path": "/nowhere", "limit": 1000},
    "generate": {"backend": "transformers", "llm": "meta-llama/Llama-2-13b-chat-hf", "prompt": "paper"},
}


@pytest.fixture
def checked(values, tmp_path, capsys):
    """Check the tiny run with some changes, by the command line; returns exit status, output and error."""

    def run(**changes):
        changed = dict(values)
        for key, block in changes.items():
            changed[key] = {**changed.get(key, {}), **block} if isinstance(block, dict) else block
        path = tmp_path / "changed.yaml"
        path.write_text(yaml.safe_dump(changed))
        status = cli.main(["run", str(path), "--check"])
        assert not Path(values["outputs"]).exists(), "a check writes nothing"
        return (status, *capsys.readouterr())

    return run


@pytest.fixture
def closed_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return taken.getsockname()[1]


@pytest.fixture
def hub(monkeypatch, tmp_path, tiny_model):
    """A hub cache that holds the tiny model as tiny/clip, and nothing can be fetched."""
    snapshot = tmp_path / "hub" / "models--tiny--clip" / "snapshots" / "abc"
    snapshot.mkdir(parents=True)
    for file in Path(tiny_model.removeprefix("local-dir:")).iterdir():
        shutil.copy(file, snapshot)
    (snapshot.parents[1] / "refs").mkdir()
    (snapshot.parents[1] / "refs" / "main").write_text("abc")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(checks, "reachable", lambda url: False)
    return snapshot


def gguf(path: Path, shapes: list[tuple[int, ...]]) -> Path:
    """A header with one value of every kind, and no tensor data."""

    def string(text):
        return struct.pack("<Q", len(text)) + text.encode()

    pairs = [
        string("name") + struct.pack("<I", 8) + string("tiny"),
        string("size") + struct.pack("<IQ", 10, 7),
        string("numbers") + struct.pack("<IIQ3i", 9, 5, 3, 1, 2, 3),
        string("words") + struct.pack("<IIQ", 9, 8, 2) + string("a") + string("bc"),
    ]
    tensors = [
        string(f"t{k}") + struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape, 0, 0) for k, shape in enumerate(shapes)
    ]
    path.write_bytes(struct.pack("<4sIQQ", b"GGUF", 3, len(tensors), len(pairs)) + b"".join(pairs + tensors))
    return path


def row(config, stage: str, images=None, llm=None) -> estimate.Row:
    rows, _ = estimate.estimate(config, images, sizes.of_model(config.model), llm or sizes.of_llm(config.generate))
    return next(r for r in rows if r.stage.startswith(stage))


def test_nothing_is_missing(checked):
    status, out, error = checked()
    assert (status, error) == (0, "")
    assert "data source folder: 15 train images, 9 held out, 0 left out" in out
    assert "03 finetune" in out
    assert "fine, nothing is missing" in out


def test_a_set_that_is_not_there(checked):
    status, out, error = checked(
        data={"source": "coco", "path": "/nowhere", "limit": 1000, "held_out_limit": 50}, generate={"pairs": None}
    )
    assert status == 1
    assert "499,520 sentences by template" in out  # and 20 held-out ones
    assert "1,050 images" in out
    assert "assumed   118,287 train images with 591,753 captions: the whole set" in out
    assert error.splitlines()[0].endswith("changed.yaml: missing:")
    assert ["download" in line for line in error.splitlines()[1:]] == [True, True]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"generate": {"prompt": "poetry"}}, "prompt 'poetry': no such file"),
        ({"generate": {"filters": ["beauty"]}}, "unknown rule 'beauty'"),
        ({"generate": {"attributes": "nowhere"}}, "attribute bank 'nowhere': no such file"),
        ({"model": "ViT-Z-1"}, "unknown model 'ViT-Z-1'"),
        ({"arithmetic": {"changes": [{"start": "unicorn", "text": "x"}]}}, "folder has no 'unicorn'"),
    ],
)
def test_what_is_wrong_in_the_file_is_an_error_at_once(checked, changes, message):
    status, out, error = checked(**changes)
    assert status == 1
    assert message in error
    assert "01 comparisons" not in out


def test_a_model_by_name_is_counted_without_its_weights(checked, hub):
    status, out, error = checked(model="ViT-L-14:datacomp_xl_s13b_b90k")
    assert status == 1
    assert "304 M image and 124 M text parameters" in out
    assert "`hf download laion/CLIP-ViT-L-14-DataComp.XL-s13B-b90K`" in error
    assert "(about 1.71 GB)" in error


def test_what_can_be_fetched_is_not_missing(checked, hub, monkeypatch):
    monkeypatch.setattr(checks, "reachable", lambda url: True)
    monkeypatch.setattr(checks, "_offline", lambda: False)
    status, out, _ = checked(model="ViT-B-32:openai", generate={"backend": "transformers", "llm": "some/llama-7b"})
    assert status == 0
    assert "to fetch  weights of ViT-B-32:openai: about 605 MB" in out
    assert "to fetch  language model some/llama-7b: 7 G parameters by its name: about 14 GB" in out


def test_the_hubs_cache(checked, hub):
    status, out, _ = checked(model="hf-hub:tiny/clip")
    assert status == 0
    assert "weights of hf-hub:tiny/clip: in the hub's cache" in out
    (hub / "open_clip_model.safetensors").unlink()
    assert "weights of hf-hub:tiny/clip: not here" in checked(model="hf-hub:tiny/clip")[2]
    status, out, error = checked(model="hf-hub:tiny/other")
    assert "its size is told on the hub alone" in out
    assert "of unknown size" in error


def test_a_gguf_file(checked, tmp_path):
    assert (
        "generate.gguf = nowhere.gguf: no such file"
        in checked(generate={"backend": "llama_cpp", "gguf": "nowhere.gguf"})[2]
    )
    path = gguf(tmp_path / "tiny.gguf", [(32, 100), (7,)])
    assert sizes.gguf_elements(path) == 3207
    status, out, _ = checked(generate={"backend": "llama_cpp", "gguf": str(path)})
    assert status == 0
    assert "CPU core" in out
    path.write_bytes(path.read_bytes()[:-20])
    assert "not a whole GGUF file; fetch it again" in checked(generate={"backend": "llama_cpp", "gguf": str(path)})[2]


def test_a_server(checked, closed_port, monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    nobody = {"backend": "openai", "llm": "tiny", "base_url": f"http://127.0.0.1:{closed_port}/v1"}
    status, out, error = checked(generate=nobody)
    assert status == 1
    assert f"nothing answers at generate.base_url = {nobody['base_url']}" in error
    assert "? A100" in out, "no size, no hours"
    monkeypatch.setenv("OPENAI_API_KEY", "secret")
    with serving(lambda text, n: "ok") as server:
        status, out, error = checked(generate={**nobody, "base_url": server.url})
    assert status == 0
    assert "$OPENAI_API_KEY is set" in out
    assert "secret" not in out
    assert not server.requests


def test_a_folder_of_a_language_model(checked, tmp_path, tiny_model):
    weights = Path(tiny_model.removeprefix("local-dir:")) / "open_clip_model.safetensors"
    folder = tmp_path / "llm"
    folder.mkdir()
    ask = {"backend": "transformers", "llm": str(folder)}
    shutil.copy(weights, folder / "model.safetensors")
    assert "no config.json in it; fetch it again" in checked(generate=ask)[2]
    (folder / "config.json").write_text("{}")
    assert checked(generate=ask)[0] == 0
    assert sizes.of_llm(Generate(**ask)).parameters == sum(
        math.prod(shape) for shape in sizes.safetensors_shapes(weights).values()
    )


def test_packages(checked, monkeypatch):
    monkeypatch.setattr(checks, "find_spec", lambda name: None)
    status, _, error = checked(finetune={"tune": "lora"}, generate={"backend": "openai", "llm": "x"})
    assert status == 1
    assert "finetune.tune = lora needs peft" in error
    assert "generate.backend = openai needs openai" in error


@pytest.mark.parametrize(
    ("name", "total", "active"),
    [
        ("meta-llama/Llama-2-13b-chat-hf", 13e9, 13e9),
        ("Qwen/Qwen2.5-1.5B-Instruct", 1.5e9, 1.5e9),
        ("Qwen/Qwen3-30B-A3B", 30e9, 3e9),
        ("HuggingFaceTB/SmolLM2-135M-Instruct", 135e6, 135e6),
    ],
)
def test_a_size_by_name(name, total, active):
    found = sizes.of_llm(Generate(backend="openai", llm=name))
    assert (found.parameters, found.active) == (total, active)


@pytest.mark.parametrize("name", ["gpt-4o-mini", "mistralai/Mixtral-8x7B-Instruct", "tiny"])
def test_a_name_without_a_size_is_not_guessed_at(name):
    assert sizes.of_llm(Generate(backend="openai", llm=name)) is None


def test_towers_are_counted_as_by_hand(config, tiny_encoder):
    towers = sizes.of_model(config.model)
    assert (towers.text_blocks, towers.text_parameters, towers.width) == (BLOCKS, TEXT, 32)
    assert towers.text_parameters == sum(p.numel() for p in tiny_encoder.text_tower.parameters())
    assert towers.shortens == tiny_encoder._shortens
    patches = 2 * 16 * (3 * 8 * 8) * 32
    blocks = 2 * (2 * 17 * 12 * 32**2 + 2 * 2 * 17 * 17 * 32)  # and each head's products of 17 tokens with 17
    assert towers.image_flops == patches + blocks + 2 * 32 * 32


def test_finetuning_is_estimated_as_by_hand(config):
    images = load_images(config)
    found = row(config, "03", images)
    tokens = len("The first image shows a red disc , while the second image shows a blue bar .".split()) + 2
    steps, seen, looked_at = 4 * 5, 4 * 40 * 2, 20 * (20 // 5 + 1)
    length = 0.73 * tokens  # as shared beginnings are computed once
    assert f"40 texts at most, {steps} steps" in found.work
    assert found.flops == pytest.approx((6 * seen + 2 * looked_at) * length * BLOCKS)
    assert found.disk == 4 * (2 * TEXT + 3 * BLOCKS)  # the last one and epoch 2; weights and two moments of Adam
    assert row(config, "02", images).disk == 24 * 32 * 4


@pytest.mark.parametrize(
    ("changes", "flops"),
    [
        ({}, 6),
        ({"micro_batch": 15}, 8),
        ({"micro_batch": 16}, 6),
        ({"tune": "lora"}, 4),
        ({"tune": "layernorm"}, 4),
        ({"tune": "lora", "micro_batch": 4}, 6),
    ],
)
def test_what_a_parameter_and_token_cost(values, changes, flops):
    """Eight pairs a step with their twins: 16 texts. GradCache encodes each twice; frozen weights have no gradient."""
    config = params.check({**values, "finetune": {**values["finetune"], **changes, "evaluate_every": 10**6}})
    seen, looked_at = 4 * 40 * 2, 20
    expected = (flops * seen + 2 * looked_at) * 0.73 * 19 * BLOCKS
    assert row(config, "03", load_images(config)).flops == pytest.approx(expected)


def test_replay_and_paraphrases_are_counted_as_they_are_drawn(values):
    """30 plain captions of 6 tokens a step, and of the one trained attribute some wordings, each in two directions."""
    images = load_images(params.check(values))
    plain = row(params.check(values), "03", images).flops
    changes = {"replay": 1.0, "replay_batch": 30, "attribute_weight": 1.0, "attribute_paraphrases": 3}
    config = params.check(
        {
            **values,
            "finetune": {**values["finetune"], **changes},
            "generate": {**values["generate"], "attributes": "size"},
        }
    )
    trained = sum(a.split == "train" for a in load_bank("size").attributes)
    caption = len("a red disc .".split()) + 2
    assert row(config, "03", images).flops - plain == pytest.approx(20 * (30 + 6 * trained) * 6 * caption * BLOCKS)


def test_a_linear_map_is_estimated_as_by_hand(values):
    changes = {"objective": "captions", "tune": "linear_map", "swap": False, "negatives": "rules"}
    config = params.check({**values, "finetune": {**values["finetune"], **changes}})
    found = row(config, "03", load_images(config))
    assert found.work == "30 texts once, 8 steps of a linear map"
    caption = len("a red disc .".split()) + 2
    assert found.flops == pytest.approx(2 * 39 * caption * BLOCKS + 6 * 30 * 4 * 32**2)
    assert found.disk == 4 * (2 * TEXT + 3 * 32**2)


def test_pairs_are_counted_as_they_are_drawn(config):
    images = load_images(config)
    for groups in (images.train.caption, images.train.concept, images.held_out.concept):
        assert estimate.pairs_of(groups, None, False) == len(choose_pairs(groups, None, "all", 0))
    assert estimate.pairs_of(range(1000), None, False) == 499_500
    assert estimate.pairs_of(range(1000), 40, False) == 40


def test_beside_the_papers_own_hours():
    """30 A100 hours of generation and 12 of finetuning."""
    config = params.check(PAPER)
    comparisons, finetuned = row(config, "01"), row(config, "03")
    assert "499,500 texts" in finetuned.work
    assert 30 / 10 < comparisons.hours < 30 * 10
    assert comparisons.hours == pytest.approx(11.3, abs=0.5)  # what the module says
    assert 12 / 10 < finetuned.hours < 12 * 10
    tokens, blocks = 0.73 * (29 + 2), 12 * (12 * 768**2 + 13 * 768)
    steps = 20 * math.ceil(499_500 / 512)
    looked_at = 1_000 * (steps // 100 + 1)
    assert finetuned.flops == pytest.approx((6 * 20 * 499_500 + 2 * looked_at) * tokens * blocks)
    assert finetuned.hours == pytest.approx(5.5, abs=0.1)  # what the module says
    assert "23 of 77 tokens" in finetuned.work
    assert finetuned.hours * 77 / tokens == pytest.approx(19, abs=1)


def test_a_broken_open_clip_configuration(checked, tmp_path):
    for values, message in (
        ({"nothing": 1}, "not a configuration of open_clip; fetch it again"),
        ({"model_cfg": {"embed_dim": 32}}, "open_clip cannot build it"),
    ):
        (tmp_path / "open_clip_config.json").write_text(json.dumps(values))
        assert message in checked(model=f"local-dir:{tmp_path}")[2]


def test_an_answer_that_never_comes_is_not_waited_for(closed_port):
    assert not checks.reachable(f"http://127.0.0.1:{closed_port}")
    assert not checks.reachable("https://no.such.host.invalid")
    assert not checks.reachable("http://localhost:port")


def test_a_name_that_says_nothing_of_a_gguf(tmp_path):
    with pytest.raises(PcclipError, match="not a whole GGUF file"):
        sizes.gguf_elements(tmp_path / "none.gguf")


def counted(out: str) -> list[str]:
    """Stage and work of each line of the estimate."""
    lines = [" ".join(line.split()) for line in out.splitlines()]
    return [line for line in lines if line[:2] in ("01", "02", "03", "04")]


def test_a_sweep_is_checked_and_counted_whole(checked):
    variants = {"plain": {}, "unfiltered": {"generate.filters": "none"}, "other": {"model": "ViT-Z-1"}}
    assert "unknown model 'ViT-Z-1'" in checked(sweep={"variants": variants})[2]
    del variants["other"]
    once = counted(checked()[1])
    status, out, _ = checked(sweep={"grid": {"finetune.lr": [0.1, 0.2]}, "variants": variants})
    assert status == 0
    assert out.count("data source folder") == 1, "what the members share is told once"
    assert "filters ['two_sides', 'in_context']" in out
    assert "filters none" in out
    swept = counted(out)
    works = [line.split(" sentences")[0].split(" images")[0] for line in swept]
    assert works[0].startswith("01 comparisons 3 times"), "the shared one, and one for each member with other filters"
    assert works[1] == "02 embed 3 times 24"
    assert "03 finetune 4 times 40 texts at most" in swept[2]
    assert len(swept) == len(once)


def test_what_another_run_made_is_looked_for_and_not_counted(checked):
    status, out, error = checked(reuse="nowhere")
    assert status == 1
    assert "nowhere/01_generate: this stage has not finished" in error
    assert "nowhere/02_embed: this stage has not finished" in error
    assert {line[:2] for line in counted(out)} == {"03", "04"}
    status, out, error = checked(tuned="nowhere")
    assert "nowhere/03_finetune: this stage has not finished" in error
    assert {line[:2] for line in counted(out)} == {"04"}


def test_the_language_model_that_judges(checked, tmp_path):
    writes, judges = gguf(tmp_path / "writes.gguf", [(10, 10)]), gguf(tmp_path / "judges.gguf", [(100, 100)])
    ask = {"backend": "llama_cpp", "gguf": str(writes), "attributes": "size", "attributes_gguf": str(judges)}
    status, out, _ = checked(generate=ask)
    assert status == 0
    assert "judges.gguf: 1e-05 G parameters" in out
    alike = checked(generate={**ask, "attributes_gguf": str(writes)})[1]

    def flops(told: str) -> float:
        return float(next(line for line in told.splitlines() if line.startswith("01 verdicts")).split()[-6])

    assert flops(out) == pytest.approx(100 * flops(alike), rel=0.1)
    assert "nowhere.gguf: no such file" in checked(generate={**ask, "attributes_gguf": "nowhere.gguf"})[2]
