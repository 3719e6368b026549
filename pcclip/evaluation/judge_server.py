"""A judge behind a server that speaks OpenAI's protocol, its requests and tokens counted.

A module of its own because it needs the package openai, which judges in this process do not need.
"""

import time
from collections import Counter
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from typing import Any

from pcclip.comparisons.llm.openai_server import OpenAIServer
from pcclip.comparisons.prompts import load_prompt
from pcclip.config import Generate
from pcclip.evaluation.llm_judge import Answer

_meter: ContextVar[Counter[str]] = ContextVar("meter")  # of the running task's question


class CaptionServer(OpenAIServer):
    """Judges captions: `choose` as of OpenAIServer, but yielding Answers, which hold the cost."""

    def __init__(self, settings: Generate):
        super().__init__(settings, load_prompt(settings.prompt))  # the prompt is not used

    async def _result(self, ask: Callable[[Any], Awaitable], failure: Callable[[str], Any], item: Any) -> Answer:
        meter: Counter[str] = Counter()
        started = time.monotonic()
        _meter.set(meter)  # every task has a context of its own
        odds = await super()._result(ask, failure, item)
        return Answer(odds.value, odds.reason, time.monotonic() - started, **{"requests": 0, **meter})

    async def _request(self, resource: Any, read: Callable[[dict], Any], **request: Any) -> Any:
        return await super()._request(_Counted(resource), read, **request)


class _Counted:
    """A resource of openai's client whose requests and tokens are counted."""

    def __init__(self, resource: Any):
        self._resource, self.with_raw_response = resource, self

    async def create(self, **request: Any) -> Any:
        meter = _meter.get()
        meter["requests"] += 1
        raw = await self._resource.with_raw_response.create(**request)
        meter["requests"] += raw.retries_taken
        try:
            usage = raw.http_response.json()["usage"]
            tokens = {"tokens_in": int(usage["prompt_tokens"]), "tokens_out": int(usage["completion_tokens"])}
        except (ValueError, LookupError, TypeError):
            return raw  # an unreadable reply, or a server that does not count
        meter.update(tokens, metered=1)
        return raw
