"""Parts of an HTML page: tables, figures as inline SVG, photos as data. What they look like is in report.html.j2."""

import base64
import re
from collections.abc import Sequence
from io import BytesIO, StringIO
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from matplotlib.figure import Figure
from PIL import ImageOps

from pcclip.images import BadImage, open_image

_COLOURS = {"#262626": "currentColor", "#000000": "currentColor", "#cccccc": "var(--grid)", "#ffffff": "var(--back)"}
_SIDE = 160  # pixels of a photo
_RESULT = re.compile(r"(?P<value>[^\[]*?)(?: (?P<interval>\[.*\]))?(?P<star> \*)?")
_NUMBER = re.compile(r"<?[-+−]?[\d,]*\.?\d+(e-?\d+)?")


def render(**values) -> str:
    """The page. Every text is escaped but for figures, which are made here."""
    pages = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        keep_trailing_newline=True,
    )
    return pages.get_template("report.html.j2").render(**values)


def section(key: str, title: str, text: str, parts: list[dict]) -> dict:
    return {"key": key, "title": title, "text": text, "parts": parts}


def heading(text: str, level: int = 1) -> dict:
    return {"kind": "heading" if level == 1 else "subheading", "text": text}


def text(words: str) -> dict:
    return {"kind": "text", "text": words}


def warning(words: str) -> dict:
    return {"kind": "warning", "text": words}


def lines(words: Sequence[str]) -> dict:
    return {"kind": "list", "lines": list(words)}


def folded(words: str, table: dict) -> dict:
    """A table that opens when its line is clicked."""
    return {"kind": "details", "text": words, "table": table}


def tight(table: dict) -> dict:
    """A table with less room between its rows."""
    return {"kind": "tight", "table": table}


def table(head: Sequence[str], rows: Sequence[Sequence], caption: str = "") -> dict:
    """A table of plain cells; a column of numbers is aligned to the right."""
    cells = [[str(cell) for cell in row] for row in rows]
    numeric = [bool(rows) and all(_NUMBER.fullmatch(row[k]) or not row[k] for row in cells) for k in range(len(head))]
    signed = [[minus(cell) if right else cell for cell, right in zip(row, numeric, strict=True)] for row in cells]
    return {"kind": "table", "caption": caption, "head": list(head), "rows": signed, "numeric": numeric}


def results(caption: str, frame: pd.DataFrame) -> dict:
    """A table whose cells are `value [low, high]`, with a star where plots.paper_table has put one."""
    found = [[_RESULT.fullmatch(str(cell)) for cell in row] for row in frame.to_numpy()]
    rows = [
        {
            "name": str(name),
            "cells": [
                {"value": minus(cell["value"]), "interval": minus(cell["interval"] or ""), "sure": bool(cell["star"])}
                for cell in row
            ],
        }
        for name, row in zip(frame.index, found, strict=True)
    ]
    intervals, stars = (
        [any(cell[name] for cell in column) for column in zip(*found, strict=True)] for name in ("interval", "star")
    )
    return {
        "kind": "results",
        "caption": caption,
        "head": list(map(str, frame.columns)),
        "rows": rows,
        "intervals": intervals,
        "stars": stars,
    }


def figure(drawn: Figure, caption: str) -> dict:
    return {"kind": "figure", "svg": svg(drawn), "caption": caption}


def svg(drawn: Figure) -> Markup:
    """The figure as inline SVG that takes font, text colour and background from the page, dark or light.

    matplotlib escapes the texts in it. What is changed here are colours, ids and addresses; no tag comes in.
    """
    buffer = StringIO()
    with plt.rc_context({"svg.hashsalt": "pcclip", "svg.fonttype": "none"}):
        drawn.savefig(buffer, format="svg", transparent=True, bbox_inches="tight", metadata={"Date": None})
    found = buffer.getvalue()
    found = re.sub(r"<metadata>.*?</metadata>|<!--.*?-->", "", found[found.index("<svg") :], flags=re.DOTALL)
    found = re.sub(r' xmlns(:xlink)?="[^"]*"| id="[A-Za-z]\w*?_\d+"', "", found).replace("xlink:href", "href")
    found = re.sub(r"(fill|stroke): (#\w{6})", lambda m: f"{m[1]}: {_COLOURS.get(m[2], m[2])}", found)
    return Markup(re.sub(r"\n\s*\n", "\n", found))


def photo(path: str | None, caption: str, value: str = "") -> dict:
    """A photo, small, with what is below it; one that cannot be read says why."""
    told = {"caption": caption, "value": value, "data": "", "problem": ""}
    if not path:
        return told | {"problem": "this photo has no vector"}
    try:
        small = ImageOps.contain(open_image(path), (_SIDE, _SIDE))
    except BadImage as error:
        return told | {"problem": str(error)}
    buffer = BytesIO()
    small.save(buffer, format="JPEG", quality=80, optimize=True)
    return told | {"data": base64.b64encode(buffer.getvalue()).decode(), "width": small.width, "height": small.height}


def photos(found: list[dict]) -> dict:
    return {"kind": "photos", "photos": found}


def pairs(found: list[dict]) -> dict:
    """Two photos each (first, second), a sentence, and a note below it."""
    return {"kind": "pairs", "pairs": found}


def minus(number: str) -> str:
    """A number with a true minus sign."""
    return re.sub(r"-(?=[\d.])", "−", number)
