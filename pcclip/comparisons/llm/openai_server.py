"""Any server that speaks OpenAI's protocol: vLLM, llama.cpp's, a hosted one."""

import asyncio
import json
import os
import random
from collections.abc import Iterable, Iterator
from concurrent.futures import Future
from functools import partial
from itertools import cycle
from threading import Thread

import openai

from pcclip.comparisons.llm.choice import Choice, Odds, from_tokens, from_verdict, top_tokens
from pcclip.comparisons.llm.identity import server_identity
from pcclip.comparisons.llm.in_flight import as_answered
from pcclip.comparisons.llm.question import Question, Reply
from pcclip.comparisons.prompts import Prompt
from pcclip.config import Generate
from pcclip.errors import PcclipError
from pcclip.runs.progress import say

_FIRST_WAIT, _LONGEST_WAIT = 0.5, 8.0  # seconds between our own retries, as the client waits between its own
_CONNECT = 10.0  # seconds
_THREAD = "pcclip-requests"
_TOP = 20  # token probabilities; most servers give no more
_VERDICT_TOKENS = 64
_SCHEMA, _PROBABILITIES = "reply by JSON schema", "token probabilities"
_INSTEAD = {_SCHEMA: "asking for plain text", _PROBABILITIES: "asking in words"}
_REFUSALS = {400, 404, 405, 422, 501}
_VERDICT = {"answer": {"type": "string", "enum": ["first", "second", "neither"]}, "confidence": {"type": "number"}}
_AS_JSON = 'Reply with JSON only: {"answer": "first", "second" or "neither", "confidence": a number from 0 to 1}'


class _NoAnswer(Exception):
    """A whole reply of the server that does not hold what was asked for."""


class _Without(_NoAnswer):
    """A whole reply without the feature that was asked for."""


class OpenAIServer:
    """`in_flight` requests at once, on an event loop in a thread of its own, for a notebook's own loop is running.

    Several servers of one model are asked in turn.

    The client asks again after 429 (Retry-After honoured), 5xx, a lost connection, half a reply or a time-out; a
    reply that is whole but no answer is asked for again here. What fails all the same is an error reply, unless the
    server is not there, refuses the key or the model, or fails many times in a row: that ends the run.
    """

    def __init__(self, config: Generate, prompt: Prompt):
        self.identity = server_identity(config.llm, config.structured)
        self._config, self._prompt = config, prompt
        self._key = os.environ.get("OPENAI_API_KEY")
        self._granted, self._refused = set(), set()  # features that not every server has
        self._failed = 0  # in a row

    def answers(self, questions: Iterable[Question]) -> Iterator[tuple[Question, Reply]]:
        return self._each(self._answer, partial(Reply, ""), questions)

    def choose(self, choices: Iterable[Choice]) -> Iterator[tuple[Choice, Odds]]:
        """From the probabilities of the next token, or from a verdict in words where the server gives none."""
        return self._each(self._odds, partial(Odds, None), choices)

    def _each(self, ask, failed, items: Iterable) -> Iterator[tuple]:
        config = self._config
        client = openai.AsyncOpenAI(
            base_url=config.servers[0],
            api_key=self._key or "none",
            max_retries=config.retries,
            timeout=openai.Timeout(config.timeout, connect=min(_CONNECT, config.timeout)),
        )
        clients = cycle([client.with_options(base_url=url) for url in config.servers])  # of one pool of connections
        started = Future()
        Thread(target=asyncio.run, args=(_until_stopped(client, started),), name=_THREAD, daemon=True).start()
        loop, stop = started.result()
        try:
            yield from as_answered(
                lambda item: asyncio.run_coroutine_threadsafe(
                    self._safely(partial(ask, next(clients)), failed, item), loop
                ),
                items,
                config.in_flight,
            )
        finally:
            loop.call_soon_threadsafe(stop.set)  # and no waiting, which would never end while the interpreter ends

    async def _safely(self, ask, failed, item) -> Reply | Odds:
        try:
            found = await ask(item)
        except (openai.APIError, _NoAnswer) as error:
            return failed(self._reason(error))
        self._failed = 0
        return found

    async def _answer(self, client: openai.AsyncOpenAI, question: Question) -> Reply:
        config = self._config
        chat = partial(
            self._chat,
            client,
            messages=self._prompt.messages(question.first, question.second),
            seed=question.seed,
            max_tokens=config.max_tokens,
            temperature=config.temperature,
            top_p=config.top_p,
        )
        return await (self._where_granted(_SCHEMA, partial(_difference, chat), chat) if config.structured else chat())

    async def _odds(self, client: openai.AsyncOpenAI, choice: Choice) -> Odds:
        return await self._where_granted(
            _PROBABILITIES, partial(self._continued, client, choice), partial(self._verdict, client, choice)
        )

    async def _continued(self, client: openai.AsyncOpenAI, choice: Choice) -> Odds:
        top = await self._ask(
            client.completions, _top, prompt=choice.text, max_tokens=1, temperature=0.0, logprobs=_TOP
        )
        return from_tokens(top, choice)

    async def _verdict(self, client: openai.AsyncOpenAI, choice: Choice) -> Odds:
        if not choice.question:
            return Odds(None, "error: a stem about one thing needs token probabilities")
        messages = [{"role": "user", "content": f"{choice.question}\n{_AS_JSON}"}]
        chat = partial(self._chat, client, messages=messages, max_tokens=_VERDICT_TOKENS, temperature=0.0)
        by_schema = partial(chat, response_format=_schema(_VERDICT))
        return from_verdict((await self._where_granted(_SCHEMA, by_schema, chat)).text)

    async def _where_granted(self, feature: str, ask, instead):
        """What `ask` finds; what `instead` finds once the server has refused the feature before ever granting it."""
        if feature not in self._refused:
            try:
                found = await ask()
                self._granted.add(feature)
                return found
            except (openai.APIStatusError, _Without) as error:
                if feature in self._granted or getattr(error, "status_code", 400) not in _REFUSALS:
                    raise
                if feature not in self._refused:
                    say(f"{' '.join(self._config.servers)}: no {feature}, {_INSTEAD[feature]} ({self._line(error)})")
                self._refused.add(feature)
        return await instead()

    async def _chat(self, client: openai.AsyncOpenAI, **request) -> Reply:
        return await self._ask(client.chat.completions, _message, **request)

    async def _ask(self, resource, read, **request):
        """What `read` finds in the reply's first choice. Raises APIError, _NoAnswer, and what `read` raises."""
        for attempt in range(self._config.retries + 1):
            if attempt:
                await asyncio.sleep(min(_LONGEST_WAIT, _FIRST_WAIT * 2**attempt) * random.uniform(0.75, 1))
            raw = await resource.with_raw_response.create(model=self._config.llm, **request)
            try:
                return read(raw.http_response.json()["choices"][0])
            except (ValueError, LookupError, TypeError, AttributeError):
                found = " ".join(raw.http_response.text[:80].split())
        raise _NoAnswer(f"not an answer: {found!r}")

    def _reason(self, error: Exception) -> str:
        """'error: ...' for one question. Raises PcclipError when the next one would not fare better."""
        config, status = self._config, getattr(error, "status_code", None)
        asked = str(error.request.url) if isinstance(error, openai.APIError) else ""
        server = next((url for url in config.servers if asked.startswith(url)), config.servers[0])
        if status in (401, 403):
            raise PcclipError(f"{server}: refuses the key ({status}); set OPENAI_API_KEY to one that it takes")
        if status == 404:
            raise PcclipError(
                f"{server}: no model {config.llm!r} here ({self._line(error)}); generate.llm "
                "must be one of its /models, and generate.base_url end as its API does, mostly in /v1"
            )
        if type(error.__cause__).__name__ in ("ConnectError", "ConnectTimeout"):  # httpx's or httpx2's
            raise PcclipError(
                f"{server}: no server there; start one, e.g. `vllm serve {config.llm}`, or set "
                "generate.base_url, and run again: finished answers are kept"
            )
        self._failed += 1
        if self._failed > 20 + 2 * config.in_flight:
            raise PcclipError(
                f"{server}: {self._failed} questions in a row got no answer, the last: "
                f"{self._line(error)}; mend that and run again: finished answers are kept"
            )
        return f"error: {self._line(error)}"

    def _line(self, error: Exception) -> str:
        text = " ".join(str(error).split())
        return (text.replace(self._key, "***") if self._key else text)[:200]


async def _until_stopped(client: openai.AsyncOpenAI, started: Future) -> None:
    """Hand out the running loop and what stops it. asyncio.run then cancels the requests that are left."""
    stop = asyncio.Event()
    async with client:
        started.set_result((asyncio.get_running_loop(), stop))
        await stop.wait()


async def _difference(chat) -> Reply:
    reply = await chat(response_format=_schema({"difference": {"type": "string"}}))
    if reply.finish_reason != "stop":
        return reply  # cut short: no JSON, and no sentence either
    try:
        return Reply(str(json.loads(reply.text)["difference"]), "stop")
    except (ValueError, LookupError, TypeError):
        raise _NoAnswer(f"not the JSON that was asked for: {reply.text[:80]!r}") from None


def _schema(properties: dict) -> dict:
    schema = {"type": "object", "properties": properties, "required": list(properties), "additionalProperties": False}
    return {"type": "json_schema", "json_schema": {"name": "reply", "strict": True, "schema": schema}}


def _message(choice: dict) -> Reply:
    return Reply(choice["message"].get("content") or "", str(choice["finish_reason"]))


def _top(choice: dict) -> list[tuple[str, float]]:
    try:
        return top_tokens(choice)
    except LookupError as error:
        raise _Without(str(error)) from None
