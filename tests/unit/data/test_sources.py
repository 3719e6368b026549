"""Captioned sets as they are published: layouts, official splits, several captions, shards, hub data sets."""

import io
import json
import os
import shutil
import socket
import tarfile
import time
from pathlib import Path

import pytest
from helpers.coco import coco_side
from helpers.files import jpeg, put
from helpers.runs import BIRDS

from pcclip import config as params
from pcclip.data import image_set as image_sets
from pcclip.data.image_set import COLUMNS, load_images, missing
from pcclip.data.sources import coco, huggingface as hub
from pcclip.errors import PcclipError
from pcclip.images import open_image

NOUNS = "cat dog cow pig hen fox".split()


def block(source: str, path, **values) -> dict:
    return {"source": source, "path": str(path), **values}


@pytest.fixture(autouse=True)
def own_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("PCCLIP_CACHE", str(tmp_path / "cache"))


def load(source: str, path, seed: int = 0, **values) -> image_sets.ImageSet:
    return load_images(params.check({"seed": seed, "data": block(source, path, **values)}))


def lines_of(source: str, path, **values) -> list[str]:
    return missing(params.check({"data": block(source, path, **values)}).data)


def reasons(images: image_sets.ImageSet) -> dict[str, str]:
    return {Path(path).name: reason for path, reason in zip(images.left_out.path, images.left_out.reason, strict=True)}


def captions_of(images: image_sets.ImageSet, image: str) -> list[str]:
    return list(images.captions[images.captions.id == image].caption)


@pytest.fixture
def coco_root(tmp_path):
    coco_side(
        tmp_path,
        "train2017",
        {
            9: ["A cat.", "A small grey cat on a mat. "],
            25: ["A dog.", "", "One dog."],
            30: ["A cow."],
            34: ["A pig.", "The pig."],
        },
    )
    coco_side(tmp_path, "val2017", {139: ["A hen."], 285: ["A fox."]})
    return tmp_path


def test_coco_reads_both_sides(coco_root, capsys):
    images = load("coco", coco_root, split="official")
    assert list(images.table.columns) == COLUMNS
    assert dict(zip(images.table.id, images.table.split, strict=True)) == {
        "train2017/000000000009": "train",
        "train2017/000000000025": "train",
        "train2017/000000000030": "train",
        "train2017/000000000034": "train",
        "val2017/000000000139": "held_out",
        "val2017/000000000285": "held_out",
    }
    assert list(images.table.concept) == NOUNS[:4] + ["hen", "fox"]
    assert captions_of(images, "train2017/000000000025") == ["A dog.", "One dog."]
    assert Path(images.table.path[0]) == (coco_root / "train2017" / "000000000009.jpg").resolve()
    assert open_image(images.table.path[0]).size == (8, 8)
    said = capsys.readouterr().out
    assert "train2017 has 4 images and 8 captions here; the whole set has 118287 and 591753" in said


def test_the_whole_set_is_not_remarked_on(coco_root, capsys, monkeypatch):
    monkeypatch.setitem(coco._PUBLISHED, "train2017", (4, 8, "18 GB"))
    monkeypatch.setitem(coco._PUBLISHED, "val2017", (2, 2, "1 GB"))
    load("coco", coco_root)
    assert "the whole set" not in capsys.readouterr().out


@pytest.mark.parametrize("part", ["2014", 2014])
def test_coco_2014_has_its_own_names(tmp_path, part):
    coco_side(tmp_path, "train2014", {9: ["A cat."], 25: ["A dog."]})
    images = load("coco", tmp_path, part=part)
    assert set(images.table.id) == {"train2014/COCO_train2014_000000000009", "train2014/COCO_train2014_000000000025"}
    assert set(images.table.split) == {"train", "held_out"}


def test_coco_has_two_years():
    with pytest.raises(PcclipError, match="2014 or 2017, not 2015"):
        params.check({"data": block("coco", "x", part="2015")})


def test_coco_that_is_not_there_says_what_to_download(tmp_path):
    lines = lines_of("coco", tmp_path / "coco")
    assert len(lines) == 2
    assert "annotations_trainval2017.zip (241 MB) and unpack it in " in lines[0]
    assert "http://images.cocodataset.org/zips/train2017.zip (18 GB)" in lines[1]
    assert all(str(tmp_path / "coco") in line and "\n" not in line for line in lines)
    with pytest.raises(PcclipError) as error:
        load("coco", tmp_path / "coco")
    assert str(error.value) == f"data source coco: {lines[0]}; {lines[1]}"


def test_val_is_missing_only_for_the_official_split(coco_root):
    shutil.rmtree(coco_root / "val2017")
    assert len(load("coco", coco_root).table) == 4
    assert lines_of("coco", coco_root) == []
    (line,) = lines_of("coco", coco_root, split="official")
    assert line.endswith(f"zips/val2017.zip (1 GB) and unpack it in {coco_root}")


def test_coco_images_may_lie_elsewhere(coco_root, tmp_path):
    (tmp_path / "photos").mkdir()
    for name in ("train2017", "val2017"):
        shutil.move(coco_root / name, tmp_path / "photos" / name)
    assert len(load("coco", coco_root, images=str(tmp_path / "photos")).table) == 6
    assert "train2017.zip" in lines_of("coco", coco_root)[0]


def test_coco_bad_rows(coco_root):
    (coco_root / "train2017" / "000000000009.jpg").unlink()
    path = coco_root / "annotations" / "captions_train2017.json"
    values = json.loads(path.read_text())
    values["annotations"] = [note for note in values["annotations"] if note["image_id"] != 25]
    path.write_text(json.dumps(values))
    images = load("coco", coco_root, max_bad=0.4)
    assert reasons(images) == {"000000000009.jpg": "missing file", "000000000025.jpg": "no caption"}
    assert len(images.table) == 4
    with pytest.raises(PcclipError, match=r"2 of 6 rows are bad \(1 missing file, 1 no caption\)"):
        load("coco", coco_root, max_bad=0.3)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"images": [', "cannot be read as JSON"),
        ("[]", "has no list 'images'"),
        ('{"images": []}', "has no list 'annotations'"),
        (
            '{"images": [{"id": 9, "file_name": "a.jpg"}], "annotations": [{"image_id": 9, "category_id": 1}]}',
            "not a COCO captions file",
        ),
    ],
)
def test_a_broken_coco_file_is_named(coco_root, content, message):
    put(coco_root / "annotations" / "captions_train2017.json", content)
    with pytest.raises(PcclipError, match=f"captions_train2017.json: {message}") as error:
        load("coco", coco_root)
    assert "\n" not in str(error.value)


# ---- several captions ------------------------------------------------------------------------------------------------


def test_the_first_caption_or_the_longest(coco_root):
    first, longest = (
        load("coco", coco_root, captions=how).table.set_index("id").caption for how in ("first", "longest")
    )
    assert first["train2017/000000000009"] == "A cat."
    assert longest["train2017/000000000009"] == "A small grey cat on a mat."
    assert longest["train2017/000000000034"] == "A pig."  # as long as the other: the first


def test_longest_counts_words(tmp_path):
    coco_side(tmp_path, "train2017", {1: ["Extraordinarily incomprehensible.", "A cat is in."], 2: ["A dog."]})
    assert load("coco", tmp_path, captions="longest").table.caption[0] == "A cat is in."


def test_a_random_caption_follows_from_seed_and_id(tmp_path):
    captions = {image: [f"A {noun} {image}." for noun in NOUNS] for image in range(1, 21)}
    coco_side(tmp_path, "train2017", captions)
    whole = load("coco", tmp_path, captions="random").table.set_index("id").caption
    assert len({text.split()[1] for text in whole}) > 3
    assert (load("coco", tmp_path, captions="random").table.set_index("id").caption == whole).all()
    assert (load("coco", tmp_path, captions="random", seed=1).table.set_index("id").caption != whole).any()
    coco_side(tmp_path, "train2017", {image: captions[image] for image in (20, 3, 11)})
    fewer = load("coco", tmp_path, captions="random").table.set_index("id").caption
    assert (fewer == whole[fewer.index]).all()


def test_captions_are_those_of_the_images_kept(coco_root):
    images = load("coco", coco_root, split="official", limit=1, held_out_limit=1)
    assert len(images.table) == 2
    assert set(images.captions.id) == set(images.table.id)


def test_identity_covers_every_caption(coco_root):
    before = load("coco", coco_root)
    path = coco_root / "annotations" / "captions_train2017.json"
    path.write_text(path.read_text().replace("The pig.", "That pig."))
    after = load("coco", coco_root)
    assert after.table.equals(before.table)
    assert after.identity() != before.identity()


def test_a_set_of_one_caption_each_has_those(photos):
    images = load("folder", photos)
    assert images.captions.equals(images.table[["id", "caption"]])


# ---- cub -------------------------------------------------------------------------------------------------------------


@pytest.fixture
def birds(birds, tmp_path):
    """CUB_200_2011 with five birds, and cvpr2016_cub/text_c10 beside it."""
    for folder, bird, _ in BIRDS:
        put(
            tmp_path / "cvpr2016_cub" / "text_c10" / folder / f"{bird}.txt",
            "".join(f"caption {k} of a bird .\n" for k in range(10)),
        )
    return birds


def test_cub_has_classes_ten_captions_and_its_split(birds):
    images = load("cub", birds, split="official")
    table = images.table.set_index("id")
    assert list(table.index) == sorted(f"{folder}/{bird}" for folder, bird, _ in BIRDS)
    bird = "001.Black_footed_Albatross/Black_Footed_Albatross_0046_18"
    assert (table.label[bird], table.concept[bird], table.split[bird]) == (
        "black footed albatross",
        "black footed albatross",
        "held_out",
    )
    assert captions_of(images, bird) == [f"caption {k} of a bird ." for k in range(10)]
    assert {f"{folder}/{name}": "train" if is_training else "held_out" for folder, name, is_training in BIRDS} == dict(
        table.split
    )
    assert images.classes == ["black footed albatross", "laysan albatross", "red winged blackbird"]


def test_all_albatrosses_stay_on_one_side(birds):
    for seed in range(5):
        table = load("cub", birds, seed=seed).table
        assert table.split[table.concept.str.endswith("albatross")].nunique() == 1


@pytest.mark.parametrize("place", ["text_c10", "../text_c10", "cvpr2016_cub/text_c10"])
def test_cub_captions_may_lie_in_the_root_or_beside_it(birds, place):
    (birds / place).parent.mkdir(exist_ok=True)
    (birds.parent / "cvpr2016_cub" / "text_c10").rename(birds / place)
    assert len(load("cub", birds).table) == 5


def test_cub_bad_rows(birds):
    (birds / "images" / BIRDS[0][0] / f"{BIRDS[0][1]}.jpg").unlink()
    texts = birds.parent / "cvpr2016_cub" / "text_c10"
    put(texts / BIRDS[1][0] / f"{BIRDS[1][1]}.txt", "\n  \n")
    (texts / BIRDS[2][0] / f"{BIRDS[2][1]}.txt").unlink()
    put(birds / "train_test_split.txt", "1 0\n2 1\n3 1\n4 1\n")
    put(birds.parent / "cvpr2016_cub" / "text_c10" / BIRDS[3][0] / f"{BIRDS[3][1]}.txt", b"a red bird\xff\n")
    table, left_out, bad = image_sets.cub.read(params.check({"data": block("cub", birds)}).data)
    assert list(left_out.reason) == ["missing file", "no split"]
    assert bad == 2
    with pytest.raises(PcclipError, match=r"4 of 5 rows are bad \(2 no caption, 1 missing file, 1 no split\)"):
        load("cub", birds)
    assert table.captions[2] == ["a red birdÿ"]


def test_cub_that_is_not_there(tmp_path, birds):
    first, second = lines_of("cub", tmp_path / "nowhere" / "birds")
    assert "no images.txt, image_class_labels.txt, train_test_split.txt, classes.txt, images/; download http" in first
    assert "no text_c10" in second
    assert "reedscot/cvpr2016" in second
    (birds / "classes.txt").unlink()
    assert [line.split(";")[0] for line in lines_of("cub", birds)] == [f"{birds}: no classes.txt"]


def test_a_broken_cub_table_is_named(birds):
    put(birds / "images.txt", b"1 a.jpg\n2 b.jpg c d\n\xff\n")
    with pytest.raises(PcclipError, match="images.txt: not lines of a number and a value"):
        load("cub", birds)


# ---- karpathy --------------------------------------------------------------------------------------------------------


def entry(number: int, name: str, part: str, raws: list[str], **more) -> dict:
    return {
        "sentids": [5 * number + k for k in range(len(raws))],
        "imgid": number,
        "split": part,
        "filename": name,
        "sentences": [
            {"tokens": raw.lower().split(), "raw": raw, "imgid": number, "sentid": 5 * number + k}
            for k, raw in enumerate(raws)
        ],
        **more,
    }


@pytest.fixture
def flickr(tmp_path):
    entries = [
        entry(0, "1000092795.jpg", "train", ["A cat .", "A small cat ."]),
        entry(1, "10002456.jpg", "train", ["A dog ."]),
        entry(2, "1000268201.jpg", "val", ["A cow ."]),
        entry(3, "1000344755.jpg", "test", ["A pig ."]),
    ]
    put(tmp_path / "dataset_flickr30k.json", json.dumps({"images": entries, "dataset": "flickr30k"}))
    for values in entries:
        put(tmp_path / "flickr30k-images" / values["filename"], jpeg())
    return tmp_path / "dataset_flickr30k.json"


def test_karpathy_splits(flickr):
    images = load("karpathy", flickr, split="official")
    assert dict(zip(images.table.id, images.table.split, strict=True)) == {
        "1000092795": "train",
        "10002456": "train",
        "1000344755": "held_out",
    }
    assert captions_of(images, "1000092795") == ["A cat .", "A small cat ."]
    assert reasons(images) == {"1000268201.jpg": "val split"}


def test_the_val_split_is_not_bad(flickr):
    assert len(load("karpathy", flickr, max_bad=0.0).table) == 3


def test_karpathys_coco_names_folders_and_restval(tmp_path):
    entries = [
        entry(0, "COCO_val2014_000000522418.jpg", "restval", ["A cat."], filepath="val2014", cocoid=522418),
        entry(1, "COCO_val2014_000000184613.jpg", "test", ["A dog."], filepath="val2014", cocoid=184613),
        entry(2, "COCO_train2014_000000318219.jpg", "train", ["A cow."], filepath="train2014", cocoid=318219),
    ]
    path = put(tmp_path / "dataset_coco.json", json.dumps({"images": entries, "dataset": "coco"}))
    for values in entries:
        put(tmp_path / values["filepath"] / values["filename"], jpeg())
    table = load("karpathy", path, split="official").table
    assert dict(zip(table.id, table.split, strict=True)) == {
        "train2014/COCO_train2014_000000318219": "train",
        "val2014/COCO_val2014_000000522418": "train",
        "val2014/COCO_val2014_000000184613": "held_out",
    }


def test_karpathy_that_is_not_there(tmp_path, flickr):
    first, second = lines_of("karpathy", tmp_path / "nowhere" / "dataset_flickr8k.json")
    assert "dataset_flickr8k.json: not there; download http://cs.stanford.edu/" in first
    assert "no image folder" in second
    shutil.rmtree(tmp_path / "flickr30k-images")
    assert [line.split(" (")[0] for line in lines_of("karpathy", flickr)] == [f"{tmp_path}: no image folder"]
    (line,) = lines_of("karpathy", flickr, images=str(tmp_path / "elsewhere"))
    assert "elsewhere: no such folder; set data.images" in line


@pytest.mark.parametrize("name", ["images", "Flicker8k_Dataset", "mine"])
def test_karpathy_image_folders(tmp_path, flickr, name):
    (tmp_path / "flickr30k-images").rename(tmp_path / name)
    given = {"images": str(tmp_path / name)} if name == "mine" else {}
    assert len(load("karpathy", flickr, **given).table) == 3


def test_karpathy_bad_rows(flickr):
    values = json.loads(flickr.read_text())
    values["images"][0]["sentences"] = [{"raw": " "}]
    values["images"][1]["split"] = "extra"
    values["images"] += [entry(4, "gone.jpg", "train", ["A hen ."]), entry(5, "1000268201.jpg", "train", ["A fox ."])]
    flickr.write_text(json.dumps(values))
    images = load("karpathy", flickr, max_bad=0.7)
    assert reasons(images) == {
        "1000092795.jpg": "no caption",
        "10002456.jpg": "extra split",
        "1000268201.jpg": "val split",
        "gone.jpg": "missing file",
    }
    with pytest.raises(PcclipError, match="3 of 5 rows are bad"):
        load("karpathy", flickr, max_bad=0.5)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"images": [{"filename": "a.jpg"}]}', "not one of Karpathy's files"),
        ('{"images": ["a.jpg"]}', "not one of"),
        ("{", "cannot be read as JSON"),
        ('{"dataset": "coco"}', "has no list 'images'"),
    ],
)
def test_a_broken_karpathy_file_is_named(flickr, content, message):
    flickr.write_text(content)
    with pytest.raises(PcclipError, match=f"dataset_flickr30k.json: {message}"):
        load("karpathy", flickr)


def test_coco_with_the_validation_set_alone(tmp_path):
    make_val = {"images": [{"id": k, "file_name": f"{k}.jpg"} for k in range(5)], "annotations": []}
    make_val["annotations"] = [{"image_id": k, "caption": f"A {noun}."} for k, noun in enumerate(NOUNS[:5])]
    (tmp_path / "annotations").mkdir()
    (tmp_path / "annotations" / "captions_val2017.json").write_text(json.dumps(make_val))
    (tmp_path / "val2017").mkdir()
    for k in range(5):
        (tmp_path / "val2017" / f"{k}.jpg").write_bytes(jpeg(k))
    images = load("coco", tmp_path)
    assert (len(images.table), set(images.table.split)) == (5, {"train", "held_out"})
    assert any("train2017" in line for line in lines_of("coco", tmp_path, split="official"))


@pytest.mark.parametrize("folder", ["Images", "val2014"])
def test_karpathy_with_another_folder_or_one_of_two(tmp_path, folder):
    coco = folder == "val2014"
    entries = [
        {"filename": f"{k}.jpg", "split": split, "sentences": [{"raw": f"A {noun}."}]}
        | ({"filepath": place} if coco else {})
        for k, (noun, split, place) in enumerate(
            [
                ("cat", "restval", "val2014"),
                ("dog", "test", "val2014"),
                ("cow", "train", "train2014"),
                ("pig", "test", "../x"),
            ]
        )
    ]
    (tmp_path / "dataset_coco.json").write_text(json.dumps({"images": entries}))
    (tmp_path / folder).mkdir()
    for k in (0, 1):
        (tmp_path / folder / f"{k}.jpg").write_bytes(jpeg(k))
    images = load("karpathy", tmp_path / "dataset_coco.json", split="official", max_bad=0.5)
    assert list(images.table.caption) == ["A cat.", "A dog."]
    missing = ["folder not there", "outside its folder"] if coco else ["missing file"] * 2
    assert list(images.left_out.reason) == missing


# ---- webdataset ------------------------------------------------------------------------------------------------------


def write_tar(path: Path, members: dict[str, bytes | str]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for name, content in members.items():
            content = content.encode() if isinstance(content, str) else content
            header = tarfile.TarInfo(name)
            header.size = len(content)
            tar.addfile(header, io.BytesIO(content))
    return path


def shard(path: Path, nouns: list[str], first: int = 0) -> Path:
    """img2dataset's layout: KEY.jpg, KEY.txt, KEY.json."""
    members = {}
    for k, noun in enumerate(nouns, first):
        members |= {
            f"{k:09d}.jpg": jpeg(10 * k),
            f"{k:09d}.txt": f"A {noun}.\n",
            f"{k:09d}.json": json.dumps({"caption": "unused", "url": "x", "status": "success", "width": 8}),
        }
    return write_tar(path, members)


@pytest.fixture
def shards(tmp_path):
    shard(tmp_path / "shards" / "00000.tar", NOUNS[:3])
    shard(tmp_path / "shards" / "00001.tar", NOUNS[3:], first=3)
    return tmp_path / "shards"


@pytest.mark.parametrize("pattern", ["", "*.tar", "{00000..00001}.tar", "0000[01].tar"])
def test_shards_are_indexed_where_they_are(shards, pattern):
    images = load("webdataset", shards / pattern)
    assert list(images.table.id) == [f"0000{k // 3}/{k:09d}" for k in range(6)]
    assert list(images.table.caption) == [f"A {noun}." for noun in NOUNS]
    assert [open_image(path).getpixel((4, 4))[0] for path in images.table.path] == pytest.approx(
        [10 * k for k in range(6)], abs=2
    )
    assert len(list(shards.iterdir())) == 2


def test_a_shard_is_read_again_only_when_it_changed(shards, monkeypatch):
    first = load("webdataset", shards).table
    monkeypatch.setattr(
        "pcclip.data.sources.webdataset._read_shard", lambda tar: [{"path": tar, "label": None, "reason": "read again"}]
    )
    assert load("webdataset", shards).table.equals(first)
    shard(shards / "00001.tar", NOUNS[3:5], first=3)
    images = load("webdataset", shards, max_bad=0.4)
    assert list(images.table.id) == list(first.id[:3])
    assert list(images.left_out.reason) == ["read again"]


def test_a_damaged_index_is_made_again(shards, tmp_path):
    table = load("webdataset", shards).table
    for index in (tmp_path / "cache" / "shards").iterdir():
        put(index, index.read_bytes().replace(b"A ", b"B "))
    assert load("webdataset", shards).table.equals(table)


def test_one_shard_of_two(shards):
    assert len(load("webdataset", shards / "00001.tar").table) == 3


def test_json_gives_caption_id_and_label(tmp_path):
    write_tar(
        tmp_path / "a.tar",
        {
            "./x/1.png": jpeg(kind="PNG"),
            "./x/1.json": json.dumps({"text": "A cat.", "id": 77, "label": "pet"}),
            "x/2.webp": jpeg(kind="WEBP"),
            "x/2.json": json.dumps({"caption": ["A dog.", "", "The dog."], "label": 3}),
            "x/3.JPEG": jpeg(),
            "x/3.seg.png": b"mask",
            "x/3.json": json.dumps({"caption": None, "text": "A cow."}),
        },
    )
    images = load("webdataset", tmp_path)
    table = images.table.set_index("id")
    assert dict(table.caption) == {"77": "A cat.", "a/x/2": "A dog.", "a/x/3": "A cow."}
    assert captions_of(images, "a/x/2") == ["A dog.", "The dog."]
    assert list(table.label[["77", "a/x/2"]]) == ["pet", "3"]
    assert table.label.isna()["a/x/3"]
    assert all(open_image(path).size == (8, 8) for path in table.path)


def test_samples_that_cannot_be_used(shards):
    write_tar(
        shards / "00002.tar",
        {
            "a.jpg": jpeg(),
            "a.txt": " \n",
            "b.txt": "A bee.",
            "c.jpg": jpeg(),
            "c.json": '{"caption": ',
            "d.jpg": jpeg(),
            "e.jpg": jpeg(),
            "e.json": "[]",
            "f.tif": jpeg(),
            "f.txt": "A bat.",
        },
    )
    images = load("webdataset", shards, max_bad=0.6)
    assert len(images.table) == 6
    found = {
        path.rsplit("#", 1)[1].split(".")[0]: reason
        for path, reason in zip(images.left_out.path, images.left_out.reason, strict=True)
    }
    assert found == {
        "a": "no caption",
        "b": "no image",
        "c": "broken JSON",
        "d": "no caption",
        "e": "broken JSON",
        "f": "no image",
    }
    with pytest.raises(PcclipError, match="6 of 12 rows are bad"):
        load("webdataset", shards, max_bad=0.4)


def test_a_key_used_twice_is_bad(shards):
    with tarfile.open(shards / "00001.tar", "a") as tar:
        tar.addfile(tarfile.TarInfo("000000003.jpg"))
    assert reasons(load("webdataset", shards, max_bad=0.2)) == {"00001.tar#000000003": "key used twice"}


@pytest.mark.parametrize(
    ("cut", "kept"),
    [
        (lambda tar: tar.getmember("000000005.jpg").offset_data + 100, 2),  # within an image
        (lambda tar: tar.getmember("000000005.jpg").offset + 100, 2),  # within a header
        (lambda tar: tar.getmember("000000005.txt").offset, 2),  # between two members of one sample
        (lambda tar: tar.getmember("000000004.txt").offset_data + 1, 1),
        (lambda tar: tar.getmember("000000005.json").offset_data, 3),  # the last sample has what it needs
        (lambda tar: 100, 0),
    ],
)
def test_a_shard_cut_short_has_as_many_bad_rows_as_it_lacks(shards, cut, kept):
    path = shards / "00001.tar"
    with tarfile.open(path) as tar:
        end = cut(tar)
    os.truncate(path, end)
    images = load("webdataset", shards, max_bad=0.5)
    assert len(images.table) == 3 + kept
    assert len(images.left_out) == max(3 - kept, 1), "the other shard has three"
    assert reasons(images) == {"00001.tar": "shard cut short" if kept else "not an uncompressed tar file"}
    assert all(open_image(path).size == (8, 8) for path in images.table.path)


def test_a_damaged_header_is_not_the_end(shards):
    path = shards / "00001.tar"
    with tarfile.open(path) as tar:
        at = tar.getmember("000000004.jpg").offset
    with open(path, "rb+") as file:
        file.seek(at)
        file.write(b"\xff" * 512)
    images = load("webdataset", shards, max_bad=0.3)
    assert len(images.table) == 5, "reading goes on at the next header"
    assert reasons(images) == {"00001.tar#000000004": "no image"}


def test_what_a_damaged_shard_loses_is_counted(tmp_path):
    path = shard(tmp_path / "00000.tar", [f"thing{k}" for k in range(100)])
    with tarfile.open(path) as tar:
        first, last = tar.getmember("000000010.jpg").offset, tar.getmember("000000060.jpg").offset
    content = bytearray(path.read_bytes())
    content[first + 7] ^= 1  # one byte of a header: one image is lost
    path.write_bytes(content)
    images = load("webdataset", tmp_path, max_bad=0.02)
    assert (len(images.table), list(images.left_out.reason)) == (99, ["no image"])
    content[first:last] = b"\xff" * (last - first)
    path.write_bytes(content)
    with pytest.raises(PcclipError, match=r"50 of 100 rows are bad \(50 lost in a damaged shard\)"):
        load("webdataset", tmp_path)
    (tmp_path / "00000_stats.json").write_text(json.dumps({"successes": 120}))
    os.utime(path, (1, 1))
    with pytest.raises(PcclipError, match=r"70 of 120 rows are bad"):
        load("webdataset", tmp_path)


def test_zeros_of_a_download_that_never_ended_are_no_end(tmp_path):
    path = shard(tmp_path / "0.tar", [f"thing{k}" for k in range(60)])
    with tarfile.open(path) as tar:
        first, last = tar.getmember("000000020.jpg").offset, tar.getmember("000000025.jpg").offset
    content = path.read_bytes()
    path.write_bytes(content[:first] + bytes(last - first) + content[last:])
    images = load("webdataset", path, max_bad=0.3)
    assert (len(images.table), list(images.left_out.reason)) == (55, ["lost in a damaged shard"] * 5)
    path.write_bytes(content[:first] + bytes(len(content) - first))
    with pytest.raises(PcclipError, match=r"4\d of 6\d rows are bad"):
        load("webdataset", path)
    path.write_bytes(content + shard(tmp_path / "1.tar", ["end"], 60).read_bytes())  # one archive behind another
    images = load("webdataset", path)
    assert (len(images.table), len(images.left_out)) == (61, 0)


def test_captions_of_shards_are_texts_in_any_encoding(tmp_path):
    write_tar(
        tmp_path / "a.tar",
        {
            "1.jpg": jpeg(),
            "1.txt": "\ufeffA cat.",
            "2.jpg": jpeg(),
            "2.txt": "A café.".encode("cp1252"),
            "3.jpg": jpeg(),
            "3.json": json.dumps({"caption": {"en": "A dog."}}),
            "4.jpg": jpeg(),
            "4.json": json.dumps({"caption": ["A cow.", ["a", "b"]]}),
            "5.jpg": jpeg(),
            "5.json": '{"caption": "A \\ud83d fox."}',  # half a pair
            "6.jpg": jpeg(),
            "6.txt": "A bee.".encode("utf-16-le"),
            "7.jpg": jpeg(),
            "7.json": "[" * 100_000,
        },
    )
    images = load("webdataset", tmp_path, max_bad=0.6)
    assert list(images.table.caption) == ["A cat.", "A café.", "A \ufffd fox."]
    assert sorted(images.left_out.reason) == ["broken JSON"] + ["caption is no text"] * 3


def test_a_compressed_shard_is_refused(shards):
    with tarfile.open(shards / "00002.tar", "w:gz") as tar:
        tar.add(shards / "00000.tar")
    with pytest.raises(PcclipError, match=r"3 of 9 rows are bad \(3 not an uncompressed tar file\)"):
        load("webdataset", shards, max_bad=0.2)


def test_shards_that_are_not_there(shards, tmp_path):
    for nothing in ("nowhere", "*.tgz", "x.tar"):
        (line,) = lines_of("webdataset", tmp_path / nothing)
        assert "no .tar shards; data.path is a folder of them or a pattern such as shards/{00000..00009}.tar" in line
    (line,) = lines_of("webdataset", shards / "{00000..00009}.tar")
    assert line == f"{shards}/00002.tar: not there, nor are 7 others of the 10 shards"
    with pytest.raises(PcclipError, match="data source webdataset: .*00002.tar: not there"):
        load("webdataset", shards / "{00000..00009}.tar")


def test_identity_notices_a_changed_shard_and_looks_at_each_once(shards, monkeypatch):
    images = load("webdataset", shards)
    looked, stat = [], os.stat
    monkeypatch.setattr(os, "stat", lambda path, **options: looked.append(path) or stat(path, **options))
    before = images.identity()
    assert sorted(looked) == [str(shards / "00000.tar"), str(shards / "00001.tar")]
    os.utime(shards / "00001.tar", (1, 1))
    assert images.identity() != before


def test_shards_have_no_official_split(shards):
    with pytest.raises(PcclipError, match="data source webdataset: has no official split"):
        load("webdataset", shards, split="official")


# ---- huggingface -----------------------------------------------------------------------------------------------------


@pytest.fixture
def hf(tmp_path):
    """A function that saves a data set by save_to_disk and returns its folder."""
    import datasets

    def save(texts: list, name: str = "saved", kind=None, pictures: list | None = None, text: str = "caption", **more):
        pictures = pictures or [{"bytes": jpeg(10 * k), "path": None} for k in range(len(texts))]
        features = {"image": datasets.Image(), text: kind or datasets.Value("string")}
        columns = {"image": pictures, text: texts}
        for column, (feature, values) in more.items():
            features[column], columns[column] = feature, values
        made = datasets.Dataset.from_dict(columns, features=datasets.Features(features))
        made.save_to_disk(str(tmp_path / name))
        return tmp_path / name

    return save


SENTENCES = [f"A {noun}." for noun in NOUNS]


def test_a_saved_data_set(hf, tmp_path):
    images = load("huggingface", hf(SENTENCES))
    assert list(images.table.caption) == SENTENCES
    assert list(images.table.id) == [f"{k:07d}" for k in range(6)]
    (folder,) = (tmp_path / "cache" / "huggingface").iterdir()
    assert sorted(folder.iterdir()) == [Path(path) for path in images.table.path]
    assert [Path(path).read_bytes() for path in images.table.path] == [jpeg(10 * k) for k in range(6)]


def test_images_are_written_once_and_mended(hf):
    saved = hf(SENTENCES)
    table = load("huggingface", saved).table
    put(Path(table.path[0]), "cut")
    put(Path(table.path[2]), bytes(len(jpeg(20))))  # as a power cut may leave it
    os.utime(table.path[1], (1, 1))
    load("huggingface", saved)
    assert [Path(table.path[k]).read_bytes() for k in (0, 2)] == [jpeg(0), jpeg(20)]
    assert os.stat(table.path[1]).st_mtime == 1


def test_another_data_set_has_another_folder(hf):
    first, second = (load("huggingface", hf(SENTENCES[:n], name=f"saved{n}")).table.path[0] for n in (5, 6))
    assert Path(first).parent != Path(second).parent


def test_lists_of_captions_classes_and_ids(hf):
    import datasets

    saved = hf(
        [["A cat.", "", None, "The cat."], ["A dog."], ["A cow."]],
        kind=datasets.List(datasets.Value("string")),
        text="sentences",
        animal=(datasets.ClassLabel(names=["pet", "farm animal"]), [0, 0, 1]),
        key=(datasets.Value("int64"), [30, 20, 10]),
    )
    images = load("huggingface", saved, columns={"id": "key"})
    assert dict(zip(images.table.id, images.table.label, strict=True)) == {
        "30": "pet",
        "20": "pet",
        "10": "farm animal",
    }
    assert captions_of(images, "30") == ["A cat.", "The cat."]
    assert images.classes == ["farm animal", "pet"]


def test_a_set_names_no_file_outside_itself_unless_it_may(tmp_path, monkeypatch):
    import datasets
    import pyarrow.parquet as pq

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "hf")
    put(tmp_path / "mine.jpg", jpeg(7))
    pictures = [{"bytes": jpeg(k), "path": None} for k in range(5)]
    pictures.append({"bytes": None, "path": str(tmp_path / "mine.jpg")})
    features = datasets.Features({"image": datasets.Image(), "caption": datasets.Value("string")})
    made = datasets.Dataset.from_dict({"image": pictures, "caption": SENTENCES}, features=features)
    (tmp_path / "set").mkdir()
    pq.write_table(made.data.table, tmp_path / "set" / "train.parquet")
    images = load("huggingface", tmp_path / "set", max_bad=0.4)
    assert list(images.left_out.reason) == ["outside the set (data.absolute_paths)"]
    assert len(load("huggingface", tmp_path / "set", absolute_paths=True).table) == 6


def test_rows_that_cannot_be_used(hf):
    import datasets

    pictures = [{"bytes": jpeg(k), "path": f"{k}.jpg"} for k in range(4)] + [None]
    saved = hf(
        [*SENTENCES[:3], "  ", "A hen."],
        pictures=pictures,
        kept=(datasets.ClassLabel(names=["no", "yes"]), [0, -1, None, 1, 1]),
    )
    images = load("huggingface", saved, max_bad=0.4)
    assert sorted(images.left_out.reason) == ["no caption", "no image"]
    assert list(images.table.label.fillna("none")) == ["no", "none", "none"]
    with pytest.raises(PcclipError, match="2 of 5 rows are bad"):
        load("huggingface", saved, max_bad=0.3)


def test_columns_are_given_where_they_cannot_be_told(hf):
    import datasets

    saved = hf(
        SENTENCES,
        text="first_text",
        other=(datasets.Value("string"), [s.upper() for s in SENTENCES]),
        number=(datasets.Value("int64"), range(6)),
    )
    with pytest.raises(PcclipError, match=r"which column is the text \(image, first_text, other, number\); set"):
        load("huggingface", saved)
    assert list(load("huggingface", saved, columns={"text": "other"}).table.caption) == [s.upper() for s in SENTENCES]
    with pytest.raises(PcclipError, match="columns.text = 'nope': .* has no such column; it has image, first_text"):
        load("huggingface", saved, columns={"text": "nope"})
    with pytest.raises(PcclipError, match="column 'number' holds no images"):
        load("huggingface", saved, columns={"text": "other", "image": "number"})
    with pytest.raises(PcclipError, match="no usable image; left out: 6 missing file"):
        load("huggingface", saved, columns={"text": "other", "image": "first_text"})


def test_the_usual_name_wins_among_several_texts(hf):
    import datasets

    saved = hf(SENTENCES, title=(datasets.Value("string"), ["x"] * 6))
    assert list(load("huggingface", saved).table.caption) == SENTENCES


def test_part_is_a_split(hf, tmp_path):
    import datasets

    made = datasets.load_from_disk(str(hf(SENTENCES)))
    both = tmp_path / "both"
    datasets.DatasetDict({"train": made.select(range(4)), "test": made.select(range(4, 6))}).save_to_disk(str(both))
    assert list(load("huggingface", both).table.caption) == SENTENCES[:4]
    assert list(load("huggingface", both, part="test").table.caption) == SENTENCES[4:]
    with pytest.raises(PcclipError, match="both: cannot be opened as a data set .*dev"):
        load("huggingface", both, part="dev")


def test_a_folder_that_load_dataset_understands(tmp_path, monkeypatch):
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "hf")
    for k, noun in enumerate(NOUNS):
        put(tmp_path / "photos" / "train" / f"{noun}.jpg", jpeg(k))
    rows = "".join(f"{noun}.jpg,A {noun}.\n" for noun in NOUNS)
    put(tmp_path / "photos" / "train" / "metadata.csv", f"file_name,text\n{rows}")
    table = load("huggingface", tmp_path / "photos").table
    assert sorted(table.caption) == sorted(SENTENCES)
    assert {Path(path) for path in table.path} == set((tmp_path / "photos" / "train").resolve().glob("*.jpg"))


@pytest.fixture
def no_network(monkeypatch):
    """Every attempt to reach another machine is recorded and fails; the switches start as they are by default."""
    import datasets
    import huggingface_hub

    for module, name in [
        (datasets.config, "HF_HUB_OFFLINE"),
        (datasets.config, "HF_DATASETS_OFFLINE"),
        (huggingface_hub.constants, "HF_HUB_OFFLINE"),
    ]:
        monkeypatch.setattr(module, name, False)
    monkeypatch.setattr(time, "sleep", lambda seconds: None)  # between attempts
    attempts = []

    def refuse(*args, **options):
        attempts.append(args)
        raise OSError("no network here")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(socket.socket, "connect", refuse)
    return attempts


def test_nothing_is_downloaded_unasked(no_network, tmp_path, monkeypatch):
    import datasets
    import huggingface_hub

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "hf")
    (line,) = lines_of("huggingface", "owner/set-of-nobody")
    assert "nothing is downloaded unless data.download is true" in line
    assert "datasets.load_dataset('owner/set-of-nobody')" in line
    assert "\n" not in line
    with pytest.raises(PcclipError, match="data source huggingface: owner/set-of-nobody: cannot be opened"):
        load("huggingface", "owner/set-of-nobody")
    assert no_network == []
    assert not huggingface_hub.constants.HF_HUB_OFFLINE  # as it was before
    assert not datasets.config.HF_HUB_OFFLINE


def test_a_download_that_fails_is_one_line(no_network):
    assert lines_of("huggingface", "owner/set-of-nobody", download=True) == []
    with pytest.raises(PcclipError, match="owner/set-of-nobody: cannot be opened as a data set") as error:
        load("huggingface", "owner/set-of-nobody", download=True)
    assert no_network
    assert "\n" not in str(error.value)


def test_a_set_in_the_librarys_cache_needs_no_network(hf, tmp_path, monkeypatch, no_network):
    import datasets

    cached = tmp_path / "hf"
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", cached)
    (tmp_path / "own_set").mkdir()
    datasets.load_from_disk(str(hf(SENTENCES))).to_parquet(str(tmp_path / "own_set" / "train.parquet"))
    datasets.load_dataset(str(tmp_path / "own_set"), split="train", cache_dir=str(cached))
    (cached / "own_set").rename(cached / "owner___own_set")  # where one from the hub lies
    for name in ("owner/own_set", "owner/own_set:default"):
        assert lines_of("huggingface", name) == []
        assert list(load("huggingface", name, part="train[:4]").table.caption) == SENTENCES[:4]
    assert no_network == []


@pytest.mark.parametrize("path", ["/nowhere/at/all", "three/part/name", "./here"])
def test_a_folder_that_is_not_there_is_no_name(path):
    (line,) = lines_of("huggingface", path, download=True)
    assert "no such folder, and not a data set's name on the hub" in line


def test_without_the_library_the_extra_is_named(hf, monkeypatch):
    saved = hf(SENTENCES)
    monkeypatch.setattr(hub, "find_spec", lambda name: None)
    assert lines_of("huggingface", saved) == [
        "source 'huggingface' needs the `datasets` library: pip install 'pcclip[paper]'"
    ]
    with pytest.raises(PcclipError, match=r"pip install 'pcclip\[paper\]'"):
        load("huggingface", saved)
