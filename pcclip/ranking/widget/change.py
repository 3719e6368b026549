"""Two boxes of notebook 05: type a change and see what comes, and a map of the photos with what is selected on it."""

from collections.abc import Mapping
from html import escape
from importlib.util import find_spec

import ipywidgets
import pandas as pd

from pcclip.arithmetic.explain import Bank, explain
from pcclip.arithmetic.retrieval import nearest
from pcclip.arithmetic.texts import Remembered
from pcclip.comparisons.sentences import from_captions, sides
from pcclip.embedding.vectors import Vectors
from pcclip.ranking.widget.gallery import gallery

_SHOWN, _STARTS = 8, 500


class ChangeBox(ipywidgets.VBox):
    """A photo, a change in words, how far to go; below, the photos nearest to photo + alpha * f(text), by each model.

    The text may be a whole comparison, with what is wanted on its first side, or what is wanted alone: then the photo's
    own caption becomes the second side.

    Args:
        vectors: the photos, as embedded by 02 and by the image tower of each model that has one of its own.
        table: those that can be found (id, path, caption), the first 500 of which can be started from.
        models: name -> model with a memory.
        start: id to begin with; the first of the table where it is not in it.
        wanted: text to begin with.
    """

    def __init__(
        self,
        vectors: Vectors,
        table: pd.DataFrame,
        models: Mapping[str, Remembered],
        start: str = "",
        wanted: str = "a bird",
    ):
        self._vectors, self._table, self._models = vectors, table.reset_index(drop=True), models
        names = [
            (f"{caption} ({image})", k)
            for k, (caption, image) in enumerate(
                zip(self._table.caption[:_STARTS], self._table["id"][:_STARTS], strict=True)
            )
        ]
        first = {image: k for k, image in enumerate(self._table["id"][:_STARTS])}.get(start, 0)
        self.photo = ipywidgets.Dropdown(options=names, value=first, description="photo")
        self.wanted = ipywidgets.Text(wanted, description="wanted", continuous_update=False)
        self.alpha = ipywidgets.FloatSlider(1.0, min=0, max=4, step=0.25, description="alpha", continuous_update=False)
        self.result = ipywidgets.HTML()
        controls = ipywidgets.HBox(
            [self.photo, self.wanted, self.alpha], layout=ipywidgets.Layout(flex_flow="row wrap")
        )
        super().__init__([controls, self.result])
        for control in (self.photo, self.wanted, self.alpha):
            control.observe(self._refresh, names="value")
        self._refresh()

    @property
    def text(self) -> str:
        """The comparison that is added to the photo, or '' while nothing is wanted."""
        wanted = " ".join(self.wanted.value.split())
        if not wanted or sides(wanted):
            return wanted
        return from_captions(wanted, self._table.caption[self.photo.value])

    def found(self, model: str) -> pd.DataFrame:
        """The photos nearest to photo + alpha * f(text): position, id, path, cosine."""
        step = self.alpha.value * self._models[model].encode_texts([self.text])[0]
        return nearest(self._vectors.seen_by(model), self._table, self.photo.value, step, _SHOWN)

    def _refresh(self, change=None) -> None:
        start = self._table.iloc[self.photo.value]
        if not self.text:
            self.result.value = "Type what you want to see instead."
            return
        captions = dict(zip(self._table["id"], self._table.caption, strict=True))
        parts = ["<b>start</b><br>" + gallery([start.path], [start.caption])]
        for model in self._models:
            rows = self.found(model)
            parts.append(
                f"<br><b>{escape(model, True)}</b><br>"
                + gallery(
                    rows.path, [f"{row.position}. {captions[row.id]} {row.cosine:+.3f}" for row in rows.itertuples()]
                )
            )
        self.result.value = "".join(parts)


class MapBox(ipywidgets.VBox):
    """The photos as dots; those selected with the lasso come below, and of two what changed from one to the other.

    Made with jupyter-scatter; `available` says whether that is installed.

    Args:
        points: as arithmetic.plane.points_of gives them.
        arrows: as arithmetic.plane.arrows_of; drawn as lines from the second photo of a pair.
        vectors, model, bank: of `explain`, for two selected photos.
    """

    def __init__(self, points: pd.DataFrame, arrows: pd.DataFrame, vectors: Vectors, model: Remembered, bank: Bank):
        import jscatter

        self._points, self._vectors, self._model, self._bank = points, vectors, model, bank
        shown = points.assign(label=points.label.fillna("(no label)").astype("category"))
        lines = [
            jscatter.Line(
                [(row.x, row.y), (row.x + row.dx, row.y + row.dy)],
                line_color="#d1495b" if row.what != "photos" else "#333333",
                line_width=2,
            )
            for row in arrows.itertuples()
        ]
        self.scatter = jscatter.Scatter(data=shown, x="x", y="y", color_by="label", height=420, legend=True)
        self.scatter.annotations(lines)
        self.gallery = ipywidgets.HTML("Hold shift and draw around some photos.")
        super().__init__([self.scatter.show(), self.gallery])
        self.scatter.widget.observe(lambda change: self.select(change["new"]), names="selection")

    @staticmethod
    def available() -> bool:
        return find_spec("jscatter") is not None

    def select(self, rows) -> None:
        """Show these rows of the points."""
        chosen = self._points.iloc[list(rows)]
        told = ""
        if len(chosen) == 2 and self._bank.texts:
            first, second = chosen["id"]
            sentences = explain(self._model, self._vectors, first, second, self._bank, 2)
            told = "<p>" + _lines(sentences) + "</p>"
        self.gallery.value = told + gallery(list(chosen.path[: _SHOWN * 3]), list(chosen.caption[: _SHOWN * 3]))


def _lines(sentences: pd.DataFrame) -> str:
    """Sentences with their scores as HTML lines, escaped."""
    return "<br>".join(f"{row.position}. {escape(row.text, True)} {row.score:+.3f}" for row in sentences.itertuples())


def live_map(
    points: pd.DataFrame, arrows: pd.DataFrame, vectors: Vectors, model: Remembered, bank: Bank
) -> "MapBox | str":
    """The map to select on, or what to install for it; arguments as in MapBox."""
    return (
        MapBox(points, arrows, vectors, model, bank)
        if MapBox.available()
        else ("for a map to select on: pip install 'pcclip[pictures]' (jupyter-scatter)")
    )
