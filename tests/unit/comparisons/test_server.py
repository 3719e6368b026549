"""A language model behind a server: what replies say, and what is made of servers that misbehave or lack a feature."""

import asyncio
import json
import math
import re
import socket
import subprocess
import sys
import threading
from collections import Counter
from functools import partial

import pytest
from helpers.llm_server import BODIES, serving

from pcclip import config as params
from pcclip.comparisons import stage as generate
from pcclip.comparisons.llm import Choice, Odds, Question, Reply, backend_identity, start_backend
from pcclip.comparisons.llm.replies import NoAnswer, difference_of, reply_of, without_reasoning
from pcclip.comparisons.prompts import load_prompt
from pcclip.comparisons.sentences import from_captions
from pcclip.config import Generate
from pcclip.data.image_set import load_images
from pcclip.errors import PcclipError
from pcclip.runs.log import AnswerLog

pytestmark = pytest.mark.usefixtures("quick")

PROMPT = load_prompt("differences")
QUESTIONS = [Question(f"q{k}", f"A red disc {k}.", f"A blue bar {k}.") for k in range(12)]
CHOICES = [Choice(f"c{k}", f"A fox {k} is much", ("larger",), ("smaller",), f"Is fox {k} larger?") for k in range(6)]
GOOD = from_captions("A red disc 0.", "A blue bar 0.")
KEY = "sk-very-secret"


def settings_of(server, **changes) -> Generate:
    url = server if isinstance(server, str | list) else server.url
    values = {"llm": "tiny", "base_url": url, "retries": 2, "timeout": 60.0, "in_flight": 4}
    return Generate(backend="openai", **values | changes)


def answers(server, questions=QUESTIONS, **changes) -> dict[str, Reply]:
    replies = [(q.key, reply) for q, reply in start_backend(settings_of(server, **changes), PROMPT).answers(questions)]
    assert sorted(key for key, _ in replies) == sorted(q.key for q in questions)
    return dict(replies)


def answer(behave, **changes) -> Reply:
    with serving(behave) as server:
        return answers(server, QUESTIONS[:1], **changes)["q0"]


def odds_of(server, choices=CHOICES, **changes) -> dict[str, Odds]:
    return {c.key: odds for c, odds in start_backend(settings_of(server, **changes), PROMPT).choose(choices)}


def one_line(error) -> str:
    assert "\n" not in str(error.value)
    return str(error.value)


# what a reply says


def choice_of(content=GOOD, finish="stop", **message) -> dict:
    return {"message": {"content": content, **message}, "finish_reason": finish}


@pytest.mark.parametrize(
    ("choice", "reply"),
    [
        (choice_of([{"type": "thinking", "thinking": "Hm."}, {"type": "text", "text": "A "}, "dog."]), "A dog."),
        (choice_of("A \ud83d car, \ud83d\udc36."), "A \ufffd car, 🐶."),
        (choice_of(reasoning_content="Hm."), GOOD),
        *[(choice_of(finish=end), GOOD) for end in (None, "eos", "STOP", "end_turn", "stop_sequence", 1)],
        ({"message": {"content": GOOD}}, GOOD),
        (choice_of([{"type": "text", "text": None}, {"type": "text", "text": "A dog."}]), "A dog."),
        *[
            (choice_of(finish=end), Reply(GOOD, "length"))
            for end in ("length", "MAX_TOKENS", "model_length", "model_context_window_exceeded")
        ],
    ],
)
def test_replies_of_any_form(choice, reply):
    assert reply_of(choice) == (reply if isinstance(reply, Reply) else Reply(reply, "stop"))


@pytest.mark.parametrize(
    ("choice", "reason"),
    [
        (choice_of(None), "empty reply, ended with 'stop'"),
        (choice_of(" \n", "length"), "empty reply, ended with 'length'"),
        (choice_of([]), "empty reply"),
        (choice_of(None, reasoning_content="Hm."), "reasoning without an answer"),
        (choice_of(None, reasoning="Hm."), "reasoning without an answer"),
        (
            choice_of("<think>\nThe first image shows", "length"),
            r"reasoning without an answer.*raise generate\.max_tok",
        ),
        (choice_of("<think>Hm.</think>\n"), "reasoning without an answer"),
        (choice_of(None, refusal="I cannot."), "content filter: the model refused: 'I cannot.'"),
        (choice_of(GOOD, "content_filter"), "content filter: the reply ended with 'content_filter'"),
        (choice_of(GOOD, "SAFETY"), "content filter"),
        (choice_of(GOOD, "abort"), "error: the reply ended with 'abort'"),
        (choice_of(GOOD, "insufficient_system_resource"), "error: the reply ended with 'insuff"),
        (choice_of({"text": GOOD}), "no text: "),
        (choice_of(3), "no text: '3'"),
    ],
)
def test_replies_that_answer_nothing_say_why(choice, reason):
    with pytest.raises(NoAnswer, match=reason):
        reply_of(choice)


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("<think>\nOkay.\n</think>\n\nA dog.", "A dog."),
        ("<think>a</think>\n<Think>b</Think> A dog.", "A dog."),
        ("Okay, the user.\n</think>A dog.", "A dog."),
        ("A dog. <think>Was that right?</think>", "A dog."),
        ("A dog.<thinking>cut", "A dog."),
        ("[THINK]Hm.[/THINK]A dog.", "A dog."),
        ('<seed:think budget="9">Hm.</seed:think>A dog. <analysis>Hm', "A dog."),
        ("<|begin_of_thought|>Hm.<|end_of_thought|>\n<|begin_of_solution|>A dog.<|end_of_solution|>", "A dog."),
        ("<|channel|>analysis<|message|>Hm.<|end|><|start|>assistant<|channel|>final<|message|>A dog.", "A dog."),
        ("\n\n\nI think <b>a dog</b>. ", "\n\n\nI think <b>a dog</b>. "),
    ],
)
def test_reasoning_is_no_part_of_the_answer(text, answer):
    assert without_reasoning(text) == answer


@pytest.mark.parametrize(
    "frame", ["{}", "```json\n{}\n```", "Here {{you}} are:\n{} Bye.", "<think>{{</think>{}", "[{}]"]
)
def test_json_may_stand_in_a_fence_or_in_prose(frame):
    assert difference_of(frame.format(json.dumps({"difference": GOOD}))) == GOOD


def test_json_of_another_shape_is_no_difference():
    assert difference_of(GOOD) == GOOD  # from a server that ignores the schema
    for text in ('{"other": 1}', '{"difference": ["a"]}', '{"difference": "cut', '{"a":' * 9999, "{" * 9999):
        with pytest.raises(NoAnswer, match="not the JSON that was asked for"):
            difference_of(text)


def test_a_reply_that_no_table_can_hold_is_never_read_from_a_log(tmp_path):
    with pytest.raises(UnicodeError):
        Reply("A \ud83d car", "stop")
    rows = [{"key": text, "text": text, "finish_reason": "stop"} for text in ("A \ud83d car", "A car", 3, None)]
    (tmp_path / "log.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    assert AnswerLog(tmp_path / "log.jsonl", Reply, "replies").read() == [("A car", Reply("A car", "stop"))]


# nothing is lost, nothing is asked twice


@pytest.fixture
def run(values, tiny_encoder):
    """The stage on the tiny set with a server: run(server, **changes of generate)."""

    def call(server, **changes):
        names = {"backend", "llm", "base_url", "retries", "timeout", "in_flight"}
        given = values["generate"] | {"min_yield": 0.9} | settings_of(server).model_dump(include=names) | changes
        config = params.check({**values, "generate": given})
        return generate.generate(config, load_images(config), tiny_encoder)

    return call


def stored(values) -> list[dict]:
    [path] = (params.check(values).folder / generate.FOLDER).glob("answers-*.jsonl")
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_misbehaving_server_loses_nothing(run, values):
    ways = ["busy", "broken", "half", "garbage", "cut", "slow", "empty", "error", "nested", "ok"]
    met = Counter()

    def behave(text, n):
        way = ways[(sum(map(ord, text)) + n) % len(ways)] if n <= 2 else "ok"
        met[way] += 1
        return way

    with serving(behave) as server:
        server.slow = 0.1  # then the connection is closed
        table = run(server, in_flight=16, timeout=60.0)
    assert set(met) == set(ways)
    assert (table.verdict == "kept").all()
    assert list(table.difference) == list(map(from_captions, table.first_caption, table.second_caption))
    assert len({row["key"] for row in stored(values)}) == len(stored(values)) == len(table) == 60
    assert len(server.answered) == 60
    assert set(server.answered.values()) == {1}


def test_what_failed_is_asked_again_and_nothing_else(run, values):
    with serving(lambda text, n: "broken" if "red" in text else "ok") as server:
        with pytest.raises(PcclipError, match=r"rule 'answered'.*broken"):
            run(server, retries=0)
        first = Counter(server.asked)
        assert set(first.values()) == {1}
        server.behave = lambda text, n: "ok"
        table = run(server, retries=0)
    assert set((server.asked - first).elements()) == {text for text in first if "red" in text}
    assert (table.verdict == "kept").all()


@pytest.mark.parametrize("filters", ["ours", "as_released", "none"])
def test_reasoning_is_never_kept_as_a_comparison(run, filters):
    reasoning = "<think>Okay, *two* images; the user wants the difference.</think>\n\n"
    with serving(lambda text, n: choice_of(f"{reasoning}The first image shows a cat.") if n else "ok") as server:
        table = run(server, filters=filters, min_yield=0)
    assert not table.difference.str.contains("user wants").any()
    assert table.raw.str.startswith("<think>").all()
    assert set(table.difference) == {"The first image shows a cat."}


def test_twenty_replies_of_no_use_end_the_run_unless_told_to_go_on(run):
    with serving(lambda text, n: "text: I am sorry,\nI cannot see images.") as server:
        with pytest.raises(
            PcclipError, match=r"none of the first 20 replies passes the filters \(dropped by 'length' \(20\)\)"
        ) as error:
            run(server, filters=["length"])
        assert one_line(error).count(r"'I am sorry,\nI cannot see images.'") == 3
        assert "generate.min_yield: 0 to go on" in str(error.value)
        assert sum(server.asked.values()) == 20
        assert len(run(server, filters=["length"], min_yield=0)) == 60


def test_what_a_server_cannot_do_is_known_before_the_work(run):
    changes = {"attributes": "size", "thing_pairs": 3, "attribute_pairs": 3, "held_out_attribute_pairs": 3}
    with serving() as server:
        server.probabilities = None
        with pytest.raises(
            PcclipError, match=r"generate\.thing_pairs = 3: a stem about one thing needs token prob"
        ) as error:
            run(server, **changes)
        assert "set it to 0" in one_line(error)
        assert len(server.requests) == 1
        server.probabilities = "vllm"
        run(server, **changes)


# one request


def test_what_the_server_is_asked():
    with serving() as server:
        assert answers(server, temperature=0.3, top_p=0.5, max_tokens=7)["q0"] == Reply(GOOD, "stop")
    [request] = [r for r in server.requests if " 3." in r["messages"][-1]["content"]]
    assert request == {
        "model": "tiny",
        "messages": PROMPT.messages("A red disc 3.", "A blue bar 3."),
        "seed": QUESTIONS[3].seed % 2**31,
        "temperature": 0.3,
        "top_p": 0.5,
        "max_tokens": 7,
    }


def test_the_parameters_change_and_drop_any_field():
    changes = {"top_p": None, "max_tokens": 9, "model": "other", "chat_template_kwargs": {"enable_thinking": False}}
    with serving() as server:
        answers(server, QUESTIONS[:1], request=changes)
        odds_of(server, CHOICES[:1], request=changes)
    chat, completion = server.requests
    assert (chat["model"], completion["model"]) == ("other", "other")
    assert chat["chat_template_kwargs"] == {"enable_thinking": False}
    assert set(server.bodies[0]) == {"seed", "temperature", "max_tokens", "chat_template_kwargs"}
    assert set(server.bodies[1]) == {"prompt", "temperature", "max_tokens", "logprobs"}


@pytest.mark.parametrize(
    ("refuses", "left"),
    [
        (["max_tokens"], {"seed", "temperature", "top_p", "max_completion_tokens"}),
        (["max_tokens", "max_completion_tokens"], {"seed", "temperature", "top_p"}),
        (["temperature", "top_p", "seed"], {"max_tokens"}),
    ],
)
def test_a_refused_field_is_left_out_from_then_on(refuses, left, capsys):
    with serving() as server:
        server.refuses = refuses
        assert not any(reply.failed for reply in answers(server, in_flight=1).values())
    assert [set(body) for body in server.bodies[len(refuses) :]] == [left] * len(QUESTIONS)
    assert capsys.readouterr().out.count("refuses ") == len(refuses)


def test_a_refusal_of_one_question_drops_no_field():
    """The message names a field, but the server has accepted it; or the question is refused without it, too."""
    with serving(lambda text, n: "refused" if " 0." in text else "ok") as server:
        replies = answers(server, QUESTIONS[:2], in_flight=1, structured=True)
    assert replies["q0"].finish_reason.startswith("error: HTTP 400: refused")
    assert "response_format" in server.requests[-1]
    with serving() as server:
        server.behave = lambda text, n: server.__setattr__("refuses", ["seed"] if " 1." in text else []) or "ok"
        replies = answers(server, QUESTIONS[:3], in_flight=1)
    assert [reply.failed for reply in replies.values()] == [False, True, False]
    assert len(server.requests) == 3


@pytest.mark.parametrize(
    "way", ["busy", "broken", *sorted(BODIES.keys() - {"huge", "bomb", "brotli"}), "slow", "dribble"]
)
def test_retries_end(way):
    with serving(lambda text, n: way) as server:
        reply = answers(server, QUESTIONS[:1], retries=1, timeout=0.3 if way in ("slow", "dribble") else 60.0)["q0"]
    assert reply.finish_reason.startswith("error: ")
    assert "\n" not in reply.finish_reason
    assert sum(server.asked.values()) == 2


@pytest.mark.parametrize(
    ("way", "reason"),
    [("huge", "a reply of more than 2 MB"), ("bomb", "a reply of more than 2 MB"), ("brotli", "content-encoding 'br'")],
)
def test_a_reply_without_bounds_is_not_read(way, reason):
    with serving(lambda text, n: way) as server:
        assert reason in answers(server, QUESTIONS[:1])["q0"].finish_reason
    assert len(server.requests) == 1


@pytest.mark.parametrize(("wait", "least"), [(None, 0.0), ("0.5", 0.5), ("soon", 0.0)])
def test_the_server_says_how_long_to_wait(wait, least):
    with serving(lambda text, n: "busy" if n == 1 else "ok") as server:
        server.retry_after = wait
        answers(server, QUESTIONS[:1])
    assert least <= server.times[1] - server.times[0] < least + 0.4


# the whole server


def test_several_servers_are_asked_in_turn():
    with serving() as one, serving() as two:
        assert not any(reply.failed for reply in answers([one.url, two.url]).values())
        assert sum(one.asked.values()) == sum(two.asked.values()) == len(QUESTIONS) / 2


def test_what_a_dead_server_was_asked_goes_to_the_others_until_it_is_back(capsys):
    with serving() as one, serving() as two:
        pass
    with pytest.raises(PcclipError, match=f"{re.escape(one.url)}|{re.escape(two.url)}: no server there"):
        answers([one.url, two.url], retries=0)
    capsys.readouterr()
    with serving() as one:
        assert not any(reply.failed for reply in answers([one.url, two.url], retries=0).values())
        assert sum(one.asked.values()) == len(QUESTIONS)
        assert capsys.readouterr().out.count("the others get its requests") == 1
        backend = start_backend(settings_of([two.url, one.url], retries=0, in_flight=1), PROMPT)
        list(backend.answers(QUESTIONS[:2]))
        backend._absent_until[two.url] = 0.0
        with serving(port=two.server_port) as back:
            list(backend.answers(QUESTIONS))
        assert sum(back.asked.values()) == len(QUESTIONS) / 2


@pytest.mark.parametrize("way", ["slow", "broken", "half", "garbage"])
def test_what_one_server_fails_at_another_one_is_asked(way, capsys):
    with serving(lambda text, n: way) as ill, serving() as well:
        ill.slow = 30.0
        replies = answers([ill.url, well.url], retries=1, timeout=1.0 if way == "slow" else 60.0)
    assert not any(reply.failed for reply in replies.values())
    assert max(ill.asked.values()) == 1
    assert sum(well.answered.values()) == len(QUESTIONS)
    assert ("no whole reply within 1 s; the others get its requests" in capsys.readouterr().out) == (way == "slow")


@pytest.mark.parametrize("already", [0, 5])
def test_no_server(already):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/v1"
    with serving() as server:
        server.keeps_alive = False
        replies = start_backend(settings_of(server if already else url), PROMPT).answers(QUESTIONS)
        for _ in range(already):
            next(replies)
    with pytest.raises(PcclipError, match=r"http://127\.0\.0\.1:\d+/v1: no server there .*`vllm serve tiny`") as error:
        list(replies)
    one_line(error)


@pytest.mark.parametrize(
    ("way", "says"),
    [
        ("no_key", r"refuses the key \(401\); set OPENAI_API_KEY"),
        ("forbidden", r"refuses the key \(403\)"),
        ("no_model", r"no model 'tiny' here .*generate\.llm must"),
    ],
)
def test_settings_that_no_question_survives(way, says, monkeypatch, capsys):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    with serving(lambda text, n: way) as server, pytest.raises(PcclipError, match=says) as error:
        answers(server)
    assert sum(server.asked.values()) <= 4
    assert KEY not in one_line(error) + "".join(capsys.readouterr())


def test_the_key_is_sent_and_never_shown_nor_stored(run, values, monkeypatch, capsys):
    monkeypatch.setenv("OPENAI_API_KEY", f"{KEY}\n")
    with serving(
        lambda text, n: choice_of(f"The first image shows {KEY}, while the second image shows a bar.")
    ) as server:
        table = run(server, min_yield=0)
        server.behave = lambda text, n: "refused"  # it sends the key back
        assert "you came with Bearer ***" in answers(server, QUESTIONS[:1])["q0"].finish_reason
    assert set(server.keys) == {f"Bearer {KEY}"}
    assert table.raw.str.contains("shows ***, while", regex=False).all()
    files = [path for path in params.check(values).folder.rglob("*") if path.is_file()]
    assert len(files) > 3
    assert not [path for path in files if KEY.encode() in path.read_bytes()]
    assert KEY not in "".join(capsys.readouterr())


@pytest.mark.parametrize(
    "choice",
    [
        choice_of(GOOD, f"error {'y' * 45}{KEY}"),
        choice_of({"k": "y" * 65 + KEY}),
        choice_of(None, refusal="y" * 95 + KEY),
    ],
)
def test_no_part_of_the_key_is_left_where_a_message_is_cut(choice, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    reply = answer(lambda text, n: choice, retries=0)
    assert reply.failed
    assert KEY[:4] not in reply.finish_reason


def test_an_error_that_no_table_can_hold():
    reply = answer(lambda text, n: choice_of("A \ud83d dog", "error \ud83d"), retries=0)
    assert reply.finish_reason == "error: error: the reply ended with 'error \ufffd'"


@pytest.mark.parametrize(
    ("variable", "value", "says"),
    [
        ("OPENAI_API_KEY", "sk-a\nb", r"\$OPENAI_API_KEY: a key has no line break"),
        ("OPENAI_API_KEY", "“sk-ab”", r"\$OPENAI_API_KEY: a key has no line break"),
        ("HTTP_PROXY", "socks4://me:pw1234@127.0.0.1:1", "proxy of .* cannot be used .*mend or unset it"),
        ("HTTP_PROXY", "http://me:pw1234@127.0.0.1:1", r"no server there .*through the proxy of \$HTTP_PROXY"),
    ],
)
def test_the_environment_is_mended_by_one_line(variable, value, says, monkeypatch):
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy", "NO_PROXY", "ALL_PROXY", "HTTPS_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv(variable, value)
    with pytest.raises(PcclipError, match=says) as error:
        answers("http://127.0.0.1:1/v1", retries=0)
    assert not re.search("sk-a|pw1234", one_line(error))


def test_a_password_in_the_url_is_sent_and_never_shown(capsys):
    with serving(lambda text, n: "refused" if n == 1 else "no_model") as server:
        url = server.url.replace("//", "//me:pass%20word@")
        reply = answers(url, QUESTIONS[:1])["q0"]
        with pytest.raises(PcclipError, match=r"http://\*\*\*@127\.0\.0\.1:\d+/v1: no model") as error:
            answers(url, QUESTIONS[:1])
    assert set(server.keys) == {"Basic bWU6cGFzcyB3b3Jk"}
    shown = one_line(error) + reply.finish_reason + "".join(capsys.readouterr())
    assert "you came with Basic ***" in shown
    assert not re.search("pass.{1,3}word|bWU6", shown)
    with pytest.raises(PcclipError, match=r"base_url = 'ftp://\*\*\*@host'"):
        params.check({"generate": {"base_url": "ftp://me:pw1234@host"}})
    with pytest.raises(PcclipError, match=r"generate\.base_url = http://\*\*\*@host:port/v1: no URL"):
        start_backend(settings_of("http://me:pw1234@host:port/v1"), PROMPT)


def test_many_failures_in_a_row_end_the_run():
    questions = [Question(f"{k}", "A disc.", f"A bar {k}.") for k in range(200)]
    message = "(29|3[0-9]) questions in a row got no answer, the last: .*broken"
    with (
        serving(lambda text, n: "broken" if int(text.split()[-1][:-1]) >= 20 else "ok") as server,
        pytest.raises(PcclipError, match=message),
    ):
        answers(server, questions, retries=0)
    assert 49 <= sum(server.asked.values()) <= 60


def test_hundreds_in_flight_and_no_more():
    together, taken = threading.Barrier(64), []
    questions = [Question(f"{k}", "A disc.", f"A bar {k}.") for k in range(128)]
    with serving(lambda text, n: (together.wait(20) and "ok") or "ok") as server:
        backend = start_backend(settings_of(server, in_flight=64, timeout=60.0, retries=0), PROMPT)
        replies = backend.answers(taken.append(q) or q for q in questions)
        next(replies)
        assert len(taken) == 64
        assert len(list(replies)) == 127
    assert set(server.asked.values()) == {1}


def test_a_consumer_that_stops_cancels_the_rest():
    with serving(lambda text, n: "ok" if " 0." in text else "slow") as server:
        server.slow = 30.0
        earlier = set(threading.enumerate())  # threads of other tests may still be ending
        replies = start_backend(settings_of(server, in_flight=8, timeout=60.0), PROMPT).answers(QUESTIONS)
        assert next(replies)[0] == QUESTIONS[0]
        [thread] = [t for t in set(threading.enumerate()) - earlier if t.name == "pcclip-requests"]
        replies.close()
        thread.join(5)
        assert not thread.is_alive()
    assert len(server.asked) <= 8


FORGETS = """
from pcclip.comparisons.llm import Question, start_backend
from pcclip.comparisons.prompts import load_prompt
from pcclip.config import Generate

settings = Generate(backend="openai", llm="tiny", base_url={url!r}, in_flight=4)
replies = start_backend(settings, load_prompt("differences")).answers(Question(str(k), "A", "B") for k in range(9))
next(replies)
raise KeyError("the consumer's own mistake")
"""


def test_answers_that_are_left_lying_do_not_keep_the_interpreter():
    with serving(lambda text, n: "ok" if n == 1 else "slow") as server:
        command = [sys.executable, "-c", FORGETS.format(url=server.url)]
        ended = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert ended.stderr.strip().endswith('KeyError: "the consumer\'s own mistake"')


def test_it_works_where_a_loop_is_running_already():
    async def cell():
        return answers(server)

    with serving() as server:
        assert len(asyncio.run(cell())) == len(QUESTIONS)


# JSON by schema


def test_structured_replies():
    with serving() as server:
        assert answers(server, structured=True)["q0"] == Reply(GOOD, "stop")
    schema = server.requests[0]["response_format"]["json_schema"]
    assert schema["strict"] is True
    assert schema["schema"]["properties"] == {"difference": {"type": "string"}}
    assert schema["schema"]["required"] == ["difference"]
    assert answer(lambda text, n: 'text: {"other": 1}', structured=True).failed
    cut = answer(lambda text, n: "length", structured=True)
    assert cut.finish_reason == "length"
    assert cut.text.startswith('{"difference": "')


def test_a_server_without_schemas_is_asked_for_plain_text(capsys):
    with serving() as server:
        server.grants_schema = False
        assert answers(server, structured=True)["q0"] == Reply(GOOD, "stop")
    assert capsys.readouterr().out.count("refuses response_format, plain text is asked for") == 1
    assert sum("response_format" in request for request in server.requests) <= 4  # those in flight


def test_the_identity_of_a_server_needs_no_server():
    identity = partial(lambda **changes: backend_identity(settings_of("http://127.0.0.1:1/v1", **changes)))
    assert identity() == identity(base_url="http://elsewhere/v1", retries=9, in_flight=200)
    assert len({identity(), identity(llm="other"), identity(structured=True), identity(request={"top_p": None})}) == 4


# forced choices


@pytest.mark.parametrize("kind", ["vllm", "llama.cpp"])
def test_choices_by_probabilities(kind):
    with serving() as server:
        server.probabilities = kind
        assert odds_of(server) == {c.key: Odds(pytest.approx(math.log(2)), "probabilities") for c in CHOICES}
    expected = {"model": "tiny", "prompt": "A fox 2 is much", "max_tokens": 1, "temperature": 0.0, "logprobs": 20}
    assert expected in server.requests


@pytest.mark.parametrize(("refusal", "schema"), [("no completions", True), ("no logprobs", False)])
def test_choices_in_words(refusal, schema, capsys):
    with serving(lambda text, n: 'text: {"answer": "second", "confidence": 0.5}') as server:
        server.probabilities, server.top = ("vllm", {}) if refusal == "no logprobs" else (None, {})
        server.grants_schema = schema
        assert odds_of(server) == {c.key: Odds(pytest.approx(-math.log(3)), "structured") for c in CHOICES}
    said = capsys.readouterr().out
    assert said.count("no token probabilities, asking in words") == 1
    assert said.count("refuses response_format") == (not schema)
    texts = [request["messages"][-1]["content"] for request in server.requests if "messages" in request]
    assert all(text.startswith("Is fox ") and "JSON only" in text for text in texts)
    assert sum("prompt" in request for request in server.requests) <= 4


def test_choices_that_fail():
    with serving(lambda text, n: "broken" if "2" in text else "ok") as server:
        odds = odds_of(server)
        assert [key for key in odds if odds[key].failed] == ["c2"]
        server.top = {" larger": -0.5, " smaller": "low"}
        assert odds_of(server, CHOICES[:1])["c0"].reason.startswith("error: not an answer")

    def behave(text, n):
        server.top = {} if "4" in text else {" larger": -0.5, " smaller": -1.5}
        return "ok"

    with serving(behave) as server:
        odds = odds_of(server, in_flight=1)
    assert {c: o.reason for c, o in odds.items() if o.failed} == {"c4": "error: no token probabilities in the reply"}
