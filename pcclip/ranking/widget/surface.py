"""The surface of notebook 06: photos that flow into the order of an attribute, and learn from examples and votes.

The page (ranking.js) holds scores and the thumbnails in sight; photos, models and votes stay in the kernel. Everything
travels in custom messages, with pictures and scores as binary buffers, so that nothing of it is saved in the notebook.
"""

import re
from collections.abc import Callable, Mapping
from html import escape
from pathlib import Path
from typing import Any

import anywidget
import numpy as np
from PIL import Image

from pcclip.errors import PcclipError
from pcclip.images import BadImage, thumbnail
from pcclip.ranking import saved
from pcclip.ranking.axes import ESTIMATORS
from pcclip.ranking.rank import ranked_sheet
from pcclip.ranking.widget.export import KINDS, PLACINGS, exported, file_name, place_files
from pcclip.ranking.widget.ranker import Ranker, Standing
from pcclip.ranking.widget.thumbnails import Pictured, gallery, thumbnails
from pcclip.runs.progress import interactive

_HERE = Path(__file__).parent
POLICY = (
    "default-src 'none'; script-src 'nonce-{nonce}'; style-src 'nonce-{nonce}'; img-src blob: data:; "
    "base-uri 'none'; form-action 'none'"
)
_PAGE = """<!doctype html><html lang="en"><head><meta charset="utf-8">{head}<title>pcclip</title>
<meta name="viewport" content="width=device-width"><link rel="icon" href="data:,"><style nonce="{nonce}">{style}</style></head>
<body>{body}<script type="module" nonce="{nonce}">{code}</script></body></html>"""
_ESTIMATORS = dict(zip(ESTIMATORS, ("one text", "text minus twin", "two prompts", "many prompts"), strict=True))
_PAIR_SIDE, _LOOK_SIDE = 640, 1280  # pixels
_PICTURED = 12  # photos of either end in a saved notebook


def surface(ranker: Ranker, top: int) -> "RankingSurface | Image.Image":
    """The live surface where a person looks on; under papermill a contact sheet of the first `top` photos."""
    return RankingSurface(ranker) if interactive() else ranked_sheet(ranker.table().head(top), [ranker.query.more])


def page_code() -> str:
    """ranking.js with the functions of ranking_logic.js in the place of its import: anywidget loads one module."""
    logic = (_HERE / "ranking_logic.js").read_text(encoding="utf8")
    page = (_HERE / "ranking.js").read_text(encoding="utf8")
    imports = re.compile(r"^import .*? from \"\./ranking_logic\.js\";$", re.MULTILINE | re.DOTALL)
    return re.sub(r"^export (?=function|const)", "", logic, flags=re.MULTILINE) + imports.sub("", page)


def page_html(script: str, nonce: str, head: str = "", body: str = "<main></main>") -> str:
    """A page that needs no other file: style, the page's code, and a script that answers it."""
    style = "".join((_HERE / name).read_text(encoding="utf8") for name in ("ranking.css", "app.css"))
    code = page_code().replace("export default", "const page =") + (_HERE / script).read_text(encoding="utf8")
    return _PAGE.format(nonce=nonce, style=style, code=code, head=head, body=body)


class RankingSurface(Pictured, anywidget.AnyWidget):
    """The page in a notebook's output, which a kernel answers."""

    _esm = page_code()
    _css = _HERE / "ranking.css"

    def __init__(self, ranker: Ranker):
        super().__init__()
        self._ranker, conversation = ranker, Conversation(ranker, self.send)
        self.on_msg(lambda _, message, buffers: conversation.receive(message))

    def picture(self) -> str:
        """The photos with the most and the least of the attribute, as HTML."""
        table, words, pictures = self._ranker.table(), self._ranker.query, []
        first = min(_PICTURED, len(table))
        ends = [
            (words.more, table.head(first)),
            (f"least: {words.less or words.more}", table.tail(min(first, len(table) - first))),
        ]
        for title, part in ends:
            names = [f"{row.position}. {row.caption} {row.score:+.3f}" for row in part.itertuples()]
            pictures.append(f"<p>{escape(title, True)}</p>{gallery(list(part.path), names)}")
        return "".join(pictures)


class Conversation:
    """What the page asks and what it gets: a ranking to look at, to search, and to disagree with.

    A message from the page names an action (`do`). An answer names its kind (`is`): ranking, pair, thumbnails, photo,
    found, file, placed, progress, problem.

    Args:
        send: takes an answer, and pictures and scores as binary buffers.
    """

    def __init__(self, ranker: Ranker, send: Callable[..., None]):
        self.ranker, self.send = ranker, send

    def receive(self, message: Mapping[str, Any]) -> None:
        """Do what a message asks for; the page shows a problem in one line."""
        ranker = self.ranker
        changes: dict[str, Callable[..., None]] = {
            "rank": ranker.ask,
            "learn": ranker.set_learning,
            "example": ranker.example,
            "forget": ranker.forget,
            "vote": ranker.vote,
            "save": ranker.save,
            "open": ranker.open,
            "rename": ranker.rename,
            "delete": ranker.delete,
        }
        questions: dict[str, Callable[..., None]] = {
            "hello": self._rank,
            "progress": self._progress,
            "pair": self._pair,
            "undo": self._undo,
            "thumbnails": self._thumbnails,
            "look": self._look,
            "search": self._search,
            "export": self._export,
        }
        arguments = dict(message)
        try:
            action = arguments.pop("do")
            if action in changes:
                changes[action](**arguments)
                self._rank()
                if action == "vote":
                    self._pair()
            else:
                questions[action](**arguments)
        except PcclipError as error:
            self.send({"is": "problem", "text": str(error)})
        except Exception as error:
            self.send({"is": "problem", "text": f"{type(error).__name__}: {error} (details are in the log)"})
            raise

    # ---- the order

    def _progress(self, photos: int) -> None:
        """The ranking where more photos have come since the page had so many, else how many are still to come."""
        if photos != len(self.ranker.photos.captions) or not self.ranker.coming:
            self._rank()
        else:
            self.send({"is": "progress", "coming": self.ranker.coming})

    def _rank(self) -> None:
        """Send the state, and the scores and deviations of each panel."""
        ranker = self.ranker
        standings = [ranker.standing(model) for model in ranker.shown]
        state = {
            "is": "ranking",
            "photos": len(ranker.photos.captions),
            "unreadable": len(ranker.photos.unreadable),
            "coming": ranker.coming,
            "ranking": ranker.name,
            "rankings": saved.names(),
            "more": ranker.query.more,
            "less": ranker.query.less or "",
            "estimator": ranker.estimator,
            "estimators": [*_ESTIMATORS.items()],
            "encoder": Path(ranker.photos.models[ranker.shown[-1]].spec).name,
            "models": ranker.models,
            "show": ranker.show,
            "panels": ranker.shown,
            "examples": list(ranker.examples.items()),
            "votes": len(ranker.ballot.outcomes),
            "elsewhere": ranker.ballot.unknown,
            "preferred": int((ranker.ballot.outcomes != 0.5).sum()),
            "learn": ranker.learn,
            "agree": standings[-1].agree,
            "expected": standings[-1].expected,
            "said": self._spoken_order(standings[-1]),
            "kinds": KINDS,
            "folder": f"~/pcclip/{file_name(ranker)}",
            "doubt": f"{ranker.doubt} {standings[-1].unhelpful}".strip(),
            "problem": "",
        }
        columns = [(standing.scores, standing.deviations, standing.ranks) for standing in standings]
        empty = np.empty(0)
        self.send(
            state,
            [np.asarray(empty if k is None else k, dtype="<f4").tobytes() for column in columns for k in column],
        )

    def _spoken_order(self, standing: Standing) -> str:
        """The order in a sentence, for screen readers."""
        captions, order = self.ranker.photos.captions, standing.order
        first = ", ".join(captions[row] for row in order[:3])
        return f"Ordered by {self.ranker.query.more}. First: {first}. Last: {captions[order[-1]]}."

    # ---- votes

    def _undo(self) -> None:
        if pair := self.ranker.undo():
            self._rank()
        self._offer(pair or self.ranker.pair(), "Taken back. " if pair else "There is no answer to take back. ")

    def _pair(self) -> None:
        try:
            self._offer(self.ranker.pair(), "")
        except PcclipError as error:
            self.send({"is": "pair", "problem": str(error)})

    def _offer(self, rows: tuple[int, int], before: str) -> None:
        (left, left_jpeg), (right, right_jpeg) = (self._picture(row, _PAIR_SIDE) for row in rows)
        spoken = (
            f"{before}{len(self.ranker.ballot.outcomes)} answers. Left: {left['caption']}. Right: {right['caption']}."
        )
        self.send({"is": "pair", "items": [left, right], "said": spoken}, [left_jpeg, right_jpeg])

    # ---- pictures and files

    def _thumbnails(self, rows: list[int]) -> None:
        jpegs = thumbnails([self.ranker.photos.vectors.paths[row] for row in rows])
        items = [
            self._item(row, "" if isinstance(jpeg, bytes) else str(jpeg)) for row, jpeg in zip(rows, jpegs, strict=True)
        ]
        self.send({"is": "thumbnails", "items": items}, [jpeg if isinstance(jpeg, bytes) else b"" for jpeg in jpegs])

    def _look(self, row: int, side: int = _LOOK_SIDE) -> None:
        item, jpeg = self._picture(row, side)
        self.send({"is": "photo", "item": item}, [jpeg])

    def _search(self, text: str) -> None:
        """Send the rows of the photos whose caption or path has the text."""
        names = zip(self.ranker.photos.captions, self.ranker.photos.vectors.paths, strict=True)
        rows = [row for row, name in enumerate(names) if text.casefold() in "\n".join(name).casefold()]
        self.send({"is": "found", "rows": rows})

    def _picture(self, row: int, side: int) -> tuple[dict, bytes]:
        try:
            return self._item(row, ""), thumbnail(self.ranker.photos.vectors.paths[row], side)
        except BadImage as problem:
            return self._item(row, str(problem)), b""

    def _item(self, row: int, problem: str) -> dict:
        photos = self.ranker.photos
        return {"row": row, "caption": photos.captions[row], "path": photos.vectors.paths[row], "problem": problem}

    def _export(self, kind: str, model: str = "", rows: list[int] | None = None, to: str = "") -> None:
        """A file for the browser's downloads, or photos placed in a folder of the kernel's computer."""
        if rows == []:
            raise PcclipError("no photo is shown, so there is none to save; clear the search, or show more")
        model = model or self.ranker.shown[-1]
        if kind in PLACINGS:
            self.send({"is": "placed", "text": place_files(self.ranker, kind, model, rows, to)})
        else:
            name, media, content = exported(self.ranker, kind, model, rows)
            self.send({"is": "file", "name": name, "type": media}, [content])
