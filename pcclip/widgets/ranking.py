"""A box that ranks a run's photos live: type an attribute, choose a model, see the photos in order."""

import base64
from html import escape
from io import BytesIO

import ipywidgets
from PIL import ImageOps

from pcclip.embed import Vectors
from pcclip.images import BadImage, open_image
from pcclip.models.encoder import DualEncoder
from pcclip.ranking import axis, order

_SHOWN, _SIDE = 24, 112
_CELL = ("<figure style='display:inline-block;width:{side}px;margin:4px;vertical-align:top;text-align:center'>"
         "<img src='data:image/jpeg;base64,{jpeg}' alt='{caption}' style='max-width:100%;border-radius:6px'>"
         "<figcaption style='font-size:11px;line-height:1.25'>{position}. {caption}<br>{score:+.3f}</figcaption>"
         "</figure>")


class RankingBox(ipywidgets.VBox):
    """Text boxes for more and less of an attribute, a model, a direction; the first photos of the order below.

    Args:
        vectors: the photos, as embedded by 02 (one image tower serves every model here).
        captions: id -> caption, shown escaped.
        models: name -> model, e.g. {'base': ..., 'finetuned': ...}.
    """

    def __init__(self, vectors: Vectors, captions: dict[str, str], models: dict[str, DualEncoder],
                 more: str = "a large animal", less: str = "a small animal"):
        self._vectors, self._captions, self._models = vectors, captions, models
        self._caption_of = dict(zip(vectors.paths, (captions.get(i, i) for i in vectors.ids), strict=True))
        self._thumbnails: dict[str, str] = {}
        self.more = ipywidgets.Text(more, description="more", continuous_update=False)
        self.less = ipywidgets.Text(less, description="less", continuous_update=False)
        self.model = ipywidgets.Dropdown(options=list(models), value=list(models)[-1], description="model")
        self.direction = ipywidgets.ToggleButtons(options=["most first", "least first"])
        self.gallery, self.problem = ipywidgets.HTML(), ipywidgets.HTML()
        controls = ipywidgets.HBox([self.more, self.less, self.model, self.direction],
                                   layout=ipywidgets.Layout(flex_flow="row wrap"))
        super().__init__([controls, self.problem, self.gallery])
        for control in (self.more, self.less, self.model, self.direction):
            control.observe(self._refresh, names="value")
        self._refresh()

    def _refresh(self, change=None) -> None:
        if not self.more.value.strip():
            self.problem.value = "Type what the top of the ranking looks like."
            return
        direction = axis(self._models[self.model.value], self.more.value, self.less.value.strip() or None)
        table = order(self._vectors, direction)
        if self.direction.value == "least first":
            table = table.iloc[::-1]
        self.problem.value = ""
        self.gallery.value = "".join(
            _CELL.format(side=_SIDE, jpeg=self._thumbnail(row.path), caption=escape(self._caption_of[row.path], True),
                         position=k, score=row.score)
            for k, row in enumerate(table.head(_SHOWN).itertuples(), start=1))

    def _thumbnail(self, path: str) -> str:
        if path not in self._thumbnails:
            self._thumbnails[path] = _jpeg(path)
        return self._thumbnails[path]


def _jpeg(path: str) -> str:
    buffer = BytesIO()
    try:
        ImageOps.contain(open_image(path), (_SIDE, _SIDE)).save(buffer, "JPEG", quality=80)
    except BadImage:
        return ""
    return base64.b64encode(buffer.getvalue()).decode()
