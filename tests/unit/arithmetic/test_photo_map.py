"""The map's plane and arrows, and the two boxes: what is typed and what is selected becomes photos."""

import sys
from types import SimpleNamespace

import ipywidgets
import numpy as np
import pandas as pd
import pytest
import traitlets
from helpers.planted import Fake, differences, orthogonal
from PIL import Image

from pcclip.arithmetic import figures
from pcclip.arithmetic.plane import arrows_of, plane_of, points_of, share_of
from pcclip.arithmetic.texts import TextMemory
from pcclip.embedding.vectors import Vectors
from pcclip.ranking.widget.change import ChangeBox, MapBox, live_map
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


def test_the_plane_of_a_cloud_that_lies_in_one(rng):
    axes = orthogonal(rng, 2, 9)
    places = rng.normal(size=(50, 2)) * [3, 1]
    cloud = places @ axes + 7
    plane = plane_of(cloud)
    assert share_of(plane) == pytest.approx(1)
    np.testing.assert_allclose(plane.components_ @ plane.components_.T, np.eye(2), atol=1e-9)
    found = plane.transform(cloud)
    np.testing.assert_allclose(np.linalg.norm(found[0] - found[1]), np.linalg.norm(places[0] - places[1]))
    assert found[:, 0].std() > found[:, 1].std()
    assert (plane.components_.max(axis=1) == np.abs(plane.components_).max(axis=1)).all(), (
        "the largest loading is positive"
    )


def test_arrows_of_photos_end_where_the_first_photo_is(photos):
    vectors, table = photos
    plane = plane_of(vectors.matrix)
    at = points_of(vectors, table, plane)
    pairs = pd.DataFrame({"first": ["p0", "p3"], "second": ["p1", "p2"], "difference": ["0 not 1", "3 not 2"]})
    found = arrows_of(vectors, pairs, {"finetuned": TextMemory(Fake(differences(vectors.matrix)))}, plane, 2.0)
    assert set(found.what) == {"photos", "finetuned"}
    own = found[found.what == "photos"]
    np.testing.assert_allclose(own.x + own.dx, at.x[[0, 3]], atol=1e-6)
    np.testing.assert_allclose(own.y + own.dy, at.y[[0, 3]], atol=1e-6)
    text = found[found.what == "finetuned"]
    np.testing.assert_allclose(text.dx, 2 / np.sqrt(2) * own.dx.to_numpy(), atol=1e-5), "f(d) is unit(u1 - u2)"
    fig = figures.photo_map(at, found, share_of(plane))
    assert f"{share_of(plane):.0%}" in fig.axes[0].get_title(loc="left")


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


# a map to select on


def test_without_jupyter_scatter_it_says_what_to_install(photos, monkeypatch):
    monkeypatch.setattr("pcclip.ranking.widget.change.find_spec", lambda name: None)
    vectors, table = photos
    model = TextMemory(Fake(differences(vectors.matrix)))
    assert "pip install 'pcclip[pictures]'" in live_map(table, table, vectors, model, table)


class Scatter:
    """As much of jupyter-scatter as the map calls."""

    def __init__(self, data, x, y, **options):
        assert {x, y, options["color_by"]} <= set(data)
        self.widget, self.lines = ipywidgets.HTML(), []
        self.widget.add_traits(selection=traitlets.Any())

    def annotations(self, lines):
        self.lines = lines

    def show(self):
        return self.widget


def test_what_is_selected_is_shown_and_two_photos_are_explained(photos, monkeypatch):
    vectors, table = photos
    monkeypatch.setitem(sys.modules, "jscatter", SimpleNamespace(Scatter=Scatter, Line=lambda ends, **how: ends))
    plane, model = plane_of(vectors.matrix), TextMemory(Fake(differences(vectors.matrix)))
    pairs = pd.DataFrame({"first": ["p0"], "second": ["p1"], "difference": ["0 not 1"]})
    bank = pd.DataFrame({"text": ["0 not 1", "3 not 2"], "twin": ["1 not 0", "2 not 3"], "source": ""})
    drawn = arrows_of(vectors, pairs, {"base": model}, plane, 1.0)
    found = MapBox(points_of(vectors, table, plane), drawn, vectors, model, bank)
    assert len(found.scatter.lines) == 2
    found.scatter.widget.selection = [0, 1, 5]
    assert found.gallery.value.count("<figure") == 3
    assert "&lt;script&gt;" in found.gallery.value
    assert "<script>" not in found.gallery.value
    found.scatter.widget.selection = [0, 1]
    assert "1. 0 not 1 +1.000" in found.gallery.value
    found.scatter.widget.selection = []
    assert "<figure" not in found.gallery.value
