"""Compositional benchmarks: read as they are published, and scored by their own definitions."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import get_args

import numpy as np
import pandas as pd
import pytest
from helpers.compositional_sets import write
from helpers.files import picture, put
from helpers.public_sets import PublicSets
from PIL import Image
from scipy.stats import binomtest

from pcclip import config as params
from pcclip.benchmarks.compositionality import FAMILY, FORMS, measures as matching
from pcclip.benchmarks.compositionality.order import shuffled_options, tidied
from pcclip.benchmarks.registry import load_benchmarks
from pcclip.comparisons import stage as generate
from pcclip.data.image_set import load_images
from pcclip.data.parts_of_speech import parts_of_speech
from pcclip.embedding.stage import embed
from pcclip.embedding.vectors import Vectors
from pcclip.errors import PcclipError
from pcclip.evaluation import compositional, stage as report
from pcclip.evaluation.predictions import Predictions, measured
from pcclip.finetuning.stage import finetune
from pcclip.images import BadImage, open_image
from pcclip.stats.metrics import accuracy, macro_accuracy
from pcclip.stats.vectors import unit

SETS = PublicSets("compositionality")
GROUPS = ["winoground", "eqben", "mmvp_vlm", "naturalbench"]
FORMS_OF = dict.fromkeys(GROUPS, "groups") | {"sugarcrepe_pp": "triples"}
FIRST = {  # the first item of each fixture: images, texts, part, group, tags
    "winoground": (
        ["data/images/ex_0_img_0.png", "data/images/ex_0_img_1.png"],
        ["the mug 0 is in the grass", "the grass is in the mug 0"],
        "",
        "",
        ("Object", "No Tag"),
    ),
    "vg_relation": (
        ["images/0.jpg#1,0,21,30"],
        ["the man is on the horse 0", "the horse 0 is on the man"],
        "",
        "on",
        (),
    ),
    "vg_attribution": (
        ["images/0.jpg#1,0,21,30"],
        ["the white car 0 and the green door", "the green car 0 and the white door"],
        "",
        "",
        (),
    ),
    "sugarcrepe": (
        ["val2017/000000000000.jpg"],
        ["the dog chases the add_att 0", "the add_att 0 chases the dog"],
        "add_att",
        "add_att",
        (),
    ),
    "sugarcrepe_pp": (
        ["val2017/200000000000.jpg"],
        [
            "the dog chases the replace_att 0",
            "it is the dog that chases the replace_att 0",
            "the replace_att 0 chases the dog",
        ],
        "replace_att",
        "replace_att",
        (),
    ),
    "vl_checklist": (
        ["vg/Attribute_vaw_action_0.jpg"],
        ["Attribute/vaw/action child 0 brushing teeth", "Attribute/vaw/action child 0 painting teeth"],
        "Attribute/vaw/action",
        "Attribute/vaw/action",
        ("Attribute",),
    ),
    "eqben": (
        ["image_subset/eqbenag/0_0.png", "image_subset/eqbenag/0_1.png"],
        ["the person opens door 0", "the person closes door 0"],
        "eqbenag",
        "",
        (),
    ),
    "mmvp_vlm": (
        [f"MLLM_VLM Images/Orientation and Direction/{k}.jpg" for k in (1, 2)],
        ["a photo of a rabbit, facing 1", "a photo of a rabbit, facing 2"],
        "Orientation and Direction",
        "",
        (),
    ),
    "naturalbench": (["images/0a.jpg", "images/0b.jpg"], ["a dog in a park 0", "a park with a dog 0"], "", "", ()),
}


def reasons(found) -> dict[str, str]:
    return dict(zip(found.left_out.path, found.left_out.reason, strict=True))


def of(found, columns: str) -> list[str]:
    return list(found.items.loc[0, [column for column in found.items if column.startswith(columns)]])


# ---- the sets in their public layouts --------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FIRST)
def test_a_set_as_it_is_published(name, tmp_path):
    found = SETS.load(name, write(name, tmp_path, 9))
    assert SETS.missing(name, tmp_path) == []
    images, texts, part, group, tags = FIRST[name]
    assert (of(found, "image_"), of(found, "text_")) == (images, texts)
    assert tuple(found.items.loc[0, ["part", "group", "tags"]]) == (part, group, tags)
    assert len(found.items) >= 9
    assert found.left_out.empty
    assert len(found.images) == found.images.id.nunique()
    assert all(Path(path).is_file() for path in found.images.path)
    assert found.form == FORMS_OF.get(name, "choices")


def test_every_set_has_parameters_and_a_fixture():
    [names, _] = get_args(params.Evaluate.model_fields["compositional"].annotation)
    assert list(get_args(names)) == list(SETS.readers)
    assert {*FIRST, "coco_order", "flickr30k_order"} == set(SETS.readers)


def test_only_what_is_lacking_is_named(tmp_path):
    (write("sugarcrepe", tmp_path / "s", 7) / "data" / "swap_att.json").unlink()
    [line] = SETS.missing("sugarcrepe", tmp_path / "s")
    assert "no data/swap_att.json; get data of https://github.com/RAIVNLab/sugar-crepe" in line
    checklist = write("vl_checklist", tmp_path / "v", 5)
    (checklist / "hake").rename(checklist / "elsewhere")
    [line] = SETS.missing("vl_checklist", checklist)
    assert line.startswith(f"{checklist / 'hake'}: not there; DATASETS.md of https://github.com/om-ai-lab/VL-CheckList")
    assert "or remove data/Object/Size/hake_size/hake_obj_small.json" in line


def test_rows_that_cannot_be_used_are_counted(tmp_path):
    write("naturalbench", tmp_path, 38)
    rows = json.loads((tmp_path / "metadata.json").read_text())
    bad = [None, {**rows[0], "caption_1": " "}, {**rows[0], "image_1": "gone.jpg"}, {**rows[0], "image_0": 3}]
    put(tmp_path / "metadata.json", rows + bad)
    found = SETS.load("naturalbench", tmp_path, max_bad=0.1)
    assert len(found.items) == 38
    assert reasons(found) == {
        "metadata.json, entry 39": "no image",
        "metadata.json, entry 40": "no text",
        str(tmp_path / "images" / "gone.jpg"): "missing file",
        "metadata.json, entry 42": "no image",
    }
    with pytest.raises(
        PcclipError, match=r"4 of 42 rows are bad \(2 no image, 1 no text, 1 missing file, e.g. .*\), more"
    ):
        SETS.load("naturalbench", tmp_path)
    put(tmp_path / "metadata.json", bad)
    with pytest.raises(PcclipError, match="no usable row; left out: 2 no image"):
        SETS.load("naturalbench", tmp_path, max_bad=1.0)


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("winoground", "data/examples.jsonl"),
        ("naturalbench", "metadata.json"),
        ("sugarcrepe", "data/add_att.json"),
        ("vg_relation", "visual_genome_relation.json"),
        ("coco_order", "coco_karpathy_test.json"),
        ("eqben", "eqben_subset_10percent_final.json"),
        ("vl_checklist", "data/Relation/vg/action.json"),
        ("mmvp_vlm", "Questions.csv"),
        ("winoground", "new_tag_assignments.json"),
    ],
)
@pytest.mark.parametrize("content", ["", "[1", "\0"])
def test_files_that_are_not_what_they_should_be(name, file, content, tmp_path):
    put(write(name, tmp_path, 3) / file, content)
    with pytest.raises(PcclipError, match="fetch it again from https") as error:
        SETS.load(name, tmp_path)
    assert Path(file).name in str(error.value)
    assert "\n" not in str(error.value)


def test_winoground_has_the_subsets_of_both_papers(tmp_path):
    found = SETS.load("winoground", write("winoground", tmp_path, 9))
    subsets = compositional.subsets(found.items)
    assert {name: list(rows) for name, rows in subsets.items()} == {
        "": list(range(9)),
        "Object": [0, 3, 6],
        "Relation": [1, 4, 7],
        "Both": [2, 5, 8],
        "No Tag": [0, 3, 6],
        "Visually Difficult": [1, 2, 4, 5, 7, 8],
        "Unusual Text": [2, 5, 8],
    }
    (tmp_path / "new_tag_assignments.json").unlink()
    bare = SETS.load("winoground", tmp_path)
    assert list(compositional.subsets(bare.items)) == ["", "Both", "Object", "Relation"]


def test_only_the_box_is_shown(tmp_path):
    write("vg_relation", tmp_path, 2)
    photo = Image.new("RGB", (40, 300), "black")
    photo.paste("white", (1, 1, 21, 31))
    photo.save(tmp_path / "images" / "0.jpg", quality=95, subsampling=0)
    found = SETS.load("vg_relation", tmp_path)
    shown = open_image(found.only_images(0.05).pictures[1])
    assert shown.size == (20, 30)
    assert np.asarray(shown)[4:-4, 4:-4].min() > 200  # the second box is the white one, and all of it
    assert list(found.images.photo) == ["images/0.jpg"] * 2


def test_boxes_that_are_none(tmp_path):
    write("vg_relation", tmp_path, 2)
    file = tmp_path / "visual_genome_relation.json"
    rows = json.loads(file.read_text())
    put(
        file,
        [
            *rows,
            {**rows[0], "bbox_w": 0},
            {key: value for key, value in rows[0].items() if key != "bbox_x"},
            {**rows[0], "bbox_y": float("nan")},
            {**rows[0], "bbox_h": float("inf")},
        ],
    )
    found = SETS.load("vg_relation", tmp_path, max_bad=0.7)
    assert list(reasons(found).values()) == ["no box"] * 4


def test_groups_of_visual_genome_are_those_of_the_original_notebook(tmp_path):
    relations = SETS.load("vg_relation", write("vg_relation", tmp_path / "r", 9)).items
    assert list(relations.group) == ["on", "wearing", ""] * 3  # 'near' is symmetric
    pairs = SETS.load("vg_attribution", write("vg_attribution", tmp_path / "a", 57)).items
    assert pairs.group.value_counts().to_dict() == {"open_wooden": 26, "white_green": 26, "": 5}  # 25 cases at least
    few = SETS.load("vg_attribution", tmp_path / "a", limit=10).items
    assert set(few.group) <= {"open_wooden", "white_green", ""}  # counted in the whole set
    assert set(few.group) - {""}


def test_frames_of_videos_are_arrays(tmp_path):
    found = SETS.load("eqben", write("eqben", tmp_path, 3))
    pictures = found.only_images(0.05).pictures
    assert [open_image(picture).size for picture in pictures] == [(8, 8)] * 4 + [(5, 4)] * 2
    assert open_image(pictures[4]).getpixel((0, 0)) == (2, 100, 200)  # blue comes first in the file
    np.save(tmp_path / "image_subset" / "eqbenyoucook2" / "2_0.npy", np.zeros((4, 5)))
    with pytest.raises(BadImage, match=r"an array \(4, 5\) of float64"):
        pictures[4]
    np.save(tmp_path / "image_subset" / "eqbenyoucook2" / "2_0.npy", np.array([{}]), allow_pickle=True)
    with pytest.raises(BadImage, match="not an array"):
        pictures[4]


def test_annotations_of_eqben_as_its_five_sets_have_them(tmp_path):
    for name in ("a0.png", "a1.png"):
        picture(tmp_path / "eqbenag" / name)
    pair = {"image0": "eqbenag/a0.png", "image1": "eqbenag/a1.png"}
    put(tmp_path / "ag.json", {"video": {"person": [{**pair, "caption0": ["opens", "x"], "caption1": ["closes"]}]}})
    put(tmp_path / "gebc.json", {"video": [{**pair, "caption0": "sits", "caption1": "stands"}]})
    found = SETS.load("eqben", tmp_path)
    assert found.items[["text_0", "text_1"]].to_dict("split")["data"] == [["opens", "closes"], ["sits", "stands"]]
    put(tmp_path / "gebc.json", {"video": [{"image": "x"}]})
    with pytest.raises(PcclipError, match=r"gebc\.json: has no pairs with image0"):
        SETS.load("eqben", tmp_path)


def test_questions_that_are_no_pair(tmp_path):
    write("mmvp_vlm", tmp_path, 2)
    lines = (tmp_path / "Questions.csv").read_text().splitlines()
    picture(tmp_path / "MLLM_VLM Images" / "Texts" / "5.jpg")
    put(tmp_path / "Questions.csv", "\n".join([*lines, "7,Texts,x", "9,Texts,y", "5,Texts,a sign"]))
    found = SETS.load("mmvp_vlm", tmp_path, max_bad=0.5)
    assert reasons(found) == {"Questions.csv, line 6": "not a pair", "Questions.csv, line 8": "not a pair"}
    assert len(found.items) == 2


def test_so_many_items_of_each_part(tmp_path):
    whole = SETS.load("eqben", write("eqben", tmp_path, 30))
    some = SETS.load("eqben", tmp_path, limit=4)
    assert some.items.part.value_counts().to_dict() == {"eqbenag": 4, "eqbenkubric_loc": 4, "eqbenyoucook2": 4}
    assert len(some.images) == 24
    assert SETS.load("eqben", tmp_path, limit=4).items.equals(some.items)
    assert not SETS.load("eqben", tmp_path, limit=4, seed=1).items.equals(some.items)
    assert SETS.load("eqben", tmp_path, limit=99).items.equals(whole.items)


# ---- captions and their shuffles -------------------------------------------------------------------------------------

TAGGED = """A/- small/a horse/n stands/- behind/- three/- large/a horses/n ./-
A/- person/n in/- a/- green/a shirt/n stands/- by/- a/- child/n holding/- a/- piece/n of/- cake/n ./-
The/- young/a man/n is/- kissing/- the/- smaller/a woman/n on/- top/n of/- her/- head/n
White/a pastries/n sitting/- on/- a/- white/a plate/n
Girls/n wash/- a/- motorcycle/n while/- men/n look/- on/-
A/- cargo/n van/n parked/- in/- front/n of/- an/- orange/a building/n
person/n flying/- a/- kite/n while/- others/n run/- along/- the/- beach/n
Several/a people/n walk/- on/- a/- beautiful/a walk/n near/- 12/- bowls/n
a/- man/n does/- n't/- ride/- the/- ride/n ,/- he/- watches/- it/-"""


def test_nouns_and_adjectives_of_captions():
    for line in TAGGED.splitlines():
        words, kinds = zip(*(pair.rsplit("/", 1) for pair in line.split()), strict=True)
        found = parts_of_speech(words)
        assert [kind[0] if kind != "other" else "-" for kind in found] == list(kinds), line


def test_what_each_shuffle_moves():
    caption = "A small horse, in a Green field near big dogs, doesn't see the red boat"
    true, nouns, others, within, threes = shuffled_options(caption, "val2014/1.jpg")
    assert true == "a small horse, in a green field near big dogs, doesn't see the red boat"
    words = "a small horse , in a green field near big dogs , does n't see the red boat".split()
    for text in (nouns, others, within, threes):
        assert sorted(text.split()) == sorted(words)
        assert text.split() != words
    kinds = parts_of_speech(words)
    moved = {
        name: {kinds[k] for k, (now, was) in enumerate(zip(text.split(), words, strict=True)) if now != was}
        for name, text in (("nouns", nouns), ("others", others))
    }
    assert moved["nouns"] <= {"noun", "adjective"}
    assert moved["others"] == {"other"}
    for kind in ("noun", "adjective"):  # each among themselves
        places = [k for k, one in enumerate(kinds) if one == kind]
        assert sorted(nouns.split()[k] for k in places) == sorted(words[k] for k in places)
    assert [sorted(within.split()[k : k + 3]) for k in range(0, 18, 3)] == [
        sorted(words[k : k + 3]) for k in range(0, 18, 3)
    ]
    chunks = [tuple(threes.split()[k : k + 3]) for k in range(0, 18, 3)]
    assert sorted(chunks) == sorted(tuple(words[k : k + 3]) for k in range(0, 18, 3))


def test_a_shuffle_with_nothing_to_move_is_left_out():
    assert shuffled_options("A dog", "x") == ["a dog", "", "", "dog a", ""]
    assert shuffled_options("dog dog", "x") == ["dog dog", "", "", "", ""]
    for k in range(40):  # two nouns: every other draw leaves them where they are
        assert shuffled_options("the dog sees the cat", f"{k}.jpg")[1] == "the cat sees the dog"


def test_shuffles_are_the_same_for_everyone():
    assert shuffled_options("two men play a game in the park", "a.jpg") == [
        "two men play a game in the park",
        *shuffled_options("two men play a game in the park", "a.jpg")[1:],
    ]
    drawn = {tuple(shuffled_options("two men play a game in the old park", f"{k}.jpg")) for k in range(20)}
    assert len(drawn) > 10  # by image
    assert shuffled_options("A big dog (red)  runs.", "a.jpg")[0] == "a big dog red runs"


def test_captions_have_30_words_at_most():
    assert tidied("A  man. " * 40).split() == ["a", "man"] * 15


@pytest.mark.parametrize("name", ["coco_order", "flickr30k_order"])
def test_every_caption_is_an_item(name, tmp_path):
    write(name, tmp_path, 6)
    found = SETS.load(name, tmp_path)
    assert len(found.items) == 6
    assert len(found.images) == 3
    assert found.items.text_0[0] == "a red cat with small paint chases the dog"
    assert (found.items[[f"text_{k}" for k in range(5)]] != "").all(axis=None)
    file = next(tmp_path.glob("*.json"))
    entries = json.loads(file.read_text())
    put(file, [*entries, {**entries[0], "caption": ["Dog.", "two dogs", 3]}, {**entries[0], "caption": "no list"}])
    found = SETS.load(name, tmp_path, max_bad=0.5)
    assert list(found.left_out.reason) == ["nothing to shuffle", "no text", "no text"]
    assert list(found.items.iloc[-1][["text_0", "text_3"]]) == ["two dogs", "dogs two"]


# ---- measures --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("s", "right"),
    [
        ([[3, 1], [1, 3]], "text image group group_match"),
        ([[3, 2], [4, 5]], "text group_match"),
        ([[3, 4], [2, 5]], "image group_match"),
        ([[1, 2], [3, 9]], "group_match"),
        ([[1, 3], [3, 1]], ""),
        ([[3, 3], [1, 3]], "group_match"),
        ([[3, 1], [3, 3]], "group_match"),
        ([[2, 2], [2, 2]], ""),
        ([[3, 4], [4, 5]], ""),
        ([[9, 2], [9.5, 2.5]], ""),
        ([[3, 1], [4, 2.5]], "group_match"),
    ],
)
def test_groups_by_hand(s, right):
    """s[image][text]; a tie is no win."""
    found = matching.of_groups(np.array([s], dtype=float))
    assert " ".join(name[1:] for name, margin in found.items() if margin[0] > 0) == right


def test_group_match_is_the_agreement_of_differences(rng):
    images, texts = (unit(rng.normal(size=(40, 8))) for _ in range(2))
    rows = np.arange(40).reshape(20, 2)
    match = matching.of_groups(matching.similarities(images, rows, texts, rows))["_group_match"]
    agreement = ((images[::2] - images[1::2]) * (texts[::2] - texts[1::2])).sum(axis=1)
    np.testing.assert_allclose(match, agreement, atol=1e-12)


def test_groups_as_clip_benchmark_has_them_but_for_ties(rng):
    s = rng.integers(0, 4, size=(400, 2, 2)).astype(float)
    ours = {name: margin > 0 for name, margin in matching.of_groups(s).items()}
    own = np.arange(2)
    theirs = {"_text": (s.argmax(axis=2) == own).all(axis=1), "_image": (s.argmax(axis=1) == own).all(axis=1)}
    theirs["_group"] = theirs["_text"] & theirs["_image"]
    tied = (s[:, 0] == s[:, 1]).any(axis=1) | (s[..., 0] == s[..., 1]).any(axis=1)
    for name, correct in theirs.items():
        assert (ours[name] == correct)[~tied].all()
        assert not (ours[name] & ~correct).any()
        assert (correct & ~ours[name]).any()  # argmax gives a tie to what comes first


def test_choices_and_triples_by_hand():
    s = np.array([[[3, 2, 1]], [[3, 3, 1]], [[3, 1, 9]], [[3, 1, 9]]], dtype=float)
    present = np.array([[True] * 3] * 3 + [[True, True, False]])
    assert list(matching.of_choices(s, present)[""] > 0) == [True, False, False, True]
    s = np.array([[[3, 2, 1]], [[3, 1, 1]], [[1, 3, 2]]], dtype=float)
    assert list(matching.of_triples(s)["_itt"] > 0) == [True, False, False]
    texts = unit(np.array([[1, 0, 0], [1, 1, 0], [0, 0, 1], [1, 0, 1]], dtype=float))
    told = np.array([[0, 1, 2], [0, 1, 3], [0, 2, 1], [0, 0, 0]])
    assert list(matching.of_texts(texts, told)["_tot"] > 0) == [True, False, False, False]


def test_one_text_is_no_choice():
    with pytest.raises(PcclipError, match="a choice between texts needs two or more"):
        matching.of_choices(np.ones((3, 1, 1)), np.ones((3, 1), dtype=bool))


def test_similarities_some_rows_at_a_time(rng, monkeypatch):
    images, texts = (unit(rng.normal(size=(9, 5))) for _ in range(2))
    shown, told = rng.integers(0, 9, (11, 1)), rng.integers(0, 9, (11, 3))
    monkeypatch.setattr("pcclip.stats.intervals.CELLS", 4 * 5)
    np.testing.assert_allclose(
        matching.similarities(images, shown, texts, told)[:, 0],
        np.take_along_axis((images @ texts.T)[shown[:, 0]], told, axis=1),
        atol=1e-12,
    )


def test_a_macro_average_gives_each_group_the_same_weight():
    items = pd.DataFrame(
        {
            "first": range(7),
            "second": range(7),
            "reference": [0, 0, 0, 0, 1, 1, np.nan],
            "correct": [True, True, True, False, False, False, True],
        }
    )
    found = macro_accuracy(items, 200, 0)
    assert (found.value, found.n) == (pytest.approx(0.375), 6)
    assert found.draws.shape == (200,)
    assert found.draws.max() <= 0.5 or np.isclose(found.draws.max(), 1)  # 1 where the second group was not drawn
    assert macro_accuracy(items.assign(reference=np.nan), 200, 0).n == 0


def test_the_interval_of_a_macro_average_covers_what_it_should(rng):
    """Groups of 400 and 40 items with known chances, an image each: 95% intervals hold the truth about as often."""
    truth, sizes, held = np.array([0.8, 0.3]), [400, 40], 0
    reference = np.repeat([0.0, 1.0], sizes)
    for trial in range(60):
        items = pd.DataFrame(
            {"first": np.arange(440), "reference": reference, "correct": rng.random(440) < np.repeat(truth, sizes)}
        )
        low, high = macro_accuracy(items, 300, trial).interval
        held += low <= truth.mean() <= high
    assert held >= 51  # of 60, of which 57 are expected: fewer has a chance of 1 in 500


# ---- from a set to predictions ---------------------------------------------------------------------------------------

CHANCE = {"_text": 1 / 4, "_image": 1 / 4, "_group": 1 / 6, "_group_match": 1 / 2, "_itt": 1 / 3, "_tot": 1 / 3}
TASKS = {"groups": ("_text", "_image", "_group", "_group_match"), "choices": ("",), "triples": ("_itt", "_tot")}


def vectors_of(found, matrix) -> Vectors:
    return Vectors(list(found.images.id), list(found.images.path), matrix.astype(np.float32))


def scored(found, vectors, encode) -> pd.DataFrame:
    predictions = Predictions()
    compositional.add_model(
        compositional.match_items(found, vectors),
        vectors.matrix,
        SimpleNamespace(encode_texts=encode),
        "it",
        predictions,
    )
    return predictions.table()


def knowing(found, vectors, rng):
    """An encoder that knows which text is of which image, and says anything of the others."""
    told, items = {}, found.items
    for column, image_of in (
        [(f"text_{k}", f"image_{k}") for k in (0, 1)]
        if found.form == "groups"
        else [(column, "image_0") for column in (["text_0", "text_1"] if found.form == "triples" else ["text_0"])]
    ):
        told |= dict(zip(items[column], vectors.matrix[vectors.rows(items[image_of])], strict=True))
    return lambda texts: unit(
        np.stack(
            [
                told[text] + 0.01 * rng.normal(size=vectors.matrix.shape[1])
                if text in told
                else rng.normal(size=vectors.matrix.shape[1])
                for text in texts
            ]
        ).astype(np.float32)
    )


@pytest.mark.parametrize("name", SETS.readers)
def test_an_oracle_is_always_right_and_a_random_model_at_chance(name, tmp_path):
    rng = np.random.default_rng(len(name))
    found = SETS.load(name, write(name, tmp_path, 120))
    vectors = vectors_of(found, unit(rng.normal(size=(len(found.images), 48))))
    sure = scored(found, vectors, knowing(found, vectors, rng))
    assert sure[sure.model == "it"].correct.all()
    random = scored(found, vectors, lambda texts: unit(rng.normal(size=(len(texts), 48)).astype(np.float32)))
    whole = random[(random.dataset == name) & (random.model == "it")]
    assert list(dict.fromkeys(whole.task)) == [name + end for end in TASKS[found.form]]
    options = (found.items[found.columns("text_")] != "").sum(axis=1)
    for task, items in whole.groupby("task"):
        chance = CHANCE.get(task.removeprefix(name), (1 / options).mean())
        low, high = binomtest(int(items.correct.sum()), len(items)).proportion_ci(0.999)
        assert low < chance < high, task
        assert (items.correct == (items.score > 0)).all()
    metrics = measured(random, 100, 0)
    assert metrics[["value", "ci_low", "ci_high"]].notna().all(axis=None)
    macro = set(metrics[metrics.metric == "macro_accuracy"].task)
    assert macro == (
        {*whole.task}
        if name in ("vg_relation", "vg_attribution", "sugarcrepe", "sugarcrepe_pp", "vl_checklist")
        else set()
    )


@pytest.mark.parametrize("name", GROUPS)
def test_who_is_blind_is_never_right_about_groups(name, tmp_path, rng):
    found = SETS.load(name, write(name, tmp_path, 20))
    vectors = vectors_of(found, unit(rng.normal(size=(len(found.images), 8))))
    blind = scored(found, vectors, knowing(found, vectors, rng))
    blind = blind[blind.model == "it, blind"]
    assert len(blind) >= 80
    assert not blind.correct.any()


def test_who_is_blind_goes_by_the_texts_alone(tmp_path, rng):
    found = SETS.load("sugarcrepe", write("sugarcrepe", tmp_path, 70))
    vectors = vectors_of(found, unit(rng.normal(size=(len(found.images), 8)) + 1))  # images have something in common
    asked = []

    def encode(texts):  # and so have the right texts: a prior solves the benchmark
        asked.append(list(texts))
        common = np.array([1.0 if text.startswith("the dog") else -1.0 for text in texts])[:, None]
        return unit(common * np.ones((len(texts), 8)) + rng.normal(size=(len(texts), 8))).astype(np.float32)

    items = scored(found, vectors, encode)
    assert items[items.model == "it, blind"].correct.mean() > 0.9
    [texts] = asked  # once each, for the model and for what it is when blind
    assert len(texts) == len(set(texts)) == 140
    shuffled = vectors_of(found, vectors.matrix[rng.permutation(len(vectors.matrix))])
    rng = np.random.default_rng(0)
    again = scored(found, shuffled, encode)
    rng = np.random.default_rng(0)
    same = scored(found, vectors, encode)
    one, other = (table[table.model == "it, blind"].score.to_numpy() for table in (again, same))
    np.testing.assert_allclose(one, other, atol=1e-5)  # whichever image it is


def test_a_text_that_is_the_right_one_word_for_word_is_no_win(tmp_path, rng):
    write("sugarcrepe_pp", tmp_path, 10)
    file = tmp_path / "data" / "swap_obj.json"
    rows = json.loads(file.read_text())
    put(file, [{**rows[0], "negative_caption": rows[0]["caption"]}, *rows[1:]])
    found = SETS.load("sugarcrepe_pp", tmp_path)
    vectors = vectors_of(found, unit(rng.normal(size=(len(found.images), 16))))
    items = scored(found, vectors, knowing(found, vectors, rng))
    right = items[(items.model == "it") & (items.dataset == "sugarcrepe_pp/swap_obj")].groupby("task").correct
    assert right.apply(list).to_dict() == {"sugarcrepe_pp_itt": [False, True], "sugarcrepe_pp_tot": [False, True]}


def test_items_are_drawn_whole_unless_their_images_come_again(tmp_path, rng):
    found = SETS.load("naturalbench", write("naturalbench", tmp_path, 40))
    vectors = vectors_of(found, unit(rng.normal(size=(80, 8))))
    items = scored(found, vectors, lambda texts: unit(rng.normal(size=(len(texts), 8)).astype(np.float32)))
    match = items[(items.task == "naturalbench_group_match") & (items.model == "it")]
    assert (match["first"] == match.second).all()
    assert match["first"].iloc[0] == "images/0a.jpg + images/0b.jpg"
    share = match.correct.mean()
    width = np.diff(accuracy(match, 2000, 0).interval)[0]
    assert width == pytest.approx(2 * 1.96 * (share * (1 - share) / 40) ** 0.5, rel=0.2)
    put(
        tmp_path / "metadata.json",
        [{**row, "image_1": "0b.jpg"} for row in json.loads((tmp_path / "metadata.json").read_text())],
    )
    found = SETS.load("naturalbench", tmp_path)
    asked = compositional.match_items(found, vectors_of(found, np.eye(len(found.images))))
    assert (asked.units["first"] != asked.units.second).all()
    assert asked.unit_names[asked.units.second[3]] == "images/0b.jpg"


def test_boxes_of_one_photograph_are_drawn_together(tmp_path):
    found = SETS.load("vg_relation", write("vg_relation", tmp_path, 6))
    units = compositional.match_items(found, vectors_of(found, np.eye(6))).units
    assert list(units["first"]) == list(units.second) == [0, 0, 1, 1, 2, 2]


def test_items_without_a_vector_are_left_out(tmp_path):
    found = SETS.load("naturalbench", write("naturalbench", tmp_path, 4))
    whole = vectors_of(found, np.eye(8))
    rest = Vectors(whole.ids[1:], whole.paths[1:], whole.matrix[1:])
    asked = compositional.match_items(found, rest)
    assert list(asked.benchmark.items.text_0) == [f"a dog in a park {k}" for k in (1, 2, 3)]
    assert asked.image_rows.tolist() == [[1, 2], [3, 4], [5, 6]]
    with pytest.raises(PcclipError, match="naturalbench: no item has all its images"):
        compositional.match_items(found, Vectors(whole.ids[:1], whole.paths[:1], whole.matrix[:1]))


# ---- stage 04 --------------------------------------------------------------------------------------------------------


@pytest.fixture
def config(values, tmp_path):
    named = {
        name: {"path": str(write(name, tmp_path / name, 7)), "limit": 5}
        for name in ("winoground", "vg_relation", "eqben", "sugarcrepe")
    }
    values["evaluate"]["compositional"] = named
    return params.check(values)


def test_the_stage_has_rows_of_every_set(values, tmp_path, tiny_encoder, fresh_encoder):
    values["evaluate"] |= {
        "attributes": {},
        "compositional": {
            "winoground": {"path": str(write("winoground", tmp_path / "w", 6))},
            "sugarcrepe": {"path": str(write("sugarcrepe", tmp_path / "s", 7))},
        },
    }
    values["finetune"] |= {"epochs": 1, "keep_epochs": []}
    config = params.check(values)
    images = load_images(config)
    sentences = generate.generate(config, images, tiny_encoder)
    vectors, _ = embed(config, images, tiny_encoder)
    finetune(config, images, vectors, sentences, fresh_encoder)
    report.evaluate(config, images, vectors, sentences, report.load_models(config))
    metrics = pd.read_csv(config.folder / report.METRICS)
    rows = metrics[metrics.dataset.isin(["winoground", "sugarcrepe"])]
    assert set(rows[["task", "metric"]].itertuples(index=False, name=None)) == {
        *((f"winoground{end}", "accuracy") for end in TASKS["groups"]),
        ("sugarcrepe", "accuracy"),
        ("sugarcrepe", "macro_accuracy"),
    }
    assert (
        rows.groupby(["task", "metric"])
        .model.agg(set)
        .map(lambda models: models == {"base", "base, blind", "finetuned", "finetuned, blind"})
        .all()
    )
    assert report.stage(config, images).done()
    picture(tmp_path / "w" / "data" / "images" / "ex_0_img_0.png", size=(9, 9))
    assert not report.stage(config, images).done()


def test_every_model_has_its_rows(config, tiny_encoder, encoded):
    found = load_benchmarks(config, FAMILY)
    predictions = Predictions()
    compositional.score(config, found, {"base": tiny_encoder, "finetuned": tiny_encoder}, predictions)
    table = predictions.table()
    assert set(table.model) == {"base", "base, blind", "finetuned", "finetuned, blind"}
    assert {
        "winoground",
        "winoground/Relation",
        "winoground/Visually Difficult",
        "vg_relation",
        "eqben/eqbenyoucook2",
        "sugarcrepe/swap_obj",
    } <= set(table.dataset)
    images = encoded.total
    assert images == sum(len(one.images) for one in found.values())
    compositional.score(config, found, {"base": tiny_encoder}, Predictions())
    assert encoded.total == images  # the vectors are kept
    metrics, paired = report.summarise(table, 100, 0)
    assert {("vg_relation", "macro_accuracy"), ("winoground_group_match", "accuracy")} <= set(
        metrics[["task", "metric"]].itertuples(index=False, name=None)
    )
    assert (paired.difference == 0).all()
    assert {"winoground_text", "sugarcrepe", "vg_relation"} <= set(paired.task)


def test_scores_follow_from_the_towers(config, tiny_encoder):
    """One item of Visual Genome by hand: its box cropped and encoded on its own."""
    found = {"vg_relation": load_benchmarks(config, FAMILY)["vg_relation"]}
    predictions = Predictions()
    compositional.score(config, found, {"base": tiny_encoder}, predictions)
    table, item = predictions.table(), found["vg_relation"].items.iloc[4]
    number = int(item.image_0.split(",")[1])  # the top of the box
    with Image.open(Path(config.evaluate.compositional["vg_relation"].path) / "images" / f"{number // 2}.jpg") as photo:
        [u] = tiny_encoder.encode_images([photo.convert("RGB").crop((1, number, 21, number + 30))])
    right, wrong = tiny_encoder.encode_texts([item.text_0, item.text_1])
    [score] = table[(table.item == 4) & (table.dataset == "vg_relation") & (table.model == "base")].score
    assert score == pytest.approx(float(u @ (right - wrong)), abs=1e-5)


def test_what_is_lacking_is_said_before_anything_runs(values, tmp_path):
    values["evaluate"]["compositional"] = {
        "winoground": {"path": str(tmp_path / "w")},
        "naturalbench": {"path": str(write("naturalbench", tmp_path / "n", 3))},
    }
    lines = report.lacking(params.check(values))
    assert [line for line in lines if "winoground" in line] == lines
    assert lines[0].startswith(f"evaluate.compositional.winoground: {tmp_path / 'w'}: no data/examples.jsonl; accept")
    put(tmp_path / "n" / "metadata.json", [{"index": 0}])
    assert "evaluate.compositional.naturalbench: no usable row" in report.lacking(params.check(values))[-1]


def test_an_unreadable_image_is_counted(values, tmp_path, tiny_encoder, capsys):
    write("naturalbench", tmp_path / "n", 8)
    put(tmp_path / "n" / "images" / "0a.jpg", "no picture")
    for max_bad, says in ((0.1, "naturalbench: 1 images cannot be read"), (0.01, "")):
        values["evaluate"]["compositional"] = {"naturalbench": {"path": str(tmp_path / "n"), "max_bad": max_bad}}
        config = params.check(values)
        found, predictions = load_benchmarks(config, FAMILY), Predictions()
        if says:
            compositional.score(config, found, {"base": tiny_encoder}, predictions)
            assert says in capsys.readouterr().out
            assert len(predictions.table()) == 7 * 4 * 2
        else:
            with pytest.raises(PcclipError, match="1 of 16 images cannot be read"):
                compositional.score(config, found, {"base": tiny_encoder}, predictions)


def test_names_are_those_of_the_sets():
    with pytest.raises(PcclipError, match="evaluate.compositional.valse"):
        params.check({"evaluate": {"compositional": {"valse": {"path": "x"}}}})
    with pytest.raises(PcclipError, match=r"compositional.winoground.path: missing"):
        params.check({"evaluate": {"compositional": {"winoground": {}}}})
    assert set(FORMS) == set(TASKS)


def test_empty_lists_of_vl_checklist_are_no_fault(tmp_path, capsys):
    write("vl_checklist", tmp_path, 5)
    put(tmp_path / "data/Object/Size/swig_size/swig_place/swig_place_large.json", "[]")
    first = next((tmp_path / "vg").rglob("*.jpg"))
    first.unlink()
    benchmark = SETS.load("vl_checklist", tmp_path, max_bad=0.9)
    missing = f"left out {len(benchmark.left_out)} missing file, e.g. {first}; {len(benchmark.items)} rows are scored"
    assert missing in capsys.readouterr().out
