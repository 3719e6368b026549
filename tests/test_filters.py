"""Which sentences are kept: every rule with sentences it keeps and drops, mending, and cutting a raw reply."""

from dataclasses import replace

import pandas as pd
import pytest

from pcclip.comparisons.filters import RULES, Candidate, check_names, clean, judge, yield_table
from pcclip.errors import PcclipError

GOOD = Candidate(
    sentence="The first image shows a bright red disc on white, while the second image shows a long blue bar.",
    finish_reason="stop", first_caption="A red disc.", second_caption="A blue bar.",
    first_concept="disc", second_concept="bar", tokens=22, context_length=40)


def said(first: str, second: str) -> dict:
    return {"sentence": f"The first image shows {first}, while the second image shows {second}."}


KEEPS = {
    "answered": [{}, {"finish_reason": "length"}],
    "finished": [{}],
    "plain_text": [{}, said("Anna’s “blue” hat (1999), 1,000 years old", "a rock-like café; it's red")],
    "length": [{"sentence": "one two three four five six seven eight"}, {"sentence": "word " * 60}],
    "no_loop": [{}, said("a long red disc", "a long red disc too"), said("a dog and a dog", "a cat")],
    "two_sides": [{}, {"sentence": "In the first photo is a disc; the second photo has a bar."}],
    "own_side": [{}, said("two discs", "some bars"),
                 {"first_caption": "A Tux.", "first_concept": "little penguin", **said("a penguin", "a bar")},
                 {"second_caption": "A blue disc.", "second_concept": "disc", **said("a red disc", "a blue disc")}],
    "in_context": [{}, {"tokens": 40}],
}
DROPS = {
    "answered": [{"sentence": ""}, {"finish_reason": "error: RuntimeError('no')"}],
    "finished": [{"finish_reason": "length"}, {"finish_reason": "error: no"}],
    "plain_text": [{"sentence": "#include <stdio.h> of the first image and the second image of a disc"},
                   said("a **red** disc", "a bar"), said("a disc</b>", "a bar"), said("a 10000 disc", "a bar"),
                   said("a disccccc", "a bar"), said("a disc = {1, 2, 3} | [4]", "a bar")],
    "length": [{"sentence": "First image disc, while second image bar."}, {"sentence": "word " * 61}],
    "no_loop": [said("a red red disc", "a bar"), said("a red disc and a red disc", "a bar"),
                {"sentence": "no sides but one two three and then one two three"}],
    "two_sides": [{"sentence": "The two photos differ in colour and shape."},
                  {"sentence": "The second image shows a bar, while the first image shows a disc."}],
    "own_side": [said("a blue bar", "a red disc"), said("a thing", "a blue bar"), said("a red disc", "a thing"),
                 said("a red disc and a bar", "a blue bar"), said("a red disc", "a blue bar on a disc"),
                 {"sentence": "A disc and a bar."}],
    "in_context": [{"tokens": 41}],
}


def cases(of_rule):
    return [pytest.param(rule, change, id=f"{rule}-{k}") for rule, all_of in of_rule.items()
            for k, change in enumerate(all_of)]


@pytest.mark.parametrize(("rule", "change"), cases(KEEPS))
def test_the_rule_keeps(rule, change):
    assert RULES[rule](replace(GOOD, **change))


@pytest.mark.parametrize(("rule", "change"), cases(DROPS))
def test_the_rule_drops(rule, change):
    assert not RULES[rule](replace(GOOD, **change))


def test_every_rule_has_its_cases():
    assert set(KEEPS) == set(DROPS) == set(RULES)


@pytest.mark.parametrize(("names", "expected"), [
    (None, list(RULES)),
    ([], ["answered", "two_sides"]),
    (["in_context", "length"], ["answered", "length", "two_sides", "in_context"]),
])
def test_answered_and_two_sides_always_apply(names, expected):
    assert check_names(names) == expected


def test_an_unknown_rule_is_named_with_the_known_ones():
    with pytest.raises(PcclipError, match="'lenght'.*answered.*in_context"):
        check_names(["length", "lenght"])


def test_judge_names_the_first_rule_that_drops():
    names = check_names(None)
    assert judge(GOOD, names) == ("kept", GOOD.sentence, False)
    both = replace(GOOD, finish_reason="length", tokens=99)
    assert judge(both, names) == ("finished", GOOD.sentence, False)
    assert judge(both, check_names(["in_context"]))[0] == "in_context"


def test_judge_mends_exchanged_sides():
    exchanged = replace(GOOD, **said("a long blue bar on white", "a bright red disc"))
    right = said("a bright red disc", "a long blue bar on white")["sentence"]
    assert judge(exchanged, check_names(None)) == ("kept", right, True)
    assert judge(exchanged, check_names(["two_sides"])) == ("kept", exchanged.sentence, False)


@pytest.mark.parametrize("change", [said("a bar and a disc on white", "a red disc and bar"), {"tokens": 41}])
def test_judge_mends_nothing_that_would_still_be_dropped(change):
    wrong = replace(GOOD, **{**said("a long blue bar on white", "a bright red disc"), **change})
    assert judge(wrong, check_names(None)) == ("own_side", wrong.sentence, False)


def test_yield_table_adds_up():
    names = check_names(None)
    verdicts = pd.Series(["kept"] * 5 + ["answered"] * 2 + ["length"] + ["in_context"] * 4)
    table = yield_table(verdicts, names)
    assert list(table.rule) == names
    assert table.dropped.sum() + (verdicts == "kept").sum() == len(verdicts)
    assert list(table.left) == list(len(verdicts) - table.dropped.cumsum())
    assert table.left.iloc[-1] == 5
    assert table.share_left.iloc[-1] == pytest.approx(5 / 12)
    assert yield_table(pd.Series([], dtype=str), names).left.eq(0).all()


@pytest.mark.parametrize("tail", [
    "\nQ: and the next?", "\n\nAnything else", "\n#2: another", "\nNote that this is a guess.", " Note: a guess.",
    "\nI hope this helps!", " I hope this helps.", "\nFirst image: a cat", "\nQuestion 2",
])
@pytest.mark.parametrize("head", ["", "  \n", "#1: ", "A: ", "Answer: ", "Difference:"])
def test_clean_cuts_what_is_not_the_sentence(head, tail):
    sentence = "The first image shows a note of hope."
    assert clean(head + sentence + tail) == sentence


@pytest.mark.parametrize(("raw", "expected"), [
    ("", ""), ("\n \n", ""), ("one\ntwo   three", "one two three"),
    ("She said I hope so, and the Notes stay.", "She said I hope so, and the Notes stay."),
])
def test_clean_keeps_the_rest(raw, expected):
    assert clean(raw) == expected
