"""The MTEB task: scores are those of pcclip's own measures, and its runner takes the task."""

import numpy as np
import pandas as pd
import pytest
from helpers import tiny_hf
from PIL import Image

from pcclip import load_model
from pcclip.encoders.export import export
from pcclip.errors import PcclipError
from pcclip.evaluation.mteb_task import attribute_ranking, scores
from pcclip.torchvision_shim import declare_missing

MORE, LESS = "a large square", "a small disc"


def test_scores_have_intervals():
    values = scores(pd.DataFrame({"score": np.arange(30.0), "reference": np.arange(30.0) ** 2}))
    assert values == pytest.approx(dict.fromkeys(values, 1.0))
    noise = scores(pd.DataFrame({"score": np.arange(30.0) % 7, "reference": np.arange(30.0)}))
    assert noise["spearman_low"] < noise["spearman"] < noise["spearman_high"]


def test_without_mteb(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "mteb.abstasks", None)
    with pytest.raises(PcclipError, match="pip install mteb"):
        attribute_ranking("Size", pd.DataFrame(), MORE, LESS)


def test_its_runner_gives_the_same_as_pcclip(photos, tmp_path):
    declare_missing()
    mteb = pytest.importorskip("mteb")
    from mteb.models import SentenceTransformerEncoderWrapper
    from sentence_transformers import SentenceTransformer

    model = load_model(tiny_hf.write("clip", tmp_path / "base"))
    (tmp_path / "out").mkdir()
    export(model, tmp_path / "out", ["sentence-transformers"])
    paths = [tmp_path / path.name for path in sorted(photos.glob("*.png"))]
    for path in paths:
        Image.open(photos / path.name).resize((32, 32)).save(path)
    table = pd.DataFrame({"path": paths, "value": np.random.default_rng(0).random(len(paths))})
    task = attribute_ranking("Size", table, MORE, LESS)
    encoder = SentenceTransformerEncoderWrapper(SentenceTransformer(str(tmp_path / "out")))
    encoder.mteb_model_meta.modalities = ["text", "image"]  # of a folder without a name it assumes texts alone
    results = mteb.evaluate(encoder, [task], cache=None)
    (found,) = results.task_results[0].scores["test"]
    images = model.encode_images(paths)
    up, down = model.encode_texts([MORE, LESS])
    expected = scores(pd.DataFrame({"score": images @ up - images @ down, "reference": table.value}))
    assert {name: found[name] for name in expected} == pytest.approx(expected, abs=1e-6)
    assert found["main_score"] == found["spearman"]
