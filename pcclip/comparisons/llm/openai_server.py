"""A language model behind any server that speaks OpenAI's protocol: vLLM, llama.cpp's server, a hosted one."""

import asyncio
import json
import os
import random
from collections.abc import Awaitable, Callable, Iterable, Iterator
from concurrent.futures import Future
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from itertools import cycle
from threading import Thread
from typing import Any

import openai

from pcclip.comparisons.llm.backend import Choice, Item, Odds, Question, Reply, Result, as_completed
from pcclip.comparisons.llm.identity import backend_identity
from pcclip.comparisons.llm.odds import first_tokens, odds_of_tokens, odds_of_verdict
from pcclip.comparisons.prompts import Prompt
from pcclip.config import Generate
from pcclip.errors import PcclipError
from pcclip.runs.progress import say

_FIRST_WAIT, _LONGEST_WAIT = 0.5, 8.0  # seconds between retries of unreadable replies; openai's client waits as long
_CONNECT = 10.0  # seconds
_THREAD = "pcclip-requests"
_TOKENS = 20  # likeliest tokens that are read; most servers give no more
_VERDICT_TOKENS = 64
_SCHEMA, _PROBABILITIES = "reply by JSON schema", "token probabilities"
_FALLBACK = {_SCHEMA: "asking for plain text", _PROBABILITIES: "asking in words"}
_UNSUPPORTED = {400, 404, 405, 422, 501}  # statuses of a server without the feature
_VERDICT = {"answer": {"type": "string", "enum": ["first", "second", "neither"]}, "confidence": {"type": "number"}}
_AS_JSON = 'Reply with JSON only: {"answer": "first", "second" or "neither", "confidence": a number from 0 to 1}'
_HTTP = [import_module(name) for name in ("httpx", "httpx2") if find_spec(name)]  # openai uses httpx2 from version 3 on
_NO_SERVER = tuple(error for library in _HTTP for error in (library.ConnectError, library.ConnectTimeout))


class NoAnswer(Exception):
    """The server sent a whole reply, but the reply holds no answer."""


class NoProbabilities(NoAnswer):
    """The server sent a whole reply without token probabilities."""


class OpenAIServer:
    """`in_flight` requests at once, spread over one or several servers of the same model.

    Requests run on an event loop in a thread of its own, as a notebook's own loop is running already. openai's client
    repeats a request after status 429 (with Retry-After), 5xx, a lost connection, half a reply or a time-out; a whole
    but unreadable reply is asked for again here. What fails even so becomes an error reply. The run ends when there is
    no server, when it refuses the key or the model, or when many questions in a row fail.
    """

    def __init__(self, settings: Generate, prompt: Prompt):
        self.identity = backend_identity(settings)
        self._settings, self._prompt = settings, prompt
        self._key = os.environ.get("OPENAI_API_KEY")
        self._granted: set[str] = set()
        self._refused: set[str] = set()
        self._failures = 0  # in a row

    def answers(self, questions: Iterable[Question]) -> Iterator[tuple[Question, Reply]]:
        return self._spread(self._answer, partial(Reply, ""), questions)

    def choose(self, choices: Iterable[Choice]) -> Iterator[tuple[Choice, Odds]]:
        """From the probabilities of the next token, or from a verdict in words where the server gives none."""
        return self._spread(self._odds, partial(Odds, None), choices)

    def _spread(self, ask: Callable, failure: Callable[[str], Result], items: Iterable) -> Iterator[tuple]:
        """Ask about every item; `failure` makes the result of an item that got an error."""
        settings = self._settings
        client = openai.AsyncOpenAI(
            base_url=settings.servers[0],
            api_key=self._key or "none",
            max_retries=settings.retries,
            timeout=openai.Timeout(settings.timeout, connect=min(_CONNECT, settings.timeout)),
        )
        clients = cycle([client.with_options(base_url=url) for url in settings.servers])  # they share connections
        started: Future[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = Future()
        Thread(target=asyncio.run, args=(_run_loop(client, started),), name=_THREAD, daemon=True).start()
        loop, stop = started.result()

        def submit(item: Item) -> Future:
            return asyncio.run_coroutine_threadsafe(self._result(partial(ask, next(clients)), failure, item), loop)

        try:
            yield from as_completed(submit, items, settings.in_flight)
        finally:
            loop.call_soon_threadsafe(stop.set)  # waiting for the loop would hang while the interpreter shuts down

    async def _result(self, ask: Callable, failure: Callable[[str], Result], item: Item) -> Result:
        try:
            result = await ask(item)
        except (openai.APIError, NoAnswer) as error:
            return failure(f"error: {self._reason(error)}")
        self._failures = 0
        return result

    async def _answer(self, client: openai.AsyncOpenAI, question: Question) -> Reply:
        settings = self._settings
        chat = partial(
            self._chat,
            client,
            messages=self._prompt.messages(question.first, question.second),
            seed=question.seed,
            max_tokens=settings.max_tokens,
            temperature=settings.temperature,
            top_p=settings.top_p,
        )
        if settings.structured:
            return await self._with_fallback(_SCHEMA, partial(_structured_difference, chat), chat)
        return await chat()

    async def _odds(self, client: openai.AsyncOpenAI, choice: Choice) -> Odds:
        by_tokens = partial(self._odds_by_tokens, client, choice)
        return await self._with_fallback(_PROBABILITIES, by_tokens, partial(self._odds_in_words, client, choice))

    async def _odds_by_tokens(self, client: openai.AsyncOpenAI, choice: Choice) -> Odds:
        tokens = await self._request(
            client.completions, _first_tokens, prompt=choice.text, max_tokens=1, temperature=0.0, logprobs=_TOKENS
        )
        return odds_of_tokens(tokens, choice)

    async def _odds_in_words(self, client: openai.AsyncOpenAI, choice: Choice) -> Odds:
        if not choice.question:
            return Odds(None, "error: a stem about one thing needs token probabilities")
        messages = [{"role": "user", "content": f"{choice.question}\n{_AS_JSON}"}]
        chat = partial(self._chat, client, messages=messages, max_tokens=_VERDICT_TOKENS, temperature=0.0)
        reply = await self._with_fallback(_SCHEMA, partial(chat, response_format=_schema(_VERDICT)), chat)
        return odds_of_verdict(reply.text)

    async def _with_fallback(
        self, feature: str, ask: Callable[[], Awaitable], fallback: Callable[[], Awaitable]
    ) -> Any:
        """Ask with a feature that some servers lack; once a server that never granted it refuses it, use `fallback`."""
        if feature not in self._refused:
            try:
                result = await ask()
                self._granted.add(feature)
                return result
            except (openai.APIStatusError, NoProbabilities) as error:
                unsupported = isinstance(error, NoProbabilities) or error.status_code in _UNSUPPORTED
                if feature in self._granted or not unsupported:
                    raise
                if feature not in self._refused:
                    servers = " ".join(self._settings.servers)
                    say(f"{servers}: no {feature}, {_FALLBACK[feature]} ({self._one_line(error)})")
                self._refused.add(feature)
        return await fallback()

    async def _chat(self, client: openai.AsyncOpenAI, **request: Any) -> Reply:
        return await self._request(client.chat.completions, _reply, **request)

    async def _request(self, resource: Any, read: Callable[[dict], Result], **request: Any) -> Result:
        """Send a request until `read` can read the first choice of its reply. Raises APIError, NoAnswer."""
        for attempt in range(self._settings.retries + 1):
            if attempt:
                await asyncio.sleep(min(_LONGEST_WAIT, _FIRST_WAIT * 2**attempt) * random.uniform(0.75, 1))
            raw = await resource.with_raw_response.create(model=self._settings.llm, **request)
            try:
                return read(raw.http_response.json()["choices"][0])
            except (ValueError, LookupError, TypeError, AttributeError):
                beginning = " ".join(raw.http_response.text[:80].split())
        raise NoAnswer(f"not an answer: {beginning!r}")

    def _reason(self, error: openai.APIError | NoAnswer) -> str:
        """Why one question failed. Raises PcclipError when the next question would fail for the same reason."""
        servers, line = self._settings.servers, self._one_line(error)
        url = str(error.request.url) if isinstance(error, openai.APIError) else ""
        server = next((server for server in servers if url.startswith(server)), servers[0])
        if isinstance(error, openai.AuthenticationError | openai.PermissionDeniedError):
            raise PcclipError(
                f"{server}: refuses the key ({error.status_code}); set OPENAI_API_KEY to one that it takes"
            )
        if isinstance(error, openai.NotFoundError):
            raise PcclipError(
                f"{server}: no model {self._settings.llm!r} here ({line}); generate.llm "
                "must be one of its /models, and generate.base_url end as its API does, mostly in /v1"
            )
        if isinstance(error.__cause__, _NO_SERVER):
            raise PcclipError(
                f"{server}: no server there; start one, e.g. `vllm serve {self._settings.llm}`, or set "
                "generate.base_url, and run again: finished answers are kept"
            )
        self._failures += 1
        if self._failures > 20 + 2 * self._settings.in_flight:
            raise PcclipError(
                f"{server}: {self._failures} questions in a row got no answer, the last: "
                f"{line}; mend that and run again: finished answers are kept"
            )
        return line

    def _one_line(self, error: Exception) -> str:
        """The error's text on one line, short and without the key."""
        text = " ".join(str(error).split())
        return (text.replace(self._key, "***") if self._key else text)[:200]


async def _run_loop(
    client: openai.AsyncOpenAI, started: "Future[tuple[asyncio.AbstractEventLoop, asyncio.Event]]"
) -> None:
    """Hand out the running loop and the event that ends it. asyncio.run then cancels the requests that are left."""
    stop = asyncio.Event()
    async with client:
        started.set_result((asyncio.get_running_loop(), stop))
        await stop.wait()


async def _structured_difference(chat: Callable[..., Awaitable[Reply]]) -> Reply:
    reply = await chat(response_format=_schema({"difference": {"type": "string"}}))
    if reply.finish_reason != "stop":
        return reply  # cut short: neither JSON nor a whole sentence
    try:
        return Reply(str(json.loads(reply.text)["difference"]), "stop")
    except (ValueError, LookupError, TypeError):
        raise NoAnswer(f"not the JSON that was asked for: {reply.text[:80]!r}") from None


def _schema(properties: dict) -> dict:
    schema = {"type": "object", "properties": properties, "required": list(properties), "additionalProperties": False}
    return {"type": "json_schema", "json_schema": {"name": "reply", "strict": True, "schema": schema}}


def _reply(completion: dict) -> Reply:
    return Reply(completion["message"].get("content") or "", str(completion["finish_reason"]))


def _first_tokens(completion: dict) -> list[tuple[str, float]]:
    try:
        return first_tokens(completion)
    except LookupError as error:
        raise NoProbabilities(str(error)) from None
