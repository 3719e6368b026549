"""What a person has said about an attribute, in words, examples and votes, and the order that follows."""

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import pandas as pd
from jaxtyping import Float, Int
from PIL import Image

from pcclip.config import Rank
from pcclip.images import contact_sheet
from pcclip.ranking.axes import Query, query_axis
from pcclip.ranking.examples import example_differences
from pcclip.ranking.posterior import Axis, Ballot, ballot, learnt_axis, next_pair
from pcclip.ranking.votes import Vote, VoteFile
from pcclip.ranking.widget.photos import Photos
from pcclip.stats.random_streams import stream

BOTH = "side by side"
_FUTURE_PAIRS = 2000  # drawn at random, to estimate agreement with further votes
_KEPT_DIRECTIONS = 200  # of typed words


@dataclass(frozen=True)
class Standing:
    """How one model orders the photos: what one panel of the page shows.

    Attributes:
        scores: projections on the unit direction.
        deviations: standard deviation of each score after votes and examples, against the mean photo and in the same
            unit; None without votes and examples.
        agree: number of votes for one of two photos that the order agrees with.
        expected: fraction of further votes, on random pairs, that the posterior expects to agree with.
    """

    scores: Float[np.ndarray, " n"]
    deviations: Float[np.ndarray, " n"] | None = None
    agree: int = 0
    expected: float | None = None

    @property
    def order(self) -> Int[np.ndarray, " n"]:
        """Rows, the highest score first; equal scores keep the order of the photos."""
        return np.argsort(-self.scores, kind="stable")


class Ranker:
    """Photos, an attribute in words, and what examples and votes on it have taught.

    Args:
        settings: the words, the estimator and the model shown, to begin with.
        votes: the file of votes; votes on other words in it are left alone.
    """

    def __init__(self, photos: Photos, settings: Rank, votes: str | Path, seed: int = 0):
        self.photos, self.file, self.learn = photos, VoteFile(votes), True
        self.models = list(photos.models)
        self.examples: dict[int, int] = {}  # row -> 1 for more like this photo, -1 for less
        self._rng = stream("questions to a voter", seed)
        self._future_pairs = self._rng.integers(len(photos.captions), size=(2, _FUTURE_PAIRS))
        self._direction = lru_cache(maxsize=_KEPT_DIRECTIONS)(self._encode)
        self.ask(settings.more, settings.less, settings.estimator, "finetuned")

    def ask(self, more: str, less: str | None, estimator: str, show: str) -> None:
        """Change the words, the estimator or the model. When PcclipError is raised nothing has changed."""
        query = Query(more, (less or "").strip() or None)
        for model in self.models:
            self._direction(model, query.more, query.less, estimator)
        self.votes = self.file.read(attribute=query.label)
        self.query, self.estimator = query, estimator
        self.show = show if show in (*self.models, BOTH) else self.models[-1]

    @property
    def shown(self) -> list[str]:
        """The models on view; the last one chooses the pairs to vote on."""
        return self.models if self.show == BOTH else [self.show]

    # ---- examples and votes

    def example(self, row: int, likes: int) -> None:
        """More like this photo (1), less like it (-1), or neither (0)."""
        self.examples.pop(row, None)
        if likes:
            self.examples[row] = likes

    def vote(self, first: int, second: int, choice: str) -> None:
        """Write a vote on two rows to disk, then count it. Raises PcclipError when it cannot be written."""
        vote = Vote(self.photos.vectors.ids[first], self.photos.vectors.ids[second], choice)
        spec = self.photos.models[self.shown[-1]].spec
        self.file.append(vote, attribute=self.query.label, model=spec, estimator=self.estimator)
        self.votes.append(vote)

    def undo(self) -> tuple[int, int] | None:
        """Take the last vote back. Return its pair, to be asked again, or None when there is no vote."""
        if not self.votes:
            return None
        self.file.undo(attribute=self.query.label)
        undone, row = self.votes.pop(), self.photos.vectors.row
        known = undone.first in row and undone.second in row
        return (row[undone.first], row[undone.second]) if known else self.pair()

    def pair(self) -> tuple[int, int]:
        """Rows of the two photos to ask about next. Raises PcclipError when all pairs were asked."""
        model = self.shown[-1]
        return next_pair(self.axis(model), self.photos.matrix(model), self._ballot(model).asked_pairs, self._rng)

    @property
    def counted(self) -> int:
        """Number of votes that the order learns from: all but the skipped ones."""
        return len(self._ballot().outcomes)

    @property
    def preferred(self) -> int:
        """Number of votes for one of two photos: those counted, less the ties."""
        return int((self._ballot().outcomes != 0.5).sum())

    # ---- the order

    def text_axis(self, model: str | None = None) -> Float[np.ndarray, " d"]:
        """The unit direction of the words alone, for one model (by default the last one on view)."""
        return self._direction(model or self.shown[-1], self.query.more, self.query.less, self.estimator)

    def axis(self, model: str) -> Axis:
        """The axis of words, examples and votes."""
        matrix = self.photos.matrix(model)
        most, least = ([row for row, likes in self.examples.items() if likes == sign] for sign in (1, -1))
        differences = example_differences(matrix, matrix[most], matrix[least]) if self.examples else matrix[:0]
        return learnt_axis(matrix, self._ballot(model), differences, self.text_axis(model))

    def standing(self, model: str) -> Standing:
        """How one model orders all photos."""
        matrix, votes = self.photos.matrix(model), self._ballot(model)
        if not self.learn or not (len(votes.outcomes) or self.examples):
            direction = self.text_axis(model)
            return Standing(matrix @ direction, agree=_agreement(votes, direction))
        axis = self.axis(model)
        first, second = self._future_pairs
        chances = axis.chances(matrix[first] - matrix[second])
        return Standing(
            matrix @ axis.direction,
            axis.score_deviations(matrix, matrix.mean(axis=0)).astype(np.float32),
            _agreement(votes, axis.direction),
            float(np.maximum(chances, 1 - chances).mean()),
        )

    def table(self, model: str | None = None) -> pd.DataFrame:
        """Columns position, id, caption, score, deviation (after votes or examples) and path of one model, in order."""
        standing, vectors = self.standing(model or self.shown[-1]), self.photos.vectors
        table = pd.DataFrame({"id": vectors.ids, "caption": self.photos.captions, "score": standing.scores})
        if standing.deviations is not None:
            table["deviation"] = standing.deviations
        table = table.assign(path=vectors.paths).iloc[standing.order].reset_index(drop=True)
        table.insert(0, "position", np.arange(1, len(table) + 1))
        return table

    def tables(self) -> pd.DataFrame:
        """`table` of every model, one below the other, with a column model."""
        return pd.concat([self.table(model).assign(model=model) for model in self.models], ignore_index=True)

    def sheet(self, top: int) -> Image.Image:
        """A contact sheet of the first `top` photos."""
        table = self.table().head(top)
        captions = [f"{caption} {score:+.3f}" for caption, score in zip(table.caption, table.score, strict=True)]
        return contact_sheet(list(table.path), captions)

    def _ballot(self, model: str = "base") -> Ballot:
        return ballot(self.votes, self.photos.matrix(model), self.photos.vectors.ids)

    def _encode(self, model: str, more: str, less: str | None, estimator: str) -> Float[np.ndarray, " d"]:
        return query_axis(self.photos.models[model], Query(more, less), estimator)


def _agreement(votes: Ballot, direction: Float[np.ndarray, " d"]) -> int:
    """Number of votes that the direction agrees with; ties are not counted."""
    gaps = votes.differences @ direction
    return int(((gaps > 0) & (votes.outcomes == 1)).sum() + ((gaps < 0) & (votes.outcomes == 0)).sum())
