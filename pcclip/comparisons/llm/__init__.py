"""The language model that writes comparisons: in this process, behind a server, or a template as a baseline."""

from functools import partial
from importlib.util import find_spec

from pcclip.comparisons.llm.backend import Backend, Choice, LazyBackend, Odds, Question, Reply, Template
from pcclip.comparisons.llm.identity import backend_identity, gguf_path
from pcclip.comparisons.prompts import Prompt
from pcclip.config import Generate
from pcclip.errors import PcclipError

__all__ = [
    "NEEDS",
    "Backend",
    "Choice",
    "LazyBackend",
    "Odds",
    "Question",
    "Reply",
    "Template",
    "backend_identity",
    "gguf_path",
    "lazy_backend",
    "start_backend",
]

NEEDS = {  # backend -> (package, how to get it)
    "llama_cpp": ("xllamacpp", "`pip install xllamacpp` (`make setup` does it)"),
    "openai": ("httpx", "`pip install 'pcclip[paper]'`"),
    "transformers": ("accelerate", "`pip install 'pcclip[paper]'`"),
}


def lazy_backend(settings: Generate, prompt: Prompt) -> LazyBackend:
    """The backend of the parameters, which loads its model for the first question. Raises as `start_backend`, then."""
    return LazyBackend(backend_identity(settings), partial(start_backend, settings, prompt))


def start_backend(settings: Generate, prompt: Prompt) -> Backend:
    """The backend of the parameters with its model loaded. Raises PcclipError when its package or model is missing."""
    if settings.backend == "template":
        return Template()
    package, command = NEEDS[settings.backend]
    if find_spec(package) is None:
        raise PcclipError(f"generate.backend = {settings.backend} needs {package}: {command}")
    if settings.backend == "openai":
        from pcclip.comparisons.llm.openai_server import OpenAIServer

        return OpenAIServer(settings, prompt)
    if settings.backend == "transformers":
        from pcclip.comparisons.llm.transformers_model import TransformersModel

        return TransformersModel(settings, prompt)
    from pcclip.comparisons.llm.llama_cpp import LlamaCpp

    return LlamaCpp(settings, prompt)
