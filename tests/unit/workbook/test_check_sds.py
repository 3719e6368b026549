"""Checking a run with a diffusion teacher: what is missing, and hours, memory and disk against hand counts."""

import shutil
from pathlib import Path

import pytest
import torch
import yaml
from helpers import diffusion
from helpers.runs import ROOT
from torch.utils.flop_counter import FlopCounterMode

from pcclip import cli
from pcclip import config as params
from pcclip.data.image_set import load_images
from pcclip.encoders import toy_clip as student
from pcclip.errors import PcclipError
from pcclip.workbook import check as checks
from pcclip.workbook import estimate, sizes
from pcclip.workbook.activations import traced
from pcclip.workbook.sweep import read_sweep
from pcclip.workbook.teacher_size import TeacherSize, of_teacher

V1 = "CompVis/stable-diffusion-v1-4"
KNOWN = TeacherSize(  # of round numbers, for hand counts
    unet=1000,
    vae=200,
    text_encoder=300,
    latent=(4, 2, 2),
    condition=(8, 6),
    unet_flops=10**9,
    vae_flops=10**8,
    text_flops=10**7,
    kept=5000,
    kept_checkpointing=2000,
)


@pytest.fixture(scope="module")
def teacher(tmp_path_factory) -> Path:
    return diffusion.saved(tmp_path_factory.mktemp("teacher"))


@pytest.fixture
def config(values):
    """A function that gives the tiny run with objective clip and a teacher, and some changes to both."""

    def changed(sds: dict | None = None, **finetune) -> params.Config:
        own = {"objective": "clip", "tune": "layernorm", "sds": {"teacher": V1, "warmup_steps": 0, **(sds or {})}}
        return params.check({**values, "finetune": {**values["finetune"], **own, **finetune}})

    return changed


def rows(config, teacher=KNOWN) -> dict[str, estimate.Row]:
    images, towers = load_images(config), sizes.of_model(config.model)
    found, _ = estimate.estimate(config, images, towers, None, teacher=teacher)
    return {row.stage: row for row in found}


# ---- what is counted without numbers ---------------------------------------------------------------------------------


def test_what_a_unet_keeps_for_the_gradient_is_what_it_really_keeps():
    real = diffusion.parts()["unet"].requires_grad_(False).eval()
    own = {value.untyped_storage()._cdata for value in real.state_dict().values()}
    held = {}

    def keep(value):
        if value.untyped_storage()._cdata not in own:
            held[value.untyped_storage()._cdata] = value
        return value

    def run():
        z = torch.zeros(1, 4, 8, 8, requires_grad=True)
        return real(z, torch.zeros(1, dtype=torch.long), torch.zeros(1, 24, 16))

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda value: value):
        run()
    kept = sum(value.untyped_storage().nbytes() for value in held.values())
    real.to("meta")
    with torch.device("meta"), FlopCounterMode(display=False) as counter:  # where attention is two plain products
        run()
    found = traced(real, run)
    assert (found.bytes, found.flops) == (kept, counter.get_total_flops())


def test_checkpointing_keeps_the_inputs_of_blocks_and_the_largest_block():
    """Three blocks of two layers of 16 numbers in batches of 4, each layer keeping what tanh gave."""

    class Blocks(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.blocks = torch.nn.ModuleList(torch.nn.Sequential(*[torch.nn.Tanh()] * n) for n in (2, 5, 2))
            self.function = lambda block, x: block(x)

        def forward(self, x):
            for block in self.blocks:
                x = self.function(block, x)
            return x.exp()

        def use(self, function):
            self.function = function

    def run():
        return model(torch.zeros(4, 16, requires_grad=True))

    one, model = 4 * 16 * 4, Blocks()
    assert traced(model, run).bytes == (2 + 5 + 2 + 1) * one
    assert traced(model, run, model.use).bytes == (3 + 1) * one + 5 * one


def test_stable_diffusion_is_known_by_name():
    """Its UNet has 860 M parameters and does about 0.8 TFLOP for one latent; a VAE of 84 M, a text encoder of 123 M."""
    found = of_teacher(V1)
    assert (found.unet, found.vae) == (859_520_964, 83_653_863)
    assert found.text_encoder == pytest.approx(123_060_480, rel=2e-3)  # but for biases and norms
    assert (found.latent, found.condition) == ((4, 64, 64), (77, 768))
    assert found.cached == (4 * 16384, 4 * 77 * 768)
    assert 0.78e12 < found.unet_flops < 0.82e12
    assert found.kept_checkpointing < found.kept / 3


def test_a_folder_is_counted_by_its_own_files(teacher):
    found, real = of_teacher(str(teacher)), diffusion.parts()
    for name in ("unet", "vae"):
        assert getattr(found, name) == sum(p.numel() for p in real[name].parameters())
    assert (found.latent, found.condition) == ((4, 8, 8), (24, 16))
    blocks = 2 * (4 * 16**2 + 2 * 16 * 32)
    assert found.text_encoder == blocks + (54 + 24) * 16
    assert found.text_flops == 2 * blocks * 24


def test_a_teacher_that_cannot_be_counted(teacher, tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    assert of_teacher("some/other-model") is None
    assert of_teacher("nowhere") is None
    shutil.copytree(teacher, tmp_path / "broken")
    (tmp_path / "broken" / "unet" / "config.json").write_text('{"sample_size": 8, "down_block_types": ["Unknown"]}')
    with pytest.raises(PcclipError, match="diffusers cannot build it") as error:
        of_teacher(str(tmp_path / "broken"))
    assert "\n" not in str(error.value)
    (tmp_path / "broken" / "unet" / "config.json").write_text("{")
    with pytest.raises(PcclipError, match="fetch it again"):
        of_teacher(str(tmp_path / "broken"))
    shutil.rmtree(tmp_path / "broken" / "text_encoder")
    with pytest.raises(PcclipError, match="has no text_encoder/"):
        of_teacher(str(tmp_path / "broken"))


# ---- hours and disk --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sds", "passes"),
    [
        ({}, 2),
        ({"checkpointing": True}, 3),
        ({"through_unet": False}, 1),
        ({"samples": 4}, 8),
        ({"through_unet": False, "checkpointing": True}, 1),
        ({"warmup": "sds", "warmup_steps": 2}, 2 * (1 + 16 / 64)),
    ],
)
def test_the_teacher_is_estimated_as_by_hand(config, sds, passes):
    """15 images in batches of 8, 4 epochs: 8 steps of 8 images; h_w has 32 weights and a constant for each of 16."""
    asked = config({"precision": "bf16", **sds})
    found = rows(asked)["03 teacher"]
    images, warming = 8 * 8, asked.finetune.sds.warmup_steps * 8
    unet, mapped = 64 * passes * 10**9, 6 * (images + warming) * 33 * 16
    assert found.flops == pytest.approx(unet + mapped)
    assert found.hours == pytest.approx((unet / 312e12 + mapped / 19.5e12) / 0.3 / 3600)
    assert found.disk == 4 * 4 * 33 * 16  # h_w, and while training it with two moments in the checkpoint


@pytest.mark.parametrize(
    ("sds", "latents", "precise"),
    [
        ({}, 0, 4),
        ({"warmup_steps": 1}, 15, 4),
        ({"warmup": "least_squares"}, 15, 4),
        ({"warmup": "sds", "warmup_steps": 5}, 0, 4),
        ({"warmup_steps": 1, "precision": "bf16"}, 15, 2),
    ],
)
def test_what_is_kept_of_the_teacher(config, sds, latents, precise):
    """Latents in fp32, conditions as the UNet reads them."""
    found = rows(config(sds))["03 teacher's cache"]
    assert found.flops == latents * 10**8 + 15 * 10**7
    assert found.disk == latents * 4 * 16 + 15 * precise * 48


def test_without_weight_there_is_no_teacher(config):
    assert not {"03 teacher", "03 teacher's cache"} & set(rows(config({"weight": 0.0})))
    assert estimate.memory(config({"weight": 0.0}), None, KNOWN, None)[0][0] == "both towers, fp32"


@pytest.mark.parametrize(
    ("changes", "image", "text"),
    [
        ({}, 2, 4),
        ({"tune": "all"}, 3, 6),
        ({"micro_batch": 4}, 3, 6),
        ({"micro_batch": 8}, 2, 4),
        ({"negatives": "rules"}, 2, 8),
        ({"sds": {"teacher": V1, "baseline": True}}, 4, 8),
    ],
)
def test_both_towers_are_estimated_as_by_hand(config, changes, image, text):
    """8 steps of 8 images and captions; looked at once at the start and at steps 5 and 8."""
    asked = config(**{"evaluate_every": 10**6, **changes})
    towers, found = sizes.of_model(asked.model), rows(asked)["03 finetune"]
    caption, times = len("a red disc .".split()) + 2, 2 if "sds" in changes else 1
    seen = 64 * (image * towers.image_flops + text * caption * towers.text_blocks)
    looked_at = times * 9 * (towers.image_flops + 2 * caption * towers.text_blocks)
    assert found.flops == pytest.approx(seen + looked_at)
    norm = 2 * 32  # two in each of two blocks, one at each end, and one before the image's blocks
    assert (towers.text_norms, towers.image_norms) == (5 * norm, 6 * norm)
    tuned = (
        towers.text_norms + towers.image_norms
        if changes.get("tune") != "all"
        else (towers.text_parameters + towers.image_parameters)
    )
    assert found.disk == (1 + 1 + times - 1) * towers.bytes + 4 * 3 * tuned  # epoch 2 is kept


def test_differences_bring_two_images_and_their_texts(config):
    plain, both = (
        rows(config(evaluate_every=10**6, swap=swap, difference=weight, difference_batch=5))["03 finetune"]
        for swap, weight in ((True, 0.0), (True, 1.0))
    )
    towers = sizes.of_model(config().model)
    caption = len("a red disc .".split()) + 2
    assert both.flops - plain.flops == pytest.approx(
        8 * (10 * 2 * towers.image_flops + 10 * 4 * caption * towers.text_blocks)
    )


# ---- memory ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sds", "unet", "held"),
    [
        ({}, 4000, 8 * 5000),
        ({"precision": "bf16"}, 2000, 4 * 5000),
        ({"checkpointing": True}, 4000, 8 * 2000),
        ({"micro_batch": 2}, 4000, 2 * 5000),
        ({"micro_batch": 100}, 4000, 8 * 5000),
        ({"through_unet": False}, 4000, 0),
    ],
)
def test_memory_is_counted_as_by_hand(config, sds, unet, held):
    asked = config(sds)
    towers = sizes.of_model(asked.model)
    found = estimate.memory(asked, towers, KNOWN, (1000.0, 10.0))
    tuned = towers.text_norms + towers.image_norms
    assert [size for _, size in found] == [
        unet,
        4 * 500,
        16 * 33 * 16,
        held,
        towers.bytes,
        12 * tuned,
        8 * 1000 + 8 * 14 * 10,
    ]


def test_few_images_at_once_need_less(config):
    asked = config(micro_batch=2, precision="bf16")
    found = estimate.memory(asked, sizes.of_model(asked.model), KNOWN, (1000.0, 10.0))
    assert found[-1][1] == max(2 * 1000, 2 * 14 * 10) / 2, "one tower after the other"
    assert estimate.memory(params.check({}), None, None, None) == []


def test_layernorms_alone_keep_less_than_everything(config):
    few, all_of = (sizes.kept_by_towers(config().model, tune) for tune in ("layernorm", "all"))
    assert 0 < few[0] < all_of[0]
    assert 0 < few[1] < all_of[1]


# ---- the command -----------------------------------------------------------------------------------------------------


@pytest.fixture
def checked(config, tmp_path, capsys):
    def run(**sds):
        path = tmp_path / "sds.yaml"
        path.write_text(yaml.safe_dump(config(sds).model_dump(exclude_defaults=True)))
        return cli.main(["run", str(path), "--check"]), *capsys.readouterr()

    return run


def test_a_run_that_lacks_nothing(checked, teacher):
    status, out, error = checked(teacher=str(teacher), precision="bf16")
    assert (status, error) == (0, "")
    assert f"teacher {teacher}: UNet 0 M, VAE 0 M, text encoder 0 M parameters, there" in out
    told = [line.split("  ")[-1] for line in out.splitlines() if line.startswith("memory")]
    assert told[0] == "teacher's UNet, frozen, bf16"
    assert told[3].startswith("UNet's activations, 8 at once in bf16 (with sds.checkpointing ")
    assert told[-1] == "in all, beside what kernels need while they work: tiny"
    assert "03 teacher's cache" in out
    assert "15 conditions" in out


def test_what_a_run_lacks(checked, monkeypatch, tmp_path):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(checks, "reachable", lambda url: False)
    monkeypatch.setattr(checks, "of_teacher", lambda spec: None if spec == "a/b" else KNOWN)
    status, out, error = checked(teacher=V1)
    assert status == 1
    assert f"run `hf download {V1}` where there is a network and give its folder as finetune.sds.teacher" in error
    assert "(about 6 kB)" in error
    assert "teacher 'nowhere': no such folder, and not a name on the hub" in checked(teacher="nowhere")[2]
    status, out, error = checked(teacher="a/b")
    assert "teacher a/b: its size is told on the hub alone: not here" in error
    assert "in all and what is unknown" in out
    monkeypatch.setattr(checks, "find_spec", lambda name: None)
    assert f"teacher {V1} needs diffusers: `pip install" in checked(teacher=V1)[2]


def test_the_hubs_cache(checked, teacher, monkeypatch, tmp_path):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(checks, "reachable", lambda url: False)
    home = tmp_path / "hub" / "models--tiny--diffusion"
    shutil.copytree(teacher, home / "snapshots" / "abc")
    (home / "refs").mkdir()
    (home / "refs" / "main").write_text("abc")
    status, out, _ = checked(teacher="tiny/diffusion")
    assert status == 0
    assert "teacher tiny/diffusion: UNet 0 M" in out
    assert "in the hub's cache" in out
    next((home / "snapshots" / "abc" / "unet").glob("*.safetensors")).unlink()
    assert "teacher tiny/diffusion: " in checked(teacher="tiny/diffusion")[2]


def test_the_teacher_as_a_matcher_is_estimated_as_by_hand(config, values):
    asked = config().model_dump(exclude_defaults=True)
    sets = {name: {"path": "nowhere"} for name in ("winoground", "eqben", "sugarcrepe")}
    for unconditional, each in ((True, 6), (False, 4)):
        asked["evaluate"] |= {
            "compositional": sets,
            "teacher": {"spec": V1, "samples": 10, "limit": 50, "unconditional": unconditional, "precision": "bf16"},
        }
        found = next(iter(estimate._matching(params.check(asked), KNOWN)))
        assert found.flops == 3 * 50 * 10 * each * 10**9
        assert found.hours == pytest.approx(found.flops / (0.3 * 312e12) / 3600)
    assert not list(estimate._matching(config(), KNOWN))


def test_models_that_are_drawn_here(checked):
    assert sizes.of_model("shapes-clip:3").width == student.MODEL["embed_dim"]
    found = of_teacher("shapes-diffusion:3")
    assert (found.latent, found.vae, found.vae_flops) == ((3, 8, 8), 0, 0)
    status, out, _ = checked(teacher="shapes-diffusion:3")
    assert status == 0
    assert "weights of shapes-diffusion:3: t" in out


def test_the_file_says_of_each_value_whether_it_is_known():
    path = ROOT / "params" / "sds_coco.yaml"
    lines = path.read_text().splitlines()
    start, end = lines.index("finetune:"), lines.index("evaluate:")
    plain = {"keep_epochs", "checkpoint_every", "evaluate_every", "sds"}
    silent = [
        line
        for line in lines[start + 1 : end]
        if line.strip()
        and line.split(":")[0].strip() not in plain
        and not any(f"{word}" in line.partition("#")[2] for word in ("known", "assumed", "ours"))
    ]
    assert not silent
    members = read_sweep(path)
    assert len({member.config.model for member in members}) == 6
    for config in (member.config for member in members):
        assert (config.finetune.objective, config.finetune.tune) == ("clip", "layernorm")
        assert (len(config.evaluate.compositional), config.finetune.sds.baseline) == (11, True)


@pytest.mark.parametrize("name", ["sds_demo", "sds_coco"])
def test_rivals_are_trained_and_judged_as_the_file_they_stand_beside(name):
    """In all but the variants; the baseline is one of them, and the teacher as a matcher is the other file's."""
    own = read_sweep(ROOT / "params" / f"{name}.yaml")[0].config
    members = {
        member.variant: member.config
        for member in read_sweep(ROOT / "params" / f"{name}_rivals.yaml")
        if member.config.seed == own.seed
    }
    rival = members["SDS"]
    for block in ("model", "data", "generate", "embed", "arithmetic"):
        assert getattr(rival, block) == getattr(own, block), block
    alone = own.finetune.sds.model_copy(update={"baseline": False})
    assert rival.finetune == own.finetune.model_copy(update={"sds": alone})
    assert rival.evaluate == own.evaluate.model_copy(update={"teacher": None})
    assert sum(config.finetune.negatives == "rules" for config in members.values()) >= 1
    assert sum(config.finetune.sds is not None for config in members.values()) == 1
