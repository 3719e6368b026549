"""The box of 05: what is typed becomes photos."""

import pandas as pd
import pytest
from helpers.planted import Fake, orthogonal
from PIL import Image

from pcclip.arithmetic.texts import TextMemory
from pcclip.embedding.vectors import Vectors
from pcclip.ranking.widget.change import ChangeBox
from pcclip.ranking.widget.thumbnails import gallery
from pcclip.stats.vectors import unit

K = 6
SCRIPT = "<script>alert('$x$')</script>"


@pytest.fixture
def photos(tmp_path, rng):
    """Six photos at right angles; the caption of one is hostile."""
    ids, u = [f"p{k}" for k in range(K)], orthogonal(rng, K, 16)
    for k, name in enumerate(ids):
        Image.new("RGB", (12, 9), (40 * k, 20, 200 - 30 * k)).save(tmp_path / f"{name}.png")
    vectors = Vectors(ids, [str(tmp_path / f"{name}.png") for name in ids], u)
    captions = [f"A thing{k}." for k in range(K - 1)] + [SCRIPT]
    return vectors, pd.DataFrame(
        {"id": ids, "path": vectors.paths, "caption": captions, "label": ["a", "a", "b", "b", None, "$c$"]}
    )


# a photo, a change


@pytest.fixture
def box(photos):
    vectors, table = photos
    u = vectors.matrix
    texts = {
        f"The first image shows {wanted}, while the second image shows {start}.": step
        for wanted, start, step in (
            ("thing3", "a thing0", unit(u[3] - u[0])),
            ("thing2", "a thing0", unit(u[2] - u[0])),
            ("thing3", "a thing1", unit(u[3] - u[1])),
            (SCRIPT, "a thing0", u[5]),
        )
    }
    model = TextMemory(Fake(texts))
    return ChangeBox(vectors, table, {"base": model, "finetuned": model}, "p0", "thing3")


def test_what_is_typed_is_found(box):
    assert box.text == "The first image shows thing3, while the second image shows a thing0."
    assert box.nearest("base")["id"][0] == "p3"
    assert "p0" not in set(box.nearest("base")["id"])
    assert box.result.value.count("data:image/jpeg;base64,/9j/") == 1 + 2 * (K - 1)
    box.wanted.value = "  thing2 "
    assert box.nearest("finetuned")["id"][0] == "p2"
    assert "1. A thing2." in box.result.value


def test_another_photo_and_another_alpha(box):
    box.photo.value = 1
    assert box.text.endswith("shows a thing1.")
    before = box.nearest("base").cosine[0]
    box.alpha.value = 4.0
    assert box.nearest("base")["id"][0] == "p3"
    assert box.nearest("base").cosine[0] != before


def test_a_whole_comparison_is_taken_as_it_is(box):
    text = "The first image shows thing3, while the second image shows a thing1."
    box.wanted.value = text
    assert box.text == text


def test_nothing_typed(box):
    box.wanted.value = "   "
    assert box.result.value == "Type what you want to see instead."


def test_captions_are_text(box):
    assert "<script>" not in box.result.value
    assert "&lt;script&gt;" in box.result.value
    box.wanted.value = SCRIPT
    assert "<script>" not in box.result.value


def test_a_photo_that_is_gone_leaves_its_caption():
    found = gallery(["/nowhere.png"], ["Gone."])
    assert "src=''" in found
    assert "Gone." in found
