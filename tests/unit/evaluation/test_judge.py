"""A language model as a pairwise judge of captions, in this process or behind a server that misbehaves, and its cost."""

import json
import math
import re
from collections import Counter
from contextlib import contextmanager

import numpy as np
import pandas as pd
import pytest
from helpers.crash import Crash
from helpers.llm_server import Handler, serving
from scipy.stats import binomtest

from pcclip.comparisons.llm import Odds, Template
from pcclip.config import Generate
from pcclip.errors import PcclipError
from pcclip.evaluation.llm_judge import Answer, Judging, cost, judge_pairs
from pcclip.evaluation.own_images import judge_backend

pytestmark = pytest.mark.usefixtures("quick")

SHADES = [250, 20, 160, 90, 200, 50]
FIRST, SECOND = [0, 2, 2, 4, 4, 0], [1, 1, 3, 3, 5, 5]  # the first is the brighter one
STATEMENTS = [f"a bright picture {k}" for k in range(6)]
CAPTIONS = [f"A picture of shade {shade}." for shade in SHADES]


def pairs(statements=STATEMENTS, first=FIRST, second=SECOND) -> pd.DataFrame:
    texts = [f"The first image shows {text}, while the second image shows a dark one." for text in statements]
    return pd.DataFrame({"first": first, "second": second, "difference": texts})


def brighter(text: str) -> str:
    """The verdict, in words, of a judge that prefers the caption of the larger shade."""
    first, second = map(int, re.findall(r"shade (\d+)", text))
    return verdict("first" if first > second else "second")


def verdict(answer: str, confidence: float = 0.8) -> str:
    return f'text: {{"answer": "{answer}", "confidence": {confidence}}}'


# captions by any backend


class Known(Template):
    """A backend that knows the shades, with a liking for the first of two."""

    identity = "known-1"

    def __init__(self, odds=None):
        self.asked, self.odds = [], odds or (lambda choice: (1 if "first" in brighter(choice.text) else -1) + 3)

    def choose(self, choices):
        for choice in choices:
            self.asked.append(choice)
            yield choice, Odds(float(self.odds(choice)), "probabilities")


def judged_by(backend, folder, statements=STATEMENTS):
    items, spent = judge_pairs(Judging(backend, "known", folder), pairs(statements), CAPTIONS)
    return items, spent.loc[0]


def logged(folder) -> list[dict]:
    [path] = folder.glob("judge-*.jsonl")
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_both_orders_are_asked_and_position_bias_cancels(tmp_path):
    backend = Known()
    items, spent = judged_by(backend, tmp_path)
    assert list(items.columns) == ["first", "second", "score", "reference", "correct", "reason"]
    assert items.correct.all()
    np.testing.assert_allclose(items.score, 1)
    ending = "Statement: a bright picture 0\nOf the two, the statement fits the"
    assert [choice.text for choice in backend.asked[:2]] == [
        f"First: A picture of shade 250.\nSecond: A picture of shade 20.\n{ending}",
        f"First: A picture of shade 20.\nSecond: A picture of shade 250.\n{ending}",
    ]
    assert backend.asked[0].question == (
        'First: "A picture of shade 250."\nSecond: "A picture of shade 20."\nWhich of the two does this statement fit '
        'better: "a bright picture 0"? The first or the second?'
    )
    assert (spent.judge, spent.requests, spent.answers, spent.metered) == ("known", 12, 12, 0)
    assert np.isnan([spent.tokens_in, spent.tokens_out, spent.money]).all()


def test_equal_captions_are_no_evidence(tmp_path):
    judging = Judging(Known(), "known", tmp_path)
    items, spent = judge_pairs(judging, pairs(["bright"], [0], [1]), ["A picture of shade 3."] * 2)
    assert items[["score", "correct"]].to_numpy().tolist() == [[0, False]]
    assert spent.requests[0] == 1  # both orders are one question


def test_a_judge_that_guesses_is_right_half_of_the_time(tmp_path, rng):
    judging = Judging(Known(lambda choice: rng.normal() + 2), "guesses", tmp_path)
    every = pairs(["bright"] * 2000, range(2000), range(2000, 4000))
    items, _ = judge_pairs(judging, every, [f"Caption {k}." for k in range(4000)])
    low, high = binomtest(int(items.correct.sum()), 2000).proportion_ci(0.999)
    assert low < 0.5 < high


def test_an_interrupted_run_asks_only_for_the_rest(tmp_path):
    class Stopped(Known):
        def choose(self, choices):
            for k, answer in enumerate(super().choose(choices)):
                if k == 5:
                    raise Crash
                yield answer

    with pytest.raises(Crash):
        judged_by(Stopped(), tmp_path)
    kept = {row["key"] for row in logged(tmp_path)}
    assert len(kept) == 5
    rest = Known()
    items, spent = judged_by(rest, tmp_path)
    assert len(rest.asked) == 7
    assert not kept & {choice.key for choice in rest.asked}
    assert items.correct.all()
    assert (spent.answers, spent.requests) == (12, 12)
    again = Known()
    judged_by(again, tmp_path, ["another", *STATEMENTS[1:]])
    assert len(again.asked) == 2


def test_what_cannot_be_judged(tmp_path):
    with pytest.raises(PcclipError, match="judge: no pair to ask about"):
        judge_pairs(Judging(Known(), "known", tmp_path), pairs()[:0], CAPTIONS)
    with pytest.raises(PcclipError, match="template cannot judge"):
        judge_pairs(Judging(judge_backend(Generate(backend="template")), "template", tmp_path), pairs(), CAPTIONS)


# behind a server


class JudgeHandler(Handler):
    """Says how many tokens a reply took."""

    def reply(self, status: int, body: bytes, **headers) -> None:
        if self.server.usage and status == 200 and b'"finish_reason"' in body:
            body = json.dumps(json.loads(body) | {"usage": {"prompt_tokens": 100, "completion_tokens": 7}}).encode()
        super().reply(status, body, **headers)


@contextmanager
def judging_server(behave=lambda text, n: "ok", answer=brighter):
    """A server without token probabilities whose 'ok' is the judge's answer to the text."""

    def behaves(text, n):
        way = behave(text, n)
        return answer(text) if way == "ok" else way

    with serving(behaves) as server:
        server.RequestHandlerClass, server.usage, server.probabilities = JudgeHandler, True, None
        yield server


def judged_at(server, folder, prices=None, **settings):
    values = {"backend": "openai", "llm": "tiny", "base_url": server.url, "retries": 3, "timeout": 60.0, "in_flight": 1}
    judging = Judging(judge_backend(Generate(**{**values, **settings})), "tiny", folder, prices)
    items, spent = judge_pairs(judging, pairs(), CAPTIONS)
    return items, spent.loc[0]


def test_a_misbehaving_server_loses_nothing_and_every_request_is_counted(tmp_path):
    ways, met, known = ["busy", "broken", "half", "garbage", "cut", "slow", "empty", "ok"], Counter(), {}

    def behave(text, n):
        turn = known.setdefault(text, len(known)) + 3 * n
        way = ways[turn % len(ways)] if n <= 2 else "ok"
        met[way] += 1
        return way

    with judging_server(behave) as server:
        items, spent = judged_at(server, tmp_path, (2.0, 10.0), timeout=1.5, in_flight=12)
    assert set(met) == set(ways)
    assert items.correct.all()
    assert len({row["key"] for row in logged(tmp_path)}) == len(logged(tmp_path)) == 12
    assert spent.requests >= sum(server.asked.values()) > 12
    assert (spent.pairs, spent.answers, spent.unanswered, spent.metered) == (6, 12, 0, 12)
    assert (spent.tokens_in, spent.tokens_out) == (1200, 84)
    assert spent.money == pytest.approx((1200 * 2.0 + 84 * 10.0) / 1e6)
    assert spent.seconds > 1.5  # a slow one at least


def test_what_failed_is_asked_again_and_its_cost_stays(tmp_path):
    with judging_server(lambda text, n: "broken" if "picture 3" in text else "ok") as server:
        items, spent = judged_at(server, tmp_path, retries=0)
        assert list(items.correct) == [True, True, True, False, True, True]
        assert list(items.score == 0) == [False, False, False, True, False, False]
        assert items.reason[3].startswith("error: ")
        assert "broken" in items.reason[3]
        assert (spent.unanswered, spent.answers) == (2, 12)
        server.behave = lambda text, n: brighter(text)
        items, spent = judged_at(server, tmp_path, retries=0)
    assert items.correct.all()
    assert set(items.reason) == {""}
    assert (spent.answers, spent.unanswered, spent.metered) == (14, 2, 12)


def test_token_probabilities_of_a_server_count_too(tmp_path):
    with judging_server() as server:
        server.probabilities, server.top = "vllm", {" first": -0.1, " second": -3.0}  # whatever the captions are
        items, spent = judged_at(server, tmp_path)
    assert all("prompt" in request for request in server.requests)
    assert set(items.score) == {0.0}
    assert (spent.requests, spent.tokens_in, spent.tokens_out) == (12, 1200, 84)


@pytest.mark.parametrize("answer", ["first", "neither"])
def test_an_answer_that_does_not_depend_on_the_captions_is_wrong(answer, tmp_path):
    with judging_server(answer=lambda text: verdict(answer, 1)) as server:
        items, _ = judged_at(server, tmp_path)
    assert not items.correct.any()
    assert set(items.score) == {0.0}
    assert set(items.reason) == {""}


def test_scores_are_half_the_difference_of_the_odds(tmp_path):
    with judging_server(answer=lambda text: verdict("first", 0.8 if "first" in brighter(text) else 0.2)) as server:
        items, _ = judged_at(server, tmp_path)
    np.testing.assert_allclose(items.score, (math.log(0.9 / 0.1) - math.log(0.6 / 0.4)) / 2)


def test_too_many_without_an_answer(tmp_path):
    message = r"judge: 5 of 6 pairs got no answer, mostly with .error: no verdict in .I cannot see"
    with (
        judging_server(lambda text, n: "ok" if "picture 5" in text else "text: I cannot see.") as server,
        pytest.raises(PcclipError, match=message) as error,
    ):
        judged_at(server, tmp_path)
    assert "\n" not in str(error.value)


def test_a_server_that_does_not_count(tmp_path):
    with judging_server() as server:
        server.usage = False
        items, spent = judged_at(server, tmp_path, (1.0, 1.0))
    assert items.correct.all()
    assert spent.metered == 0
    assert np.isnan([spent.tokens_in, spent.money]).all()


def test_cost_without_a_price_and_without_a_count():
    answers = [Answer(1.0, "", 2.0, 3, 1, 50, 5), Answer(None, "error: x", 1.5, 2)]
    row = cost("j", 1, answers).loc[0]
    assert (row.requests, row.tokens_in, row.tokens_out, row.seconds, row.unanswered) == (5, 50, 5, 3.5, 1)
    assert np.isnan(row.money)
    assert cost("j", 1, answers, (1.0, 2.0)).money[0] == pytest.approx(60e-6)
    assert np.isnan(cost("j", 1, answers[1:], (1.0, 2.0)).loc[0, ["tokens_in", "money"]].to_numpy(float)).all()
