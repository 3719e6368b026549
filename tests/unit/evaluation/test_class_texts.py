"""Texts about classes: descriptions and differences, what becomes of bad replies, and that nothing is asked twice."""

from collections import Counter
from itertools import combinations

import pandas as pd
import pytest
from helpers.crash import Crash

from pcclip.comparisons.llm import LazyBackend, Reply, Template
from pcclip.comparisons.prompts import load_prompt
from pcclip.comparisons.sentences import from_captions
from pcclip.config import Generate
from pcclip.errors import PcclipError
from pcclip.evaluation import class_texts
from pcclip.evaluation.class_texts import Writing

CLASSES = ["frog", "airplane", "pickup truck", "truck"]
PAIRS = list(combinations(CLASSES, 2))


def told(question, times):
    """A fair reply to either kind of question."""
    first, second = question.first.strip(".").lower(), question.second.strip(".").lower()
    if not second:
        return f"It has {'one two three four five six seven eight nine'.split()[times]} legs and a round back."
    return f"The first image shows {first} with legs, while the second image shows {second} with wheels."


class Writer(Template):
    """Replies by a function of the question and of how often it was asked; stops like a killed process."""

    identity = "writer-1"

    def __init__(self, write=told, stop=None):
        self.write, self.stop, self.asked, self.prompts = write, stop, [], []

    def start(self, prompt):
        return LazyBackend(self.identity, lambda: self.prompts.append(prompt) or self)

    def answers(self, questions):
        for question in questions:
            if len(self.asked) == self.stop:
                raise Crash
            times = Counter((q.first, q.second) for q in self.asked)[question.first, question.second]
            self.asked.append(question)
            reply = self.write(question, times)
            yield question, reply if isinstance(reply, Reply) else Reply(reply, "stop")


@pytest.fixture
def differ(tmp_path, tiny_encoder):
    def call(backend, pairs=PAIRS, settings=None, prompt="class_differences", **more):
        writing = Writing(settings or Generate(), backend.start, tmp_path, tiny_encoder, **more)
        return class_texts.class_differences(pairs, writing, prompt)

    return call


@pytest.fixture
def describe(tmp_path, tiny_encoder):
    def call(backend, classes=CLASSES, n=1, settings=None, **more):
        writing = Writing(settings or Generate(), backend.start, tmp_path, tiny_encoder, **more)
        return class_texts.descriptions(classes, writing, n)

    return call


def badly(reply, finish="stop", times=99, subject=("A frog.", "An airplane.")):
    """Writes this reply the first times it is asked about the subject, and fair ones else."""
    return lambda q, n: Reply(reply, finish) if (q.first, q.second) == subject and n < times else told(q, n)


# differences


def test_every_pair_is_asked_for_once(differ):
    backend = Writer()
    texts = differ(backend)
    assert [(q.first, q.second) for q in backend.asked] == [
        ("A frog.", "An airplane."),
        ("A frog.", "A pickup truck."),
        ("A frog.", "A truck."),
        ("An airplane.", "A pickup truck."),
        ("An airplane.", "A truck."),
        ("A pickup truck.", "A truck."),
    ]
    assert list(zip(texts["first"], texts.second, strict=True)) == PAIRS
    assert texts.difference[0] == (
        "The first image shows a frog with legs, while the second image shows an airplane with wheels."
    )
    assert texts.swapped[0] == (
        "The first image shows an airplane with wheels, while the second image shows a frog with legs."
    )
    assert set(texts.source) == {"llm"}
    assert set(texts.verdict) == {"kept"}
    assert set(texts.prompt_hash) == {load_prompt("class_differences").hash}
    assert set(texts.model_hash) == {"writer-1"}
    assert len({q.key for q in backend.asked}) == 6


def test_the_kind_of_thing_is_told_to_the_model_only(differ):
    backend = Writer(badly("No.", subject=("A frog (toy).", "A truck (toy).")))
    texts = differ(backend, [("frog", "truck"), ("frog", "airplane")], kind="toy")
    assert backend.asked[0].first == "A frog (toy)."
    assert texts.difference[0] == from_captions("a frog", "a truck")
    assert texts.difference[1].startswith("The first image shows a frog with legs, while")


@pytest.mark.parametrize(
    ("reply", "finish", "verdict"),
    [
        ("", "error: RuntimeError('full')", "answered"),
        ("", "stop", "answered"),
        ("I cannot compare these.", "stop", "length"),
        ("I am sorry, but as a language model I cannot compare these two images.", "stop", "two_sides"),
        ("The first image shows a frog with legs, while the second image shows an airplane with", "length", "finished"),
        ("The first image shows a **frog** with legs, while the second image shows an airplane.", "stop", "plain_text"),
        ("The first image shows a frog with a truck, while the second image shows a bird.", "stop", "own_side"),
        ("The first image shows a frog with legs legs, while the second image shows an airplane.", "stop", "no_loop"),
        (
            "The first image shows a frog with tails, while the second image shows an airplane with a tail.",
            "stop",
            "alike",
        ),
        ("The first image shows a frog, while the second image shows the airplane.", "stop", "alike"),
        (
            f"The first image shows a frog with {' '.join(f'leg{k}' for k in range(60))}, while the second image shows an "
            "airplane.",
            "stop",
            "length",
        ),
        (
            f"The first image shows a frog with {'-'.join(['antidisestablishment'] * 12)}, while the second image shows an "
            "airplane with large wings.",
            "stop",
            "in_context",
        ),
    ],
)
def test_a_reply_that_cannot_be_used(differ, reply, finish, verdict):
    texts = differ(Writer(badly(reply, finish)), retries=1)
    row = texts.iloc[0]
    assert (row.source, row.verdict) == ("template", verdict)
    assert row.difference == "The first image shows a frog, while the second image shows an airplane."
    assert row.swapped == "The first image shows an airplane, while the second image shows a frog."
    assert set(texts.source[1:]) == {"llm"}


def test_a_bad_reply_is_asked_for_again(differ):
    backend = Writer(badly("No.", times=2))
    texts = differ(backend)
    assert set(texts.source) == {"llm"}
    assert len({q.key for q in backend.asked}) == len({q.seed for q in backend.asked}) == 8
    assert len(backend.prompts) == 1, "the model is loaded once"
    assert [q.first for q in backend.asked].count("A frog.") == 3 + 2


def test_sides_in_the_wrong_order_are_mended(differ):
    wrong = "The first image shows an airplane with wings, while the second image shows a frog with legs."
    texts = differ(Writer(badly(wrong)))
    assert (texts.swapped[0], texts.source[0]) == (wrong, "llm")
    assert texts.difference[0].startswith("The first image shows a frog with legs, while")


@pytest.mark.parametrize(
    ("first", "second", "verdict"),
    [
        ("a maple tree with lobes", "an oak tree with acorns", "kept"),
        ("a maple with lobes", "an oak with acorns", "kept"),
        ("a tree with lobes", "a tree with acorns", "kept"),
        ("an oak tree with lobes", "an oak tree with acorns", "own_side"),
        ("a fir with lobes", "an oak with acorns", "own_side"),
    ],
)
def test_classes_that_share_a_word(differ, first, second, verdict):
    def write(question, times):
        return f"The first image shows {first}, while the second image shows {second}."

    texts = differ(Writer(write), [("maple tree", "oak tree")], settings=Generate(min_yield=0.0))
    assert texts.verdict[0] == verdict


def test_few_texts_are_an_error_that_names_the_reason(differ):
    with pytest.raises(
        PcclipError, match=r"class-differences: only 1 of 6 were kept, .* rule 'two_sides' dropped most"
    ):
        differ(
            Writer(
                lambda q, n: (
                    told(q, n)
                    if "frog" in q.first and q.second == "A truck."
                    else "The two photos differ in colour, in shape and in size."
                )
            )
        )
    busy = Writer(lambda q, n: Reply("", "error: busy"))
    busy.identity = "writer-2"
    with pytest.raises(
        PcclipError, match=r"only 0 of 6 were kept.* the backend reported 'error: busy' 6 times"
    ) as error:
        differ(busy)
    assert "\n" not in str(error.value)


def test_no_pairs(differ):
    backend = Writer()
    texts = differ(backend, [])
    assert len(texts) == len(backend.asked) == 0
    assert {"first", "second", "difference", "swapped", "source", "verdict"} <= set(texts.columns)


def test_the_template_is_not_asked(differ):
    backend = Writer()
    backend.identity = Template.identity
    texts = differ(backend)
    assert not backend.asked
    assert set(zip(texts.source, texts.verdict, strict=True)) == {("template", "not asked")}
    assert texts.difference[1] == "The first image shows a frog, while the second image shows a pickup truck."


# the journal


@pytest.mark.parametrize("stop", [0, 1, 5, 7])
def test_a_killed_run_asks_only_for_the_rest(differ, stop):
    write = badly("No.", times=2)  # eight replies in all
    killed = Writer(write, stop)
    with pytest.raises(Crash):
        differ(killed)
    rest = Writer(lambda q, n: write(q, n + sum((k.first, k.second) == (q.first, q.second) for k in killed.asked)))
    texts = differ(rest)
    assert [q.key for q in killed.asked + rest.asked] == list(dict.fromkeys(q.key for q in killed.asked + rest.asked))
    assert len(killed.asked) + len(rest.asked) == 8
    again = Writer()
    pd.testing.assert_frame_equal(texts, differ(again))
    assert not again.asked
    assert not again.prompts, "the model is not even loaded"


def test_errors_are_asked_for_again_and_refusals_are_not(differ):
    def write(question, times):
        return Reply("", "error: busy") if "frog" in question.first else "No."

    settings = Generate(min_yield=0.0)
    differ(Writer(write), settings=settings, retries=0)
    second = Writer()
    texts = differ(second, settings=settings, retries=0)
    assert {q.first for q in second.asked} == {"A frog."}
    assert list(texts.source) == ["llm"] * 3 + ["template"] * 3


@pytest.mark.parametrize("change", ["temperature", "identity", "kind", "prompt"])
def test_what_makes_the_answers_others(differ, change):
    first = Writer()
    differ(first)
    second, settings, more = Writer(), Generate(), {}
    if change == "temperature":
        settings = Generate(temperature=0.1)
    elif change == "identity":
        second.identity = "writer-2"
    elif change == "kind":
        more["kind"] = "toy"
    else:
        more["prompt"] = "differences"
    differ(second, settings=settings, **more)
    assert len(second.asked) == 6
    assert not {q.key for q in first.asked} & {q.key for q in second.asked}


# descriptions


def test_every_class_is_described(describe):
    backend = Writer()
    texts = describe(backend, n=2)
    assert {q.first for q in backend.asked} == {"a frog", "an airplane", "a pickup truck", "a truck"}
    assert {q.second for q in backend.asked} == {""}
    assert list(texts["class"]) == [name for name in CLASSES for _ in range(2)]
    assert list(texts.description) == 4 * ["It has one legs and a round back.", "It has two legs and a round back."]
    assert set(texts.source) == {"llm"}
    assert len({q.key for q in backend.asked}) == 8
    assert set(texts.model_hash) == {"writer-1"}


@pytest.mark.parametrize(
    ("reply", "finish", "verdict"),
    [
        ("", "error: busy", "answered"),
        ("It has green skin and long", "length", "finished"),
        ("It is green.", "stop", "length"),
        ("It has a leg, a round leg, a round leg and a leg.", "stop", "no_loop"),
        ("It has __green__ {skin} | ~ and long, thin legs.", "stop", "plain_text"),
        ("It has green skin and legs like an airplane has.", "stop", "other_class"),
        ("It has green skin and stands behind two pickup trucks.", "stop", "other_class"),
        (f"It has green skin and {'-'.join(['antidisestablishment'] * 12)} on its legs.", "stop", "in_context"),
    ],
)
def test_a_description_that_cannot_be_used(describe, reply, finish, verdict):
    texts = describe(Writer(badly(reply, finish, subject=("a frog (animal)", ""))), kind="animal", retries=1)
    row = texts.iloc[0]
    assert (row["class"], row.description, row.source, row.verdict) == ("frog", "It is an animal.", "template", verdict)
    assert set(texts.source[1:]) == {"llm"}


@pytest.mark.parametrize(
    ("name", "says", "verdict"),
    [
        ("pickup truck", "It has four wheels, a cab and the bed of a truck.", "kept"),
        ("truck", "It has four wheels, a cab and the bed of a pickup truck.", "other_class"),
        ("truck", "It has four wheels and may pick up a load.", "kept"),
        ("frog", "It has the skin and the long legs of a frog.", "kept"),
    ],
)
def test_names_of_other_classes(describe, name, says, verdict):
    texts = describe(Writer(lambda q, n: says if q.first.endswith(f" {name}") else told(q, n)), retries=0)
    assert list(texts.verdict[texts["class"] == name]) == [verdict]


def test_the_same_description_again_does_not_count(describe):
    texts = describe(Writer(badly("It has green skin and long legs.", times=2, subject=("a frog", ""))), n=2)
    assert list(texts.description[texts["class"] == "frog"]) == [
        "It has green skin and long legs.",
        "It has three legs and a round back.",
    ]


def test_fewer_descriptions_than_asked_for(describe):
    texts = describe(Writer(lambda q, n: "It has green skin and long legs."), n=3, retries=1)
    assert Counter(texts["class"]) == dict.fromkeys(CLASSES, 1)
    assert set(texts.source) == {"llm"}


def test_a_class_without_any_kind(describe):
    texts = describe(Writer(badly("No.", subject=("a frog", ""))))
    assert texts.description[0] == "It is a frog."


def test_few_descriptions_are_an_error(describe):
    with pytest.raises(PcclipError, match="class-descriptions: only 0 of 4 were kept, .* 'length'"):
        describe(Writer(lambda q, n: "No."))
    texts = describe(Writer(lambda q, n: "No."), settings=Generate(min_yield=0.0))
    assert set(texts.source) == {"template"}


# prompts


def test_the_shipped_prompts_show_the_shape_they_ask_for():
    asked = load_prompt("class_differences").messages("A {frog}.", "A ship.")
    assert asked[-1]["content"] == "First image: A {frog}.\nSecond image: A ship."
    shown = [m["content"] for m in asked if m["role"] == "assistant"]
    assert len(shown) == 2
    assert all(class_texts.swapped(text) != text for text in shown)
    asked = load_prompt("describe_class", slots=("first",)).messages("a frog", "")
    assert asked[-1]["content"] == "What does a frog look like?"
    assert all(m["content"].startswith("It ") for m in asked if m["role"] == "assistant")


def test_a_writer_that_writes_nothing_usable_is_stopped_after_twenty_classes(describe):
    backend = Writer(lambda question, times: "No.")
    with pytest.raises(PcclipError, match=r"none of the first 20 replies passes the filters .*first three are 'No\.'"):
        describe(backend, classes=[f"bird {number}" for number in range(30)])
    assert len(backend.asked) == 20
