"""Other ways to say an attribute, written by a language model: the ensemble averages over them.

Replies are stored in a log under a key of everything that they depend on, so that no words are asked about twice.
"""

from collections.abc import Callable
from pathlib import Path

from pcclip.comparisons.llm import Backend, Question, Reply, backend_identity, start_backend
from pcclip.comparisons.llm.replies import without_reasoning
from pcclip.comparisons.prompts import Prompt, load_prompt
from pcclip.config import Generate
from pcclip.errors import PcclipError
from pcclip.ranking.axes import Query
from pcclip.runs.files import digest
from pcclip.runs.log import AnswerLog

_FORMAT = 1
_LONGEST = 12  # words of a phrase


def paraphrases(
    query: Query,
    settings: Generate,
    folder: Path,
    n: int = 8,
    start: Callable[[Generate, Prompt], Backend] = start_backend,
) -> list[tuple[str, str]]:
    """Up to n different pairs of phrases (more of the attribute, less of it), in lower case.

    Args:
        query: the typed words; without less, the language model finds the opposite.
        settings: the backend and how replies are sampled.
        folder: where the log of replies is kept.
        n: replies asked for; replies that are no pair of short phrases, or repeat one, are dropped.
        start: makes the backend when a reply is missing.

    Raises:
        PcclipError: the template backend, a package or model that is missing, or no usable reply.
    """
    if settings.backend == "template":
        raise PcclipError("generate.backend = template writes no paraphrases; name a language model's backend")
    prompt, identity = load_prompt("paraphrase"), backend_identity(settings)
    sampling = settings.model_dump(include={"temperature", "top_p", "max_tokens"})
    content = [_FORMAT, prompt.hash, identity, sampling, query.more, query.less]
    questions = [Question(digest([*content, number])[:32], query.more, query.less or "?") for number in range(n)]
    log = AnswerLog(folder / f"paraphrases-{digest(content[:4])[:12]}.jsonl", Reply, "paraphrases")
    replies = log.answer_all(questions, lambda missing: start(settings, prompt).answers(missing))
    typed = (query.more.lower(), (query.less or "").lower())
    pairs = dict.fromkeys(_phrases(replies[question.key]) for question in questions)
    if not (written := [pair for pair in pairs if pair and pair != typed]):
        reply = replies[questions[0].key]
        raise PcclipError(
            f"paraphrases of {query.more!r}: none of {n} replies is a pair of phrases ({reply.finish_reason}: "
            f"{reply.text[:60]!r}); use another language model, or leave paraphrases out"
        )
    return written


def _phrases(reply: Reply) -> tuple[str, str] | None:
    """The reply 'Big beasts | tiny creatures.' as ('big beasts', 'tiny creatures'); None for any other form."""
    lines = without_reasoning(reply.text).strip().splitlines()
    sides = [side.strip(" .\"'").lower() for side in lines[0].split("|")] if lines else []
    fits = reply.finish_reason == "stop" and len(sides) == 2 and sides[0] != sides[1]
    return (sides[0], sides[1]) if fits and all(1 <= len(side.split()) <= _LONGEST for side in sides) else None
