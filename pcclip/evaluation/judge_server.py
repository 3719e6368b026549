"""A judge behind a server that speaks OpenAI's protocol, its requests and tokens counted.

A module of its own because it needs the package httpx, which judges in this process do not need.
"""

import time
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any

from pcclip.comparisons.llm.openai_server import OpenAIServer, usage
from pcclip.comparisons.prompts import load_prompt
from pcclip.config import Generate
from pcclip.evaluation.llm_judge import Answer


class CaptionServer(OpenAIServer):
    """Judges captions: `choose` as of OpenAIServer, but yielding Answers, which hold the cost."""

    def __init__(self, settings: Generate):
        super().__init__(settings, load_prompt(settings.prompt))  # the prompt is not used

    async def _result(self, ask: Callable[[Any], Awaitable], failure: Callable[[str], Any], item: Any) -> Any:
        counts: Counter[str] = Counter()
        usage.set(counts)  # every task has a context of its own
        started = time.monotonic()
        odds = await super()._result(ask, failure, item)
        return Answer(odds.value, odds.reason, time.monotonic() - started, **{"requests": 0, **counts})
