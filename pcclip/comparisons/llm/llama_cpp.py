"""A GGUF file in this process, through llama.cpp."""

import os
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from queue import SimpleQueue

from pcclip.comparisons.llm.choice import Choice, Odds, from_tokens, top_tokens
from pcclip.comparisons.llm.identity import gguf_identity, gguf_path
from pcclip.comparisons.llm.in_flight import as_answered
from pcclip.comparisons.llm.question import Question, Reply
from pcclip.comparisons.prompts import Prompt
from pcclip.config import Generate
from pcclip.errors import PcclipError

_FAILURES = (RuntimeError, LookupError, TypeError, AttributeError)
_TOP = 400  # tokens whose probabilities are asked for; SmolLM2 has 0.999 of its mass in them


class LlamaCpp:
    """`in_flight` questions at once, one engine and one thread each.

    llama.cpp's sums depend on what shares a batch, so engines do not share one; and on how much of the last prompt
    can be reused, so each question is preceded by a one-token reset that leaves exactly the prompt's prefix cached,
    and a choice, whose text shares little with the last one, reuses nothing.
    """

    _RESET = "§"

    def __init__(self, config: Generate, prompt: Prompt):
        path = gguf_path(config.gguf)
        self.identity = gguf_identity(path)
        self._config, self._prompt = config, prompt
        self._engines = SimpleQueue()
        for _ in range(config.in_flight):
            self._engines.put(_engine(path))

    def answers(self, questions: Iterable[Question]) -> Iterator[tuple[Question, Reply]]:
        return self._each(self._answer, questions)

    def choose(self, choices: Iterable[Choice]) -> Iterator[tuple[Choice, Odds]]:
        """Raw text, without the chat template: a small model continues it better than it answers questions."""
        return self._each(self._odds, choices)

    def _each(self, ask, items: Iterable) -> Iterator[tuple]:
        with ThreadPoolExecutor(self._config.in_flight) as pool:
            yield from as_answered(partial(pool.submit, self._with_engine, ask), items, 2 * self._config.in_flight)

    def _with_engine(self, ask, item):
        engine = self._engines.get()
        try:
            return ask(engine, item)
        finally:
            self._engines.put(engine)

    def _answer(self, engine, question: Question) -> Reply:
        try:
            reset = [*self._prompt.prefix, {"role": "user", "content": self._RESET}]
            engine.handle_chat_completions(
                {"messages": reset, "max_tokens": 1, "temperature": 0.0, "cache_prompt": True}
            )
            answer = engine.handle_chat_completions(
                {
                    "messages": self._prompt.messages(question.first, question.second),
                    "cache_prompt": True,
                    "max_tokens": self._config.max_tokens,
                    "temperature": self._config.temperature,
                    "top_p": self._config.top_p,
                    "seed": question.seed,
                }
            )
            choice = answer["choices"][0]
            return Reply(choice["message"].get("content") or "", str(choice["finish_reason"]))
        except _FAILURES as error:
            return Reply("", f"error: {error!r}")

    def _odds(self, engine, choice: Choice) -> Odds:
        try:
            answer = engine.handle_completions(
                {
                    "prompt": choice.text,
                    "n_predict": 1,
                    "temperature": 0.0,
                    "n_probs": _TOP,
                    "cache_prompt": False,
                    "ignore_eos": True,
                }
            )
            return from_tokens(top_tokens(answer["choices"][0]), choice)
        except _FAILURES as error:
            return Odds(None, f"error: {error!r}")


def _engine(path: Path):
    import xllamacpp

    parameters = xllamacpp.CommonParams()
    parameters.model.path = str(path)
    parameters.n_ctx, parameters.n_parallel, parameters.use_jinja = 2048, 1, True
    parameters.cache_ram_mib = 0  # else every engine keeps old prompts, up to 8 GiB
    parameters.cpuparams.n_threads = parameters.cpuparams_batch.n_threads = 1
    parameters.verbosity = int(os.environ.get("PCCLIP_LLAMA_VERBOSITY", "-1"))
    try:
        return xllamacpp.Server(parameters)
    except RuntimeError as error:
        raise PcclipError(f"{path}: llama.cpp cannot load it ({error}); it may be cut short, fetch it again") from None
