"""Answers as they come in, one line of JSON each: what a killed run has asked for is never asked again.

On one machine a journal is one file. A cluster's workers, and a storage that cannot append, have a folder of parts
beside it, each for a group of questions in the order of all of them. Wherever an answer is, every run reads it.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from pcclip.config import Config
from pcclip.errors import PcclipError
from pcclip.images import batches
from pcclip.runs.files import atomic, digest, disk_errors, is_url, names_in
from pcclip.runs.progress import Meter, say, track
from pcclip.runs.ray_cluster import over_shards

_SUFFIX = ".jsonl"


def answer_all(
    questions: Sequence,
    ask: Callable[[list], Iterable[tuple]],
    kind: type,
    journal: Path,
    noun: str,
    config: Config | None = None,
    told: Callable[[list], str] | None = None,
) -> dict[str, object]:
    """Answers by the questions' keys: those in the journal, and the rest asked now and added to it one by one.

    Args:
        questions: each with a `key`; equal keys are asked once.
        ask: takes the questions that are left, yields (question, answer) in any order.
        kind: the answers' dataclass, with a property `failed`; failed answers are asked for again on the next run.
        journal: the file.
        noun: what the questions are, for progress and messages.
        config: the run whose engine asks and whose storage has the parts; None asks here. With engine: ray `ask` is
            sent to the workers, so it has to be an Asker.
        told: says what asking the questions that are left will cost.

    Raises:
        PcclipError: some question was never answered, or the disk is full.
    """
    wanted = {q.key: q for q in questions}
    stored = config and config.stored(journal.parent)
    parts = (stored or journal.parent) / journal.stem
    answers = {
        key: a for key, a in [*_whole_lines(journal, kind), *_in_parts(parts, kind)] if key in wanted and not a.failed
    }
    rest = [q for q in wanted.values() if q.key not in answers]
    if answers:
        say(f"{noun}: {len(answers)} of {len(wanted)} answers found in the journal, asking for {len(rest)}")
    if rest and told:
        say(told(rest))
    if rest and (stored or (config and config.engine == "ray")):
        groups = _groups(list(wanted.values()), answers, config.generate.shard)
        if config.engine == "ray":
            gpus = config.ray.gpus if config.generate.backend == "transformers" else 0.0
            over_shards(list(groups), groups.__getitem__, Parts, (ask, kind, parts), config.ray, gpus, noun)
        else:
            add, meter = Parts(ask, kind, parts), Meter(len(rest), noun)
            for name, group in groups.items():
                add(name, group)
                meter.add(len(group))
        asked = {q.key for q in rest}
        for key, answer in _in_parts(parts, kind):
            if key in asked and (key not in answers or not answer.failed):  # a part of before may tell of a failure
                answers[key] = answer
    elif rest:
        for question, answer in track(_appended(journal, ask(rest)), len(rest), noun):
            answers[question.key] = answer
    missing = len(wanted) - len(answers)
    if missing:
        hint = " (if workers did, set storage to where every node sees it)" if config and config.engine == "ray" else ""
        raise PcclipError(f"{noun}: {missing} of {len(wanted)} questions got no answer; run again to ask them{hint}")
    return answers


class Parts:
    """Adds the answers of one group of questions to its part of the journal; also in a process of a cluster."""

    def __init__(self, ask: Callable[[list], Iterable[tuple]], kind: type, folder: Path):
        self._ask, self._kind, self._folder = ask, kind, folder

    def __call__(self, name: str, questions: list) -> None:
        part = self._folder / name
        known = {key for key, answer in _whole_lines(part, self._kind) if not answer.failed}
        rest = [q for q in questions if q.key not in known]
        if not rest:
            return
        if is_url(part):
            _resent(part, self._ask(rest))
        else:
            for _ in _appended(part, self._ask(rest)):
                pass


def _groups(questions: list, answers: Mapping, size: int) -> dict[str, list]:
    """Name of a part -> its questions without an answer; the groups are those of all questions, whoever has asked."""
    groups = {}
    for rows in batches(len(questions), size):
        group = questions[rows.start : rows.stop]
        if left := [q for q in group if q.key not in answers]:
            groups[f"{digest([q.key for q in group])[:16]}{_SUFFIX}"] = left
    return groups


def _appended(journal: Path, found: Iterable[tuple]) -> Iterator[tuple]:
    """The same, each once it is on disk."""
    with disk_errors(journal):
        journal.parent.mkdir(parents=True, exist_ok=True)
    with disk_errors(journal), open(journal, "a", encoding="utf8") as file:
        for question, answer in found:
            file.write(_line(question, answer))
            file.flush()
            yield question, answer


def _resent(part: Path, found: Iterable[tuple]) -> None:
    """A part where nothing can be appended: it is sent as a whole, at the end or when asking fails."""
    lines = [part.read_text(encoding="utf8")] if part.exists() else []
    try:
        for question, answer in found:
            lines.append(_line(question, answer))
    finally:
        with atomic(part) as temporary:
            temporary.write_text("".join(lines), encoding="utf8")


def _line(question, answer) -> str:
    return json.dumps({"key": question.key, **asdict(answer)}) + "\n"


def _in_parts(folder: Path, kind: type) -> Iterator[tuple[str, object]]:
    for name in sorted(names_in(folder)):
        if name.endswith(_SUFFIX) and not name.startswith("."):
            yield from _whole_lines(folder / name, kind)


def _whole_lines(journal: Path, kind: type) -> Iterator[tuple[str, object]]:
    """(key, answer) of the journal's whole lines; a line that was cut short by a kill is removed from it."""
    if not journal.is_file():
        return
    found, end = [], 0
    with journal.open("rb" if is_url(journal) else "rb+") as file:
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
        if not is_url(journal):
            file.truncate(end)
    yield from found
