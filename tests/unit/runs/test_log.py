"""The append-only log: what was stored is read again whatever happens to a line, and no question is asked twice."""

import json
import os
import subprocess
import sys
from dataclasses import dataclass

import pytest
from helpers.faults import flipped
from hypothesis import given, settings, strategies as st

from pcclip.comparisons.llm import Odds, Question, Reply
from pcclip.errors import PcclipError
from pcclip.runs import log
from pcclip.runs.log import AnswerLog, Log

QUESTIONS = [Question(f"key {k}", f"first {k}", f"second {k}") for k in range(6)]
BAD_LINES = {
    "blank": b"",
    "NUL run": b"\0" * 40,
    "not UTF-8": b'{"key": "key 2", "text": "caf\xe9", "finish_reason": "stop"}',
    "extra field": b'{"key": "key 2", "text": "t", "finish_reason": "stop", "more": 1}',
    "missing field": b'{"key": "key 2"}',
    "missing key": b'{"text": "t", "finish_reason": "stop"}',
    "another type": b'{"key": "key 2", "text": 7, "finish_reason": "stop"}',
    "a key that is no text": b'{"key": [2], "text": "t", "finish_reason": "stop"}',
    "no object": b'["key 2", "t", "stop"]',
    "no JSON": b'{"key" "key 2", "text": "t", "finish_reason": "stop"}',
    "nested without end": b"[" * 100_000,
    "two lines in one": b'{"key": "ke{"key": "key 2", "text": "t", "finish_reason": "stop"}',
}


@dataclass
class Asked:
    """An `ask` that remembers what it was asked; answers `failing` keys with an error and `silent` ones not at all."""

    failing: tuple = ()
    silent: tuple = ()
    keys: tuple = ()

    def __call__(self, questions):
        self.keys = tuple(question.key for question in questions)
        for question in questions:
            if question.key in self.failing:
                yield question, Reply("", "error: RuntimeError('busy')")
            elif question.key not in self.silent:
                yield question, answer_to(question)


def answer_to(question) -> Reply:
    return Reply(f"about {question.first}", "stop")


@pytest.fixture
def answers(tmp_path):
    return AnswerLog(tmp_path / "01_generate" / "answers.jsonl", Reply, "answers")


def keys_in(answers) -> list[str]:
    return [json.loads(line)["key"] for line in answers.path.read_text().splitlines()]


# ---- damage ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bad", BAD_LINES.values(), ids=BAD_LINES)
def test_a_bad_line_costs_itself_alone_wherever_it_is(answers, capsys, bad):
    list(answers.store((None, {"key": q.key, "text": f"about {q.first}", "finish_reason": "stop"}) for q in QUESTIONS))
    whole = answers.path.read_bytes().splitlines(keepends=True)
    for place in range(len(whole)):
        damaged = b"".join([*whole[:place], bad + b"\n", *whole[place + 1 :]])
        answers.path.write_bytes(damaged)
        answers.bad_path.unlink(missing_ok=True)
        capsys.readouterr()
        again = AnswerLog(answers.path, Reply, "answers")
        assert again.read() == [(q.key, answer_to(q)) for q in QUESTIONS if q is not QUESTIONS[place]]
        said = capsys.readouterr().out
        assert f"1 of 6 lines cannot be read and are left out, the first is line {place + 1}" in said
        assert said.count("\n") == 1
        asked = Asked()
        assert again.answer_all(QUESTIONS, asked) == {q.key: answer_to(q) for q in QUESTIONS}
        assert asked.keys == (QUESTIONS[place].key,)
        assert answers.path.read_bytes().startswith(damaged), "what cannot be read is never deleted"
        assert answers.bad_path.read_bytes() == bad + b"\n"


@settings(deadline=None, max_examples=40)
@given(
    st.lists(st.sampled_from([None, *(line for line in BAD_LINES.values() if len(line) < 99)]), max_size=12),
    st.binary(max_size=30),
)
def test_any_mixture_keeps_every_whole_line(tmp_path_factory, lines, tail):
    path = tmp_path_factory.mktemp("log") / "a.jsonl"
    rows = [{"key": f"{k}", "text": "t", "finish_reason": "stop"} for k in range(len(lines))]
    content = [json.dumps(row).encode() if bad is None else bad for bad, row in zip(lines, rows, strict=True)]
    tail = tail.replace(b"\n", b"")
    path.write_bytes(b"".join(line + b"\n" for line in content) + tail)
    answers = AnswerLog(path, Reply, "answers")
    kept = [row["key"] for bad, row in zip(lines, rows, strict=True) if bad is None]
    assert [key for key, _ in answers.read()] == kept
    answers.append({"key": "last", "text": "t", "finish_reason": "stop"})
    assert [key for key, _ in answers.read()] == [*kept, "last"]
    stored = path.read_bytes().split(b"\n") + (answers.bad_path.read_bytes().split(b"\n") if tail else [])
    assert {*content, tail} <= {*stored}


@pytest.mark.parametrize("cut", [1, 10, 30, -1])
def test_a_line_cut_short_is_set_aside_and_asked_again(answers, capsys, cut):
    answers.answer_all(QUESTIONS[:4], Asked())
    whole = answers.path.read_bytes()
    start = whole.rindex(b"\n", 0, -1) + 1
    half = whole[start:-1][:cut]
    answers.path.write_bytes(whole[:start] + half)
    capsys.readouterr()
    asked = Asked()
    answers.answer_all(QUESTIONS, asked)
    assert asked.keys == ("key 3", "key 4", "key 5")
    assert "line 4 was cut short and is left out" in capsys.readouterr().out
    assert keys_in(answers) == [q.key for q in QUESTIONS]
    assert answers.bad_path.read_bytes() == half + b"\n"


def test_a_last_line_without_its_newline_is_completed(answers):
    answers.answer_all(QUESTIONS[:3], Asked())
    answers.path.write_bytes(answers.path.read_bytes().removesuffix(b"\n"))
    asked = Asked()
    answers.answer_all(QUESTIONS, asked)
    assert asked.keys == ("key 3", "key 4", "key 5")
    assert keys_in(answers) == [q.key for q in QUESTIONS]
    assert not answers.bad_path.exists()


def test_the_end_is_mended_whatever_its_length(tmp_path):
    numbers = Log(tmp_path / "n.jsonl", lambda row: row["n"], "numbers")
    numbers.append({"n": 1})
    with numbers.path.open("ab") as file:
        file.write(b"x" * 100)
    numbers.append({"n": 2})
    assert numbers.read() == [1, 2]
    assert numbers.bad_path.read_bytes() == b"x" * 100 + b"\n"


def test_a_mark_at_the_start_and_windows_line_ends_are_read(tmp_path):
    (tmp_path / "n.jsonl").write_bytes(b'\xef\xbb\xbf{"n": 1}\r\n{"n": 2}\r\n')
    assert Log(tmp_path / "n.jsonl", lambda row: row["n"], "numbers").read() == [1, 2]


def test_a_flipped_bit_in_an_answer_costs_that_answer(answers):
    answers.answer_all(QUESTIONS, Asked())
    whole = answers.path.read_bytes()
    for bit in range(0, 8 * len(whole), 101):
        answers.path.write_bytes(flipped(whole, bit))
        kept = dict(AnswerLog(answers.path, Reply, "answers").read())
        assert len(kept) >= len(QUESTIONS) - 2, "a flipped newline joins two lines"
        assert kept.items() <= {q.key: answer_to(q) for q in QUESTIONS}.items()


def test_a_file_of_bad_lines_is_no_part_and_holds_each_once(answers):
    answers.answer_all(QUESTIONS, Asked())
    with answers.path.open("ab") as file:
        file.write(b"bad\nworse\nbad\n")
    for _ in range(2):
        AnswerLog(answers.path, Reply, "answers").read()
    assert answers.bad_path.read_bytes() == b"bad\nworse\n"
    assert answers.bad_path.name == "answers.jsonl.bad"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_may_only_be_read(answers):
    answers.answer_all(QUESTIONS[:2], Asked())
    with answers.path.open("ab") as file:
        file.write(b"bad\n")
    answers.path.parent.chmod(0o500)
    assert len(answers.read()) == 2


def test_processes_that_append_and_mend_at_once_lose_nothing(tmp_path):
    """Each process leaves a torn line now and then, as a kill does, and the next append of any of them mends it."""
    path = tmp_path / "n.jsonl"
    code = f"""
import fcntl, sys
from pathlib import Path
from pcclip.runs.log import Log
numbers = Log(Path({str(path)!r}), lambda row: row["n"], "numbers")
for k in range(60):
    numbers.append({{"n": int(sys.argv[1]) + k}})
    if k % 7 == 0:
        with numbers.path.open("ab") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            file.write(b'{{"n": 5')
            file.flush()
"""
    processes = [subprocess.Popen([sys.executable, "-c", code, str(start)]) for start in (1000, 2000)]
    assert [process.wait(60) for process in processes] == [0, 0]
    kept = Log(path, lambda row: row["n"], "numbers").read()
    assert sorted(kept) == [*range(1000, 1060), *range(2000, 2060)]


# ---- what is on disk -------------------------------------------------------------------------------------------------


def test_an_answer_is_reported_once_it_is_synced(tmp_path, monkeypatch):
    """In groups: at most _SYNC_SECONDS after the first line of a group, and at the end."""
    synced, clock = [], iter(range(100))
    path = tmp_path / "n.jsonl"
    monkeypatch.setattr(log.time, "monotonic", lambda: 0.2 * next(clock))
    monkeypatch.setattr(log.os, "fsync", lambda file: synced.append(len(path.read_bytes().splitlines())))
    numbers = Log(path, lambda row: row["n"], "numbers")
    seen = []
    for item in numbers.store((k, {"n": k}) for k in range(8)):
        assert item < synced[-1]
        seen.append(item)
    assert seen == list(range(8))
    assert len(synced) < 8
    assert numbers.read() == seen


def test_lines_reach_the_system_at_once(tmp_path):
    numbers = Log(tmp_path / "n.jsonl", lambda row: row["n"], "numbers")

    def rows():
        for k in range(3):
            yield None, {"n": k}
            assert numbers.read() == list(range(k + 1)), "a killed process loses no line"

    list(numbers.store(rows()))


def test_a_full_disk_is_one_line_and_keeps_what_was_stored(answers, monkeypatch):
    def full(file):
        if len(keys_in(answers)) == 2:
            raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(answers, "_mend_end", full)
        with pytest.raises(PcclipError, match="no room on disk"):
            answers.answer_all(QUESTIONS, Asked())
    asked = Asked()
    answers.answer_all(QUESTIONS, asked)
    assert asked.keys == tuple(q.key for q in QUESTIONS[2:])


def test_a_language_model_that_fails_is_not_a_log_that_cannot_be_written(answers):
    def refused(rest):
        yield rest[0], answer_to(rest[0])
        raise ConnectionRefusedError(111, "Connection refused")

    with pytest.raises(PcclipError, match="the language model failed .*Connection refused") as error:
        answers.answer_all(QUESTIONS, refused)
    assert "cannot be written" not in str(error.value)
    assert keys_in(answers) == [QUESTIONS[0].key]


def test_a_folder_in_the_files_place(tmp_path):
    folder = Log(tmp_path, dict, "numbers")
    with pytest.raises(PcclipError, match="cannot be read .*; name a file of numbers"):
        folder.read()
    with pytest.raises(PcclipError, match="cannot be written .*; name a file of numbers"):
        folder.append({})


# ---- answers ---------------------------------------------------------------------------------------------------------


def test_answers_come_back_by_key_and_equal_keys_are_asked_once(answers):
    asked = Asked()
    assert answers.answer_all(QUESTIONS + QUESTIONS[::-1], asked) == {q.key: answer_to(q) for q in QUESTIONS}
    assert sorted(asked.keys) == keys_in(answers) == [q.key for q in QUESTIONS]


def test_what_is_in_the_log_is_not_asked(answers, capsys):
    answers.answer_all(QUESTIONS[:4], Asked())
    asked = Asked()
    assert set(answers.answer_all(QUESTIONS, asked)) == {q.key for q in QUESTIONS}
    assert asked.keys == ("key 4", "key 5")
    assert "answers: 4 of 6 answers are in the log, asking 2" in capsys.readouterr().out
    nothing = Asked(keys=("never called",))
    assert set(answers.answer_all(QUESTIONS[:1], nothing)) == {"key 0"}, "answers to other questions stay in the log"
    assert nothing.keys == ("never called",)


def test_failed_answers_come_back_and_are_asked_again(answers):
    assert answers.answer_all(QUESTIONS, Asked(failing=("key 2",)))["key 2"].failed
    asked = Asked()
    assert not any(reply.failed for reply in answers.answer_all(QUESTIONS, asked).values())
    assert asked.keys == ("key 2",)
    again = Asked(keys=("never called",))
    assert not answers.answer_all(QUESTIONS, again)["key 2"].failed
    assert again.keys == ("never called",), "the failure before the answer is forgotten"


def test_questions_without_an_answer_are_an_error(answers):
    with pytest.raises(PcclipError, match="answers: 2 of 6 questions got no answer; run again"):
        answers.answer_all(QUESTIONS, Asked(silent=("key 0", "key 3")))
    asked = Asked()
    answers.answer_all(QUESTIONS, asked)
    assert asked.keys == ("key 0", "key 3")


def test_odds_come_back_unchanged(tmp_path):
    verdicts = AnswerLog(tmp_path / "v.jsonl", Odds, "verdicts")
    odds = [Odds(0.1 + 0.2, "probabilities"), Odds(-3.0, "structured"), Odds(None, "error: lost")]
    assert list(verdicts.answer_all(QUESTIONS[:3], lambda rest: zip(rest, odds, strict=True)).values()) == odds
    assert [answer for _, answer in verdicts.read()] == odds
