"""Photos in a cell's output: small JPEGs inside the HTML, captions escaped."""

import base64
from collections.abc import Sequence
from functools import lru_cache
from html import escape

from pcclip.images import BadImage
from pcclip.ranking.widget.pictures import jpeg

SIDE = 112
_CELL = (
    "<figure style='display:inline-block;width:{side}px;margin:4px;vertical-align:top;text-align:center'>"
    "<img src='data:image/jpeg;base64,{jpeg}' alt='{caption}' style='max-width:100%;border-radius:6px'>"
    "<figcaption style='font-size:11px;line-height:1.25'>{caption}</figcaption></figure>"
)


def gallery(paths: Sequence[str], captions: Sequence[str]) -> str:
    """HTML of the photos in the given order; captions are shown as they are, whatever characters they hold."""
    return "".join(
        _CELL.format(side=SIDE, jpeg=_jpeg(path), caption=escape(caption, True))
        for path, caption in zip(paths, captions, strict=True)
    )


@lru_cache(maxsize=2048)
def _jpeg(path: str) -> str:
    """'' for a photo that cannot be read."""
    try:
        return base64.b64encode(jpeg(path, SIDE)).decode()
    except BadImage:
        return ""
