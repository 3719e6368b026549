"""A GGUF file in this process, through llama.cpp."""

import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from pcclip.comparisons.llm.backend import Choice, Item, Odds, Question, Reply, Result, as_completed
from pcclip.comparisons.llm.identity import backend_identity, gguf_path
from pcclip.comparisons.llm.odds import first_tokens, odds_of_tokens
from pcclip.comparisons.llm.replies import reply_of
from pcclip.comparisons.prompts import Prompt
from pcclip.config import Generate
from pcclip.errors import PcclipError

_FAILURES = (RuntimeError, ValueError, LookupError, TypeError, AttributeError)  # also NoAnswer
_RESET = "§"
_TOKENS = 400  # likeliest tokens that are read; for SmolLM2 they hold 0.999 of the probability


class LlamaCpp:
    """`in_flight` questions at once, one engine and one thread each.

    llama.cpp's sums depend on what shares a batch, so no two questions share an engine. They depend on how much of the
    last prompt is reused, too: before each question a one-token reset leaves exactly the prompt's prefix in the cache,
    and a choice, whose text has little in common with the last one, reuses nothing.
    """

    def __init__(self, settings: Generate, prompt: Prompt):
        self.identity = backend_identity(settings)
        self._settings, self._prompt = settings, prompt
        self._engines: SimpleQueue[Any] = SimpleQueue()
        for _ in range(settings.in_flight):
            self._engines.put(start_engine(gguf_path(settings.gguf)))

    def answers(self, questions: Iterable[Question]) -> Iterator[tuple[Question, Reply]]:
        return self._spread(self._answer, questions)

    def choose(self, choices: Iterable[Choice]) -> Iterator[tuple[Choice, Odds]]:
        """The text goes in without the chat template: a small model continues a text better than it answers."""
        return self._spread(self._odds, choices)

    def _spread(self, ask: Callable[[Any, Item], Result], items: Iterable[Item]) -> Iterator[tuple[Item, Result]]:
        def with_engine(item: Item) -> Result:
            engine = self._engines.get()
            try:
                return ask(engine, item)
            finally:
                self._engines.put(engine)

        with ThreadPoolExecutor(self._settings.in_flight) as pool:
            yield from as_completed(lambda item: pool.submit(with_engine, item), items, 2 * self._settings.in_flight)

    def _answer(self, engine: Any, question: Question) -> Reply:
        reset = {
            "messages": [*self._prompt.prefix, {"role": "user", "content": _RESET}],
            "max_tokens": 1,
            "temperature": 0.0,
            "cache_prompt": True,
        }
        request = {
            "messages": self._prompt.messages(question.first, question.second),
            "cache_prompt": True,
            "max_tokens": self._settings.max_tokens,
            "temperature": self._settings.temperature,
            "top_p": self._settings.top_p,
            "seed": question.seed,
        }
        try:
            engine.handle_chat_completions(reset)
            return reply_of(engine.handle_chat_completions(request)["choices"][0])
        except _FAILURES as error:
            return Reply("", f"error: {error!r}")

    def _odds(self, engine: Any, choice: Choice) -> Odds:
        request = {
            "prompt": choice.text,
            "n_predict": 1,
            "temperature": 0.0,
            "n_probs": _TOKENS,
            "cache_prompt": False,
            "ignore_eos": True,
        }
        try:
            return odds_of_tokens(first_tokens(engine.handle_completions(request)["choices"][0]), choice)
        except _FAILURES as error:
            return Odds(None, f"error: {error!r}")


def start_engine(path: Path) -> Any:
    """llama.cpp's server with the model loaded, on one thread. Raises PcclipError when the file cannot be loaded."""
    import xllamacpp

    parameters = xllamacpp.CommonParams()
    parameters.model.path = str(path)
    parameters.n_ctx, parameters.n_parallel, parameters.use_jinja = 2048, 1, True
    parameters.cache_ram_mib = 0  # otherwise every engine keeps up to 8 GiB of old prompts
    parameters.cpuparams.n_threads = parameters.cpuparams_batch.n_threads = 1
    parameters.verbosity = int(os.environ.get("PCCLIP_LLAMA_VERBOSITY", "-1"))
    try:
        return xllamacpp.Server(parameters)
    except RuntimeError as error:
        raise PcclipError(f"{path}: llama.cpp cannot load it ({error}); it may be cut short, fetch it again") from None
