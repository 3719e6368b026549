"""The box of notebook 05: photos found by a typed change."""

from collections.abc import Mapping
from html import escape

import ipywidgets
import pandas as pd

from pcclip.arithmetic.retrieval import nearest
from pcclip.arithmetic.texts import TextMemory
from pcclip.comparisons.sentences import from_captions, sides
from pcclip.embedding.vectors import Vectors
from pcclip.ranking.widget.thumbnails import Pictured, gallery

_FOUND = 8  # photos that are shown
_STARTS = 500  # photos in the list to start from


class ChangeBox(Pictured, ipywidgets.VBox):
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
        is_whole = not wanted or sides(wanted)
        return wanted if is_whole else from_captions(wanted, self._table.caption[self.photo.value])

    def nearest(self, model: str) -> pd.DataFrame:
        """The photos nearest to photo + alpha * f(text): columns position, id, path, cosine."""
        step = self.alpha.value * self._models[model].encode_texts([self.text])[0]
        return nearest(self._vectors.seen_by(model), self._table, self.photo.value, step, _FOUND)

    def picture(self) -> str:
        """The photos that were nearest at first, as HTML."""
        return f"<p>{escape(self.text, True)} (alpha {self.alpha.value:g})</p>{self.result.value}"

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
