"""The diffusion teacher: read from diffusers' layout, and its arithmetic against the formulas in double precision."""

import json
import shutil

import numpy as np
import pytest
import torch
from helpers import diffusion
from PIL import Image

from pcclip.data.sources import toy_scenes as draw
from pcclip.encoders import toy_diffusion as shapes
from pcclip.encoders.diffusion import Teacher, identify_teacher, load_teacher, missing_teacher
from pcclip.errors import PcclipError

TEXTS = ["a red square left of a blue circle", "a blue circle left of a red square", ""]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return diffusion.saved(tmp_path_factory.mktemp("latent"), prediction="v_prediction", scheduler="PNDMScheduler")


@pytest.fixture
def copied(folder, tmp_path):
    return shutil.copytree(folder, tmp_path / "mine")


def given(teacher, n=3, dtype=torch.float32):
    """z0, t and noise for a teacher."""
    drawn = torch.Generator().manual_seed(1)
    z0, noise = torch.randn(2, n, *teacher.latent_shape, generator=drawn, dtype=torch.float64).to(dtype)
    return z0, torch.tensor([0, 500, 999][:n]), noise


# ---- reading ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("scheduler", "prediction", "vae"),
    [("PNDMScheduler", "epsilon", True), ("DDIMScheduler", "v_prediction", True), ("DDPMScheduler", "epsilon", False)],
)
def test_what_is_saved_is_what_is_read(tmp_path, scheduler, prediction, vae):
    asked = {"scheduler": scheduler, "prediction": prediction, "vae": vae}
    made = Teacher(diffusion.parts(**asked))
    read = load_teacher(str(diffusion.saved(tmp_path, **asked)))
    assert read.latent_shape == ((4, 8, 8) if vae else (3, 8, 8))
    assert read.pixels == ((16, 16) if vae else (8, 8))
    assert (read.steps, read.prediction) == (1000, prediction)
    assert read.fingerprint() == made.fingerprint()
    z0, t, noise = given(read)
    told = read.conditions(TEXTS)
    torch.testing.assert_close(read.denoising(z0, t, noise, told), made.denoising(z0, t, noise, made.conditions(TEXTS)))


def test_it_is_frozen_and_the_gradient_goes_to_the_latents(folder):
    teacher = load_teacher(str(folder))
    assert not any(
        p.requires_grad for part in (teacher.unet, teacher.vae, teacher.text_encoder) for p in part.parameters()
    )
    assert not teacher.unet.training
    z0, t, noise = given(teacher)
    z0.requires_grad_()
    teacher.denoising(z0, t, noise, teacher.conditions(TEXTS)).sum().backward()
    assert (z0.grad.abs().flatten(1).sum(dim=1) > 0).all()


def test_checkpointing_changes_no_gradient(folder):
    grads = []
    for checkpointing in (False, True):
        teacher = load_teacher(str(folder), checkpointing=checkpointing)
        z0, t, noise = given(teacher)
        z0.requires_grad_()
        teacher.denoising(z0, t, noise, teacher.conditions(TEXTS)).sum().backward()
        grads.append(z0.grad)
    assert torch.equal(*grads)
    assert teacher.unet.is_gradient_checkpointing


def test_half_precision_is_the_unets_alone(folder):
    whole, half = load_teacher(str(folder)), load_teacher(str(folder), "bf16")
    assert (half.unet.dtype, half.vae.dtype, half.text_encoder.dtype) == (torch.bfloat16, torch.float32, torch.float32)
    z0, t, noise = given(whole)
    told = whole.conditions(TEXTS)
    assert torch.equal(told, half.conditions(TEXTS))
    found = half.denoising(z0, t, noise, told)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, whole.denoising(z0, t, noise, told), rtol=0.05, atol=0.02)


@pytest.mark.parametrize(
    ("part", "says"),
    [
        ("unet", "has no unet/"),
        ("tokenizer", "has no tokenizer/"),
        ("unet/diffusion_pytorch_model.safetensors", "unet has no safetensors"),
        ("text_encoder/model.safetensors", "text_encoder has no safetensors"),
        ("scheduler/scheduler_config.json", "its scheduler cannot be loaded"),
    ],
)
def test_a_missing_part_is_named_in_one_line(copied, part, says):
    path = copied / part
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    with pytest.raises(PcclipError, match=says) as error:
        load_teacher(str(copied))
    assert "\n" not in str(error.value)


def test_weights_in_a_pickle_are_not_read(copied):
    weights = copied / "unet" / "diffusion_pytorch_model.safetensors"
    torch.save({}, weights.with_suffix(".bin"))
    weights.unlink()
    with pytest.raises(PcclipError, match="unet has no safetensors"):
        load_teacher(str(copied))


@pytest.mark.parametrize(
    ("part", "changes", "says"),
    [
        ("scheduler", {"prediction_type": "sample"}, "predicts sample"),
        ("vae", {"latent_channels": 3}, "vae cannot be loaded|its UNet sees 4 channels"),
        ("unet", {"class_embed_type": "identity"}, "wants more than the latents and the text"),
    ],
)
def test_another_kind_of_model_is_refused(copied, part, changes, says):
    path = copied / part / ("scheduler_config.json" if part == "scheduler" else "config.json")
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
    with pytest.raises(PcclipError, match=says):
        load_teacher(str(copied))


def test_a_second_text_encoder_is_refused(copied):
    (copied / "text_encoder_2").mkdir()
    with pytest.raises(PcclipError, match="more than one text encoder"):
        load_teacher(str(copied))


def test_a_name_that_is_no_folder_and_no_hub_name():
    assert missing_teacher("owner/model") == []
    assert missing_teacher("no/such/folder")
    with pytest.raises(PcclipError, match="no such folder"):
        load_teacher("no/such/folder")


def test_the_identity_is_the_files(folder, copied):
    before = identify_teacher(str(copied))
    assert before == identify_teacher(str(folder)), "wherever they lie"
    config = copied / "scheduler" / "scheduler_config.json"
    config.write_text(config.read_text().replace("0.012", "0.013"))
    assert identify_teacher(str(copied)) != before
    assert load_teacher(str(copied)).fingerprint() != load_teacher(str(folder)).fingerprint()


# ---- arithmetic ------------------------------------------------------------------------------------------------------


def abar(t: torch.Tensor) -> torch.Tensor:
    """The cumulative product of 1 - beta, beta from 0.00085 to 0.012 in the square root (Stable Diffusion's)."""
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2
    return torch.cumprod(1 - betas, dim=0)[t].view(-1, 1, 1, 1)


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
def test_against_the_formulas_in_double_precision(prediction):
    teacher = Teacher(diffusion.parts(prediction)).to("cpu", torch.float64)
    z0, t, noise = given(teacher, dtype=torch.float64)
    told = teacher.conditions(TEXTS).double()

    z_t = abar(t).sqrt() * z0 + (1 - abar(t)).sqrt() * noise
    found = teacher.unet(z_t, t, told).sample
    if prediction == "v_prediction":  # v = sqrt(abar) eps - sqrt(1 - abar) z0, and z_t as above: solved for eps
        found = abar(t).sqrt() * found + (1 - abar(t)).sqrt() * z_t
    errors = torch.stack([((a - b) ** 2).mean() for a, b in zip(found, noise, strict=True)])

    near = {"rtol": 1e-5, "atol": 2e-6}  # the scheduler sums its levels in single precision
    torch.testing.assert_close(teacher.noised(z0, t, noise), z_t, **near)
    torch.testing.assert_close(teacher.noise(z_t, t, told), found, **near)
    torch.testing.assert_close(teacher.denoising(z0, t, noise, told), errors, **near)


def test_a_velocity_that_is_right_gives_the_noise_back(monkeypatch):
    """diffusers' own velocity, put where the UNet's answer was."""
    teacher = Teacher(diffusion.parts("v_prediction"))
    z0, t, noise = given(teacher)
    velocity = teacher.scheduler.get_velocity(z0, noise, t)
    monkeypatch.setattr(teacher.unet, "forward", lambda *_: type("Output", (), {"sample": velocity}))
    assert teacher.denoising(z0, t, noise, teacher.conditions(TEXTS)).max() < 1e-10


def test_noised_is_diffusers_own():
    teacher = Teacher(diffusion.parts())
    z0, t, noise = given(teacher)
    torch.testing.assert_close(teacher.noised(z0, t, noise), teacher.scheduler.add_noise(z0, noise, t))


def test_latents_are_the_scaled_mean_and_have_no_draw():
    teacher = Teacher(diffusion.parts())
    pixels = torch.rand(2, 3, *teacher.pixels) * 2 - 1
    mean = teacher.vae.encode(pixels).latent_dist.mean * teacher.vae.config.scaling_factor
    assert torch.equal(teacher.latents(pixels), mean)
    assert torch.equal(teacher.latents(pixels), teacher.latents(pixels))
    pixel_model = Teacher(diffusion.parts(vae=False))
    assert torch.equal(pixel_model.latents(pixels), pixels)


def test_preprocess_scales_to_minus_one_and_one_and_cuts_at_the_centre():
    teacher = Teacher(diffusion.parts())
    image = Image.new("RGB", (64, 32), "black")
    image.paste("white", (16, 0, 48, 32))
    pixels = teacher.preprocess(image)
    assert pixels.shape == (3, 16, 16)
    np.testing.assert_allclose(pixels[:, :, 2:-2].numpy(), 1.0, atol=1e-6)
    assert pixels.min() > 0.5, "nothing of the black margins but what the filter mixes in"
    assert teacher.preprocess(Image.new("L", (7, 9))).min() == -1


def test_conditions_are_padded_to_the_tokenizers_length_and_keep_the_order_of_words():
    teacher = Teacher(diffusion.parts())
    told = teacher.conditions(["ab cd", "cd ab", "", "x" * 100])
    assert told.shape == (4, 24, 16)
    assert not torch.allclose(told[0], told[1], atol=1e-3)
    assert torch.isfinite(told).all()


# ---- the one that is trained on drawn pictures -----------------------------------------------------------------------

TINY = {
    "pictures": 24,
    "steps": 6,
    "batch": 4,
    "lr": 1e-3,
    "warmup": 2,
    "weight_decay": 0.01,
    "average": 0.9,
    "without_text": 0.5,
    "text_steps": 2,
    "levels": [0.3, 0.65],
}


@pytest.fixture
def small(tmp_path, monkeypatch):
    """A smaller network, and a cache of its own."""
    monkeypatch.setenv("PCCLIP_CACHE", str(tmp_path))
    monkeypatch.setattr(shapes, "UNET", shapes.UNET | {"block_out_channels": [8, 16], "attention_head_dim": 8})
    monkeypatch.setattr(shapes, "TEXT_ENCODER", shapes.TEXT_ENCODER | {"intermediate_size": 16})


def test_the_shapes_teacher_is_trained_once_and_read_as_any_other(small, monkeypatch):
    tiny = shapes.SHAPES_DIFFUSION._replace(recipe=TINY)
    folder = tiny.trained(3)
    monkeypatch.setattr(shapes, "_train", None)
    assert tiny.trained(3) == folder
    monkeypatch.setattr(shapes.ToyModel, "trained", lambda self, seed: {3: folder}[seed])
    teacher = load_teacher("shapes-diffusion:3")
    assert (teacher.latent_shape, teacher.pixels, teacher.prediction) == ((3, 8, 8), (8, 8), "v_prediction")
    assert teacher.fingerprint() == load_teacher(str(folder)).fingerprint()
    assert missing_teacher("shapes-diffusion:3") == []
    assert identify_teacher("shapes-diffusion:3") != identify_teacher("shapes-diffusion:4")


def test_its_words_are_whole_tokens_and_their_order_counts(small):
    made = Teacher(shapes.parts(0))
    texts = [draw.scene(0, "train", k).caption for k in range(50)]
    for text in texts:
        assert len(made.tokenizer(text).input_ids) == len(text.split()) + 2 <= made.tokenizer.model_max_length
    told = made.conditions([texts[0], draw.scene(0, "train", 0).swapped])
    assert not torch.allclose(told[0], told[1], atol=1e-2)


def test_the_captions_it_learns_from_are_true_of_the_picture(small):
    tokenizer = shapes.parts(0)["tokenizer"]
    scenes = [draw.scene(0, "train", k) for k in range(20)]
    pixels, texts, without = shapes._examples(scenes, tokenizer)
    assert (pixels.shape, pixels.dtype) == ((20, 3, 8, 8), torch.uint8)
    said = [tokenizer.decode(ids, skip_special_tokens=True).strip() for ids in (*texts[7], without)]
    scene = scenes[7]
    turned = draw.caption(scene.second, draw.INVERSE[scene.relation], scene.first)
    assert said == [scene.caption, turned, ""]


def test_the_sides_are_where_the_objects_are_drawn():
    scenes = [draw.scene(0, "train", k) for k in range(40)]
    for scene, row in zip(scenes, shapes._sides(scenes).tolist(), strict=True):
        at = {
            draw.OBJECTS.index(one): place for one, place in zip((scene.first, scene.second), scene.places, strict=True)
        }
        axis = 0 if row[2] == row[3] == len(draw.OBJECTS) else 1
        low, high = row[2 * axis : 2 * axis + 2]
        assert at[low][axis] < at[high][axis]
        assert set(row) == {low, high, len(draw.OBJECTS)}
