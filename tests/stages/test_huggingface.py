"""Models of transformers and sentence-transformers: the library's own vectors, every class of config that is installed."""

import numpy as np
import pytest
import torch
import yaml
from helpers import tiny_hf
from helpers.runs import run_values, up_to_03
from PIL import Image

from pcclip import config as params, load_model
from pcclip.encoders import check_name, identify
from pcclip.errors import PcclipError
from pcclip.workbook.sizes import encoder_size

TEXTS = ["a red disc", "the first image shows a large dog while the second image shows a small cat", "", "blue"]


@pytest.fixture(scope="module", params=tiny_hf.CLASSES)
def spec(request, tmp_path_factory):
    return tiny_hf.write(request.param, tmp_path_factory.mktemp(request.param))


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    return tiny_hf.write("clip", tmp_path_factory.mktemp("clip"))


@pytest.fixture(scope="module")
def pictures(photos):
    return [Image.open(path).convert("RGB").crop((0, 0, 40, 48)) for path in sorted(photos.glob("*.png"))[:3]]


def unit(vectors):
    vectors = getattr(vectors, "pooler_output", vectors)
    return torch.nn.functional.normalize(vectors, dim=-1).numpy()


@torch.inference_mode()
def test_vectors_are_the_librarys_own(spec, pictures):
    from transformers import AutoModel, AutoProcessor

    folder = spec.removeprefix("hf:")
    theirs, processor = AutoModel.from_pretrained(folder).eval(), AutoProcessor.from_pretrained(folder)
    padding = "max_length" if "siglip" in theirs.config.model_type else True
    words = processor(text=TEXTS, padding=padding, max_length=40, truncation=True, return_tensors="pt")
    model = load_model(spec)
    np.testing.assert_allclose(model.encode_texts(TEXTS), unit(theirs.get_text_features(**words)), atol=1e-5)
    pixels = processor.image_processor(images=pictures, return_tensors="pt")
    np.testing.assert_allclose(model.encode_images(pictures), unit(theirs.get_image_features(**pixels)), atol=1e-5)
    assert model.width == tiny_hf.WIDTH


def test_the_towers_are_apart_and_tunable(spec):
    model = load_model(spec)
    images = {id(p) for p in model.image_tower.parameters()}
    assert images.isdisjoint(id(p) for p in model.text_tower.parameters())
    assert images | {id(p) for p in model.text_tower.parameters()} | {id(p) for p in model.logits.values()} == {
        id(p) for p in model.whole().parameters()
    }
    blocks, everything = (set(model.tunable(part)) for part in ("transformer", "all"))
    assert blocks < everything
    assert not any("embed" in name.replace("embed_dim", "") or "projection" in name for name in blocks)


def test_sizes_are_known_without_weights(spec):
    size, model = encoder_size(spec), load_model(spec)
    if np.isnan(size.text.parameters):  # in newer transformers its code looks at values, which meta tensors lack
        assert model.architecture["class"] == "AlignModel"
        return
    assert size.text.parameters == sum(p.numel() for p in model.text_tower.parameters())
    assert size.image.parameters == sum(p.numel() for p in model.image_tower.parameters())
    assert (size.width, size.context_length) == (model.width, model.context_length)


def test_a_text_tower_is_finetuned_saved_and_mixed(photos, clip, tmp_path):
    values = run_values(photos, clip, tmp_path)
    config = params.check(values | {"finetune": values["finetune"] | {"epochs": 1, "keep_epochs": [], "tune": "lora"}})
    base = load_model(clip)
    up_to_03(config, base)
    tuned, half, none = (load_model(str(config.folder), alpha).encode_texts(TEXTS) for alpha in (1, 0.5, 0))
    np.testing.assert_array_equal(none, base.encode_texts(TEXTS))
    assert 0 < np.abs(half - none).max() < np.abs(tuned - none).max()


def test_identity_follows_the_files(tmp_path):
    spec = tiny_hf.write("clip", tmp_path / "one")
    before, fingerprint = identify(spec), load_model(spec).image_fingerprint()
    (tmp_path / "one").rename(tmp_path / "two")
    assert identify(f"hf:{tmp_path / 'two'}") == before  # the place is no part of it
    assert load_model(f"hf:{tmp_path / 'two'}").image_fingerprint() == fingerprint
    (tmp_path / "two" / "processor_config.json").write_text("{}")
    assert identify(f"hf:{tmp_path / 'two'}") != before


@pytest.mark.parametrize("name", ["hf:", "hf:./nowhere", "hf:a/b/c"])
def test_a_place_that_is_none(name):
    with pytest.raises(PcclipError, match="no folder"):
        check_name(name)


def test_a_folder_without_a_model(tmp_path):
    with pytest.raises(PcclipError, match=r"no config\.json"):
        load_model(f"hf:{tmp_path}")


def test_a_name_on_a_hub_that_is_not_reached():
    check_name("hf:someone/something@v1")
    with pytest.raises(PcclipError, match="cannot be loaded"):
        load_model("hf:someone/something@v1")


def test_towers_without_one_space(tmp_path):
    """FLAVA's features are one vector for each token."""
    tiny_hf.write("clip", tmp_path)  # the processor
    from transformers import FlavaConfig, FlavaModel

    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2}
    text, image = {**sizes, "vocab_size": 64}, {**sizes, "image_size": tiny_hf.SIDE, "patch_size": 8}
    config = FlavaConfig(
        text_config=text, image_config=image, multimodal_config=sizes, projection_dim=32, hidden_size=32
    )
    FlavaModel(config).save_pretrained(tmp_path)
    with pytest.raises(PcclipError, match="no image and text vectors of one space"):
        load_model(f"hf:{tmp_path}")


def test_code_of_a_repository_is_not_run(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "own", "auto_map": {"AutoConfig": "own.Own"}}')
    (tmp_path / "own.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\nclass Own: pass\n")
    with pytest.raises(PcclipError, match="cannot be loaded"):
        load_model(f"hf:{tmp_path}")
    assert not (tmp_path / "ran").exists()


def test_check_names_weights_and_size(photos, clip, tmp_path, capsys):
    from pcclip.workbook.check import check

    values = run_values(photos, clip, tmp_path)
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(values))
    check(tmp_path / "run.yaml")
    assert f"weights of {clip}: in " in capsys.readouterr().out


@pytest.mark.parametrize("family", ["Qwen2VL", "Qwen3VL"])
def test_a_multimodal_language_model_reads_an_instruction_first(tmp_path, pictures, family):
    """sentence-transformers' own vectors, with and without the instruction; it changes images and texts alike."""
    spec = tiny_hf.write_mllm(tmp_path, family)
    library = pytest.importorskip("sentence_transformers")
    peer, theirs = load_model(spec), library.SentenceTransformer(str(tmp_path), device="cpu")
    assert peer.conditional
    for instruction in (None, "a large dog", "a small cat"):
        conditioned = peer.conditioned(instruction) if instruction else peer
        for encode, items in ((conditioned.encode_images, pictures), (conditioned.encode_texts, TEXTS)):
            np.testing.assert_allclose(
                encode(items), theirs.encode(items, prompt=instruction, normalize_embeddings=True), atol=1e-5
            )
    assert np.abs(peer.conditioned("a large dog").encode_images(pictures) - peer.encode_images(pictures)).max() > 0.01
    assert peer.conditioned("a").image_fingerprint() != peer.conditioned("cat").image_fingerprint()
    assert np.isnan(encoder_size(spec).text.parameters)


def test_embedding_gemma_is_a_frozen_peer(tmp_path, pictures):
    """sentence-transformers' own vectors, a picture at a time: the processor takes several for one item."""
    spec = tiny_hf.write_embedding_gemma(tmp_path)
    library = pytest.importorskip("sentence_transformers")
    peer, theirs = load_model(spec), library.SentenceTransformer(str(tmp_path), device="cpu")
    np.testing.assert_allclose(peer.encode_texts(TEXTS), theirs.encode(TEXTS, normalize_embeddings=True), atol=1e-5)
    alone = np.concatenate([theirs.encode([picture], normalize_embeddings=True) for picture in pictures])
    np.testing.assert_allclose(peer.encode_images(pictures), alone, atol=1e-5)
    assert not peer.conditional
    assert len(np.unique(alone.round(4), axis=0)) == len(pictures)
    assert np.isnan(encoder_size(spec).text.parameters)


def test_a_model_without_two_towers_is_a_frozen_peer(tmp_path, pictures):
    """An MLLM, whose images become vectors by sentence-transformers."""
    from pcclip.encoders.export import export

    tiny_hf.write("clip", tmp_path / "clip")
    pytest.importorskip("sentence_transformers")
    from sentence_transformers import SentenceTransformer

    (tmp_path / "sentence").mkdir()
    export(load_model(f"hf:{tmp_path / 'clip'}"), tmp_path / "sentence", ["sentence-transformers"])
    SentenceTransformer(str(tmp_path / "sentence")).save(str(tmp_path / "old"))
    (tmp_path / "peer").mkdir()
    for name in ("modules.json", "config_sentence_transformers.json", "1_Normalize"):
        (tmp_path / "old" / name).rename(tmp_path / "peer" / name)
    modules = (tmp_path / "peer" / "modules.json").read_text().replace('"path": ""', '"path": "0_Transformer"')
    (tmp_path / "peer" / "modules.json").write_text(modules)
    (tmp_path / "old").rename(tmp_path / "peer" / "0_Transformer")
    peer, dual = load_model(f"hf:{tmp_path / 'peer'}"), load_model(f"hf:{tmp_path / 'clip'}")
    assert type(peer).__name__ == "FrozenPeer"
    assert not peer.conditional
    np.testing.assert_allclose(peer.encode_texts(TEXTS), dual.encode_texts(TEXTS), atol=1e-5)
    np.testing.assert_allclose(peer.encode_images(pictures), dual.encode_images(pictures), atol=1e-5)
    with pytest.raises(PcclipError, match="frozen peer"):
        peer.tokenised(TEXTS)
