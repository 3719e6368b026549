"""Two boxes of notebook 05: photos found by a typed change, and a map of photos from which some can be selected."""

from collections.abc import Mapping, Sequence
from html import escape
from importlib.util import find_spec

import ipywidgets
import pandas as pd

from pcclip.arithmetic.explain import explain
from pcclip.arithmetic.retrieval import nearest
from pcclip.arithmetic.texts import TextMemory
from pcclip.comparisons.sentences import from_captions, sides
from pcclip.embedding.vectors import Vectors
from pcclip.ranking.widget.thumbnails import gallery

_FOUND, _SELECTED = 8, 24  # photos that are shown
_STARTS = 500  # photos in the list to start from


class ChangeBox(ipywidgets.VBox):
    """A photo, a change in words and a step size; below, the photos nearest to photo + alpha * f(text), by each model.

    The text may be a comparison whose first side is wanted, or the wanted side alone: then the photo's caption becomes
    the second side.

    Args:
        vectors: of the photos, by each model's image tower.
        table: photos that can be found (columns id, path, caption); the first 500 can be started from.
        models: by name.
        start: id of the first photo to start from; otherwise the first of the table.
        wanted: the first text.
    """

    def __init__(
        self,
        vectors: Vectors,
        table: pd.DataFrame,
        models: Mapping[str, TextMemory],
        start: str = "",
        wanted: str = "a bird",
    ):
        self._vectors, self._table, self._models = vectors, table.reset_index(drop=True), models
        starts = self._table.head(_STARTS)
        names = [(f"{row.caption} ({row.id})", row.Index) for row in starts.itertuples()]
        first = next((row.Index for row in starts.itertuples() if row.id == start), 0)
        self.photo = ipywidgets.Dropdown(options=names, value=first, description="photo")
        self.wanted = ipywidgets.Text(wanted, description="wanted", continuous_update=False)
        self.alpha = ipywidgets.FloatSlider(1.0, min=0, max=4, step=0.25, description="alpha", continuous_update=False)
        self.result = ipywidgets.HTML()
        controls = [self.photo, self.wanted, self.alpha]
        super().__init__([ipywidgets.HBox(controls, layout=ipywidgets.Layout(flex_flow="row wrap")), self.result])
        for control in controls:
            control.observe(self._refresh, names="value")
        self._refresh()

    @property
    def text(self) -> str:
        """The comparison whose vector is added to the photo; '' while no text is typed."""
        wanted = " ".join(self.wanted.value.split())
        if not wanted or sides(wanted):
            return wanted
        return from_captions(wanted, self._table.caption[self.photo.value])

    def nearest(self, model: str) -> pd.DataFrame:
        """The photos nearest to photo + alpha * f(text): columns position, id, path, cosine."""
        step = self.alpha.value * self._models[model].encode_texts([self.text])[0]
        return nearest(self._vectors.seen_by(model), self._table, self.photo.value, step, _FOUND)

    def _refresh(self, change: object = None) -> None:
        if not self.text:
            self.result.value = "Type what you want to see instead."
            return
        start = self._table.iloc[self.photo.value]
        caption_of = dict(zip(self._table["id"], self._table.caption, strict=True))
        parts = ["<b>start</b><br>" + gallery([start.path], [start.caption])]
        for model in self._models:
            photos = self.nearest(model)
            captions = [f"{row.position}. {caption_of[row.id]} {row.cosine:+.3f}" for row in photos.itertuples()]
            parts.append(f"<br><b>{escape(model, True)}</b><br>" + gallery(list(photos.path), captions))
        self.result.value = "".join(parts)


class MapBox(ipywidgets.VBox):
    """Photos as dots (jupyter-scatter). Selected photos are shown below; for two of them also what changed.

    Args:
        points: from arithmetic.plane.points_of.
        arrows: from arithmetic.plane.arrows_of; drawn as lines from the second photo of a pair.
        vectors, model, bank: for `explain`, which compares two selected photos.
    """

    def __init__(
        self, points: pd.DataFrame, arrows: pd.DataFrame, vectors: Vectors, model: TextMemory, bank: pd.DataFrame
    ):
        import jscatter

        self._points, self._vectors, self._model, self._bank = points, vectors, model, bank
        labelled = points.assign(label=points.label.fillna("(no label)").astype("category"))
        lines = [
            jscatter.Line(
                [(row.x, row.y), (row.x + row.dx, row.y + row.dy)],
                line_color="#333333" if row.what == "photos" else "#d1495b",
                line_width=2,
            )
            for row in arrows.itertuples()
        ]
        self.scatter = jscatter.Scatter(data=labelled, x="x", y="y", color_by="label", height=420, legend=True)
        self.scatter.annotations(lines)
        self.gallery = ipywidgets.HTML("Hold shift and draw around some photos.")
        super().__init__([self.scatter.show(), self.gallery])
        self.scatter.widget.observe(lambda change: self.select(change["new"]), names="selection")

    def select(self, rows: Sequence[int]) -> None:
        """Show these rows of the points."""
        photos = self._points.iloc[list(rows)]
        explanation = ""
        if len(photos) == 2 and not self._bank.empty:
            first, second = photos["id"]
            sentences = explain(self._model, self._vectors, (first, second), self._bank, 2)
            lines = [f"{row.position}. {escape(row.text, True)} {row.score:+.3f}" for row in sentences.itertuples()]
            explanation = f"<p>{'<br>'.join(lines)}</p>"
        photos = photos.head(_SELECTED)
        self.gallery.value = explanation + gallery(list(photos.path), list(photos.caption))


def live_map(
    points: pd.DataFrame, arrows: pd.DataFrame, vectors: Vectors, model: TextMemory, bank: pd.DataFrame
) -> MapBox | str:
    """The map to select on, or how to install jupyter-scatter for it; arguments as in MapBox."""
    if find_spec("jscatter") is None:
        return "for a map to select on: pip install 'pcclip[pictures]' (jupyter-scatter)"
    return MapBox(points, arrows, vectors, model, bank)
