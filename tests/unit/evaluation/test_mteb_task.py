"""The MTEB task: scores are those of pcclip's own measures, and its runner takes the task.

And the other way: the sets of params/parity_clip.yaml, scored item by item by MTEB's own tasks.
"""

import hashlib

import numpy as np
import pandas as pd
import pytest
from helpers import compositional_sets, tiny_hf
from helpers.public_sets import PublicSets
from PIL import Image

from pcclip import load_model
from pcclip.benchmarks.compositionality import measures
from pcclip.embedding.vectors import Vectors
from pcclip.encoders.export import export
from pcclip.errors import PcclipError
from pcclip.evaluation.compositional import match_items
from pcclip.evaluation.mteb_task import attribute_ranking, scores
from pcclip.evaluation.zero_shot import classify
from pcclip.images import open_image
from pcclip.stats.vectors import unit
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


# ---- params/parity_clip.yaml ----------------------------------------------------------------------------------------

TASKS = {
    "winoground": "Winoground",
    "vg_relation": "AROVisualRelation",
    "vg_attribution": "AROVisualAttribution",
    "coco_order": "AROCocoOrder",
    "sugarcrepe": "SugarCrepe",
}
WHERE = {"hf_split": "test", "hf_subset": "default"}


class RandomTower:
    """Gives each text and each image a random vector, drawn by its content. `encode` is what MTEB calls."""

    def vectors(self, items):
        contents = [item.encode() if isinstance(item, str) else item.convert("RGB").tobytes() for item in items]
        seeds = [int.from_bytes(hashlib.sha256(content).digest()[:8], "big") for content in contents]
        return unit(np.stack([np.random.default_rng(seed).normal(size=16) for seed in seeds]).astype(np.float32))

    def encode(self, inputs, **options):
        return self.vectors([item for batch in inputs for item in batch.get("text", batch.get("image"))])


def noise(rng):
    return Image.fromarray(rng.integers(0, 256, (40, 40, 3), dtype=np.uint8))


@pytest.fixture
def mteb():
    declare_missing()
    return pytest.importorskip("mteb")


@pytest.mark.parametrize("name", TASKS)
def test_compositional_sets_item_by_item(mteb, name, tmp_path, rng):
    from datasets import Dataset
    from mteb._evaluators import ImageTextPairClassificationEvaluator
    from mteb.timing import TimingStack

    compositional_sets.write(name, tmp_path, 21)
    for path in [*tmp_path.rglob("*.png"), *tmp_path.rglob("*.jpg")]:
        noise(rng).save(path)
    benchmark, tower = PublicSets("compositionality").read(name, tmp_path), RandomTower()
    pictures = dict(zip(benchmark.images["id"], map(open_image, benchmark.pictures), strict=True))
    items = match_items(benchmark, Vectors([*pictures], [*pictures], tower.vectors(pictures.values())))

    task = mteb.get_task(TASKS[name])
    columns = [*benchmark.columns("image_"), *benchmark.columns("text_")]
    names = [*task.images_column_names, *task.texts_column_names]
    rows = [
        dict(zip(names, [pictures.get(value, value) for value in row], strict=True))
        for row in items.benchmark.items[columns].itertuples(index=False)
    ]
    sizes = {
        "num_images_per_sample": len(task.images_column_names),
        "num_texts_per_sample": len(task.texts_column_names),
    }
    evaluator = ImageTextPairClassificationEvaluator(
        Dataset.from_list(rows),
        images_column_names=task.images_column_names,
        texts_column_names=task.texts_column_names,
        task_metadata=task.metadata,
        timer=TimingStack(),
        **sizes,
        **WHERE,
    )
    theirs = [task._compute_metrics([scores], *sizes.values()) for scores in evaluator(tower, encode_kwargs={})]

    matrix = tower.vectors(pictures.values())
    similarities = measures.similarities(matrix, items.image_rows, tower.vectors(items.texts), items.text_rows)
    ours = measures.margins(benchmark.form, similarities, items.present)
    ends = {"_text": "text_acc", "_image": "image_acc", "_group": "accuracy"}
    for end, metric in (ends if benchmark.form == "groups" else {"": "text_acc"}).items():
        right = (ours[end] > 0).tolist()
        assert right == [bool(item[metric]) for item in theirs], metric
        assert 0 < sum(right) < len(right)


def test_zero_shot_item_by_item(mteb, rng):
    from datasets import Dataset
    from mteb._evaluators import ZeroShotClassificationEvaluator
    from mteb.timing import TimingStack

    task, tower, pictures = mteb.get_task("EuroSATZeroShot"), RandomTower(), [noise(rng) for _ in range(40)]
    texts, labels = task.get_candidate_labels(), rng.integers(0, 10, 40)
    evaluator = ZeroShotClassificationEvaluator(
        Dataset.from_dict({"image": pictures}),
        "image",
        texts,
        task_metadata=task.metadata,
        timer=TimingStack(),
        **WHERE,
    )
    theirs = np.asarray(evaluator(tower, encode_kwargs={})).argmax(axis=1)
    items = classify(tower.vectors(pictures), tower.vectors(texts), np.arange(40), labels)
    assert items.score.tolist() == theirs.tolist()
    assert items.correct.tolist() == (theirs == labels).tolist()
