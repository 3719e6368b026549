"""A language model as a pairwise judge: which of two images, or of two captions, fits a statement better?

What a difference vector is asked for one matrix product, a judge is asked in two requests, once in each order, since
the first of two gets the better of it whatever they are. A score is half the difference of the two log odds. Beside the
items, which stand in the same tables as any model's, there is what they cost.

Answers are journalled as they come in and no question is asked twice, whichever run asks it. What a statement says must
be about ONE of the two: of "The first image shows a small fox, while ..." that is "a small fox".
"""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from jaxtyping import Bool, Int

from pcclip.comparisons.llm import Backend, Choice, backend_identity, start_backend
from pcclip.comparisons.prompts import load_prompt
from pcclip.comparisons.sentences import sides
from pcclip.config import Config, Generate
from pcclip.errors import PcclipError
from pcclip.evaluation.judged import FORMAT, Judged, Look
from pcclip.evaluation.predictions import FOLDER
from pcclip.runs.files import digest, file_digest
from pcclip.runs.log import AnswerLog

_MILLION = 1_000_000
_AMOUNTS = ["requests", "metered", "tokens_in", "tokens_out", "seconds"]
_FIRST, _SECOND = ("first",), ("second",)


def inputs(settings: Generate) -> list:
    """What the judge's answers depend on, for the stage's key."""
    return [backend_identity(settings), FORMAT]


def judge_pairs(config: Config, pairs: pd.DataFrame, shown: Sequence[str]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Ask the run's language model which image of each pair its sentence's first half describes.

    Args:
        config: evaluate.judge and generate.
        pairs: first, second (rows of `shown`), difference.
        shown: a caption for each row, or the path of an image where evaluate.judge.sees is images.

    Returns and raises as `judge_captions` and `judge_images`.
    """
    settings = config.evaluate.judge
    statements = [sides(text)[0].removeprefix("shows ") for text in pairs.difference]
    prices = None if settings.price_in is None else (settings.price_in, settings.price_out)
    judge = judge_images if settings.sees == "images" else judge_captions
    first, second = pairs["first"].to_numpy(), pairs["second"].to_numpy()
    fits = np.ones(len(pairs), dtype=bool)
    return judge(config.generate, first, second, shown, statements, fits, config.home / FOLDER, prices)


def judge_captions(
    config: Generate,
    first: Int[np.ndarray, " m"],
    second: Int[np.ndarray, " m"],
    captions: Sequence[str],
    statements: Sequence[str],
    first_fits: Bool[np.ndarray, " m"],
    folder: Path,
    prices: tuple[float, float] | None = None,
    backend: Backend | None = None,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Ask a language model that sees captions only, by any backend but the template.

    Args:
        config: backend, model, server, retries and requests in flight.
        first, second: rows of `captions`.
        captions: one per image, row by row of the vectors.
        statements: one per pair, about one of its two images; or a question, with its question mark.
        first_fits: whether it is the first that the statement is true of.
        folder: of the journal.
        prices: of a million tokens in and out, where money is to be counted.
        backend: who answers; started from the config when None and something is left to ask.

    Returns:
        The items: first, second, score (> 0 for the first, 0 where nothing was answered), reference (+1 or -1),
        correct (a score of zero is wrong) and reason (of the first order without an answer, else ''); and one row of
        `cost`.

    Raises:
        PcclipError: more than half of the pairs got no answer, or as the backend does.
    """

    def asked(one: int, two: int, statement: str) -> Choice:
        a, b = (" ".join(captions[k].split()) for k in (one, two))
        words, stem = _worded(statement)
        text = f"First: {a}\nSecond: {b}\n{stem}"
        question = f'First: "{a}"\nSecond: "{b}"\n{words}'
        return Choice(_key("captions", text, question), text, _FIRST, _SECOND, question)

    def ask(rest: list[Choice]) -> Iterator[tuple[Choice, Judged]]:
        return _timed((backend or _caption_judge(config)).choose(rest))

    identity = backend.identity if backend else backend_identity(config)
    name = f"{backend.identity if backend else config.llm or config.gguf} on captions"
    return _judged(first, second, statements, first_fits, asked, ask, folder, f"captions-{identity}", name, prices)


def judge_images(
    config: Generate,
    first: Int[np.ndarray, " m"],
    second: Int[np.ndarray, " m"],
    paths: Sequence[str],
    statements: Sequence[str],
    first_fits: Bool[np.ndarray, " m"],
    folder: Path,
    prices: tuple[float, float] | None = None,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Ask a multimodal model behind a server (config.backend openai), shown both images, 512 pixels at most.

    Arguments and returns as of `judge_captions`, with the images' `paths` in place of captions. An image is known by
    its content: moving it asks nothing again.
    """
    if config.backend != "openai":
        raise PcclipError(
            f"generate.backend = {config.backend} cannot be shown images; set backend: openai and the "
            "llm and base_url of a multimodal model, or judge captions"
        )
    contents = {}

    def content(k: int) -> str:
        if k not in contents:
            contents[k] = file_digest(Path(paths[k])) if Path(paths[k]).is_file() else str(paths[k])
        return contents[k]

    def asked(one: int, two: int, statement: str) -> Look:
        words, _ = _worded(statement)
        return Look(_key("images", content(one), content(two), words), str(paths[one]), str(paths[two]), words)

    def ask(rest: list[Look]) -> Iterator[tuple[Look, Judged]]:
        start_backend(config, load_prompt(config.prompt))  # says what is missing, if anything is
        from pcclip.evaluation.judge_server import ImageServer

        return ImageServer(config).look(rest)

    return _judged(
        first,
        second,
        statements,
        first_fits,
        asked,
        ask,
        folder,
        f"images-{backend_identity(config)}",
        f"{config.llm} on images",
        prices,
    )


def cost(name: str, pairs: int, answers: Sequence[Judged], prices: tuple[float, float] | None = None) -> pd.DataFrame:
    """One row: judge, pairs, answers, unanswered, requests, tokens_in, tokens_out, metered, seconds, money.

    `answers` are all that were ever had, failed ones too. `metered` replies said how many tokens they took: the tokens
    and the money are theirs, and missing where there are none. `seconds` are waited for answers, summed over requests
    in flight at the same time. `prices` are of a million tokens in and out; the money is in their currency.
    """
    total = {amount: sum(getattr(answer, amount) for answer in answers) for amount in _AMOUNTS}
    tokens = [float(total[amount]) if total["metered"] else np.nan for amount in ("tokens_in", "tokens_out")]
    money = np.dot(tokens, prices) / _MILLION if prices else np.nan
    return pd.DataFrame(
        [
            {
                "judge": name,
                "pairs": pairs,
                "answers": len(answers),
                "unanswered": sum(a.failed for a in answers),
                "requests": total["requests"],
                "tokens_in": tokens[0],
                "tokens_out": tokens[1],
                "metered": total["metered"],
                "seconds": float(total["seconds"]),
                "money": float(money),
            }
        ]
    )


def _judged(
    first,
    second,
    statements,
    first_fits,
    asked: Callable,
    ask: Callable,
    folder: Path,
    identity: str,
    name: str,
    prices,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Ask about every pair in both orders; the items and the cost."""
    pairs = list(zip(np.asarray(first).tolist(), np.asarray(second).tolist(), statements, strict=True))
    if not pairs:
        raise PcclipError("judge: no pair to ask about; check the data set and its split")
    orders = [(asked(a, b, statement), asked(b, a, statement)) for a, b, statement in pairs]
    answer_log = AnswerLog(folder / f"judge-{digest([FORMAT, identity])[:12]}.jsonl", Judged, "judge")
    found = answer_log.answer_all([question for both in orders for question in both], ask)
    told = [(found[one.key], found[two.key]) for one, two in orders]
    reasons = [next((answer.reason for answer in both if answer.failed), "") for both in told]
    score = np.array(
        [0.0 if reason else (one.value - two.value) / 2 for (one, two), reason in zip(told, reasons, strict=True)]
    )
    silent = sum(reason != "" for reason in reasons)
    if silent > len(pairs) / 2:
        commonest = pd.Series(reasons)[pd.Series(reasons) != ""].value_counts().index[0]
        raise PcclipError(
            f"judge: {silent} of {len(pairs)} pairs got no answer, mostly with {commonest!r}; "
            "check the model and run again"
        )
    truth = np.where(first_fits, 1.0, -1.0)
    items = pd.DataFrame(
        {
            "first": first,
            "second": second,
            "score": score,
            "reference": truth,
            "correct": score * truth > 0,
            "reason": reasons,
        }
    )
    answers = [answer for key, answer in answer_log.read() if key in found]  # failures asked again have cost too
    return items, cost(name, len(pairs), answers, prices)


def _timed(answers: Iterable[tuple]) -> Iterator[tuple[Choice, Judged]]:
    """Answers of a backend that does not count, each with the time that has passed since the one before."""
    last = time.monotonic()
    for choice, odds in answers:
        now = time.monotonic()
        yield choice, odds if isinstance(odds, Judged) else Judged.of(odds, now - last)
        last = now


def _caption_judge(config: Generate) -> Backend:
    """The backend of the parameters; one that counts, where it is a server."""
    backend = start_backend(config, load_prompt(config.prompt))
    if config.backend != "openai":
        return backend
    from pcclip.evaluation.judge_server import CaptionServer

    return CaptionServer(config)


def _worded(statement: str) -> tuple[str, str]:
    """The question in plain words, and a stem whose next word is 'first' or 'second'."""
    statement = " ".join(statement.split())
    if statement.endswith("?"):
        return f"{statement} The first or the second?", f"Question: {statement} The first or the second?\nAnswer: The"
    return (
        f'Which of the two does this statement fit better: "{statement}"? The first or the second?',
        f"Statement: {statement}\nOf the two, the statement fits the",
    )


def _key(*words: str) -> str:
    return digest(words)[:16]
