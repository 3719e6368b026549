"""A forced choice between two lists of words, and its log-odds out of token probabilities or of a verdict in JSON."""

import json
import math
import re
from dataclasses import dataclass

import numpy as np

_LIMIT = 4.0  # of a verdict in words, in nats; a confidence of 1 would be infinite
_JSON = re.compile(r"\{[^{}]*\}")


@dataclass(frozen=True)
class Choice:
    """Which words come next? `key` comes back with the odds."""

    key: str
    text: str  # to be continued: '... a fox is much'
    more: tuple[str, ...]  # ('larger', 'bigger')
    less: tuple[str, ...]  # ('smaller', 'lighter')
    question: str  # the same in plain words, about the first thing against the second, where there are no probabilities


@dataclass(frozen=True)
class Odds:
    """log P(more) - log P(less), in nats, None on an error; and where it is from."""

    value: float | None
    reason: str  # 'probabilities...', 'structured', or 'error: ...'

    @property
    def failed(self) -> bool:
        return self.value is None


def from_tokens(top: list[tuple[str, float]], choice: Choice) -> Odds:
    """Odds from the likeliest next tokens and their log-probabilities, at least one of them.

    A list of words without any token among them gets the lowest of them, less one.
    """
    sides = {"more": [], "less": []}
    for token, logprob in top:
        if side := _side(token, choice):
            sides[side].append(logprob)
    if not any(sides.values()):
        return Odds(0.0, "probabilities: no option among the likely tokens")
    floor = min(logprob for _, logprob in top) - 1
    more, less = (float(np.logaddexp.reduce(found)) if found else floor for found in sides.values())
    return Odds(more - less, "probabilities")


def from_verdict(text: str) -> Odds:
    """Odds from the last JSON object in the text: answer (first, second or neither) and confidence (0 to 1)."""
    try:
        verdict = json.loads(_JSON.findall(text)[-1])
        sign = {"first": 1, "second": -1, "neither": 0}[verdict["answer"]]
        confidence = float(verdict["confidence"]) if sign else 0.0
        if not 0 <= confidence <= 1:
            raise ValueError("confidence")
    except (ValueError, LookupError, TypeError):
        return Odds(None, f"error: no verdict in {text[:80]!r}")
    certain = min(confidence, math.tanh(_LIMIT / 2))
    return Odds(sign * math.log((0.5 + certain / 2) / (0.5 - certain / 2)), "structured")


def top_tokens(completion: dict) -> list[tuple[str, float]]:
    """(token, log-probability) of a completion's first position, as vLLM or as llama.cpp writes them.

    Raises LookupError when there are none.
    """
    logprobs = completion.get("logprobs") or {}
    if logprobs.get("content"):
        top = [(t["token"], t["logprob"]) for t in logprobs["content"][0]["top_logprobs"]]
    else:
        top = list((logprobs.get("top_logprobs") or [{}])[0].items())
    top = [(token, logprob) for token, logprob in top if logprob is not None]
    if not top:
        raise LookupError("no token probabilities in the reply")
    return top


def _side(token: str, choice: Choice) -> str | None:
    """The list that the token is a word of, or, from three letters on, the start of a word of, and the other not."""
    token = token.strip().lower()
    lists = {side: [word.lower() for word in getattr(choice, side)] for side in ("more", "less")}
    sides = [side for side, words in lists.items() if token in words]
    if not sides and len(token) >= 3:
        sides = [side for side, words in lists.items() if any(word.startswith(token) for word in words)]
    return sides[0] if len(sides) == 1 else None
