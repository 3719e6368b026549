"""Which sentences are kept: every rule with sentences it keeps and drops, mending, cutting a raw reply, two lists."""

from dataclasses import replace

import pandas as pd
import pytest
from hypothesis import given, strategies as st

from pcclip.comparisons.filters import (
    AS_RELEASED,
    LISTS,
    RULES,
    Candidate,
    clean,
    clean_as_released,
    judged,
    rule_list,
    side_by_side,
    yield_table,
)
from pcclip.comparisons.llm.odds import odds_of_verdict
from pcclip.errors import PcclipError

GOOD = Candidate(
    sentence="The first image shows a bright red disc on white, while the second image shows a long blue bar.",
    finish_reason="stop",
    first_caption="A red disc.",
    second_caption="A blue bar.",
    first_concept="disc",
    second_concept="bar",
    tokens=22,
    context_length=40,
)


def said(first: str, second: str) -> dict:
    return {"sentence": f"The first image shows {first}, while the second image shows {second}."}


KEEPS = {
    "answered": [{}, {"finish_reason": "length"}],
    "finished": [{}],
    "plain_text": [{}, said("Anna’s “blue” hat (1999), 1,000 years old", "a rock-like café; it's red")],
    "length": [{"sentence": "one two three four five six seven eight"}, {"sentence": "word " * 60}],
    "no_loop": [{}, said("a long red disc", "a long red disc too"), said("a dog and a dog", "a cat")],
    "two_sides": [{}, {"sentence": "In the first photo is a disc; the second photo has a bar."}],
    "own_side": [
        {},
        said("two discs", "some bars"),
        {"first_caption": "A Tux.", "first_concept": "little penguin", **said("a penguin", "a bar")},
        {"second_caption": "A blue disc.", "second_concept": "disc", **said("a red disc", "a blue disc")},
    ],
    "in_context": [{}, {"tokens": 40}],
}
DROPS = {
    "answered": [{"sentence": ""}, {"finish_reason": "error: RuntimeError('no')"}],
    "finished": [{"finish_reason": "length"}, {"finish_reason": "error: no"}],
    "plain_text": [
        {"sentence": "#include <stdio.h> of the first image and the second image of a disc"},
        said("a **red** disc", "a bar"),
        said("a disc</b>", "a bar"),
        said("a 10000 disc", "a bar"),
        said("a disccccc", "a bar"),
        said("a disc = {1, 2, 3} | [4]", "a bar"),
    ],
    "length": [{"sentence": "First image disc, while second image bar."}, {"sentence": "word " * 61}],
    "no_loop": [
        said("a red red disc", "a bar"),
        said("a red disc and a red disc", "a bar"),
        {"sentence": "no sides but one two three and then one two three"},
    ],
    "two_sides": [
        {"sentence": "The two photos differ in colour and shape."},
    ],
    "own_side": [
        said("a blue bar", "a red disc"),
        said("a thing", "a blue bar"),
        said("a red disc", "a thing"),
        said("a red disc and a bar", "a blue bar"),
        said("a red disc", "a blue bar on a disc"),
        {"sentence": "A disc and a bar."},
    ],
    "in_context": [{"tokens": 41}],
}


KEEPS_AS_RELEASED = {
    "starts_with_text": ["", "\n\nA: a disc", "x\n\n\n"],
    "no_code": ["a red #1: disc", "it has #include"],
    "no_numbers": ["100000 discs", "1111 and 5555 at 10:30:00 AM"],
    "no_markup": ["5 < 6 </b>"],
    "no_heading": ["a description: red", "The description of the image."],
    "no_punctuation_run": ["????", "Oh!!!! -- a disc... and so on", ". . . x", "{{"],
    "no_stutter": ["a banana, a cocoa bean", "haha", "so so so much"],
    "ascii": ["It's ~ 'fine'\n\t"],
    "answered": ["a disc"],
    "sixty": ["x" * 60, "#1: " + "x" * 60, "x" * 60 + " Note: a guess"],
}
DROPS_AS_RELEASED = {
    "starts_with_text": ["\n\n\n", " \n\n\nA: a disc", "\n\n\n\nx"],
    "no_code": ["#include <stdio.h>", "# 1000 discs", "a disc #define X"],
    "no_numbers": ["1000000 discs", "0" * 58, "11111", "155555", "at 0:00:00"],
    "no_markup": ["a *red* disc", "a disc</p>", "a disc<br>"],
    "no_heading": ["Description: a disc", "Description of the image: a disc"],
    "no_punctuation_run": ["?????", "!!!!!", "-----", ".. .. ..", ". . . . ", '" " "', '"""', "{{{"],
    "no_stutter": ["thththth", "lamalamalama", "t=t=t=t=", "t1t1t1", "aaaaaaa", "t.t.t.t"],
    "ascii": ["a café", "“a disc”"],
    "answered": ["", "Q: and the next?", "#1: "],
    "sixty": ["x" * 59, "x" * 59 + "\n#2: " + "y" * 60, "x" * 30 + "#" * 30],
}


def cases(of_rule):
    return [
        pytest.param(rule, change, id=f"{rule}-{k}")
        for rule, all_of in of_rule.items()
        for k, change in enumerate(all_of)
    ]


def as_released(raw: str) -> Candidate:
    return replace(GOOD, raw=raw, sentence=clean_as_released(raw))


@pytest.mark.parametrize(("rule", "change"), cases(KEEPS))
def test_the_rule_keeps(rule, change):
    assert RULES[rule](replace(GOOD, **change))


@pytest.mark.parametrize(("rule", "change"), cases(DROPS))
def test_the_rule_drops(rule, change):
    assert not RULES[rule](replace(GOOD, **change))


@pytest.mark.parametrize(("rule", "raw"), cases(KEEPS_AS_RELEASED))
def test_the_released_rule_keeps(rule, raw):
    assert AS_RELEASED[rule](as_released(raw))


@pytest.mark.parametrize(("rule", "raw"), cases(DROPS_AS_RELEASED))
def test_the_released_rule_drops(rule, raw):
    assert not AS_RELEASED[rule](as_released(raw))


def test_every_rule_has_its_cases():
    assert set(KEEPS) == set(DROPS) == set(RULES)
    assert set(KEEPS_AS_RELEASED) == set(DROPS_AS_RELEASED) == set(AS_RELEASED)


@pytest.mark.parametrize(
    ("chosen", "expected"),
    [
        ("ours", list(RULES)),
        ("as_released", list(AS_RELEASED)),
        ("none", ["answered"]),
        ([], ["answered", "two_sides"]),
        (["in_context", "length"], ["answered", "length", "two_sides", "in_context"]),
    ],
)
def test_what_always_applies(chosen, expected):
    assert list(rule_list(chosen).rules) == expected
    assert "answered" in expected


@pytest.mark.parametrize(
    ("chosen", "message"),
    [
        (["length", "lenght"], "'lenght'.*answered.*in_context"),
        (["no_code"], "'no_code'"),
        ("released", "'released'.*ours, as_released, none"),
    ],
)
def test_an_unknown_rule_is_named_with_the_known_ones(chosen, message):
    with pytest.raises(PcclipError, match=message):
        rule_list(chosen)


def test_judge_names_the_first_rule_that_drops():
    ours = rule_list("ours")
    assert ours.judge(GOOD) == ("kept", GOOD.sentence, False)
    both = replace(GOOD, finish_reason="length", tokens=99)
    assert ours.judge(both) == ("finished", GOOD.sentence, False)
    assert rule_list(["in_context"]).judge(both)[0] == "in_context"


def test_judge_mends_exchanged_sides():
    exchanged = replace(GOOD, **said("a long blue bar on white", "a bright red disc"))
    right = said("a bright red disc", "a long blue bar on white")["sentence"]
    assert rule_list("ours").judge(exchanged) == ("kept", right, True)
    for chosen in (["two_sides"], "none"):
        assert rule_list(chosen).judge(exchanged) == ("kept", exchanged.sentence, False)


@pytest.mark.parametrize("change", [said("a bar and a disc on white", "a red disc and bar"), {"tokens": 41}])
def test_judge_mends_nothing_that_would_still_be_dropped(change):
    wrong = replace(GOOD, **{**said("a long blue bar on white", "a bright red disc"), **change})
    assert rule_list("ours").judge(wrong) == ("own_side", wrong.sentence, False)


@pytest.mark.parametrize(
    ("name", "change", "verdict"),
    [
        ("none", {"sentence": "Both."}, "kept"),
        ("none", {"finish_reason": "length", "tokens": 99}, "kept"),
        ("none", {"sentence": ""}, "answered"),
        ("none", {"finish_reason": "error: no"}, "answered"),
        ("as_released", {"sentence": "One is a disc and the other one is a bar, and both are on white paper."}, "kept"),
        ("as_released", {"finish_reason": "length", "tokens": 99}, "kept"),
        ("as_released", {"raw": "\n\n\n", "sentence": ""}, "starts_with_text"),
        ("as_released", {"finish_reason": "error: no"}, "answered"),
    ],
)
def test_the_other_lists_ask_for_less(name, change, verdict):
    assert LISTS[name].judge(replace(GOOD, **change))[0] == verdict


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        ("#1: A: a red\tdisc\n", "a red disc"),
        (". a disc", "a disc"),
        ("a  disc", "a disc"),
        ("a disc\nand a bar", "a discand a bar"),  # as released: newlines are taken out, not made spaces
        ("a disc Q: and I hope #2: Note", "a disc"),
        ("a disc Note I hope Q:", "a disc"),
        ("a #red disc", "a red disc"),
        ("a Notebook", "a"),
        ("Q: x", ""),
        ("", ""),
    ],
)
def test_clean_as_released(raw, expected):
    assert clean_as_released(raw) == expected


MANY = 50_000
HOSTILE = [
    "The first image" + " " * MANY + "shows a cat and a dog is there too.",
    "The first image shows a" + " , and" * MANY,
    "The first image shows a dog " + "the second image " * MANY,
    "The first image shows a dog." + "\n\t" * MANY + "Note",
    *[f"The first image {piece * MANY}" for piece in ("(", "{", "a", "ab ", "<think>", "</think>", "#1: ", ". ", "\n")],
]


@pytest.mark.parametrize("reply", HOSTILE, ids=range(len(HOSTILE)))
def test_no_reply_takes_more_than_linear_time(replies, reply, tiny_encoder):
    """In quadratic time one rule takes minutes. A sentence longer than any text tower reads is not kept."""
    for rules in LISTS.values():
        sentence = rules.clean(reply)
        for rule in rules.rules.values():
            rule(replace(GOOD, raw=reply, sentence=reply))
        [verdict] = judged(replies[:1].assign(raw=reply), rules, tiny_encoder).verdict
        assert (verdict == "kept") <= (len(sentence) <= 2000)
    assert odds_of_verdict(reply).failed


@pytest.fixture
def replies():
    """Six replies: both lists keep 0 and 1, ours only 2, the released one only 3 and 4, neither 5."""
    long = "One image is of a red disc and the other one is of a long blue bar on white."
    good = GOOD.sentence
    raw = [good, good + "\n\nMore", good.replace("red", "röd"), long, good.replace(".", ""), ""]
    return pd.DataFrame(
        {
            "raw": raw,
            "finish_reason": ["stop"] * 4 + ["length", "stop"],
            "first_caption": GOOD.first_caption,
            "second_caption": GOOD.second_caption,
            "first_concept": "disc",
            "second_concept": "bar",
            "difference": "of another list",
            "tokens": 0,
        },
        index=range(10, 16),
    )


def test_judged_goes_row_by_row(replies, tiny_encoder):
    table = judged(replies, rule_list("ours"), tiny_encoder)
    assert list(table.index) == list(replies.index)
    assert list(table.verdict) == ["kept"] * 3 + ["no_loop", "finished", "answered"]
    assert list(table.difference[:2]) == [GOOD.sentence] * 2
    assert list(table.tokens) == [len(ids) for ids in tiny_encoder.tokens(list(table.difference))]
    assert judged(replies[:0], rule_list("ours"), tiny_encoder).empty


def test_judged_counts_a_mended_sentence_anew(replies, tiny_encoder):
    replies["raw"] = "First image long blue bar on white, second image bright red disc."
    table = judged(replies[:1], rule_list(["own_side", "in_context"]), tiny_encoder)
    assert table.mended.all()
    assert list(table.tokens) == [len(ids) for ids in tiny_encoder.tokens(list(table.difference))]


def test_two_lists_side_by_side(replies, tiny_encoder):
    counts = side_by_side(replies, tiny_encoder)
    assert counts.to_numpy().sum() == len(replies)
    verdicts = [judged(replies, rule_list(name), tiny_encoder).verdict for name in ("ours", "as_released")]
    both = (verdicts[0] == "kept") & (verdicts[1] == "kept")
    assert counts.loc["kept", "kept"] == both.sum()
    assert counts["kept"].sum() == (verdicts[1] == "kept").sum()


def test_yield_table_adds_up():
    rules = rule_list("ours")
    verdicts = pd.Series(["kept"] * 5 + ["answered"] * 2 + ["length"] + ["in_context"] * 4)
    table = yield_table(verdicts, rules)
    assert list(table.rule) == list(RULES)
    assert table.dropped.sum() + (verdicts == "kept").sum() == len(verdicts)
    assert list(table.left) == list(len(verdicts) - table.dropped.cumsum())
    assert table.left.iloc[-1] == 5
    assert table.share_left.iloc[-1] == pytest.approx(5 / 12)
    assert yield_table(pd.Series([], dtype=str), rules).left.eq(0).all()


TAILS = [
    "\nQ: and the next?",
    "\n\nAnything else",
    "\n#2: another",
    "\nNote that this is a guess.",
    " Note: a guess.",
    " I hope this helps.",
    "\nFirst image: a cat",
    "\nQuestion 2",
]


@given(
    head=st.sampled_from(["", "  \n", "#1: ", "A: ", "Answer: ", "Difference:"]),
    sentence=st.text("abc ,", min_size=1).map(lambda text: f"The first image {' '.join(text.split())}."),
    tail=st.sampled_from(TAILS),
)
def test_clean_cuts_what_is_not_the_sentence(head, sentence, tail):
    assert clean(head + sentence + tail) == " ".join(sentence.split())


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        ("", ""),
        ("\n \n", ""),
        ("one\ntwo   three", "one two three"),
        ("She said I hope so, and the Notes stay.", "She said I hope so, and the Notes stay."),
    ],
)
def test_clean_keeps_the_rest(raw, expected):
    assert clean(raw) == expected
