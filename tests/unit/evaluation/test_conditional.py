"""A multimodal language model as a peer: one row more, whose photos are read after the attribute's words."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from helpers import tiny_hf

from pcclip import load_model
from pcclip.config import Attribute
from pcclip.embedding.vectors import Vectors
from pcclip.evaluation import own_images
from pcclip.evaluation.predictions import Predictions

SIZE = Attribute(
    more="a large square",
    less="a small disc",
    comparison="the first image shows a large square while the second image shows a small disc",
    comparison_swapped="the first image shows a small disc while the second image shows a large square",
)


@pytest.fixture
def held_out(photos):
    """What the rankings read of a HeldOut: six photos, of which the first has no value."""
    paths = [str(path) for path in sorted(photos.glob("*.png"))[:6]]
    table = pd.DataFrame({"id": [*"abcdef"], "path": paths, "size": [np.nan, 1.0, 2.0, 3.0, 4.0, 5.0]})
    return SimpleNamespace(
        images=SimpleNamespace(name="set"),
        vectors=Vectors([*"abcdef"], paths, np.eye(6, 32, dtype=np.float32)),
        units=[*"abcdef"],
        rankings=[("size", SIZE, "size", table[1:])],
    )


@pytest.mark.parametrize("kind", ["mllm", "clip"])
def test_photos_are_ranked_by_conditional_vectors(held_out, tmp_path, monkeypatch, kind):
    if kind == "mllm":
        pytest.importorskip("sentence_transformers")
    model = load_model(tiny_hf.write_mllm(tmp_path) if kind == "mllm" else tiny_hf.write(kind, tmp_path))
    for task in ("_differences", "_structures", "_zero_shot", "_retrieval", "_verdicts", "_supervised_rankings"):
        monkeypatch.setattr(own_images, task, lambda *_: ())
    predictions = Predictions()
    own_images.score(held_out, {"peer": model}, predictions)
    table = predictions.table()
    assert set(table.model) == ({"peer", "peer conditional"} if kind == "mllm" else {"peer"})
    if kind == "mllm":
        own = table[(table.model == "peer conditional") & (table.dataset == "set/size/two_prompt")]
        conditioned = model.conditioned("Tell a large square from a small disc.")
        more, less = conditioned.encode_texts([SIZE.more, SIZE.less])
        axis = (more - less) / np.linalg.norm(more - less)
        expected = conditioned.encode_images(held_out.vectors.paths[1:]) @ axis
        np.testing.assert_allclose(own.score.astype(float), expected, atol=1e-5)
        assert list(own["first"]) == [*"bcdef"]
        assert list(own.reference) == [1.0, 2.0, 3.0, 4.0, 5.0]
