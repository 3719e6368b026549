"""Item-by-item agreement with CLIP_benchmark's own scorers on random towers, where that package is installed."""

import numpy as np
import pytest
import torch

from pcclip.benchmarks.compositionality import measures
from pcclip.evaluation.zero_shot import class_texts, classify
from pcclip.stats.vectors import unit

selection = pytest.importorskip("clip_benchmark.metrics.image_caption_selection")
zeroshot = pytest.importorskip("clip_benchmark.metrics.zeroshot_classification")
WIDTH = 16


class RandomTowers:
    """An image is its vector as a picture (1, 1, WIDTH); a text is the number of its row."""

    def __init__(self, texts: np.ndarray):
        self.texts = torch.tensor(texts)

    def encode_image(self, images):
        return images.reshape(len(images), WIDTH)

    def encode_text(self, tokens):
        return self.texts[tokens]


def numbers(texts) -> torch.Tensor:
    return torch.tensor([int(text.strip(" .").split()[-1]) for text in texts])


@pytest.mark.parametrize(("images", "texts"), [(2, 2), (1, 2)])  # Winoground and SugarCrepe
def test_matching_item_by_item(images, texts, rng):
    pictures = rng.normal(size=(60, images, WIDTH)).astype(np.float32)
    captions = rng.normal(size=(60 * texts, WIDTH)).astype(np.float32)
    rows = np.arange(60 * texts).reshape(60, texts)
    items = [
        (torch.tensor(pictures[k]).reshape(1, images, 1, 1, WIDTH), [[f"text {row}" for row in rows[k]]])
        for k in range(60)
    ]
    theirs = [selection.evaluate(RandomTowers(captions), [item], numbers, "cpu", amp=False) for item in items]
    image_rows = np.arange(60 * images).reshape(60, images)
    scores = measures.similarities(unit(pictures.reshape(-1, WIDTH)), image_rows, unit(captions), rows)
    ours = measures.margins("groups" if images == 2 else "choices", scores, np.ones((60, texts), dtype=bool))
    names = {"_text": "text_acc", "_image": "image_acc", "_group": "acc"} if images == 2 else {"": "text_acc"}
    for end, name in names.items():
        right = ours[end] > 0
        # they ask which text each image prefers under the name image_closest_text, and report it as text_acc
        assert right.tolist() == [bool(item[name]) for item in theirs], name
        assert 0 < right.sum() < 60


def test_zero_shot_item_by_item(rng):
    names = [str(k) for k in range(10)]
    templates = ["a photo of {c}.", "a picture of {c}.", "{c}"]
    vectors = rng.normal(size=(10, WIDTH)).astype(np.float32) + 0.2
    model = RandomTowers(vectors)
    classifier = zeroshot.zero_shot_classifier(model, numbers, names, templates, "cpu", amp=False)
    pictures = rng.normal(size=(200, WIDTH)).astype(np.float32)
    theirs = (torch.tensor(unit(pictures)) @ classifier).argmax(dim=1).numpy()

    def encode(texts):
        return unit(vectors[numbers(texts).numpy()])

    prompts = [[template.format(c=name) for template in templates] for name in names]
    labels = rng.integers(0, 10, 200)
    items = classify(unit(pictures), class_texts(encode, prompts), np.arange(200), labels)
    np.testing.assert_array_equal(items.score, theirs)
