"""Sets of image pairs with a text about their difference: as they are published, and retrieval on them."""

from pathlib import Path

import numpy as np
import pytest
from helpers.files import picture, put
from helpers.image_pairs import BIRDS, COMPBENCH, COMPBENCH_IMAGES, bird_line, make_compbench
from helpers.public_sets import PublicSets, reasons
from scipy.stats import binomtest

from pcclip.benchmarks.change_captions.compbench import worded
from pcclip.errors import PcclipError
from pcclip.evaluation.retrieval import DescribedPairs, retrieval_items, worded_verdicts
from pcclip.images import open_image
from pcclip.stats.vectors import image_differences, unit

CHANGES = PublicSets("change_captions")


def row(found, k: int) -> tuple:
    return tuple(found.items.loc[k, ["first", "second", "text", "split"]])


# ---- the sets in their public layouts --------------------------------------------------------------------------------


@pytest.fixture
def spot_the_diff(tmp_path):
    put(
        tmp_path / "annotations" / "train.json",
        [
            {"img_id": "42", "sentences": ["the left most man is  missing", "a car has appeared near the building."]},
            {"img_id": "42", "sentences": ["one man is gone"]},
        ],
    )
    put(tmp_path / "annotations" / "val.json", [{"img_id": "5406", "sentences": ["there is more people"]}])
    put(tmp_path / "annotations" / "test.json", [{"img_id": "8069", "sentences": ["there is less people"]}])
    for name in ("42", "5406", "8069"):
        picture(tmp_path / "resized_images" / f"{name}.png")
        picture(tmp_path / "resized_images" / f"{name}_2.png")
        picture(tmp_path / "resized_images" / f"{name}_diff.jpg")
    return tmp_path


def test_spot_the_diff(spot_the_diff):
    found = CHANGES.read("spot_the_diff", spot_the_diff)
    assert row(found, 0) == (
        "resized_images/42.png",
        "resized_images/42_2.png",
        "the left most man is missing. a car has appeared near the building",
        "tune",
    )
    assert list(found.items.text[1:]) == ["one man is gone", "there is more people", "there is less people"]
    assert list(found.items.split) == ["tune", "tune", "tune", "test"]
    assert list(found.items.part) == ["train", "train", "val", "test"]
    assert found.orientation == -1
    assert set(found.items.swapped) == {""}
    assert len(found.images) == found.images.id.nunique() == 6  # and no picture of the difference
    assert set(found.items["first"]) | set(found.items["second"]) == set(found.images.id)
    assert all(open_image(path).size == (8, 8) for path in found.images.path)
    assert found.left_out.empty


@pytest.fixture
def birds_to_words(tmp_path):
    lines = [
        "\t".join(BIRDS),
        bird_line(647514, 5595152, "train", 1, 'animal1 is 5" long , while animal2 is longer than animal1 .'),
        bird_line(647514, 5595152, "train", 2, "Animal 2 has a blue head ."),
        bird_line(7, 8, "val", 1, "they are much alike"),
        bird_line(8, 9, "test", 1, "animal2 is red ."),
    ]
    put(tmp_path / "birds-to-words-v1.0.tsv", "\n".join(lines) + "\n")
    for name in ("647514.jpg", "5595152.jpeg", "7.jpg", "8.png", "9.JPG"):
        picture(tmp_path / "images" / name)
    return tmp_path


def test_birds_to_words(birds_to_words):
    found = CHANGES.read("birds_to_words", birds_to_words)
    assert row(found, 0) == (
        "images/647514.jpg",
        "images/5595152.jpeg",
        'the first animal is 5" long , while the second animal is longer than the first animal .',
        "tune",
    )
    assert list(found.items.swapped) == [
        'the second animal is 5" long , while the first animal is longer than the second animal .',
        "the first animal has a blue head .",
        "",
        "the first animal is red .",
    ]
    assert found.items.text[1] == "the second animal has a blue head ."
    assert list(found.items.split) == ["tune", "tune", "tune", "test"]
    assert found.orientation == 1
    assert list(found.items.first_species) == ["Turdus merula"] * 4
    assert sorted(map(Path, found.images.path)) == sorted((birds_to_words / "images").resolve().iterdir())


def test_birds_in_another_table(birds_to_words):
    table = birds_to_words / "birds-to-words-v1.0.tsv"
    table.write_text(table.read_text().replace("img1ObservationURL", "img1"))
    with pytest.raises(PcclipError, match=r"no column 'img1ObservationURL'; fetch it again from https"):
        CHANGES.load("birds_to_words", birds_to_words)


def test_birds_that_cannot_be_used(birds_to_words):
    with open(birds_to_words / "birds-to-words-v1.0.tsv", "a", encoding="utf8") as file:
        file.write(bird_line(8, 9, "dev", 1, "animal2 is red .") + "\n")
        file.write(bird_line(8, 9, "test", 2, " ") + "\n")
        file.write(bird_line("8?x", 9, "test", 3, "animal1 is red .") + "\n")
        file.write(bird_line(8, 10, "test", 4, "animal1 is red .") + "\n")
    found = CHANGES.read("birds_to_words", birds_to_words)
    assert len(found.items) == 4
    assert {name.removeprefix("birds-to-words-v1.0.tsv, "): reason for name, reason in reasons(found).items()} == {
        "line 6": "no split",
        "line 7": "no text",
        "line 8": "no photograph",
        "10.jpg": "missing file",
    }


@pytest.fixture
def fashion_iq(tmp_path):
    for k, category in enumerate(("dress", "shirt", "toptee")):
        names = [f"B00{k}{n}" for n in range(3)]
        put(
            tmp_path / "captions" / f"cap.{category}.train.json",
            [{"target": names[1], "candidate": names[0], "captions": ["is solid white.", " Has  longer sleeves"]}],
        )
        put(
            tmp_path / "captions" / f"cap.{category}.val.json",
            [{"target": names[2], "candidate": names[1], "captions": ["is darker", ""]}],
        )
        put(tmp_path / "captions" / f"cap.{category}.test.json", [{"candidate": names[1], "captions": ["is a t"]}])
        put(tmp_path / "image_splits" / f"split.{category}.val.json", names[1:])
        picture(tmp_path / "images" / f"{names[0]}.jpg")
        picture(tmp_path / "images" / f"{names[1]}.png")
        picture(tmp_path / "images" / category / f"{names[2]}.jpg")
    return tmp_path


def test_fashion_iq(fashion_iq):
    found = CHANGES.read("fashion_iq", fashion_iq)
    assert row(found, 0) == ("images/B0000.jpg", "images/B0001.png", "is solid white and Has longer sleeves", "tune")
    assert row(found, 1) == ("images/B0001.png", "images/dress/B0002.jpg", "is darker", "test")
    assert list(found.items.category) == ["dress", "dress", "shirt", "shirt", "toptee", "toptee"]
    assert set(found.items.part) == {"train", "val"}  # test has no targets
    assert found.orientation == -1


@pytest.fixture
def compbench(tmp_path):
    return make_compbench(tmp_path)


def test_compbench(compbench):
    found = CHANGES.read("compbench", compbench)
    told = found.items[["source", "relativity", "text", "swapped", "answer", "split"]].to_dict("split")["data"]
    church = (
        "The church in the first image is larger than the one in the second image.",
        "The church in the second image is larger than the one in the first image.",
    )
    steps = (
        "The steps in the first image are more broken than those in the second image.",
        "The steps in the second image are more broken than those in the first image.",
    )
    assert told[0] == ["MIT-States", "attribute", *church, "first", "test"]
    assert told[1] == ["MIT-States", "state", *steps, "second", "test"]
    assert [line[:2] + line[4:] for line in told[2:]] == [
        ["SoccerNet", "temporality", "first", "test"],
        ["SoccerNet", "temporality", "second", "tune"],
        ["CompCars", "temporality", "second", "test"],
        ["VQAv2", "quantity", "first", "test"],
    ]
    assert told[2][2] == "The frame in the first image happens earlier than the one in the second image."
    assert told[4][2].startswith("The car in the first image is newer in terms of its model year")
    assert told[5][3] == "The second image has more trees than the first image."
    assert found.items["first"][1] == COMPBENCH_IMAGES[1]
    assert list(found.images.id) == [COMPBENCH_IMAGES[k] for k in (0, 1, 4, 5, 2, 3, 6, 7)]
    assert reasons(found) == {"vqa.json, entry 1": "neither has more"}  # and that is not bad


def test_compbench_rows_that_cannot_be_used(compbench):
    church = COMPBENCH["st_label/st.json"][0]
    rows = [
        None,
        {**church, "answer": "Both"},
        {**church, "question": "Larger?"},
        {**church, "image_2": ""},
        {**church, "image_2": "release_dataset/images/large church/"},
        church,
    ]
    put(compbench / "st_label" / "st.json", rows)
    found = CHANGES.read("compbench", compbench)
    assert {name.removeprefix("st.json, "): reason for name, reason in reasons(found).items()} == {
        "entry 1": "not a pair",
        "entry 2": "no such answer",
        "entry 3": "question not understood",
        "entry 4": "not a pair",
        "large church": "missing file",
        "vqa.json, entry 1": "neither has more",
    }
    with pytest.raises(PcclipError, match=r"5 of 10 rows are bad .*more than 5%"):
        CHANGES.load("compbench", compbench)


def test_compbench_files_that_cannot_be_told_apart(compbench):
    put(compbench / "car_label" / "cars2.json", COMPBENCH["car_label/cars.json"])
    with pytest.raises(PcclipError, match=r"car_label: needs one JSON file, or some that end in _val\.json and _test"):
        CHANGES.load("compbench", compbench)


@pytest.mark.parametrize(
    ("question", "text"),
    [
        (
            "Which bird has a smaller bill length to head length ratio?",
            "The bird in the first image has a smaller bill length to head length ratio than the one in the second image.",
        ),
        (
            "Which pants'  fit is tighter?",
            "The pants' fit in the first image is tighter than the one in the second image.",
        ),
        ("Which person smiles more?", "The person in the first image smiles more than the one in the second image."),
        (
            " Which has fish has a more even ratio?",
            "The fish in the first image has a more even ratio than the one in the second image.",
        ),
        (
            "Based on these images, which car is newer?",
            "The car in the first image is newer than the one in the second image.",
        ),
        (
            "Which image has more people who showed up for this show?",
            "The first image has more people who showed up for this show than the second image.",
        ),
        ("What is the difference?", None),
        ("Which?", None),
    ],
)
def test_questions_become_texts(question, text):
    found = worded(question)
    assert (found and found[0]) == text
    if found:
        assert found[1] == found[0].replace("first", "*").replace("second", "first").replace("*", "second")


def test_only_what_is_lacking_is_named(spot_the_diff, compbench):
    assert CHANGES.missing("spot_the_diff", spot_the_diff) == CHANGES.missing("compbench", compbench) == []
    (spot_the_diff / "annotations" / "val.json").unlink()
    [line] = CHANGES.missing("spot_the_diff", spot_the_diff)
    assert "no annotations/val.json; get data/annotations of https://github.com/harsh19/spot-the-diff" in line
    put(compbench / "depth_label" / "d.json", [])
    [line] = CHANGES.missing("compbench", compbench)
    assert f"{compbench / 'nyu_depth_v2'}: not there; " in line
    assert f"NYU-Depth V2 are, or remove {compbench / 'depth_label'}" in line


def test_bad_rows_are_counted(spot_the_diff):
    entries = [{"img_id": "42", "sentences": [f"man {k} is gone"]} for k in range(38)]
    for bad, says in (
        ([{"img_id": "42", "sentences": [""]}, "?"], "1 no text, 1 not a pair"),
        ([{"img_id": "43", "sentences": ["a car"]}] * 2, "2 missing file"),
    ):
        put(spot_the_diff / "annotations" / "train.json", entries + bad)
        found = CHANGES.read("spot_the_diff", spot_the_diff)  # 2 of 42
        assert len(found.items) == 40
        assert len(found.left_out) == 2
        put(spot_the_diff / "annotations" / "train.json", entries[:30] + bad)
        with pytest.raises(PcclipError, match=rf"2 of 34 rows are bad \({says}, e.g. .*\), more than 5%"):
            CHANGES.load("spot_the_diff", spot_the_diff)


@pytest.mark.parametrize("content", ["{}", "[]", "[1", "\0"])
def test_files_that_are_no_list(spot_the_diff, content):
    put(spot_the_diff / "annotations" / "train.json", content)
    with pytest.raises(PcclipError, match=r"train\.json: .*fetch it again from https") as error:
        CHANGES.load("spot_the_diff", spot_the_diff)
    assert "\n" not in str(error.value)


# ---- retrieval -------------------------------------------------------------------------------------------------------

AXES = np.eye(4, dtype=np.float32)


def knows(vectors: dict):
    """An encoder that knows a vector for every text."""
    return lambda texts: unit(np.array([vectors[text] for text in texts], dtype=np.float32))


def many(rng, pairs: int, width: int = 16):
    """Pairs of random images, and a text for each pair."""
    matrix = unit(rng.normal(size=(2 * pairs, width)).astype(np.float32))
    return matrix, np.arange(pairs), np.arange(pairs, 2 * pairs), [f"text {k}" for k in range(pairs)]


def oracle(matrix, first, second, texts, sign=1):
    v = sign * image_differences(matrix, first, second)
    vectors = dict(zip(texts, v, strict=True)) | {f"not {text}": -w for text, w in zip(texts, v, strict=True)}
    return knows(vectors)


def test_ranks_are_as_worked_out_by_hand():
    first, second = np.array([0, 0, 1, 2]), np.array([3, 3, 3, 3])  # v = unit(e_k - e_3)
    encode = knows({"a": [1, 0, 0, 0], "b": [0, 1, 0, 0], "c": [3, 0, 4, 0]})
    # pair 0,3 has the texts a and c; scores of a, b, c on e0 - e3: .707, 0, .424; on e1 - e3: 0, .707, 0
    found = retrieval_items(encode, AXES, DescribedPairs(first, second, ["a", "c", "b", "b"]), distractors=1)
    assert list(found["rank"]) == [1, 1, 1, 2]
    assert list(found.correct) == [True, True, True, False]
    assert list(found.reciprocal_rank) == [1, 1, 1, 0.5]
    np.testing.assert_allclose(found.score, [0.5**0.5, 0.6 * 0.5**0.5, 0.5**0.5, 0], atol=1e-6)
    assert list(found.reference[:2]) == [0, 0]  # b is the only text about other images
    two = retrieval_items(encode, AXES, DescribedPairs(first[2:], second[2:], ["a", "c"]), distractors=1)
    assert list(two["rank"]) == [2, 1]  # on e1 - e3 both are 0; on e2 - e3 a is 0 and c is .566


def test_a_tie_counts_against_the_right_text(rng):
    matrix, first, second, texts = many(rng, 50)
    offset = np.ones(16, np.float32)
    constant = retrieval_items(
        knows(dict.fromkeys(texts, offset)), matrix, DescribedPairs(first, second, texts), distractors=4
    )
    assert not constant.correct.any()
    assert set(constant["rank"]) == {5}
    still = retrieval_items(
        oracle(matrix, first, second, texts), matrix, DescribedPairs(first, first, texts), distractors=4
    )
    assert not still.correct.any()  # no difference between the images


@pytest.mark.parametrize("sign", [1, -1])
def test_the_orientation_is_the_texts_own(sign, rng):
    matrix, first, second, texts = many(rng, 60)
    encode = oracle(matrix, first, second, texts, sign)
    found = retrieval_items(encode, matrix, DescribedPairs(first, second, texts, orientation=sign))
    assert found.correct.all()
    np.testing.assert_allclose(found.score, 1, atol=1e-5)
    assert (
        retrieval_items(encode, matrix, DescribedPairs(first, second, texts, orientation=-sign)).correct.mean() < 0.05
    )
    assert retrieval_items(encode, matrix, DescribedPairs(second, first, texts, orientation=-sign)).correct.all()


def test_scores_at_random_are_right_by_chance(rng):
    matrix, first, second, texts = many(rng, 2000)
    found = retrieval_items(
        lambda texts: unit(rng.normal(size=(len(texts), 16))), matrix, DescribedPairs(first, second, texts)
    )
    low, high = binomtest(int(found.correct.sum()), len(found)).proportion_ci(0.999)
    assert low < 0.1 < high
    reciprocal = (1 / np.arange(1, 11)).mean()
    assert found.reciprocal_rank.mean() == pytest.approx(reciprocal, abs=4 * found.reciprocal_rank.std() / 2000**0.5)
    assert set(found["rank"]) == set(range(1, 11))


def test_a_constant_offset_goes_with_the_swapped_text(rng):
    matrix, first, second, texts = many(rng, 60)
    right, offset = oracle(matrix, first, second, texts), 30 * rng.normal(size=(60, 16))  # of each text another one
    kept = {text: offset[k] for k, text in enumerate(texts)}
    twins = [f"not {text}" for text in texts]

    def encode(asked):  # unit only up to the offset, which the text and its twin share
        return right(asked) + np.array([kept[text.removeprefix("not ")] for text in asked])

    assert retrieval_items(encode, matrix, DescribedPairs(first, second, texts)).correct.mean() < 0.4
    assert retrieval_items(encode, matrix, DescribedPairs(first, second, texts, twins)).correct.all()


def test_distractors_are_of_other_pairs_and_never_equal():
    # two pairs are of the same images, in two orders and with a text each, and another has the words of the first
    first, second = np.array([0, 9, 1, 2]), np.array([9, 0, 9, 9])
    texts = ["A dog.", "one cat", "a  dog", "a cow"]
    weights = unit(np.arange(1, 5, dtype=np.float32)[None])
    matrix = np.repeat(weights, 10, axis=0)
    matrix[9] = 0  # every difference is +-weights, and so a score tells which text it is of
    drawn = [set() for _ in texts]
    for seed in range(30):
        found = retrieval_items(
            lambda asked: np.eye(4)[[texts.index(text) for text in asked]],
            matrix,
            DescribedPairs(first, second, texts),
            distractors=1,
            seed=seed,
        )
        for k, score in enumerate(found.reference.abs()):
            drawn[k].add(texts[np.abs(weights[0] - score).argmin()])
    assert drawn == [{"a cow"}, {"a cow"}, {"one cat", "a cow"}, {"A dog.", "one cat"}]


def test_the_draw_is_by_seed_and_the_same_for_every_model(rng, monkeypatch):
    matrix, first, second, texts = many(rng, 80)
    encode = knows(dict(zip(texts, rng.normal(size=(80, 16)), strict=True)))

    def ranks(seed=0):
        return list(retrieval_items(encode, matrix, DescribedPairs(first, second, texts), seed=seed)["rank"])

    assert ranks() == ranks() != ranks(1)
    whole = ranks()
    monkeypatch.setattr("pcclip.evaluation.retrieval._KEYS", 300)  # three items at a time
    assert ranks() == whole


def test_too_few_texts(rng):
    matrix, first, second, texts = many(rng, 8)
    retrieval_items(
        knows(dict.fromkeys(texts, AXES[0].repeat(4))), matrix, DescribedPairs(first, second, texts), distractors=7
    )
    with pytest.raises(PcclipError, match="its text among 9 others, but there are only 7 texts") as error:
        retrieval_items(knows(dict.fromkeys(texts, AXES[0].repeat(4))), matrix, DescribedPairs(first, second, texts))
    assert "\n" not in str(error.value)


def test_retrieval_on_a_set_as_read(spot_the_diff, rng):
    found = CHANGES.read("spot_the_diff", spot_the_diff)
    rows = {name: k for k, name in enumerate(found.images.id)}
    first, second = (found.items[side].map(rows).to_numpy() for side in ("first", "second"))
    matrix = unit(rng.normal(size=(len(rows), 8)).astype(np.float32))
    encode = oracle(matrix, first, second, list(found.items.text), found.orientation)
    items = retrieval_items(
        encode,
        matrix,
        DescribedPairs(first, second, list(found.items.text), orientation=found.orientation),
        distractors=2,
    )
    assert items.correct.all()
    assert list(items["first"]) == list(first)


# ---- verdicts in words of their own ----------------------------------------------------------------------------------


def test_worded_verdicts_of_an_oracle_and_of_a_constant(rng):
    matrix, first, second, texts = many(rng, 40)
    texts, twins = [f"text {k % 5}" for k in range(40)], [f"not text {k % 5}" for k in range(40)]
    axes = rng.normal(size=(5, 16))
    encode = knows({f"text {k}": axes[k] for k in range(5)} | {f"not text {k}": -axes[k] for k in range(5)})
    v = image_differences(matrix, first, second)
    more = np.einsum("md,md->m", v, encode(texts)) > 0
    for items in worded_verdicts(encode, matrix, DescribedPairs(first, second, texts, twins), more):
        assert items.correct.all()
        assert list(items.reference) == [1.0 if one else -1.0 for one in more]
    one_sided, both = worded_verdicts(encode, matrix, DescribedPairs(first, second, texts, twins), ~more)
    assert not one_sided.correct.any()
    assert not both.correct.any()
    same = knows(dict.fromkeys([*texts, *twins], np.ones(16)))
    one_sided, both = worded_verdicts(same, matrix, DescribedPairs(first, second, texts, twins), v.sum(axis=1) > 0)
    assert one_sided.correct.all()  # fooled by what all texts share
    assert not both.correct.any()
    assert (both.score == 0).all()


def test_worded_verdicts_at_random(rng):
    matrix, first, second, texts = many(rng, 2000)
    more = rng.random(2000) < 0.5
    for items in worded_verdicts(
        lambda asked: unit(rng.normal(size=(len(asked), 16))),
        matrix,
        DescribedPairs(first, second, texts, [f"not {text}" for text in texts]),
        more,
    ):
        low, high = binomtest(int(items.correct.sum()), 2000).proportion_ci(0.999)
        assert low < 0.5 < high
