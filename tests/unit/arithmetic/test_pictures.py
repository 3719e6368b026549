"""Pictures from arithmetic: two tiny random unCLIP pipelines prove the wiring; nearest photos where there is none."""

import sys
from types import ModuleType

import numpy as np
import pandas as pd
import pytest
import torch
from helpers.planted import Fake
from PIL import Image

from pcclip import config as params
from pcclip.arithmetic import figures, pictures
from pcclip.arithmetic.pictures import Asked, Decoder, clip_score, directional
from pcclip.arithmetic.texts import Remembered
from pcclip.data.image_set import ImageSet
from pcclip.embedding.vectors import Vectors
from pcclip.errors import PcclipError
from pcclip.stats.vectors import unit

diffusers = pytest.importorskip("diffusers")
WIDTH = 16


def text_encoder(width: int = 16):
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    torch.manual_seed(0)
    config = CLIPTextConfig(
        bos_token_id=0,
        eos_token_id=2,
        hidden_size=width,
        projection_dim=WIDTH,
        intermediate_size=17,
        num_attention_heads=2,
        num_hidden_layers=1,
        pad_token_id=1,
        vocab_size=300,
    )
    return CLIPTextModel(config), CLIPTextModelWithProjection(config)


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
        text_encoder=text_encoder()[0].eval(),
        unet=unet.eval(),
        scheduler=DDIMScheduler(clip_sample=False, set_alpha_to_one=False),
        vae=vae.eval(),
    )


@pytest.fixture(scope="module")
def karlo(tokenizer):
    """A random UnCLIPPipeline that makes 16 x 16 pictures."""
    from diffusers import PriorTransformer, UnCLIPPipeline, UnCLIPScheduler, UNet2DConditionModel, UNet2DModel
    from diffusers.pipelines.deprecated.unclip.text_proj import UnCLIPTextProjModel

    torch.manual_seed(2)
    prior = PriorTransformer(
        num_attention_heads=2, attention_head_dim=6, embedding_dim=WIDTH, num_layers=1, num_embeddings=8
    )
    prior.clip_std.data.fill_(1)
    decoder = UNet2DConditionModel(
        sample_size=8,
        in_channels=3,
        out_channels=6,
        down_block_types=("ResnetDownsampleBlock2D", "SimpleCrossAttnDownBlock2D"),
        up_block_types=("SimpleCrossAttnUpBlock2D", "ResnetUpsampleBlock2D"),
        mid_block_type="UNetMidBlock2DSimpleCrossAttn",
        block_out_channels=(8, 16),
        norm_num_groups=4,
        layers_per_block=1,
        cross_attention_dim=16,
        attention_head_dim=4,
        resnet_time_scale_shift="scale_shift",
        class_embed_type="identity",
    )
    large = [
        UNet2DModel(
            sample_size=16,
            layers_per_block=1,
            in_channels=6,
            out_channels=3,
            norm_num_groups=4,
            down_block_types=("ResnetDownsampleBlock2D",) * 2,
            up_block_types=("ResnetUpsampleBlock2D",) * 2,
            block_out_channels=(8, 16),
        ).eval()
        for _ in range(2)
    ]
    return UnCLIPPipeline(
        prior=prior.eval(),
        decoder=decoder.eval(),
        text_encoder=text_encoder()[1].eval(),
        tokenizer=tokenizer,
        text_proj=UnCLIPTextProjModel(clip_embeddings_dim=WIDTH, time_embed_dim=32, cross_attention_dim=16).eval(),
        super_res_first=large[0],
        super_res_last=large[1],
        prior_scheduler=UnCLIPScheduler(
            variance_type="fixed_small_log", prediction_type="sample", num_train_timesteps=1000, clip_sample_range=5.0
        ),
        decoder_scheduler=UnCLIPScheduler(
            variance_type="learned_range", prediction_type="epsilon", num_train_timesteps=1000
        ),
        super_res_scheduler=UnCLIPScheduler(
            variance_type="fixed_small_log", prediction_type="epsilon", num_train_timesteps=1000
        ),
    )


@pytest.fixture
def vector(rng):
    return unit(rng.normal(size=(3, WIDTH))).astype(np.float32)


def same(a: Image.Image, b: Image.Image) -> bool:
    return np.array_equal(np.asarray(a), np.asarray(b))


@pytest.mark.parametrize(("name", "text"), [("stable", False), ("karlo", False), ("karlo", True)])
def test_a_vector_becomes_a_picture(name, text, vector, request):
    decoder = Decoder.wrap(request.getfixturevalue(name), steps=2)
    made = decoder.picture(vector[0], 5, text)
    assert made.size == (16, 16)
    assert made.mode == "RGB"
    assert decoder.width == WIDTH
    assert same(made, decoder.picture(vector[0], 5, text)), "the same seed gives the same picture"
    assert not same(made, decoder.picture(vector[0], 6, text)), "another seed another"
    assert not same(made, decoder.picture(vector[1], 5, text)), "and so does another vector"


def test_a_vector_gets_the_length_that_the_pipeline_knows(stable, karlo, vector, monkeypatch):
    seen = {}
    plain = Decoder.wrap(stable, steps=2)
    assert plain.length == pytest.approx(np.sqrt(WIDTH)), "mean 0 and deviation 1 in each direction"
    original = type(stable).__call__
    monkeypatch.setattr(type(stable), "__call__", lambda self, **given: seen.update(given) or original(self, **given))
    plain.picture(vector[0], 0)
    assert float(seen["image_embeds"].norm()) == pytest.approx(np.sqrt(WIDTH), rel=1e-5)
    assert Decoder.wrap(karlo, steps=2).length == pytest.approx(np.sqrt(WIDTH))


def test_a_pipeline_is_read_from_its_folder(stable, vector, tmp_path):
    stable.save_pretrained(tmp_path / "unclip", safe_serialization=True)
    assert not list((tmp_path / "unclip").rglob("*.bin")), "no pickles"
    decoder = Decoder(str(tmp_path / "unclip"), steps=2)
    assert same(decoder.picture(vector[0], 1), Decoder.wrap(stable, steps=2).picture(vector[0], 1))


def test_what_cannot_be_decoded(stable, tmp_path, rng):
    with pytest.raises(PcclipError, match="reads vectors of 16 numbers, and this model's have 9"):
        Decoder.wrap(stable).picture(rng.normal(size=9), 0)
    with pytest.raises(PcclipError, match="a dict; it must be one of StableUnCLIPImg2ImgPipeline, UnCLIPPipeline"):
        Decoder.wrap({})
    (tmp_path / "empty").mkdir()
    with pytest.raises(PcclipError, match=r"arithmetic.decoder = .*empty: cannot be loaded .* safetensors") as error:
        Decoder(str(tmp_path / "empty"))
    assert "\n" not in str(error.value)


def test_without_diffusers_it_says_what_to_install(monkeypatch):
    monkeypatch.setattr(pictures, "find_spec", lambda name: None)
    with pytest.raises(PcclipError, match=r"pip install 'pcclip\[pictures\]'"):
        Decoder("anything")


def test_torchvision_is_made_ready_before_diffusers_is_read(monkeypatch):
    ready = []

    class Diffusers(ModuleType):
        def __getattr__(self, name):
            if name.startswith("__"):
                raise AttributeError(name)
            assert ready, "importing it would fail"
            raise ImportError(name)

    monkeypatch.setattr(pictures, "find_spec", lambda name: True)
    monkeypatch.setattr(pictures, "declare_missing", lambda: ready.append(True))
    monkeypatch.setitem(sys.modules, "diffusers", Diffusers("diffusers"))
    with pytest.raises(ImportError, match="DiffusionPipeline"):
        Decoder("anything")


def test_models_are_compared_from_the_same_noise(stable, vector):
    ask = [
        Asked("one", "base", False, vector[0], "", "", ""),
        Asked("one", "finetuned", False, vector[0], "", "", ""),
        Asked("two", "base", False, vector[0], "", "", ""),
    ]
    one, again, other = pictures.made(ask, Decoder.wrap(stable, steps=2), 3)
    assert same(one, again)
    assert not same(one, other)


# what is asked, and what stands in


@pytest.fixture
def photo_set(tmp_path, rng):
    ids = [f"p{k}" for k in range(5)]
    for k, name in enumerate(ids):
        Image.new("RGB", (9, 9), (50 * k, 20, 200 - 40 * k)).save(tmp_path / f"{name}.png")
    u = np.linalg.qr(rng.normal(size=(WIDTH, 5)))[0].T.astype(np.float32)
    vectors = Vectors(ids, [str(tmp_path / f"{name}.png") for name in ids], u)
    table = pd.DataFrame(
        {"id": ids, "path": vectors.paths, "caption": ids, "concept": ids, "label": None, "split": "held_out"}
    )
    return vectors, ImageSet("made", table, pd.DataFrame())


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


def fake(u) -> Remembered:
    return Remembered(
        Fake(
            {
                "The first image shows p3, while the second image shows p0.": unit(u[3] - u[0]),
                "a": u[2],
                "b": u[1],
                "c": u[1],
            }
        )
    )


def test_what_is_asked_for(photo_set):
    vectors, images = photo_set
    u = vectors.matrix
    change, composition, untold = pictures.asked(config(), images, vectors, {"base": fake(u)})
    np.testing.assert_allclose(change.vector, unit(u[0] + unit(u[3] - u[0])), atol=1e-6)
    assert (change.start, change.wanted, change.before) == (vectors.paths[0], "a photo of p3", "a photo of p0")
    np.testing.assert_allclose(composition.vector, u[2], atol=1e-6)
    assert (composition.text, composition.wanted, untold.wanted) == (True, "a photo of p2", "")


def test_the_nearest_photos_stand_in_and_the_figure_says_so(photo_set):
    vectors, images = photo_set
    wanted = pictures.asked(config(), images, vectors, {"base": fake(vectors.matrix)})
    found = pictures.stand_ins(wanted, images, vectors)
    assert found == [vectors.paths[3], vectors.paths[2], vectors.paths[2]]
    table = pictures.table(wanted, found, pictures.STAND_IN, None)
    assert list(table.columns) == pictures.COLUMNS
    assert set(table.kind) == {"nearest photo"}
    assert table[["clip_score", "directional"]].isna().all(axis=None)
    assert "nearest real photos" in figures.pictures(table, None)._suptitle.get_text()
    assert figures.pictures(table, "a/decoder")._suptitle.get_text() == "Decoded by a/decoder"


class Judge:
    """Sees a photo's name, reads a text's last word."""

    def __init__(self, u):
        self.u = u

    def encode_images(self, paths):
        return np.stack([self.u[int(path[-5])] for path in paths])

    def encode_texts(self, texts):
        return np.stack([self.u[int(text[-1])] for text in texts])


def test_pictures_are_judged_where_there_is_a_text(photo_set):
    vectors, images = photo_set
    wanted = pictures.asked(config(), images, vectors, {"base": fake(vectors.matrix)})
    table = pictures.table(
        wanted, [vectors.paths[3], vectors.paths[4], vectors.paths[4]], pictures.DECODED, Judge(vectors.matrix)
    )
    assert table.clip_score[0] == pytest.approx(2.5, abs=1e-5), "the picture that was wanted"
    assert table.directional[0] == pytest.approx(1, abs=1e-5)
    assert table.clip_score[1] == pytest.approx(0, abs=1e-5)
    assert np.isnan(table.clip_score[2])
    assert table.directional[1:].isna().all()


def test_scores_by_hand(rng):
    a, b = unit(rng.normal(size=(2, 4, 8)))
    np.testing.assert_allclose(clip_score(a, a), 2.5)
    np.testing.assert_allclose(clip_score(a, -a), 0)
    np.testing.assert_allclose(directional(a, b, a, b), 1)
    np.testing.assert_allclose(directional(a, b, b, a), -1)
    np.testing.assert_allclose(directional(a, a, a, b), 0)
