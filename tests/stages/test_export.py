"""Exported models: each library that reads the files gives the vectors of the model that wrote them."""

import json
import re
import shutil

import numpy as np
import pytest
import torch
from helpers import tiny_hf
from helpers.runs import ROOT, run_values, up_to_03
from PIL import Image

import pcclip
from pcclip import cli, config as params, load_model
from pcclip.encoders.export import export
from pcclip.errors import PcclipError
from pcclip.workbook.model_card import publish

TEXTS = [
    f"The first image shows a {a}, while the second image shows a {b}." for a in ("big dog", "cat") for b in "abcde"
]


@pytest.fixture(scope="module")
def run(photos, tiny_model, tmp_path_factory):
    """A finetuned run of the tiny open_clip model, by LoRA, with an evaluation's numbers."""
    folder = tmp_path_factory.mktemp("run")
    values = run_values(photos, tiny_model, folder)
    values["finetune"] |= {"tune": "lora", "epochs": 2, "keep_epochs": []}
    config = params.check(values)
    up_to_03(config, load_model(tiny_model))
    return config.folder


@pytest.fixture(scope="module")
def exported(run, tmp_path_factory):
    folder = tmp_path_factory.mktemp("exported") / "model"
    assert publish(str(run), str(folder)) == dict.fromkeys(["open_clip", "transformers", "sentence-transformers"], "")
    return folder


@pytest.fixture(scope="module")
def pictures():
    """Ten pictures, wider and higher than the model's, and as large."""
    noise = np.random.default_rng(0).integers(0, 256, (10, 48, 64, 3), dtype=np.uint8)
    sizes = [(64, 48), (48, 48), (40, 40), (32, 32), (64, 32), (32, 36), (60, 40), (48, 36), (33, 33), (44, 32)]
    return [Image.fromarray(pixels).crop((0, 0, *size)) for pixels, size in zip(noise, sizes, strict=True)]


def unit(vectors):
    vectors = getattr(vectors, "pooler_output", vectors)
    return torch.nn.functional.normalize(vectors, dim=-1).detach().numpy()


def same(model, texts, images, pictures):
    """Equal vectors to 1e-5, and so the same class of each picture, where the texts are classes."""
    own_texts, own_images = model.encode_texts(TEXTS), model.encode_images(pictures)
    np.testing.assert_allclose(texts, own_texts, atol=1e-5)
    np.testing.assert_allclose(images, own_images, atol=1e-5)
    np.testing.assert_array_equal((images @ texts.T).argmax(axis=1), (own_images @ own_texts.T).argmax(axis=1))


def by_open_clip(name, pictures):
    import open_clip

    model, _, preprocess = open_clip.create_model_and_transforms(name)
    texts = model.eval().encode_text(open_clip.get_tokenizer(name)(TEXTS))
    return unit(texts), unit(model.encode_image(torch.stack([preprocess(picture) for picture in pictures])))


def test_open_clip_reads_the_folder(run, exported, pictures):
    same(load_model(str(run)), *by_open_clip(f"local-dir:{exported}", pictures), pictures)


@torch.inference_mode()
def test_transformers_reads_the_folder(run, exported, pictures):
    from transformers import AutoModel, AutoTokenizer, CLIPImageProcessorPil

    model, tokenizer = AutoModel.from_pretrained(exported), AutoTokenizer.from_pretrained(exported)
    images = CLIPImageProcessorPil.from_pretrained(exported)  # its other processor rounds resized pixels differently
    texts = model.get_text_features(**tokenizer(TEXTS, padding=True, truncation=True, return_tensors="pt"))
    vectors = model.get_image_features(**images(images=pictures, return_tensors="pt"))
    same(load_model(str(run)), unit(texts), unit(vectors), pictures)
    assert type(model).__name__ == "CLIPModel"
    assert model.logit_scale.item() == pytest.approx(load_model(str(run)).logits["logit_scale"].item())


def test_sentence_transformers_reads_the_folder(run, exported, pictures):
    library = pytest.importorskip("sentence_transformers")
    model, whole = library.SentenceTransformer(str(exported)), [picture.resize((32, 32)) for picture in pictures]
    same(load_model(str(run)), model.encode(TEXTS), model.encode(whole), whole)


def test_a_hub_repository_is_read_from_the_hubs_cache(run, exported, pictures, tmp_path, monkeypatch):
    """open_clip by hf-hub:NAME, and mteb and clip_benchmark by their own loaders where they are installed."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    place = tmp_path / "models--someone--tiny"
    shutil.copytree(exported, place / "snapshots" / ("0" * 40))
    (place / "refs").mkdir()
    (place / "refs" / "main").write_text("0" * 40)
    same(load_model(str(run)), *by_open_clip("hf-hub:someone/tiny", pictures), pictures)
    loaders = pytest.importorskip("mteb.models.model_implementations.openclip_models")
    theirs = loaders.openclip_loader("someone/tiny", revision="main")
    texts = theirs.get_text_embeddings([{"text": TEXTS}], show_progress_bar=False)
    images = theirs.get_image_embeddings([{"image": pictures}], show_progress_bar=False)
    same(load_model(str(run)), unit(texts), unit(images), pictures)


def test_clip_benchmark_loads_the_folder(run, exported, pictures):
    loaders = pytest.importorskip("clip_benchmark.models.open_clip")
    model, preprocess, tokenizer = loaders.load_open_clip(f"local-dir:{exported}", pretrained=None)
    images = torch.stack([preprocess(picture) for picture in pictures])
    same(load_model(str(run)), unit(model.encode_text(tokenizer(TEXTS))), unit(model.encode_image(images)), pictures)


@pytest.fixture(scope="module")
def small(photos, tmp_path_factory):
    """Eight photos of the models' own size, which no library resizes."""
    folder = tmp_path_factory.mktemp("small")
    for path in sorted(photos.glob("*.png"))[:8]:
        Image.open(path).resize((32, 32)).save(folder / path.name)
    return folder


def same_ranking(small, *models):
    first, second = (pcclip.rank(small, "a big dog", "a cat", model=model) for model in models)
    assert list(first.path) == list(second.path)
    assert [f"{score:.4f}" for score in first.score] == [f"{score:.4f}" for score in second.score]


@pytest.mark.parametrize("schema", ["local-dir", "hf"])
def test_rankings_are_the_same_to_the_digits_shown(run, exported, small, schema):
    same_ranking(small, str(run), f"{schema}:{exported}")


@pytest.mark.parametrize("name", ["clip", "siglip"])
def test_a_run_of_a_model_of_transformers(name, photos, small, tmp_path):
    """From the run to transformers: vectors, classes and rankings."""
    from transformers import AutoModel, AutoProcessor

    spec = tiny_hf.write(name, tmp_path / "base")
    values = run_values(photos, spec, tmp_path)
    config = params.check(values | {"finetune": values["finetune"] | {"epochs": 1, "keep_epochs": []}})
    up_to_03(config, load_model(spec))
    publish(str(config.folder), str(tmp_path / "out"))
    model, theirs = load_model(str(config.folder)), AutoModel.from_pretrained(tmp_path / "out").eval()
    processor, pictures = AutoProcessor.from_pretrained(tmp_path / "out"), [Image.open(p) for p in small.glob("*")]
    padding = "max_length" if name == "siglip" else True
    words = processor(text=TEXTS, padding=padding, max_length=40, truncation=True, return_tensors="pt")
    pixels = processor.image_processor(images=pictures, return_tensors="pt")
    same(model, unit(theirs.get_text_features(**words)), unit(theirs.get_image_features(**pixels)), pictures)
    assert np.abs(model.encode_texts(TEXTS) - load_model(spec).encode_texts(TEXTS)).max() > 1e-3
    same_ranking(small, str(config.folder), f"hf:{tmp_path / 'out'}")


def test_alpha_mixes(run, tmp_path, tiny_encoder):
    publish(str(run), str(tmp_path / "half"), ["open_clip"], 0.5)
    half = load_model(f"local-dir:{tmp_path / 'half'}").encode_texts(TEXTS)
    np.testing.assert_allclose(half, load_model(str(run), 0.5).encode_texts(TEXTS), atol=1e-5)
    assert np.abs(half - tiny_encoder.encode_texts(TEXTS)).max() > 1e-4


@pytest.mark.parametrize("name", ["clip", "siglip"])
def test_a_model_of_transformers_goes_back(name, tmp_path, pictures):
    """Its own class; open_clip cannot hold it."""
    model = load_model(tiny_hf.write(name, tmp_path / "base"))
    with torch.no_grad():
        for parameter in model.transformer().parameters():
            parameter.mul_(1.1)
    reasons = export(model, tmp_path / "out")
    assert not reasons["transformers"]
    assert "own classes" in reasons["open_clip"]
    again = load_model(f"hf:{tmp_path / 'out'}")
    same(model, again.encode_texts(TEXTS), again.encode_images(pictures), pictures)
    if library := pytest.importorskip("sentence_transformers"):
        theirs = library.SentenceTransformer(str(tmp_path / "out"))
        same(model, theirs.encode(TEXTS), theirs.encode(pictures), pictures)


def test_a_tower_that_transformers_lacks(tiny_model, tmp_path):
    folder = shutil.copytree(tiny_model.removeprefix("local-dir:"), tmp_path / "average")
    config = json.loads((folder / "open_clip_config.json").read_text())
    config["model_cfg"]["vision_cfg"]["pool_type"] = "avg"
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    model = load_model(f"local-dir:{folder}")
    (tmp_path / "all").mkdir()
    reasons = export(model, tmp_path / "all")
    assert [name for name, reason in reasons.items() if not reason] == ["open_clip"]
    with pytest.raises(PcclipError, match="transformers cannot hold .*plain ViT"):
        export(model, tmp_path / "all", ["transformers"])


def test_the_embedded_models_text_tower(tmp_path, pictures):
    """All that other libraries can hold of it."""
    from transformers import AutoModel, AutoTokenizer

    model = load_model("minilm-efficientnet")
    reasons = export(model, tmp_path)
    assert [name for name, reason in reasons.items() if not reason] == ["sentence-transformers"]
    tower, tokenizer = AutoModel.from_pretrained(tmp_path), AutoTokenizer.from_pretrained(tmp_path)
    words = tokenizer(TEXTS, padding=True, return_tensors="pt")
    mask = words["attention_mask"].unsqueeze(-1)
    mean = (tower(**words).last_hidden_state * mask).sum(dim=1) / mask.sum(dim=1)
    np.testing.assert_allclose(unit(mean), model.encode_texts(TEXTS), atol=1e-5)
    library = pytest.importorskip("sentence_transformers")
    theirs, own = library.SentenceTransformer(str(tmp_path)).encode(TEXTS), model.encode_texts(TEXTS)
    np.testing.assert_allclose(theirs, own, atol=1e-5)
    images = model.encode_images(pictures)  # of which no other library can make vectors
    np.testing.assert_array_equal((images @ theirs.T).argsort(axis=0), (images @ own.T).argsort(axis=0))


# docs/interop.md

SNIPPETS = dict(re.findall(r"```python (\w+)\n(.*?)```", (ROOT / "docs" / "interop.md").read_text(), re.DOTALL))


def test_there_are_six_snippets():
    assert list(SNIPPETS) == ["open_clip", "transformers", "pipeline", "sentence", "rank", "vectors"]


@pytest.mark.parametrize("name", SNIPPETS)
@torch.inference_mode()
def test_a_snippet_runs(name, run, exported, pictures, tmp_path, monkeypatch):
    if name == "sentence":
        pytest.importorskip("sentence_transformers")
    (tmp_path / "Photos").mkdir()
    whole = [picture.resize((32, 32)) for picture in pictures]
    whole[0].save(tmp_path / "Photos" / "a.png")
    whole[1].save(tmp_path / "Photos" / "b.png")
    (tmp_path / "exported").symlink_to(exported)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PCCLIP_ROOT", str(tmp_path))
    names = {"photo": whole[0]}
    exec(SNIPPETS[name], names)
    model, words = load_model(str(run)), ["a large animal", "a small animal"]
    if "texts" in names:
        texts, images = (np.asarray(names[side]) for side in ("texts", "images"))
        np.testing.assert_allclose(texts, model.encode_texts(words), atol=1e-5)
        np.testing.assert_allclose(images, model.encode_images(whole[:1]), atol=1e-5)
    elif name == "pipeline":
        assert {answer["label"] for answer in names["answers"]} == {"large animal", "small animal"}
    else:
        less = {"less": words[1]} if name == "rank" else {}
        expected = pcclip.rank("Photos", words[0], model=str(run), **less)
        assert [f"{score:.4f}" for score in names["table"].score] == [f"{score:.4f}" for score in expected.score]


# the card and the command


def test_the_card_says_where_the_model_comes_from(run, exported, tiny_model):
    card = (exported / "README.md").read_text()
    assert f"`{tiny_model}`; its licence" in card
    assert "Language model**: `none` by template" in card
    assert "objective infonce, tune lora, epochs 2" in card
    assert f"create_model_and_transforms('local-dir:{exported}')" in card
    assert "Not evaluated" in card
    assert card.startswith("---\n")


def test_the_card_shows_results_with_intervals(run, tmp_path):
    from pcclip.runs.stage import Stage
    from pcclip.workbook.model_card import model_card

    copied = shutil.copytree(run, tmp_path / "run")
    header = "task,dataset,protocol,model,metric,value,ci_low,ci_high,n\n"
    rows = [
        f"zero_shot,tiny,,{model},accuracy,{value},0.1,0.9,24\n"
        for model, value in (("base", 0.25), ("finetuned", 0.5))
    ]
    with Stage(copied / "04_evaluate", {"evaluate": {"alpha": 1.0}}).work() as stage:
        (copied / "metrics.csv").write_text(header + "".join(rows))
        stage.finish(["../metrics.csv"], {})
    assert "| 0.250 [0.100, 0.900] | 0.500 [0.100, 0.900] | 24 |" in model_card(copied, 1.0, ["open_clip"], "there")
    assert "(alpha = 0.5) were not evaluated" in model_card(copied, 0.5, [], "there")


def test_the_command(run, tmp_path, capsys):
    arguments = ["export", str(run), "--to", str(tmp_path / "out"), "--format", "open_clip"]
    assert cli.main(arguments) == 0
    assert capsys.readouterr().out == f"{tmp_path / 'out'}: open_clip: written\n"
    assert cli.main(arguments) == 1
    assert "is there already" in capsys.readouterr().err
    assert not list(tmp_path.glob(".export*"))


def test_a_push_needs_a_token(run, monkeypatch):
    monkeypatch.delenv("HF_TOKEN", raising=False)
    with pytest.raises(PcclipError, match=r"\$HF_TOKEN"):
        publish(str(run), "hf-hub:someone/tiny")


def test_a_run_that_has_not_finished(tmp_path):
    with pytest.raises(PcclipError, match="has not finished"):
        publish(str(tmp_path), str(tmp_path / "out"))
