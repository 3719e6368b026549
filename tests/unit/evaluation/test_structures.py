"""Stage 04 by sentence structure: a model that reads order of mention alone is right in one half and wrong in the other."""

import numpy as np
import pandas as pd
import pytest
from helpers.knowing import predicted, prepared
from torch import nn

from pcclip.comparisons.sentences import inside, sides
from pcclip.comparisons.structures import STRUCTURES
from pcclip.encoders.dual_encoder import Encoder
from pcclip.stats.vectors import unit


class Reader(Encoder):
    """f(text) = u(A) - u(B), where A is the caption that the text mentions first, or that it says of the first image."""

    def __init__(self, given, reads: str):
        nn.Module.__init__(self)  # it has no towers
        table = given.vectors.of(given.images.held_out)
        self.u = dict(
            zip(table.caption.map(inside), given.vectors.matrix[given.vectors.rows(table["id"])], strict=True)
        )
        self.reads = reads

    def encode_texts(self, texts):
        return np.stack([self._vector(text) for text in texts]).astype(np.float32)

    def _vector(self, text):
        lower = text.lower()
        mentioned = sorted((lower.find(caption.lower()), caption) for caption in self.u if caption.lower() in lower)
        longest = [c for _, c in mentioned if not any(c != other and c in other for _, other in mentioned)]
        if len(longest) < 2:
            return self.u[longest[0]] if longest else np.zeros(len(next(iter(self.u.values()))))
        first, second = longest[:2]
        if self.reads == "meaning" and sides(text) and first.lower() not in sides(text)[0].lower():
            first, second = second, first
        return unit((self.u[first] - self.u[second])[None])[0]


@pytest.fixture
def given(values, tiny_encoder, tmp_path):
    return prepared(values, tiny_encoder, tmp_path, structures=12)


def accuracies(given, model) -> pd.Series:
    """Mean of `correct` by the data set's name after 'folder/structures/', for difference_classification."""
    table = predicted(given.config, given.images, given.vectors, given.comparisons, {"base": model})
    table = table[(table.task == "difference_classification") & table.dataset.str.startswith("folder/structures/")]
    return table.assign(name=table.dataset.str.split("/").str[-1]).groupby("name").correct.mean()


@pytest.mark.parametrize(("reads", "of_reversed"), [("order of mention", 0.0), ("meaning", 1.0)])
def test_only_a_model_that_reads_meaning_is_right_in_reversed_structures(given, reads, of_reversed):
    accuracy = accuracies(given, Reader(given, reads))
    assert set(accuracy.index) == {s.name for s in STRUCTURES} | {"images shuffled", "captions subtracted"}
    assert accuracy["forward"] == accuracy["number_words"] == accuracy["captions subtracted"] == 1
    assert accuracy["reversed"] == accuracy["depicts_reversed"] == accuracy["marker_after_reversed"] == of_reversed
    assert accuracy["images shuffled"] < 1


def test_structures_are_scored_where_they_are_asked_for(values, tiny_encoder, tmp_path):
    given = prepared(values, tiny_encoder, tmp_path)
    assert accuracies(given, tiny_encoder).empty
