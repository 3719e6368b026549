"""A judge behind a server that speaks OpenAI's protocol, its requests and tokens counted. Needs the package openai."""

import asyncio
import base64
import io
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from contextvars import ContextVar
from functools import partial

import openai

from pcclip.comparisons.llm import Odds, Reply
from pcclip.comparisons.llm.openai_server import OpenAIServer
from pcclip.comparisons.prompts import load_prompt
from pcclip.config import Generate
from pcclip.evaluation.judged import Judged, Look
from pcclip.images import BadImage, open_image

LONGEST_SIDE = 512  # pixels
_QUALITY = 90

_meter: ContextVar[Counter] = ContextVar("meter")  # of the question that the running task is about
_shown: ContextVar[list[dict]] = ContextVar("shown")  # its images


class CaptionServer(OpenAIServer):
    """Judges captions: `choose` as of OpenAIServer, but it yields Judged, each answer with what it cost."""

    def __init__(self, config: Generate):
        super().__init__(config, load_prompt(config.prompt))  # of which it asks nothing

    async def _safely(self, ask, failed, item) -> Judged:
        meter, started = Counter(), time.monotonic()
        _meter.set(meter)  # a task has a context of its own
        odds = await super()._safely(ask, failed, item)
        return Judged.of(odds, time.monotonic() - started, **{"requests": 0, **meter})

    async def _ask(self, resource, read, **request):
        return await super()._ask(_Counted(resource), read, **request)


class ImageServer(CaptionServer):
    """Judges images: a multimodal model is shown both, as JPEG in data URLs, and says first, second or neither."""

    def look(self, questions: Iterable[Look]) -> Iterator[tuple[Look, Judged]]:
        return self._each(self._looked, partial(Odds, None), questions)

    async def _looked(self, client: openai.AsyncOpenAI, look: Look) -> Odds:
        try:
            _shown.set(await asyncio.to_thread(_parts, look))
        except BadImage as error:
            return Odds(None, f"error: {error}")
        return await self._verdict(client, look)

    async def _chat(self, client: openai.AsyncOpenAI, messages: list[dict], **request) -> Reply:
        [asked] = messages
        content = [*_shown.get(), {"type": "text", "text": asked["content"]}]
        return await super()._chat(client, messages=[{**asked, "content": content}], **request)


class _Counted:
    """A resource of the client whose requests and tokens are counted."""

    def __init__(self, resource):
        self._resource, self.with_raw_response = resource, self

    async def create(self, **request):
        meter = _meter.get()
        meter["requests"] += 1
        raw = await self._resource.with_raw_response.create(**request)
        meter["requests"] += raw.retries_taken
        try:
            usage = raw.http_response.json()["usage"]
            tokens = {"tokens_in": int(usage["prompt_tokens"]), "tokens_out": int(usage["completion_tokens"])}
        except (ValueError, LookupError, TypeError):
            return raw  # garbage, or a server that does not count
        meter.update(tokens, metered=1)
        return raw


def _parts(look: Look) -> list[dict]:
    """The two images as parts of a message, each under its name. Raises BadImage."""
    return [
        part
        for name, path in (("First image:", look.first), ("Second image:", look.second))
        for part in ({"type": "text", "text": name}, {"type": "image_url", "image_url": {"url": _data_url(path)}})
    ]


def _data_url(path: str) -> str:
    image, buffer = open_image(path), io.BytesIO()
    image.thumbnail((LONGEST_SIDE, LONGEST_SIDE))
    image.save(buffer, "JPEG", quality=_QUALITY)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"
