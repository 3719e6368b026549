"""Checking a parameter file: which parts are fine, to be fetched, or missing, and how to mend each."""

import json
import re
import shutil
import socket
from pathlib import Path

import pytest
import torch
import yaml
from helpers import diffusion, tiny_hf
from helpers.llm_server import serving
from helpers.runs import up_to_03
from helpers.tiny_llm import save_llm
from safetensors.torch import load, save

from pcclip import cli, config as params, load_model
from pcclip.errors import PcclipError
from pcclip.workbook import check as checks

V1 = "CompVis/stable-diffusion-v1-4"
TEXTS = dict.fromkeys(["more", "less", "comparison", "comparison_swapped"], "a big shape")


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
    assert "assumed   1,000 training and 50 held-out images with one caption each" in out
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
        ({"rank": {"attribute": "weight"}}, "rank.attribute: folder has no attribute 'weight'; it has: size"),
        (
            {"rank": {"estimator": "two_promt"}},
            "rank.estimator = 'two_promt': Input should be 'one_sided', 'antisymmetric', 'two_prompt' or 'ensemble'",
        ),
        (
            {"tuned": "other", "arithmetic": {"composed": {"cirr": {"path": "x"}}}},
            "arithmetic.composed: 05 is not run with `tuned`, nor in a sweep; leave composed out",
        ),
        (
            {"sweep": {"variants": {"a": {"arithmetic.composed": {"cirr": {"path": "x"}}}}}},
            "arithmetic.composed: 05 is not",
        ),
        ({"evaluate": {"fixed": "weight"}}, "evaluate.fixed: folder has no such attribute; it has: size"),
        ({"evaluate": {"attributes": {"label": TEXTS}}}, "evaluate.attributes.label: folder has no such attribute"),
        ({"evaluate": {"attributes": {"a": {**TEXTS, "column": "path"}}}}, "evaluate.attributes.a: folder has no such"),
        ({"finetune": {"captions": "rewrites"}}, "finetune.captions: rewrites needs generate.rewrites"),
        ({"finetune": {"attribute_weight": 1.0}}, "finetune.attribute_weight needs generate.attributes"),
        (
            {"generate": {"rewrites": "rewrite"}},
            "generate.rewrites: backend template cannot do it; name a language model's",
        ),
        ({"generate": {"attributes": "everyday"}}, "generate.attributes: backend template cannot do it"),
        ({"data": {"limit": 1}}, "a pair needs two different training captions"),
        ({"data": {"held_out_limit": 1}}, "a pair needs two different held-out concepts"),
        ({"arithmetic": {"decoder": "/nowhere/unclip"}}, "arithmetic.decoder = /nowhere/unclip: no such folder"),
        ({"sweep": {"grid": {"seed": list(range(1000)), "finetune.epochs": list(range(1, 901))}}}, "900,000 runs"),
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
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    status, out, _ = checked(model="ViT-B-32:openai", generate={"backend": "transformers", "llm": "some/llama-7b"})
    assert status == 0
    assert "to fetch  weights of ViT-B-32:openai: about 605 MB" in out
    assert "to fetch  language model some/llama-7b: 7 G parameters: about 14 GB" in out


def test_the_hubs_cache(checked, hub):
    status, out, _ = checked(model="hf-hub:tiny/clip")
    assert status == 0
    assert "weights of hf-hub:tiny/clip: in the hub's cache" in out
    (hub / "open_clip_model.safetensors").unlink()
    assert "weights of hf-hub:tiny/clip: not here" in checked(model="hf-hub:tiny/clip")[2]
    status, out, error = checked(model="hf-hub:tiny/other")
    assert "its size is known on the hub alone" in out
    assert "of unknown size" in error


def test_a_tokenizer_that_is_not_clips_own(checked, tmp_path, tiny_model):
    """In the model's own folder, as open_clip looks for it."""
    folder = Path(shutil.copytree(tiny_model.removeprefix("local-dir:"), tmp_path / "siglip"))
    card = folder / "open_clip_config.json"
    settings = json.loads(card.read_text())
    settings["model_cfg"]["text_cfg"]["hf_tokenizer_name"] = "some/tokenizer"
    card.write_text(json.dumps(settings))
    status, _, error = checked(model=f"local-dir:{folder}")
    assert status == 1
    assert "its folder has no tokenizer; put the tokenizer files of some/tokenizer there" in error
    status, _, error = checked(evaluate={"peers": {"theirs": f"local-dir:{folder}"}})
    assert status == 1
    assert "its folder has no tokenizer; put the tokenizer files of some/tokenizer there" in error
    (folder / "tokenizer.json").write_text("{}")
    assert "cannot be loaded" in checked(model=f"local-dir:{folder}")[2]
    tiny_hf.tokenizer().save_pretrained(folder)
    assert checked(model=f"local-dir:{folder}")[0] == 0


def test_weights_of_a_peer_are_looked_for(checked, hub):
    status, _, error = checked(evaluate={"peers": {"theirs": "ViT-B-32:openai"}})
    assert status == 1
    assert "weights of ViT-B-32:openai: not here" in error


def test_a_peer_that_may_have_seen_what_is_held_out(values, tmp_path, capsys, tiny_encoder):
    """A model that was finetuned on the same photos with another seed, and so on another split."""
    values["finetune"] |= {"epochs": 1, "keep_epochs": []}
    peer = up_to_03(params.check({**values, "run": "peer", "seed": 1}), tiny_encoder).config.folder
    for seed, status in ((0, 1), (1, 0)):
        path = tmp_path / "mine.yaml"
        path.write_text(yaml.safe_dump({**values, "seed": seed, "evaluate": {"peers": {"theirs": str(peer)}}}))
        assert cli.main(["run", str(path), "--check"]) == status
        assert ("evaluate.peers.theirs: " in capsys.readouterr().err) == bool(status)


def test_a_server(checked, closed_port, monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    nobody = {"backend": "openai", "llm": "tiny", "base_url": f"http://127.0.0.1:{closed_port}/v1"}
    status, out, error = checked(generate=nobody)
    assert status == 1
    assert f"nothing answers at generate.base_url = {nobody['base_url']}" in error
    hidden = checked(generate=nobody | {"base_url": f"http://me:secret@127.0.0.1:{closed_port}/v1"})
    assert "secret" not in "".join(map(str, hidden))
    assert "? 1 A100" in " ".join(out.split()), "no size, no hours"
    monkeypatch.setenv("OPENAI_API_KEY", "secret")
    with serving(lambda text, n: "ok") as server:
        status, out, error = checked(generate={**nobody, "base_url": server.url})
    assert status == 0
    assert "$OPENAI_API_KEY is set" in out
    assert "secret" not in out
    assert not server.requests


def test_a_folder_of_a_language_model(checked, tmp_path):
    folder = save_llm(tmp_path / "llm", ["a", "b"])
    ask = {"backend": "transformers", "llm": str(folder)}
    assert checked(generate=ask)[0] == 0
    whole = (folder / "model.safetensors").read_bytes()
    for content, message in {
        whole[:-9]: "model.safetensors: cannot be read",
        _POINTER: "model.safetensors is a pointer of Git LFS",
        save({"other": torch.zeros(3)}, {"format": "pt"}): "its files lack 21 tensors of a AutoModelForCausalLM",
    }.items():
        (folder / "model.safetensors").write_bytes(content)
        status, _, error = checked(generate=ask)
        assert status == 1
        assert message in error
    (folder / "model.safetensors").write_bytes(whole)
    (folder / "config.json").unlink()
    assert "llm: cannot be loaded" in checked(generate=ask)[2]


_POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n"
_DAMAGES = {  # what became of a file of weights -> what is said of it
    "pointer": (lambda whole: _POINTER, "is a pointer of Git LFS and not the weights"),
    "page": (lambda whole: b"<!DOCTYPE html>" + b"<p>" * 999, "text such as a web page"),
    "empty": (lambda whole: b"", "is empty"),
    "cut": (lambda whole: whole[: len(whole) // 2], "incomplete metadata"),
    "other": (lambda whole: save({"other": torch.zeros(3)}, {"format": "pt"}), "lack"),
    "narrow": (
        lambda whole: save(
            {n: v[..., :9].contiguous() if v.ndim else v for n, v in load(whole).items()}, {"format": "pt"}
        ),
        "size|width changed",
    ),
}


@pytest.mark.parametrize("kind", ["open_clip", "transformers"])
def test_weights_that_a_run_would_refuse_are_missing(checked, tmp_path, tiny_model, kind):
    folder = tmp_path / "copied"
    if kind == "open_clip":
        shutil.copytree(tiny_model.removeprefix("local-dir:"), folder)
    spec = f"local-dir:{folder}" if kind == "open_clip" else tiny_hf.write("clip", folder)
    (file,) = folder.glob("*.safetensors")
    assert checked(evaluate={"peers": {"theirs": spec}})[0] == 0
    whole = file.read_bytes()
    for damage, (change, message) in _DAMAGES.items():
        file.write_bytes(change(whole))
        status, _, error = checked(evaluate={"peers": {"theirs": spec}})
        (line,) = error.splitlines()[1:]
        assert (status, line.count("copied") > 0) == (1, True), damage
        assert re.search(message, line), damage
        with pytest.raises(PcclipError, match=message):
            load_model(spec)


def test_a_finetuned_peer_is_checked_with_its_base(checked, values, tmp_path, tiny_model, tiny_encoder):
    values["finetune"] |= {"epochs": 1, "keep_epochs": []}
    base = shutil.copytree(tiny_model.removeprefix("local-dir:"), tmp_path / "base")
    config = params.check({**values, "run": "peer", "outputs": str(tmp_path / "peers"), "model": f"local-dir:{base}"})
    peer = up_to_03(config, load_model(config.model)).config.folder
    plain = tmp_path / "plain"
    plain.mkdir()
    for name in ("model.json", "text_tower.safetensors"):
        shutil.copy(peer / "03_finetune" / name, plain)
    for folder, message in ((peer, "changed since 03_finetune wrote it"), (plain, "cannot be read")):
        assert checked(evaluate={"peers": {"theirs": str(folder)}})[0] == 0
        file = next(folder.rglob("text_tower.safetensors"))
        whole = file.read_bytes()
        file.write_bytes(whole[:-1])
        assert message in checked(evaluate={"peers": {"theirs": str(folder)}})[2]
        file.write_bytes(whole)
    (base / "open_clip_model.safetensors").unlink()
    assert f"no weights in {base}" in checked(evaluate={"peers": {"theirs": str(plain)}})[2]


def test_packages(checked, monkeypatch):
    monkeypatch.setattr(checks, "find_spec", lambda name: None)
    status, _, error = checked(finetune={"tune": "lora"}, generate={"backend": "openai", "llm": "x"})
    assert status == 1
    assert "finetune.tune = lora needs peft" in error
    assert "generate.backend = openai needs httpx" in error


def test_an_answer_that_never_comes_is_not_waited_for(closed_port):
    assert not checks.reachable(f"http://127.0.0.1:{closed_port}")
    assert not checks.reachable("https://no.such.host.invalid")
    assert not checks.reachable("http://localhost:port")


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
    assert "03 finetune 4 times at most 40 examples" in swept[3]
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


def test_a_gguf_file_and_the_one_that_judges(checked, tmp_path):
    writes, judges = tmp_path / "writes-1b.gguf", tmp_path / "judges-2b.gguf"
    settings = {"backend": "llama_cpp", "gguf": str(writes), "attributes": "size", "attributes_gguf": str(judges)}
    error = checked(generate=settings)[2]
    assert f"generate.gguf = {writes}: no such file" in error
    assert f"generate.gguf = {judges}: no such file" in error
    writes.write_bytes(b"GGUF")
    judges.write_bytes(_POINTER)
    assert f"{judges}: no GGUF file; fetch it again" in checked(generate=settings)[2]
    judges.write_bytes(b"GGUF")
    status, out, _ = checked(generate=settings)
    assert status == 0
    assert f"{writes}: 1 G parameters" in out
    assert f"{judges}: 2 G parameters" in out


# ---- a diffusion model as a teacher ----------------------------------------------------------------------------------


@pytest.fixture
def taught(checked):
    """Check the tiny run with objective clip and a teacher."""

    def run(**sds):
        return checked(finetune={"objective": "clip", "tune": "layernorm", "sds": sds})

    return run


def test_a_teacher_in_a_folder(taught, tmp_path):
    folder = diffusion.saved(tmp_path / "teacher")
    status, out, _ = taught(teacher=str(folder), precision="bf16")
    assert status == 0
    assert f"teacher {folder}: there" in out
    assert "03 teacher" in out
    weights = next((folder / "unet").glob("*.safetensors"))
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-1])
    assert f"{weights}: cannot be read" in taught(teacher=str(folder))[2]
    weights.write_bytes(whole)
    shutil.rmtree(folder / "text_encoder")
    assert "has no text_encoder/" in taught(teacher=str(folder))[2]


def test_a_teacher_that_is_missing(taught, hub, monkeypatch):
    error = taught(teacher=V1)[2]
    assert f"run `hf download {V1}` where there is a network and give its folder as finetune.sds.teacher" in error
    assert "teacher 'nowhere': no such folder, and not a name on the hub" in taught(teacher="nowhere")[2]
    assert "teacher a/b: not here" in taught(teacher="a/b")[2]
    monkeypatch.setattr(checks, "find_spec", lambda name: None)
    assert f"teacher {V1} needs diffusers: `pip install" in taught(teacher=V1)[2]


def test_a_teacher_in_the_hubs_cache(taught, hub):
    home = hub.parents[2] / "models--tiny--diffusion"
    snapshot = diffusion.saved(home / "snapshots" / "abc")
    (home / "refs").mkdir()
    (home / "refs" / "main").write_text("abc")
    status, out, _ = taught(teacher="tiny/diffusion")
    assert status == 0
    assert "teacher tiny/diffusion: in the hub's cache" in out
    next((snapshot / "unet").glob("*.safetensors")).unlink()
    assert "teacher tiny/diffusion: " in taught(teacher="tiny/diffusion")[2]


def test_toy_models_are_trained_when_they_are_first_used(taught):
    status, out, _ = taught(teacher="shapes-diffusion:3")
    assert status == 0
    assert "weights of shapes-diffusion:3: t" in out


def test_a_tokenizer_of_the_hub_is_there_beside_the_weights_or_missing(checked, hub, tmp_path):
    import json

    import open_clip

    config = json.loads((hub / "open_clip_config.json").read_text())["model_cfg"]
    config["text_cfg"]["hf_tokenizer_name"] = "nobody/words"
    (tmp_path / "tiny-words.json").write_text(json.dumps(config))
    open_clip.add_model_config(tmp_path / "tiny-words.json")
    weights = shutil.copy(hub / "open_clip_model.safetensors", tmp_path)
    _, _, error = checked(model=f"tiny-words:{weights}")
    assert f"tokenizer of tiny-words:{weights}: not here" in error
    tiny_hf.tokenizer().save_pretrained(tmp_path)
    _, out, _ = checked(model=f"tiny-words:{weights}")
    assert f"tokenizer of tiny-words:{weights}: in {tmp_path}" in out
