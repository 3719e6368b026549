"""Objective clip of stage 03: what learns, that each term is what it is said to be, and that a killed run continues."""

import json
from dataclasses import replace
from functools import cache
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from helpers import diffusion
from helpers.crash import Crash, crash_after
from helpers.in_process import execute
from helpers.runs import ROOT, run_values

from pcclip import config as params, load_model, plots
from pcclip.comparisons import stage as generate
from pcclip.data.image_set import load_images
from pcclip.embedding.stage import embed
from pcclip.encoders.diffusion import Teacher
from pcclip.encoders.dual_encoder import normalisations
from pcclip.errors import PcclipError
from pcclip.evaluation.stage import load_models
from pcclip.finetuning import loop, pixels, score_distillation, stage as finetuning, tensor_cache
from pcclip.finetuning.batches import draw_batch
from pcclip.finetuning.both_towers import BothTowers, load_data
from pcclip.finetuning.score_distillation import Distillation, LatentMap, load_distillation
from pcclip.finetuning.tensor_cache import CachedTensors, cached_tensors
from pcclip.images import open_image

CLIP = {
    "objective": "clip",
    "tune": "layernorm",
    "optimizer": "adamw",
    "lr": 1e-3,
    "temperature": 0.1,
    "batch_size": 8,
    "epochs": 2,
    "keep_epochs": [],
    "checkpoint_every": 1,
    "evaluate_every": 100,
}


NOISE = ("noise of a training step", 5)


@pytest.fixture(scope="module", autouse=True)
def _one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def teachers(tmp_path_factory) -> dict[str, str]:
    """A tiny teacher with a VAE that predicts noise, and one of pixels that predicts velocity."""
    folder = tmp_path_factory.mktemp("teachers")
    return {
        "epsilon": str(diffusion.saved(folder / "epsilon")),
        "v_prediction": str(diffusion.saved(folder / "v", prediction="v_prediction", vae=False)),
    }


@pytest.fixture(scope="module", autouse=True)
def _loaded_once():
    """A teacher is frozen, so that one of a kind serves every run here."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(score_distillation, "load_teacher", cache(score_distillation.load_teacher))
        yield


@pytest.fixture(scope="module")
def early(photos, tiny_model, tiny_encoder, tmp_path_factory) -> SimpleNamespace:
    """01 and 02 of a run, which every run here reuses."""
    values = run_values(photos, tiny_model, tmp_path_factory.mktemp("runs"))
    config = params.check(values)
    images = load_images(config)
    comparisons = generate.generate(config, images, tiny_encoder, None)
    vectors, _ = embed(config, images, tiny_encoder)
    return SimpleNamespace(values=values, images=images, vectors=vectors, comparisons=comparisons, model=tiny_encoder)


@pytest.fixture
def configured(early, teachers):
    """configured(run, sds={...} or None, **finetune) -> Config."""

    def call(run="mine", sds=None, teacher="epsilon", **settings):
        block = sds and {"teacher": teachers[teacher], "weight": 0.5, "map_lr": 1e-3, **sds}
        return params.check(
            {**early.values, "run": run, "reuse": "tiny", "finetune": {**CLIP, "sds": block or None, **settings}}
        )

    return call


@pytest.fixture
def gathered(early):
    """gathered(config) -> what the loop reads."""
    return lambda config: load_data(config, early.images, early.vectors, early.comparisons, early.model)


@pytest.fixture
def looped(early, gathered, fresh_encoder):
    """looped(config, folder) -> a training whose h_w is fitted, on a model of its own."""

    def call(config, folder):
        training = BothTowers(config, gathered(config), fresh_encoder)
        training.prepare()
        return training

    return call


def first_batch(loop):
    return next(loop.batches(0, 1))


def gradients(loop) -> dict[str, torch.Tensor]:
    loop.gradients(*first_batch(loop))
    return {name: p.grad for name, p in loop.state.parameters.items()}


def finetuned(early, config) -> pd.DataFrame:
    return finetuning.finetune(config, early.images, early.vectors, early.comparisons, early.model)


def files_of(folder) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.suffix in (".safetensors", ".csv")
    }


# what learns


def named(model, tune) -> set[str]:
    names = {name for name, _ in model.named_parameters()}
    return {
        "all": names,
        "layernorm": {name for name in names if ".ln_" in name},
        "transformer": {name for name in names if ".transformer." in name},
        "lora": {
            f"{name.removesuffix('.weight')}.lora_{side}.default.weight"
            for side in "AB"
            for name in names
            if ".mlp." in name and name.endswith(".weight")
        },
    }[tune]


@pytest.mark.parametrize("tune", ["layernorm", "transformer", "all", "lora"])
def test_gradients_reach_the_named_parameters_and_no_other(configured, looped, tmp_path, tune, fresh_encoder):
    wanted = named(fresh_encoder, tune)
    assert {name.partition(".")[0] for name in wanted} == {"text_tower", "image_tower"}
    loop = looped(configured(sds={"samples": 1}, tune=tune, learn_temperature=True), tmp_path)
    found = gradients(loop)
    mapping = {"latent_map.linear.weight", "latent_map.linear.bias"}
    assert set(found) == wanted | mapping | {"log_temperature"}
    assert all(g is not None and (g.any() or "lora_A" in name) for name, g in found.items())  # its B is zero at first
    model = {name: p for name, p in loop.model.named_parameters() if p.grad is not None}
    assert set(model) == wanted
    assert not any(
        p.grad is not None or p.requires_grad
        for part in loop.distillation.teacher._modules()
        for p in part.parameters()
    )


def test_the_teacher_alone_reaches_the_image_tower_and_no_text(configured, looped, tmp_path):
    """L_SDS has its own text encoder: nothing of it is said to CLIP's."""
    loop = looped(configured(sds={"samples": 1}, tune="all"), tmp_path)
    plan, pixels = first_batch(loop)
    u = loop.image_vectors(pixels)[torch.from_numpy(plan.caption_images)]
    loop.distillation.backward(u, loop.data.train.text_numbers[plan.captions], NOISE, 1.0)
    reached = {name for name, p in loop.state.parameters.items() if p.grad is not None and p.grad.any()}
    assert reached == {name for name in loop.state.parameters if not name.startswith("text_tower")}


def test_a_tower_without_layernorm_learns_its_batchnorm_and_keeps_its_statistics():
    """RN50: no LayerNorm in the image tower."""
    import open_clip

    torch.manual_seed(0)
    tower = open_clip.CLIP(
        embed_dim=8,
        vision_cfg={"image_size": 32, "layers": [1, 1, 1, 1], "width": 8, "head_width": 8},
        text_cfg={"context_length": 8, "vocab_size": 32, "width": 8, "heads": 1, "layers": 1},
    ).visual.eval()
    names = {id(module): name for name, module in tower.named_modules()}
    found = {names[id(module)] for module in normalisations(tower)}
    assert found == {name for name, m in tower.named_modules() if isinstance(m, torch.nn.BatchNorm2d)}
    assert {"bn1", "layer4.0.bn3"} <= found
    before = {name: value.clone() for name, value in tower.named_buffers()}
    tower(torch.randn(4, 3, 32, 32)).sum().backward()
    assert all(torch.equal(value, before[name]) for name, value in tower.named_buffers())


def test_what_was_tuned_is_saved_and_nothing_else_moved(early, configured, monkeypatch, tmp_path):
    config = configured("layernorm", epochs=1, sds={"samples": 1})
    before = {name: value.clone() for name, value in early.model.state_dict().items()}
    finetuned(early, config)
    tuned = load_model(str(config.folder))
    changed = {name for name, value in tuned.state_dict().items() if not torch.equal(value, before[name])}
    assert changed == named(early.model, "layernorm")
    assert tuned.image_fingerprint() != early.model.image_fingerprint()
    assert all(torch.equal(value, before[name]) for name, value in early.model.state_dict().items()), "the base is left"
    shown = {}  # by notebook 03
    for name in ("movement", "curves"):
        monkeypatch.setattr(plots, name, lambda table, name=name: shown.setdefault(name, []).append(table))
    execute(ROOT / "notebooks" / "03_finetune.ipynb", tmp_path / "03.ipynb", config.model_dump())
    [moved], [curve] = shown["movement"], shown["curves"]
    names = moved.tower + "_tower." + moved["name"]
    assert set(names[moved.share_moved > 0]) == changed
    assert {"loss", "clip", "sds"} <= set(curve.metric)


def test_the_layernorms_alone_learn_in_a_text_objective_too(early, configured):
    config = configured("texts", objective="infonce", tune="layernorm", epochs=1)
    finetuned(early, config)
    before, after = early.model.state_dict(), load_model(str(config.folder)).state_dict()
    changed = {name for name, value in after.items() if not torch.equal(value, before[name])}
    assert changed == {name for name in named(early.model, "layernorm") if name.startswith("text_tower")}


# the loss


def denoised(teacher: Teacher, z0, t, noise, condition) -> torch.Tensor:
    """The integrand by hand in double precision: noise levels from the scheduler's numbers, velocity turned round."""
    c = teacher.scheduler.config
    betas = np.linspace(c.beta_start**0.5, c.beta_end**0.5, c.num_train_timesteps) ** 2  # "scaled_linear"
    abar = torch.from_numpy(np.cumprod(1 - betas))[t].view(-1, 1, 1, 1)
    z_t = abar.sqrt() * z0 + (1 - abar).sqrt() * noise
    found = teacher.unet.double()(z_t, t, condition.double()).sample
    if c.prediction_type == "v_prediction":
        found = abar.sqrt() * found + (1 - abar).sqrt() * z_t
    return ((found - noise) ** 2).mean(dim=(1, 2, 3))


@pytest.fixture(params=["epsilon", "v_prediction"])
def term(request, tmp_path) -> Distillation:
    """A term over five texts, with a teacher and an h_w of its own."""
    teacher = Teacher(diffusion.parts(prediction=request.param, vae=request.param == "epsilon"))
    torch.manual_seed(1)
    latent_map = LatentMap(6, teacher.latent_shape)
    torch.nn.init.normal_(latent_map.linear.weight)
    torch.nn.init.normal_(latent_map.linear.bias)
    texts = ["a", "b", "ab", "ba", "aa"]
    conditions = cached_tensors(
        tmp_path / "texts", {}, 5, lambda ranges: (teacher.conditions(texts[r.start : r.stop]) for r in ranges), 5
    )
    settings = params.Sds(teacher="x", samples=2, t_min=0.0, t_max=1.0)
    return Distillation(teacher, latent_map, conditions, settings, seed=3)


@pytest.mark.parametrize("micro_batch", [None, 2])
def test_the_term_is_what_is_written_by_hand(term, micro_batch):
    term = replace(term, settings=term.settings.model_copy(update={"micro_batch": micro_batch}))
    u = torch.nn.functional.normalize(torch.randn(3, 6, generator=torch.Generator().manual_seed(2)), dim=-1)
    u.requires_grad_()
    captions = np.array([4, 0, 2])
    value = term.backward(u, captions, NOISE, weight=0.25)
    t, noise = term.draw(3, NOISE)
    linear, condition = term.latent_map.linear, term.conditions[captions]
    weight, bias, v = (x.detach().double().requires_grad_() for x in (linear.weight, linear.bias, u))
    z0 = (v @ weight.T + bias).view(3, *term.teacher.latent_shape)
    by_hand = sum(denoised(term.teacher, z0, t[k], noise[k].double(), condition).mean() for k in range(2)) / 2
    (0.25 * by_hand).backward()
    term.teacher.unet.float()
    assert float(value) == pytest.approx(by_hand.item(), rel=1e-5)
    for ours, theirs in ((u, v), (linear.weight, weight), (linear.bias, bias)):
        largest = theirs.grad.abs().max().item()
        torch.testing.assert_close(ours.grad.double(), theirs.grad, rtol=1e-3, atol=1e-6 * largest)


def test_checkpointing_changes_no_gradient(term):
    def gradient():
        u = torch.eye(6)[:2].requires_grad_()
        term.backward(u, np.array([1, 2]), NOISE, 1.0)
        return u.grad

    plain = gradient()
    calls = []
    term.teacher.unet.enable_gradient_checkpointing()
    term.teacher.unet.down_blocks[0].resnets[0].register_forward_pre_hook(lambda *_: calls.append(1))
    torch.testing.assert_close(gradient(), plain)
    assert len(calls) == 2 * 2, "each draw's forward pass is done again for the gradient"


def test_a_unet_in_bf16_says_nearly_the_same(term):
    def gradient():
        u = torch.eye(6)[:3].requires_grad_()
        value = term.backward(u, np.array([1, 2, 0]), NOISE, 1e-3)
        return float(value), u.grad.flatten()

    (value, plain), _ = gradient(), term.teacher.to("cpu", torch.bfloat16)
    rounded, found = gradient()
    assert rounded == pytest.approx(value, rel=0.02)
    assert torch.cosine_similarity(found, plain, dim=0) > 0.98
    assert found.dtype == torch.float32


def test_noise_is_a_function_of_seed_and_step(term):
    one, again, other = term.draw(4, NOISE), term.draw(4, NOISE), term.draw(4, (NOISE[0], 6))
    assert all(torch.equal(a, b) for a, b in zip(one, again, strict=True))
    assert not torch.equal(one[1], other[1])
    narrow = replace(term, settings=term.settings.model_copy(update={"t_min": 0.25, "t_max": 0.5, "samples": 200}))
    narrow = narrow.draw(5, NOISE)[0]
    assert 250 <= narrow.min() < 270
    assert 480 < narrow.max() < 500


def test_the_terms_are_summed_by_their_weights(configured, looped, tmp_path):
    """L_CLIP by hand from the vectors."""
    loop = looped(configured(sds={"weight": 0.25}), tmp_path)
    train = loop.data.train
    plan, pixels = first_batch(loop)
    found = {name: float(value) for name, value in loop.gradients(plan, pixels).items()}
    u = loop.model.encode_pixels(pixels).astype(float)
    texts = [train.texts[k] for k in plan.captions]
    images, w = u[plan.caption_images], loop.model.encode_texts(texts).astype(float)
    clip = cross_entropies(images @ w.T / 0.1, w @ images.T / 0.1)
    assert found["clip"] == pytest.approx(clip, rel=1e-4)
    assert found["loss"] == pytest.approx(found["clip"] + 0.25 * found["sds"], rel=1e-5)


def test_towers_in_bf16_have_nearly_the_same_gradients_and_weights_in_fp32(configured, looped, tmp_path, fresh_encoder):
    plain = {name: g.clone() for name, g in gradients(looped(configured(), tmp_path)).items()}
    fresh_encoder.zero_grad()
    loop = looped(configured(precision="bf16"), tmp_path)
    for name, g in gradients(loop).items():
        assert g.dtype == loop.state.parameters[name].dtype == torch.float32
        assert torch.cosine_similarity(g, plain[name], dim=0) > 0.9, name


def cross_entropies(*logits: np.ndarray) -> float:
    """Mean over matrices whose row i is right at column i."""
    return float(np.mean([np.mean(np.log(np.exp(x).sum(axis=1)) - np.diag(x[:, : len(x)])) for x in logits]))


def test_equal_captions_are_no_negatives_where_shared_is_masked(configured, looped, tmp_path):
    loop = looped(configured(mask_shared=True), tmp_path)
    train = loop.data.train
    loop.data = replace(loop.data, train=replace(train, text_numbers=np.zeros_like(train.text_numbers)))
    assert float(loop.gradients(*first_batch(loop))["clip"]) == 0


def test_few_at_once_give_the_same_gradients(configured, looped, tmp_path, fresh_encoder):
    settings = {"tune": "all", "learn_temperature": True}
    whole = gradients(looped(configured(sds={"samples": 1}, **settings), tmp_path))
    whole = {name: g.clone() for name, g in whole.items()}
    fresh_encoder.zero_grad()
    apart = gradients(looped(configured(sds={"samples": 1, "micro_batch": 2}, micro_batch=3, **settings), tmp_path))
    assert whole.keys() == apart.keys()
    for name, g in whole.items():
        torch.testing.assert_close(apart[name], g, rtol=1e-3, atol=1e-5 * float(g.abs().max()), msg=name)


# what a step sees


def test_an_epoch_is_every_image_once_with_a_caption_of_its_own(configured, gathered):
    train = gathered(configured()).train
    seen = [draw_batch(configured(), train, step) for step in range(2)]
    assert sorted(np.concatenate([train.images[plan.captions] for plan in seen])) == list(train.images)
    for plan in seen:
        assert list(plan.images[plan.caption_images]) == list(train.images[plan.captions])
    assert all(map(np.array_equal, draw_batch(configured(), train, 1), seen[1]))


def test_captions_of_an_image_take_turns(configured, gathered, early, monkeypatch):
    images = early.images.train.id[:3]
    table = pd.DataFrame({"id": np.repeat(images, 3), "caption": [f"{a} of {b}" for b in images for a in "xyz"]})
    monkeypatch.setitem(vars(early.images), "captions", table)
    train = gathered(configured()).train
    assert len(train) == 3
    assert list(np.diff(train.starts)) == [3, 3, 3]
    drawn = np.array([draw_batch(configured(batch_size=3, epochs=40), train, step).captions for step in range(40)])
    assert set(drawn.ravel()) == set(range(9))
    assert [sorted(row // 3) for row in drawn] == [[0, 1, 2]] * 40


def test_pixels_are_the_same_from_memory_and_from_files(early, monkeypatch):
    wanted = [np.array([4, 1]), np.array([0]), np.array([2, 4, 3])]
    paths = early.vectors.paths[:5]
    kept_ones = [p.clone() for p in pixels.Pixels(paths, early.model.preprocess, 2).each(wanted)]
    monkeypatch.setattr(pixels, "_IN_MEMORY", 0)
    for one, other in zip(kept_ones, pixels.Pixels(paths, early.model.preprocess, 2).each(wanted), strict=True):
        assert torch.equal(one, other)


def test_an_image_that_went_away_is_named(early):
    with pytest.raises(PcclipError, match="gone.png: missing file, though notebook 02 could read it"):
        list(pixels.Pixels(["gone.png"], early.model.preprocess, 1).each([np.array([0])]))


# the teacher's latents and conditions


def test_what_is_kept_is_what_the_teacher_says_afresh(configured, gathered, early):
    config = configured(sds={"samples": 1}, run="kept")
    given = gathered(config)
    term = load_distillation(config, given.train, early.model)
    train, teacher = given.train, term.teacher
    latents = score_distillation.image_latents(config, teacher, given, train.images)
    shown = torch.stack([teacher.preprocess(open_image(given.vectors.paths[row])) for row in train.images])
    assert torch.equal(latents[np.arange(len(train))], teacher.latents(shown))
    texts = list(dict.fromkeys(train.texts))
    assert torch.equal(
        term.conditions[train.text_numbers], teacher.conditions(texts)[torch.from_numpy(train.text_numbers)]
    )


def test_kept_rows_go_on_where_they_were_and_are_made_once(tmp_path, monkeypatch):
    monkeypatch.setattr(tensor_cache, "_ROWS_IN_FILE", 4)
    rows, made = torch.randn(11, 2, 3).to(torch.bfloat16), []

    def make(wanted, limit=99):
        for part in wanted:
            if len(made) == limit:
                raise Crash
            made.append(part)
            yield rows[part.start : part.stop]

    with pytest.raises(Crash):
        cached_tensors(tmp_path / "x", {}, 11, lambda wanted: make(wanted, 3), 3)  # one of the second file's two parts
    found = cached_tensors(tmp_path / "x", {}, 11, make, 3)
    assert [(part.start, part.stop) for part in made] == [(0, 3), (3, 4), (4, 7), (4, 7), (7, 8), (8, 11)]
    some = np.array([10, 0, 5, 4])
    assert torch.equal(found[some], rows[some])
    assert found[some].dtype == torch.bfloat16
    assert torch.equal(cached_tensors(tmp_path / "x", {}, 11, lambda wanted: pytest.fail("again"), 3)[some], rows[some])
    cached_tensors(tmp_path / "x", {"texts": "others"}, 2, make, 3)
    assert len(list((tmp_path / "x").glob("*.safetensors"))) == 1


# the warm-up


class Rows(CachedTensors):
    """Kept tensors that are in memory."""

    def __init__(self, rows):
        self.rows = rows

    def __getitem__(self, some):
        return self.rows[torch.from_numpy(some)]


def test_least_squares_finds_a_linear_map_that_is_there(configured, gathered, early, rng):
    config = configured(sds={"weight": 1.0})
    term = load_distillation(config, gathered(config).train, early.model)
    shape = term.teacher.latent_shape
    u = rng.standard_normal((400, early.model.width)).astype(np.float32)
    weight, bias = rng.standard_normal((np.prod(shape), early.model.width)), rng.standard_normal(np.prod(shape))
    z = torch.from_numpy((u @ weight.T + bias).astype(np.float32)).view(-1, *shape)
    error = score_distillation.least_squares(term, u, Rows(z))
    with torch.no_grad():
        given_back = term.latent_map(torch.from_numpy(u))
    assert error == pytest.approx(float((given_back - z).double().square().mean()), rel=1e-2)
    assert error < 1e-4 * float(z.var())
    np.testing.assert_allclose(term.latent_map.linear.bias.detach(), bias, atol=0.05)


def test_before_clip_learns_the_map_alone_is_fitted(configured, looped, fresh_encoder, tmp_path):
    before = {name: p.clone() for name, p in fresh_encoder.named_parameters()}
    fitted = looped(configured(sds={"samples": 1}), tmp_path)
    assert fitted.distillation.latent_map.linear.weight.any()
    assert all(p.grad is None and torch.equal(p, before[name]) for name, p in fresh_encoder.named_parameters())


# a whole run


def test_a_killed_run_gives_the_same_curve_and_the_same_weights_to_the_bit(configured, early, monkeypatch):
    block = {"baseline": True}
    settings = {"learn_temperature": True, "evaluate_every": 3}
    whole, killed = configured("whole", block, **settings), configured("killed", block, **settings)
    finetuned(early, whole)
    for owner, name, calls in (
        (BothTowers, "prepare", 0),
        (BothTowers, "step", 2),
        (BothTowers, "step", 2),
        (BothTowers, "step", 3),
    ):
        with monkeypatch.context() as patch, pytest.raises(Crash):
            crash_after(patch, owner, name, calls)
            finetuned(early, killed)
        assert not (killed.folder / "03_finetune" / "manifest.json").exists()
    curve = finetuned(early, killed)
    pd.testing.assert_frame_equal(curve, finetuned(early, killed))  # done already
    expected, found = (files_of(config.folder / "03_finetune") for config in (whole, killed))
    assert set(expected) == {
        "curves.csv",
        "latent_map.safetensors",
        "text_tower.safetensors",
        "image_tower.safetensors",
        "captions/curves.csv",
        "captions/text_tower.safetensors",
        "captions/image_tower.safetensors",
    }
    assert found == expected
    assert set(curve.metric) >= {"loss", "clip", "sds", "in_batch_accuracy", "zero_shot_accuracy"}
    assert sorted(curve[(curve.split == "held_out") & (curve.metric == "sds")].step) == [0, 3, 4]
    manifest = json.loads((killed.folder / "03_finetune" / "manifest.json").read_text())
    assert manifest["counts"]["steps"] == 4

    alone = configured("alone", **settings)  # lambda = 0 is the captions alone, and so is the baseline
    none = configured("none", {**block, "weight": 0.0, "baseline": False}, **settings)
    finetuned(early, alone)
    finetuned(early, none)
    expected = files_of(alone.folder / "03_finetune")
    assert files_of(none.folder / "03_finetune") == expected
    assert {name.removeprefix("captions/"): data for name, data in found.items() if "captions/" in name} == expected
    assert expected["image_tower.safetensors"] != found["image_tower.safetensors"]

    models = load_models(killed)
    assert list(models) == ["base", "finetuned", "captions"]
    assert len({model.image_fingerprint() for model in models.values()}) == 3


def test_a_learned_temperature_stays_above_that_of_clip(configured, looped, tmp_path):
    loop = looped(configured(temperature=0.0101, learn_temperature=True), tmp_path)
    with torch.no_grad():
        loop.log_temperature.fill_(-9.0)
    loop.step(first_batch(loop))
    assert loop.log_temperature.exp().item() == pytest.approx(0.01)


# settings that cannot be


@pytest.mark.parametrize(
    ("finetune", "says"),
    [
        ({"sds": {"teacher": "x"}}, "sds changes the image tower too, so it needs objective: clip"),
        ({"difference": 1.0}, "finetune.difference: no longer a key; use objective: infonce"),
        ({"objective": "clip", "replay": 1.0}, "objective: clip has no attribute or replay term and is one process"),
        ({"objective": "clip", "processes": 2}, "is one process"),
        ({"objective": "clip", "sds": {"teacher": "x", "t_min": 0.5, "t_max": 0.5}}, "t_min = 0.5 must be below t_max"),
        ({"objective": "clip", "sds": {}}, "finetune.sds.teacher: missing"),
        ({"objective": "clip", "sds": {"teacher": "x", "warmup_lr": 1.0}}, "warmup_lr: no longer a key; use nothing;"),
    ],
)
def test_settings_that_do_not_go_together_are_one_line(finetune, says):
    with pytest.raises(PcclipError, match="^here: ") as error:
        params.check({"finetune": finetune}, where="here")
    assert says in str(error.value)
    assert "\n" not in str(error.value)


def test_a_row_of_the_results_has_one_name():
    values = {
        "finetune": {"objective": "clip", "sds": {"teacher": "x", "baseline": True}},
        "evaluate": {"peers": {"captions": "outputs/x"}},
    }
    with pytest.raises(PcclipError, match="'captions' is the row of finetune.sds.baseline"):
        params.check(values)


def test_no_such_teacher_is_one_line(early, configured, tmp_path):
    config = configured(sds={"teacher": str(tmp_path / "absent")})
    with pytest.raises(PcclipError, match="absent.*: no such folder") as error:
        finetuned(early, config)
    assert "\n" not in str(error.value)


def test_a_loss_that_is_no_number_says_where(early, configured):
    with pytest.raises(PcclipError, match="the loss became nan at step 1; lower finetune.lr"):
        finetuned(early, configured("nan", lr=1e38))


def test_lora_needs_a_linear_layer_in_both_towers(configured, gathered, fresh_encoder, monkeypatch):
    blocks = {"text": fresh_encoder.transformer(), "image": torch.nn.Conv2d(1, 1, 1)}
    monkeypatch.setattr(fresh_encoder, "transformer", blocks.get)
    with pytest.raises(PcclipError, match="tune = lora: the image tower's blocks have no linear layer"):
        loop.learned(configured(tune="lora"), fresh_encoder, BothTowers.towers)
