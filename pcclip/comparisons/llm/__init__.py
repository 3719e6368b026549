"""Who writes the comparison: a language model in this process or behind a server, or a template as a baseline.

A backend answers questions in any order and says which model it is. Answers depend on the question and its seed
alone, not on what else was in flight, so that a run which was killed and resumed equals one which was not; how far
a server keeps to that is the server's affair.
"""

from collections.abc import Iterable, Iterator
from importlib.util import find_spec

from pcclip.comparisons.llm.asker import Asker
from pcclip.comparisons.llm.choice import Choice, Odds
from pcclip.comparisons.llm.identity import gguf_identity, gguf_path, server_identity, weights_identity
from pcclip.comparisons.llm.question import Backend, Question, Reply
from pcclip.comparisons.prompts import Prompt
from pcclip.comparisons.sentences import from_captions
from pcclip.config import Generate
from pcclip.errors import PcclipError

__all__ = [
    "NEEDS",
    "Asker",
    "Backend",
    "Choice",
    "Odds",
    "Question",
    "Reply",
    "Template",
    "backend_identity",
    "gguf_identity",
    "gguf_path",
    "start_backend",
]

NEEDS = {  # backend -> package and how to get it
    "llama_cpp": ("xllamacpp", "`pip install xllamacpp` (`make setup` does it)"),
    "openai": ("openai", "`pip install 'pcclip[paper]'`"),
    "transformers": ("accelerate", "`pip install 'pcclip[paper]'`"),
}


class Template:
    """No language model: the two captions in one sentence. A baseline to compare with."""

    identity = "template-1"

    def answers(self, questions: Iterable[Question]) -> Iterator[tuple[Question, Reply]]:
        for question in questions:
            yield question, Reply(from_captions(question.first, question.second), "stop")

    def choose(self, choices: Iterable[Choice]) -> Iterator[tuple[Choice, Odds]]:
        raise PcclipError(
            "generate.backend = template cannot judge attributes; name a language model's backend, "
            "or leave generate.attributes out"
        )


def backend_identity(config: Generate) -> str:
    """What the backend will be, without starting it: for the key of the stage."""
    if config.backend == "openai":
        return server_identity(config.llm, config.structured)
    if config.backend == "transformers":
        return weights_identity(config.llm)
    return Template.identity if config.backend == "template" else gguf_identity(gguf_path(config.gguf))


def start_backend(config: Generate, prompt: Prompt) -> Backend:
    """The backend of the parameters, its model loaded. Raises PcclipError when its package or model is not there."""
    if config.backend == "template":
        return Template()
    package, how = NEEDS[config.backend]
    if find_spec(package) is None:
        raise PcclipError(f"generate.backend = {config.backend} needs {package}: {how}")
    if config.backend == "openai":
        from pcclip.comparisons.llm.openai_server import OpenAIServer

        return OpenAIServer(config, prompt)
    if config.backend == "transformers":
        from pcclip.comparisons.llm.transformers_model import InProcess

        return InProcess(config, prompt)
    from pcclip.comparisons.llm.llama_cpp import LlamaCpp

    return LlamaCpp(config, prompt)
