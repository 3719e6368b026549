"""A language model as a pairwise judge of images and of captions, behind a server that misbehaves, and its cost."""

import base64
import io
import json
import math
import re
import shutil
from collections import Counter
from contextlib import contextmanager

import numpy as np
import pytest
from helpers.llm_server import Handler, serving
from PIL import Image
from scipy.stats import binomtest

from pcclip.comparisons.llm import Odds
from pcclip.config import Generate
from pcclip.errors import PcclipError
from pcclip.evaluation.judged import Judged
from pcclip.evaluation.llm_judge import cost, judge_captions, judge_images

pytestmark = pytest.mark.usefixtures("quick")

SHADES = [250, 20, 160, 90, 200, 50]
FIRST, SECOND = np.array([0, 1, 2, 3, 4, 5]), np.array([1, 2, 3, 4, 5, 0])
BRIGHTER = np.array(SHADES)[FIRST] > np.array(SHADES)[SECOND]
STATEMENTS = [f"a bright picture {k}" for k in range(6)]
CAPTIONS = [f"A picture of shade {shade}." for shade in SHADES]


class JudgeHandler(Handler):
    """Sees images as the shade they have, 'First image: <250>', and says how many tokens a reply took."""

    def do_POST(self):
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.text = request.get("prompt", "")
        for message in request.get("messages", []):
            if isinstance(message["content"], list):
                self.server.contents.append(message["content"])
                message["content"] = " ".join(map(seen, message["content"]))
        body = json.dumps(request).encode()
        self.rfile, own = io.BytesIO(body), self.rfile
        self.headers.replace_header("Content-Length", str(len(body)))
        super().do_POST()
        self.rfile = own

    def logprobs(self) -> dict:
        self.server.top = self.server.odds(self.text)
        return super().logprobs()

    def reply(self, status: int, body: bytes, **headers) -> None:
        if self.server.usage and status == 200 and b'"finish_reason"' in body:
            tokens = {"prompt_tokens": 100, "completion_tokens": 7}
            body = json.dumps(json.loads(body) | {"usage": tokens}).encode()
        super().reply(status, body, **headers)


def seen(part: dict) -> str:
    return part["text"] if part["type"] == "text" else f"<{round(np.asarray(opened(part)).mean())}>"


def opened(part: dict) -> Image.Image:
    kind, data = part["image_url"]["url"].split(",")
    assert kind == "data:image/jpeg;base64"
    return Image.open(io.BytesIO(base64.b64decode(data)))


def brighter(text: str) -> str:
    """What a judge answers that sees the brighter picture, images or captions."""
    first, second = map(int, re.findall(r"(?:<|shade )(\d+)", text))
    return f'text: {{"answer": "{"first" if first > second else "second"}", "confidence": 0.8}}'


@contextmanager
def judging(behave=lambda text, n: "ok", answer=brighter):
    """A server whose 'ok' is the judge's answer to the text."""

    def behaves(text, n):
        way = behave(text, n)
        return answer(text) if way == "ok" and not text.startswith("First: A picture") else way

    with serving(behaves) as server:
        server.RequestHandlerClass, server.contents, server.usage = JudgeHandler, [], True
        server.odds = lambda text: (
            {" first": -0.1, " second": -3.0} if "first" in brighter(text) else {" first": -3.0, " second": -0.1}
        )
        yield server


@pytest.fixture
def paths(tmp_path):
    """Pictures of the shades, the first of them a large one."""
    found = [tmp_path / f"{k}.png" for k in range(6)]
    for path, shade in zip(found, SHADES, strict=True):
        Image.new("L", (1000, 600) if shade == 250 else (8, 8), shade).save(path)
    return [str(path) for path in found]


def config_of(server, **settings) -> Generate:
    return Generate(
        **{
            "backend": "openai",
            "llm": "tiny",
            "base_url": server.url,
            "retries": 3,
            "timeout": 5.0,
            "in_flight": 4,
            **settings,
        }
    )


def images(server, paths, folder, statements=STATEMENTS, prices=None, **settings):
    config = config_of(server, **settings)
    items, spent = judge_images(config, FIRST, SECOND, paths, statements, BRIGHTER, folder, prices)
    return items, spent.loc[0]


def captions(server, folder, statements=STATEMENTS, **settings):
    items, spent = judge_captions(config_of(server, **settings), FIRST, SECOND, CAPTIONS, statements, BRIGHTER, folder)
    return items, spent.loc[0]


def journalled(folder) -> list[dict]:
    [path] = folder.glob("judge-*.jsonl")
    return [json.loads(line) for line in path.read_text().splitlines()]


# nothing is lost, nothing is asked twice


def test_a_misbehaving_server_loses_nothing(paths, tmp_path):
    ways, met, known = ["busy", "broken", "half", "garbage", "cut", "slow", "empty", "ok"], Counter(), {}

    def behave(text, n):
        turn = known.setdefault(text, len(known)) + 3 * n
        way = ways[turn % len(ways)] if n <= 2 else "ok"
        met[way] += 1
        return way

    with judging(behave) as server:
        items, spent = images(server, paths, tmp_path, STATEMENTS, (2.0, 10.0), timeout=1.5, in_flight=12)
    assert set(met) == set(ways)
    assert items.correct.all()
    assert set(server.answered.values()) == {1}
    assert len(server.answered) == len({row["key"] for row in journalled(tmp_path)}) == len(journalled(tmp_path)) == 12
    assert spent.requests == sum(server.asked.values()) > 12
    assert (spent.pairs, spent.answers, spent.unanswered, spent.metered) == (6, 12, 0, 12)
    assert (spent.tokens_in, spent.tokens_out) == (1200, 84)
    assert spent.money == pytest.approx((1200 * 2.0 + 84 * 10.0) / 1e6)
    assert spent.seconds > 1.5  # a slow one at least
    assert spent.judge == "tiny on images"


def test_what_has_been_asked_is_not_asked_again(paths, tmp_path):
    with judging() as server:
        first, spent = images(server, paths, tmp_path)
        asked = Counter(server.asked)
        moved = [shutil.copy(path, tmp_path / f"moved-{k}.png") for k, path in enumerate(paths)]
        again, same = images(server, moved, tmp_path)
        assert server.asked == asked
        assert again.equals(first)
        assert same.equals(spent)  # what was paid once is paid once
        images(server, paths, tmp_path, ["another", *STATEMENTS[1:]])
        assert sum(server.asked.values()) == sum(asked.values()) + 2
        Image.new("L", (8, 8), 240).save(paths[0])
        images(server, paths, tmp_path)
        assert sum(server.asked.values()) == sum(asked.values()) + 2 + 4  # both pairs that it is in
    assert set(server.asked.values()) == {1}


def test_what_failed_is_asked_again_and_its_cost_stays(paths, tmp_path):
    with judging(lambda text, n: "broken" if "picture 3" in text else "ok") as server:
        items, spent = images(server, paths, tmp_path, retries=0)
        assert list(items.correct) == [True, True, True, False, True, True]
        assert list(items.score == 0) == [False, False, False, True, False, False]
        assert items.reason[3].startswith("error: ")
        assert "broken" in items.reason[3]
        assert (spent.unanswered, spent.requests, spent.metered) == (2, 12, 10)
        server.behave = lambda text, n: brighter(text)
        items, spent = images(server, paths, tmp_path, retries=0)
    assert items.correct.all()
    assert set(items.reason) == {""}
    assert (spent.answers, spent.unanswered, spent.requests, spent.metered) == (14, 2, 14, 12)
    assert Counter(server.asked.values()) == {1: 10, 2: 2}


def test_an_interrupted_run_asks_only_for_the_rest(tmp_path):
    class Stopped(Known):
        def choose(self, choices):
            for k, answer in enumerate(super().choose(choices)):
                if k == 5:
                    raise KeyboardInterrupt
                yield answer

    with pytest.raises(KeyboardInterrupt):
        by(Stopped(), tmp_path)
    kept = {row["key"] for row in journalled(tmp_path)}
    assert len(kept) == 5
    rest = Known()
    items, spent = by(rest, tmp_path)
    assert len(rest.asked) == 7
    assert not kept & {choice.key for choice in rest.asked}
    assert items.correct.all()
    assert (spent.answers, spent.requests) == (12, 12)


# what is asked


def test_both_images_are_shown_in_both_orders(paths, tmp_path):
    with judging() as server:
        images(server, paths, tmp_path)
    assert len(server.contents) == 12
    shown = {" ".join(map(seen, content)): content for content in server.contents}
    words = 'Which of the two does this statement fit better: "a bright picture 0"? The first or the second?\nReply'
    [one] = [text for text in shown if text.startswith(f"First image: <250> Second image: <20> {words} with JSON")]
    assert any(text.startswith(f"First image: <20> Second image: <250> {words}") for text in shown)
    assert [part["type"] for part in shown[one]] == ["text", "image_url", "text", "image_url", "text"]
    assert [opened(part).size for part in shown[one][1::2]] == [(512, 307), (8, 8)]
    request = server.requests[0]
    assert {name: request[name] for name in ("model", "temperature", "max_tokens")} == {
        "model": "tiny",
        "temperature": 0.0,
        "max_tokens": 64,
    }
    assert request["response_format"]["json_schema"]["schema"]["properties"]["answer"]["enum"] == [
        "first",
        "second",
        "neither",
    ]


def test_a_question_is_asked_as_it_is(paths, tmp_path):
    with judging() as server:
        items, _ = images(server, paths, tmp_path, ["Which picture is brighter?"] * 6)
    start = "First image: <250> Second image: <20> Which picture is brighter? The first or the second?\nReply with"
    assert any(text.startswith(start) for text in server.asked)
    assert items.correct.all()


def test_a_server_without_schemas_is_asked_without(paths, tmp_path):
    with judging() as server:
        server.grants_schema = False
        items, spent = images(server, paths, tmp_path, in_flight=1)
    assert items.correct.all()
    assert spent.requests == len(server.requests) == 13


def test_the_key_is_sent_and_never_kept(paths, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-very-secret")
    with judging(lambda text, n: "refused" if "picture 2" in text else "ok") as server:  # it sends the key back
        items, _ = images(server, paths, tmp_path)
    assert set(server.keys) == {"Bearer sk-very-secret"}
    assert "***" in items.reason[2]
    assert "secret" not in json.dumps(journalled(tmp_path)) + "".join(capsys.readouterr()) + "".join(items.reason)


# what its answers are worth


@pytest.mark.parametrize("answer", ["first", "second", "neither"])
def test_an_answer_that_does_not_depend_on_the_images_is_wrong(answer, paths, tmp_path):
    with judging(answer=lambda text: f'text: {{"answer": "{answer}", "confidence": 1}}') as server:
        items, _ = images(server, paths, tmp_path)
    assert not items.correct.any()
    assert set(items.score) == {0.0}
    assert set(items.reason) == {""}


def test_scores_are_half_the_difference_of_the_odds(paths, tmp_path):
    def sure_if_first(text):
        first, second = map(int, re.findall(r"<(\d+)>", text))
        return f'text: {{"answer": "first", "confidence": {0.8 if first > second else 0.2}}}'

    with judging(answer=sure_if_first) as server:
        items, _ = images(server, paths, tmp_path)
    assert items.correct.all()
    score = (math.log(0.9 / 0.1) - math.log(0.6 / 0.4)) / 2
    np.testing.assert_allclose(items.score, np.where(BRIGHTER, score, -score))
    assert list(items.reference) == [1.0 if one else -1.0 for one in BRIGHTER]
    assert list(items.columns) == ["first", "second", "score", "reference", "correct", "reason"]


def test_an_image_that_cannot_be_read_costs_nothing(paths, tmp_path):
    (tmp_path / "0.png").write_bytes(b"no image")
    with judging() as server:
        items, spent = images(server, paths, tmp_path)
    assert list(items.correct) == [False, True, True, True, True, False]
    assert items.reason[0] == "error: unreadable image (UnidentifiedImageError)"
    assert spent.requests == sum(server.asked.values()) == 8


def test_too_many_without_an_answer(paths, tmp_path):
    says = r"judge: 5 of 6 pairs got no answer, mostly with .error: no verdict in .I cannot see"
    with (
        judging(lambda text, n: "ok" if "picture 5" in text else "text: I cannot see.") as server,
        pytest.raises(PcclipError, match=says) as error,
    ):
        images(server, paths, tmp_path)
    assert "\n" not in str(error.value)


def test_nothing_to_ask(tmp_path):
    none = np.array([], dtype=int)
    with pytest.raises(PcclipError, match="judge: no pair to ask about"):
        judge_captions(Generate(), none, none, CAPTIONS, [], none == 0, tmp_path, backend=Known())


def test_only_a_server_can_be_shown_images(paths, tmp_path):
    config = Generate(backend="llama_cpp")
    with pytest.raises(PcclipError, match="llama_cpp cannot be shown images; set backend: openai"):
        judge_images(config, FIRST, SECOND, paths, STATEMENTS, BRIGHTER, tmp_path)
    with pytest.raises(PcclipError, match="template cannot judge"):
        judge_captions(Generate(backend="template"), FIRST, SECOND, CAPTIONS, STATEMENTS, BRIGHTER, tmp_path)


# captions


class Known:
    """A backend that knows the shades, with a liking for the first of two."""

    identity = "known-1"

    def __init__(self, odds=None):
        self.asked, self.odds = [], odds or (lambda choice: (1 if "first" in brighter(choice.text) else -1) + 3)

    def choose(self, choices):
        for choice in choices:
            self.asked.append(choice)
            yield choice, Odds(self.odds(choice), "probabilities")


def by(backend, folder, statements=STATEMENTS):
    items, spent = judge_captions(Generate(), FIRST, SECOND, CAPTIONS, statements, BRIGHTER, folder, backend=backend)
    return items, spent.loc[0]


def test_captions_by_any_backend(tmp_path):
    backend = Known()
    items, spent = by(backend, tmp_path)
    assert items.correct.all()
    np.testing.assert_allclose(items.score.abs(), 1)
    texts = [choice.text for choice in backend.asked]
    assert texts[:2] == [
        "First: A picture of shade 250.\nSecond: A picture of shade 20.\n"
        "Statement: a bright picture 0\nOf the two, the statement fits the",
        "First: A picture of shade 20.\nSecond: A picture of shade 250.\n"
        "Statement: a bright picture 0\nOf the two, the statement fits the",
    ]
    assert (spent.judge, spent.requests, spent.answers, spent.metered) == ("known-1 on captions", 12, 12, 0)
    assert np.isnan([spent.tokens_in, spent.tokens_out, spent.money]).all()


def test_captions_by_token_probabilities_of_a_server(tmp_path):
    with judging() as server:
        items, spent = captions(server, tmp_path)
    assert items.correct.all()
    np.testing.assert_allclose(items.score.abs(), 2.9)
    assert all("prompt" in request for request in server.requests)
    assert (spent.requests, spent.tokens_in, spent.tokens_out) == (12, 1200, 84)


def test_captions_in_words_where_a_server_has_no_probabilities(tmp_path):
    with judging() as server:
        server.probabilities = None
        server.behave = lambda text, n: brighter(text)
        items, spent = captions(server, tmp_path, in_flight=1)
    assert items.correct.all()
    assert spent.requests == 13
    said = [text for text in server.answered if "picture 0" in text]
    assert said[0].startswith(
        'First: "A picture of shade 250."\nSecond: "A picture of shade 20."\nWhich of the two does this statement fit'
    )


def test_equal_captions_are_no_evidence(tmp_path):
    items, spent = judge_captions(
        Generate(),
        np.array([0]),
        np.array([1]),
        ["A picture of shade 3."] * 2,
        ["bright"],
        np.array([True]),
        tmp_path,
        backend=Known(),
    )
    assert not items.correct[0]
    assert items.score[0] == 0
    assert spent.requests[0] == 1  # both orders are one question


def test_a_judge_that_guesses_is_right_half_of_the_time(tmp_path, rng):
    first, more = np.arange(2000), rng.random(2000) < 0.5
    items, _ = judge_captions(
        Generate(),
        first,
        first + 2000,
        [f"Caption {k}." for k in range(4000)],
        ["bright"] * 2000,
        more,
        tmp_path,
        backend=Known(lambda choice: rng.normal() + 2),
    )
    low, high = binomtest(int(items.correct.sum()), 2000).proportion_ci(0.999)
    assert low < 0.5 < high


# cost


def test_cost_without_a_price_and_without_a_count():
    answers = [Judged(1.0, "", 2.0, 3, 1, 50, 5), Judged(None, "error: x", 1.5, 2)]
    row = cost("j", 1, answers).loc[0]
    assert (row.requests, row.tokens_in, row.tokens_out, row.seconds, row.unanswered) == (5, 50, 5, 3.5, 1)
    assert np.isnan(row.money)
    assert cost("j", 1, answers, (1.0, 2.0)).money[0] == pytest.approx(60e-6)
    assert np.isnan(cost("j", 1, answers[1:], (1.0, 2.0)).loc[0, ["tokens_in", "money"]].to_numpy(float)).all()


def test_a_server_that_does_not_count(paths, tmp_path):
    with judging() as server:
        server.usage = False
        items, spent = images(server, paths, tmp_path, prices=(1.0, 1.0))
    assert items.correct.all()
    assert (spent.requests, spent.metered) == (12, 0)
    assert np.isnan([spent.tokens_in, spent.money]).all()
