"""Rewrites: a language model says every training caption in other words, for the paper's rewritten-caption baseline."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pandas as pd

from pcclip.comparisons import filters
from pcclip.comparisons.llm import Backend, Question, Reply, Template
from pcclip.comparisons.prompts import Prompt, load_prompt
from pcclip.config import COMPARISONS, Config
from pcclip.data.image_set import ImageSet
from pcclip.errors import PcclipError
from pcclip.runs.files import digest
from pcclip.runs.log import AnswerLog
from pcclip.runs.stage import read_output

TABLE = "rewrites.parquet"
_SHORTEST, _LONGEST = 3, 60  # words of a written caption


def single_text_prompt(name: str) -> Prompt:
    """A prompt file whose question has {first} alone. Raises PcclipError."""
    return load_prompt(name, slots=("first",))


def write_rewrites(config: Config, images: ImageSet, backend_for: Callable[[Prompt], Backend]) -> pd.DataFrame:
    """Have the language model write every training caption in other words.

    Returns:
        Columns id, original, raw, finish_reason, caption (the cleaned reply) and verdict ('kept', or why not).

    Raises:
        PcclipError: fewer than generate.min_yield are kept, or the backend is the template.
    """
    prompt, settings = single_text_prompt(config.generate.rewrites or ""), config.generate
    backend = backend_for(prompt)
    if backend.identity == Template.identity:
        raise PcclipError(
            "generate.backend = template writes no rewrites; name a language model's backend, "
            "or leave generate.rewrites out"
        )
    table = images.captions[images.captions["id"].isin(set(images.train["id"]))].reset_index(drop=True)
    table = table.rename(columns={"caption": "original"})
    questions = [
        Question(digest(["rewrite", config.seed, row.id, row.original])[:16], row.original, "")
        for row in table.itertuples()
    ]
    sampling = settings.model_dump(include={"temperature", "top_p", "max_tokens"})
    path = config.journals / f"rewrites-{digest([prompt.hash, backend.identity, sampling])[:12]}.jsonl"
    log = AnswerLog(path, Reply, "rewrites")

    def judged(part: Sequence[Question], answers: Mapping[str, Reply]) -> pd.DataFrame:
        replies = [answers[question.key] for question in part]
        written = table[: len(part)].assign(
            raw=[r.text for r in replies],
            finish_reason=[r.finish_reason for r in replies],
            caption=[filters.clean(r.text) for r in replies],
        )
        return written.assign(verdict=[_verdict(row) for row in written.itertuples()])

    first, rest = questions[: filters.FIRST], questions[filters.FIRST :]
    answers = log.answer_all(first, backend.answers, config)
    filters.check_first(judged(first, answers), settings.min_yield, "rewrites")
    table = judged(questions, answers | log.answer_all(rest, backend.answers, config))
    filters.check_yield(table, settings.min_yield, "rewrites")
    return table


def load_rewrites(config: Config) -> pd.DataFrame:
    """Columns id and caption of the rewrites that stage 01 kept. Raises PcclipError when 01 has none by this prompt."""
    prompt = single_text_prompt(config.generate.rewrites or "").hash
    table = read_output(config.source_folder / COMPARISONS, TABLE, rewrites=prompt)
    return table.loc[table.verdict == "kept", ["id", "caption"]].reset_index(drop=True)


def _verdict(row: Any) -> str:
    """'kept', or why a rewrite is not."""
    if row.finish_reason != "stop":
        return "error" if row.finish_reason.startswith("error") else "unfinished"
    if not _SHORTEST <= len(row.caption.split()) <= _LONGEST:
        return "length"
    return "copied" if row.caption.strip(" .").lower() == row.original.strip(" .").lower() else "kept"
