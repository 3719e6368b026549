"""The recipes of CONTRIBUTING.md: their code runs, and what it makes does what the recipe says."""

import json
import re

import numpy as np
import pytest
import torch
from helpers.runs import ROOT
from PIL import Image
from torch.nn.functional import normalize

from pcclip import config as parameters
from pcclip.comparisons.llm import Question
from pcclip.data import image_set
from pcclip.finetuning import losses

RECIPES = dict(re.findall(r"```python (\w+)\n(.*?)```", (ROOT / "CONTRIBUTING.md").read_text(), flags=re.DOTALL))


def run_recipe(name: str) -> dict:
    assert len(RECIPES[name].splitlines()) < 30
    names: dict = {"__name__": f"recipe_{name}"}
    exec(compile(RECIPES[name], f"CONTRIBUTING.md: {name}", "exec"), names)
    return names


@pytest.fixture
def photos(tmp_path):
    """Four photos of 6 x 6 pixels, three of them with a caption beside them."""
    for name in "abcd":
        Image.new("RGB", (6, 6), (10 * ord(name) % 255, 0, 0)).save(tmp_path / f"{name}.jpg")
    for name, caption in {"a": "A cat.", "b": "A dog.", "c": "A horse."}.items():
        (tmp_path / f"{name}.txt").write_text(caption)
    return tmp_path


def test_source(photos, values, monkeypatch):
    names = run_recipe("source")
    monkeypatch.setitem(
        image_set.SOURCES, "folder", type("sidecar", (), {k: staticmethod(names[k]) for k in ("missing", "read")})
    )
    values["data"] = {"source": "folder", "path": str(photos), "held_out": 0.4, "max_bad": 0.5}
    images = image_set.load_images(parameters.check(values))
    assert list(images.table.caption) == ["A cat.", "A dog.", "A horse."]
    assert list(images.left_out.reason) == ["no caption"]
    values["data"]["path"] = str(photos / "absent")
    with pytest.raises(parameters.PcclipError, match="no such folder"):
        image_set.load_images(parameters.check(values))


def test_benchmark(tmp_path):
    reader = run_recipe("benchmark")["PAIRS"]
    assert "download https://example.org/pairs.zip" in reader.missing(tmp_path)[0]
    (tmp_path / "images").mkdir()
    Image.new("RGB", (6, 6)).save(tmp_path / "images" / "a.jpg")
    rows = [
        {"image": "a.jpg", "caption": "A cat on a dog.", "wrong": "A dog on a cat."},
        {"image": "b.jpg", "caption": "x", "wrong": "y"},
    ]
    (tmp_path / "pairs.json").write_text(json.dumps(rows))
    benchmark = reader.read(tmp_path)
    assert list(benchmark.items.text_1) == ["A dog on a cat."]
    assert list(benchmark.left_out.reason) == ["missing file"]


def test_backend():
    question = Question("k", "A cat.", "A dog.")
    [(answered, reply)] = run_recipe("backend")["Terse"]().answers([question])
    assert answered is question
    assert reply.text == "The first image shows A cat, while the second image shows A dog."


def test_objective(monkeypatch):
    monkeypatch.setattr(losses, "OBJECTIVES", dict(losses.OBJECTIVES))
    run_recipe("objective")
    target = torch.eye(4, 6)
    w = normalize(target + 0.1, dim=1).requires_grad_()
    loss, nearest = losses.OBJECTIVES["cosine"](w, target)
    loss.backward()
    assert nearest == 1
    assert 0 < loss < 0.1
    assert w.grad.abs().sum() > 0


def test_encoder(photos):
    model = run_recipe("encoder")["Colours"]()
    images, texts = (
        model.encode_images([photos / "a.jpg", photos / "b.jpg"]),
        model.encode_texts(["red", "a longer text"]),
    )
    assert images.shape == texts.shape == (2, 3)
    np.testing.assert_allclose(np.linalg.norm(np.vstack([images, texts]), axis=1), 1, rtol=1e-6)
