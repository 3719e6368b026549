"""Odds of a choice, from token probabilities or from a verdict that the model writes as JSON."""

import json
import math
import re

import numpy as np

from pcclip.comparisons.llm.backend import Choice, Odds

_LIMIT = 4.0  # nats: the odds of a written verdict with confidence 1, which would be infinite
_JSON = re.compile(r"\{[^{}]*\}")


def odds_of_tokens(tokens: list[tuple[str, float]], choice: Choice) -> Odds:
    """Odds from the likeliest next tokens with their log-probabilities; the list must not be empty.

    All tokens of a word list count together. A list without any token gets the lowest log-probability less one.
    """
    logs: dict[str | None, list[float]] = {"more": [], "less": [], None: []}
    for token, log_probability in tokens:
        logs[_side(token, choice)].append(log_probability)
    if not logs["more"] and not logs["less"]:
        return Odds(0.0, "probabilities: no option among the likely tokens")
    floor = min(log_probability for _, log_probability in tokens) - 1
    more, less = (float(np.logaddexp.reduce(logs[side])) if logs[side] else floor for side in ("more", "less"))
    return Odds(more - less, "probabilities")


def odds_of_verdict(text: str) -> Odds:
    """Odds from the last JSON object in a text: answer ('first', 'second', 'neither') and confidence (0 to 1)."""
    try:
        verdict = json.loads(_JSON.findall(text)[-1])
        sign = {"first": 1, "second": -1, "neither": 0}[verdict["answer"]]
        confidence = float(verdict["confidence"]) if sign else 0.0
        if not 0 <= confidence <= 1:
            raise ValueError("confidence")
    except (ValueError, LookupError, TypeError):
        return Odds(None, f"error: no verdict in {text[:80]!r}")
    confidence = min(confidence, math.tanh(_LIMIT / 2))
    return Odds(sign * math.log((0.5 + confidence / 2) / (0.5 - confidence / 2)), "structured")


def first_tokens(completion: dict) -> list[tuple[str, float]]:
    """(token, log-probability) for a completion's first position, in the format of vLLM or of llama.cpp.

    Raises LookupError when the completion has none.
    """
    logprobs = completion.get("logprobs") or {}
    if logprobs.get("content"):
        tokens = [(entry["token"], entry["logprob"]) for entry in logprobs["content"][0]["top_logprobs"]]
    else:
        tokens = list((logprobs.get("top_logprobs") or [{}])[0].items())
    tokens = [(token, logarithm) for token, logarithm in tokens if logarithm is not None and math.isfinite(logarithm)]
    if not tokens:
        raise LookupError("no token probabilities in the reply")
    return tokens


def _side(token: str, choice: Choice) -> str | None:
    """'more' or 'less' for a token that is a word of one list only, or else, from three letters on, begins such a word."""
    token = token.strip().lower()
    lists = {"more": [word.lower() for word in choice.more], "less": [word.lower() for word in choice.less]}
    sides = [side for side, words in lists.items() if token in words]
    if not sides and len(token) >= 3:
        sides = [side for side, words in lists.items() if any(word.startswith(token) for word in words)]
    return sides[0] if len(sides) == 1 else None
