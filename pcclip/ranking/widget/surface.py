"""The surface of notebook 06: photos that flow into the order of an attribute, and learn from examples and votes.

The page (ranking.js) has scores and the thumbnails in sight; photos, models and votes stay here. Everything travels
in custom messages, pictures and scores as binary buffers, so that none of it is saved in the notebook's file.
"""

import re
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import anywidget
import numpy as np
from PIL import Image

from pcclip.errors import PcclipError
from pcclip.images import BadImage
from pcclip.ranking.axes import ESTIMATORS
from pcclip.ranking.widget.pictures import Pictures, jpeg
from pcclip.ranking.widget.ranker import Ranker, Standing
from pcclip.runs.progress import interactive

_HERE = Path(__file__).parent
_PAIR_SIDE, _LOOK_SIDE, _SHEET = 640, 1280, 60


def surface(ranker: Ranker, top: int) -> "RankingSurface | Image.Image":
    """The live surface where a person looks on; under papermill a contact sheet of the first `top` photos."""
    return RankingSurface(ranker) if interactive() else ranker.sheet(top)


class RankingSurface(anywidget.AnyWidget):
    """A ranking to look at, to search, and to disagree with.

    Messages from the page say what to `do`: hello, rank, learn, example, forget, pair, vote, undo, thumbnails, look,
    export. Answers say what they are (`is`): ranking, pair, thumbnails, photo, file, problem.
    """

    _esm = _HERE / "ranking.js"
    _css = _HERE / "ranking.css"

    def __init__(self, ranker: Ranker):
        super().__init__()
        self.ranker = ranker
        self.pictures = Pictures(ranker.photos.paths)
        self.on_msg(self._receive)

    def _receive(self, _, content: dict, buffers) -> None:
        """Do what the page asks; what goes wrong is told there in one line."""
        does: dict[str, Callable[..., None]] = {
            "hello": self._rank,
            "rank": self._ask,
            "learn": self._learn,
            "example": self._example,
            "forget": self._forget,
            "pair": self._pair,
            "vote": self._vote,
            "undo": self._undo,
            "thumbnails": self._thumbnails,
            "look": self._look,
            "export": self._export,
        }
        given = dict(content)
        try:
            does[given.pop("do")](**given)
        except PcclipError as error:
            self.send({"is": "problem", "text": str(error)})
        except Exception as error:
            self.send({"is": "problem", "text": f"{type(error).__name__}: {error} (details are in the log)"})
            raise

    # ---- the order

    def _ask(self, more: str, less: str, estimator: str, show: str) -> None:
        self.ranker.ask(more, less, estimator, show)
        self._rank()

    def _learn(self, on: bool) -> None:
        self.ranker.learn = on
        self._rank()

    def _example(self, row: int, likes: int) -> None:
        self.ranker.example(row, likes)
        self._rank()

    def _forget(self) -> None:
        self.ranker.examples.clear()
        self._rank()

    def _rank(self) -> None:
        ranker = self.ranker
        standings = {model: ranker.standing(model) for model in ranker.shown}
        last = standings[ranker.shown[-1]]
        self.send(
            {
                "is": "ranking",
                "photos": len(ranker.photos.ids),
                "unreadable": len(ranker.photos.unreadable),
                "more": ranker.query.more,
                "less": ranker.query.less or "",
                "estimator": ranker.estimator,
                "estimators": [[name, name.replace("_", " ")] for name in ESTIMATORS],
                "models": ranker.models,
                "show": ranker.show,
                "panels": ranker.shown,
                "examples": list(ranker.examples.items()),
                "votes": ranker.counted,
                "preferred": ranker.preferred,
                "learn": ranker.learn,
                "agree": last.agree,
                "expected": last.expected,
                "said": self._said(last),
                "problem": "",
            },
            _numbers(standings.values()),
        )

    def _said(self, standing: Standing) -> str:
        """The order in a sentence, for screen readers."""
        captions, order = self.ranker.photos.captions, standing.order
        first = ", ".join(captions[row] for row in order[:3])
        return f"Ordered by {self.ranker.query.more}. First: {first}. Last: {captions[order[-1]]}."

    # ---- votes

    def _vote(self, first: int, second: int, choice: str) -> None:
        self.ranker.vote(first, second, choice)
        self._rank()
        self._pair()

    def _undo(self) -> None:
        pair = self.ranker.undo()
        if pair:
            self._rank()
        self._offer(pair or self.ranker.pair(), "Taken back. " if pair else "There is no answer to take back. ")

    def _pair(self) -> None:
        try:
            self._offer(self.ranker.pair(), "")
        except PcclipError as error:
            self.send({"is": "pair", "problem": str(error)})

    def _offer(self, rows: tuple[int, int], before: str) -> None:
        items, buffers = zip(*(self._picture(row, _PAIR_SIDE) for row in rows), strict=True)
        said = f"{before}{self.ranker.counted} answers. Left: {items[0]['caption']}. Right: {items[1]['caption']}."
        self.send({"is": "pair", "items": items, "said": said}, list(buffers))

    # ---- pictures and files

    def _thumbnails(self, rows: list[int]) -> None:
        found = self.pictures.get(rows)
        items = [
            self._item(row, one if isinstance(one, BadImage) else None) for row, one in zip(rows, found, strict=True)
        ]
        self.send({"is": "thumbnails", "items": items}, [one if isinstance(one, bytes) else b"" for one in found])

    def _look(self, row: int) -> None:
        item, picture = self._picture(row, _LOOK_SIDE)
        self.send({"is": "photo", "item": item}, [picture])

    def _picture(self, row: int, side: int) -> tuple[dict, bytes]:
        try:
            return self._item(row), jpeg(self.ranker.photos.paths[row], side)
        except BadImage as problem:
            return self._item(row, problem), b""

    def _item(self, row: int, problem: BadImage | None = None) -> dict:
        return {"row": row, "caption": self.ranker.photos.captions[row], "problem": str(problem or "")}

    def _export(self, kind: str) -> None:
        name = re.sub(r"[^\w]+", "_", self.ranker.query.more).strip("_")[:60] or "ranking"
        if kind == "csv":
            content = self.ranker.table().to_csv(index=False).encode()
            self.send({"is": "file", "name": f"{name}.csv", "type": "text/csv"}, [content])
            return
        buffer = BytesIO()
        self.ranker.sheet(_SHEET).save(buffer, "PNG")
        self.send({"is": "file", "name": f"{name}.png", "type": "image/png"}, [buffer.getvalue()])


def _numbers(standings) -> list[bytes]:
    """Scores and deviations of each, float32, none where there are no votes."""
    return [
        b"" if part is None else np.asarray(part, dtype="<f4").tobytes()
        for standing in standings
        for part in (standing.scores, standing.deviations)
    ]
