"""What a person has said about an attribute, in words, examples and votes, and the order that follows from it."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from jaxtyping import Float
from PIL import Image

from pcclip.config import Config, Rank, resolve
from pcclip.images import contact_sheet
from pcclip.ranking.axes import Query, example_differences, query_axis
from pcclip.ranking.posterior import VoteAxis, next_pair, vote_axis
from pcclip.ranking.votes import Ballot, Vote, VoteFile, ballot
from pcclip.ranking.widget.photos import FOLDER, Photos

BOTH = "side by side"
_PAIRS, _ROWS, _KNOWN = 2000, 8192, 200


@dataclass(frozen=True)
class Standing:
    """The photos under one model.

    Attributes:
        scores: projections on the unit axis.
        deviations: how uncertain each score is after votes and examples, in the same unit, against the mean photo;
            None without any.
        agree: how many of the preferences voted for the order agrees with.
        expected: the share of further votes, on pairs drawn at random, that the posterior expects to agree with.
    """

    scores: Float[np.ndarray, " n"]
    deviations: Float[np.ndarray, " n"] | None = None
    agree: int = 0
    expected: float | None = None

    @property
    def order(self) -> np.ndarray:
        """Rows, the highest score first; equal scores keep the order of the photos."""
        return np.argsort(-self.scores, kind="stable")


def votes_file(config: Config) -> Path:
    """config.rank.votes, or votes.jsonl in the run's folder."""
    return resolve(config.rank.votes) if config.rank.votes else config.folder / FOLDER / "votes.jsonl"


class Ranker:
    """Photos, an attribute in words, and what was learnt from examples and votes on it.

    Args:
        asked: the words, the estimator, and which model is shown, to begin with.
        votes: the file of votes; those on other words are left alone.
    """

    def __init__(self, photos: Photos, asked: Rank, votes: str | Path, seed: int = 0):
        self.photos, self.file, self.learn = photos, VoteFile(votes), True
        self.models = list(photos.models)
        self.examples: dict[int, int] = {}
        self._rng = np.random.default_rng(seed)
        self._pairs = self._rng.integers(len(photos.ids), size=(2, _PAIRS))
        self._known: dict[tuple, np.ndarray] = {}
        self.ask(asked.more, asked.less, asked.estimator, asked.show)

    def ask(self, more: str, less: str | None, estimator: str, show: str) -> None:
        """Change the words, the estimator or the model. Nothing has changed when PcclipError is raised."""
        query = Query(more, (less or "").strip() or None)
        for model in self.models:
            self._words(model, query, estimator)
        self.votes = self.file.read(attribute=query.label)
        self.query, self.estimator = query, estimator
        self.show = show if show in (*self.models, BOTH) else self.models[-1]

    @property
    def shown(self) -> list[str]:
        """The models on view; the last of them chooses the pairs to vote on."""
        return self.models if self.show == BOTH else [self.show]

    # ---- what is said

    def example(self, row: int, likes: int) -> None:
        """More like this photo (1), less like it (-1), or neither (0)."""
        self.examples.pop(row, None)
        if likes:
            self.examples[row] = likes

    def vote(self, first: int, second: int, choice: str) -> None:
        """Keep a vote on two rows, on disk before anything else. Raises PcclipError when it cannot be written."""
        vote = Vote(self.photos.ids[first], self.photos.ids[second], choice)
        spec = self.photos.models[self.shown[-1]].spec
        self.file.append(vote, attribute=self.query.label, model=spec, estimator=self.estimator)
        self.votes.append(vote)

    def undo(self) -> tuple[int, int] | None:
        """Take the last vote back; its pair, to be asked again, or None when there is no vote."""
        if not self.votes:
            return None
        self.file.undo(attribute=self.query.label)
        undone, rows = self.votes.pop(), {name: i for i, name in enumerate(self.photos.ids)}
        return (rows[undone.first], rows[undone.second]) if {undone.first, undone.second} <= set(rows) else self.pair()

    def pair(self) -> tuple[int, int]:
        """The rows of the two photos to ask about next. Raises PcclipError when all pairs were asked."""
        model = self.shown[-1]
        cast = self._ballot(model)
        return next_pair(self._posterior(model, cast), self.photos.seen_by(model), cast.asked, self._rng)

    # ---- what follows

    @property
    def counted(self) -> int:
        """Votes that the order can learn from: not those skipped."""
        return len(self._ballot().outcomes)

    @property
    def preferred(self) -> int:
        """Those of them that are no tie."""
        return int((self._ballot().outcomes != 0.5).sum())

    def standing(self, model: str) -> Standing:
        """Scores of all photos under one model."""
        matrix, cast = self.photos.seen_by(model), self._ballot(model)
        if not self.learn or not (len(cast.outcomes) or self.examples):
            axis = self._words(model, self.query, self.estimator)
            return Standing(matrix @ axis, agree=_agreement(cast, axis))
        posterior = self._posterior(model, cast)
        first, second = self._pairs
        chances = posterior.chances(matrix[first] - matrix[second])
        return Standing(
            matrix @ posterior.axis,
            _deviations(posterior, matrix),
            _agreement(cast, posterior.axis),
            float(np.maximum(chances, 1 - chances).mean()),
        )

    @property
    def words(self) -> Float[np.ndarray, " d"]:
        """The axis of the words alone, of the last model on view."""
        return self._words(self.shown[-1], self.query, self.estimator)

    def table(self, model: str | None = None) -> pd.DataFrame:
        """Columns position, id, caption, score, path, best first, of one model (the last one on view); with votes
        deviation, too."""
        standing, photos = self.standing(model or self.shown[-1]), self.photos
        rows = standing.order
        table = pd.DataFrame(
            {
                "position": np.arange(1, len(rows) + 1),
                "id": np.array(photos.ids, dtype=object)[rows],
                "caption": np.array(photos.captions, dtype=object)[rows],
                "score": standing.scores[rows],
            }
        )
        if standing.deviations is not None:
            table["deviation"] = standing.deviations[rows]
        return table.assign(path=np.array(photos.paths, dtype=object)[rows])

    def tables(self) -> pd.DataFrame:
        """`table` of every model, one below the other, with a column model."""
        return pd.concat([self.table(model).assign(model=model) for model in self.models], ignore_index=True)

    def sheet(self, top: int) -> Image.Image:
        """A contact sheet of the first `top` photos, those with the most first."""
        table = self.table().head(top)
        names = [f"{caption} {score:+.3f}" for caption, score in zip(table.caption, table.score, strict=True)]
        return contact_sheet(list(table.path), names)

    # ---- how

    def _ballot(self, model: str = "base") -> Ballot:
        return ballot(self.votes, self.photos.seen_by(model), self.photos.ids)

    def _words(self, model: str, query: Query, estimator: str) -> Float[np.ndarray, " d"]:
        """The axis of the words alone."""
        key = (model, query, estimator)
        if key not in self._known:
            if len(self._known) >= _KNOWN:
                self._known.clear()
            self._known[key] = query_axis(self.photos.models[model], query, estimator)
        return self._known[key]

    def _posterior(self, model: str, cast: Ballot) -> VoteAxis:
        """The axis of words, examples and votes; an example is a vote against the other side's mean."""
        matrix, differences, outcomes = self.photos.seen_by(model), cast.differences, cast.outcomes
        if self.examples:
            most, least = ([row for row, likes in self.examples.items() if likes == sign] for sign in (1, -1))
            shown = example_differences(matrix, matrix[most], matrix[least])
            differences, outcomes = np.concatenate([differences, shown]), np.append(outcomes, np.ones(len(shown)))
        return vote_axis(differences, outcomes, self._words(model, self.query, self.estimator), matrix)


def _deviations(posterior: VoteAxis, matrix: Float[np.ndarray, "n d"]) -> Float[np.ndarray, " n"]:
    mean = matrix.mean(axis=0)
    parts = [posterior.deviations(matrix[k : k + _ROWS] - mean) for k in range(0, len(matrix), _ROWS)]
    return (np.concatenate(parts) / posterior.length).astype(np.float32)


def _agreement(cast: Ballot, axis: np.ndarray) -> int:
    """How many votes the axis agrees with; a tie is half a vote whichever way, and is not counted."""
    gaps = cast.differences @ axis
    return int(((gaps > 0) & (cast.outcomes == 1)).sum() + ((gaps < 0) & (cast.outcomes == 0)).sum())
