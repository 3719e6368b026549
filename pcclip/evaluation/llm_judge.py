"""A language model as a pairwise judge: which of two captions fits a statement better?

Each pair is asked about in both orders because of position bias: the model prefers whichever option comes first. The
score of a pair is half the difference of the two log odds. Beside the items there is one row of cost.

Answers are logged as they come in, and no question is asked twice, whichever run asks it. A statement must be about ONE
of the two captions: of "The first image shows a small fox, while ..." the statement is "a small fox".
"""

import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from pcclip.comparisons.llm import Backend, Choice, Odds, backend_identity
from pcclip.comparisons.sentences import sides
from pcclip.config import Generate
from pcclip.errors import PcclipError
from pcclip.runs.files import digest
from pcclip.runs.log import AnswerLog

FORMAT = 1  # raise it when the words of a question change: old answers are then not read
_MILLION = 1_000_000
_AMOUNTS = ("requests", "metered", "tokens_in", "tokens_out", "seconds")


@dataclass(frozen=True)
class Judging:
    """Who judges, and where the answers are kept; one argument in place of four.

    Attributes:
        backend: any but the template. One that measures its cost yields Answers in place of Odds.
        name: the judge's, in the table of costs.
        folder: of the log.
        prices: of a million tokens in and out, where money is counted.
    """

    backend: Backend
    name: str
    folder: Path
    prices: tuple[float, float] | None = None


@dataclass(frozen=True)
class Answer:
    """Odds with their cost; a class of its own because the log stores its fields.

    Attributes:
        value, reason: as of Odds; log odds of the first, in nats.
        seconds: from the question to the answer, retries and waits included.
        requests: retries included; a request that failed for good counts once.
        metered: replies that said how many tokens they took; tokens_in, tokens_out: those tokens.
    """

    value: float | None
    reason: str
    seconds: float
    requests: int = 1
    metered: int = 0
    tokens_in: int = 0
    tokens_out: int = 0

    @property
    def failed(self) -> bool:
        return self.value is None


def inputs(settings: Generate) -> list:
    """Everything that the judge's answers depend on, for the stage's key."""
    return [backend_identity(settings), FORMAT]


def judge_pairs(judging: Judging, pairs: pd.DataFrame, captions: Sequence[str]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Ask a language model which caption of each pair the first half of the pair's sentence describes.

    Args:
        judging: who judges.
        pairs: first, second (rows of `captions`), difference ("The first image shows ..., while ...").
        captions: one an image.

    Returns:
        The items: first, second, score (> 0 for the first, 0 where nothing was answered), reference (1), correct (a
        score of zero is wrong) and reason (of the first order without an answer, else ''); and one row of
        `cost`.

    Raises:
        PcclipError: no pair, more than half of the pairs without an answer, or an error of the backend.
    """

    def choice(first: int, second: int, statement: str) -> Choice:
        first_caption, second_caption = (" ".join(captions[row].split()) for row in (first, second))
        text = f"First: {first_caption}\nSecond: {second_caption}\nStatement: {statement}\n"
        text += "Of the two, the statement fits the"
        question = f'First: "{first_caption}"\nSecond: "{second_caption}"\nWhich of the two does this statement fit '
        question += f'better: "{statement}"? The first or the second?'
        return Choice(digest(("captions", text, question))[:16], text, ("first",), ("second",), question)

    def ask(choices: list[Choice]) -> Iterator[tuple[Choice, Answer]]:
        return _timed(judging.backend.choose(choices))

    if pairs.empty:
        raise PcclipError("judge: no pair to ask about; check the data set and its split")
    identity = f"captions-{judging.backend.identity}"
    log = AnswerLog(judging.folder / f"judge-{digest([FORMAT, identity])[:12]}.jsonl", Answer, "judge")
    both_sides = [sides(text) or (text, "") for text in pairs.difference]  # every kept sentence has two
    statements = [" ".join(first.removeprefix("shows ").split()) for first, _ in both_sides]
    orders = [
        (choice(first, second, statement), choice(second, first, statement))
        for first, second, statement in zip(pairs["first"], pairs["second"], statements, strict=True)
    ]
    answers = log.answer_all([one_order for both in orders for one_order in both], ask)
    scores, reasons = [], []
    for right, reverse in orders:
        right_answer, reverse_answer = answers[right.key], answers[reverse.key]
        failed = [answer for answer in (right_answer, reverse_answer) if answer.failed]
        scores.append(0.0 if failed else (right_answer.value - reverse_answer.value) / 2)
        reasons.append(failed[0].reason if failed else "")
    failures = pd.Series([reason for reason in reasons if reason], dtype=object)
    if len(failures) > len(pairs) / 2:
        raise PcclipError(
            f"judge: {len(failures)} of {len(pairs)} pairs got no answer, mostly with "
            f"{failures.value_counts().index[0]!r}; check the model and run again"
        )
    score = np.array(scores)
    columns = {"score": score, "reference": 1.0, "correct": score > 0, "reason": reasons}
    items = pairs[["first", "second"]].reset_index(drop=True).assign(**columns)
    every_answer = [answer for key, answer in log.read() if key in answers]  # failures that were asked again cost too
    return items, cost(judging.name, len(pairs), every_answer, judging.prices)


def cost(judge: str, pairs: int, answers: Sequence[Answer], prices: tuple[float, float] | None = None) -> pd.DataFrame:
    """One row: judge, pairs, answers, unanswered, requests, tokens_in, tokens_out, metered, seconds, money.

    Args:
        answers: every answer that was ever given, failed ones included.
        prices: of a million tokens in and out; the money is in their currency.

    Tokens and money are of the `metered` replies only, which said how many tokens they took; NaN without any. `seconds`
    are summed over requests in flight at the same time.
    """
    totals = {amount: sum(getattr(answer, amount) for answer in answers) for amount in _AMOUNTS}
    tokens = [float(totals[amount]) if totals["metered"] else np.nan for amount in ("tokens_in", "tokens_out")]
    row = {
        "judge": judge,
        "pairs": pairs,
        "answers": len(answers),
        "unanswered": sum(answer.failed for answer in answers),
        "requests": totals["requests"],
        "tokens_in": tokens[0],
        "tokens_out": tokens[1],
        "metered": totals["metered"],
        "seconds": float(totals["seconds"]),
        "money": float(np.dot(tokens, prices) / _MILLION) if prices else np.nan,
    }
    return pd.DataFrame([row])


def _timed(answers: Iterable[tuple[Choice, Odds | Answer]]) -> Iterator[tuple[Choice, Answer]]:
    """Give each answer of a backend that does not measure cost the time since the answer before."""
    last = time.monotonic()
    for choice, odds in answers:
        now = time.monotonic()
        yield choice, odds if isinstance(odds, Answer) else Answer(odds.value, odds.reason, now - last)
        last = now
