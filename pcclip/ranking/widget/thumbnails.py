"""Small JPEGs of photos for notebook outputs, made when they are asked for and kept within a bounded number.

A live box also leaves a picture in the saved notebook, since a box without its kernel cannot be shown.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from html import escape

from pcclip.images import BadImage, data_url, thumbnail

SIDE = 256  # pixels of the longer side
_GALLERY_SIDE = 112
_FIGURE = (
    "<figure style='display:inline-block;width:{side}px;margin:4px;vertical-align:top;text-align:center'>"
    "<img src='{url}' alt='{caption}' style='max-width:100%;border-radius:6px'>"
    "<figcaption style='font-size:11px;line-height:1.25'>{caption}</figcaption></figure>"
)
_STYLE = """<style>
.jp-OutputArea-child:has(.widget-box, .pcclip-ranking) + .jp-OutputArea-child:has(.pcclip-picture),
.jp-OutputArea-child:not(:has(.widget-box, .pcclip-ranking)):has(+ .jp-OutputArea-child .pcclip-picture) { display: none; }
</style>"""  # in JupyterLab either the live box or its picture is shown

cached_thumbnail = lru_cache(maxsize=4096)(thumbnail)  # at about 10 kB each some 40 MB; a BadImage is not kept


class Pictured:
    """A widget whose output in a saved notebook, or in its HTML, is a picture (HTML) of how it began."""

    picture: Callable[[], str]

    def _ipython_display_(self) -> None:
        from IPython.display import HTML, display

        bundle = self._repr_mimebundle_()  # type: ignore[attr-defined]
        display(bundle[0] if isinstance(bundle, tuple) else bundle, raw=True)
        display(HTML(f"{_STYLE}<div class='pcclip-picture'>{self.picture()}</div>"))


def thumbnails(paths: Sequence[str]) -> list[bytes | BadImage]:
    """A JPEG of each photo within SIDE x SIDE pixels, decoded by several threads, or the reason why there is none."""

    def load(path: str) -> bytes | BadImage:
        try:
            return cached_thumbnail(path, SIDE)
        except BadImage as problem:
            return problem

    with ThreadPoolExecutor(4) as threads:
        return list(threads.map(load, paths))


def gallery(paths: Sequence[str], captions: Sequence[str]) -> str:
    """HTML of the photos in this order. Captions are escaped; an unreadable photo leaves its caption."""
    figures = []
    for path, caption in zip(paths, captions, strict=True):
        try:
            url = data_url(cached_thumbnail(path, _GALLERY_SIDE))
        except BadImage:
            url = ""
        figures.append(_FIGURE.format(side=_GALLERY_SIDE, url=url, caption=escape(caption, True)))
    return "".join(figures)
