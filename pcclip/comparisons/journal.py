"""Answers as they come in, one line of JSON each: what a killed run has asked for is never asked again."""

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

from pcclip.errors import PcclipError
from pcclip.progress import say, track
from pcclip.stage import disk_errors


def answer_all(
    questions: Sequence, ask: Callable[[list], Iterable[tuple]], kind: type, journal: Path, noun: str
) -> dict[str, object]:
    """Answers by the questions' keys: those in the journal, and the rest asked now and appended to it one by one.

    Args:
        questions: each with a `key`; equal keys are asked once.
        ask: takes the questions that are left, yields (question, answer) in any order.
        kind: the answers' dataclass, with a property `failed`; failed answers are asked for again on the next run.
        journal: the file.
        noun: what the questions are, for progress and messages.

    Raises:
        PcclipError: some question was never answered, or the disk is full.
    """
    wanted = {q.key: q for q in questions}
    answers = {key: a for key, a in _whole_lines(journal, kind) if key in wanted and not a.failed}
    rest = [q for q in wanted.values() if q.key not in answers]
    if answers:
        say(f"{noun}: {len(answers)} of {len(wanted)} answers found in the journal, asking for {len(rest)}")
    if rest:
        with disk_errors(journal):
            journal.parent.mkdir(parents=True, exist_ok=True)
        with disk_errors(journal), open(journal, "a", encoding="utf8") as file:
            for question, answer in track(ask(rest), len(rest), noun):
                file.write(json.dumps({"key": question.key, **asdict(answer)}) + "\n")
                file.flush()
                answers[question.key] = answer
    missing = len(wanted) - len(answers)
    if missing:
        raise PcclipError(f"{noun}: {missing} of {len(wanted)} questions got no answer; run again to ask them")
    return answers


def _whole_lines(journal: Path, kind: type) -> Iterator[tuple[str, object]]:
    """(key, answer) of the journal's whole lines; a line that was cut short by a kill is removed from it."""
    if not journal.is_file():
        return
    found, end = [], 0
    with open(journal, "rb+") as file:
        for line in file:
            try:
                row = json.loads(line)
                key = row.pop("key")
                answer = kind(**row)
            except (ValueError, KeyError, TypeError, AttributeError):
                break
            if not line.endswith(b"\n"):
                break
            found.append((key, answer))
            end += len(line)
        file.truncate(end)
    yield from found
