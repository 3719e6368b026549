"""Training captions written anew by the language model: what the paper's rewritten-caption baseline is finetuned on."""

from collections.abc import Callable

import pandas as pd

from pcclip.comparisons import filters
from pcclip.comparisons.llm import Asker, Backend, Question, Reply, Template
from pcclip.comparisons.prompts import load_prompt
from pcclip.config import COMPARISONS, Config
from pcclip.data.image_set import ImageSet
from pcclip.errors import PcclipError
from pcclip.runs.files import digest, read_parquet
from pcclip.runs.log import AnswerLog
from pcclip.runs.stage import finished

TABLE = "rewrites.parquet"
_SHORTEST, _LONGEST = 3, 60  # words


def rewrite(config: Config, images: ImageSet, start: Callable[[], Backend], identity: str) -> pd.DataFrame:
    """Ask for every training caption once.

    Returns columns id, original, raw, finish_reason, caption (cleaned) and verdict ('kept' or why not).
    Raises PcclipError when fewer than generate.min_yield are kept, and when the backend is the template.
    """
    return written(config, images, start, identity, "rewrites", config.generate.rewrites, _verdict)


def written(
    config: Config,
    images: ImageSet,
    start: Callable[[], Backend],
    identity: str,
    noun: str,
    prompt: str,
    judge: Callable[..., str],
) -> pd.DataFrame:
    """Another text for every training caption, by the prompt file; `judge` gives each row its verdict.

    `noun`, what they are, is the parameter of `generate` too. Returns and raises as `rewrite`.
    """
    kind = noun.removesuffix("s")
    if identity == Template.identity:
        raise PcclipError(
            f"generate.backend = template writes no {noun}; name a language model's backend, "
            f"or leave generate.{noun} out"
        )
    asked = load_prompt(prompt, slots=("first",))
    table = images.captions[images.captions["id"].isin(set(images.train["id"]))].reset_index(drop=True)
    questions = [
        Question(digest([kind, config.seed, row.id, row.caption])[:16], row.caption, "") for row in table.itertuples()
    ]
    sampling = config.generate.model_dump(include={"temperature", "top_p", "max_tokens"})
    path = config.journals / f"{noun}-{digest([asked.hash, identity, sampling])[:12]}.jsonl"
    replies = AnswerLog(path, Reply, noun).answer_all(questions, Asker(start), config)
    raw = [replies[q.key] for q in questions]
    table = table.rename(columns={"caption": "original"}).assign(
        raw=[r.text for r in raw],
        finish_reason=[r.finish_reason for r in raw],
        caption=[filters.clean(r.text) for r in raw],
    )
    table["verdict"] = [judge(row) for row in table.itertuples()]
    kept = (table.verdict == "kept").mean()
    if kept < config.generate.min_yield:
        worst = table.verdict[table.verdict != "kept"].value_counts().index[0]
        raise PcclipError(
            f"{noun}: only {kept:.0%} were kept, less than generate.min_yield; most were {worst!r}: "
            "check the model and the prompt"
        )
    return table


def load(config: Config) -> pd.DataFrame:
    """id and caption of the kept rewrites that 01 stored. Raises PcclipError when it has none by this prompt."""
    if config.generate.rewrites is None:
        raise PcclipError("finetune.captions = rewrites needs generate.rewrites, a prompt file for 01 to write them")
    folder = config.source_folder / COMPARISONS
    finished(folder, rewrites=load_prompt(config.generate.rewrites, slots=("first",)).hash)
    table = read_parquet(folder / TABLE).to_pandas()
    return table.loc[table.verdict == "kept", ["id", "caption"]].reset_index(drop=True)


def fault(row) -> str | None:
    """Why a reply is no new caption at all, or None."""
    if row.finish_reason.startswith("error"):
        return "error"
    if row.finish_reason != "stop":
        return "unfinished"
    if not _SHORTEST <= len(row.caption.split()) <= _LONGEST:
        return "length"
    return "copied" if row.caption.strip(" .").lower() == row.original.strip(" .").lower() else None


def _verdict(row) -> str:
    return fault(row) or "kept"
