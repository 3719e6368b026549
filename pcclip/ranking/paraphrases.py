"""Other ways to say an attribute, written by the language model: the ensemble of texts for an axis is made of them.

Every reply is journalled under a key made of all that it depends on, so that the same words are never asked twice.
"""

from collections.abc import Callable
from pathlib import Path

from pcclip.comparisons.llm import Backend, Question, Reply, backend_identity, start_backend
from pcclip.comparisons.prompts import Prompt, load_prompt
from pcclip.config import Generate
from pcclip.errors import PcclipError
from pcclip.runs.files import digest
from pcclip.runs.log import AnswerLog

_FORMAT, _LONGEST = 1, 12  # words of one side


def paraphrases(
    more: str,
    less: str | None,
    settings: Generate,
    journals: Path,
    n: int = 8,
    prompt: str = "paraphrase",
    start: Callable[[Generate, Prompt], Backend] = start_backend,
) -> list[tuple[str, str]]:
    """Up to n different pairs of phrases, what has more of an attribute and what has less.

    Args:
        more, less: what a person typed; without less the language model finds the opposite.
        settings: the backend and how replies are sampled.
        journals: the folder of the journal.
        n: how often the model is asked; replies that are no pair of short phrases, or are there already, are left out.
        prompt: a prompt file with {first} and {second}.
        start: makes the backend when something is left to ask.

    Raises:
        PcclipError: the template backend, a package or model that is not there, or no reply that can be used.
    """
    if settings.backend == "template":
        raise PcclipError("generate.backend = template writes no paraphrases; name a language model's backend")
    asked, identity = load_prompt(prompt), backend_identity(settings)
    sampling = settings.model_dump(include={"temperature", "top_p", "max_tokens"})
    content = [_FORMAT, asked.hash, identity, sampling, more, less]
    questions = [Question(digest([*content, number])[:32], more, less or "?") for number in range(n)]
    path = Path(journals) / f"paraphrases-{digest(content[:4])[:12]}.jsonl"
    replies = AnswerLog(path, Reply, "paraphrases").answer_all(
        questions, lambda rest: start(settings, asked).answers(rest)
    )
    found = [_pair(replies[question.key]) for question in questions]
    kept = [pair for pair in dict.fromkeys(found) if pair and pair != (more.lower(), (less or "").lower())]
    if not kept:
        said = replies[questions[0].key]
        raise PcclipError(
            f"paraphrases of {more!r}: none of {n} replies is a pair of phrases ({said.finish_reason}: "
            f"{said.text[:60]!r}); use another language model, or leave paraphrases out"
        )
    return kept


def _pair(reply: Reply) -> tuple[str, str] | None:
    """'Big beasts | tiny creatures.' as ('big beasts', 'tiny creatures'), or None when it is nothing of the kind."""
    lines = reply.text.strip().splitlines()
    sides = [side.strip(" .\"'").lower() for side in lines[0].split("|")] if lines else []
    fits = reply.finish_reason == "stop" and len(sides) == 2 and sides[0] != sides[1]
    return (sides[0], sides[1]) if fits and all(1 <= len(side.split()) <= _LONGEST for side in sides) else None
