"""GroupMatch and the agreement of difference vectors are one number."""

import numpy as np
import pandas as pd
import pytest
from torch import nn

from pcclip import config as params
from pcclip.arithmetic import groupmatch
from pcclip.arithmetic.differences import held_out_pairs
from pcclip.arithmetic.texts import TextMemory
from pcclip.comparisons.sentences import from_captions
from pcclip.data.image_set import load_images
from pcclip.embedding.vectors import Vectors
from pcclip.encoders.dual_encoder import Encoder
from pcclip.stats.vectors import unit


class Said(Encoder):
    """A text tower of a table; a text that is not in it has a vector of its own."""

    def __init__(self, table: dict[str, np.ndarray], width: int):
        nn.Module.__init__(self)  # it has no towers
        self.table, self.width = table, width

    def encode_texts(self, texts):
        other = np.eye(self.width, dtype=np.float32)
        return np.stack([self.table.get(text, other[len(text) % self.width]) for text in texts])


@pytest.fixture
def run(values, rng):
    config = params.check({**values, "arithmetic": {"pairs": 25}})
    images = load_images(config)
    table = images.held_out
    matrix = unit(rng.normal(size=(len(images.table), 16))).astype(np.float32)
    names = list(images.table["id"]), list(images.table.path)
    vectors = Vectors(*names, matrix, others={"by chance": Vectors(*names, np.roll(matrix, 5, axis=1))})
    of_image = dict(zip(table.caption, matrix[vectors.rows(table["id"])], strict=True))
    told = {
        from_captions(a, b): unit((u - v)[None])[0] for a, u in of_image.items() for b, v in of_image.items() if a != b
    }
    known = {
        "right": Said({**of_image, **told}, 16),
        "wrong": Said({a: -u for a, u in of_image.items()}, 16),
        "by chance": Said(of_image, 16),
    }
    return held_out_pairs(config, images, vectors), {name: TextMemory(model) for name, model in known.items()}


def test_both_sides_agree_to_rounding_and_say_what_is_right(run):
    found = groupmatch.identity_table(*run).set_index("model")
    assert (found.n == 25).all()
    assert (found.largest_gap < 1e-6).all()
    pd.testing.assert_series_equal(found.group_match, found.difference_vectors, check_names=False)
    assert list(found.group_match[["right", "wrong"]]) == [1.0, 0.0]
    assert 0 < found.group_match["by chance"] < 1
    assert found.f_d["right"] == 1.0


def test_the_gap_is_told(run, monkeypatch):
    """Were one of the scores left out, it would be seen."""
    honest = groupmatch.matching.of_groups
    monkeypatch.setattr(groupmatch.matching, "of_groups", lambda s: honest(s * np.array([[1.0, 1.0], [1.0, 0.0]])))
    assert groupmatch.identity_table(*run).largest_gap.max() > 0.1
