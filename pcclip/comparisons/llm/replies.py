"""What a chat completion says: servers and models differ in where the answer stands and how they say why it ended."""

import json
import re
from typing import Any

from pcclip.comparisons.llm.backend import Reply

_ENDS = (  # part of a finish reason in lower case -> what it means; any other reason, and none, means 'stop'
    ("length", re.compile("length|limit|max|window|incomplete|truncat")),
    ("content filter", re.compile("filter|safety|block|refus|recitation|prohibit|sensitive")),
    ("error", re.compile("error|abort|cancel|timeout|insufficient")),
)
_TAG = "(?:(?:seed:)?think|thinking|thoughts?|reasoning|reflection|analysis|scratchpad)"
_REASONING_ENDS = re.compile(
    rf"</{_TAG}>|\[/THINK\]|◁/think▷|<\|channel\|>final<\|message\|>|<\|end_of_thought\|>|<\|begin_of_solution\|>|<unused95>",
    re.IGNORECASE,
)
_REASONING_BEGINS = re.compile(
    rf"<{_TAG}\b[^<>]{{,80}}>|\[THINK\]|◁think▷|<\|channel\|>analysis<\|message\|>|<\|(?:begin_of_thought|end_of_solution)\|>|<unused94>",
    re.IGNORECASE,
)
_TRIES = 8  # braces where JSON may begin


class NoAnswer(RuntimeError):
    """A question got no answer; the text says why."""


def reply_of(choice: dict[str, Any]) -> Reply:
    """The reply in the first choice of a chat completion. Raises NoAnswer for one without a text that answers.

    Content in parts is joined. A finish reason of any kind becomes 'stop' or 'length'; half a surrogate pair becomes
    U+FFFD, as no table can hold it.
    """
    message = choice["message"]
    reason = str(choice.get("finish_reason"))[:60].lower()
    end = next((end for end, pattern in _ENDS if pattern.search(reason)), "stop")
    if end in ("content filter", "error"):
        raise NoAnswer(f"{end}: the reply ended with {reason!r}")
    text = _text(message.get("content")).encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if without_reasoning(text).strip():
        return Reply(text, end)
    if message.get("refusal"):
        raise NoAnswer(f"content filter: the model refused: {str(message['refusal'])[:100]!r}")
    if text.strip() or message.get("reasoning_content") or message.get("reasoning"):
        raise NoAnswer(f"empty reply: reasoning without an answer, ended with {reason!r}; raise generate.max_tokens")
    raise NoAnswer(f"empty reply, ended with {reason!r}")


def without_reasoning(text: str) -> str:
    """A reply without the reasoning that some models write in it between tags, such as <think> and </think>.

    Reasoning may lack its first tag, which then was in the prompt, or its last tag, when the reply was cut short.
    """
    *before, last = _REASONING_ENDS.split(text)
    if not before and not _REASONING_BEGINS.search(text):
        return text
    outside = [piece[: begin.start()] for piece in before if (begin := _REASONING_BEGINS.search(piece))]
    return "".join([*outside, _REASONING_BEGINS.split(last, maxsplit=1)[0]]).strip()


def difference_of(text: str) -> str:
    """The value of "difference" in the JSON of a reply, which may stand in prose or between code fences.

    A reply without any brace is taken for the plain sentence. Raises NoAnswer for JSON of another shape.
    """
    answer, start = without_reasoning(text), -1
    for _ in range(_TRIES):
        start = answer.find("{", start + 1)
        if start < 0:
            break
        try:
            return Reply(json.JSONDecoder().raw_decode(answer, start)[0]["difference"], "stop").text
        except (ValueError, LookupError, TypeError, RecursionError):
            continue
    if "{" not in answer:
        return answer
    raise NoAnswer(f"not the JSON that was asked for: {answer[:80]!r}")


def _text(content: Any) -> str:
    """The text of a message's content: a text, nothing, or parts of which those of another type are left out."""
    if content is None or isinstance(content, str):
        return content or ""
    if not isinstance(content, list):
        raise NoAnswer(f"a reply that is no text: {str(content)[:80]!r}")
    parts = [{"text": part} if isinstance(part, str) else part for part in content]
    texts = [part.get("text") for part in parts if part.get("type", "text") in ("text", "output_text")]
    return "".join(text for text in texts if isinstance(text, str))
