"""CUB, AwA2 and ImageNet with its variants, each in its true layout with a few tiny images."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from helpers.animals import ANIMALS, HAS, PREDICATES, make_zoo, one_line, row
from helpers.files import picture, put
from helpers.public_sets import PublicSets, reasons
from helpers.runs import BIRDS

from pcclip.benchmarks.classification import awa2, imagenet
from pcclip.errors import PcclipError
from pcclip.images import open_image
from pcclip.torchvision_shim import declare_missing


def numbered(values, first: int = 1) -> str:
    return "".join(f"{k} {value}\n" for k, value in enumerate(values, first))


SETS = PublicSets("classification")


# ---- CUB -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("up", [False, True])
def test_cub(birds, up):
    root = birds.parent if up else birds
    assert SETS.missing("cub", root) == []
    images = SETS.read("cub", root)
    assert images.classes == ["black footed albatross", "laysan albatross", "red winged blackbird"]
    assert images.released == ["Black_footed_Albatross", "Laysan_Albatross", "Red_winged_Blackbird"]
    assert list(images.images["id"]) == [f"{folder}/{bird}" for folder, bird, _ in BIRDS]
    assert list(images.images.label) == [0, 0, 1, 2, 2]
    assert list(images.images.split) == ["test", "tune", "tune", "tune", "test"]
    assert [open_image(path).size for path in images.pictures] == [(8, 8)] * 5
    assert len(SETS.load("cub", root).images) == 5


def test_cub_classes_are_in_the_order_of_their_numbers(birds):
    put(birds / "classes.txt", "2 002.Laysan_Albatross\n1 001.Black_footed_Albatross\n3 010.Red_winged_Blackbird\n")
    images = SETS.read("cub", birds)
    assert [images.classes[label] for label in images.images.label[:3]] == [
        "black footed albatross",
        "black footed albatross",
        "laysan albatross",
    ]


def test_cub_rows_that_cannot_be_used(birds):
    (birds / "images" / BIRDS[0][0] / f"{BIRDS[0][1]}.jpg").unlink()
    put(birds / "image_class_labels.txt", numbered([1, 1, 9, 3, 3]))
    put(birds / "train_test_split.txt", numbered([0, 1, 1, 1]))
    images = SETS.read("cub", birds)
    assert reasons(images) == {
        f"{BIRDS[0][1]}.jpg": "missing file",
        f"{BIRDS[2][1]}.jpg": "no class",
        f"{BIRDS[4][1]}.jpg": "no split",
    }
    assert list(images.images.label) == [0, 2]
    assert images.images.label.dtype == int
    assert len(images.pictures) == 2


def test_cub_that_is_not_there(tmp_path, birds):
    line = one_line(SETS.missing("cub", tmp_path / "nowhere"))
    assert "no images.txt, image_class_labels.txt, train_test_split.txt, classes.txt, images/; download http" in line
    assert line.endswith(f"unpack it in {tmp_path / 'nowhere'}")
    (birds / "classes.txt").unlink()
    assert f"{birds}: no classes.txt; " in one_line(SETS.missing("cub", birds.parent))


@pytest.fixture
def zoo(tmp_path):
    return make_zoo(tmp_path)


@pytest.mark.parametrize("up", [False, True])
def test_awa2(zoo, up):
    root = zoo.parent if up else zoo
    assert SETS.missing("awa2", root) == []
    images = SETS.read("awa2", root)
    assert images.classes == ["antelope", "grizzly bear", "killer whale", "beaver", "dalmatian", "blue whale"]
    assert images.released == ANIMALS
    assert list(images.images["id"][:2]) == ["antelope/antelope_10001", "antelope/antelope_10002"]
    assert list(images.images.label) == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5]
    assert list(images.images.split) == ["tune"] * 8 + ["test"] * 4
    assert open_image(images.pictures[11]).size == (8, 8)
    assert list(images.class_attributes.columns) == PREDICATES
    assert np.isnan(images.class_attributes.black[0])
    assert images.class_attributes.big[1] == pytest.approx(60.64)
    assert awa2.binary_attributes(root).loc[1].to_dict() == dict(
        zip(PREDICATES, row(*HAS["grizzly+bear"].split()), strict=True)
    )
    assert len(SETS.load("awa2", root).images) == 12


def test_awa2_animals_that_cannot_be_used(zoo):
    for path in (zoo / "JPEGImages" / "beaver").iterdir():
        path.unlink()
    put(zoo / "testclasses.txt", "dalmatian\nantelope\n")
    images = SETS.read("awa2", zoo)
    assert reasons(images) == {"antelope": "not in one split", "beaver": "no images", "blue+whale": "not in one split"}
    assert set(images.images.label) == {1, 2, 4}
    assert len(images.class_attributes) == 6


def test_awa2_that_is_not_there(tmp_path, zoo):
    line = one_line(SETS.missing("awa2", tmp_path / "nowhere"))
    assert (
        "no classes.txt, trainclasses.txt, testclasses.txt and 4 more; download https://cvml.ista.ac.at/AwA2/AwA2-data.zip"
        in line
    )
    (zoo / "testclasses.txt").unlink()
    assert f"{zoo}: no testclasses.txt; " in one_line(SETS.missing("awa2", zoo))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("predicate-matrix-continuous.txt", "1 2 3\n", "has 1 rows of 3 numbers, not 6 classes of 85 predicates"),
        ("predicate-matrix-continuous.txt", "1 2\n3\n", "not a table of numbers"),
        ("predicate-matrix-continuous.txt", "one two\n", "not a table of numbers"),
        ("predicate-matrix-continuous.txt", "\n", "empty"),
        ("classes.txt", "antelope\n", "not lines of a number and a name"),
        ("predicates.txt", "1 black and white\n", "not lines of a number and a name"),
    ],
)
def test_a_broken_awa2_file_is_named(zoo, name, content, message):
    put(zoo / name, content)
    with pytest.raises(PcclipError, match=f"{name}: {message}") as error:
        SETS.read("awa2", zoo)
    assert "\n" not in str(error.value)


def test_the_released_code_reads_attributes_of_other_animals(zoo):
    images = SETS.read("awa2", zoo)
    assert list(awa2.predicate_rows(images, "corrected")) == [0, 1, 2, 3, 4, 5]
    # test: blue+whale 0, dalmatian 1; train: antelope 0, beaver 1, grizzly+bear 2, killer+whale 3
    assert list(awa2.predicate_rows(images, "as_released")) == [0, 2, 3, 1, 1, 0]
    assert list(awa2.predicate_rows(images.rows(range(8, 12)), "as_released")) == [-1, -1, -1, -1, 1, 0]


def test_texts_of_two_animals(zoo):
    images, binary = SETS.read("awa2", zoo), awa2.binary_attributes(zoo)
    dalmatian, whale = 4, 5
    corrected = awa2.difference_texts(images, binary, "corrected")
    assert corrected(dalmatian, whale) == (  # the stronger difference first; smelly cannot be seen
        "The first image has attributes of tail, small, furry, spots, while the second image has attributes of swims, "
        "big, blue."
    )
    assert corrected(whale, dalmatian) == (
        "The first image has attributes of swims, big, blue, while the second image has attributes of tail, small, "
        "furry, spots."
    )
    released = awa2.difference_texts(images, binary, "as_released")
    assert released(dalmatian, whale) == (  # of the grizzly bear and the antelope; no meat, by the slip
        "The first image has attributes of big, claws, while the second image has attributes of horns, fast"
    )


def test_the_released_filter_leaves_out_neighbours():
    binary = pd.DataFrame([np.ones(85, dtype=int), np.zeros(85, dtype=int)], columns=PREDICATES)
    text = awa2.attribute_differences((0, 1), binary, None, "as_released")
    named = (
        text.removeprefix("The first image has attributes of ")
        .removesuffix(", while the second image has attributes of ")
        .split(", ")
    )
    assert [k for k, name in enumerate(PREDICATES) if name not in named] == [
        34,
        38,
        40,
        41,
        51,
        52,
        53,
        54,
        56,
        57,
        58,
        59,
        60,
        61,
        62,
        83,
    ]
    assert {"smelly", "tunnels", "fast", "solitary"} <= set(named)
    assert not {"flys", "walks", "slow", "nestspot"} & set(named)


def test_a_corrected_text_names_few_attributes_that_can_be_seen():
    binary = pd.DataFrame([np.ones(85, dtype=int), np.zeros(85, dtype=int)], columns=PREDICATES)
    strength = pd.DataFrame([np.arange(85.0), np.zeros(85)], columns=PREDICATES)
    text = awa2.attribute_differences((0, 1), binary, strength, "corrected")
    assert text == (
        "The first image has attributes of domestic, nestspot, group, smart, timid, while the second image "
        "has attributes of none of these."
    )
    strength.loc[0, ["group", "timid"]] = np.nan  # nobody judged: not known to differ much
    assert "of domestic, nestspot, smart, fierce, cave, while" in awa2.attribute_differences(
        (0, 1), binary, strength, "corrected"
    )


def test_a_corrected_text_can_be_read_to_its_end():
    declare_missing()
    import open_clip

    tokenizer = open_clip.get_tokenizer("ViT-L-14")
    longest = sorted(PREDICATES, key=lambda name: -len(tokenizer.encode(name)))[: 2 * awa2.MOST]
    binary = pd.DataFrame([row(*longest[::2]), row(*longest[1::2])], columns=PREDICATES)
    text = awa2.attribute_differences((0, 1), binary, binary, "corrected")
    assert all(name in text for name in longest)
    assert len(tokenizer.encode(text)) + 2 <= 48


# ---- ImageNet --------------------------------------------------------------------------------------------------------

TENCH, GOLDFISH, TABBY, TISSUE = "n01440764", "n01443537", "n02123045", "n15075141"


def test_the_thousand_classes():
    wnids, names = imagenet.wnids(), imagenet.class_names()
    assert len(set(wnids)) == len(wnids) == len(names) == 1000
    assert list(wnids) == sorted(wnids)
    assert {wnid: names[wnids.index(wnid)] for wnid in (TENCH, GOLDFISH, TABBY, TISSUE, "n03180011", "n11939491")} == {
        TENCH: "tench",
        GOLDFISH: "goldfish",
        TABBY: "tabby cat",
        TISSUE: "toilet paper",
        "n03180011": "desktop computer",
        "n11939491": "daisy",
    }


def shown(images) -> dict[str, str]:
    """File name -> class."""
    names = [images.classes[label] for label in images.images.label]
    return dict(zip((Path(path).name for path in images.pictures), names, strict=True))


@pytest.mark.parametrize(
    ("name", "folder", "tench", "tissue", "suffix"),
    [
        ("imagenet", "val", TENCH, TISSUE, "JPEG"),
        ("imagenet", "ILSVRC/Data/CLS-LOC/val", TENCH, TISSUE, "JPEG"),
        ("imagenet_v2", "imagenetv2-matched-frequency-format-val", "0", "999", "jpeg"),
        ("imagenet_r", "imagenet-r", TENCH, TISSUE, "jpg"),
        ("imagenet_a", "imagenet-a", TENCH, TISSUE, "jpg"),
        ("imagenet_sketch", "sketch", TENCH, TISSUE, "JPEG"),
    ],
)
def test_imagenet_and_its_variants(tmp_path, capsys, name, folder, tench, tissue, suffix):
    place = tmp_path / folder
    for wnid, file in ((tissue, "b"), (tench, "z"), (tench, "a")):
        picture(place / wnid / f"{file}.{suffix}")
    put(place / tench / "notes.txt", "")
    put(place / "README.txt", "")
    assert SETS.missing(name, tmp_path) == SETS.missing(name, place) == []
    images = SETS.read(name, tmp_path)
    assert shown(images) == {f"a.{suffix}": "tench", f"z.{suffix}": "tench", f"b.{suffix}": "toilet paper"}
    assert list(images.images.label) == ([0, 0, 1] if name[-1] in "ra" else [0, 0, 999])
    assert len(images.classes) == (2 if name[-1] in "ra" else 1000)
    assert set(images.images.split) == {"test"}
    assert images.images["id"][0] == f"{Path(folder).name}/{tench}/a.{suffix}"
    assert len(images.left_out) == 0
    assert shown(SETS.read(name, place)) == shown(images)
    assert f"{name}: 3 images here; the whole set has" in capsys.readouterr().out
    loaded = SETS.load(name, tmp_path)
    assert (loaded.images["id"] == images.images["id"]).all()


def test_some_training_images_are_to_tune_on(tmp_path, monkeypatch):
    monkeypatch.setattr(imagenet, "TUNE_EACH", 2)
    picture(tmp_path / "imagenet-r" / TABBY / "art_0.jpg")
    for wnid in (TENCH, TABBY):
        for k in (9, 1, 5):
            picture(tmp_path / "train" / wnid / f"{wnid}_{k}.JPEG")
    images = SETS.read("imagenet_r", tmp_path)
    assert images.classes == ["tabby cat"]  # tench is no class of this set: its training images are of no use
    assert list(images.images.split) == ["test", "tune", "tune"]
    assert shown(images) == dict.fromkeys(["art_0.jpg", f"{TABBY}_1.JPEG", f"{TABBY}_5.JPEG"], "tabby cat")


def test_a_folder_of_no_class_is_left_out(tmp_path):
    picture(tmp_path / "imagenet-a" / TENCH / "a.jpg")
    picture(tmp_path / "imagenet-a" / "n00000001" / "a.jpg")
    images = SETS.read("imagenet_a", tmp_path)
    assert reasons(images) == {"n00000001": "no class"}
    assert images.classes == ["tench"]


def test_variants_that_are_not_there(tmp_path):
    for name, folder in (("imagenet", "val"), ("imagenet_sketch", "sketch"), ("imagenet_a", "imagenet-a")):
        assert f"no {folder}/ with a folder n[0-9]*/ for each class; download" in one_line(SETS.missing(name, tmp_path))
    (tmp_path / "val").mkdir()
    assert one_line(SETS.missing("imagenet", tmp_path))


def test_one_variant_is_not_taken_for_another(tmp_path):
    picture(tmp_path / "imagenet" / "val" / TENCH / "a.JPEG")
    assert one_line(SETS.missing("imagenet_r", tmp_path / "imagenet" / "val"))


def test_folders_without_images(tmp_path):
    (tmp_path / "sketch" / TENCH).mkdir(parents=True)
    with pytest.raises(PcclipError, match="sketch: no images of any class in it; unpack"):
        SETS.read("imagenet_sketch", tmp_path)
