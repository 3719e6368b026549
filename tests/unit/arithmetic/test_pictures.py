"""Pictures from arithmetic: a tiny random unCLIP pipeline proves the wiring; nearest photos where there is none."""

import numpy as np
import pandas as pd
import pytest
import torch
from helpers.planted import Fake
from PIL import Image

from pcclip import config as params
from pcclip.arithmetic import figures, pictures
from pcclip.arithmetic.differences import HeldOut
from pcclip.arithmetic.texts import TextMemory
from pcclip.embedding.vectors import Vectors
from pcclip.errors import PcclipError
from pcclip.stats.vectors import unit
from pcclip.torchvision_shim import declare_missing

pytest.importorskip("diffusers")
declare_missing()  # diffusers imports torchvision
WIDTH = 16


@pytest.fixture(autouse=True)
def few_steps(monkeypatch):
    monkeypatch.setattr(pictures, "STEPS", 2)


def text_encoder():
    from transformers import CLIPTextConfig, CLIPTextModel

    torch.manual_seed(0)
    return CLIPTextModel(
        CLIPTextConfig(
            bos_token_id=0,
            eos_token_id=2,
            hidden_size=WIDTH,
            projection_dim=WIDTH,
            intermediate_size=17,
            num_attention_heads=2,
            num_hidden_layers=1,
            pad_token_id=1,
            vocab_size=300,
        )
    )


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    """CLIP's tokenizer with the letters alone."""
    import json

    from transformers import CLIPTokenizer

    folder = tmp_path_factory.mktemp("tokenizer")
    letters = [chr(k) for k in range(97, 123)]
    words = ["<|startoftext|>", "<|pad|>", "<|endoftext|>", *letters, *(letter + "</w>" for letter in letters)]
    (folder / "vocab.json").write_text(json.dumps({word: k for k, word in enumerate(words)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    return CLIPTokenizer(str(folder / "vocab.json"), str(folder / "merges.txt"), model_max_length=8)


@pytest.fixture(scope="module")
def stable(tokenizer):
    """A random StableUnCLIPImg2ImgPipeline that makes 16 x 16 pictures."""
    from diffusers import AutoencoderKL, DDIMScheduler, DDPMScheduler, StableUnCLIPImg2ImgPipeline, UNet2DConditionModel
    from diffusers.pipelines.stable_diffusion.stable_unclip_image_normalizer import StableUnCLIPImageNormalizer
    from transformers import CLIPImageProcessor, CLIPVisionConfig, CLIPVisionModelWithProjection

    torch.manual_seed(1)
    unet = UNet2DConditionModel(
        sample_size=8,
        in_channels=4,
        out_channels=4,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        block_out_channels=(8, 16),
        norm_num_groups=4,
        attention_head_dim=2,
        class_embed_type="projection",
        projection_class_embeddings_input_dim=2 * WIDTH,
        cross_attention_dim=16,
        layers_per_block=1,
    )
    vae = AutoencoderKL(
        block_out_channels=(8, 8),
        norm_num_groups=4,
        latent_channels=4,
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
    )
    seen = CLIPVisionConfig(
        hidden_size=WIDTH,
        projection_dim=WIDTH,
        intermediate_size=17,
        num_attention_heads=2,
        num_hidden_layers=1,
        image_size=8,
        patch_size=4,
    )
    return StableUnCLIPImg2ImgPipeline(
        feature_extractor=CLIPImageProcessor(crop_size=8, size=8),
        image_encoder=CLIPVisionModelWithProjection(seen).eval(),
        image_normalizer=StableUnCLIPImageNormalizer(WIDTH),
        image_noising_scheduler=DDPMScheduler(beta_schedule="squaredcos_cap_v2"),
        tokenizer=tokenizer,
        text_encoder=text_encoder().eval(),
        unet=unet.eval(),
        scheduler=DDIMScheduler(clip_sample=False, set_alpha_to_one=False),
        vae=vae.eval(),
    )


@pytest.fixture
def vector(rng):
    return unit(rng.normal(size=(3, WIDTH))).astype(np.float32)


def same(a: Image.Image, b: Image.Image) -> bool:
    return np.array_equal(np.asarray(a), np.asarray(b))


def test_a_vector_becomes_a_picture(stable, vector):
    made = pictures.decode(stable, vector[0], 5)
    assert (made.size, made.mode) == ((16, 16), "RGB")
    assert same(made, pictures.decode(stable, vector[0], 5)), "the same seed gives the same picture"
    assert not same(made, pictures.decode(stable, vector[0], 6)), "another seed another"
    assert not same(made, pictures.decode(stable, vector[1], 5)), "and so does another vector"


def test_a_vector_gets_the_length_of_the_pipelines_own_embeddings(stable, vector, monkeypatch):
    seen, original = {}, type(stable).__call__
    monkeypatch.setattr(
        type(stable), "__call__", lambda self, **values: seen.update(values) or original(self, **values)
    )
    pictures.decode(stable, vector[0], 0)
    expected = pytest.approx(np.sqrt(WIDTH), rel=1e-5)
    assert float(seen["image_embeds"].norm()) == expected, "mean 0 and deviation 1 in each direction"


def test_a_pipeline_is_read_from_its_folder(stable, vector, tmp_path):
    stable.save_pretrained(tmp_path / "unclip", safe_serialization=True)
    assert not list((tmp_path / "unclip").rglob("*.bin")), "no pickles"
    pipeline = pictures.load_pipeline(str(tmp_path / "unclip"))
    assert same(pictures.decode(pipeline, vector[0], 1), pictures.decode(stable, vector[0], 1))


def test_what_cannot_be_decoded(stable, tmp_path, rng, monkeypatch):
    with pytest.raises(PcclipError, match="reads vectors of 16 numbers, and this model's have 9.*ViT-L-14:openai"):
        pictures.decode(stable, rng.normal(size=9), 0)
    (tmp_path / "empty").mkdir()
    with pytest.raises(PcclipError, match=r"arithmetic.decoder = .*empty: cannot be loaded .* safetensors") as error:
        pictures.load_pipeline(str(tmp_path / "empty"))
    assert "\n" not in str(error.value)
    monkeypatch.setattr("diffusers.DiffusionPipeline.from_pretrained", lambda *args, **settings: {})
    with pytest.raises(PcclipError, match="a dict; it must be a StableUnCLIPImg2ImgPipeline"):
        pictures.load_pipeline("anything")


def test_without_diffusers_it_says_what_to_install(monkeypatch):
    monkeypatch.setattr(pictures, "find_spec", lambda name: None)
    with pytest.raises(PcclipError, match=r"pip install 'pcclip\[pictures\]'"):
        pictures.check(config(decoder="anything"))


# the pictures that are wanted, and the photos that stand in for them


@pytest.fixture
def held_out(tmp_path, rng):
    ids = [f"p{k}" for k in range(5)]
    for k, name in enumerate(ids):
        Image.new("RGB", (9, 9), (50 * k, 20, 200 - 40 * k)).save(tmp_path / f"{name}.png")
    u = np.linalg.qr(rng.normal(size=(WIDTH, 5)))[0].T.astype(np.float32)
    vectors = Vectors(ids, [str(tmp_path / f"{name}.png") for name in ids], u)
    table = pd.DataFrame({"id": ids, "path": vectors.paths, "caption": ids, "concept": ids})
    return HeldOut(vectors, table, pd.DataFrame(), (np.empty(0, int), np.empty(0, int)), 0, 10, 0)


def config(**arithmetic):
    return params.check(
        {
            "arithmetic": {
                "changes": [{"start": "p0", "text": "The first image shows p3, while the second image shows p0."}],
                "compositions": [["a", "b", "c", "a photo of p2"], ["a", "b", "c"]],
                **arithmetic,
            }
        }
    )


@pytest.fixture
def models(held_out):
    u, change = held_out.vectors.matrix, config().arithmetic.changes[0].text
    return {"base": TextMemory(Fake({change: unit(u[3] - u[0]), "a": u[2], "b": u[1], "c": u[1]}))}


def test_what_is_wanted(held_out, models):
    u = held_out.vectors.matrix
    requests = pictures.wanted_pictures(config(), held_out, models)
    np.testing.assert_allclose(requests.vector[0], unit(u[0] + unit(u[3] - u[0])), atol=1e-6)
    np.testing.assert_allclose(requests.vector[1], u[2], atol=1e-6)
    assert list(requests.start) == [held_out.vectors.paths[0], "", ""]
    assert list(requests.what[1:]) == ["f(a) - f(b) + f(c) = f(a photo of p2)?", "f(a) - f(b) + f(c)"]
    assert list(requests.row) == [0, 1, 2]


def test_models_start_from_the_same_noise(stable, held_out, models, tmp_path, monkeypatch):
    monkeypatch.setattr(pictures, "load_pipeline", lambda spec: stable)
    both = {"base": models["base"], "finetuned": models["base"]}
    table, files = pictures.picture_table(config(decoder="x"), held_out, both, tmp_path)
    first, again, other, *_ = (Image.open(path) for path in table.picture)
    assert files == [f"pictures/{k:03d}.png" for k in range(6)]
    assert same(first, again)
    assert not same(first, other)


def test_the_nearest_photos_stand_in_and_the_figure_says_so(held_out, models, tmp_path):
    paths = held_out.vectors.paths
    table, files = pictures.picture_table(config(), held_out, models, tmp_path)
    assert files == []
    assert list(table.picture) == [paths[3], paths[2], paths[2]]
    assert list(table.columns) == pictures.COLUMNS
    assert set(table.kind) == {"nearest photo"}
    assert "nearest real photos" in figures.pictures(table, None)._suptitle.get_text()
    assert figures.pictures(table, "a/decoder")._suptitle.get_text() == "Decoded by a/decoder"
