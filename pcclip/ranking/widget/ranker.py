"""What a person has said about an attribute, in words, examples and votes, and the order that follows."""

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from jaxtyping import Float, Int

from pcclip.arithmetic.texts import TextMemory
from pcclip.config import Rank
from pcclip.errors import PcclipError
from pcclip.ranking import saved
from pcclip.ranking.axes import Query, query_axis
from pcclip.ranking.examples import example_differences
from pcclip.ranking.posterior import LEARN, Ballot, Order, Parts, ballot, learnt_order, next_pair, rank_interval
from pcclip.ranking.separation import doubt
from pcclip.ranking.votes import Example, Vote, VoteFile, Words
from pcclip.ranking.widget.photos import Photos
from pcclip.stats.random_streams import stream

BOTH = "side by side"
_FUTURE_PAIRS = 2000  # drawn at random, to estimate agreement with further votes


@dataclass(frozen=True)
class Standing:
    """How one model orders the photos: what one panel of the page shows.

    Attributes:
        scores: projections on the unit direction.
        deviations: standard deviation of each score after votes and examples, against the mean photo and in the same
            unit; None without votes and examples.
        ranks: the best and the worst rank of each photo in its 95% interval; None without votes and examples.
        agree: number of votes for one of two photos that the order agrees with.
        expected: fraction of further votes, on random pairs, that the posterior expects to agree with.
        unhelpful: why votes do not help so far, in a sentence.
    """

    scores: Float[np.ndarray, " n"]
    deviations: Float[np.ndarray, " n"] | None = None
    ranks: Int[np.ndarray, "2 n"] | None = None
    agree: int = 0
    expected: float | None = None
    unhelpful: str = ""

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
        self.photos, self.learn, self.coming = photos, True, 0
        self.models = list(photos.models)
        self._answers = self.file = VoteFile(votes)
        self.name = ""  # of the saved ranking that is open
        self._rng = stream("questions to a voter", seed)
        self._texts = {name: TextMemory(model) for name, model in photos.models.items()}
        self._begun = Query(settings.more, settings.less.strip() or None).label
        words = self.file.words()
        if words is None or words.begun != self._begun:
            words = Words(settings.more, settings.less, settings.estimator)
        self._load(Query(words.more, words.less.strip() or None), words.estimator, "finetuned")

    def ask(self, more: str, less: str | None, estimator: str, show: str) -> None:
        """Change the words, the estimator or the model. When PcclipError is raised nothing has changed.

        New words have their own votes and examples, and leave the ranking that is open as it was saved.
        """
        query = Query(more, (less or "").strip() or None)
        before, file, name = (self.query.label, self.estimator), self.file, self.name
        if query.label != self.query.label:
            self.file, self.name = self._answers, ""
        try:
            self._load(query, estimator, show)
        except PcclipError:
            self.file, self.name = file, name
            raise
        if before != (query.label, estimator):
            self._keep_words()

    def grow(self, photos: Photos, coming: int) -> None:
        """Rank more photos, the present ones first among them; `coming` more are to come."""
        self.photos, self.coming = photos, coming
        self._load(self.query, self.estimator, self.show)

    def _load(self, query: Query, estimator: str, show: str) -> None:
        for model in self.models:
            self._direction(model, query.more, query.less, estimator)
        self.votes, examples = self.file.read(query.label), self.file.examples(query.label)
        rows = {self.photos.index.row(example.example, example.content): example.likes for example in examples}
        self.examples = {row: likes for row, likes in rows.items() if row is not None}  # 1 more like it, -1 less
        self.query, self.estimator = query, estimator
        self.show = show if show in (*self.models, BOTH) else self.models[-1]

    def _keep_words(self) -> None:
        spec = self.photos.models[self.shown[-1]].spec
        self.file.append(
            Words(self.query.more, self.query.less or "", self.estimator, spec, self._begun, self.photos.place)
        )

    # ---- rankings with a name

    def save(self, name: str) -> None:
        """Save words, examples and votes as a ranking, which is then open. Raises PcclipError: the name is taken."""
        file = saved.ranking(name, exists=False)
        lines: list[Example | Vote] = [*self.file.examples(self.query.label), *self.votes]
        self.file, self.name = file, " ".join(name.split())
        self._keep_words()
        for line in lines:
            file.append(line, attribute=self.query.label)

    def open(self, name: str) -> None:
        """Go on with a saved ranking. Raises PcclipError when it is not there."""
        file = saved.ranking(name)
        words = saved.words_of(file)
        self.file, self.name = file, " ".join(name.split())
        self._load(Query(words.more, words.less or None), words.estimator, self.show)

    def rename(self, name: str) -> None:
        """Give the ranking that is open another name. Raises PcclipError when that name is taken."""
        saved.rename(self.name, name)
        self.open(name)

    def delete(self) -> None:
        """Delete the ranking that is open; its words stay, with the answers that they had without a name."""
        saved.delete(self.name)
        self.file, self.name = self._answers, ""
        self._load(self.query, self.estimator, self.show)

    @property
    def shown(self) -> list[str]:
        """The models on view; the last one chooses the pairs to vote on."""
        return self.models if self.show == BOTH else [self.show]

    # ---- examples and votes

    def example(self, row: int, likes: int) -> None:
        """More like this photo (1), less like it (-1), or neither (0): on disk, then counted."""
        photo = Example(self.photos.vectors.ids[row], likes, self.photos.index.content(row))
        self.file.append(photo, attribute=self.query.label)
        self.examples.pop(row, None)
        if likes:
            self.examples[row] = likes

    def forget(self) -> None:
        """Take all examples back."""
        for row in [*self.examples]:
            self.example(row, 0)

    def set_learning(self, on: bool) -> None:
        """Whether votes and examples make the order, or the words alone."""
        self.learn = on

    def vote(self, first: int, second: int, choice: str) -> None:
        """Write a vote on two rows to disk, then count it. Raises PcclipError when it cannot be written."""
        ids, content = self.photos.vectors.ids, self.photos.index.content
        vote = Vote(ids[first], ids[second], choice, content(first), content(second))
        spec = self.photos.models[self.shown[-1]].spec
        self.file.append(vote, attribute=self.query.label, model=spec, estimator=self.estimator)
        self.votes.append(vote)

    def undo(self) -> tuple[int, int] | None:
        """Take the last vote back. Return its pair, to be asked again, or None when there is no vote."""
        if not self.votes:
            return None
        self.file.undo(self.query.label)
        undone, row = self.votes.pop(), self.photos.index.row
        first, second = row(undone.first, undone.first_content), row(undone.second, undone.second_content)
        return self.pair() if first is None or second is None else (first, second)

    def pair(self) -> tuple[int, int]:
        """Rows of the two photos to ask about next. Raises PcclipError when all pairs were asked."""
        return next_pair(
            self.learnt(self.shown[-1], LEARN), len(self.photos.captions), self.ballot.asked_pairs, self._rng
        )

    # ---- the order

    def text_axis(self, model: str | None = None) -> Float[np.ndarray, " d"]:
        """The unit direction of the words alone, for one model (by default the last one on view)."""
        return self._direction(model or self.shown[-1], self.query.more, self.query.less, self.estimator)

    @property
    def doubt(self) -> str:
        """Why the words may not separate these photos, in a sentence, or ''; see `separation.doubt`."""
        model = self.shown[-1]
        return doubt(self.photos.matrix(model), self.query, self._texts[model])

    def learnt(self, model: str, parts: Parts | None = None) -> Order:
        """The order by words, examples and votes; `parts` as in `posterior.learnt_order`."""
        matrix = self.photos.matrix(model)
        most, least = ([row for row, likes in self.examples.items() if likes == sign] for sign in (1, -1))
        differences = example_differences(matrix, matrix[most], matrix[least]) if self.examples else matrix[:0]
        return learnt_order(matrix, self.ballot, differences, self.text_axis(model), parts)

    def standing(self, model: str) -> Standing:
        """How one model orders all photos."""
        votes = self.ballot
        if not self.learn or not (len(votes.outcomes) or self.examples):
            scores = self.photos.matrix(model) @ self.text_axis(model)
            return Standing(scores, agree=_agreement(votes, scores))
        order = self.learnt(model)
        scores, deviations = order.scores, order.deviations
        pairs = stream("future pairs", 0).integers(len(scores), size=(_FUTURE_PAIRS, 2))
        chances = order.chances(pairs)
        return Standing(
            scores,
            deviations.astype(np.float32),
            rank_interval(scores, deviations),
            _agreement(votes, scores),
            float(np.maximum(chances, 1 - chances).mean()),
            order.unhelpful,
        )

    def table(self, model: str | None = None, rows: Collection[int] | None = None) -> pd.DataFrame:
        """Columns position, id, caption, score, path and, after votes or examples, deviation, best_rank and worst_rank.

        The index has the photos' rows. With `rows` only these photos, at their positions in the complete order.
        """
        standing, vectors = self.standing(model or self.shown[-1]), self.photos.vectors
        table = pd.DataFrame({"id": vectors.ids, "caption": self.photos.captions, "score": standing.scores})
        if standing.ranks is not None:
            table["deviation"] = standing.deviations
            table["best_rank"], table["worst_rank"] = standing.ranks
        table = table.assign(path=vectors.paths).iloc[standing.order]
        table.insert(0, "position", np.arange(1, len(table) + 1))
        return table if rows is None else table[table.index.isin(rows)]

    def tables(self) -> pd.DataFrame:
        """`table` of every model, one below the other, with a column model."""
        return pd.concat([self.table(model).assign(model=model) for model in self.models], ignore_index=True)

    @property
    def ballot(self) -> Ballot:
        """The votes on these photos, without the skipped ones."""
        return ballot(self.votes, self.photos.index)

    def _direction(self, model: str, more: str, less: str | None, estimator: str) -> Float[np.ndarray, " d"]:
        return query_axis(self._texts[model], Query(more, less), estimator)


def _agreement(votes: Ballot, scores: Float[np.ndarray, " n"]) -> int:
    """Number of votes that the scores agree with; ties are not counted."""
    first, second = votes.pairs.T
    return int((np.sign(scores[first] - scores[second]) == 2 * votes.outcomes - 1)[votes.outcomes != 0.5].sum())
