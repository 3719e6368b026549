"""The journal alone: equal questions once, whole lines kept, failures forgotten. Its part in 01: test_generate.py."""

import json
from dataclasses import dataclass

import pytest

from pcclip.comparisons.llm import Odds, Question, Reply
from pcclip.errors import PcclipError
from pcclip.runs.log import answer_all

QUESTIONS = [Question(f"key {k}", f"first {k}", f"second {k}") for k in range(6)]


@dataclass
class Asked:
    """An `ask` that remembers what it was asked; answers `failing` keys with an error and `silent` ones not at all."""

    failing: tuple = ()
    silent: tuple = ()
    keys: tuple = ()

    def __call__(self, questions):
        self.keys = tuple(q.key for q in questions)
        for question in questions:
            if question.key in self.failing:
                yield question, Reply("", "error: RuntimeError('busy')")
            elif question.key not in self.silent:
                yield question, Reply(f"about {question.first}", "stop")


@pytest.fixture
def journal(tmp_path):
    return tmp_path / "01_generate" / "answers.jsonl"


@pytest.fixture
def ask(journal):
    def call(asked, questions=QUESTIONS):
        return answer_all(questions, asked, Reply, journal, "answers")

    return call


def keys_in(journal) -> list[str]:
    return [json.loads(line)["key"] for line in journal.read_text().splitlines()]


def test_answers_come_back_by_key(ask, journal):
    assert ask(Asked()) == {q.key: Reply(f"about {q.first}", "stop") for q in QUESTIONS}
    assert keys_in(journal) == [q.key for q in QUESTIONS]


def test_equal_keys_are_asked_once(ask):
    asked = Asked()
    assert len(ask(asked, QUESTIONS + QUESTIONS[::-1])) == 6
    assert sorted(asked.keys) == [q.key for q in QUESTIONS]


def test_what_is_in_the_journal_is_not_asked(ask, capsys):
    ask(Asked(), QUESTIONS[:4])
    asked = Asked()
    assert set(ask(asked)) == {q.key for q in QUESTIONS}
    assert asked.keys == ("key 4", "key 5")
    assert "answers: 4 of 6 answers found in the journal, asking for 2" in capsys.readouterr().out
    nothing = Asked(keys=("never called",))
    ask(nothing)
    assert nothing.keys == ("never called",)


def test_failed_answers_come_back_and_are_asked_again(ask):
    found = ask(Asked(failing=("key 2",)))
    assert found["key 2"].failed
    asked = Asked()
    assert not any(reply.failed for reply in ask(asked).values())
    assert asked.keys == ("key 2",)
    again = Asked(keys=("never called",))
    assert not ask(again)["key 2"].failed
    assert again.keys == ("never called",), "the failure before the answer is forgotten"


def test_answers_to_other_questions_stay_and_are_not_returned(ask, journal):
    ask(Asked())
    assert set(ask(Asked(), QUESTIONS[:1])) == {"key 0"}
    assert len(keys_in(journal)) == 6


def test_questions_without_an_answer_are_an_error(ask):
    with pytest.raises(PcclipError, match="answers: 2 of 6 questions got no answer; run again"):
        ask(Asked(silent=("key 0", "key 3")))
    asked = Asked()
    ask(asked)
    assert asked.keys == ("key 0", "key 3")


@pytest.mark.parametrize(
    "tail",
    [
        '{"key": "key 3", "te',
        '{"key": "key 3"}\n',
        "\x00\x00",
        "null\n",
        '{"key": "key 3", "text": "x", "finish_reason": "stop"}',
    ],
)
def test_a_line_cut_short_is_removed_and_asked_again(ask, journal, tail):
    ask(Asked(), QUESTIONS[:3])
    journal.write_text(journal.read_text() + tail)
    asked = Asked()
    ask(asked)
    assert asked.keys == ("key 3", "key 4", "key 5")
    assert keys_in(journal) == [q.key for q in QUESTIONS]


def test_odds_go_through_the_journal_unchanged(journal):
    odds = [Odds(0.1 + 0.2, "probabilities"), Odds(-3.0, "structured"), Odds(None, "error: lost")]
    first = answer_all(QUESTIONS[:3], lambda rest: zip(rest, odds, strict=True), Odds, journal, "verdicts")
    asked = []

    def again(rest):
        asked.extend(rest)
        yield rest[0], odds[2]

    second = answer_all(QUESTIONS[:3], again, Odds, journal, "verdicts")
    assert list(first.values()) == odds
    assert second == first
    assert asked == [QUESTIONS[2]]


def test_a_full_disk_is_one_line(ask, monkeypatch):
    def full(rest):
        yield rest[0], Reply("x", "stop")
        raise OSError(28, "No space left on device")

    with pytest.raises(PcclipError, match="no room on disk"):
        ask(full)
    asked = Asked()
    ask(asked)
    assert asked.keys == tuple(q.key for q in QUESTIONS[1:])
