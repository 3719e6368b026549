"""A language model behind any server that speaks OpenAI's protocol: vLLM, llama.cpp's server, a hosted one."""

import asyncio
import json
import os
import random
import re
import time
from base64 import b64encode
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Set
from concurrent.futures import Future
from functools import cache, partial
from itertools import cycle
from threading import Thread
from typing import Any
from urllib.request import getproxies

import httpx

from pcclip.comparisons.llm.backend import Choice, Item, Odds, Question, Reply, Result, as_completed
from pcclip.comparisons.llm.identity import backend_identity
from pcclip.comparisons.llm.odds import first_tokens, odds_of_tokens, odds_of_verdict
from pcclip.comparisons.llm.replies import NoAnswer, difference_of, reply_of
from pcclip.comparisons.prompts import Prompt
from pcclip.config import Generate, without_password
from pcclip.errors import PcclipError
from pcclip.runs.files import from_json
from pcclip.runs.progress import say

_FIRST_WAIT, _LONGEST_WAIT, _LONGEST_RETRY_AFTER = 0.5, 8.0, 60.0  # seconds between tries
_CONNECT = 10.0  # seconds
_ABSENT = 60.0  # seconds until a server that was not there is asked again
_LARGEST = 2_000_000  # bytes of a reply
_SHORTEST_SECRET = 6  # characters; a shorter key may be a word of an answer
_TRIED_AGAIN = {408, 409, 425, 429}
_UNSUPPORTED = {400, 404, 405, 415, 422, 501}  # statuses of a server without the feature
_CHAT, _COMPLETIONS = "chat/completions", "completions"
_FIELDS = {  # a field that some servers refuse -> what is sent in its place
    "response_format": "plain text is asked for",
    "seed": "left out",
    "top_p": "left out",
    "temperature": "left out",
    "max_tokens": "max_completion_tokens is sent",
    "max_completion_tokens": "left out",
}
_VERDICT = {"answer": {"type": "string", "enum": ["first", "second", "neither"]}, "confidence": {"type": "number"}}
_AS_JSON = 'Reply with JSON only: {"answer": "first", "second" or "neither", "confidence": a number from 0 to 1}'
_NOBODY = 0  # in place of a status where there is no server
_NO_SERVER = (httpx.ConnectError, httpx.ConnectTimeout, httpx.ProxyError, httpx.UnsupportedProtocol, httpx.InvalidURL)
_UNREADABLE = (ValueError, LookupError, TypeError, AttributeError, RecursionError)


class Refused(NoAnswer):
    """The server refuses a request; `status` is HTTP's, `field` the field of the request that it names, or ''."""

    def __init__(self, text: str, status: int, server: str = "", field: str = ""):
        super().__init__(text)
        self.status, self.server, self.field = status, server, field


class OpenAIServer:
    """`in_flight` requests at once, spread over one or several servers of the same model.

    Requests run on an event loop in a thread of its own, as a notebook's own loop is running already. A request is
    repeated after status 429 (with Retry-After), 5xx, a lost connection, an unreadable reply or a time-out. A field
    that the server refuses is left out from then on. What one server fails at the next one is asked. A server that is
    not there or does not answer in time gets no requests for a minute. What fails even so becomes an error reply. The run
    ends when there is no server, when one refuses the key or the model, or when many questions in a row fail.
    """

    def __init__(self, settings: Generate, prompt: Prompt):
        self.identity = backend_identity(settings)
        self._settings, self._prompt = settings, prompt
        self._key, self._secrets = _secrets(settings)
        self._accepted: dict[str, set[str]] = defaultdict(set)  # fields by the end of the URL
        self._refused: dict[str, set[str]] = defaultdict(set)
        self._absent_until: dict[str, float] = {}  # on the monotonic clock
        self._failures = 0  # in a row

    def answers(self, questions: Iterable[Question]) -> Iterator[tuple[Question, Reply]]:
        return self._spread(self._answer, partial(Reply, ""), questions)

    def choose(self, choices: Iterable[Choice]) -> Iterator[tuple[Choice, Odds]]:
        """From the probabilities of the next token, or from a verdict in words where the server gives none."""
        return self._spread(self._odds, partial(Odds, None), choices)

    def _spread(self, ask: Callable, failure: Callable[[str], Result], items: Iterable) -> Iterator[tuple]:
        """Ask about every item; `failure` makes the result of an item that got an error."""
        client, servers = self._client(), cycle(self._settings.servers)
        started: Future[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = Future()
        Thread(target=asyncio.run, args=(_run_loop(client, started),), name="pcclip-requests", daemon=True).start()
        loop, stop = started.result()

        def submit(item: Item) -> Future:
            send = partial(self._send, client, next(servers))
            return asyncio.run_coroutine_threadsafe(self._result(partial(ask, send), failure, item), loop)

        try:
            yield from as_completed(submit, items, self._settings.in_flight)
        finally:
            loop.call_soon_threadsafe(stop.set)  # waiting for the loop would hang while the interpreter shuts down

    def _client(self) -> httpx.AsyncClient:
        """Connections, through the environment's proxies. Raises PcclipError for a proxy that cannot be used."""
        try:
            return httpx.AsyncClient(
                headers={
                    "Authorization": f"Bearer {self._key or 'none'}",
                    "Content-Type": "application/json",
                    "Accept-Encoding": "identity",
                },
                timeout=httpx.Timeout(None, connect=min(_CONNECT, self._settings.timeout)),
                limits=httpx.Limits(max_connections=self._settings.in_flight),
                verify=_certificates(),
                follow_redirects=True,
            )
        except (ImportError, ValueError, httpx.InvalidURL) as error:
            raise PcclipError(
                f"the proxy of $HTTP_PROXY, $HTTPS_PROXY or $ALL_PROXY cannot be used ({self._one_line(error)}); mend or "
                "unset it; a socks5:// proxy needs `pip install 'httpx[socks]'`"
            ) from None

    async def _result(self, ask: Callable[[Item], Awaitable], failure: Callable[[str], Result], item: Item) -> Result:
        try:
            result = await ask(item)
        except NoAnswer as error:
            return failure(f"error: {self._reason(error)}")
        self._failures = 0
        return result

    async def _answer(self, send: Callable, question: Question) -> Reply:
        settings = self._settings
        fields = {
            "messages": self._prompt.messages(question.first, question.second),
            "seed": question.seed % 2**31,  # some servers take no larger one
            "max_tokens": settings.max_tokens,
            "temperature": settings.temperature,
            "top_p": settings.top_p,
            "response_format": _schema({"difference": {"type": "string"}}) if settings.structured else None,
        }
        reply = await send(_CHAT, reply_of, fields)
        if settings.structured and reply.finish_reason == "stop":  # otherwise neither JSON nor a whole sentence
            reply = Reply(difference_of(reply.text), "stop")
        return Reply(self._without_secrets(reply.text), reply.finish_reason)

    async def _odds(self, send: Callable, choice: Choice) -> Odds:
        if "logprobs" not in self._refused[_COMPLETIONS]:
            fields = {
                "prompt": choice.text,
                "max_tokens": 1,
                "temperature": 0.0,
                "logprobs": 20,
            }  # most servers give no more
            try:
                return await send(_COMPLETIONS, partial(_odds_of_tokens, choice), fields)
            except Refused as error:
                if "logprobs" in self._accepted[_COMPLETIONS] or error.status not in _UNSUPPORTED:
                    raise
                self._refuse(_COMPLETIONS, "logprobs", f"no token probabilities, asking in words ({error})")
        if not choice.question:
            return Odds(
                None, "error: a stem about one thing needs token probabilities, which this server does not give"
            )
        messages = [{"role": "user", "content": f"{choice.question}\n{_AS_JSON}"}]
        fields = {"messages": messages, "max_tokens": 64, "temperature": 0.0, "response_format": _schema(_VERDICT)}
        reply = await send(_CHAT, reply_of, fields)
        return odds_of_verdict(self._without_secrets(reply.text))

    async def _send(
        self, client: httpx.AsyncClient, server: str, path: str, read: Callable[[dict], Result], fields: dict[str, Any]
    ) -> Result:
        """Send a request without the fields that the server refuses. Raises NoAnswer and PcclipError as `_post`.

        A field counts as refused when the server names it (or the reply's format, which some do not name), has never
        accepted it, and answers without it.
        """
        own = {"model": self._settings.llm, **fields}
        own |= {name: value for name, value in self._settings.request.items() if path == _CHAT or name in own}
        refusals: dict[str, Refused] = {}
        while True:
            body = _without(own, self._refused[path] | refusals.keys())
            try:
                result = await self._post(client, server, path, read, body)
            except Refused as error:
                field = error.field or "response_format"
                if error.status not in _UNSUPPORTED or field not in body or field in self._accepted[path]:
                    raise next(iter(refusals.values()), error) from None
                refusals[field] = error
            else:
                for field, refusal in refusals.items():
                    self._refuse(path, field, f"refuses {field}, {_FIELDS[field]} ({refusal})")
                self._accepted[path] |= body.keys()
                return result

    def _refuse(self, path: str, field: str, message: str) -> None:
        """Leave a field out of later requests, and say so once."""
        if field not in self._refused[path]:
            self._refused[path].add(field)
            say(f"{self._servers}: {self._one_line(message)}")

    async def _post(
        self, client: httpx.AsyncClient, first: str, path: str, read: Callable[[dict], Result], body: dict[str, Any]
    ) -> Result:
        """Post to server after server, from the `first`, until `read` can read the reply's first choice. Raises NoAnswer."""
        failure, wait, content = NoAnswer(), 0.0, json.dumps(body, default=str)
        for attempt in range(self._settings.retries + len(self._settings.servers)):
            await asyncio.sleep(wait)
            server = self._reachable(first, attempt)
            wait = min(_LONGEST_WAIT, _FIRST_WAIT * 2**attempt) * random.uniform(0.75, 1)
            text = ""
            try:
                async with asyncio.timeout(self._settings.timeout):
                    response, text = await _exchange(client, f"{server.rstrip('/')}/{path}", content)
                text = self._without_secrets(text)  # before any message cuts one in two
                if response.is_success:
                    return read(from_json(text)["choices"][0])
                failure = _refusal(server, response.status_code, text, body)
                if response.status_code not in _TRIED_AGAIN and response.status_code < 500:
                    break
                delay = response.headers.get("retry-after", "")
                wait = min(_LONGEST_RETRY_AFTER, float(delay)) if re.fullmatch(r"\d{1,9}(\.\d+)?", delay) else wait
            except _UNREADABLE:
                failure = NoAnswer(f"not an answer: {_complaint(text)[0][:80]!r}")
            except (*_NO_SERVER, TimeoutError, httpx.TimeoutException) as error:
                failure = NoAnswer(f"no whole reply within {self._settings.timeout:g} s")
                if isinstance(error, _NO_SERVER):
                    failure = Refused(f"no server there ({type(error).__name__}: {error})", _NOBODY, server)
                news = server not in self._absent_until
                self._absent_until[server] = time.monotonic() + _ABSENT
                if self._reachable(server) != server:
                    wait = 0.0
                    if news:
                        say(f"{without_password(server)}: {self._one_line(failure)}; the others get its requests")
            except httpx.RequestError as error:
                failure = NoAnswer(f"{type(error).__name__}: {error}")
        raise failure

    def _reachable(self, server: str, attempt: int = 0) -> str:
        """The server whose turn it is `attempt` after `server`, or the next that was not absent within the last minute."""
        servers, now = self._settings.servers, time.monotonic()
        start = (servers.index(server) + attempt) % len(servers)
        turn = [*servers[start:], *servers[:start]]
        return next((other for other in turn if self._absent_until.get(other, 0.0) <= now), turn[0])

    def _reason(self, error: NoAnswer) -> str:
        """Why one question failed. Raises PcclipError when the next question would fail for the same reason."""
        line, status = self._one_line(error), getattr(error, "status", None)
        server = without_password(getattr(error, "server", "")) or self._servers
        if status == _NOBODY:
            variables = " or ".join(f"${name.upper()}_PROXY" for name in getproxies() if name != "no")
            raise PcclipError(
                f"{server}: {line}{variables and f', through the proxy of {variables}'}; start one, "
                f"e.g. `vllm serve {self._settings.llm}`, or set generate.base_url, and run again: finished answers are "
                "kept"
            )
        if status in (401, 403):
            raise PcclipError(f"{server}: refuses the key ({status}); set OPENAI_API_KEY to one that it takes")
        if status == 404:
            raise PcclipError(
                f"{server}: no model {self._settings.llm!r} here ({line}); generate.llm "
                "must be one of its /models, and generate.base_url end as its API does, mostly in /v1"
            )
        self._failures += 1
        if self._failures > 20 + 2 * self._settings.in_flight:
            raise PcclipError(
                f"{server}: {self._failures} questions in a row got no answer, the last: "
                f"{line}; mend that and run again: finished answers are kept"
            )
        return line

    @property
    def _servers(self) -> str:
        return without_password(" ".join(self._settings.servers))

    def _one_line(self, error: object) -> str:
        """A message on one line, short and without a secret."""
        return without_password(self._without_secrets(" ".join(str(error).split()), 1))[:200]

    def _without_secrets(self, text: str, shortest: int = _SHORTEST_SECRET) -> str:
        for secret in self._secrets:
            text = text.replace(secret, "***") if len(secret) >= shortest else text
        return text


_certificates = cache(httpx.create_ssl_context)  # reading them takes as long as a hundred requests


def _secrets(settings: Generate) -> tuple[str, list[str]]:
    """The key, and every text that must not be shown. Raises PcclipError for a key or a URL that cannot be sent."""
    key = os.environ.get("OPENAI_API_KEY", "").strip()
    if not (key.isascii() and key.isprintable() and " " not in key):
        raise PcclipError("$OPENAI_API_KEY: a key has no line break, space, curly quote or accent; copy it again")
    secrets = [key]
    for server in settings.servers:
        try:
            url = httpx.URL(server)
        except (httpx.InvalidURL, ValueError) as error:
            raise PcclipError(f"generate.base_url = {without_password(server)}: no URL ({error}); mend it") from None
        basic = b64encode(f"{url.username}:{url.password}".encode()).decode()
        secrets += [basic, url.password, url.userinfo.decode().partition(":")[2]] if url.password else []
    return key, [form for secret in secrets if secret for form in (secret, secret.replace("/", "\\/"))]


async def _run_loop(
    client: httpx.AsyncClient, started: "Future[tuple[asyncio.AbstractEventLoop, asyncio.Event]]"
) -> None:
    """Hand out the running loop and the event that ends it. asyncio.run then cancels the requests that are left."""
    stop = asyncio.Event()
    async with client:
        started.set_result((asyncio.get_running_loop(), stop))
        await stop.wait()


async def _exchange(client: httpx.AsyncClient, url: str, content: str) -> tuple[httpx.Response, str]:
    """A response and its text. Raises NoAnswer for more than _LARGEST bytes, also after they are unpacked."""
    body = bytearray()
    async with client.stream("POST", url, content=content) as response:
        packed = response.headers.get("content-encoding", "identity").lower()
        if packed not in ("identity", "gzip", "deflate"):  # others could unpack without bounds
            raise NoAnswer(f"a reply in content-encoding {packed[:40]!r}, which was not asked for")
        async for part in response.aiter_bytes():
            body += part
            if len(body) > _LARGEST:
                raise NoAnswer(f"a reply of more than {_LARGEST / 1e6:g} MB; lower generate.max_tokens")
    return response, body.decode("utf-8-sig", "replace")


def _refusal(server: str, status: int, text: str, body: Mapping[str, Any]) -> Refused:
    """A status that is no success, with the field of the request that the server names as the cause."""
    message, parameter = _complaint(text)
    named = [name for name in _FIELDS if name in body and re.search(rf"\b{name}\b", text)]
    if "context" in message.lower():  # the question is too long, whatever fields the message names
        named = []
    field = parameter if parameter in named else next(iter(named), "")
    return Refused(f"HTTP {status}: {message}", status, server, field)


def _complaint(text: str) -> tuple[str, str]:
    """The message of a reply that is an error, and the parameter that it is about; else the reply itself."""
    try:
        error = from_json(text)["error"]
        return str(error["message"]), str(error.get("param"))
    except _UNREADABLE:
        return text, ""


def _without(fields: Mapping[str, Any], refused: Set[str]) -> dict[str, Any]:
    """The fields that are not refused and have a value."""
    if "max_tokens" in refused and "max_tokens" in fields:
        fields = {"max_completion_tokens": fields["max_tokens"], **fields}
    return {name: value for name, value in fields.items() if name not in refused and value is not None}


def _schema(properties: dict) -> dict:
    schema = {"type": "object", "properties": properties, "required": list(properties), "additionalProperties": False}
    return {"type": "json_schema", "json_schema": {"name": "reply", "strict": True, "schema": schema}}


def _odds_of_tokens(choice: Choice, completion: dict) -> Odds:
    try:
        return odds_of_tokens(first_tokens(completion), choice)
    except LookupError as error:
        raise Refused(str(error), 501) from None
