"""Attribute banks, and the verdicts on pairs: what is asked, once, about whom, and how the odds become a value."""

import json
import math
import tomllib
from collections import Counter
from copy import deepcopy

import numpy as np
import pandas as pd
import pytest
import yaml
from helpers.judge import BANK, NOUNS, SIZES, Judge, odds_of, subjects
from helpers.runs import ROOT, SHAPES
from scipy.stats import norm

from pcclip import config as params
from pcclip.comparisons import stage as generate, verdicts
from pcclip.comparisons.attributes import Bank, load_bank
from pcclip.comparisons.llm import Odds
from pcclip.data.image_set import load_images
from pcclip.errors import PcclipError
from pcclip.workbook.sweep import read_sweep

ASKING = [
    path
    for path in sorted((ROOT / "params").glob("*.yaml"))
    if read_sweep(path)[0].config.generate.attributes == "size"
]


def never():
    raise AssertionError("the backend was started")


@pytest.fixture
def bank_file(tmp_path):
    def write(bank=BANK, name="mine.yaml"):
        (tmp_path / name).write_text(yaml.safe_dump(bank))
        return str(tmp_path / name)

    return write


@pytest.fixture
def config(values, bank_file):
    return params.check(
        {
            **values,
            "generate": {
                **values["generate"],
                "attributes": bank_file(),
                "attribute_pairs": 30,
                "held_out_attribute_pairs": 10,
                "thing_pairs": 6,
            },
        }
    )


@pytest.fixture
def images(config):
    """Without labels, so that any two images of a split may be compared."""
    images = load_images(config)
    images.table.pop("label")
    return images


@pytest.fixture
def judge(config, images):
    def call(backend, **changes):
        given = config.model_copy(update={"generate": config.generate.model_copy(update=changes)})
        return verdicts.judge(given, images, lambda prompt: backend)

    return call


# banks


@pytest.mark.parametrize("name", ["everyday", "size"])
def test_shipped_banks(name):
    bank = load_bank(name)
    assert bank.name == name
    assert {a.split for a in bank.attributes} == {"train", "held_out"}
    assert {"goldfish", "bald eagle"} <= set(bank.things)
    assert bank["size"].stems[0].compares
    assert not bank["size"].stems[1].compares
    assert all(a.held_out for a in bank.attributes)


def test_breeds_of_dog_do_not_outnumber_the_animals():
    things = load_bank("size").things
    assert len(things) == 398 - 118 + 1 == len(set(things))
    assert "dog" in things
    assert not {"beagle", "chihuahua", "komondor"} & set(things)
    assert {"beagle", "chihuahua", "komondor", "espresso"} <= set(load_bank("everyday").things)


@pytest.mark.parametrize("path", ASKING, ids=lambda path: path.stem)
def test_no_comparison_that_is_evaluated_is_trained_on(path):
    config = read_sweep(path)[0].config
    bank = load_bank(config.generate.attributes)
    trained = {text for a in bank.attributes if a.split == "train" for pair in a.paraphrases for text in pair}
    trained |= {text for pair in bank.kept.pairs for text in pair}
    asked = {text for a in config.evaluate.attributes.values() for text in (a.comparison, a.comparison_swapped)}
    asked |= {text for texts in config.evaluate.questions.values() for text in texts}
    words = {word for pair in bank.kept.words for text in pair for word in text.split()}
    assert not words & {
        "beautiful",
        "expensive",
        "cheaper",
        "colourful",
        "longer",
        "calories",
        "legs",
        "sleeps",
        "many",
    }
    assert trained
    assert asked
    assert not trained & asked


def test_a_bank_of_ones_own(bank_file):
    bank = load_bank(bank_file())
    assert (bank.name, bank.subject, bank.things) == ("mine", "concept", sorted(NOUNS))
    assert bank["size"].stems[0].more == ["big", "large"]
    assert bank["weight"].paraphrases == [("The first is heavier.", "The first is lighter.")]
    assert [a.split for a in bank.attributes] == ["train", "held_out"]


def test_the_hash_follows_the_content(bank_file):
    changed = deepcopy(BANK)
    changed["attributes"]["size"]["stems"][0]["more"] = ["big"]
    found = [load_bank(bank_file(bank, f"{k}.yaml")).hash for k, bank in enumerate([BANK, deepcopy(BANK), changed])]
    assert found[0] == found[1] != found[2]


def test_things_are_kept_once_and_in_lower_case(bank_file):
    assert load_bank(bank_file({**BANK, "things": ["Fox", "fox", "Ant"]})).things == ["ant", "fox"]
    assert load_bank(bank_file({k: v for k, v in BANK.items() if k != "things"})).things == []


def test_banks_and_prompts_are_in_the_package():
    globs = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]["pcclip"]
    packaged = {path for glob in globs for path in (ROOT / "pcclip").glob(glob)}
    assert set((ROOT / "pcclip").rglob("*.yaml")) <= packaged


def test_no_such_bank():
    with pytest.raises(PcclipError, match="'nope': no such file; shipped banks: everyday, size"):
        load_bank("nope")


SIZE, STEM = ("attributes", "size"), ("attributes", "size", "stems", 0)


@pytest.mark.parametrize(
    ("where", "value", "says"),
    [
        (("attributes",), ["size"], r"attributes: Input should be a valid dictionary, not \['size'\]"),
        (("thing",), "imagenet", "thing: Extra inputs are not permitted"),
        (("subject",), "animal", "subject: Input should be 'concept' or 'caption', not 'animal'"),
        (("things",), "image net", "things: 'image net' is neither imagenet, imagenet animals, nor a list"),
        (
            ("things",),
            [1, "fox"],
            r"things.0: Input should be a valid string, not 1 \(yes, no and numbers go in quotes",
        ),
        (SIZE, "large", "attributes.size: Input should be a valid dictionary .*, not 'large'"),
        ((*SIZE, "split"), "test", "attributes.size.split: Input should be 'train' or 'held_out', not 'test'"),
        ((*SIZE, "split"), "held_out", "no attribute has split: train"),
        (
            (*SIZE, "question"),
            "Is {first} large?",
            r"attributes.size: a stem and the question must compare \{first\} with",
        ),
        ((*SIZE, "question"), "Is {first} larger than {third}?", "attributes.size.question: .* no braces but"),
        ((*SIZE, "stems"), [], "attributes.size: a stem and the question must compare"),
        (STEM, "Beside", "attributes.size.stems.0: Input should be a valid dictionary .*, not 'Beside'"),
        ((*STEM, "text"), "Beside {second} it is", "attributes.size.stems.0.text: .* does not name {first}"),
        ((*STEM, "text"), "Beside {second}, {first is", "attributes.size.stems.0.text: .* no braces but"),
        ((*STEM, "text"), "Beside {second.x}, {first} is", "attributes.size.stems.0.text: .* no braces but"),
        ((*STEM, "more"), "large", "attributes.size.stems.0.more: Input should be a valid list, not 'large'"),
        ((*STEM, "less"), ["small", "big"], "attributes.size.stems.0: 'big' says both more and less"),
        ((*SIZE, "train"), [], "attributes.size.train: .* at least 1 item"),
        ((*SIZE, "train"), [["a", "b", "c"]], "attributes.size.train.0: .* at most 2 items"),
        ((*SIZE, "train"), [["same", "same"]], "attributes.size.train: needs two different texts"),
        (
            (*SIZE, "held_out"),
            [["The first is smaller.", "x"]],
            "size: held out, but also trained on: 'The first is smal",
        ),
        (("attributes", "weight", "train"), [["The first is larger.", "x"]], "weight: held out, but also trained on"),
        (
            (*SIZE, "train"),
            ["The first is {more}."],
            "attributes.size.train: 'The .*' has braces but the attribute has no",
        ),
        ((*SIZE, "words"), "big", "attributes.size.words: Input should be a valid list, not 'big'"),
    ],
)
def test_a_malformed_bank_says_what_is_wrong_in_one_line(bank_file, where, value, says):
    bank = deepcopy(BANK)
    *way, last = where
    block = bank
    for key in way:
        block = block[key]
    block[last] = value
    with pytest.raises(PcclipError, match=rf"mine\.yaml: not an attribute bank \({says}") as error:
        load_bank(bank_file(bank))
    assert "\n" not in str(error.value)


def worded(bank_file, train, words=(("larger", "smaller"), ("enormous", "tiny")), **changes) -> Bank:
    """The bank with frames for paraphrases, and words for them."""
    size = {**BANK["attributes"]["size"], "train": train, "words": [list(pair) for pair in words], **changes}
    return load_bank(bank_file({**BANK, "attributes": {**BANK["attributes"], "size": size}}))


def test_a_frame_is_a_pair_for_every_two_words(bank_file):
    found = worded(
        bank_file,
        [
            "One is {more} than the other.",
            ["It is vast.", "It is minute."],
            "{a_more} thing, not {a_less} one: {more}, {less}",
        ],
    )["size"]
    assert found.paraphrases == [
        ("One is larger than the other.", "One is smaller than the other."),
        ("One is enormous than the other.", "One is tiny than the other."),
        ("It is vast.", "It is minute."),
        ("a larger thing, not a smaller one: larger, smaller", "a smaller thing, not a larger one: smaller, larger"),
        ("an enormous thing, not a tiny one: enormous, tiny", "a tiny thing, not an enormous one: tiny, enormous"),
    ]
    assert found.held_out == [tuple(BANK["attributes"]["size"]["held_out"][0])]


@pytest.mark.parametrize(
    "frame", ["It is {most}.", "It is {}.", "It is {more.x}.", "It is {more", "It is {0}.", "It is {more!z}."]
)
def test_a_frame_with_other_braces(bank_file, frame):
    with pytest.raises(
        PcclipError,
        match=r"attributes.size.train: .* has braces but \{more\}, \{less\}, \{a_more\}, "
        r"\{a_less\}\); see",
    ) as error:
        worded(bank_file, [frame])
    assert "\n" not in str(error.value)
    assert frame in str(error.value)


def test_a_frame_whose_words_change_nothing(bank_file):
    with pytest.raises(PcclipError, match="attributes.size.train: needs two different texts"):
        worded(bank_file, ["It is {{more}}."])


def test_words_do_not_bring_a_held_out_text_into_training(bank_file):
    with pytest.raises(PcclipError, match="size: held out, but also trained on: 'It is larger.'"):
        worded(bank_file, ["It is {more}."], held_out=[["It is larger.", "It is not."]])


def test_questions_about_other_things_are_kept_in_every_frame(bank_file):
    kept = {"words": [["warm", "cold"], ["wet", "dry"]], "frames": ["It is {a_more} one.", "No {less} one, {more}."]}
    assert load_bank(bank_file({**BANK, "kept": kept})).kept.pairs == [
        ("It is a warm one.", "It is a cold one."),
        ("It is a wet one.", "It is a dry one."),
        ("No cold one, warm.", "No warm one, cold."),
        ("No dry one, wet.", "No wet one, dry."),
    ]


@pytest.mark.parametrize(
    ("frame", "says"),
    [("It is one.", "two different texts"), ("{size}", "has braces but"), ("The first is {more}.", "also trained on")],
)
def test_a_frame_that_cannot_be_kept(bank_file, frame, says):
    bank = deepcopy(BANK)
    bank["attributes"]["size"]["held_out"] = [["The first is warm.", "The first is cold."]]
    with pytest.raises(PcclipError, match=says):
        load_bank(bank_file({**bank, "kept": {"words": [["warm", "cold"]], "frames": [frame]}}))


@pytest.mark.parametrize("key", ["split", "stems", "question", "train", "held_out"])
def test_a_key_that_is_missing_is_named(bank_file, key):
    bank = deepcopy(BANK)
    del bank["attributes"]["size"][key]
    with pytest.raises(PcclipError, match=rf"attributes.size.{key}: Field required"):
        load_bank(bank_file(bank))


@pytest.mark.parametrize("text", [b"", b"just text", b"- a\n- b\n", b"attributes: [unclosed", b"a: \xff\xfe", b"{}"])
def test_a_file_that_is_no_bank(tmp_path, text):
    (tmp_path / "mine.yaml").write_bytes(text)
    with pytest.raises(PcclipError, match=r"mine\.yaml: not (an attribute bank|valid YAML)") as error:
        load_bank(str(tmp_path / "mine.yaml"))
    assert "\n" not in str(error.value)


def test_a_caption_cannot_be_bare(bank_file):
    bank = deepcopy(BANK)
    bank["subject"] = "caption"
    load_bank(bank_file(bank))
    bank["attributes"]["size"]["stems"][1]["text"] = "A typical {bare} is"
    with pytest.raises(PcclipError, match="{bare} is for subject: concept"):
        load_bank(bank_file(bank))


# which pairs


def test_no_pair_crosses_a_split_or_a_kind(config, images):
    pairs = verdicts.draw_pairs(config, images, load_bank(config.generate.attributes))
    assert Counter(zip(pairs.kind, pairs.split, strict=True)) == {
        ("image", "train"): 30,
        ("image", "held_out"): 10,
        ("thing", "train"): 6,
    }
    split = images.table.set_index("id").split
    photos = pairs[pairs.kind == "image"]
    for side in ("first", "second"):
        assert (split[photos[side]].to_numpy() == photos.split).all()
    assert set(pairs["first"][pairs.kind == "thing"]) <= set(NOUNS)
    assert (pairs.first_subject != pairs.second_subject).all()


@pytest.mark.parametrize(
    ("changes", "kinds"),
    [
        ({"thing_pairs": 0}, {("image", "train"), ("image", "held_out")}),
        ({"attribute_pairs": 0}, {("thing", "train"), ("image", "held_out")}),
    ],
)
def test_kinds_of_pairs_that_are_not_wanted(config, images, changes, kinds):
    given = config.model_copy(update={"generate": config.generate.model_copy(update=changes)})
    pairs = verdicts.draw_pairs(given, images, load_bank(config.generate.attributes))
    assert set(zip(pairs.kind, pairs.split, strict=True)) == kinds


@pytest.mark.parametrize(
    ("concept", "thing", "spared"),
    [
        ("disc", "disc", False),
        ("disc", "disc brake", False),
        ("disc", "compact discs", False),
        ("disc", "discus", True),
        ("disc", "slipped-disc patient", False),
        ("soccer ball", "soccer field", True),
        ("soccer ball", "ball", False),
        ("t-shirt", "t-shirt", False),
        ("sheep", "ram (adult male sheep)", False),
    ],
)
def test_nouns_of_held_out_concepts_are_not_compared(config, images, concept, thing, spared):
    images.table["concept"] = images.table.concept.where(images.table.split == "train", concept)
    assert verdicts.spare([thing], images) == ([thing] if spared else [])


def test_nouns_of_held_out_concepts_are_never_asked_about(config, images, bank_file):
    held_out, train = sorted(set(images.held_out.concept)), sorted(set(images.train.concept))
    given = config.model_copy(
        update={
            "generate": config.generate.model_copy(
                update={
                    "attributes": bank_file({**BANK, "things": [*SHAPES, *NOUNS]}),
                    "thing_pairs": 1000,
                    "attribute_pairs": 0,
                }
            )
        }
    )
    backend = Judge()
    found = verdicts.judge(given, images, lambda prompt: backend)
    nouns = found[found.kind == "thing"]
    assert set(nouns["first"]) | set(nouns["second"]) == {*train, *NOUNS}
    alone = {subjects(text)[0] for text in backend.texts if len(subjects(text)) == 1}
    compared = {name for text in backend.texts if len(subjects(text)) == 2 for name in subjects(text)}
    assert compared == set(held_out)
    assert alone == {*SHAPES, *NOUNS}  # the held-out ones as pictures, which are only evaluated


@pytest.mark.parametrize(
    ("subject", "expected"),
    [
        ("fox", "a fox"),
        ("ant", "an ant"),
        ("Ant", "an Ant"),
        ("A red fox.", "a red fox"),
        ("The dog!", "the dog"),
        ("two dogs", "two dogs"),
        ("St. Bernard", "a St. Bernard"),
        (" An eagle ", "an eagle"),
    ],
)
def test_subjects_in_the_middle_of_a_sentence(subject, expected):
    assert verdicts.named(subject) == expected


# what is asked


def test_the_questions_are_the_stems_filled(judge):
    backend = Judge()
    found = judge(backend)
    a, b = found[["first_subject", "second_subject"]].iloc[0]
    by_text = {choice.text: choice for choice in backend.asked if "heavy" not in choice.more}
    one = by_text[f"Beside {verdicts.named(b)}, {verdicts.named(a)} is"]
    assert (one.more, one.less) == (("big", "large"), ("small",))
    assert one.question == f"Is {verdicts.named(a)} larger than {verdicts.named(b)}?"
    assert f"Beside {verdicts.named(a)}, {verdicts.named(b)} is" in by_text
    assert by_text[f"A{verdicts.named(a)[1:]} is"].more == ("huge",)


def test_captions_as_subjects(config, images, bank_file):
    given = config.model_copy(
        update={
            "generate": config.generate.model_copy(
                update={"attributes": bank_file({**BANK, "subject": "caption"}), "thing_pairs": 0}
            )
        }
    )
    backend = Judge()
    found = verdicts.judge(given, images, lambda prompt: backend)
    assert set(found.first_subject) <= set(images.table.caption)
    assert all(text.count("a ") + text.count("A ") == len(subjects(text)) for text in backend.texts)
    assert "A red" in " ".join(text for text in backend.texts if len(subjects(text)) == 1)


def test_nothing_is_asked_twice(judge):
    backend = Judge()
    found = judge(backend)
    asked = Counter((c.text, c.more) for c in backend.asked)
    assert set(asked.values()) == {1}
    assert len({c.key for c in backend.asked}) == len(backend.asked)
    size = found[(found.attribute == "size") & (found.kind == "image")]
    orders = {pair for a, b in zip(size.first_subject, size.second_subject, strict=True) for pair in ((a, b), (b, a))}
    compared = [tuple(subjects(c.text)) for c in backend.asked if "big" in c.more]
    assert len(compared) == len(orders) < 2 * len(size), "equal questions about other images are one question"
    assert set(compared) == orders


def test_a_held_out_attribute_is_never_asked_about_training_pairs(judge, images):
    backend = Judge()
    found = judge(backend)
    weighed = {name for c in backend.asked if c.more == ("heavy",) for name in subjects(c.text)}
    assert weighed <= set(images.held_out.concept)
    assert set(found.split[found.attribute == "weight"]) == {"held_out"}
    assert set(found.split[found.attribute == "size"]) == {"train", "held_out"}


def test_nouns_are_asked_about_alone(judge):
    backend = Judge()
    found = judge(backend)
    assert not [c.text for c in backend.asked if len(subjects(c.text)) == 2 and set(subjects(c.text)) & set(NOUNS)]
    assert set(found.stems[found.kind == "thing"]) == {1}
    assert set(found.stems[(found.kind == "image") & (found.attribute == "size")]) == {2}


def test_the_second_run_asks_nothing(judge):
    first = judge(Judge())
    backend = Judge()
    backend.start = never
    pd.testing.assert_frame_equal(judge(backend), first)


@pytest.mark.parametrize(
    ("key", "value", "asked_anew"),
    [
        ("held_out", [["x", "y"]], set()),
        ("train", [["x", "y"]], set()),
        ("question", "Is {first} > {second}?", {"big"}),
    ],
)
def test_only_what_is_asked_about_makes_a_question_new(judge, bank_file, key, value, asked_anew):
    judge(Judge())
    bank = deepcopy(BANK)
    bank["attributes"]["size"][key] = value
    again = Judge()
    judge(again, attributes=bank_file(bank))
    assert {c.more[0] for c in again.asked} == asked_anew


def failing(*names):
    return lambda choice: (
        Odds(None, f"error: no {names[0]}") if set(subjects(choice.text)) & set(names) else odds_of(choice)
    )


def test_failed_answers_are_asked_again(judge, images):
    name = images.train.concept[0]
    broken, second, whole = Judge(failing(name)), Judge(), Judge()
    table = judge(broken)
    none = table[table.verdict == "none"]
    assert len(none)
    assert ((none.first_subject == name) | (none.second_subject == name)).all()
    assert none.reason.str.startswith("error: no").all()
    assert none[["value", "probability", "confidence"]].isna().all(axis=None)
    assert (none.stems == 0).all()
    whole.identity = "judge-2"
    pd.testing.assert_frame_equal(judge(second), judge(whole))
    assert {c.key for c in second.asked} == {c.key for c in broken.asked if name in subjects(c.text)}


def test_one_silent_stem_leaves_the_other(judge):
    def odds(choice):
        return Odds(None, "error: lost") if choice.more == ("big", "large") else odds_of(choice)

    table = judge(Judge(odds))
    size = table[(table.attribute == "size") & (table.kind == "image")]
    assert (size.stems == 1).all()
    assert size.value.notna().all()
    assert set(size.reason) == {"error: lost"}


def test_silence_is_an_error(judge):
    with pytest.raises(PcclipError, match=r"verdicts: 56 of 56 pairs got no answer, mostly with 'error: full'"):
        judge(Judge(lambda choice: Odds(None, "error: full")))
    assert judge(Judge()).value.notna().all(), "and they are asked again"


# what the odds become


def reference(table: pd.DataFrame) -> list[float]:
    """The value of every row, by the definition, from odds_of: its liking for the first of two cancels."""

    def half(a, b, stem):
        return {"compare": SIZES[a] - SIZES[b], "alone": (math.log(SIZES[a]) - math.log(SIZES[b])) / 2}[stem]

    def value(row):
        stems = ["alone"] if row.kind == "thing" else ["compare", "alone"] if row.attribute == "size" else ["compare"]
        same = table[(table.kind == row.kind) & (table.attribute == row.attribute)]
        scaled = []
        for stem in stems:
            squares = [half(a, b, stem) ** 2 for a, b in zip(same.first_subject, same.second_subject, strict=True)]
            scaled.append(half(row.first_subject, row.second_subject, stem) / math.sqrt(sum(squares) / len(squares)))
        return sum(scaled) / len(scaled)

    return [value(row) for row in table.itertuples()]


def test_values_by_hand(judge):
    table = judge(Judge())
    assert len(table) == 30 + 10 + 6 + 10
    assert list(table.value) == pytest.approx(reference(table), rel=1e-9)
    assert list(table.probability) == pytest.approx([norm.cdf(v) for v in table.value])
    assert list(table.confidence) == pytest.approx([abs(2 * norm.cdf(v) - 1) for v in table.value])
    sure = abs(table.value) >= norm.ppf(0.75)
    assert list(table.verdict) == list(np.where(~sure, "neither", np.where(table.value > 0, "first", "second")))
    assert set(table.verdict) == {"first", "second", "neither"}


def test_a_model_that_only_likes_the_first_of_two_says_nothing(judge):
    table = judge(Judge(lambda choice: Odds(3.0, "probabilities")))
    assert (table.value == 0).all()
    assert set(table.verdict) == {"neither"}


def test_summary_and_the_surest(judge, config):
    table = judge(Judge())
    found = verdicts.summary(table, load_bank(config.generate.attributes)).set_index("attribute")
    assert found.loc["size", ["image pairs", "thing pairs", "stems"]].tolist() == [40, 6, 2]
    assert found.loc["weight", ["split", "image pairs", "thing pairs"]].tolist() == ["held_out", 10, 0]
    for name, row in found.iterrows():
        counts = table.verdict[table.attribute == name].value_counts()
        assert all(row[v] == counts.get(v, 0) for v in ("first", "second", "neither", "none"))
    best = verdicts.surest(table, 3)
    assert list(best.attribute) == ["size"] * 3 + ["weight"] * 3
    images = table[(table.attribute == "size") & (table.kind == "image")]
    distinct = images.sort_values("confidence").drop_duplicates(["first_subject", "second_subject"], keep="last")
    assert list(best.confidence[:3]) == sorted(distinct.confidence)[:-4:-1], "each pair of subjects once"


# in stage 01


def test_the_stage_stores_verdicts(config, images, tiny_encoder):
    generate.generate(config, images, tiny_encoder, Judge())
    folder = config.folder / generate.FOLDER
    manifest = json.loads((folder / "manifest.json").read_text())
    stored = verdicts.load(config)
    assert manifest["counts"]["verdicts"] == len(stored) == 56
    assert verdicts.TABLE in manifest["outputs"]
    assert list(stored.value) == pytest.approx(reference(stored))


def test_verdicts_of_another_bank_are_refused(config, images, tiny_encoder, bank_file):
    generate.generate(config, images, tiny_encoder, Judge())
    bank_file({**BANK, "things": ["fox"]})
    with pytest.raises(PcclipError, match="01_generate: made with other attributes than now asked for"):
        verdicts.load(config)


def test_like_is_compared_with_like(config, images):
    labelled = load_images(config)
    found = verdicts.draw_pairs(config, labelled, load_bank(config.generate.attributes))
    label = labelled.table.set_index("id").label
    pictures = found[found.kind == "image"]
    assert len(pictures) > 10
    assert (label[pictures["first"]].to_numpy() == label[pictures["second"]].to_numpy()).all()
    anywhere = verdicts.draw_pairs(config, images, load_bank(config.generate.attributes))
    anywhere = anywhere[anywhere.kind == "image"]
    assert (label[anywhere["first"]].to_numpy() != label[anywhere["second"]].to_numpy()).any()
